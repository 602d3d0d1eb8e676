"""Results as a table for a notebook, and the format of numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from sac_kernel.backtest.policies import Kind
from sac_kernel.core import strings
from sac_kernel.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Row = Mapping[str, Any]

INTERVAL = "interval"
_LARGE = 1e7  # a bound that compounds over years is larger; its digits would push the names out of a table


class Column(NamedTuple):
    """One figure of a result: its key, factor to its unit, decimals, title with unit, short title."""

    key: str
    scale: float
    decimals: int
    title: str
    short: str


_FORMATS = {
    "net_return_frac": (100.0, 2),
    "annual_return_frac": (100.0, 2),
    INTERVAL: (100.0, 2),
    "sharpe_ann": (1.0, 2),
    "max_drawdown_frac": (100.0, 2),
    "turnover_per_day": (1.0, 2),
    "cost_frac": (100.0, 2),
    "trades": (1.0, 0),
}
COLUMNS = tuple(Column(key, *form, *strings.COLUMNS[key]) for key, form in _FORMATS.items())


def results_table(rows: Iterable[Row]) -> pd.DataFrame:
    """Return the results with units in the column names, tiers in the order raw, base, retail.

    Parameters
    ----------
    rows : each with policy, tier, net_return_frac, annual_return_frac, low_frac and high_frac (95 %
        interval of the annual return), sharpe_ann, max_drawdown_frac, turnover_per_day, cost_frac,
        trades; a missing value, None or NaN is an empty cell
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


def short(rows: Iterable[Row], most: int = 8) -> list[Row]:
    """Return at most `most` rows at base cost: agents first, then the baselines that a reader looks for.

    The best baseline is the one with the highest net return, without the bound that knows the future.
    """
    base = by_tier(rows).get("base", [])
    agents = [row for row in base if row.get("kind") == Kind.AGENT]
    others = {str(row["policy"]): row for row in base if row.get("kind") in (Kind.BASELINE, Kind.RANDOM)}
    wanted = [others[name] for name in (strings.HOLD, strings.RANDOM, strings.RIDGE) if name in others]
    best = max(others.values(), key=lambda row: finite(row.get("net_return_frac")) or 0.0, default=None)
    if best is not None and best not in wanted:
        wanted.append(best)
    return [*agents[: most - len(wanted)], *wanted]


def figures(row: Row) -> list[str | None]:
    """Return the text of each column of a result, None where there is no number."""
    return [
        interval(row) if c.key == INTERVAL else number(row.get(c.key), c.scale, c.decimals) for c in COLUMNS
    ]


def by_tier(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the rows by tier, raw, base and retail always first; the order within is kept.

    Raises
    ------
    DataError
        If a row lacks policy or tier.
    """
    groups: dict[str, list[Row]] = {tier: [] for tier in strings.TIERS}
    for i, row in enumerate(rows):
        if row.get("policy") is None or row.get("tier") is None:
            msg = f"Row {i} of the results needs policy and tier. It has {sorted(row)}."
            raise DataError(msg)
        groups.setdefault(str(row["tier"]), []).append(row)
    return groups


def tier_title(tier: str) -> str:
    """Return a cost tier in words."""
    return strings.TIERS.get(tier, strings.OTHER_TIER.format(tier=tier))


def finite(value: object) -> float | None:
    """Return a finite number, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        value = getattr(value, "item", lambda: None)()  # of a NumPy scalar
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


def number(value: object, scale: float = 1.0, decimals: int = 2) -> str | None:
    """Return digits with thousands separators, None where there is no finite number."""
    x = finite(value)
    if x is None:
        return None
    x = round(scale * x, decimals) + 0.0
    return f"{x:.2e}" if decimals and abs(x) >= _LARGE else f"{x:,.{decimals}f}"


def interval(row: Row) -> str | None:
    """Return the 95 % interval of the annual return in percent, None where there is none."""
    low, high = number(row.get("low_frac"), 100.0), number(row.get("high_frac"), 100.0)
    return None if low is None or high is None else strings.SPAN.format(low=low, high=high)
