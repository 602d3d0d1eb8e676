"""The trading environments: a Gymnasium interface to the compiled bar engine.

Clock: row t of the features is seen at the close of bar t; the action is filled at the open of bar t + 1;
the reward is the change of log equity from close t to close t + 1, costs included once. This module never
imports torch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space

from sac_kernel.core.config import require
from sac_kernel.core.errors import CheckpointError, NonFiniteError
from sac_kernel.core.renamed import renamed_arguments
from sac_kernel.features.pipeline import CLIP
from sac_kernel.market import engine
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.market import Market, check_horizon, prepare_market
from sac_kernel.market.records import (
    ACCOUNT_DTYPE,
    REPORT_DTYPE,
    Account,
    AccountReport,
    flat,
    new_table,
    one_row,
    to_matrix,
    to_table,
)

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from sac_kernel.market.records import Records

    FloatArray = NDArray[np.float64]
    FeatureArray = NDArray[np.float32]

__all__ = [
    "Market",
    "TradingEnvConfig",
    "TradingEnvironment",
    "TradingVectorEnv",
    "check_horizon",
    "prepare_market",
    "spaces",
]


@renamed_arguments(expected_return="return_forecast")
class TradingEnvironment(gym.Env[Any, Any]):
    """One account following a target exposure through the bars of one instrument.

    Action: Box(-1, 1, (1,)), the target exposure as a fraction of `exposure_cap`; filled at the next open.

    Observation: Box(-5, 5, (n,)), `observation_names`: market features | clock | account. Everything in it
    is known at the close of bar t.

    Reward: log E(close_{t+1}) - log E(close_t), dimensionless; summed over a decision interval; for other
    forms see `TradingEnvConfig.reward`.

    Costs: spread by the New York half hour, commission and slippage at each fill; swap at 17:00 New York.

    Start: training at a random bar and exposure; `eval_mode` at the first bar with features, flat.

    Terminated: equity below 1 % of its start. Truncated: after `horizon` bars, or at the end of the data;
    `eval_mode` runs over the whole split and closes the position at cost on its last bar.

    info: equity, total_return, sharpe_ratio (annualised from finished trading days, NaN below 20),
    max_drawdown in [0, 1], costs (account currency, by kind), turnover, trades, close_outs, position, halted,
    open_time_utc of the last bar.

    Parameters
    ----------
    data : DataFrame, bars of the instrument (index open_time_utc; open, high, low, close)
    features : DataFrame, scaled features on the same index; leading NaN rows are the warm-up
    config : costs, cap, horizon
    eval_mode : one deterministic pass over the whole split
    render_mode : None or 'rgb_array' (a figure of the episode so far)
    return_forecast, minute_bars : see `prepare_market`
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012  # as the base class declares it

    def __init__(  # noqa: PLR0913  # each has its default
        self,
        data: pd.DataFrame,
        features: pd.DataFrame,
        config: TradingEnvConfig | None = None,
        eval_mode: bool = False,
        render_mode: str | None = None,
        return_forecast: FloatArray | None = None,
        minute_bars: pd.DataFrame | None = None,
    ) -> None:
        self.config = config or TradingEnvConfig()
        self.eval_mode = eval_mode
        self.render_mode = render_mode
        self.market = prepare_market(
            data,
            features,
            self.config,
            close_at_end=eval_mode,
            return_forecast=return_forecast,
            minute_bars=minute_bars,
        )
        if not eval_mode:
            check_horizon(self.market, self.config)
        self.observation_space, self.action_space = spaces(self.market)
        self._width = len(self.observation_names)
        # What each step reads and writes, as a call takes it in fastest.
        self._state, self._report = flat(new_table(Account, 1)), flat(np.zeros(1, REPORT_DTYPE))
        self._bars, self._minutes = flat(self.market.bars), flat(self.market.minutes)
        self._terms = flat(one_row(self.market.terms))
        self._clock = _Clock(self.market.open_time)
        self._history: list[tuple[float, float, float, float]] = []

    @property
    def _account(self) -> Account:
        account: Account = self._state.view(ACCOUNT_DTYPE)[0]
        return account

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
        self._terms = flat(one_row(m.terms))
        engine.reset(self._account, m.bars, m.terms, t, left, c.initial_equity, action)
        self._history = []
        return self._observe(), self._info(engine.report(self._account, m.bars, m.terms))

    def step(self, action: Any) -> tuple[FeatureArray, float, bool, bool, dict[str, Any]]:  # noqa: ANN401
        """Fill the target exposure at the next open and hold it to the next decision."""
        target = float(action.item() if isinstance(action, np.ndarray) else np.asarray(action).item())
        if not math.isfinite(target):
            msg = f"TradingEnvironment.step: the action must be finite, got {target} at bar {int(self._account.t)}"
            raise NonFiniteError(msg)
        obs, observed = np.empty(self._width, np.float32), self.market.observed
        engine.step_one(
            self._state, self._bars, self._minutes, self._terms, observed, target, obs, self._report
        )
        report = AccountReport._make(self._report.tolist())
        return obs, report.reward, report.terminated > 0.0, report.truncated > 0.0, self._info(report)

    def render(self) -> Any:  # noqa: ANN401
        """Return the episode so far as an RGB picture: price with position, equity, costs."""
        if self.render_mode != "rgb_array":
            return None
        from sac_kernel.core.plot_style import to_rgb  # matplotlib is loaded only to draw

        return to_rgb(self.episode_figure())

    def episode_figure(self) -> Any:  # noqa: ANN401
        """Return the episode so far as a matplotlib Figure."""
        from sac_kernel.market.render import episode_figure

        index, equity, exposure, cost = np.asarray(self._history).T
        rows = index.astype(np.int64)
        return episode_figure(
            self.market.open_time[rows], self.market.bars["close"][rows], equity, exposure, cost
        )

    def _observe(self) -> FeatureArray:
        obs = np.empty(self._width, np.float32)
        engine.observe(self._account, self.market.bars, self.market.terms, self.market.observed, obs)
        return obs

    def _info(self, report: AccountReport) -> dict[str, Any]:
        self._history.append((report.t, report.equity, report.position, report.costs))
        return _info_of(report, self._clock.at(int(report.t)))


