"""The trading environment: Gymnasium in front, one compiled bar engine behind.

Clock: row t of the features is seen at the close of bar t; the action is filled at the open of bar t + 1;
the reward is the change of log equity from close t to close t + 1, costs included once. This module never
imports torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pandas as pd
from gymnasium.vector.utils import batch_space

from sac_kernel import bar_engine, market_costs, plots
from sac_kernel.bar_engine import ACCOUNT_FEATURES, Acc, Bar, Par
from sac_kernel.bar_formats import PRICE_SIDES, check_bars, infer_bar_seconds
from sac_kernel.config import require
from sac_kernel.errors import DataError, NonFiniteError
from sac_kernel.feature_engineering import CLIP
from sac_kernel.indicators import ewma_volatility, log_path
from sac_kernel.metrics import MIN_DAYS_FOR_SHARPE, TRADING_DAYS_PER_YEAR

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    FeatureArray = NDArray[np.float32]

CLOCK_FEATURES = ("trading_cost", "time_to_rollover", "can_trade")
"""trading_cost: log of the one-way cost now over its normal value. time_to_rollover: to 17:00 New York,
in days. can_trade: 1 if an order given now may be filled. All known from the clock alone."""

_ESMA_MAX_LEVERAGE = 30.0
_CLOSE_OUT_SHARE = 0.5  # of the minimum margin (ESMA): equity below notional / 60 is closed out


@dataclass(frozen=True)
class TradingEnvConfig:
    """The account and the episode; names carry their unit.

    Attributes
    ----------
    cost_tier : 'raw', 'base' or 'spec' (see `market_costs.COST_TIERS`)
    exposure_cap : exposure at |action| = 1, notional over equity; 30 is the legal bound for majors
    decision_interval_min : minutes between decisions, a multiple of the bar; 0 is every bar
    episode_lengths : one value, steps of experience that count as one episode
    horizon : bars until truncation; None takes the episode length
    swap_long_bps, swap_short_bps : paid a night, of notional, positive = paid; both sides pay by default,
        because the sign of the carry changes over the years: set your broker's
    stop_loss_bps, take_profit_bps : overlay, distance from the entry price; 0 is off
    random_start_position : training episodes start at a random exposure, to cover the position axis
    initial_equity : account currency (the quote currency)
    price_side : 'bid', 'ask' or 'mid'; None takes what the bars say of themselves
    """

    cost_tier: str = "base"
    exposure_cap: float = 1.0
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

    def __post_init__(self) -> None:
        where = "TradingEnvConfig"
        object.__setattr__(self, "episode_lengths", tuple(self.episode_lengths))
        tiers = market_costs.COST_TIERS
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
        for name in ("stop_loss_bps", "take_profit_bps"):
            value = getattr(self, name)
            require(0 <= value < 1e4, where, f"{name} must be in [0, 10000)", value)
        require(self.initial_equity > 0, where, "initial_equity must be > 0", self.initial_equity)
        known = self.price_side is None or self.price_side in PRICE_SIDES
        require(known, where, "price_side must be bid, ask or mid", self.price_side)

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
    """

    bars: FloatArray
    observed: FeatureArray
    par: FloatArray
    first_bar: int
    feature_names: tuple[str, ...]
    open_time: pd.DatetimeIndex
    bar_seconds: int

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Return the name of each number of an observation."""
        return (*self.feature_names, *ACCOUNT_FEATURES)

    @property
    def interval_bars(self) -> int:
        """Return bars per decision."""
        return int(self.par[Par.INTERVAL])


def prepare_market(
    data: pd.DataFrame, features: pd.DataFrame, config: TradingEnvConfig, *, close_at_end: bool
) -> Market:
    """Check bars and features against each other and lay them out for the engine.

    Raises
    ------
    DataError
        If the bars are unusable, their price side is unknown, the index differs, or a feature is not finite
        after the warm-up.
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
    close_time = open_time + pd.Timedelta(seconds=bar_seconds)
    clock = _clock_features(close_time, config.cost_tier)
    return Market(
        bars=_bar_table(data, bar_seconds, config.cost_tier),
        observed=np.ascontiguousarray(np.concatenate((values, clock), axis=1), np.float32),
        par=_parameters(config, side, bar_seconds, close_at_end=close_at_end),
        first_bar=first,
        feature_names=(*map(str, features.columns), *CLOCK_FEATURES),
        open_time=open_time,
        bar_seconds=bar_seconds,
    )


