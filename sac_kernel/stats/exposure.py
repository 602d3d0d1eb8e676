"""Static exposure taken out of a result: return = beta x instrument + timing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sac_kernel.core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]


class Parts(NamedTuple):
    """A result in two parts.

    Attributes
    ----------
    beta : position in the instrument, held all the time, that explains the result best
    static, timing : simple daily returns of that position, and of the rest with all costs; shape (n_days,)
    """

    beta: float
    static: FloatArray
    timing: FloatArray


def parts(daily: FloatArray, instrument: FloatArray) -> Parts:
    """Return the static part of daily returns and the rest: least squares with a constant.

    The mean of `timing` is the regression's constant, Jensen's (1968) alpha.

    Parameters
    ----------
    daily, instrument : simple returns of the same days, shape (n_days,): net of the account, and of one unit of the
        traded instrument without costs

    Raises
    ------
    DataError
        If the two have different numbers of days.
    """
    if daily.shape != instrument.shape:
        msg = f"parts: {daily.size} days of the account and {instrument.size} of the instrument. Pass the same days."
        raise DataError(msg)
    centred = instrument - instrument.mean()
    variance = float(centred @ centred)
    beta = float(centred @ daily) / variance if variance > 0.0 else 0.0
    return Parts(beta, beta * instrument, daily - beta * instrument)
