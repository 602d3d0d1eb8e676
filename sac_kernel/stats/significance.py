"""Statistics of daily returns that separate an edge from luck, by published formulas.

A Sharpe ratio here is per observation, never annualised (`lo_factor` does that), with the sample deviation
(ddof 1). Skewness and kurtosis follow the population formula; the kurtosis of a normal distribution is 3.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sac_kernel.core.errors import ConfigError, DataError
from sac_kernel.stats.metrics import MIN_DAYS_FOR_SHARPE, TRADING_DAYS_PER_YEAR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

EULER_GAMMA = 0.5772156649015329
BOOTSTRAP_DRAWS = 2000
_NORMAL = NormalDist()
_FLAT_SD = 1e-15  # smaller deviations are rounding errors
_MOST_RHO = 0.95  # a few dozen days of one drift can look like more


class Moments(NamedTuple):
    """Sharpe ratio per observation, skewness, kurtosis (3 is normal), number of observations, AR(1) coefficient."""

    sharpe: float
    skew: float
    kurtosis: float
    n: int
    rho: float = 0.0


def moments(returns: FloatArray) -> Moments:
    """Return the moments that determine the Sharpe ratio's distribution; Sharpe NaN for constant returns.

    A negative serial correlation counts as 0: it would narrow the standard error, and a series too short to
    show an edge is too short to show that either.
    """
    centred = returns - returns.mean()
    variance = float(np.mean(centred**2))
    if variance <= _FLAT_SD**2:
        return Moments(math.nan, 0.0, 3.0, returns.size)
    sd = math.sqrt(variance)
    sharpe = float(returns.mean()) / float(returns.std(ddof=1))
    skew = float(np.mean(centred**3)) / sd**3
    rho = min(max(float(autocorrelations(returns, 1)[0]), 0.0), _MOST_RHO)
    return Moments(sharpe, skew, float(np.mean(centred**4)) / variance**2, returns.size, rho)


def sharpe_sd(m: Moments, true: float | None = None) -> float:
    """Return the standard error of a Sharpe ratio of AR(1) returns, if the true one is `true`.

    Lopez de Prado, Lipton & Zoonekynd 2025 (SSRN 5520741), with n - 1 for n. Without serial correlation it is
    eq. 8 of Bailey & Lopez de Prado 2012 (after Mertens 2002), for normal returns also Lo 2002, eq. 10.

    Parameters
    ----------
    true : None takes the observed ratio, as in 2012; the benchmark gives the null form of 2025
    """
    s = m.sharpe if true is None else true
    b, c = m.rho / (1.0 - m.rho), m.rho**2 / (1.0 - m.rho**2)
    spread = 1.0 + 2.0 * b - (1.0 + b + c) * m.skew * s + (1.0 + 2.0 * c) * (m.kurtosis - 1.0) / 4.0 * s**2
    return math.sqrt(max(spread, 0.0) / (m.n - 1))


def psr(m: Moments, benchmark: float = 0.0) -> float:
    """Return the probability that the true Sharpe ratio is above `benchmark` (per observation); NaN if constant.

    Probabilistic Sharpe ratio, Bailey & Lopez de Prado 2012, eq. 9. The standard error is that at the observed
    ratio: rare large losses then give fewer false edges than with the one at the benchmark.
    """
    sd = sharpe_sd(m)
    if math.isnan(sd):
        return math.nan
    return _NORMAL.cdf((m.sharpe - benchmark) / sd) if sd > 0 else float(m.sharpe > benchmark)


def min_track_record(m: Moments, benchmark: float = 0.0, level: float = 0.95) -> float:
    """Return the observations needed for PSR(`benchmark`) > `level`; infinity if the Sharpe is not above it.

    Bailey & Lopez de Prado 2012, eq. 11. The `n` of `m` is not used.
    """
    if not m.sharpe > benchmark:
        return math.inf
    spread = sharpe_sd(m._replace(n=2)) ** 2
    return 1.0 + spread * (_NORMAL.inv_cdf(level) / (m.sharpe - benchmark)) ** 2


def sharpe_power(m: Moments, true: float, benchmark: float = 0.0, level: float = 0.95) -> float:
    """Return the chance that a test of the Sharpe ratio against `benchmark` finds a true one of `true`.

    Lopez de Prado, Lipton & Zoonekynd 2025: the standard errors are those at `benchmark` and at `true`.
    """
    critical = benchmark + _NORMAL.inv_cdf(level) * sharpe_sd(m, benchmark)
    return 1.0 - _NORMAL.cdf((critical - true) / sharpe_sd(m, true))


def planned_fdr(power: float, prior: float, level: float = 0.95) -> float:
    """Return the share of false edges among those called an edge (Lopez de Prado et al. 2025).

    Parameters
    ----------
    power : chance that a true edge is called one
    prior : share of true edges among what is tried, in (0, 1)
    """
    false = (1.0 - level) * (1.0 - prior)
    return false / (false + power * prior)


def lo_factor(autocorrelation: ArrayLike, periods: int = TRADING_DAYS_PER_YEAR) -> float:
    """Return the factor from a one-period Sharpe ratio to one of `periods` with serial correlation.

    Lo 2002, eq. 20: q / sqrt(q + 2 sum (q - k) rho_k); sqrt(q) for independent returns.

    Parameters
    ----------
    autocorrelation : rho_1, rho_2, ...; later ones count as 0
    """
    rho = np.asarray(autocorrelation, np.float64)[: periods - 1]
    spread = periods + 2.0 * float(np.sum((periods - 1.0 - np.arange(rho.size)) * rho))
    if spread <= 0.0:
        msg = f"lo_factor: autocorrelation {rho[:3].tolist()} cannot be that of a real series"
        raise DataError(msg)
    return periods / math.sqrt(spread)


def expected_max_sharpe(trials: float, variance: float) -> float:
    """Return the expected best Sharpe ratio of `trials` without skill.

    Bailey & Lopez de Prado 2014, eq. 6; `variance` is that of the trials' Sharpe ratios, per observation.
    `trials` may be a fraction (an effective number); 0 for one trial or fewer, because nothing was selected.
    """
    if trials <= 1.0:
        return 0.0
    best, next_best = (_NORMAL.inv_cdf(1.0 - 1.0 / x) for x in (trials, trials * math.e))
    return max(0.0, math.sqrt(variance) * ((1.0 - EULER_GAMMA) * best + EULER_GAMMA * next_best))


def dsr(m: Moments, trials: float, variance: float) -> float:
    """Return the deflated Sharpe ratio: PSR against the best that `trials` would have by luck."""
    return psr(m, expected_max_sharpe(trials, variance))


def autocorrelations(returns: FloatArray, lags: int) -> FloatArray:
    """Return rho_1 to rho_lags, shape (lags,), with the biased (1 / n) autocovariance; 0 if constant."""
    centred = returns - returns.mean()
    variance = float(centred @ centred)
    if variance <= 0.0:
        return np.zeros(lags)
    return np.array([float(centred[k:] @ centred[:-k]) / variance for k in range(1, lags + 1)])


def rank_of_correlation(correlation: FloatArray) -> float:
    """Return the effective number of independent columns from their correlation matrix, shape (n, n).

    exp of the entropy of its eigenvalues (Roy & Vetterli 2007): 1 for equal columns, n for uncorrelated ones.
    """
    share = np.clip(np.linalg.eigvalsh(correlation), 0.0, None)
    share = share[share > 0] / share.sum()
    return float(np.exp(-np.sum(share * np.log(share))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number, in the same order (Holm 1979)."""
    order = np.argsort(p_values)
    adjusted, running = np.empty(len(p_values)), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted.tolist()


