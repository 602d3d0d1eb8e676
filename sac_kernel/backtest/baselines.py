"""Baselines that an agent must beat, as targets for the same engine at the same costs.

Every rule decides at the close of bar t from bars <= t. Its constants were fixed before any result was seen.
Fits use train rows only. Perfect foresight sees the future on purpose: it is a bound.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from sac_kernel.backtest.policies import Kind, PolicyId
from sac_kernel.core import strings
from sac_kernel.core.strings import FLAT, FORESIGHT, HOLD, MOMENTUM, RIDGE
from sac_kernel.market.market import DECISION_FEATURES
from sac_kernel.prices import costs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sac_kernel.market.market import Market

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

DAY_MIN = 1440
MOMENTUM_MIN, REVERSAL_MIN = 5 * DAY_MIN, DAY_MIN
FAST_MEAN_MIN, SLOW_MEAN_MIN = DAY_MIN, 5 * DAY_MIN
FORECAST_MIN = 240
"""Horizon of the ridge and logistic forecasts: long enough for a move to be worth its costs (hours)."""

_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # ridge, as a share of the rows; features have deviation 1
_HOLDOUT = 0.25  # last share of the train rows, on which the penalty is chosen
_SAMPLING_CORRECTION = 0.53  # innovations: thresholds are lower because the forecast is checked once a bar
_MIN_T = 2.0


class Fitted(NamedTuple):
    """A forecast of the return per bar on train and test rows, shape (n_bars,), NaN where unknown."""

    train: FloatArray
    test: FloatArray


def decision_rows(market: Market) -> IntArray:
    """Return the bar at whose close each decision is taken, shape (n_decisions,)."""
    return np.arange(market.first_bar, len(market.bars) - 1, market.interval_bars)


def all_targets(market: Market, train: Market | None = None) -> dict[str, FloatArray]:
    """Return the targets of every baseline by name, each of shape (n_decisions,), in [-1, 1].

    Parameters
    ----------
    market : the split that is judged
    train : the train split at the same costs; without it the fitted ones are left out
    """
    n = decision_rows(market).size
    targets = {FLAT: np.zeros(n), HOLD: np.ones(n), strings.SHORT: -np.ones(n)}
    targets |= {
        MOMENTUM: _held_for_a_day(market, momentum(market, MOMENTUM_MIN)),
        strings.MOVING_AVERAGES: moving_averages(market, FAST_MEAN_MIN, SLOW_MEAN_MIN),
        strings.REVERSAL: _held_for_a_day(market, -momentum(market, REVERSAL_MIN)),
    }
    if train is not None:
        targets[strings.SESSIONS] = session_means(market, train)
        for name, fit in ((RIDGE, ridge), (strings.LOGISTIC, logistic)):
            targets[name] = band_targets(market, train, fit(market, train))
    targets[FORESIGHT] = perfect_foresight(market)
    return targets


def policy(name: str) -> PolicyId:
    """Return the identity of a baseline of `all_targets`."""
    return PolicyId(Kind.BOUND if name == FORESIGHT else Kind.BASELINE, name)


# -- rules ------------------------------------------------------------------------------------------


def momentum(market: Market, lookback_min: int) -> FloatArray:
    """Return the sign of the return over the lookback at each decision; 0 before a full lookback."""
    rows, back = decision_rows(market), _bars_of(market, lookback_min)
    close = market.bars["close"]
    return np.where(rows >= back, np.sign(close[rows] - close[np.maximum(rows - back, 0)]), 0.0)


def moving_averages(market: Market, fast_min: int, slow_min: int) -> FloatArray:
    """Return +1 where the fast mean of closes is above the slow one, -1 below, 0 before the slow one is full."""
    close = pd.Series(market.bars["close"])
    fast, slow = (close.rolling(_bars_of(market, minutes)).mean() for minutes in (fast_min, slow_min))
    sign = np.sign((fast - slow).fillna(0.0).to_numpy())
    return np.asarray(sign[decision_rows(market)], np.float64)


def session_means(market: Market, train: Market) -> FloatArray:
    """Return +1 or -1 in hours of the instrument's zone whose mean train return is `_MIN_T` errors from 0, else 0."""
    change = np.diff(np.log(train.bars["close"]))
    zone = market.spec.zone
    hour = costs.local_minute(train.open_time, zone)[1:] // 60
    sign = np.zeros(24)
    for h in np.unique(hour):
        inside = change[hour == h]
        error = float(inside.std()) / math.sqrt(inside.size)
        sign[h] = np.sign(inside.mean()) if error > 0 and abs(inside.mean()) > _MIN_T * error else 0.0
    opens = market.open_time[decision_rows(market)] + pd.Timedelta(seconds=market.bar_seconds)
    return sign[costs.local_minute(opens, zone) // 60]


def _held_for_a_day(market: Market, targets: FloatArray) -> FloatArray:
    """Return the targets, changed every 24 hours only: a daily rule must not trade every bar."""
    every = max(1, _bars_of(market, DAY_MIN) // market.interval_bars)
    return targets[np.arange(targets.size) // every * every]


def _bars_of(market: Market, minutes: int) -> int:
    return max(1, minutes * 60 // market.bar_seconds)


# -- forecasts on the agent's own features ------------------------------------------------------------


def ridge(market: Market, train: Market) -> Fitted:
    """Return ridge forecasts of the return over the next `FORECAST_MIN`, per bar, from the agent's features.

    The penalty is the best of `_PENALTIES`, or infinity (no forecast), on the last quarter of the train
    rows; then all train rows are fitted.
    """
    x, y, bars = _samples(train)
    penalty = _chosen_penalty(x, y, bars)
    weights = _ridge_weights(x, y, penalty)
    return Fitted(*(_standardised(m, train) @ weights / bars for m in (train, market)))


def logistic(market: Market, train: Market) -> Fitted:
    """Return (2 P(up) - 1) x mean |return| over the next `FORECAST_MIN`, per bar, by penalised logistic regression.

    A quarter of ridge's penalty shrinks equally: the curvature at P = 1/2 is a quarter.
    """
    x, y, bars = _samples(train)
    penalty = _chosen_penalty(x, y, bars)
    weights = np.zeros(x.shape[1])
    if math.isfinite(penalty):
        from sklearn.linear_model import LogisticRegression  # slow import, for fits only

        strength = 4.0 / (penalty * len(x))
        model = LogisticRegression(C=strength, fit_intercept=False, solver="newton-cholesky", tol=1e-8)
        weights = model.fit(x, y > 0).coef_[0]
    size = float(np.abs(y).mean()) / bars
    return Fitted(*(size * np.tanh(_standardised(m, train) @ weights / 2.0) for m in (train, market)))


def _samples(train: Market) -> tuple[FloatArray, FloatArray, int]:
    """Return standardised features, the return from the next open over the horizon, and the horizon in bars."""
    bars = _bars_of(train, FORECAST_MIN)
    opened, closed = np.log(train.bars["open"]), np.log(train.bars["close"])
    y = closed[train.first_bar + bars :] - opened[train.first_bar + 1 : len(opened) - bars + 1]
    x = _standardised(train, train)[train.first_bar : train.first_bar + y.size]
    return x, y - y.mean(), bars


def _standardised(market: Market, train: Market) -> FloatArray:
    # Without what only an exact agent observes: a baseline is the same beside either learner.
    used = train.observed.shape[1] - (len(DECISION_FEATURES) if train.terms.observes_target else 0)
    rows = train.observed[train.first_bar :, :used].astype(np.float64)
    sd = rows.std(axis=0)
    scaled: FloatArray = (market.observed[:, :used] - rows.mean(axis=0)) / np.where(sd > 0, sd, 1.0)
    return scaled


def _ridge_weights(x: FloatArray, y: FloatArray, penalty: float) -> FloatArray:
    if not math.isfinite(penalty):
        return np.zeros(x.shape[1])
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=penalty * len(x), fit_intercept=False, solver="cholesky").fit(x, y)
    return np.asarray(model.coef_, np.float64)


def _chosen_penalty(x: FloatArray, y: FloatArray, purge: int) -> float:
    """Return the penalty with the least squared error on held-out later rows; infinity forecasts 0."""
    cut = int(len(x) * (1.0 - _HOLDOUT))
    if cut - purge < 10 * x.shape[1]:
        return math.inf
    held_x, held_y = x[cut:], y[cut:]
    error = {math.inf: float(held_y @ held_y)}
    for penalty in _PENALTIES:
        miss = held_y - held_x @ _ridge_weights(x[: cut - purge], y[: cut - purge], penalty)
        error[penalty] = float(miss @ miss)
    return min(error, key=lambda p: error[p])


# -- the no-trade band ------------------------------------------------------------------------------


def band_targets(market: Market, train: Market, fitted: Fitted) -> FloatArray:
    """Return +1 above the band, -1 below it, else the position held; 0 before the first signal.

    de Lataillade, Deremble, Potters & Bouchaud 2012 (arXiv:1203.5957): under linear costs and a capped
    position this is optimal for a mean-reverting forecast.
    """
    known = fitted.train[train.first_bar :]
    width = band_width(*mean_reversion(known), one_way_cost(market))
    signal = fitted.test[decision_rows(market)]
    crossed = np.where(np.abs(signal) > width, np.sign(signal), 0.0)
    last = np.maximum.accumulate(np.where(crossed != 0.0, np.arange(crossed.size), -1))
    return np.where(last >= 0, crossed[np.maximum(last, 0)], 0.0)


def mean_reversion(forecast: FloatArray) -> tuple[float, float]:
    """Return speed and innovation deviation of an AR(1): p' = p - speed x p + deviation x noise."""
    scale = float(forecast @ forecast)
    if scale <= 0.0:
        return 1.0, 0.0
    rho = min(max(float(forecast[1:] @ forecast[:-1]) / scale, 0.0), 0.9999)
    return 1.0 - rho, math.sqrt(scale / forecast.size * (1.0 - rho**2))


def one_way_cost(market: Market) -> float:
    """Return the cost of trading the whole equity in normal hours, as a fraction of it."""
    half = float(np.median(market.bars["spread_open"])) / 2.0
    return half + float(np.median(market.fees))


def band_width(speed: float, deviation: float, cost: float) -> float:
    """Return the forecast, per bar, beyond which the position is reversed.

    q - s D(q / s) = speed x cost with s = deviation / sqrt(speed) and D Dawson's function, less half an
    innovation because it is checked once a bar (the continuity correction of discrete barriers).
    """
    if deviation <= 0.0:
        return math.inf
    from scipy.optimize import brentq
    from scipy.special import dawsn

    s, paid = deviation / math.sqrt(speed), speed * cost
    q = brentq(lambda q: q - s * dawsn(q / s) - paid, 0.0, paid + 10.0 * s, xtol=1e-15)
    return max(0.0, float(q) - _SAMPLING_CORRECTION * deviation)


# -- the bound --------------------------------------------------------------------------------------


def perfect_foresight(market: Market) -> FloatArray:
    """Return the targets in {-1, 0, 1} with the most log growth after costs when the future is known.

    Dynamic programming over (decision, position held) with the engine's prices, costs, swap and hours. Two
    simplifications, of second order in a bar's return: shorts are rebalanced every bar; stops are ignored.
    """
    rows = decision_rows(market)
    old, new, cost, closing = _growth(market, rows)
    free = market.bars["tradable"][rows + 1] > 0.0
    side = (-1, 0, 1)
    value = [-abs(w) * closing for w in side]
    choice = np.zeros((rows.size, 3), np.int64)
    for i in range(rows.size - 1, -1, -1):
        after = [new[i][k] + value[k] for k in range(3)]
        if not free[i]:
            choice[i] = (0, 1, 2)
            value = [old[i][j] + after[j] for j in range(3)]
            continue
        value = []
        for j in range(3):
            options = [after[k] - abs(k - j) * cost[i] for k in range(3)]
            best = max(options)
            choice[i, j] = j if options[j] == best else options.index(best)
            value.append(old[i][j] + best)
    held, targets = 1, np.empty(rows.size)
    for i in range(rows.size):
        held = int(choice[i, held])
        targets[i] = side[held]
    return targets


def _growth(market: Market, rows: IntArray) -> tuple[list[Any], list[Any], list[float], float]:
    """Return log growth of positions -1, 0, 1 (old until the fill, new from it) and the cost per unit."""
    b, terms = market.bars, market.terms
    cap, side = terms.exposure_cap, terms.price_side
    opened = b["open"] * (1.0 + side * b["spread_open"] / 2.0)
    closed = b["close"] * (1.0 + side * b["spread_close"] / 2.0)
    gap, bar = np.zeros((len(b), 3)), np.zeros((len(b), 3))
    for j, (w, swap) in enumerate(((-cap, terms.swap_short), (0.0, 0.0), (cap, terms.swap_long))):
        paid = abs(w) * swap
        gap[1:, j] = np.log1p(w * (opened[1:] / closed[:-1] - 1.0) - paid * b["nights_gap"][1:])
        bar[:, j] = np.log1p(w * (closed / opened - 1.0) - paid * b["nights_bar"])
    whole = np.concatenate((np.zeros((1, 3)), np.cumsum(gap + bar, axis=0)))
    ends = np.append(rows[1:], len(b) - 1)
    held = whole[ends + 1] - whole[rows + 1] - gap[rows + 1]
    fees = market.fees
    cost = cap * (b["spread_open"][rows + 1] / 2.0 + fees[rows])
    closing = float(cap * (b["spread_close"][-1] / 2.0 + fees[-1]))
    return gap[rows + 1].tolist(), held.tolist(), cost.tolist(), closing
