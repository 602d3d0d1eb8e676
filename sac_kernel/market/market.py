"""One split's bars, features and terms, checked and laid out for the bar engine.

Columns that depend on the clock alone (spread, swap nights, freeze) or on the past alone (volatility, size) are
computed here once, not in every step. This module never imports torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sac_kernel.core.errors import DataError
from sac_kernel.core.renamed import renamed_arguments
from sac_kernel.features.indicators import Memory, atr, ewma_volatility, log_path, price_columns
from sac_kernel.features.pipeline import CLIP
from sac_kernel.market import risk_limits
from sac_kernel.market.account import account_terms
from sac_kernel.market.engine import ACCOUNT_FEATURES, LIMIT_FEATURES, SHARPE_FEATURES, TARGET_FEATURES
from sac_kernel.market.records import MINUTE_DTYPE, PRICES, Bar, Reward, new_table
from sac_kernel.prices import costs
from sac_kernel.prices.bars import check_bars, open_seconds, seconds_of, side_of, spec_for
from sac_kernel.prices.instruments import EURUSD, InstrumentSpec

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from sac_kernel.market.account import TradingEnvConfig
    from sac_kernel.market.records import Records, Terms

    FloatArray = NDArray[np.float64]
    FeatureArray = NDArray[np.float32]

CLOCK_FEATURES = ("trading_cost", "time_to_rollover", "can_trade")
"""trading_cost: log of the one-way cost now over its normal value. time_to_rollover: to 17:00 New York, or the
instrument's own rollover or close, in days. can_trade: 1 if an order given now is filled at the next open, 0 if it
waits for the end of the evening freeze. All follow from the clock, the first from the bars' own spread where it is
charged."""

DECISION_FEATURES = ("fill_cost", "can_fill")
"""What a decision knows of its order, if the config `observes` the target. fill_cost: one-way cost, as a fraction of
equity, of a full position at the first open at which exposure may change. can_fill: 1 if there is one before the next
decision. Both follow from the clock alone, as if every bar came when it is due."""

LEAST_COST = 1e-9
"""Least fill_cost: a 0 in its place belongs to an account of as many inputs that does not observe its target."""

_ATR_FLOOR = 1e-8
_COST_FLOOR = 1e-6  # bps: an instrument may cost nothing


@dataclass(frozen=True)
class Market:
    """Bars, features and clock of one split in the form that the engine reads.

    Attributes
    ----------
    bars : `Bar` records, shape (n_bars,)
    minutes : `Minute` records, shape (n_bars, minutes a bar); (n_bars, 0) without 1-minute bars
    observed : shape (n_bars, n_market_features), float32: scaled features, `CLOCK_FEATURES`, then `DECISION_FEATURES`
        if the config observes the target
    terms : what the account trades under
    first_bar : first bar with features
    feature_names : columns of `observed`
    return_forecast : shape (n_bars,), as given to `prepare_market`, or None
    spec : what the instrument costs and when it trades, the config's own costs included
    """

    bars: Records
    minutes: Records
    observed: FeatureArray
    terms: Terms
    first_bar: int
    feature_names: tuple[str, ...]
    open_time: pd.DatetimeIndex
    bar_seconds: int
    return_forecast: FloatArray | None = None
    spec: InstrumentSpec = EURUSD

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Return the name of each number of an observation."""
        terms = self.terms
        if terms.observes_target:
            return (*self.feature_names, *TARGET_FEATURES)
        limits = terms.daily_loss_limit or terms.drawdown_stop or terms.kill_loss
        sharpe = terms.reward == Reward.DIFFERENTIAL_SHARPE
        return (
            *self.feature_names,
            *ACCOUNT_FEATURES,
            *(LIMIT_FEATURES if limits else ()),
            *(SHARPE_FEATURES if sharpe else ()),
        )

    @property
    def hole(self) -> np.timedelta64:
        """Return the difference of open times from which bars are missing between them, by the calendar."""
        return np.timedelta64(self.spec.hole_s(self.bar_seconds), "s")

    @property
    def mid_return(self) -> FloatArray:
        """Return the realised log return of mid from close t to close t + 1 in row t; (n_bars,).

        NaN in the last row and where a `hole` follows: no position is held over it. The forecast is fitted to
        these; mid, so that the daily cycle of the spread is not taken for a move.
        """
        mid = self.bars["close"] * (1.0 + self.terms.price_side * self.bars["spread_close"] / 2.0)
        returns = np.diff(np.log(mid))
        returns[np.diff(self.open_time.to_numpy("datetime64[ns]")) > self.hole] = np.nan
        return np.append(returns, np.nan)

    @property
    def fees(self) -> FloatArray:
        """Return commission and slippage of a fill at each close, of notional, shape (n_bars,)."""
        return fees_of(self.terms, self.bars["close"])

    @property
    def interval_bars(self) -> int:
        """Return bars per decision."""
        return int(self.terms.interval_bars)

    @property
    def reward_sd(self) -> float:
        """Return the standard deviation of the reward of a full position over one decision on these bars."""
        if self.terms.reward == Reward.DIFFERENTIAL_SHARPE:
            return 1.0  # the unit of the ratio
        part = self.bars[self.first_bar :]
        moves = np.diff(np.log(part["close"])) * part["cap_share"][:-1]
        return float(np.std(moves) * self.terms.exposure_cap * math.sqrt(self.interval_bars))


