"""The random-walk audit: no policy may earn on prices without drift, through the whole pipeline and engine.

Features of ten simulated martingales drive about forty families of policies. The engine runs each without and
with costs. A mean daily t-statistic far from zero over many seeds means that the future leaks.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sac_kernel.backtest.runner import run_targets
from sac_kernel.features.columns import INSTRUMENTS
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.market import Market, prepare_market
from sac_kernel.prices.bars import INDEX_NAME, Bars

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sac_kernel.prices.bars import BarsByInstrument

    FloatArray = NDArray[np.float64]

MAX_MEAN_T_BEFORE, MAX_MEAN_T_AFTER = 0.75, 0.5
"""Bounds over 20 seeds: of |mean t| of any family before costs, and of mean t after base costs. A mean of
20 has a standard error of 0.22; the largest of 40 such means is about 0.6."""

FULL_SEEDS, DAYS = 20, 40

_BAR_S = 300
_DAY_BARS = 288
_SIGMA = 3e-4  # of a 5-minute bar, EURUSD at 8 % a year
_MOMENTUM_BARS = (3, 24, 144, 720)
_REVERSAL_BARS = (1, 6, 96, 576)
_RIDGE_BARS = (1, 12)
_RIDGE = 1e-2  # penalty, share of the rows


@dataclass(frozen=True)
class Sample:
    """One seed's data: the traded instrument's bars and features, the train rows first.

    Attributes
    ----------
    bars, features : of train and test rows together; the warm-up is cut off
    n_train : rows to fit on
    """

    bars: pd.DataFrame
    features: pd.DataFrame
    n_train: int
    seed: int

    def of_test(self, values: FloatArray) -> FloatArray:
        """Return the test part of an array with one value per row."""
        return np.asarray(values[self.n_train :])


@dataclass(frozen=True)
class RandomWalkReport:
    """Daily t-statistics by family, shape (n_seeds,) each."""

    before_costs: dict[str, FloatArray]
    after_costs: dict[str, FloatArray]

    def failures(self, before: float = MAX_MEAN_T_BEFORE, after: float = MAX_MEAN_T_AFTER) -> list[str]:
        """Return one line for each family whose mean t is out of bounds."""
        lines = []
        for name, t in self.before_costs.items():
            mean, net = float(t.mean()), float(self.after_costs[name].mean())
            if abs(mean) > before:
                lines.append(
                    f"{name}: mean t {mean:+.2f} before costs; the limit is {before:g} in either direction"
                )
            if net > after:
                lines.append(f"{name}: mean t {net:+.2f} after costs; the limit is {after:g}")
        return lines

    def summary(self) -> str:
        """Return the extremes in one sentence."""
        before = {name: float(t.mean()) for name, t in self.before_costs.items()}
        after = {name: float(t.mean()) for name, t in self.after_costs.items()}
        worst, best = max(before, key=lambda k: abs(before[k])), max(after, key=lambda k: after[k])
        seeds = len(next(iter(self.before_costs.values())))
        return (
            f"{len(before)} families, {seeds} seeds, {DAYS} days each: largest |mean daily t| before costs "
            f"{abs(before[worst]):.2f} ({worst}), largest mean t after base costs {after[best]:+.2f} ({best})"
        )


def audit_random_walk(
    seeds: int = FULL_SEEDS, extra: Callable[[Sample], dict[str, FloatArray]] | None = None
) -> RandomWalkReport:
    """Run every family on `seeds` simulated markets.

    Parameters
    ----------
    extra : further families, name -> target of every row of the sample, in [-1, 1]
    """
    before: dict[str, list[float]] = {}
    after: dict[str, list[float]] = {}
    for seed in range(seeds):
        sample = simulate_sample(seed)
        test = slice(sample.n_train, None)
        config = TradingEnvConfig(price_side="mid")
        costly = prepare_market(sample.bars[test], sample.features[test], config, close_at_end=True)
        for by_family, market in ((before, without_costs(costly)), (after, costly)):
            for name, targets in {**policies(sample), **(extra(sample) if extra else {})}.items():
                by_family.setdefault(name, []).append(_daily_t(market, sample.of_test(targets)))
    return RandomWalkReport(*({k: np.asarray(v) for k, v in t.items()} for t in (before, after)))


def simulate_sample(seed: int, days: int = DAYS) -> Sample:
    """Return features of ten martingales: `days` of train rows, then `days` of test rows."""
    bars = simulate_bars(seed, 2 * days + 4)
    n = len(next(iter(bars.values())))
    first, second = n - (days + 1) * _DAY_BARS, n - days * _DAY_BARS
    parts = [{name: b[cut] for name, b in bars.items()} for cut in _cuts(first, second)]
    features = pd.concat(FeaturePipeline().run_full_pipeline(*parts)).dropna()
    warmup = n - len(features)
    return Sample(bars["EURUSD"][warmup:], features, second - warmup, seed)


def simulate_bars(seed: int, days: int) -> BarsByInstrument:
    """Return ten independent driftless walks as five-minute mid prices, weekdays only."""
    times = pd.date_range("2018-01-01T00:00Z", periods=2 * days * _DAY_BARS, freq=f"{_BAR_S}s")
    times = pd.DatetimeIndex(times[times.day_of_week < 5][: days * _DAY_BARS], name=INDEX_NAME)
    rng = np.random.default_rng([7, seed])
    return {name: _walk(rng, times) for name in INSTRUMENTS}


def policies(sample: Sample) -> dict[str, FloatArray]:
    """Return about forty families of targets, one a row: signs of features, momentum, reversal, ridge."""
    targets = {
        f"sign {name}": np.sign(sample.features[name].to_numpy(np.float64)) for name in sample.features
    }
    path = np.log(sample.bars["close"].to_numpy())
    for n in _MOMENTUM_BARS:
        targets[f"momentum {n} bars"] = np.sign(_change(path, n))
    for n in _REVERSAL_BARS:
        targets[f"reversal {n} bars"] = -np.sign(_change(path, n))
    for n in _RIDGE_BARS:
        targets[f"ridge {n} bars"] = np.sign(_ridge(sample, path, n))
    return targets


def without_costs(market: Market) -> Market:
    """Return the market with no spread, commission, slippage or swap."""
    bars, terms = market.bars.copy(), market.terms.copy()
    bars["spread_open"] = bars["spread_close"] = 0.0
    terms.commission = terms.commission_per_unit = terms.slippage = terms.swap_long = terms.swap_short = 0.0
    return dataclasses.replace(market, bars=bars, terms=terms)


def _cuts(first: int, second: int) -> tuple[slice, slice, slice]:
    return slice(0, first), slice(first, second), slice(second, None)


def _walk(rng: np.random.Generator, times: pd.DatetimeIndex) -> pd.DataFrame:
    n = len(times)
    close = 1.1 * np.exp(np.cumsum(rng.normal(-(_SIGMA**2) / 2, _SIGMA, n)))
    opened = np.concatenate(([1.1], close[:-1]))
    top, bottom = np.abs(rng.normal(0.0, _SIGMA / 2, (2, n)))
    high, low = np.maximum(opened, close) * np.exp(top), np.minimum(opened, close) * np.exp(-bottom)
    frame = pd.DataFrame({"open": opened, "high": high, "low": low, "close": close}, index=times)
    return Bars(frame, side="mid", seconds=_BAR_S)


def _change(path: FloatArray, n: int) -> FloatArray:
    return path - np.concatenate((np.full(n, path[0]), path[:-n]))


def _ridge(sample: Sample, path: FloatArray, n: int) -> FloatArray:
    """Return predictions of the next n bars' return from all features, fitted on train rows alone."""
    x = sample.features.to_numpy(np.float64)
    rows = sample.n_train - n  # their future lies in the train rows too
    y = path[n : sample.n_train] - path[:rows]
    gram = x[:rows].T @ x[:rows] + _RIDGE * rows * np.eye(x.shape[1])
    return np.asarray(x @ np.linalg.solve(gram, x[:rows].T @ y))


def _daily_t(market: Market, targets: FloatArray) -> float:
    """Return mean over standard error of the daily returns of one pass; 0 for a policy that stays flat."""
    result = run_targets(market, targets[market.first_bar : -1], 1e5, "", "")
    daily = result.daily_returns
    sd = float(daily.std(ddof=1))
    return float(daily.mean()) / sd * math.sqrt(daily.size) if sd > 0.0 else 0.0
