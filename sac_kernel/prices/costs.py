"""Trading costs and trading hours of an instrument: spread, commission, slippage, swap, freeze, trading day.

All costs are positive when paid. Everything here depends on the clock, the spec and the tier; only `spread_of` may
read a column of the bars.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sac_kernel.core.errors import DataError
from sac_kernel.prices.clocks import unix_seconds, utc_offsets
from sac_kernel.prices.instruments import EURUSD, TIERS, WEEKDAYS, InstrumentSpec, minute_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]
    Moments = pd.DatetimeIndex | IntArray
    """UTC times; integers are Unix seconds."""

NEW_YORK = "America/New_York"
RENAMED_TIERS = {"spec": "retail"}
COST_TIERS = dict(zip(TIERS, EURUSD.tiers, strict=True))
"""Factor on commission, slippage and the whole spread table, of pairs of currencies (`InstrumentSpec.tiers`).
EURUSD's one-way cost in normal hours, half spread included: raw 0.36 bps (an ECN account), base 0.75 (the headline),
retail 3.5 (an expensive account). Other kinds and own costs: x .5, x 1, x 2."""

_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday
_DAY_S = 86_400
_DAY_MIN = 1440


def spread_bps(moment: Moments, tier: str, spec: InstrumentSpec = EURUSD, bar_seconds: int = 0) -> FloatArray:
    """Return the full spread in bps of price at each UTC moment by the spec's profile, shape (n,).

    A daily bar of an exchange is labelled with a time outside its session; it has the normal spread.
    """
    normal = spec.spread_bps * spec.factor(tier)
    if spec.session and bar_seconds >= _DAY_S:
        return np.full(len(moment), normal)
    profile = np.array(spec.spread_widening)
    return np.asarray(normal * profile[local_minute(moment, spec.zone) // 30])


def spread_of(
    bars: pd.DataFrame, moment: Moments, tier: str, spec: InstrumentSpec = EURUSD, bar_seconds: int = 0
) -> FloatArray:
    """Return the full spread of bars in bps of price, from their own column or at each moment; shape (n,).

    Raises
    ------
    DataError
        If the spec takes the spread from a column that the bars lack.
    """
    if spec.spread_from != "column":
        return spread_bps(moment, tier, spec, bar_seconds)
    if "spread" in bars:
        return np.asarray(bars["spread"].to_numpy(np.float64) * (1e4 * spec.factor(tier)))
    msg = (
        f"The bars of {spec.symbol} have no column spread. Pass --costs spread_bps=..., or bars that have it."
    )
    raise DataError(msg)


def one_way_bps(moment: Moments, tier: str, spec: InstrumentSpec = EURUSD) -> FloatArray:
    """Return half spread + commission + slippage in bps at each UTC moment, shape (n,), without that a lot."""
    fees = (spec.commission_bps + spec.slippage_bps) * spec.factor(tier)
    return spread_bps(moment, tier, spec) / 2.0 + fees


def normal_one_way_bps(tier: str, spec: InstrumentSpec = EURUSD, price: float = math.inf) -> float:
    """Return half spread + commission + slippage in bps outside the widened half hours, at a price."""
    factor = spec.factor(tier)
    normal = spec.spread_bps * factor * min(spec.spread_widening)
    lots = 1e4 * spec.commission_per_unit * factor / price
    return float(normal / 2.0 + (spec.commission_bps + spec.slippage_bps) * factor + lots)


def is_tradable(moment: Moments, spec: InstrumentSpec = EURUSD, bar_seconds: int = 0) -> NDArray[np.bool_]:
    """Return whether exposure can change at each UTC moment: not in the freeze, 16:45 to 19:00 New York for FX.

    Bids fall as the spread widens at 17:00 and recover afterwards, which looks like an edge on bid bars but is not
    one.
    """
    start, end = spec.frozen(bar_seconds)
    if start == end:
        return np.ones(len(moment), bool)
    minute = local_minute(moment, spec.zone)
    return (minute < start) | (minute >= end)


def hours_to_rollover(moment: Moments, spec: InstrumentSpec = EURUSD) -> FloatArray:
    """Return hours from each UTC moment to the next rollover or, of an exchange, close; in (0, 24]."""
    minute = local_minute(moment, spec.zone)
    waits = [(end - 1 - minute) % _DAY_MIN + 1 for end in spec.day_ends_min]
    return np.asarray(np.minimum.reduce(waits)) / 60.0


def trading_day(moment: Moments, spec: InstrumentSpec = EURUSD) -> IntArray:
    """Return the number of the trading day of each UTC moment; FX days run from 17:00 to 17:00 New York."""
    return (_local_seconds(moment, spec.zone) + (-spec.day_start_min % _DAY_MIN) * 60) // _DAY_S


def swap_nights(after: Moments, until: Moments, spec: InstrumentSpec = EURUSD) -> IntArray:
    """Return the rollovers charged in each interval (after, until], three on the triple day."""
    total = np.zeros(len(until), np.int64)
    for text in spec.rollover:
        at = minute_of(text, spec.symbol)
        total += _nights_until(until, at, spec) - _nights_until(after, at, spec)
    return total


def new_york_minute(moment: Moments) -> IntArray:
    """Return the minute of the New York day, 0 to 1439, of each UTC moment."""
    return local_minute(moment, NEW_YORK)


def local_minute(moment: Moments, zone: str) -> IntArray:
    """Return the minute of the local day, 0 to 1439, of each UTC moment."""
    return _local_seconds(moment, zone) // 60 % _DAY_MIN


def describe(spec: InstrumentSpec, price: float) -> list[str]:
    """Return what applies to an instrument at a price, in bps and price steps: for the build, headers and reports."""
    step_bps = 1e4 * spec.price_step / price
    one_way = {tier: normal_one_way_bps(tier, spec, price) for tier in TIERS}
    ways = ", ".join(f"{tier} {bps:.3g} bps ({_steps(bps / step_bps)})" for tier, bps in one_way.items())
    widest = max(spec.spread_widening)
    spread = (
        "the file's own column"
        if spec.spread_from == "column"
        else (
            f"{spec.spread_bps:g} bps ({_steps(spec.spread_bps / step_bps)})"
            + (f", up to x{widest:g} by half hour" if widest > 1 else "")
        )
    )
    commission = f"{spec.commission_bps:g} bps"
    if spec.commission_per_lot:
        commission += f" + {spec.commission_per_lot:g} {spec.quote} a {'unit' if spec.lot == 1 else 'lot'}"
    factors = ", ".join(f"{tier} x{spec.factor(tier):.3g}" for tier in TIERS)
    nights = (
        f"long {spec.swap_long_bps:g}, short {spec.swap_short_bps:g} bps at {', '.join(spec.rollover)} {spec.zone}"
        + (f", three on {spec.triple_day.capitalize()}" if spec.triple_day else "")
        if spec.rollover
        else "none"
    )
    week = {"fx_week": "Sunday to Friday 17:00 New York", "always": "at all times"}
    hours = week.get(spec.calendar, f"{'-'.join(spec.session)} {spec.zone}")
    frozen = f"none {'-'.join(spec.freeze)} below 4 h bars" if spec.freeze else "at all hours"
    return [
        f"{spec.symbol} ({spec.kind}): one way {ways}; a step is {spec.price_step:g} {spec.quote}",
        f"spread {spread}; commission {commission}, slippage {spec.slippage_bps:g} bps a side; tiers {factors}",
        f"swap {nights}",
        f"open {hours}, orders {frozen}; {spec.days_a_year} trading days a year",
    ]


def _steps(steps: float) -> str:
    return f"{steps:,.{0 if steps >= 100 else 1}f} steps"


def _local_seconds(moment: Moments, zone: str) -> IntArray:
    if len(moment) == 0:
        return np.zeros(0, np.int64)
    utc = moment if isinstance(moment, np.ndarray) else unix_seconds(moment)
    first, last = int(utc.min()), int(utc.max())
    return utc + utc_offsets(np.array([first, last]), zone)[utc // 3600 - first // 3600]


def _nights_until(moment: Moments, rollover_min: int, spec: InstrumentSpec) -> IntArray:
    # The last day whose rollover has passed.
    day = (_local_seconds(moment, spec.zone) - rollover_min * 60) // _DAY_S
    week, weekday = np.divmod(day + _EPOCH_WEEKDAY, 7)
    nights = np.array(_nights_by_weekday(spec))
    return week * nights.sum() + np.cumsum(nights)[weekday]


def _nights_by_weekday(spec: InstrumentSpec) -> list[int]:
    """Return how many nights each weekday's rollover charges, Monday first."""
    if not spec.triple_day:
        return [1] * 7
    return [3 if day == spec.triple_day else 1 for day in WEEKDAYS[:5]] + [0, 0]
