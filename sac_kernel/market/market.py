"""One split's bars, features and terms, checked and laid out for the bar engine.

What depends on the clock alone (spread, swap nights, freeze) or on the past alone (volatility, size) is worked
out here once, a column each, so that no step computes it again. This module never imports torch.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sac_kernel.core.config import require
from sac_kernel.core.errors import DataError
from sac_kernel.core.renamed import current_value, renamed_arguments
from sac_kernel.features.indicators import Memory, atr, ewma_volatility, log_path, price_columns
from sac_kernel.features.pipeline import CLIP
from sac_kernel.market import risk_limits
from sac_kernel.market.engine import ACCOUNT_FEATURES, LIMIT_FEATURES, SHARPE_FEATURES, Bar, Par, Reward
from sac_kernel.prices import costs
from sac_kernel.prices.bars import PRICE_SIDES, check_bars, infer_bar_seconds, open_seconds
from sac_kernel.stats.metrics import TRADING_DAYS_PER_YEAR

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    FeatureArray = NDArray[np.float32]

CLOCK_FEATURES = ("trading_cost", "time_to_rollover", "can_trade")
"""trading_cost: log of the one-way cost now over its normal value. time_to_rollover: to 17:00 New York,
in days. can_trade: 1 if an order given now is filled at the next open, 0 if it has to wait for the end of the
evening freeze. All known from the clock alone."""

RENAMED_REWARDS = {"expected": "denoised"}
REWARDS = tuple(kind.name.lower() for kind in Reward)

_ESMA_MAX_LEVERAGE = 30.0
_ATR_FLOOR = 1e-8
_CLOSE_OUT_SHARE = 0.5  # of the minimum margin (ESMA): equity below notional / 60 is closed out


HOLE = np.timedelta64(4, "D")
"""Between bars, longer than a weekend with a holiday: rows were left out here."""

_PATH_LIMITS = ("stop_loss_bps", "take_profit_bps", "daily_loss_limit", "drawdown_stop", "kill_loss")
"""What ends a position by the path of prices."""

_SHARES = ("daily_loss_limit", "drawdown_stop", "kill_loss", "atr_risk", "no_trade_band")
_NOT_NEGATIVE = ("volatility_target", "impact", "risk_aversion", "drawdown_pause_days")
_POSITIVE = ("initial_equity", "daily_volume", "atr_multiple", "atr_window_min")
_BOUNDS: tuple[tuple[tuple[str, ...], str, Callable[[float], bool]], ...] = (
    (("stop_loss_bps", "take_profit_bps"), "in [0, 10000)", lambda value: 0 <= value < 1e4),
    (_SHARES, "in [0, 1)", lambda value: 0 <= value < 1),
    (_NOT_NEGATIVE, ">= 0", lambda value: 0 <= value < math.inf),
    (_POSITIVE, "> 0", lambda value: 0 < value < math.inf),
    (("sharpe_rate",), "in (0, 1)", lambda value: 0 < value < 1),
)


@renamed_arguments(min_order="no_trade_band")
@dataclass(frozen=True)
class TradingEnvConfig:
    """The account and the episode; names carry their unit.

    Attributes
    ----------
    cost_tier : raw, base or retail: the costs of every fill. See `prices.costs.COST_TIERS`
    exposure_cap : notional over equity at a full position, |action| of 1; 30 is the legal bound for majors
    no_trade_band : share of the cap; smaller changes of the target are ignored; 0 is off. A Gaussian policy cannot
        hold still to the last digit, and each twitch pays its costs
    decision_interval_min : minutes between decisions; 0 is every bar. A multiple of the bar
    episode_lengths : environment steps that count as one episode. A tuple of one value
    horizon : bars until truncation; None takes the episode length
    swap_long_bps : of notional, paid per night by a long position; negative is received
    swap_short_bps : of notional, paid per night by a short position; negative is received. Both sides pay by
        default, because the sign of the carry changes over the years: set your broker's
    stop_loss_bps : distance of a stop from the entry price; 0 is off
    take_profit_bps : distance of a take-profit order from the entry price; 0 is off
    random_start_position : training episodes start at a random exposure, to cover the position axis
    initial_equity : account currency (the quote currency)
    price_side : 'bid', 'ask' or 'mid'; None takes what the bars say of themselves
    volatility_target : annualised volatility of a full position, 0.1 is 10 %; 0 is off. The size is
        set from the volatility at the close before the fill, never above the cap; a held position is not resized
    atr_risk, atr_multiple, atr_window_min : at |action| = 1 a move of `atr_multiple` ATRs (Wilder, over the
        window) loses `atr_risk` of equity; 0 is off; with a volatility target the smaller size counts
    daily_loss_limit : loss of a day, a fraction of equity, after which the account is flat until 17:00 New York;
        0 is off. This loss and the next two are seen at a close, and the account is flattened at the next open
        (`market.risk_limits`)
    drawdown_stop : drawdown, a fraction of equity, after which the account is flat for a week; 0 is off. The week is
        `drawdown_pause_days`
    drawdown_pause_days : calendar days
    kill_loss : loss, a fraction of equity, after which the account is flat for the rest of the episode; 0 is off
    impact : market impact of a fill by the square-root law; 0 is off, 1 the usual order of magnitude. A fill slips
        by impact x daily volatility x sqrt(units / daily_volume) more (Toth et al. 2011, arXiv:1105.1694)
    daily_volume : units of the base currency; 1.5e12 is EURUSD's (BIS triennial survey 2022: USD 1.7 trillion a day)
    reward : denoised, log_return, mean_variance or differential_sharpe. 'log_return' is R, the change of log equity;
        'mean_variance' R - risk_aversion / 2 R^2; 'differential_sharpe' that of `engine.differential_sharpe`, whose
        state is observed; 'denoised' R with the market's part replaced by its forecast (`prepare_market`)
    risk_aversion : lambda of the mean-variance reward
    sharpe_rate : eta of the differential Sharpe ratio, 1 / decisions that it remembers
    """

    cost_tier: str = "base"
    exposure_cap: float = 1.0
    no_trade_band: float = 0.0
    decision_interval_min: int = 0
    episode_lengths: tuple[int, ...] = (3000,)
    horizon: int | None = None
    swap_long_bps: float = 0.6
    swap_short_bps: float = 0.3
    stop_loss_bps: float = 0.0
    take_profit_bps: float = 0.0
    random_start_position: bool = True
    initial_equity: float = 100_000.0
    price_side: str | None = None
    volatility_target: float = 0.0
    atr_risk: float = 0.0
    atr_multiple: float = 2.0
    atr_window_min: int = 840
    daily_loss_limit: float = 0.0
    drawdown_stop: float = 0.0
    drawdown_pause_days: int = 7
    kill_loss: float = 0.0
    impact: float = 0.0
    daily_volume: float = 1.5e12
    reward: str = "log_return"
    risk_aversion: float = 1.0
    sharpe_rate: float = 0.01

    def __post_init__(self) -> None:
        where = "TradingEnvConfig"
        object.__setattr__(self, "episode_lengths", tuple(self.episode_lengths))
        object.__setattr__(self, "cost_tier", current_value(where, self.cost_tier, costs.RENAMED_TIERS))
        object.__setattr__(self, "reward", current_value(where, self.reward, RENAMED_REWARDS))
        tiers = costs.COST_TIERS
        require(
            self.cost_tier in tiers, where, f"cost_tier must be one of {', '.join(tiers)}", self.cost_tier
        )
        in_bounds = 0 < self.exposure_cap <= _ESMA_MAX_LEVERAGE
        require(in_bounds, where, "exposure_cap must be in (0, 30]", self.exposure_cap)
        interval = self.decision_interval_min
        require(interval >= 0, where, "decision_interval_min must be >= 0", interval)
        one = len(self.episode_lengths) == 1 and self.episode_lengths[0] > 0
        require(one, where, "episode_lengths must hold one positive number", list(self.episode_lengths))
        require(self.horizon is None or self.horizon > 0, where, "horizon must be > 0 bars", self.horizon)
        require(self.reward in REWARDS, where, f"reward must be one of {', '.join(REWARDS)}", self.reward)
        for names, bounds, inside in _BOUNDS:
            for name in names:
                value = getattr(self, name)
                require(inside(value), where, f"{name} must be {bounds}", value)
        if self.reward == "denoised":
            self._check_denoised()
        known = self.price_side is None or self.price_side in PRICE_SIDES
        require(known, where, "price_side must be bid, ask or mid", self.price_side)

    def _check_denoised(self) -> None:
        """Refuse what ends a position inside a bar: what is expected of the bar would not be what it is paid."""
        for name in _PATH_LIMITS:
            required = f"reward 'denoised' needs {name} = 0, because the path then decides what a bar pays"
            require(getattr(self, name) == 0, "TradingEnvConfig", required, getattr(self, name))
        required = "reward 'denoised' needs exposure_cap <= 1, so that no margin close-out can cut a bar"
        require(self.exposure_cap <= 1, "TradingEnvConfig", required, self.exposure_cap)

    def with_denoised_reward(self) -> TradingEnvConfig:
        """Return this config with reward 'denoised', or itself where the path decides what a bar pays."""
        by_path = self.exposure_cap > 1 or any(getattr(self, name) for name in _PATH_LIMITS)
        return self if by_path else dataclasses.replace(self, reward="denoised")

    @property
    def episode_length(self) -> int:
        """Return the steps of experience that count as one episode."""
        return self.episode_lengths[0]

    @property
    def horizon_bars(self) -> int:
        """Return the bars until truncation in training."""
        return self.horizon or self.episode_length


@dataclass(frozen=True)
class Market:
    """Bars, features and clock of one split in the form that the engine reads.

    Attributes
    ----------
    bars : shape (n_bars, len(Bar)), float64
    observed : shape (n_bars, n_market_features), float32: scaled features, then `CLOCK_FEATURES`
    par : engine parameters, shape (len(Par),)
    first_bar : first bar with features
    feature_names : columns of `observed`
    return_forecast : shape (n_bars,), what `prepare_market` was given, or None
    """

    bars: FloatArray
    observed: FeatureArray
    par: FloatArray
    first_bar: int
    feature_names: tuple[str, ...]
    open_time: pd.DatetimeIndex
    bar_seconds: int
    return_forecast: FloatArray | None = None

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Return the name of each number of an observation."""
        limits = self.par[[Par.DAILY_LOSS, Par.DRAWDOWN_STOP, Par.KILL_LOSS]].any()
        sharpe = self.par[Par.REWARD] == Reward.DIFFERENTIAL_SHARPE
        return (
            *self.feature_names,
            *ACCOUNT_FEATURES,
            *(LIMIT_FEATURES if limits else ()),
            *(SHARPE_FEATURES if sharpe else ()),
        )

    @property
    def mid_return(self) -> FloatArray:
        """Return the realised log return of mid from close t to close t + 1 in row t; (n_bars,).

        NaN in the last row and where a `HOLE` follows: no position is held over it. What the forecast is made
        from: mid, so that the spread's own clock is not taken for a move.
        """
        mid = self.bars[:, Bar.CLOSE] * (1.0 + self.par[Par.SIDE] * self.bars[:, Bar.SPREAD_CLOSE] / 2.0)
        returns = np.diff(np.log(mid))
        returns[np.diff(self.open_time.to_numpy("datetime64[ns]")) > HOLE] = np.nan
        return np.append(returns, np.nan)

    @property
    def interval_bars(self) -> int:
        """Return bars per decision."""
        return int(self.par[Par.INTERVAL])

    @property
    def reward_sd(self) -> float:
        """Return the standard deviation of the reward of a full position over one decision, by this split's bars."""
        if self.par[Par.REWARD] == Reward.DIFFERENTIAL_SHARPE:
            return 1.0  # it is measured in just that
        part = self.bars[self.first_bar :]
        moves = np.diff(np.log(part[:, Bar.CLOSE])) * part[:-1, Bar.SIZE]
        return float(np.std(moves) * self.par[Par.CAP] * math.sqrt(self.interval_bars))


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
    data, features, config : as of `TradingEnvironment`
    close_at_end : the form of evaluation: flat at cost on the last bar, and the reward 'denoised' is the
        realised log return
    return_forecast : shape (n_bars,); row t is the expected log return of mid a bar over a decision made at close t,
        given what is known then; over one bar, `Market.mid_return` is its realisation. With reward 'denoised' a
        bar pays log((E_{t+1} - M + M') / E_t): M, the realised market profit, is replaced by M' = units held after
        the open x mid at that open x (exp(return_forecast) - 1), so a new position earns the whole of it and the
        gap is expected to be zero. Costs, swap and the account itself stay realised. All bars of a decision
        interval have the row of the bar decided on. Half the variance, which a log return of a noisy bar loses, is
        not taken off: (exposure x sigma)^2 / 2 a bar. Rows before the first with features, and the last, are not read.
    minute_bars : 1-minute bars of the same instrument, price side and clock; where those of a bar make up the
        bar, stop, profit and margin are looked for minute by minute, the stop first within one minute only

    Raises
    ------
    DataError
        If the bars are unusable, their price side is unknown, the index differs, a feature is not finite
        after the warm-up, or the expected return is absent where it is paid, or of another shape, or not finite.
    """
    where = "trading_env"
    check_bars(data, where)
    if not features.index.equals(data.index):
        msg = (
            f"{where}: features on the bars' own index are required, found {len(features)} rows from "
            f"{features.index.min()} for {len(data)} bars from {data.index[0]}; use features and bars of one split"
        )
        raise DataError(msg)
    side = config.price_side or data.attrs.get("price_side")
    if side not in PRICE_SIDES:
        msg = (
            f"{where}: the bars' price side (bid, ask or mid) is required, found {side!r}; read them with "
            "DataPipeline, or set TradingEnvConfig(price_side=...)"
        )
        raise DataError(msg)
    values = features.to_numpy(np.float32)
    finite = np.isfinite(values).all(axis=1)
    first = int(np.argmax(finite))
    if not finite[first:].all():
        row = first + int(np.argmin(finite[first:])) if finite.any() else 0
        column = str(features.columns[int(np.argmin(np.isfinite(values[row])))])
        msg = f"{where}: finite features are required after the warm-up, found {column} = NaN at {data.index[row]}"
        raise DataError(msg)
    if first == len(data) - 1:
        msg = f"{where}: a bar after the first with features is required, found none of {len(data)}; give more bars"
        raise DataError(msg)
    bar_seconds = int(data.attrs.get("bar_seconds", 0)) or infer_bar_seconds(data, where)
    open_time: pd.DatetimeIndex = data.index  # type: ignore[assignment]  # checked above
    clock = clock_features(open_seconds(data) + bar_seconds, config.cost_tier)
    table = bar_table(data, bar_seconds, config)
    if return_forecast is not None:
        table[first:-1, Bar.FORECAST] = _checked_forecast(return_forecast, first, data.index)
    elif config.reward == "denoised" and not close_at_end:
        msg = f"{where}: reward 'denoised' needs prepare_market(return_forecast=...), found None"
        raise DataError(msg)
    if minute_bars is not None:
        table = np.concatenate((table, _minute_columns(data, minute_bars, bar_seconds)), axis=1)
    return Market(
        bars=table,
        observed=np.ascontiguousarray(np.concatenate((values, clock), axis=1), np.float32),
        par=parameters(config, side, bar_seconds, close_at_end=close_at_end),
        first_bar=first,
        feature_names=(*map(str, features.columns), *CLOCK_FEATURES),
        open_time=open_time,
        bar_seconds=bar_seconds,
        return_forecast=return_forecast,
    )


def _checked_forecast(expected: FloatArray, first: int, index: pd.Index) -> FloatArray:
    if np.shape(expected) != (len(index),):
        msg = f"trading_env: return_forecast of shape ({len(index)},) is required, found {np.shape(expected)}"
        raise DataError(msg)
    finite = np.isfinite(expected[first:-1])
    if not finite.all():
        row = first + int(np.argmin(finite))
        msg = (
            f"trading_env: a finite return_forecast is required after the warm-up, found NaN at {index[row]}"
        )
        raise DataError(msg)
    return np.asarray(expected[first:-1], np.float64)


def check_horizon(market: Market, config: TradingEnvConfig) -> None:
    """Raise DataError if the block is shorter than one horizon."""
    usable = len(market.bars) - 1 - market.first_bar
    if usable < config.horizon_bars:
        msg = (
            f"trading_env: {config.horizon_bars} bars (horizon) after the warm-up are required, found {usable} "
            f"of {len(market.bars)}; give more bars, or set env_horizon (or env_episode_length) to {usable} or less"
        )
        raise DataError(msg)


def bar_table(
    data: pd.DataFrame, bar_seconds: int, config: TradingEnvConfig, memory: Memory | None = None
) -> FloatArray:
    """Return the rows that the engine reads of bars, shape (n_bars, len(Bar)), without an expected return.

    Volatility and size begin with the account's first bar. With a `memory` bars may come in stretches; the
    rows are bit for bit those of one call.
    """
    memory = memory or Memory()
    tier, opened, last_close = config.cost_tier, open_seconds(data), memory.state(1)
    closed = opened + bar_seconds
    inside = closed - 1  # the bar's last second belongs to the bar
    previous = np.append(np.int64(last_close[0]) or opened[0], closed[:-1])
    last_close[0] = closed[-1]
    table = np.empty((len(data), len(Bar)))
    table[:, Bar.OPEN : Bar.CLOSE + 1] = np.stack(price_columns(data), axis=1)
    table[:, Bar.SPREAD_OPEN] = costs.spread_bps(opened, tier) * 1e-4
    table[:, Bar.SPREAD_CLOSE] = costs.spread_bps(inside, tier) * 1e-4
    table[:, Bar.NIGHTS_GAP] = costs.swap_nights(previous, opened)
    table[:, Bar.NIGHTS_BAR] = costs.swap_nights(opened, closed)
    table[:, Bar.TRADABLE] = costs.is_tradable(opened)
    table[:, Bar.DAY] = costs.trading_day(inside)
    path, day_bars = log_path(data, bar_seconds, memory), max(1, 86_400 // bar_seconds)
    table[:, Bar.SIGMA] = ewma_volatility(path.bar_return, day_bars, memory)
    table[:, Bar.SIZE], table[:, Bar.FORECAST] = 1.0, 0.0
    cap = config.exposure_cap
    if config.volatility_target > 0:
        sigma_ann = table[:, Bar.SIGMA] * math.sqrt(day_bars * TRADING_DAYS_PER_YEAR)
        wanted = risk_limits.volatility_target_exposure(sigma_ann, config.volatility_target)
        table[:, Bar.SIZE] = np.minimum(table[:, Bar.SIZE], wanted / cap)
    if config.atr_risk > 0:
        window = max(1, config.atr_window_min * 60 // bar_seconds)
        range_frac = np.maximum(
            atr(path, window, memory), _ATR_FLOOR
        )  # log price: a fraction, to first order
        wanted = risk_limits.atr_exposure(range_frac, config.atr_risk, config.atr_multiple)
        table[:, Bar.SIZE] = np.minimum(table[:, Bar.SIZE], wanted / cap)
    return table


def _minute_columns(data: pd.DataFrame, minute_bars: pd.DataFrame, bar_seconds: int) -> FloatArray:
    """Return open, high, low of each minute of each bar, shape (n_bars, 3 x minutes); see `Bar`."""
    check_bars(minute_bars, "trading_env: minute_bars")
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
    each = np.arange(len(data))
    made = np.stack(
        (
            table[each, first, 0],
            np.fmax.reduce(table[:, :, 1], axis=1),
            np.fmin.reduce(table[:, :, 2], axis=1),
            table[each, last, 3],
        ),
        axis=1,
    )
    known &= np.isclose(made, data[["open", "high", "low", "close"]], rtol=1e-9, atol=0.0).all(axis=1)
    if not known.any():
        msg = (
            f"trading_env: minute_bars that make up at least one of the {len(data)} bars are required, found none "
            f"of {len(minute_bars)}; give those of the same instrument, price side and clock"
        )
        raise DataError(msg)
    table[~known] = np.nan
    # The engine asks the first minute whether there are any: one without a bar repeats the bar's open.
    silent = known & np.isnan(table[:, 0, 0])
    table[silent, 0] = data["open"].to_numpy()[silent, None]
    return table[:, :, :3].reshape(len(data), -1)


def clock_features(close_time: costs.Moments, tier: str) -> FeatureArray:
    """Return `CLOCK_FEATURES` at each bar's close, shape (n_bars, 3)."""
    columns = (
        np.log(costs.one_way_bps(close_time, tier) / costs.normal_one_way_bps(tier)),
        costs.hours_to_rollover(close_time) / 24.0,
        costs.is_tradable(close_time).astype(np.float64),
    )
    return np.clip(np.stack(columns, axis=1), -CLIP, CLIP).astype(np.float32)


def parameters(config: TradingEnvConfig, side: str, bar_seconds: int, *, close_at_end: bool) -> FloatArray:
    """Return the engine's parameters, shape (len(Par),); `side` is that of the bars."""
    interval_s = config.decision_interval_min * 60 or bar_seconds
    if interval_s % bar_seconds:
        msg = (
            f"trading_env: decision_interval_min must be a multiple of the bar ({bar_seconds / 60:g} min), "
            f"got {config.decision_interval_min}"
        )
        raise DataError(msg)
    factor = costs.COST_TIERS[config.cost_tier]
    par = np.zeros(len(Par))
    par[Par.SIDE] = {"bid": 1.0, "ask": -1.0, "mid": 0.0}[side]
    par[Par.CAP] = config.exposure_cap
    par[Par.COMMISSION] = costs.COMMISSION_BPS * factor * 1e-4
    par[Par.SLIPPAGE] = costs.SLIPPAGE_BPS * factor * 1e-4
    par[Par.SWAP_LONG], par[Par.SWAP_SHORT] = config.swap_long_bps * 1e-4, config.swap_short_bps * 1e-4
    par[Par.STOP_LOSS], par[Par.TAKE_PROFIT] = config.stop_loss_bps * 1e-4, config.take_profit_bps * 1e-4
    par[Par.CLOSE_OUT_MARGIN] = _CLOSE_OUT_SHARE / _ESMA_MAX_LEVERAGE
    par[Par.NO_TRADE_BAND] = config.no_trade_band
    par[Par.INTERVAL] = interval_s // bar_seconds
    par[Par.CLOSE_AT_END] = float(close_at_end)
    par[Par.PNL_BARS] = max(1, 86_400 // bar_seconds)
    par[Par.IMPACT] = config.impact / math.sqrt(config.daily_volume)
    par[Par.DAILY_LOSS], par[Par.DRAWDOWN_STOP] = config.daily_loss_limit, config.drawdown_stop
    par[Par.KILL_LOSS], par[Par.PAUSE_DAYS] = config.kill_loss, config.drawdown_pause_days
    par[Par.REWARD] = Reward[config.reward.upper()]
    if close_at_end and config.reward == "denoised":
        par[Par.REWARD] = Reward.LOG_RETURN
    par[Par.RISK_AVERSION], par[Par.SHARPE_RATE] = config.risk_aversion, config.sharpe_rate
    return par
