"""A market as a problem of exact SAC: what a decision at each close pays, for every position and every target.

A decision at close t covers the next K bars. Its order fills at the first of their opens, f, at which exposure may
change. What the account had before earns until then, the target afterwards:

    before the fill    p x (mid at f / mid at close t - 1) - swap of p for the nights up to f
                       + |p| x half spread at close t
    after the fill     a x (mid at the last close / mid at f - 1) - swap of a for the nights after f
                       - |a| x half spread at the last close

The half spreads are the account's marking: its equity is what closing the position would leave. A unit's return is
simple, not logarithmic, so that the log growth of the account differs only by squares of what it earns. Where no open
of the decision can be traded, the whole of it belongs to the old position.

What is known at close t is what a decision may look at: the observed features, the clock and the spread expected
of the fill. What bar t + 1 turned out to be is in the returns alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sac_kernel.agent.exact_grid import greedy_target, position_grid
from sac_kernel.agent.exact_rewards import ExactProblem
from sac_kernel.core.errors import ConfigError, DataError
from sac_kernel.experiment.learner import path_dependent_settings
from sac_kernel.market.account import account_terms
from sac_kernel.market.decision_bars import NEVER, complete_decisions, fill_bar, unit_moves
from sac_kernel.market.market import DECISION_FEATURES, fill_outlook, one_way
from sac_kernel.market.records import Terms
from sac_kernel.prices.clocks import unix_seconds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sac_kernel.agent.exact_policy import ExactPolicy
    from sac_kernel.market.account import TradingEnvConfig
    from sac_kernel.market.market import Market

    FloatArray = NDArray[np.float64]
    BoolArray = NDArray[np.bool_]

_SIZES = ("volatility_target", "atr_risk")


class Decisions(NamedTuple):
    """What a decision at each close may look at, one row a bar.

    Attributes
    ----------
    features : (n, D), observed at the close
    cost : (n,), one-way, of a unit of position, as expected of the fill
    tradable : (n,), whether the clock says that an order given at this close fills before the next decision
    """

    features: NDArray[np.float32]
    cost: FloatArray
    tradable: BoolArray


def decisions(market: Market, config: TradingEnvConfig, fill_spread: FloatArray | None = None) -> Decisions:
    """Return what a decision at each close may look at (`market.fill_outlook`); no later bar is read.

    Parameters
    ----------
    config : the account's, that the market was prepared with
    fill_spread : (n,), full spread over price that is expected, at each close, of the fill; None takes that of the
        clock's table, at the config's cost tier, at the open the order would fill at

    Raises
    ------
    ConfigError
        If the market was prepared with another config.
    """
    _check_config(market, config)
    terms, seconds = market.terms, market.bar_seconds
    closed, now = unix_seconds(market.open_time) + seconds, market.bars["spread_close"]
    cost, can_fill = fill_outlook(closed, now, market.fees, config.cost_tier, seconds, market.spec, terms)
    if fill_spread is not None:
        cost = one_way(np.asarray(fill_spread, np.float64), market.fees, terms)
    features = market.observed[:, : -len(DECISION_FEATURES)] if terms.observes_target else market.observed
    return Decisions(features, cost, can_fill > 0.0)


def exact_problem(
    market: Market,
    config: TradingEnvConfig,
    positions: int = 21,
    forecast: FloatArray | None = None,
    fill_spread: FloatArray | None = None,
) -> ExactProblem:
    """Return the problem of one split.

    Rows are bars. Starts are those with features whose own decision and the next one lie within the bars, no
    `Market.hole` inside either.

    Parameters
    ----------
    config : the account's, that the market was prepared with
    positions : of the grid
    forecast : (n,), the return of a unit expected at each close, fitted to `forecast_target`; it takes the
        place of the realised moves, before the fill and after it. Costs, swap and marking stay. None: realised moves
    fill_spread : as of `decisions`

    Raises
    ------
    ConfigError
        If the account is not one of exact SAC, naming the settings that make it so, or the market was prepared with
        another config.
    DataError
        If too few rows can be learnt from, or the forecast has another shape.
    """
    settings = path_dependent_settings(config)
    if settings:
        msg = (
            f"exact_problem: with {', '.join(settings)} a decision's reward depends on the path of the "
            "position. Switch these settings off, or train with agent.SACAgent."
        )
        raise ConfigError(msg)
    n, k, cap = len(market.bars), market.interval_bars, float(market.terms.exposure_cap)
    if n <= 2 * k:
        msg = f"exact_problem: {n} bars are too few for two decisions of {k} bars each. Give more bars."
        raise DataError(msg)
    rows = n - k
    known = decisions(market, config, fill_spread)
    moves, grid = unit_moves(market), position_grid(positions)
    tradable, complete = fill_bar(market)[:rows] < NEVER, complete_decisions(market)
    price_before, price_after = moves.before, moves.after
    if forecast is not None:
        given = np.asarray(forecast, np.float64)
        if given.shape != (n,):
            msg = (
                f"exact_problem: the forecast has shape {given.shape}. Give one value per bar, shape ({n},)."
            )
            raise DataError(msg)
        price_before, price_after = np.zeros(rows), np.where(tradable, given[:rows], 0.0)
    half_now, half_end = _half_spread(market)[:rows], _half_spread(market)[k:]
    before = price_before[:, None] * grid - _swap(market, moves.nights_before, grid)
    before += half_now[:, None] * np.abs(grid)
    after = _swap(market, moves.nights_after, grid) + half_end[:, None] * np.abs(grid)
    before -= np.where(tradable, 0.0, 1.0)[:, None] * after
    after *= tradable[:, None]
    valid = complete[:rows] & (np.arange(rows) >= market.first_bar)
    valid &= np.append(complete[k:rows], np.zeros(min(k, rows), bool))
    return ExactProblem(
        features=known.features,
        returns=cap * price_after,
        cost=known.cost[:rows],
        tradable=tradable,
        holding_cost=cap * after,
        before_fill=cap * before,
        variance=cap**2 * k * market.bars["volatility"][:rows] ** 2,
        valid=valid,
        stride=k,
    )


def greedy_targets(market: Market, policy: ExactPolicy, known: Decisions) -> FloatArray:
    """Return the targets of one greedy pass over a split, flat at the start, one a decision: what `run_targets` takes.

    Each decision looks at its own row of `known`, which `decisions` returns, and at the last target that was filled.
    """
    rows = np.arange(market.first_bar, len(market.bars) - 1, market.interval_bars)
    position, targets = np.zeros(1), np.empty(len(rows))
    values = policy.values(known.features[rows])
    for i, row in enumerate(rows):
        position = greedy_target(
            values[i : i + 1], policy.grid, position, known.cost[row], known.tradable[row]
        )
        targets[i] = position[0]
    return targets


def _swap(market: Market, nights: FloatArray, grid: FloatArray) -> FloatArray:
    """Return what the nights cost each position, (rows, G), as a fraction of equity over the cap."""
    rate = np.where(grid > 0.0, market.terms.swap_long, market.terms.swap_short)
    return nights[:, None] * (rate * np.abs(grid))


def _half_spread(market: Market) -> FloatArray:
    """Return half the spread at each close over mid, (n,)."""
    half = market.bars["spread_close"] / 2.0
    return np.asarray(half / (1.0 + market.terms.price_side * half))


def _check_config(market: Market, config: TradingEnvConfig) -> None:
    """Raise ConfigError if the market's terms or sizes are not those of the config."""
    terms = market.terms
    side = {1.0: "bid", -1.0: "ask"}.get(terms.price_side, "mid")
    at_end = bool(terms.close_at_end)
    own = account_terms(config, side, market.bar_seconds, close_at_end=at_end, spec=market.spec)
    differ = [name for name in Terms.__annotations__ if own[name] != terms[name]]
    sized = any(getattr(config, name) for name in _SIZES)
    if not sized and (market.bars["cap_share"] != 1.0).any():
        differ.append("sizes")
    if differ:
        msg = (
            f"exact_problem: the market was prepared with another config. They differ in {', '.join(differ)}. Pass the "
            "config that prepare_market got, with the same cost_tier."
        )
        raise ConfigError(msg)