# -- resampling ---------------------------------------------------------------------------------------


def stationary_bootstrap_indices(n: int, draws: int, mean_block: float, rng: np.random.Generator) -> IntArray:
    """Return resampled indices, shape (draws, n): blocks of geometric length on a circle.

    Politis & Romano 1994: with probability 1 / `mean_block` an index starts a new block at a uniform
    position, else it follows its predecessor.
    """
    fresh = rng.random((draws, n)) < 1.0 / mean_block
    fresh[:, 0] = True
    start = rng.integers(0, n, size=(draws, n))
    position = np.arange(n)
    since = position - np.maximum.accumulate(np.where(fresh, position, 0), axis=1)
    return (np.take_along_axis(start, position - since, axis=1) + since) % n


def optimal_block(returns: FloatArray) -> float:
    """Return the mean block length of the stationary bootstrap for the mean of `returns`, at least 1.

    Politis & White 2004 with the correction of Patton, Politis & White 2009: a flat-top lag window, wide
    enough for the last significant autocorrelation.
    """
    n = returns.size
    run = max(5, math.ceil(math.log10(n)))
    most = math.ceil(math.sqrt(n)) + run
    longest = math.ceil(min(3.0 * math.sqrt(n), n / 3.0))
    centred = returns - returns.mean()
    lags = np.arange(min(most, n - 1) + 1)
    covariance = np.array([float(centred[k:] @ centred[: n - k]) / n for k in lags])
    if covariance[0] <= 0.0:
        return 1.0
    noise = 2.0 * math.sqrt(math.log10(n) / n)
    significant = np.array([abs(_lag_correlation(centred, k)) > noise for k in lags[1:-1]])
    # The first lag of an insignificant run, as in Patton's published code; the papers take the one before.
    first = next(
        (k + 1 for k in range(len(significant) - run + 1) if not significant[k : k + run].any()), most
    )
    window = min(2 * first, most, len(lags) - 1)
    k = np.arange(-window, window + 1)
    weight = np.minimum(1.0, 2.0 * (1.0 - np.abs(k) / window))
    both = covariance[np.abs(k)]
    curvature, density = float(np.sum(weight * np.abs(k) * both)), float(np.sum(weight * both))
    if density == 0.0:
        return 1.0
    block = (2.0 * curvature**2 / (2.0 * density**2)) ** (1 / 3) * n ** (1 / 3)
    return float(min(max(block, 1.0), longest))