def _info_of(report: AccountReport, open_time: pd.Timestamp) -> dict[str, Any]:
    """Return the public info of one account."""
    return {
        "equity": report.equity,
        "total_return": report.total_return,
        "sharpe_ratio": _NOT_YET if math.isnan(report.sharpe_ann) else report.sharpe_ann,
        "max_drawdown": report.max_drawdown,
        "costs": {
            "spread": report.spread_paid,
            "commission": report.commission_paid,
            "slippage": report.slippage_paid,
            "swap": report.swap_paid,
        },
        "turnover": report.turnover,
        "trades": int(report.trades),
        "close_outs": int(report.close_outs),
        "position": report.position,
        "halted": report.halted > 0.0,
        "open_time_utc": open_time,
    }


class _Clock:
    """Timestamps of bars, made in blocks: one by one they cost more than the rest of a step."""

    _BLOCK = 1024

    def __init__(self, index: pd.DatetimeIndex) -> None:
        self._index = index
        self._blocks: dict[int, list[pd.Timestamp]] = {}

    def at(self, row: int) -> pd.Timestamp:
        number, offset = divmod(row, self._BLOCK)
        block = self._blocks.get(number)
        if block is None:
            start = number * self._BLOCK
            block = self._blocks[number] = list(self._index[start : start + self._BLOCK])
        return block[offset]