@renamed_arguments(expected_return="return_forecast")
def prepare_market(
    data: pd.DataFrame,
    features: pd.DataFrame,
    config: TradingEnvConfig,
    *,
    close_at_end: bool,
    return_forecast: FloatArray | None = None,
    minute_bars: pd.DataFrame | None = None,
) -> Market:
    """Check bars and features against each other and lay them out for the engine.

    Parameters
    ----------
    data, features, config : as in `TradingEnvironment`
    close_at_end : for evaluation: the position is closed at cost on the last bar, and reward 'denoised' is the
        realised log return
    return_forecast : shape (n_bars,); row t is the expected log return of mid a bar over a decision made at close t,
        given what is known then; over one bar, `Market.mid_return` is its realisation. With reward 'denoised' a
        bar pays log((E_{t+1} - M + M') / E_t): M, the realised market profit, is replaced by M' = units held after
        the open x mid at that open x (exp(return_forecast) - 1), so a new position earns the whole forecast and the
        gap is expected to be zero. Costs, swap and the account itself stay realised. All bars of a decision
        interval use the row of the bar decided on. The variance drag of a noisy bar's log return,
        (exposure x sigma)^2 / 2, is not subtracted. Rows before the first with features, and the last, are not read.
    minute_bars : 1-minute bars of the same instrument, price side and clock; where they make up a bar, stop, profit
        and margin are checked minute by minute, the stop first within one minute only

    Raises
    ------
    DataError
        If the bars are unusable, their price side is unknown or differs from the stated one, the index differs, a
        feature is not finite after the warm-up, or the return forecast is missing where it is paid, of another
        shape or not finite.
    """
    where = "bar table"
    check_bars(data, where)
    if not features.index.equals(data.index):
        msg = (
            f"The index of the features ({len(features)} rows from {features.index.min()}) is not that of the bars "
            f"({len(data)} from {data.index[0]}). Use features and bars of one split."
        )
        raise DataError(msg)
    side = side_of(data, where, config.price_side)
    values = features.to_numpy(np.float32)
    finite = np.isfinite(values).all(axis=1)
    first = int(np.argmax(finite))
    if not finite[first:].all():
        row = first + int(np.argmin(finite[first:])) if finite.any() else 0
        column = str(features.columns[int(np.argmin(np.isfinite(values[row])))])
        msg = f"Feature {column} is not finite at {data.index[row]}. Only the warm-up rows at the start may be NaN."
        raise DataError(msg)
    if first == len(data) - 1:
        msg = f"Only the last of {len(data)} bars has features, so nothing can be traded. Pass more bars."
        raise DataError(msg)
    bar_seconds = seconds_of(data, where)
    open_time: pd.DatetimeIndex = data.index  # type: ignore[assignment]  # checked above
    spec = spec_for(data).with_costs(config.costs)
    terms = account_terms(config, side, bar_seconds, close_at_end=close_at_end, spec=spec)
    clock = clock_features(data, bar_seconds, config.cost_tier, spec, terms)
    table = bar_table(data, bar_seconds, config, spec=spec)
    if return_forecast is not None:
        table["return_forecast"][first:-1] = _checked_forecast(return_forecast, first, data.index)
    elif config.reward == "denoised" and not close_at_end:
        msg = "Reward 'denoised' needs prepare_market(return_forecast=...), got None."
        raise DataError(msg)
    if minute_bars is None:
        minutes = np.empty((len(data), 0), MINUTE_DTYPE)
    else:
        minutes = _minute_table(data, minute_bars, bar_seconds)
    return Market(
        bars=table,
        minutes=minutes,
        observed=np.ascontiguousarray(np.concatenate((values, clock), axis=1), np.float32),
        terms=account_terms(config, side, bar_seconds, close_at_end=close_at_end, spec=spec),
        first_bar=first,
        feature_names=(*map(str, features.columns), *clock_names(terms)),
        open_time=open_time,
        bar_seconds=bar_seconds,
        return_forecast=return_forecast,
        spec=spec,
    )