def bootstrap_interval(
    returns: FloatArray,
    statistic: str = "growth",
    level: float = 0.95,
    draws: int = BOOTSTRAP_DRAWS,
    seed: int = 0,
    days_a_year: float = TRADING_DAYS_PER_YEAR,
) -> tuple[float, float]:
    """Return the percentile interval of the annual return or Sharpe ratio of daily returns.

    Stationary bootstrap with 1.5 times the mean block of `optimal_block`, in whole days, at least 2. It keeps serial
    correlation, so the interval is wider than one from independent days. Both ends are moved out by 1 / sqrt(1 -
    2 block / n), because resamples of so few blocks vary too little. (NaN, NaN) below `MIN_DAYS_FOR_SHARPE` days.

    Parameters
    ----------
    returns : float array, shape (n_days,), simple daily returns
    statistic : 'growth' (compound return of a year, a fraction), 'mean' (days a year x mean, for differences of
        returns) or 'sharpe'
    """
    n = returns.size
    if n < MIN_DAYS_FOR_SHARPE:
        return math.nan, math.nan
    if statistic == "growth":
        low, high = bootstrap_interval(np.log1p(returns), "mean", level, draws, seed, days_a_year)
        with np.errstate(over="ignore"):
            return float(np.expm1(low)), float(np.expm1(high))
    block = interval_block(returns)
    visits = _visits(n, draws, block, seed)
    value = _sums(visits, returns) / n
    middle = float(returns.mean())
    if statistic == "sharpe":
        middle = float(np.nan_to_num(moments(returns).sharpe)) * math.sqrt(days_a_year)
        variance = (_sums(visits, returns**2) / n - value**2) * n / (n - 1)
        sd = np.sqrt(np.maximum(variance, 0.0))
        value = np.divide(value, sd, out=np.zeros_like(value), where=sd > 1e-12)
        value *= math.sqrt(days_a_year)
    else:
        value *= days_a_year
        middle *= days_a_year
    tail = (1.0 - level) / 2.0
    low, high = middle + (np.quantile(value, [tail, 1.0 - tail]) - middle) / math.sqrt(1.0 - 2.0 * block / n)
    return float(low), float(high)


def interval_block(returns: FloatArray) -> int:
    """Return the mean block [days] of `bootstrap_interval`: 1.5 times the optimal one, from 2 to a quarter of all."""
    return max(2, round(min(1.5 * optimal_block(returns), returns.size / 4.0)))


@functools.lru_cache(maxsize=8)
def _visits(n: int, draws: int, mean_block: int, seed: int) -> FloatArray:
    """Return how often each resample visits each day, shape (draws, n).

    Sums need only these counts, so one set of resamples serves all series of one length.
    """
    indices = stationary_bootstrap_indices(n, draws, mean_block, np.random.default_rng(seed))
    flat = (indices + n * np.arange(draws)[:, None]).ravel()
    counts = np.bincount(flat, minlength=draws * n).reshape(draws, n).astype(np.float64)
    counts.setflags(write=False)
    return counts


