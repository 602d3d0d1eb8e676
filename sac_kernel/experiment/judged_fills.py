"""Somebody's fills: those that the bars cannot have given, the account as it was filled, and targets for the engine.

A fill changes the exposure, notional over equity. The engine takes it up at the first open that is not before the
fill and holds its units until the next one, as the account did.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sac_kernel.backtest import runner
from sac_kernel.backtest.policies import Kind, PolicyId
from sac_kernel.backtest.runner import EpisodeResult
from sac_kernel.core import files, home_strings
from sac_kernel.core.config import require
from sac_kernel.core.errors import DataError
from sac_kernel.experiment.judged import Judged, market_of
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.records import COSTS
from sac_kernel.prices import costs
from sac_kernel.prices.bars import open_seconds
from sac_kernel.prices.ingest.fill_file import Fills, read_fills

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from sac_kernel.market.market import Market
    from sac_kernel.prices.bars import Bars
    from sac_kernel.prices.ingest.whole import WholeBars

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

MAX_IMPOSSIBLE = 0.25
"""Share of impossible fills above which a file is refused: it belongs to other bars, or another clock."""
MAX_CAP = 30.0
"""Largest exposure that the engine's account may have."""
_SHOWN = 50
_NAMED = 5
_DUST = 1e-9  # of a fill's size: rounding, not a position


class Impossible(NamedTuple):
    """A fill that the bars cannot have given."""

    row: int
    line: int
    time: pd.Timestamp
    key: str
    why: str


def impossible(fills: Fills, bars: Bars) -> list[Impossible]:
    """Return the fills that bars cannot have given, in time order.

    A buy must lie between the lowest ask and the highest of the bar that covers its time, a sell between the bids, and
    a price step more. The bound that is good for the account has the spread of the raw tier, the other that of the
    retail tier. Mid bars may be an exchange's trades, which a resting order gets: their good bound has no spread. At
    the moment between two bars either will do.
    """
    spec = bars.spec
    assert spec
    opened, seconds = _nanoseconds(bars), bars.seconds * 10**9
    time = fills.time.as_unit("ns").asi8
    at = np.searchsorted(opened, time, side="right") - 1
    k = np.clip(at, 0, len(bars) - 1)
    covered = (at >= 0) & (time <= opened[k] + seconds)
    before = np.maximum(k - 1, 0)
    between = (time == opened[k]) & (k > 0) & (opened[before] + seconds == opened[k])
    low, high = _bounds(bars, fills.side, k)
    low_before, high_before = _bounds(bars, fills.side, before)
    low = np.where(between, np.minimum(low, low_before), low) - spec.price_step
    high = np.where(between, np.maximum(high, high_before), high) + spec.price_step
    reasons = {
        "size": ~(fills.size > 0.0) | ~np.isfinite(fills.size),
        "price": ~(fills.price > 0.0) | ~np.isfinite(fills.price),
        "before": at < 0,
        "after": time > opened[-1] + seconds,
        "closed": ~covered,
        "range": ~((fills.price >= low) & (fills.price <= high)),
    }
    found = []
    for row in np.flatnonzero(np.logical_or.reduce(list(reasons.values()))):
        key = next(name for name, holds in reasons.items() if holds[row])
        values = {"size": fills.size[row], "price": fills.price[row], "low": low[row], "high": high[row]}
        why = home_strings.IMPOSSIBLE[key].format(**values)
        found.append(Impossible(int(row), int(fills.line[row]), fills.time[row], key, why))
    return found