class TradingEnvironment(gym.Env[Any, Any]):
    """One account following a target exposure through the bars of one instrument.

    Action: Box(-1, 1, (1,)), the target exposure as a fraction of `exposure_cap`; filled at the next open.

    Observation: Box(-5, 5, (n,)), `observation_names`: market features | clock | account. Everything is
    known at the close of bar t.

    Reward: log E(close_{t+1}) - log E(close_t), dimensionless; with a decision interval, the sum over it.

    Costs: spread by the New York half hour, commission and slippage at each fill; swap at 17:00 New York.

    Start: training at a random bar and exposure; `eval_mode` at the first bar with features, flat.

    Terminated: equity below 1 % of its start. Truncated: after `horizon` bars, or at the end of the data;
    `eval_mode` runs over the whole split and closes the position at cost on its last bar.

    info: equity, total_return, sharpe_ratio (annualised from finished trading days, NaN below 20),
    max_drawdown in [0, 1], costs (account currency, by kind), position, open_time_utc of the last bar.

    Parameters
    ----------
    data : DataFrame, bars of the instrument (index open_time_utc; open, high, low, close)
    features : DataFrame, scaled features on the same index; leading NaN rows are the warm-up
    config : costs, cap, horizon
    eval_mode : one deterministic pass over the whole split
    render_mode : None or 'rgb_array' (a figure of the episode so far)
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012  # as the base class declares it

    def __init__(
        self,
        data: pd.DataFrame,
        features: pd.DataFrame,
        config: TradingEnvConfig | None = None,
        eval_mode: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.config = config or TradingEnvConfig()
        self.eval_mode = eval_mode
        self.render_mode = render_mode
        self.market = prepare_market(data, features, self.config, close_at_end=eval_mode)
        if not eval_mode:
            check_horizon(self.market, self.config)
        self.observation_space, self.action_space = spaces(self.market)
        self._state = np.zeros(len(Acc))
        self._history: list[tuple[float, float, float, float]] = []

    @property
    def observation_names(self) -> tuple[str, ...]:
        """Return the name of each number of an observation."""
        return self.market.observation_names

    def reset(
        self,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002  # the interface has it
    ) -> tuple[FeatureArray, dict[str, Any]]:
        """Start an episode; seed once, right after creation."""
        super().reset(seed=seed)
        m, c = self.market, self.config
        last = len(m.bars) - 1
        if self.eval_mode:
            t, left, action = m.first_bar, last - m.first_bar, 0.0
        else:
            left = c.horizon_bars
            t = int(self.np_random.integers(m.first_bar, last - left + 1))
            action = float(self.np_random.uniform(-1, 1)) if c.random_start_position else 0.0
        bar_engine.reset(self._state, m.bars, m.par, t, left, c.initial_equity, action)
        self._history = [self._record()]
        return self._observe(), self._info()

    def step(self, action: Any) -> tuple[FeatureArray, float, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """Fill the target exposure at the next open and hold it to the next decision."""
        target = float(np.asarray(action).reshape(-1)[0])
        if not math.isfinite(target):
            msg = f"trading_env.step: a finite action is required, got {target} at bar {int(self._state[Acc.T])}"
            raise NonFiniteError(msg)
        reward = bar_engine.step(self._state, self.market.bars, self.market.par, target)
        self._history.append(self._record())
        terminated = bool(self._state[Acc.TERMINATED])
        truncated = bool(self._state[Acc.TRUNCATED]) and not terminated
        return self._observe(), reward, terminated, truncated, self._info()

    def render(self) -> Any:  # noqa: ANN401
        """Return the episode so far as an RGB picture: price with position, equity, costs."""
        if self.render_mode != "rgb_array":
            return None
        return plots.to_rgb(self.episode_figure())

    def episode_figure(self) -> Any:  # noqa: ANN401
        """Return the episode so far as a matplotlib Figure."""
        index, equity, exposure, cost = np.asarray(self._history).T
        rows = index.astype(np.int64)
        return plots.episode_figure(
            self.market.open_time[rows], self.market.bars[rows, Bar.CLOSE], equity, exposure, cost
        )

    def _observe(self) -> FeatureArray:
        out = np.empty(self.observation_space.shape, np.float32)  # type: ignore[arg-type]  # a Box
        bar_engine.observe(self._state, self.market.bars, self.market.par, self.market.observed, out)
        return out

    def _record(self) -> tuple[float, float, float, float]:
        out = np.empty(4)
        bar_engine.record(self._state, self.market.bars, self.market.par, out)
        return tuple(out.tolist())

    def _info(self) -> dict[str, Any]:
        s = self._state
        equity, start = float(s[Acc.EQUITY]), float(s[Acc.START])
        return {
            "equity": equity,
            "total_return": equity / start - 1.0,
            "sharpe_ratio": _sharpe(s),
            "max_drawdown": float(s[Acc.DRAWDOWN]),
            "costs": {
                "spread": float(s[Acc.SPREAD]),
                "commission": float(s[Acc.COMMISSION]),
                "slippage": float(s[Acc.SLIPPAGE]),
                "swap": float(s[Acc.SWAP]),
            },
            "turnover": float(s[Acc.TURNOVER]),
            "trades": int(s[Acc.TRADES]),
            "position": self._history[-1][2] if self._history else 0.0,
            "open_time_utc": self.market.open_time[int(s[Acc.T])],
        }


class TradingVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """Many independent accounts over one market, autoreset SAME_STEP.

    On the step that ends an account its `obs` row already is the first of the next episode; the last one
    of the old is in `infos['final_obs']` where `infos['_final_obs']` is true. Ages are desynchronised at
    the first reset, so truncations do not land together.
    """

    metadata: dict[str, Any] = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, market: Market, config: TradingEnvConfig, num_envs: int) -> None:
        require(num_envs > 0, "TradingVectorEnv", "num_envs must be > 0", num_envs)
        check_horizon(market, config)
        self.market, self.config, self.num_envs = market, config, num_envs
        self.single_observation_space, self.single_action_space = spaces(market)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._states = np.zeros((num_envs, len(Acc)))
        self._rewards = np.zeros(num_envs)

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002  # the interface has it
    ) -> tuple[FeatureArray, dict[str, Any]]:
        """Start all accounts at random bars, exposures and ages."""
        if seed is not None:
            self._np_random = np.random.default_rng(seed)  # type: ignore[arg-type]  # one seed for all
        obs = self._empty_obs()
        for i in range(self.num_envs):
            age = self.np_random.integers(0, self.config.horizon_bars)
            self._reset_one(i, self.config.horizon_bars - int(age), obs[i])
        return obs, {}

    def step(self, actions: Any) -> tuple[FeatureArray, FloatArray, Any, Any, dict[str, Any]]:  # noqa: ANN401
        """Step every account; finished ones start again in the same step."""
        targets = np.asarray(actions, np.float64).reshape(self.num_envs)
        if not np.isfinite(targets).all():
            i = int(np.argmin(np.isfinite(targets)))
            msg = f"trading_env.step: finite actions are required, got {targets[i]} for env {i}"
            raise NonFiniteError(msg)
        m, obs = self.market, self._empty_obs()
        bar_engine.step_many(self._states, m.bars, m.par, m.observed, targets, self._rewards, obs)
        terminated = self._states[:, Acc.TERMINATED] > 0
        truncated = (self._states[:, Acc.TRUNCATED] > 0) & ~terminated
        done, infos = terminated | truncated, {}
        if done.any():
            infos = {"final_obs": obs.copy(), "_final_obs": done}
            for i in np.flatnonzero(done):
                self._reset_one(int(i), self.config.horizon_bars, obs[i])
        return obs, self._rewards.copy(), terminated, truncated, infos

    def state(self) -> dict[str, Any]:
        """Return what continues this env bit for bit: accounts and generator."""
        return {"accounts": self._states.copy(), "rng": self.np_random.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> FeatureArray:
        """Continue from `state` and return the observations that belong to it."""
        self._states[:] = state["accounts"]
        self._np_random = np.random.default_rng()
        self._np_random.bit_generator.state = state["rng"]
        obs, m = self._empty_obs(), self.market
        for i in range(self.num_envs):
            bar_engine.observe(self._states[i], m.bars, m.par, m.observed, obs[i])
        return obs

    def _reset_one(self, i: int, left: int, obs: FeatureArray) -> None:
        m, c = self.market, self.config
        t = int(self.np_random.integers(m.first_bar, len(m.bars) - left))
        action = float(self.np_random.uniform(-1, 1)) if c.random_start_position else 0.0
        bar_engine.reset(self._states[i], m.bars, m.par, t, left, c.initial_equity, action)
        bar_engine.observe(self._states[i], m.bars, m.par, m.observed, obs)

    def _empty_obs(self) -> FeatureArray:
        return np.empty(self.observation_space.shape, np.float32)  # type: ignore[arg-type]  # a Box


def spaces(market: Market) -> tuple[gym.spaces.Box, gym.spaces.Box]:
    """Return the observation and action space: the one owner of the state's width."""
    width = len(market.observation_names)
    return gym.spaces.Box(-CLIP, CLIP, (width,), np.float32), gym.spaces.Box(-1.0, 1.0, (1,), np.float32)


