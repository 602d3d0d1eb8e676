"""Numbers as files write them: exact, with thousands separators, decimal commas or currency signs."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.exceptions import ComplexWarning

from sac_kernel.core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

_SIGNS = r"^\s*[$€£]?|\s+$"
_THOUSANDS = r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_DECIMAL_COMMA = r"[+-]?(?:\d{1,3}(?:\.\d{3})+|\d+)(?:,\d+)?"


def exact_numbers() -> dict[str, Any]:
    """Return options that make `pandas.read_csv` read numbers exactly as Python's `float` does.

    Without them pandas below 3.1 is off by one unit in the last place for three doubles in ten. From 3.1 its
    only parser is exact, and the option is deprecated.
    """
    major, minor = (int(part) for part in pd.__version__.split(".")[:2])
    return {"float_precision": "round_trip"} if (major, minor) < (3, 1) else {}


def to_numbers(frame: pd.DataFrame, where: str, what: str = "open, high, low, close") -> FloatArray:
    """Return the columns as float64, shape (n, columns); texts may have separators that the file proves.

    Raises
    ------
    DataError
        If a text is no number, or every comma may separate thousands as well as decimals.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ComplexWarning)  # complex numbers would lose a part
            return frame.astype(np.float64).to_numpy()
    except (ValueError, TypeError, OverflowError, ComplexWarning) as err:
        first = str(err).splitlines()[0][:200] if str(err) else type(err).__name__
        numbers = _localised(frame, where)
        if numbers is None:
            msg = f"{where}: {what} must be numbers: {first}"
            raise DataError(msg) from err
        return numbers


def _localised(frame: pd.DataFrame, where: str) -> FloatArray | None:
    """Return numbers whose separators all texts agree on; None if they are no numbers."""
    # As objects, so that every pandas matches with Python's own regular expressions.
    texts = [frame[name].astype(str).astype(object) for name in frame.columns]
    columns = [text.str.replace(_SIGNS, "", regex=True) for text in texts]
    thousands, decimal = (
        all(bool(text.str.fullmatch(form).all()) for text in columns) for form in (_THOUSANDS, _DECIMAL_COMMA)
    )
    with_comma = any(bool(text.str.contains(",", regex=False).any()) for text in columns)
    if thousands and decimal and with_comma:
        sample = next(t for text in columns for t in text if "," in t)
        msg = (
            f"{where}: the comma in {sample!r} may separate thousands or decimals, and no number of the file shows "
            "which. Write decimals with a point."
        )
        raise DataError(msg)
    if not thousands and not decimal:
        return None
    if thousands:
        plain = [text.str.replace(",", "", regex=False) for text in columns]
    else:
        plain = [
            text.str.replace(".", "", regex=False).str.replace(",", ".", regex=False) for text in columns
        ]
    return np.stack([text.to_numpy(object).astype(np.float64) for text in plain], axis=1)
