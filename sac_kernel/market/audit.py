"""`audit`: what any Gymnasium trading env shows, fills, charges and ends, found by experiment.

Nothing of the env is read but its public interface. It is built from bars again and again with one price
changed, and what moves in observations, equity and rewards tells which prices they are made of.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pandas as pd

from sac_kernel.core.errors import DataError
from sac_kernel.prices.bars import INDEX_NAME, PRICE_COLUMNS, Bars

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

_FIELD_ORDER = {"open": 0, "high": 1, "low": 1, "close": 2}
_EQUITY_KEYS = ("equity", "portfolio_valuation", "total_profit")
_PROBES = (0.3, 0.7)  # of the episode
_TRIES = 6  # a step may fall into hours without trading
_WINDOW = 4  # bars before the last one that a round trip's result depends on
_NUDGE = 1e-4
_FLIPS = 40
_SOME_COST = 1e-7


@dataclass(frozen=True)
class Subject:
    """An env under audit.

    Attributes
    ----------
    name : for the table
    make_env : bars (open_time_utc -> open, high, low, close) -> a fresh env that runs over them, or over
        their end, one bar a step and in order
    action : target exposure, 0 (flat) or 1 (fully long) -> the env's action
    equity : (env, info) -> account value; by default info's equity, portfolio_valuation or total_profit
    """

    name: str
    make_env: Callable[[pd.DataFrame], gym.Env[Any, Any]]
    action: Callable[[float], Any] = field(default=lambda exposure: np.array([exposure], np.float32))
    equity: Callable[[gym.Env[Any, Any], dict[str, Any]], float] = field(
        default=lambda _env, info: _equity(info)
    )


@dataclass(frozen=True)
class Finding:
    """One check: whether it passed, and what was found in words."""

    check: str
    passed: bool
    found: str


@dataclass(frozen=True)
class AuditReport:
    """All findings on one env."""

    name: str
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """Return the names of the checks that did not pass."""
        return tuple(f.check for f in self.findings if not f.passed)

    def __str__(self) -> str:
        """Return a Markdown table."""
        rows = [f"| {f.check} | {'pass' if f.passed else 'FAIL'} | {f.found} |" for f in self.findings]
        return "\n".join([f"| {self.name} | | |", "|---|---|---|", *rows])


@dataclass
class _Trace:
    """One episode; entry i of obs and equity is before action i, of rewards after it."""

    obs: list[FloatArray]
    equity: list[float]
    rewards: list[float]
    terminated: bool = False
    truncated: bool = False


def audit(subject: Subject, bars: pd.DataFrame | None = None) -> AuditReport:
    """Run every check on an env and return what was found; nothing is raised for a failed check.

    Checks: `seed` (same seed, same episode), `leak` (nothing shown that comes after the price of the fill),
    `latency` (filled after what was shown, not at it), `info` (the account is valued at no later price than
    the fill), `costs` (turning over costs, staying flat does not), `costs in reward`, `marking` (an open
    position moves equity and reward), `time limit` (truncated, not terminated), `ruin` (all finite).

    Parameters
    ----------
    subject : the env and how to feed it
    bars : default `audit_bars()`, 400 hours of a random walk

    Raises
    ------
    DataError
        If no order is filled at any probed step, so that nothing can be said.
    """
    probe = _Probe(subject, audit_bars() if bars is None else bars)
    findings = [_check_seed(probe), *_check_clock(probe), *_check_costs(probe), _check_marking(probe)]
    return AuditReport(subject.name, (*findings, _check_time_limit(probe), _check_ruin(probe)))


def audit_bars(n: int = 400, seed: int = 0) -> pd.DataFrame:
    """Return n hours of a random walk with wide bars, so that a nudged price stays between high and low."""
    times = pd.date_range("2018-01-01T00:00Z", periods=2 * n, freq="h")
    times = times[times.day_of_week < 5][:n]
    rng = np.random.default_rng(seed)
    close = 1.1 * np.exp(np.cumsum(rng.normal(0.0, 1e-3, n)))
    opened = np.concatenate(([1.1], close[:-1])) * np.exp(rng.normal(0.0, 1e-4, n))
    return _bars(times, opened, close)


class _Probe:
    """Episodes of one env on edited bars."""

    def __init__(self, subject: Subject, bars: pd.DataFrame) -> None:
        self.subject, self.bars = subject, bars
        self.length = len(self.run(bars, ()).rewards)

    def run(
        self,
        bars: pd.DataFrame,
        exposures: Sequence[float],
        steps: int | None = None,
        global_seed: int = 0,
    ) -> _Trace:
        """Follow target exposures, flat after them, for `steps` or to the end."""
        np.random.seed(global_seed)  # noqa: NPY002  # some envs draw from the global generator
        env = self.subject.make_env(bars)
        obs, info = env.reset(seed=0)
        trace = _Trace([self._flat(env, obs)], [self.subject.equity(env, info)], [])
        while not (trace.terminated or trace.truncated) and (steps is None or len(trace.rewards) < steps):
            i = len(trace.rewards)
            exposure = exposures[i] if i < len(exposures) else 0.0
            obs, reward, trace.terminated, trace.truncated, info = env.step(self.subject.action(exposure))
            trace.obs.append(self._flat(env, obs))
            trace.equity.append(self.subject.equity(env, info))
            trace.rewards.append(float(reward))
        env.close()
        return trace

    def last_bar(self, value: Callable[[pd.DataFrame], FloatArray]) -> int:
        """Return the last bar that a value depends on: by bisection, the future edited from there on."""
        plain, low, high = value(self.bars), -1, len(self.bars) - 1
        while low < high:  # editing bars after `high` changes nothing, editing those after `low` may
            middle = (low + high) // 2
            if np.array_equal(value(_edited(self.bars, middle)), plain, equal_nan=True):
                high = middle
            else:
                low = middle + 1
        return high

    def fields(
        self, bar: int, value: Callable[[pd.DataFrame], FloatArray], plain: FloatArray
    ) -> dict[str, float]:
        """Return the change of a value from `plain`, per log change of each price of one bar; NaN -> 0."""
        moved = {name: np.nan_to_num(value(_nudged(self.bars, bar, name)) - plain) for name in PRICE_COLUMNS}
        return {name: float(m[np.argmax(np.abs(m))]) / _NUDGE for name, m in moved.items()}

    def _flat(self, env: gym.Env[Any, Any], obs: Any) -> FloatArray:  # noqa: ANN401
        return np.asarray(gym.spaces.flatten(env.observation_space, obs), np.float64)


def _check_seed(probe: _Probe) -> Finding:
    exposures = np.random.default_rng(0).integers(0, 2, probe.length).tolist()
    one, other = (probe.run(probe.bars, exposures, global_seed=seed) for seed in (1, 2))
    same = one.rewards == other.rewards and all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(one.obs, other.obs, strict=False)
    )
    found = "same seed, same episode" if same else "two episodes with one seed and the same actions differ"
    return Finding("seed", same, found)


def _check_clock(probe: _Probe) -> list[Finding]:
    """Return the checks leak, latency and info, at the worst of the probed steps."""
    worst: list[Finding] = []
    for share in _PROBES:
        findings = _clock_at(probe, _filled_step(probe, int(share * probe.length)))
        worst = (
            [old if not old.passed or new.passed else new for old, new in zip(worst, findings, strict=True)]
            if worst
            else findings
        )
    return worst


def _filled_step(probe: _Probe, first: int) -> int:
    for k in range(first, first + _TRIES):
        flat = probe.run(probe.bars, (), k + 4)
        if probe.run(probe.bars, _pulse(k), k + 4).equity[-1] != flat.equity[-1]:
            return k
    msg = (
        f"audit: an env that fills an order is required, found that {probe.subject.name} filled none given "
        f"at steps {first} to {first + _TRIES - 1}; check the subject's action and equity"
    )
    raise DataError(msg)


def _clock_at(probe: _Probe, k: int) -> list[Finding]:
    """Find what is shown before step k, at which price its order is filled, and what values the account."""

    def shown(bars: pd.DataFrame) -> FloatArray:
        return probe.run(bars, (), k).obs[k]

    def result(bars: pd.DataFrame) -> FloatArray:
        return np.log([probe.run(bars, _pulse(k), k + 4).equity[-1]])

    def valued(bars: pd.DataFrame) -> FloatArray:
        return np.array([probe.run(bars, [0.0] * (k - 3) + [1.0] * 3, k).equity[k]])

    seen = _latest(probe, shown, probe.last_bar(shown))
    last, plain = probe.last_bar(result), result(probe.bars)
    pull = {
        (bar, name): slope
        for bar in range(max(0, last - _WINDOW), last + 1)
        for name, slope in probe.fields(bar, result, plain).items()
    }
    bar, name = min(pull, key=lambda at: pull[at])  # buying dearer costs: the most negative slope
    fill = (bar, _FIELD_ORDER[name])
    account = _latest(probe, valued, probe.last_bar(valued))
    shown_at, filled_at = _words(seen, probe), f"{name} of bar {bar}"
    leaks, at_once = seen > fill, seen == fill
    facts = f"step {k} shows {shown_at}, its order is filled at the {filled_at}"
    return [
        Finding("leak", not leaks, f"{facts}: {'later than the fill' if leaks else 'nothing later'}"),
        Finding(
            "latency", not at_once, f"{facts}: no time to act" if at_once else "not filled at what was shown"
        ),
        Finding(
            "info",
            account <= fill,
            f"before step {k} the account is valued at {_words(account, probe)}"
            + ("" if account <= fill else ", later than its next fill"),
        ),
    ]


def _check_costs(probe: _Probe) -> list[Finding]:
    still = _flat_bars(probe.bars)
    flips = [float(i % 2) for i in range(1, _FLIPS + 1)]
    flat, turned = probe.run(still, (), _FLIPS + 2), probe.run(still, flips, _FLIPS + 2)
    paid = np.log(turned.equity[0] / turned.equity[-1])
    free = abs(np.log(flat.equity[-1] / flat.equity[0])) < _SOME_COST
    charged = bool(paid > _SOME_COST) and free
    learnt = sum(turned.rewards) < sum(flat.rewards) - _SOME_COST
    each = f"{paid / _FLIPS * 1e4:.2f} bps a change of side at a standing price"
    return [
        Finding("costs", charged, each if free else "staying flat changes equity"),
        Finding(
            "costs in reward", learnt, "reward falls with turnover" if learnt else "reward ignores costs"
        ),
    ]


def _check_marking(probe: _Probe) -> Finding:
    """Rise by 0.1 % a bar, fully long: equity and reward must rise with it."""
    n = len(probe.bars)
    close = np.exp(1e-3 * np.arange(n))
    rising = _bars(probe.bars.index, close * np.exp(-1e-3), close)
    trace = probe.run(rising, [1.0] * 30, 30)
    held = np.diff(np.log(trace.equity))[5:] > 1e-4
    paid = np.asarray(trace.rewards)[5:] > 0
    passed = bool(held.mean() > 0.8 and paid.mean() > 0.8)
    found = f"equity moves in {held.mean():.0%}, reward in {paid.mean():.0%} of the bars of a rising long"
    return Finding("marking", passed, found)


def _check_time_limit(probe: _Probe) -> Finding:
    trace = probe.run(probe.bars, ())
    passed = trace.truncated and not trace.terminated
    found = f"the end of the data is terminated={trace.terminated}, truncated={trace.truncated}"
    return Finding("time limit", passed, found)


def _check_ruin(probe: _Probe) -> Finding:
    """Let every price fall to a thousandth in mid-episode, fully long."""
    crash = probe.bars.copy()
    crash.iloc[-probe.length // 2 :] *= 1e-3
    trace = probe.run(crash, [1.0] * probe.length)
    finite = bool(np.isfinite(trace.rewards).all() and np.isfinite(trace.equity).all())
    passed = finite and min(trace.equity) >= 0.0
    left = trace.equity[-1] / trace.equity[0]
    found = f"{'all finite' if finite else 'not finite'}, {left:.2%} left, terminated={trace.terminated}"
    return Finding("ruin", passed, found)


def _pulse(k: int) -> list[float]:
    """Long at step k alone."""
    return [0.0] * k + [1.0]


def _latest(probe: _Probe, value: Callable[[pd.DataFrame], FloatArray], bar: int) -> tuple[int, int]:
    """Return bar and place in it (open 0, range 1, close 2) of the last price that a value depends on."""
    if bar < 0:
        return (-1, 0)
    moved = [name for name, slope in probe.fields(bar, value, value(probe.bars)).items() if slope != 0.0]
    return (bar, max((_FIELD_ORDER[name] for name in moved), default=2))


def _words(at: tuple[int, int], probe: _Probe) -> str:
    if at[0] < 0:
        return "no price"
    place = ("the open", "the range", "the close")[at[1]]
    return f"{place} of bar {at[0]}" + (" (the last of the data)" if at[0] == len(probe.bars) - 1 else "")


def _edited(bars: pd.DataFrame, after: int) -> pd.DataFrame:
    """Multiply every bar after bar `after` by a random factor of its own."""
    factor = np.exp(np.random.default_rng(after + 1).normal(0.0, 0.02, len(bars)))
    factor[: after + 1] = 1.0
    edited = bars.copy()
    edited.loc[:, :] = bars.to_numpy() * factor[:, None]
    return edited


def _nudged(bars: pd.DataFrame, bar: int, name: str) -> pd.DataFrame:
    nudged = bars.copy()
    factor = np.ones(len(bars))
    factor[bar] += _NUDGE
    nudged[name] = bars[name] * factor
    return nudged


def _flat_bars(bars: pd.DataFrame) -> pd.DataFrame:
    price = np.full(len(bars), 1.1)
    return _bars(bars.index, price, price, 0.0)


def _bars(times: Any, opened: FloatArray, close: FloatArray, margin: float = 5e-3) -> pd.DataFrame:  # noqa: ANN401
    frame = pd.DataFrame(
        {
            "open": opened,
            "high": np.maximum(opened, close) * (1.0 + margin),
            "low": np.minimum(opened, close) * (1.0 - margin),
            "close": close,
        },
        index=pd.DatetimeIndex(times, name=INDEX_NAME),
    )
    return Bars(frame, side="bid")


def _equity(info: dict[str, Any]) -> float:
    for key in _EQUITY_KEYS:
        if key in info:
            return float(info[key])
    msg = (
        f"audit: an account value in info ({', '.join(_EQUITY_KEYS)}) is required, found {', '.join(info) or 'none'}; "
        "pass Subject(equity=...)"
    )
    raise DataError(msg)