def _checked_forecast(forecast: FloatArray, first: int, index: pd.Index) -> FloatArray:
    if np.shape(forecast) != (len(index),):
        msg = f"return_forecast must have shape ({len(index)},), got {np.shape(forecast)}"
        raise DataError(msg)
    finite = np.isfinite(forecast[first:-1])
    if not finite.all():
        row = first + int(np.argmin(finite))
        msg = f"return_forecast is NaN or infinite at {index[row]}, after the warm-up."
        raise DataError(msg)
    return np.asarray(forecast[first:-1], np.float64)


def check_horizon(market: Market, config: TradingEnvConfig) -> None:
    """Raise DataError if the block is shorter than one horizon."""
    usable = len(market.bars) - 1 - market.first_bar
    if usable < config.horizon_bars:
        msg = (
            f"The horizon is {config.horizon_bars} bars, but only {usable} of {len(market.bars)} bars follow the "
            f"warm-up. Pass more bars, or set env_horizon (or env_episode_length) to {usable} or less."
        )
        raise DataError(msg)


def bar_table(
    data: pd.DataFrame,
    bar_seconds: int,
    config: TradingEnvConfig,
    memory: Memory | None = None,
    spec: InstrumentSpec = EURUSD,
) -> Records:
    """Return the engine's `Bar` records, shape (n_bars,), without a return forecast.

    `spec` includes the config's own costs.
    Volatility and size start at the account's first bar. With a `memory` the bars may come in several calls; the
    rows are bit for bit those of one call.
    """
    memory = memory or Memory()
    tier, opened, last_close = config.cost_tier, open_seconds(data), memory.state(1)
    closed = opened + bar_seconds
    inside = closed - 1  # the bar's last second belongs to the bar
    previous = np.append(np.int64(last_close[0]) or opened[0], closed[:-1])
    last_close[0] = closed[-1]
    table = new_table(Bar, len(data))
    for name, prices in zip(PRICES, price_columns(data), strict=True):
        table[name] = prices
    table["spread_open"] = costs.spread_of(data, opened, tier, spec, bar_seconds) * 1e-4
    table["spread_close"] = costs.spread_of(data, inside, tier, spec, bar_seconds) * 1e-4
    table["nights_gap"] = costs.swap_nights(previous, opened, spec)
    table["nights_bar"] = costs.swap_nights(opened, closed, spec)
    table["tradable"] = costs.is_tradable(opened, spec, bar_seconds)
    table["trading_day"] = costs.trading_day(inside, spec)
    path, day_bars = log_path(data, bar_seconds, memory), max(1, 86_400 // bar_seconds)
    table["volatility"] = ewma_volatility(path.bar_return, day_bars, memory)
    table["cap_share"] = 1.0
    cap = config.exposure_cap
    if config.volatility_target > 0:
        bars_a_year = max(1, spec.day_seconds // bar_seconds) * spec.days_a_year
        sigma_ann = table["volatility"] * math.sqrt(bars_a_year)
        exposure = risk_limits.volatility_target_exposure(sigma_ann, config.volatility_target)
        table["cap_share"] = np.minimum(table["cap_share"], exposure / cap)
    if config.atr_risk > 0:
        window = max(1, config.atr_window_min * 60 // bar_seconds)
        # A range in log price is a fraction of price, to first order.
        range_frac = np.maximum(atr(path, window, memory), _ATR_FLOOR)
        exposure = risk_limits.atr_exposure(range_frac, config.atr_risk, config.atr_multiple)
        table["cap_share"] = np.minimum(table["cap_share"], exposure / cap)
    return table


def _minute_table(data: pd.DataFrame, minute_bars: pd.DataFrame, bar_seconds: int) -> Records:
    """Return the `Minute` records of each bar, shape (n_bars, minutes a bar)."""
    check_bars(minute_bars, "minute_bars")
    minutes = bar_seconds // 60
    start = data.index.as_unit("s").asi8  # type: ignore[attr-defined]  # a DatetimeIndex
    moment = minute_bars.index.as_unit("s").asi8  # type: ignore[attr-defined]
    row = np.searchsorted(start, moment, side="right") - 1
    inside = (row >= 0) & (moment - start[row] < bar_seconds)
    row, slot = row[inside], (moment[inside] - start[row[inside]]) // 60
    table = np.full((len(data), minutes, 4), np.nan)
    table[row, slot] = minute_bars[["open", "high", "low", "close"]].to_numpy()[inside]
    known = np.zeros(len(data), bool)
    known[row] = True
    first = np.argmin(np.isnan(table[:, :, 0]), axis=1)
    last = minutes - 1 - np.argmin(np.isnan(table[:, ::-1, 0]), axis=1)
    rows = np.arange(len(data))
    made = np.stack(
        (
            table[rows, first, 0],
            np.fmax.reduce(table[:, :, 1], axis=1),
            np.fmin.reduce(table[:, :, 2], axis=1),
            table[rows, last, 3],
        ),
        axis=1,
    )
    known &= np.isclose(made, data[["open", "high", "low", "close"]], rtol=1e-9, atol=0.0).all(axis=1)
    if not known.any():
        msg = (
            f"The {len(minute_bars)} minute_bars make up none of the {len(data)} bars. "
            "Pass those of the same instrument, price side and clock."
        )
        raise DataError(msg)
    table[~known] = np.nan
    # The first minute tells the engine whether there are any; without a bar it repeats the bar's open.
    silent = known & np.isnan(table[:, 0, 0])
    table[silent, 0] = data["open"].to_numpy()[silent, None]
    records: Records = table[:, :, :3].copy().view(MINUTE_DTYPE)[:, :, 0]
    return records


def clock_names(terms: Terms) -> tuple[str, ...]:
    """Return the names of the columns of `clock_features`."""
    return (*CLOCK_FEATURES, *(DECISION_FEATURES if terms.observes_target else ()))


def clock_features(
    data: pd.DataFrame, bar_seconds: int, tier: str, spec: InstrumentSpec, terms: Terms
) -> FeatureArray:
    """Return the columns `clock_names` at each bar's close, shape (n_bars, 3 or 5)."""
    closed = open_seconds(data) + bar_seconds
    fees = (spec.commission_bps + spec.slippage_bps) * spec.factor(tier)
    now = costs.spread_of(data, closed, tier, spec, bar_seconds)
    normal = max(costs.normal_one_way_bps(tier, spec), _COST_FLOOR)
    columns = [
        np.log(np.maximum(now / 2.0 + fees, _COST_FLOOR) / normal),
        costs.hours_to_rollover(closed, spec) / 24.0,
        costs.is_tradable(closed, spec, bar_seconds).astype(np.float64),
    ]
    if terms.observes_target:
        paid = fees_of(terms, data["close"].to_numpy(np.float64))
        columns += fill_outlook(closed, now * 1e-4, paid, tier, bar_seconds, spec, terms)
    return np.clip(np.stack(columns, axis=1), -CLIP, CLIP).astype(np.float32)


def fill_outlook(  # noqa: PLR0913  # what is known at each close, and what the account trades under
    closed: NDArray[np.int64],
    spread_now: FloatArray,
    fees: FloatArray,
    tier: str,
    bar_seconds: int,
    spec: InstrumentSpec,
    terms: Terms,
) -> tuple[FloatArray, FloatArray]:
    """Return `DECISION_FEATURES` of an order given at each close, shape (n_bars,) each.

    Parameters
    ----------
    closed : Unix seconds
    spread_now : full spread over price at each close: what is expected where the bars' own spread is charged
    fees : commission and slippage, of notional
    """
    opens = closed[:, None] + bar_seconds * np.arange(int(terms.interval_bars))
    tradable = costs.is_tradable(opens.ravel(), spec, bar_seconds).reshape(opens.shape)
    fill = opens[np.arange(len(opens)), tradable.argmax(axis=1)]  # the first open where none is tradable
    if spec.spread_from != "column":
        spread_now = costs.spread_bps(fill, tier, spec, bar_seconds) * 1e-4
    cost = np.maximum(one_way(spread_now, fees, terms), LEAST_COST)
    return cost, tradable.any(axis=1).astype(np.float64)


def one_way(spread: FloatArray, fees: FloatArray, terms: Terms) -> FloatArray:
    """Return the one-way cost of a full position, a fraction of equity, for full spreads over price."""
    half = spread / 2.0
    half = half / (1.0 + terms.price_side * half)  # of mid
    return np.asarray(terms.exposure_cap * (half + fees))


def fees_of(terms: Terms, price: FloatArray) -> FloatArray:
    """Return commission and slippage of a fill at each price, of notional."""
    return np.asarray(terms.commission + terms.slippage + terms.commission_per_unit / price, np.float64)
