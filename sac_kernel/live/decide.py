"""What a saved agent would do now: the backtest's decision at the newest bar, one bar at a time.

Features, clock, observation and policy are the backtest's own functions. Recursive ones continue from bar to bar
instead of starting over, so each decision equals, bit for bit, that of a backtest over the same bars.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sac_kernel.agent.sac import SACAgent
from sac_kernel.backtest import runner
from sac_kernel.core.config import from_flat
from sac_kernel.core.errors import CheckpointError, DataError
from sac_kernel.features.indicators import Memory
from sac_kernel.features.pipeline import REGIME_FEATURE, FeaturePipeline, warmup_bars
from sac_kernel.live.next_opens import next_opens
from sac_kernel.live.series_files import SeriesFiles
from sac_kernel.market import engine, market, risk_limits
from sac_kernel.market.account import TradingEnvConfig, account_terms
from sac_kernel.market.market import Market, clock_names
from sac_kernel.market.records import MINUTE_DTYPE, Account, Bar, blank, join, new_table
from sac_kernel.prices import costs
from sac_kernel.prices.bars import Bars, known_side, open_seconds, side_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from sac_kernel.market.records import Records
    from sac_kernel.prices.bars import BarsByInstrument

    FeatureArray = NDArray[np.float32]

_FROZEN = "exposure cannot change at the next open: an order of the evening freeze lapses"
_WAITS = "exposure cannot change at the next open: the order waits until {:%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True)
class Decision:
    """What will be held from the next open on, and why.

    Attributes
    ----------
    open_time_utc : open of the newest closed bar
    order : whether the position is to change: without an order, keep it untouched
    fill_time_utc : open of the bar at which the order fills; None without an order
    target : of what will be held, in [-1, 1]: the order's, else the last one filled; 0 while a limit halts the account
    action : what the policy asked for, in [-1, 1]; where it differs from `target` it lapses. For the engine alone
    exposure : notional over equity that will be held, signed, after exposure cap and volatility sizing
    units, notional : base currency and account currency, signed, at this close's mid
    stop_loss, take_profit : prices of the overlay for that position; None where it is off or nothing is held
    high_vol_prob : filtered probability of the volatile regime, unscaled; None where the agent has none
    out_of_range : feature -> (scaled value, lowest, highest), the range taken over the bars before the account
    limits : reasons why exposure is below the target, or why the order is not filled at the next open
    """

    open_time_utc: pd.Timestamp
    order: bool
    fill_time_utc: pd.Timestamp | None
    target: float
    action: float
    exposure: float
    units: float
    notional: float
    stop_loss: float | None
    take_profit: float | None
    high_vol_prob: float | None
    out_of_range: dict[str, tuple[float, float, float]]
    limits: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """Return the decision as values that JSON can hold, without `action`, which may lapse."""
        values = {name: value for name, value in dataclasses.asdict(self).items() if name != "action"}
        fills = None if self.fill_time_utc is None else self.fill_time_utc.isoformat()
        times = {"open_time_utc": self.open_time_utc.isoformat(), "fill_time_utc": fills}
        return {**values, **times, "limits": list(self.limits)}


class Decider:
    """A saved agent on a feed of bars.

    First `follow` all bars before the account begins, from the first train bar on: averages with an infinite
    memory need them. Then `decide` at each closed bar, or `append` the bars between decisions.

    Attributes
    ----------
    instrument, bar_seconds : traded instrument, length of its bars
    interval_bars : bars between two decisions
    training_spec, spec : the instrument in training, and with the costs that the account pays
    rows : `Bar` records of the newest bars, shape (<= interval_bars + 1,)
    observed : their market features, shape (<= interval_bars + 1, n_market_features)

    Examples
    --------
    >>> decider = Decider.from_checkpoint("agent_1_final.pt", price_side="bid")      # doctest: +SKIP
    >>> decider.follow(history)                                                     # doctest: +SKIP
    >>> decision = decider.decide(newest_bars, account(equity=100_000.0))           # doctest: +SKIP
    """

    def __init__(
        self, agent: SACAgent, pipeline: FeaturePipeline, config: TradingEnvConfig, side: str
    ) -> None:
        self.agent, self.config, self.price_side = agent, config, side
        self.instrument, self.bar_seconds = pipeline.instrument, pipeline.bar_seconds
        self._pipeline, self._policy = pipeline, runner.greedy_policy(agent)
        self.training_spec = pipeline.spec
        self._series = SeriesFiles(pipeline.own) if pipeline.own and pipeline.own.series else None
        self.spec = pipeline.spec.with_costs(config.costs)
        self.terms = account_terms(config, side, self.bar_seconds, close_at_end=False, spec=self.spec)
        self.interval_bars = int(self.terms.interval_bars)
        self._features, self._engine = Memory(), Memory()
        self._followed = 0
        self._begun = False
        self._low = np.full(len(pipeline.feature_names), np.inf, np.float32)
        self._high = -self._low
        self._seen: dict[str, int] = {}  # open of the last bar, Unix seconds
        self.rows = new_table(Bar, 0)
        self._clock_names = clock_names(self.terms)
        self.observed = np.zeros((0, len(pipeline.feature_names) + len(self._clock_names)), np.float32)
        empty = self.as_market(self.rows, self.observed, pd.DatetimeIndex([], tz="UTC"))
        known = list(empty.observation_names)
        self._obs = np.empty(len(known), np.float32)
        if list(agent.context.get("observation_names", known)) != known:
            msg = (
                f"Agent {agent.agent_id} observes {', '.join(agent.context['observation_names'])}, but this version "
                f"provides {', '.join(known)}. Use the code version that trained the agent."
            )
            raise CheckpointError(msg)

    @property
    def others(self) -> tuple[str, ...]:
        """Return the instruments whose bars the agent needs beside those of the traded one."""
        return self._pipeline.instruments

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Return the market features in order, without those of the clock."""
        return tuple(self._pipeline.feature_names)

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, price_side: str | None = None, cost_tier: str = "base", costs: str = ""
    ) -> Decider:
        """Return the decider of a `.pt` file, loaded onto the CPU.

        Parameters
        ----------
        path : an agent that a run wrote
        price_side : 'bid', 'ask' or 'mid', of the bars to come; None takes that of the agent's own account
        cost_tier : costs that the account pays
        costs : own costs, 'NAME=VALUE,...'; '' takes those that the agent was trained with
        """
        agent = SACAgent.from_checkpoint(path, device="cpu")
        pipeline = FeaturePipeline.from_checkpoint(path)  # type: ignore[arg-type]  # read_pt takes both
        config = from_flat(TradingEnvConfig, agent.context["env"], f"{path}: env")
        side = known_side(price_side or config.price_side, str(path))
        config = dataclasses.replace(config, cost_tier=cost_tier, costs=costs or config.costs)
        return cls(agent, pipeline, config, side)

    def follow(self, bars: pd.DataFrame | BarsByInstrument) -> FeatureArray:
        """Take in bars before the account begins; return their scaled features, shape (n_bars, n_features)."""
        if self._begun:
            msg = "The account has begun, so follow() takes no more bars. Pass them to append() or decide()."
            raise DataError(msg)
        own, features = self._extend(bars)
        self._followed += len(own)
        ready = features[max(0, warmup_bars(self.bar_seconds) - self._followed + len(own)) :]
        if ready.size:
            self._low = np.minimum(self._low, ready.min(axis=0))
            self._high = np.maximum(self._high, ready.max(axis=0))
        return features

    def append(self, bars: pd.DataFrame | BarsByInstrument) -> tuple[Records, FeatureArray]:
        """Take in closed bars from the account's first on; return their `rows` and `observed`.

        Bars that were taken in before are skipped.
        """
        if self._followed < warmup_bars(self.bar_seconds):
            msg = (
                f"The features need {warmup_bars(self.bar_seconds)} bars before the account's first, got "
                f"{self._followed}. Pass follow() the bars that the agent was trained on and all since."
            )
            raise DataError(msg)
        own, features = self._extend(bars)
        self._begun = True
        if len(own) == 0:
            return self.rows[:0], self.observed[:0]
        self._engine.rewind()
        rows = market.bar_table(own, self.bar_seconds, self.config, self._engine, self.spec)
        clock = market.clock_features(own, self.bar_seconds, self.config.cost_tier, self.spec, self.terms)
        keep = self.interval_bars + 1
        self.rows = join((self.rows, rows))[-keep:]
        seen = np.concatenate((features, clock), axis=1, dtype=np.float32)
        self.observed = np.concatenate((self.observed, seen))[-keep:]
        return rows, seen

    def decide(
        self, bars: pd.DataFrame | BarsByInstrument, state: Account, next_open: pd.Timestamp | None = None
    ) -> Decision:
        """Take in the bars closed since the last call; return what to hold from the next open on.

        Parameters
        ----------
        bars : of the traded instrument, or a dict with those of all instruments that the agent was trained
            with; bars that were taken in before are skipped
        state : the account at this close: the engine's own, or from `account`
        next_open : when the next bar opens, where that is known and not what the calendar says: after a holiday, or
            a pause of the feed. An order fills at the first open outside the freeze

        Raises
        ------
        DataError
            If no bar has closed, the bars are not those that the agent knows, or `next_open` is before the close.
        """
        self.append(bars)
        if not len(self.rows):
            msg = f"No bar of {self.instrument} has closed since follow(). Pass at least one to decide()."
            raise DataError(msg)
        state = state.copy()
        state.t = len(self.rows) - 1
        return self.decide_here(state, next_open)

    def decide_here(self, state: Account, next_open: pd.Timestamp | None = None) -> Decision:
        """Return the decision at the newest bar for an engine account at that bar; `next_open` as in `decide`.

        Raises
        ------
        DataError
            If the file of an extra series ends too long before the close.
        """
        if self._series:
            self._series.check(self._seen[self.instrument] + self.bar_seconds)
        opens = self._opens(next_open)
        engine.observe(state, self.rows, self.terms, self.observed, self._obs)
        return self._decision(engine.target_of(state, self.terms, self._policy(self._obs)), state, opens)

    def as_market(self, rows: Records, observed: FeatureArray, index: pd.DatetimeIndex) -> Market:
        """Return rows and features from `append` as a `Market`; `index` holds their open times."""
        names = (*self.feature_names, *self._clock_names)
        no_minutes = np.empty((len(rows), 0), MINUTE_DTYPE)
        return Market(
            rows, no_minutes, observed, self.terms, 0, names, index, self.bar_seconds, spec=self.spec
        )

    def _extend(self, bars: pd.DataFrame | BarsByInstrument) -> tuple[pd.DataFrame, FeatureArray]:
        """Return the new bars of the traded instrument and their features."""
        if isinstance(bars, Bars) and bars.instrument not in ("", self.instrument):
            msg = f"The agent trades {self.instrument}, got bars of {bars.instrument}."
            raise DataError(msg)
        given = {self.instrument: bars} if isinstance(bars, pd.DataFrame) else bars
        new = {name: self._newer(name, given) for name in (self.instrument, *self.others)}
        own = new[self.instrument]
        if len(own) == 0:
            return own, np.zeros((0, len(self._low)), np.float32)
        times = open_seconds(own)
        step = np.diff(times, prepend=self._seen.get(self.instrument, times[0] - self.bar_seconds))
        if step.min() < self.bar_seconds:
            msg = (
                f"The agent was trained on bars of {self.bar_seconds} s, but two bars of {self.instrument} up to "
                f"{own.index[-1]} are {step.min()} s apart. Pass bars of the same length, in time order."
            )
            raise DataError(msg)
        if self._series:
            self._pipeline.own = self._series.newest()
        features = self._pipeline.extend(new, self._features)
        for name, part in new.items():
            if len(part):
                self._seen[name] = int(open_seconds(part)[-1])
        return own, features

    def _newer(self, name: str, given: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        if name not in given:
            msg = f"The agent needs bars of {name}, got only {', '.join(given)}. Pass all that it was trained on."
            raise DataError(msg)
        bars = given[name]
        side_of(bars, name, self.price_side)
        times, last = open_seconds(bars), self._seen.get(name, 0)
        if len(times) == 0 or times[0] > last:
            return bars  # a slice would cost more than the features of the bar
        return bars.iloc[int(np.searchsorted(times, last, side="right")) :]

    def _decision(self, action: float, state: Account, opens: NDArray[np.int64]) -> Decision:
        terms = self.terms
        row: Bar = self.rows[-1]
        equity = float(state.equity)
        mid = float(row.close * (1.0 + terms.price_side * row.spread_close / 2.0))
        # A bar belongs to the day of its last second.
        next_day = costs.trading_day(opens[:1] + self.bar_seconds - 1, self.spec)[0]
        halted = risk_limits.is_halted(state.halted_until, next_day)
        fill, held = self._fill(opens), float(state.target)
        held = held if abs(held) <= 1.0 else 0.0  # a stop or a limit closed the position
        moves = action != state.target and any((action, held, state.units))
        order = bool(state.units != 0.0 if halted else moves and fill is not None)
        target = 0.0 if halted else action if order else held
        units = (
            target * float(terms.exposure_cap * row.cap_share) * equity / mid if order else float(state.units)
        )
        sign, half = np.sign(units), row.close * row.spread_close / 2.0
        entry = mid + sign * (half + terms.slippage * mid) if order else float(state.entry_price)
        names, values = self.feature_names, self.observed[-1]
        beyond = np.flatnonzero((values[: len(names)] < self._low) | (values[: len(names)] > self._high))
        regime = names.index(REGIME_FEATURE) if REGIME_FEATURE in names else None
        waits = None
        if moves and fill != opens[0]:
            waits = _FROZEN if fill is None else _WAITS.format(_time(fill))
        return Decision(
            open_time_utc=_time(self._seen[self.instrument]),
            order=order,
            fill_time_utc=_time(int(opens[0]) if halted or fill is None else fill) if order else None,
            target=target,
            action=action,
            exposure=units * mid / equity,
            units=units,
            notional=units * mid,
            stop_loss=_level(entry, -sign * terms.stop_loss),
            take_profit=_level(entry, sign * terms.take_profit),
            high_vol_prob=None if regime is None else self._pipeline.unscaled(regime, values[regime]),
            out_of_range={
                names[i]: (float(values[i]), float(self._low[i]), float(self._high[i])) for i in beyond
            },
            limits=self._limits(action, row, state if halted else None, waits),
        )

    def _opens(self, next_open: pd.Timestamp | None) -> NDArray[np.int64]:
        """Return the opens of this decision's interval, Unix seconds, shape (interval_bars,)."""
        close = self._seen[self.instrument] + self.bar_seconds
        if next_open is None:
            return next_opens(close, self.interval_bars, self.bar_seconds, self.spec)
        first = int(next_open.timestamp())
        if first < close:
            msg = f"next_open is {next_open}, before the newest bar closes at {_time(close)}."
            raise DataError(msg)
        rest = next_opens(first + self.bar_seconds, self.interval_bars - 1, self.bar_seconds, self.spec)
        return np.append(np.int64(first), rest)

    def _fill(self, opens: NDArray[np.int64]) -> int | None:
        """Return the first open at which exposure may change; None if there is none."""
        can_trade = costs.is_tradable(opens, self.spec, self.bar_seconds)
        return int(opens[np.argmax(can_trade)]) if can_trade.any() else None

    def _limits(self, action: float, row: Bar, halted: Account | None, waits: str | None) -> tuple[str, ...]:
        size = float(row.cap_share)
        until = halted.halted_until if halted is not None else 0.0
        limits = {
            f"the account is halted until {_day_text(until)}": halted is not None,
            waits or "": waits is not None,
            f"size {size:.3f} of the cap, by volatility": size < 1.0,
            f"exposure cap {self.terms.exposure_cap:g}": abs(action) >= 1.0,
        }
        return tuple(text for text, binds in limits.items() if binds)


def account(
    equity: float, units: float = 0.0, entry_price: float = 0.0, bars_held: int = 0, last_target: float = 0.0
) -> Account:
    """Return an engine account with the figures of a broker's account.

    Parameters
    ----------
    equity : account currency (the quote currency), > 0, marked at the price that would close the position
    units : base currency held, long positive
    entry_price : mean fill price of the position
    bars_held : bars since the position was opened or reversed
    last_target : the last target that was filled
    """
    state = blank(Account)
    state.units, state.entry_price, state.bars_held = units, entry_price, bars_held
    state.equity = state.start_equity = state.peak_equity = state.limit_peak = equity
    state.target = last_target
    return state


def _level(entry: float, distance: float) -> float | None:
    return None if distance == 0.0 else float(entry * (1.0 + distance))


def _time(seconds: int) -> pd.Timestamp:
    return pd.Timestamp(seconds, unit="s", tz="UTC")


def _day_text(day: float) -> str:
    return "someone resumes it" if np.isinf(day) else str(np.datetime64(int(day), "D"))