def _sums(visits: FloatArray, values: FloatArray) -> FloatArray:
    # einsum, not BLAS: the last digit must not depend on the number of threads.
    total: FloatArray = np.einsum("dn,n->d", visits, values)
    return total


def _lag_correlation(centred: FloatArray, k: int) -> float:
    ahead, behind = centred[k:], centred[:-k]
    scale = math.sqrt(float(ahead @ ahead) * float(behind @ behind))
    return float(ahead @ behind) / scale if scale > 0 else 0.0


# -- many configurations, many runs ------------------------------------------------------------------


def pbo(returns: FloatArray, blocks: int = 16) -> float:
    """Return the probability of backtest overfitting by combinatorially symmetric cross-validation.

    Bailey, Borwein, Lopez de Prado & Zhu 2017: over all choices of half of the blocks, how often the best
    configuration there ranks in the lower half on the other blocks. On noise it is one half or a little
    more, because the halves are complements.

    Parameters
    ----------
    returns : shape (n_days, n_configurations), n_configurations >= 2; days after the last complete block are
        left out
    blocks : even, at most 20
    """
    rows, count = len(returns) // max(blocks, 1), returns.shape[1]
    if blocks % 2 or not 2 <= blocks <= 20 or rows < 2 or count < 2:
        msg = (
            "pbo: blocks must be even, from 2 to 20, with 2 days each and 2 configurations, got "
            f"{blocks} blocks, {len(returns)} days and {count} configurations"
        )
        raise DataError(msg)
    cut = returns[: rows * blocks].reshape(blocks, rows, count)
    total, square = cut.sum(axis=1), (cut**2).sum(axis=1)
    halves = list(itertools.combinations(range(blocks), blocks // 2))
    chosen = np.zeros((len(halves), blocks))
    chosen[np.arange(len(halves))[:, None], halves] = 1.0
    n = rows * blocks // 2
    inside = _sharpe_of_sums(chosen @ total, chosen @ square, n)
    outside = _sharpe_of_sums((1.0 - chosen) @ total, (1.0 - chosen) @ square, n)
    best = inside.argmax(axis=1)
    of_best = outside[np.arange(len(halves)), best][:, None]
    rank = (outside < of_best).sum(axis=1) + 0.5 * ((outside == of_best).sum(axis=1) + 1)
    return float(np.mean(rank / (count + 1) <= 0.5))


def _sharpe_of_sums(total: FloatArray, square: FloatArray, n: int) -> FloatArray:
    mean = total / n
    variance = np.maximum(square / n - mean**2, 0.0)
    ratio: FloatArray = np.divide(mean, np.sqrt(variance), out=np.zeros_like(mean), where=variance > 0)
    return ratio


def spa_p_value(models: FloatArray, benchmark: FloatArray, draws: int = 1000, seed: int = 0) -> float:
    """Return the consistent p value of Hansen 2005 for 'no model beats the benchmark'; needs `arch`.

    Parameters
    ----------
    models : daily returns, shape (n_days, n_models)
    benchmark : daily returns to beat, shape (n_days,); zeros for flat
    """
    test = _arch().SPA(
        -benchmark, -models, block_size=_block(models - benchmark[:, None]), reps=draws, seed=seed
    )
    test.compute()
    return float(test.pvalues["consistent"])


def step_m(models: FloatArray, benchmark: FloatArray, size: float = 0.05, draws: int = 1000) -> list[int]:
    """Return the columns of `models` that beat the benchmark (Romano & Wolf 2005); needs `arch`."""
    block = _block(models - benchmark[:, None])
    test = _arch().StepM(-benchmark, -models, size=size, block_size=block, reps=draws, seed=0)
    try:
        test.compute()
    except ValueError as err:
        if "zero-size" not in str(err):
            raise
        return [*range(models.shape[1])]  # arch goes on with no model after the last one was found better
    return sorted(int(i) for i in test.superior_models)


def _block(differences: FloatArray) -> int:
    return max(2, math.ceil(max(optimal_block(column) for column in differences.T)))


def _arch() -> Any:  # noqa: ANN401  # a module
    if importlib.util.find_spec("arch") is None:
        msg = (
            "SPA and StepM need the package arch, which is not installed (the Kaggle image lacks it). "
            "Install arch==8.0.0, or use the deflated Sharpe ratio and the interval."
        )
        raise ConfigError(msg)
    return importlib.import_module("arch.bootstrap")