def _bounds(bars: Bars, side: FloatArray, k: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return the lowest and highest price that the bars k allow for fills of each side."""
    spec = bars.spec
    assert spec
    part = bars.iloc[k]
    sign = {"bid": 1.0, "ask": -1.0, "mid": 0.0}[bars.side]
    raw, retail = (
        costs.spread_of(bars, open_seconds(bars), tier, spec, bars.seconds)[k] * 1e-4 / 2.0
        for tier in ("raw", "retail")
    )
    good = 0.0 if bars.side == "mid" else raw
    at_low, at_high = np.where(side > 0, good, retail), np.where(side > 0, retail, good)
    # A price of the bars' side is half a spread from mid, the fill's price half a spread on its own side of mid.
    low = part["low"].to_numpy(np.float64) * (1.0 + (sign + side) * at_low)
    high = part["high"].to_numpy(np.float64) * (1.0 + (sign + side) * at_high)
    return low, high


class Account(NamedTuple):
    """The account after each fill, arrays of shape (n,)."""

    cash: FloatArray
    units: FloatArray
    exposure: FloatArray  # at the fill's own price


def follow(fills: Fills, start_equity: float) -> Account:
    """Return the account of fills at their own prices and costs.

    Raises
    ------
    DataError
        If its equity is not above 0 after a fill.
    """
    cash, units = start_equity, 0.0
    made = np.empty((3, len(fills)))
    for i, (side, size, price, cost) in enumerate(
        zip(fills.side, fills.size, fills.price, fills.cost, strict=True)
    ):
        cash -= side * size * price + cost
        units += side * size
        units = 0.0 if abs(units) < _DUST * size else units
        equity = cash + units * price
        if not equity > 0.0:  # NaN too
            msg = (
                f"Line {fills.line[i]} ({fills.time[i]}): the account of {start_equity:,.0f} is ruined, its equity is "
                f"{equity:,.0f}. Pass the account's real size with --equity."
            )
            raise DataError(msg)
        made[:, i] = cash, units, units * price / equity
    return Account(*made)


def largest_notional(fills: Fills) -> float:
    """Return the largest notional ever held after a fill, at its price."""
    return float(np.max(np.abs(np.cumsum(fills.side * fills.size)) * fills.price))


@dataclass(frozen=True)
class Placed:
    """Fills on the bars that are judged.

    Attributes
    ----------
    decision : bar at whose close the engine decides on each fill, shape (n,); n_bars - 1 if no open follows
    mark : bar at whose close the account is first marked with each fill, shape (n,)
    """

    decision: IntArray
    mark: IntArray

    @classmethod
    def on(cls, fills: Fills, bars: Bars) -> Placed:
        """Return where fills fall: an order at an open was decided on at the close before it."""
        opened, time = _nanoseconds(bars), fills.time.as_unit("ns").asi8
        following = np.maximum(np.searchsorted(opened, time, side="left"), 1)
        mark = np.searchsorted(opened + bars.seconds * 10**9, time, side="right")
        return cls(following - 1, np.minimum(mark, len(bars) - 1))

    def targets(self, exposure: FloatArray, bars: int) -> FloatArray:
        """Return the exposure to hold after each decision, shape (bars - 1,): that of the last fill so far."""
        last = np.searchsorted(self.decision, np.arange(bars - 1), side="right") - 1
        return np.where(last >= 0, exposure[np.maximum(last, 0)], 0.0)


def as_filled(
    fills: Fills, account: Account, placed: Placed, market: Market, start_equity: float, name: str
) -> EpisodeResult:
    """Return the account as it was filled, marked at every close at the price that would close its position.

    Costs are those of the file; spread and slippage are in its prices, and no swap is charged.
    """
    bars, rows = market.bars, np.arange(1, len(market.bars))
    last = np.searchsorted(placed.mark, rows, side="right") - 1
    held, cash = (
        np.where(last >= 0, values[np.maximum(last, 0)], at_first)
        for values, at_first in ((account.units, 0.0), (account.cash, start_equity))
    )
    close, spread = bars["close"][rows], bars["spread_close"][rows]
    mid = close * (1.0 + market.terms.price_side * spread / 2.0)
    equity = cash + held * mid - np.abs(held) * close * spread / 2.0
    if not (equity > 0.0).all():
        i = int(np.argmin(equity > 0.0))
        msg = (
            f"The account of {start_equity:,.0f} is ruined at the close of the bar of {market.open_time[rows[i]]}. "
            "Pass its real size with --equity."
        )
        raise DataError(msg)
    before = account.cash + account.units * fills.price + fills.cost
    paid = np.cumsum(fills.cost)
    return EpisodeResult(
        policy=PolicyId(Kind.AGENT, name),
        tier="base",
        open_time_utc=market.open_time[rows],
        close=close,
        equity=equity,
        exposure=held * mid / equity,
        cost_paid=np.where(last >= 0, paid[np.maximum(last, 0)], 0.0),
        action=np.zeros(rows.size),
        day=bars["trading_day"][rows].astype(np.int64),
        turnover=float((fills.size * fills.price / before).sum()),
        trades=len(fills),
        start_equity=start_equity,
        costs={**dict.fromkeys(COSTS, 0.0), "commission": float(fills.cost.sum())},
        days_a_year=market.spec.days_a_year,
    )


def compare(
    fills: Fills, placed: Placed, market: Market, real: EpisodeResult, engine: EpisodeResult
) -> dict[str, dict[str, float]]:
    """Return net return, slippage, commission and swap, as filled and by the engine at base costs.

    Slippage is signed: positive is paid. The engine's is half a spread and its slippage at the same opens.
    """
    taken = placed.decision < len(market.bars) - 1
    opens = market.bars[placed.decision[taken] + 1]
    mid = opens["open"] * (1.0 + market.terms.price_side * opens["spread_open"] / 2.0)
    weight = fills.size[taken] * fills.price[taken]
    weight = weight / weight.sum() if weight.size else weight
    half = opens["open"] * opens["spread_open"] / 2.0 / mid
    paid = fills.side[taken] * (fills.price[taken] / mid - 1.0)
    notional = float((fills.size * fills.price).sum())
    fees = market.terms.commission + market.terms.commission_per_unit / mid
    return {
        "net_return_frac": {
            name: float(result.equity[-1] / result.start_equity - 1.0)
            for name, result in (("as_filled", real), ("engine", engine))
        },
        "slippage_bps": {
            "as_filled": 1e4 * float(weight @ paid),
            "engine": 1e4 * float(weight @ (half + market.terms.slippage)),
        },
        "commission_bps": {
            "as_filled": 1e4 * float(fills.cost.sum()) / notional,
            "engine": 1e4 * float(weight @ fees),
        },
        "swap_frac": {"as_filled": 0.0, "engine": engine.costs["swap"] / engine.start_equity},
    }


def judged_fills(  # noqa: PLR0913  # what a table of fills leaves open
    path: Path,
    whole: WholeBars,
    bars: Bars,
    *,
    clock: str = "",
    other_clock: str = "",
    equity: float | None = None,
    start: pd.Timestamp | None = None,
    end: pd.Timestamp | None = None,
) -> Judged:
    """Return fills as targets for the decisions on bars, with the account as it was filled beside it.

    Parameters
    ----------
    path : the table
    whole : the source of the bars, up to `end`
    bars : of the traded instrument, those judged
    clock, other_clock : as of `read_fills`
    equity : of the account before the first fill; None takes the largest notional ever held
    start, end : bounds of what is judged; nothing may be held at the start

    Raises
    ------
    DataError
        If the file cannot be read, more than a quarter of the fills or all are impossible, the account is ruined or
        its exposure is above 30.
    """
    everything = read_fills(path, whole.spec, clock, other_clock)
    notes = list(everything.notes)
    fills = _between(everything, start, end, notes)
    listed = impossible(fills, whole.own)
    _refuse_too_many(listed, len(fills), path)
    unusable = [one.row for one in listed if one.key in ("size", "price", "before", "after")]
    total, fills = len(fills), fills.rows(np.setdiff1d(np.arange(len(fills)), unusable))
    if listed:
        numbers = {"count": len(listed), "total": total, "left_out": len(unusable)}
        notes.insert(0, home_strings.JUDGED_IMPOSSIBLE.format(**numbers))
    require(equity is None or 0 < equity < math.inf, "judge", "--equity must be > 0", equity)
    if equity is None:
        equity = largest_notional(fills)
        notes.append(home_strings.EQUITY_CHOSEN.format(equity=equity))
    account, placed = follow(fills, equity), Placed.on(fills, bars)
    cap = max(1.0, float(np.abs(account.exposure).max()))
    if not cap <= MAX_CAP:
        line = fills.line[int(np.abs(account.exposure).argmax())]
        msg = (
            f"{path}: after line {line} the account holds {cap:.1f} times its equity; at most {MAX_CAP:g} can be "
            "judged. Pass its real size with --equity."
        )
        raise DataError(msg)
    if round(cap, 2) > 1.0:
        notes.append(home_strings.LEVERAGE.format(cap=cap))
    config = TradingEnvConfig(exposure_cap=cap, initial_equity=equity)
    targets = placed.targets(account.exposure / cap, len(bars))
    market = market_of(bars, config)
    real = as_filled(fills, account, placed, market, equity, home_strings.AS_FILLED.format(name=path.name))
    engine = runner.run_targets(market, targets, equity, "engine", "base")
    compared = compare(fills, placed, market, real, engine)
    late = placed.decision == len(bars) - 1
    passed = np.diff(placed.decision[~late]) == 0
    for count, text in ((late.sum(), home_strings.TOO_LATE), (passed.sum(), home_strings.WITHIN_BAR)):
        if count:
            notes.append(text.format(count=int(count)))
    content = path.read_bytes().replace(b"\r\n", b"\n")
    return Judged(
        name=path.name,
        sha256=files.sha256(content),
        what="fills",
        targets=targets,
        config=config,
        how=home_strings.JUDGED_FILLS.format(name=path.name, count=len(fills)),
        facts={"fills_judged": len(fills), "fills_impossible": len(listed), "compared": compared},
        tables=tuple(_tables(listed, total, compared)),
        also=(real,),
        notes=tuple(notes),
    )


def _between(fills: Fills, start: pd.Timestamp | None, end: pd.Timestamp | None, notes: list[str]) -> Fills:
    """Return the fills from `start` on and before `end`; nothing may be held at the start."""
    early = np.zeros(len(fills), bool) if start is None else np.asarray(fills.time < start)
    late = np.zeros(len(fills), bool) if end is None else np.asarray(fills.time >= end)
    held = float((fills.side * fills.size)[early].sum())
    if abs(held) > _DUST * float(np.abs(fills.size).max()):
        msg = (
            f"At --from {start} the fills hold {held:g} units. Choose a time at which they hold nothing, so that the "
            "account can begin flat."
        )
        raise DataError(msg)
    kept = ~(early | late)
    if not kept.any():
        msg = (
            f"None of {len(fills)} fills is between --from and --until; they run from {fills.time[0]} to "
            f"{fills.time[-1]}."
        )
        raise DataError(msg)
    if not kept.all():
        notes.append(home_strings.OTHER_TIMES.format(count=int((~kept).sum())))
    return fills.rows(kept)


def _refuse_too_many(listed: list[Impossible], total: int, path: Path) -> None:
    if len(listed) <= MAX_IMPOSSIBLE * total:
        return
    shown = "\n  ".join(f"line {one.line} ({one.time}): {one.why}" for one in listed[:_NAMED])
    msg = (
        f"{path}: the bars cannot have given {len(listed)} of {total} fills:\n  {shown}\n"
        "Check the instrument, the price side and the clock (--fills-clock) of the file."
    )
    raise DataError(msg)


def _tables(
    listed: list[Impossible], total: int, compared: dict[str, dict[str, float]]
) -> list[dict[str, Any]]:
    rows = [
        [home_strings.COMPARED[key], *((100.0 if key.endswith("_frac") else 1.0) * x for x in pair.values())]
        for key, pair in compared.items()
    ]
    tables: list[dict[str, Any]] = [
        {
            "title": home_strings.COMPARED_TITLE,
            "note": home_strings.COMPARED_NOTE,
            "columns": home_strings.COMPARED_COLUMNS,
            "rows": rows,
        }
    ]
    if listed:
        numbers = {"count": len(listed), "total": total, "most": _SHOWN}
        tables.append(
            {
                "title": home_strings.IMPOSSIBLE_TITLE,
                "note": home_strings.IMPOSSIBLE_NOTE.format(**numbers),
                "columns": home_strings.IMPOSSIBLE_COLUMNS,
                "rows": [
                    [one.line, one.time.strftime("%Y-%m-%d %H:%M:%S"), one.why] for one in listed[:_SHOWN]
                ],
            }
        )
    return tables


def _nanoseconds(bars: Bars) -> IntArray:
    index: Any = bars.index
    return np.asarray(index.as_unit("ns").asi8)