def check_horizon(market: Market, config: TradingEnvConfig) -> None:
    """Raise DataError if the block is shorter than one horizon."""
    usable = len(market.bars) - 1 - market.first_bar
    if usable < config.horizon_bars:
        msg = (
            f"trading_env: {config.horizon_bars} bars (horizon) after the warm-up are required, found {usable} "
            f"of {len(market.bars)}; give more bars, or set env_horizon (or env_episode_length) to {usable} or less"
        )
        raise DataError(msg)


def _bar_table(data: pd.DataFrame, bar_seconds: int, tier: str) -> FloatArray:
    length = pd.Timedelta(seconds=bar_seconds)
    opened: pd.DatetimeIndex = data.index  # type: ignore[assignment]  # checked: a DatetimeIndex
    closed = opened + length
    inside = closed - pd.Timedelta(seconds=1)  # the bar's last second belongs to the bar
    previous = closed[:-1].insert(0, opened[0])
    table = np.empty((len(data), len(Bar)))
    for column, name in ((Bar.OPEN, "open"), (Bar.HIGH, "high"), (Bar.LOW, "low"), (Bar.CLOSE, "close")):
        table[:, column] = data[name].to_numpy()
    table[:, Bar.SPREAD_OPEN] = market_costs.spread_bps(opened, tier) * 1e-4
    table[:, Bar.SPREAD_CLOSE] = market_costs.spread_bps(inside, tier) * 1e-4
    table[:, Bar.NIGHTS_GAP] = market_costs.swap_nights(previous, opened)
    table[:, Bar.NIGHTS_BAR] = market_costs.swap_nights(opened, closed)
    table[:, Bar.TRADABLE] = market_costs.is_tradable(opened)
    table[:, Bar.DAY] = market_costs.trading_day(inside)
    day_bars = max(1, 86_400 // bar_seconds)
    table[:, Bar.SIGMA] = ewma_volatility(log_path(data, bar_seconds).bar_return, day_bars)
    return table


def _clock_features(close_time: pd.DatetimeIndex, tier: str) -> FeatureArray:
    cost = market_costs.one_way_bps(close_time, tier)
    normal = cost.min()
    columns = (
        np.log(cost / normal),
        market_costs.hours_to_rollover(close_time) / 24.0,
        market_costs.is_tradable(close_time).astype(np.float64),
    )
    return np.clip(np.stack(columns, axis=1), -CLIP, CLIP).astype(np.float32)


def _parameters(config: TradingEnvConfig, side: str, bar_seconds: int, *, close_at_end: bool) -> FloatArray:
    interval_s = config.decision_interval_min * 60 or bar_seconds
    if interval_s % bar_seconds:
        msg = (
            f"trading_env: decision_interval_min must be a multiple of the bar ({bar_seconds / 60:g} min), "
            f"got {config.decision_interval_min}"
        )
        raise DataError(msg)
    factor = market_costs.COST_TIERS[config.cost_tier]
    par = np.zeros(len(Par))
    par[Par.SIDE] = {"bid": 1.0, "ask": -1.0, "mid": 0.0}[side]
    par[Par.CAP] = config.exposure_cap
    par[Par.COMMISSION] = market_costs.COMMISSION_BPS * factor * 1e-4
    par[Par.SLIPPAGE] = market_costs.SLIPPAGE_BPS * factor * 1e-4
    par[Par.SWAP_LONG], par[Par.SWAP_SHORT] = config.swap_long_bps * 1e-4, config.swap_short_bps * 1e-4
    par[Par.STOP_LOSS], par[Par.TAKE_PROFIT] = config.stop_loss_bps * 1e-4, config.take_profit_bps * 1e-4
    par[Par.CLOSE_OUT_MARGIN] = _CLOSE_OUT_SHARE / _ESMA_MAX_LEVERAGE
    par[Par.INTERVAL] = interval_s // bar_seconds
    par[Par.CLOSE_AT_END] = float(close_at_end)
    par[Par.PNL_BARS] = max(1, 86_400 // bar_seconds)
    return par


class _NotYet(float):
    """NaN that equals its own kind: Gymnasium's determinism check compares infos with ==."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _NotYet)

    __hash__ = float.__hash__


_NOT_YET = _NotYet("nan")


def _sharpe(s: FloatArray) -> float:
    days = s[Acc.DAYS]
    if days < MIN_DAYS_FOR_SHARPE:
        return _NOT_YET
    sd = math.sqrt(s[Acc.DAY_M2] / (days - 1))
    if sd <= 1e-15:  # only rounding is left
        return 0.0 if abs(s[Acc.DAY_MEAN]) <= 1e-15 else math.nan
    return math.sqrt(TRADING_DAYS_PER_YEAR) * float(s[Acc.DAY_MEAN]) / sd
