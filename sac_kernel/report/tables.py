"""Results as a table for a notebook and for a terminal, and how numbers are written in all of them."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from sac_kernel.core import strings
from sac_kernel.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Row = Mapping[str, Any]

INTERVAL = "interval"
_MAX_WIDTH = 100


class Column(NamedTuple):
    """One figure of a result: its key, the factor to the unit shown, decimals, title with unit, short title."""

    key: str
    scale: float
    decimals: int
    title: str
    short: str


_SHOWN = {
    "net_return_frac": (100.0, 2),
    "annual_return_frac": (100.0, 2),
    INTERVAL: (100.0, 2),
    "sharpe_ann": (1.0, 2),
    "max_drawdown_frac": (100.0, 2),
    "turnover_per_day": (1.0, 2),
    "cost_frac": (100.0, 2),
    "trades": (1.0, 0),
}
COLUMNS = tuple(Column(key, *shown, *strings.COLUMNS[key]) for key, shown in _SHOWN.items())


def results_table(rows: Iterable[Row]) -> pd.DataFrame:
    """Return the results with units in the column names, tiers in the order raw, base, retail.

    Parameters
    ----------
    rows : each with policy, tier, net_return_frac, annual_return_frac, low_frac and high_frac (95 %
        interval of the annual return), sharpe_ann, max_drawdown_frac, turnover_per_day, cost_frac,
        trades; an absent value, None or NaN is an empty cell
    """
    ordered = [row for group in by_tier(rows).values() for row in group]
    columns: dict[str, Any] = {
        strings.POLICY: [str(row["policy"]) for row in ordered],
        strings.TIER: [str(row["tier"]) for row in ordered],
    }
    for column in COLUMNS:
        if column.key == INTERVAL:
            columns[column.title] = [interval(row) or "" for row in ordered]
            continue
        numbers = [finite(row.get(column.key)) for row in ordered]
        rounded = [math.nan if x is None else round(column.scale * x, column.decimals) for x in numbers]
        columns[column.title] = pd.Series(rounded, dtype="float64" if column.decimals else "Int64")
    return pd.DataFrame(columns)


def text_table(rows: Iterable[Row]) -> str:
    """Return the results as aligned plain text, one block a tier, at most 100 columns wide."""
    head = [strings.POLICY.lower(), *(column.short for column in COLUMNS)]
    blocks = {
        tier: [[str(row["policy"]), *(text or "-" for text in figures(row))] for row in group]
        for tier, group in by_tier(rows).items()
    }
    lines = [head, *itertools.chain.from_iterable(blocks.values())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    widths[0] = min(widths[0], _MAX_WIDTH - sum(widths[1:]) - len(COLUMNS))
    texts = []
    for tier, block in blocks.items():
        body = [_aligned(cells, widths) for cells in (head, *block)] if block else [strings.NOT_RUN]
        texts.append("\n".join((tier_title(tier), *body)))
    return "\n\n".join(texts) + "\n"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    name = cells[0] if len(cells[0]) <= widths[0] else cells[0][: widths[0] - 3] + "..."
    numbers = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return " ".join((name.ljust(widths[0]), *numbers))


def figures(row: Row) -> list[str | None]:
    """Return the text of each column of a result, None where there is no number."""
    return [
        interval(row) if c.key == INTERVAL else number(row.get(c.key), c.scale, c.decimals) for c in COLUMNS
    ]


def by_tier(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the rows by tier, raw, base, retail first and always there; the order within is kept.

    Raises
    ------
    DataError
        If a row lacks policy or tier.
    """
    groups: dict[str, list[Row]] = {tier: [] for tier in strings.TIERS}
    for i, row in enumerate(rows):
        if row.get("policy") is None or row.get("tier") is None:
            msg = f"report: row {i} of the results needs policy and tier; it has {sorted(row)}"
            raise DataError(msg)
        groups.setdefault(str(row["tier"]), []).append(row)
    return groups


def tier_title(tier: str) -> str:
    """Return a cost tier in words."""
    return strings.TIERS.get(tier, strings.OTHER_TIER.format(tier=tier))


def finite(value: object) -> float | None:
    """Return a number, None for what is none or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        value = getattr(value, "item", lambda: None)()  # a NumPy scalar, or nothing that counts
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


def number(value: object, scale: float = 1.0, decimals: int = 2) -> str | None:
    """Return digits with thousands separators, None where there is no finite number."""
    found = finite(value)
    return None if found is None else f"{round(scale * found, decimals) + 0.0:,.{decimals}f}"


def interval(row: Row) -> str | None:
    """Return the 95 % interval of the annual return in percent, None where there is none."""
    low, high = number(row.get("low_frac"), 100.0), number(row.get("high_frac"), 100.0)
    return None if low is None or high is None else strings.SPAN.format(low=low, high=high)
