"""Stress tests: an agent's trades in changed markets and at changed costs.

The agent's targets at base cost are replayed through a changed market. The agent does not react: each row
shows what the same trades earn there.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel.backtest.runner import EpisodeResult, filled_targets, run_targets
from sac_kernel.core import strings
from sac_kernel.market import engine
from sac_kernel.market.records import PRICES, Account, blank
from sac_kernel.stats import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sac_kernel.market.market import Market

    FloatArray = NDArray[np.float64]
    FeatureArray = NDArray[np.float32]

COST_MULTIPLES = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
GAP_FRAC = 0.05
TREND_FRAC = 0.10
"""Drift a year, up or down."""
MAX_MULTIPLE = 64.0


def stress_table(market: Market, base: EpisodeResult) -> list[dict[str, Any]]:
    """Return one row a scenario: name, net_return_frac, sharpe_ann, max_drawdown_frac, cost_frac.

    Parameters
    ----------
    market : the split at base cost
    base : the agent's pass over it; its targets are replayed
    """
    # An order that lapsed in the evening freeze would be filled when it comes later: only filled ones are replayed.
    late = np.concatenate(([0.0], filled_targets(market, base.action, base.start_equity)[:-1]))
    latency = strings.LATENCY if market.interval_bars == 1 else strings.LATENCY_DECISION
    scenarios = {
        strings.AS_JUDGED: (market, base.action),
        strings.SPREAD_TIMES.format(k=5): (wider_spread(market, 5.0), base.action),
        strings.VOLATILITY_TIMES.format(k=2): (more_volatile(market, 2.0), base.action),
        strings.VOLATILITY_TIMES.format(k=3): (more_volatile(market, 3.0), base.action),
        strings.GAP.format(gap=GAP_FRAC): (gapped(market, base), base.action),
        strings.TREND.format(trend=TREND_FRAC): (trending(market, TREND_FRAC), base.action),
        strings.TREND.format(trend=-TREND_FRAC): (trending(market, -TREND_FRAC), base.action),
        latency: (market, late),
    }
    return [_row(name, *scenario, base.start_equity) for name, scenario in scenarios.items()]


def cost_table(market: Market, base: EpisodeResult) -> list[dict[str, Any]]:
    """Return the rows of `stress_table` for each multiple of all trading costs, with `multiple`."""
    return [
        {
            "multiple": k,
            **_row(strings.COSTS_TIMES.format(k=k), with_costs(market, k), base.action, base.start_equity),
        }
        for k in COST_MULTIPLES
    ]


def break_even_multiple(
    market: Market, base: EpisodeResult, change: Callable[[Market, float], Market] | None = None
) -> float | None:
    """Return the multiple of all trading costs at which the net return is 0, in [0, `MAX_MULTIPLE`].

    0 if the trades lose without costs; None if they still gain at `MAX_MULTIPLE`, or without trades. `change` makes
    the market of a multiple; None is `with_costs`.
    """
    costs = change or with_costs

    def growth(multiple: float) -> float:
        return run_targets(costs(market, multiple), base.action, base.start_equity, "", "").log_growth

    if base.turnover == 0.0 or growth(MAX_MULTIPLE) > 0.0:
        return None
    if growth(0.0) <= 0.0:
        return 0.0
    low, high = 0.0, MAX_MULTIPLE
    for _ in range(30):
        middle = (low + high) / 2.0
        low, high = (middle, high) if growth(middle) > 0.0 else (low, middle)
    return (low + high) / 2.0


# -- changed markets ----------------------------------------------------------------------------------


def with_costs(market: Market, multiple: float) -> Market:
    """Return the market with spread, commission and slippage times `multiple`; swap stays."""
    terms = market.terms.copy()
    terms.commission *= multiple
    terms.commission_per_unit *= multiple
    terms.slippage *= multiple
    return dataclasses.replace(wider_spread(market, multiple), terms=terms)


def wider_spread(market: Market, multiple: float) -> Market:
    """Return the market with the whole spread table times `multiple`."""
    bars = market.bars.copy()
    bars["spread_open"] *= multiple
    bars["spread_close"] *= multiple
    return dataclasses.replace(market, bars=bars)


def more_volatile(market: Market, multiple: float) -> Market:
    """Return the market with every log price change, gaps included, times `multiple`."""
    bars = market.bars.copy()
    start = float(bars["open"][0])
    for name in PRICES:
        bars[name] = start * (bars[name] / start) ** multiple
    bars["volatility"] *= multiple
    return dataclasses.replace(market, bars=bars)


def gapped(market: Market, base: EpisodeResult) -> Market:
    """Return the market with one jump of `GAP_FRAC` against the largest position that the agent ever held."""
    worst = int(np.argmax(np.abs(base.exposure)))
    jump = 1.0 - GAP_FRAC * float(np.sign(base.exposure[worst]))
    first = int(market.open_time.searchsorted(base.open_time_utc[worst])) + 1
    bars = market.bars.copy()
    for name in PRICES:
        bars[name][first:] *= jump
    return dataclasses.replace(market, bars=bars)


def trending(market: Market, annual_frac: float) -> Market:
    """Return the market with an added drift of `annual_frac` a year."""
    bars = market.bars.copy()
    year_s = market.spec.days_a_year * market.spec.day_seconds
    rate = math.log1p(annual_frac) * market.bar_seconds / year_s
    growth = np.exp(rate * np.arange(len(bars)))
    for name in PRICES:
        bars[name] *= growth
    return dataclasses.replace(market, bars=bars)


# -- inputs of the agent -----------------------------------------------------------------------------


def observations(market: Market, base: EpisodeResult) -> FeatureArray:
    """Return the observations of the pass, shape (n_decisions, width)."""
    account, width = blank(Account), len(market.observation_names)
    left = len(market.bars) - 1 - market.first_bar
    engine.reset(account, market.bars, market.terms, market.first_bar, left, base.start_equity, 0.0)
    seen = np.empty((base.action.size, width), np.float32)
    for row, action in zip(seen, base.action, strict=True):
        engine.observe(account, market.bars, market.terms, market.observed, row)
        engine.step(account, market.bars, market.minutes, market.terms, action)
    return seen


def permutation_importance(
    act: Callable[[FeatureArray], FloatArray], seen: FeatureArray, names: Sequence[str], seed: int = 0
) -> dict[str, float]:
    """Return the mean change of the target when one input is shuffled in time.

    Breiman 2001, with the action in place of the loss: a policy's result is too noisy to rank inputs.

    Parameters
    ----------
    act : observations, shape (n, width) -> greedy targets, shape (n,)
    seen : observations, shape (n, width); at most 4,000 of them are used
    names : the inputs

    Returns
    -------
    dict
        name -> mean absolute change of the target, in [0, 2], largest first
    """
    rng = np.random.default_rng(seed)
    rows = seen[np.sort(rng.permutation(len(seen))[:4000])]
    before, moved = act(rows), {}
    for i, name in enumerate(names):
        changed = rows.copy()
        changed[:, i] = rng.permutation(changed[:, i])
        moved[name] = float(np.mean(np.abs(act(changed) - before)))
    return dict(sorted(moved.items(), key=lambda item: -item[1]))


def policy_map(
    act: Callable[[FeatureArray], FloatArray], seen: FeatureArray, names: Sequence[str], feature: str
) -> dict[str, Any]:
    """Return the target over one feature and the position held, all other inputs at their medians.

    Parameters
    ----------
    act, seen, names : as of `permutation_importance`; 'position' or 'held_target' is one of the names
    feature : another of them

    Returns
    -------
    dict
        feature; values, from its 1 % to its 99 % quantile; positions, from -1 to 1; action, one row a position
    """
    place, held = (
        names.index(feature),
        next(i for i, name in enumerate(names) if name in ("position", "held_target")),
    )
    low, high = np.quantile(seen[:, place], (0.01, 0.99))
    values = np.linspace(float(low), float(high), 31)
    positions = np.linspace(-1.0, 1.0, 21)
    rows = np.tile(np.median(seen, axis=0), (positions.size * values.size, 1)).astype(np.float32)
    rows[:, place] = np.tile(values, positions.size)
    rows[:, held] = np.repeat(positions, values.size)
    action = np.reshape(act(rows), (positions.size, values.size))
    numbers = {"values": values, "positions": positions, "action": action}
    return {"feature": feature, **{name: array.round(4).tolist() for name, array in numbers.items()}}


def _row(name: str, market: Market, targets: FloatArray, start: float) -> dict[str, Any]:
    result = run_targets(market, targets, start, name, "base")
    curve = np.concatenate(([start], result.equity))
    return {
        "scenario": name,
        "net_return_frac": result.equity[-1] / start - 1.0,
        "sharpe_ann": metrics.sharpe_ann(result.daily_returns, result.days_a_year),
        "max_drawdown_frac": metrics.max_drawdown(curve),
        "cost_frac": result.cost_paid[-1] / start,
    }