@renamed_arguments(expected_return="return_forecast")
class TradingVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """Many independent accounts over one market, autoreset SAME_STEP.

    On the step that ends an account, its `obs` row is the first of the next episode; the last row of the old
    episode is in `infos['final_obs']` where `infos['_final_obs']` is true. The first reset starts accounts at random
    ages, so truncations are spread out. `infos['final_info']` holds the last info of each ended account in
    Gymnasium's layout: arrays over the envs with `_` masks.
    """

    metadata: dict[str, Any] = {"autoreset_mode": gym.vector.AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, market: Market, config: TradingEnvConfig, num_envs: int) -> None:
        require(num_envs > 0, "TradingVectorEnv", "num_envs must be > 0", num_envs)
        check_horizon(market, config)
        self.market, self.config, self.num_envs = market, config, num_envs
        self.single_observation_space, self.single_action_space = spaces(market)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._accounts, self._rewards = new_table(Account, num_envs), np.zeros(num_envs)
        self._clock = _Clock(market.open_time)

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
        """Step every account; finished ones restart in the same step."""
        targets = np.asarray(actions, np.float64).reshape(self.num_envs)
        if not np.isfinite(targets).all():
            i = int(np.argmin(np.isfinite(targets)))
            msg = f"TradingVectorEnv.step: actions must be finite, got {targets[i]} for env {i}"
            raise NonFiniteError(msg)
        m, obs = self.market, self._empty_obs()
        engine.step_many(self._accounts, m.bars, m.minutes, m.terms, m.observed, targets, self._rewards, obs)
        terminated = self._accounts["terminated"] > 0
        truncated = (self._accounts["truncated"] > 0) & ~terminated
        done, infos = terminated | truncated, {}
        if done.any():
            infos = {"final_obs": obs.copy(), "_final_obs": done} | self._final_info(np.flatnonzero(done))
            for i in np.flatnonzero(done):
                self._reset_one(int(i), self.config.horizon_bars, obs[i])
        return obs, self._rewards.copy(), terminated, truncated, infos

    def _final_info(self, ended: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return the last info of each account that ended, in Gymnasium's layout."""
        infos: dict[str, Any] = {}
        for i in ended:
            report = engine.report(self._accounts[i], self.market.bars, self.market.terms)
            last = _info_of(report, self._clock.at(int(report.t)))
            infos = self._add_info(infos, {"final_info": last}, int(i))
        return infos

    def state(self) -> dict[str, Any]:
        """Return what continues this env bit for bit: the accounts (a matrix of `Account` fields) and the generator."""
        return {"accounts": to_matrix(self._accounts), "rng": self.np_random.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> FeatureArray:
        """Continue from `state` and return the observations that belong to it.

        Raises
        ------
        CheckpointError
            If the accounts do not fit this market: compiled code reads bars at the rows that they name.
        """
        self._accounts[:] = self._checked_accounts(np.asarray(state["accounts"], np.float64))
        self._np_random = np.random.default_rng()
        self._np_random.bit_generator.state = state["rng"]
        obs, m = self._empty_obs(), self.market
        for i in range(self.num_envs):
            engine.observe(self._accounts[i], m.bars, m.terms, m.observed, obs[i])
        return obs

    def _checked_accounts(self, matrix: FloatArray) -> Records:
        last = len(self.market.bars) - 1
        fits = matrix.shape == (self.num_envs, len(Account.__annotations__))
        if fits:
            accounts = to_table(matrix, Account)
            t, left, held = accounts["t"], accounts["bars_left"], accounts["bars_held"]
            finite = accounts.copy()
            finite["halted_until"] = 0.0  # infinite after a kill switch
            fits = bool(
                np.isfinite(to_matrix(finite)).all()
                and (t >= self.market.first_bar).all()
                and (left >= 1).all()
                and (t + left <= last).all()
                and ((held >= 0) & (held <= last)).all()
                and (accounts["equity"] > 0).all()
            )
        if not fits:
            msg = (
                f"TradingVectorEnv.restore: the state does not hold {self.num_envs} accounts within bars "
                f"{self.market.first_bar}..{last}. It belongs to another market."
            )
            raise CheckpointError(msg)
        return accounts

    def _reset_one(self, i: int, left: int, obs: FeatureArray) -> None:
        m, c = self.market, self.config
        t = int(self.np_random.integers(m.first_bar, len(m.bars) - left))
        action = float(self.np_random.uniform(-1, 1)) if c.random_start_position else 0.0
        accounts, bars, terms = flat(self._accounts), flat(m.bars), flat(one_row(m.terms))
        engine.start_one(accounts, i, bars, terms, m.observed, t, left, c.initial_equity, action, obs)

    def _empty_obs(self) -> FeatureArray:
        return np.empty(self.observation_space.shape, np.float32)  # type: ignore[arg-type]  # a Box


def spaces(market: Market) -> tuple[gym.spaces.Box, gym.spaces.Box]:
    """Return the observation and action space."""
    width = len(market.observation_names)
    return gym.spaces.Box(-CLIP, CLIP, (width,), np.float32), gym.spaces.Box(-1.0, 1.0, (1,), np.float32)


class _NotYet(float):
    """A NaN that equals itself, because Gymnasium's determinism check compares infos with ==."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _NotYet)

    __hash__ = float.__hash__


_NOT_YET = _NotYet("nan")
