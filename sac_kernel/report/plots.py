"""Matplotlib figures of the market, the features, the training and the verdict.

Figures use the Agg canvas and one local style, not pyplot or the caller's settings: equal input gives
equal pixels. A notebook shows one by `IPython.display.Image(to_png(figure))`.

A result is one pass of a policy over one split at one cost tier: an object with `name`, `tier`,
`open_time_utc` (DatetimeIndex), arrays of its length `close`, `equity`, `exposure` (notional over
equity, long positive), `cost_paid` (so far; account currency), and `start_equity`.
"""

from __future__ import annotations

import itertools
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sac_kernel.backtest.trades import HELD
from sac_kernel.core import strings
from sac_kernel.core.errors import DataError
from sac_kernel.core.plot_style import (
    BLUE,
    EXPOSURE_MAP,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    UNDER_WATER,
    VERMILION,
    WIDTH_IN,
    MarketTime,
    aligned,
    line,
    numbers,
    percent,
    styled,
    thin,
    time_axis,
    utc_times,
)
from sac_kernel.core.plot_style import to_png as to_png
from sac_kernel.core.plot_style import to_rgb as to_rgb

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]
    TimeArray = NDArray[np.datetime64]

CLIP = 5.0
"""Scaled features are clipped to +-5."""
STUCK_SHARE = 0.99
"""Above this share of bars at one exposure the agent does not trade, and the figure says so."""

_OTHERS = ((ORANGE, "-"), (GREEN, "--"), (PURPLE, "-."), (SKY, "-"), (VERMILION, ":"), (GREY, "--"))
_SPLIT_COLORS = {"train": BLUE, "val": ORANGE, "test": GREEN}

_LEFT: dict[str, Any] = {"x": 0.01, "ha": "left"}
_HOLE: dict[str, Any] = {"facecolor": "#D5D9DD", "edgecolor": GREY, "hatch": "////", "lw": 0}

_FEW_POINTS = 30  # up to this many points are marked
_NO_TRADE = 0.05
"""Change of position, of the cap, below which nothing trades: half a step of the optimum's grid."""
_EVALUATED = ("eval_rewards", "eval_sharpes")  # per evaluation, not per episode
_LOG_PANELS = ("critic_losses", "alpha_values")
_LOG_FROM = 30.0  # ratio of largest to smallest value
_CUSUM_BOUND = 2.807  # |Brownian motion| on [0, 1] exceeds it once in 100
_SMOOTH_FROM = 20  # episodes; a running mean of fewer says nothing


@styled
def bars_figure(
    splits: Mapping[str, pd.Series[float]],
    gaps: Iterable[tuple[pd.Timestamp, pd.Timestamp]] | None = None,
) -> Figure:
    """Return the close price coloured by split, gaps between splits in grey.

    Parameters
    ----------
    splits : close prices by split name, in time order, each indexed by open_time_utc
    gaps : (last bar before, first bar after) of each; None: those between splits
    """
    empty = [name for name, bars in splits.items() if bars.empty]
    _require(not empty, f"No bars in {', '.join(empty)}.")
    _require(bool(splits), "There are no splits to draw.")
    if gaps is None:
        parts = list(splits.values())
        gaps = [(a.index[-1], b.index[0]) for a, b in itertools.pairwise(parts)]
    figure = Figure(figsize=(WIDTH_IN, 3.6), layout="constrained")
    ax = figure.subplots()
    for i, (name, bars) in enumerate(splits.items()):
        color = _SPLIT_COLORS.get(name, _OTHERS[i % len(_OTHERS)][0])
        time, price = utc_times(pd.DatetimeIndex(bars.index)), bars.to_numpy(np.float64)
        line(ax, time, price, color=color, linewidth=1.0, label=name)
    for i, gap in enumerate(gaps):
        left, right = utc_times(pd.DatetimeIndex(gap))
        ax.axvspan(left, right, label="_" if i else strings.EMBARGO, **_HOLE)
    counts = ", ".join(f"{name} {len(bars):,}" for name, bars in splits.items())
    ax.set_title(strings.BARS_TITLE.format(counts=counts) + strings.NO_OVERLAP * (len(splits) > 1))
    ax.set_ylabel(strings.CLOSE)
    time_axis(ax)
    figure.legend(loc="outside lower center", ncols=len(splits) + 1)
    return figure


@styled
def features_figure(features: pd.DataFrame) -> Figure:
    """Return the spread of each scaled feature and how often it is clipped, warm-up left out."""
    rows = features.dropna()
    _require(not rows.empty, f"All {len(features)} rows of the features contain NaN.")
    values = rows.to_numpy(np.float64)
    low, q1, median, q3, high = np.quantile(values, (0.01, 0.25, 0.5, 0.75, 0.99), axis=0)
    clipped = 100.0 * np.mean(np.abs(values) >= CLIP, axis=0)
    place = np.arange(values.shape[1])
    figure = Figure(figsize=(WIDTH_IN, 1.5 + 0.23 * place.size), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    left.hlines(place, low, high, color=GREY, linewidth=1.0, label=strings.ONE_TO_99)
    left.barh(place, q3 - q1, left=q1, height=0.6, color=SKY, label=strings.MIDDLE_HALF)
    left.plot(median, place, "|", color=INK, markersize=8, markeredgewidth=1.6, label=strings.MEDIAN)
    for bound in (-CLIP, CLIP):
        left.axvline(bound, color=VERMILION, linestyle="--", linewidth=1.0)
    left.set(xlim=(-CLIP - 0.4, CLIP + 0.4), xlabel=strings.SCALED_VALUE)
    left.set(ylabel=strings.FEATURE, yticks=place, yticklabels=[str(name) for name in rows.columns])
    left.invert_yaxis()
    bars = right.barh(place, clipped, height=0.6, color=VERMILION)
    right.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    right.set(xlim=(0, max(1.0, 1.35 * clipped.max())), xlabel=strings.AT_A_BOUND)
    worst = int(np.argmax(clipped))
    finding = strings.CLIPPED if clipped[worst] > 0 else strings.NOT_CLIPPED
    finding = finding.format(name=rows.columns[worst], share=clipped[worst])
    title = strings.FEATURES_TITLE.format(count=place.size, rows=len(rows), finding=finding)
    figure.suptitle(title, **_LEFT)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@styled
def training_figure(stats: Mapping[str, Any]) -> Figure:
    """Return the curves of a training run, each with a line on what healthy looks like.

    Parameters
    ----------
    stats : lists with one value per episode (`episode_rewards`, `episode_lengths`, `actor_losses`,
        `critic_losses`, `alpha_values`, `entropies`) and one per evaluation (`eval_episodes`,
        `eval_rewards`, `eval_sharpes`); None where there is no value; a missing list is
        empty. `target_entropy`, nats, one number or one for each episode, is optional.
    """
    evaluated = numbers(stats.get("eval_episodes"))
    figure = Figure(figsize=(WIDTH_IN, 9.6), layout="constrained")
    axes, panels = figure.subplots(len(strings.PANELS) // 2, 2), strings.PANELS
    for ax, (key, texts) in zip(axes.flat, panels.items(), strict=True):
        title, axis, healthy = texts
        y = numbers(stats.get(key))
        x = evaluated if key in _EVALUATED else np.arange(1.0, y.size + 1)
        _require(x.size == y.size, f"stats has {y.size} {key} for {x.size} eval_episodes.")
        ax.set_title(title, pad=16)
        ax.text(0, 1.03, healthy, transform=ax.transAxes, color=GREY, fontsize=8.5)
        ax.set(xlabel=strings.EPISODE, ylabel=axis)
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if key in _EVALUATED:
            ax.axhline(0.0, color=GREY, linewidth=0.8)
        _history(ax, x, y, smooth=key == "episode_rewards")
        positive = y[np.isfinite(y)]
        if key in _LOG_PANELS and positive.size and 0 < positive.min() < positive.max() / _LOG_FROM:
            ax.set_yscale("log")
    target = stats.get("target_entropy")
    if target is not None and np.size(target):
        ax = axes.flat[list(panels).index("entropies")]
        moving = np.broadcast_to(np.asarray(target, np.float64), len(stats.get("episode_rewards") or ()) or 1)
        label = strings.TARGET if moving.min() == moving.max() else strings.TARGET_AT_LAST
        label = label.format(value=moving[-1])
        ax.plot(np.arange(1.0, moving.size + 1), moving, color=VERMILION, linestyle="--", label=label)
        ax.legend()
    episodes = len(stats.get("episode_rewards") or ())
    title = strings.TRAINING_TITLE.format(episodes=episodes, evaluations=evaluated.size)
    figure.suptitle(title, **_LEFT)
    return figure


@styled
def policy_figure(  # noqa: PLR0913  # one figure, all its parts
    values: ArrayLike,
    positions: ArrayLike,
    action: ArrayLike,
    feature: str,
    optimal: ArrayLike | None = None,
    profit: Mapping[str, ArrayLike] | None = None,
    width: float = WIDTH_IN,
) -> Figure:
    """Return the greedy action over one input and the position held.

    Parameters
    ----------
    values : shape (n,), ascending, of the input named `feature`
    positions : shape (m,), ascending, held, in [-1, 1] of the cap
    action : shape (m, n), the next target, in [-1, 1]
    optimal : shape (m, n), target of the best policy, if known: drawn beside it, with the edge of its
        no-trade region in both
    profit : policy -> expected net profit so far, (T,), in standard deviations of a bar: drawn beside the maps, the
        agent first
    width : inches; 4.5 suits a phone
    """
    x, p = np.asarray(values, np.float64), np.asarray(positions, np.float64)
    maps = {strings.THE_AGENT: np.asarray(action, np.float64)}
    if optimal is not None:
        maps[strings.THE_OPTIMUM] = np.asarray(optimal, np.float64)
    for name, field in maps.items():
        shape = (p.size, x.size)
        _require(field.shape == shape, f"{name} has shape {field.shape}, but the grid needs {shape}.")
    narrow = width < WIDTH_IN
    figure = Figure(figsize=(width, 5.6 if narrow and profit else 3.4), layout="constrained")
    cells = [*range(len(maps)), *(["profit"] if profit else [])]
    grid = [cells[:-1], cells[-1:] * len(maps)] if narrow and profit else [cells]
    mosaic = figure.subplot_mosaic(
        grid, width_ratios=None if narrow else [1.0] * len(maps) + [1.2] * bool(profit)
    )
    axes = [mosaic[i] for i in range(len(maps))]
    for ax in axes[1:]:
        ax.sharey(axes[0])
        ax.tick_params(labelleft=False)
    for ax, (name, field) in zip(axes, maps.items(), strict=True):
        look: dict[str, Any] = {"cmap": EXPOSURE_MAP, "vmin": -1, "vmax": 1, "shading": "nearest"}
        mesh = ax.pcolormesh(x, p, field, **look)
        traded = np.abs(maps.get(strings.THE_OPTIMUM, field) - p[:, None])
        if optimal is not None and 0.0 < (traded < _NO_TRADE).mean() < 1.0:
            ax.contour(x, p, traded, levels=[_NO_TRADE], colors=[INK], linewidths=1.4)
        ax.set(title=name[:1].upper() + name[1:], xlabel=feature)
        ax.grid(visible=False)
    axes[0].set_ylabel(strings.POSITION_HELD)
    figure.colorbar(mesh, ax=axes, label=strings.TARGET_POSITION)
    for (name, curve), (color, dash) in zip((profit or {}).items(), ((BLUE, "-"), *_OTHERS), strict=False):
        ax, values = mosaic["profit"], np.asarray(curve, np.float64)
        ax.plot(np.arange(1, values.size + 1), values, color=color, linestyle=dash, label=name)
        ax.set(title=strings.PROFIT_TITLE, xlabel=strings.BAR, ylabel=strings.PROFIT)
        ax.legend()
    if optimal is not None:
        figure.suptitle(strings.NO_TRADE_REGION, **_LEFT)
    return figure


@styled
def equity_figure(
    results: Sequence[Any],
    seeds: Sequence[Any] = (),
    fills: pd.DataFrame | None = None,
    width: float = WIDTH_IN,
) -> Figure:
    """Return equity in % of start of several results; drawdown, costs and trades of the first, the agent.

    Parameters
    ----------
    results : drawn with a label, the agent first
    seeds : other trainings of agents among the results, drawn thin in the colour of theirs
    fills : of the first result, with `time_utc` and `side` (`backtest.trades.fills_table`)
    width : inches; 4.5 suits a phone
    """
    _require(bool(results), "There is no policy to draw.")
    narrow = width < WIDTH_IN
    figure = Figure(figsize=(width, 7.0 if narrow else 6.4), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(2.8, 1.0, 0.8))
    axis = MarketTime([utc_times(result.open_time_utc) for result in (*results, *seeds)])
    _equity_curves(top, axis, results, seeds)
    agent, others = results[0], results[1:]
    time, equity = utc_times(agent.open_time_utc), 100.0 * agent.equity / agent.start_equity
    x = axis.x(time)
    if fills is not None and len(fills):
        _mark_trades(top, x, time, equity, fills)
    beaten = sum(bool(equity[-1] > 100.0 * r.equity[-1] / r.start_equity) for r in others)
    net = percent(equity[-1] / 100.0 - 1.0)
    title = strings.EQUITY_TITLE.format(name=agent.name, tier=agent.tier, net=net)
    if others:
        title += strings.AHEAD.format(beaten=beaten, others=len(others))
    top.set_title(textwrap.fill(title, 40) if narrow else title)
    top.set_ylabel(strings.EQUITY_AXIS)
    curve = np.concatenate(([100.0], equity))
    drawdown = 100.0 * (curve / np.maximum.accumulate(curve) - 1.0)[1:]
    kept = thin(drawdown)
    middle.fill_between(x[kept], drawdown[kept], 0.0, **UNDER_WATER)
    line(middle, x, drawdown, color=VERMILION, linewidth=0.9)
    middle.set_ylabel(strings.DRAWDOWN_OF_FIRST)
    line(bottom, x, 100.0 * agent.cost_paid / agent.start_equity, color=PURPLE)
    bottom.set_ylabel(strings.COSTS_OF_FIRST)
    axis.label(bottom, 4 if narrow else 8)
    figure.legend(loc="outside lower center", ncols=1 if narrow else 3)
    figure.align_ylabels()
    return figure


def _equity_curves(ax: Axes, axis: MarketTime, results: Sequence[Any], seeds: Sequence[Any]) -> None:
    """Draw labelled results, the first one thick, and further seeds thin in the colour of their agent."""
    one_tier, colors = len({result.tier for result in results}) == 1, dict[Any, str]()
    ax.axhline(100.0, color=GREY, linewidth=0.8)
    for i, result in enumerate(results):
        time, equity = utc_times(result.open_time_utc), 100.0 * result.equity / result.start_equity
        aligned("plots.equity_figure", time.size, {f"equity of {result.name}": equity})
        name = result.name if one_tier else f"{result.name}, {result.tier}"
        color, dash = _OTHERS[(i - 1) % len(_OTHERS)] if i else (BLUE, "-")
        colors.setdefault(_agent_of(result), color)
        label, width = f"{name} {percent(equity[-1] / 100 - 1)}", 1.2 if i else 2.0
        line(ax, axis.x(time), equity, label=label, color=color, ls=dash, lw=width, zorder=2 if i else 3)
    counts = Counter(map(_agent_of, seeds))
    for result in seeds:
        agent_id = _agent_of(result)
        own = strings.AGENT_LABELS["current"].format(agent_id=agent_id)
        label = (
            strings.SEVERAL_SEEDS.format(label=own, count=counts.pop(agent_id)) if agent_id in counts else "_"
        )
        equity, color = 100.0 * result.equity / result.start_equity, colors.get(agent_id, GREY)
        line(
            ax, axis.x(utc_times(result.open_time_utc)), equity, label=label, color=color, lw=0.7, alpha=0.55
        )


def _agent_of(result: Any) -> Any:  # noqa: ANN401  # a result
    return getattr(getattr(result, "policy", None), "agent_id", None)


def _mark_trades(ax: Axes, x: Any, time: TimeArray, equity: FloatArray, fills: pd.DataFrame) -> None:  # noqa: ANN401
    """Mark fills on a curve, smaller the more there are."""
    when = pd.DatetimeIndex(fills["time_utc"]).tz_localize(None).to_numpy()
    at = np.clip(np.searchsorted(time, when), 0, time.size - 1)
    size = float(np.clip(600.0 / len(fills), 3.0, 28.0))
    for side, marker, color in ((strings.BUY, "^", GREEN), (strings.SELL, "v", VERMILION)):
        own = at[(fills["side"] == side).to_numpy()]
        if own.size:
            label = strings.FILLS.format(side=side, count=own.size)
            ax.scatter(
                x[own], equity[own], size, color=color, marker=marker, alpha=0.8, zorder=4, lw=0, label=label
            )


@styled
def exposure_figure(result: Any) -> Figure:  # noqa: ANN401
    """Return the agent's exposure over time, its histogram, and the costs so far.

    Costs by kind are named if the result has `costs` (kind -> account currency, at the end). A
    warning appears if one exposure is held for over `STUCK_SHARE` of the time.
    """
    time = utc_times(result.open_time_utc)
    arrays = {"exposure": result.exposure, "cost_paid": result.cost_paid}
    held, paid = aligned("plots.exposure_figure", time.size, arrays)
    figure = Figure(figsize=(WIDTH_IN, 5.2), layout="constrained")
    axes = figure.subplot_mosaic("EEE;CCL", height_ratios=(1.3, 1.0))
    axes["E"].axhline(0.0, color=GREY, linewidth=0.8)
    line(axes["E"], time, held, color=BLUE, drawstyle="steps-post", linewidth=0.9)
    side = np.where(np.abs(held) < HELD, 0.0, np.sign(held))
    long, short, flat = (100.0 * np.mean(side == sign) for sign in (1, -1, 0))
    shares = {"long": long, "short": short, "flat": flat, "held": HELD}
    axes["E"].set_title(strings.EXPOSURE_TITLE.format(name=result.name, **shares))
    axes["E"].set_ylabel(strings.EXPOSURE)
    scale = 100.0 / result.start_equity
    line(axes["C"], time, scale * paid, color=VERMILION)
    parts: Mapping[str, float] = getattr(result, "costs", None) or {}
    named = ", ".join(f"{kind} {scale * cost:.2f}" for kind, cost in parts.items())
    title = strings.COSTS_PAID.format(total=scale * paid[-1])
    axes["C"].set_title(f"{title}: {named}" if named else title)
    axes["C"].set_ylabel(strings.COSTS_SO_FAR)
    reach = max(1.0, float(np.abs(held).max()))
    bins, weights = np.linspace(-reach, reach, 41), np.full(held.size, 100.0 / held.size)
    axes["L"].hist(held, bins=bins.tolist(), weights=weights, color=BLUE)
    axes["L"].set(xlabel=strings.EXPOSURE, ylabel=strings.TIME_SHARE)
    time_axis(axes["E"])
    time_axis(axes["C"])
    level, share = _main_level(held, 0.05 * reach)
    if share > STUCK_SHARE:
        title = strings.STUCK.format(level=level, share=100 * share)
        figure.suptitle(title, color=VERMILION, **_LEFT)
    return figure


@styled
def random_figure(agent_return: float, random_returns: ArrayLike) -> Figure:
    """Return the agent's net return among those of random policies with the same turnover.

    Both are fractions over the whole split; `random_returns` has shape (n_policies,).
    """
    draws = np.asarray(random_returns, np.float64)
    valid = draws.ndim == 1 and draws.size and np.isfinite([*draws, agent_return]).all()
    _require(
        bool(valid), f"Returns must be finite: agent_return {agent_return}, random_returns {draws.shape}."
    )
    percentile = 100.0 * np.mean(draws < agent_return)
    figure = Figure(figsize=(WIDTH_IN, 3.6), layout="constrained")
    ax = figure.subplots()
    bins = int(np.clip(np.sqrt(draws.size), 8, 40))
    ax.hist(100.0 * draws, bins=bins, color=SKY, edgecolor="white", label=strings.RANDOM_POLICIES)
    ax.axvline(100.0 * agent_return, color=VERMILION, linewidth=2.2, label=strings.THIS_RESULT)
    ax.axvline(100.0 * float(np.median(draws)), color=INK, linestyle="--", label=strings.MEDIAN_OF_RANDOM)
    net = percent(agent_return)
    ax.set_title(strings.RANDOM_TITLE.format(net=net, share=percentile, draws=draws.size))
    ax.set(xlabel=strings.NET_OVER_SPLIT, ylabel=strings.POLICIES_NUMBER)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@styled
def seeds_figure(results: Sequence[Any]) -> Figure:
    """Return equity of one configuration over its seeds: every seed, their median, the band between extremes.

    All results are over the same times.
    """
    _require(len(results) > 1, f"A figure of seeds needs at least 2 results, got {len(results)}.")
    time = utc_times(results[0].open_time_utc)
    curves = {f"{r.name} {i}": 100.0 * r.equity / r.start_equity for i, r in enumerate(results)}
    equity = np.stack(aligned("plots.seeds_figure", time.size, curves))
    figure = Figure(figsize=(WIDTH_IN, 3.6), layout="constrained")
    ax, kept = figure.subplots(), thin(np.median(equity, axis=0))
    ax.axhline(100.0, color=GREY, linewidth=0.8)
    low, high = equity[:, kept].min(axis=0), equity[:, kept].max(axis=0)
    ax.fill_between(time[kept], low, high, color=SKY, alpha=0.3, linewidth=0, label=strings.SEEDS_BAND)
    for curve in equity:
        ax.plot(time[kept], curve[kept], color=BLUE, alpha=0.4, linewidth=0.8)
    ax.plot(
        time[kept], np.median(equity[:, kept], axis=0), color=BLUE, linewidth=2.0, label=strings.MEDIAN_SEED
    )
    ends = equity[:, -1] / 100 - 1
    worst, middle, best = map(percent, (ends.min(), float(np.median(ends)), ends.max()))
    title = strings.SEEDS_TITLE.format(count=len(equity), worst=worst, median=middle, best=best)
    ax.set_title(title)
    ax.set_ylabel(strings.EQUITY_AXIS)
    time_axis(ax)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def costs_figure(rows: Sequence[Mapping[str, Any]], break_even: float | None) -> Figure:
    """Return the net return over multiples of all trading costs, and the multiple at which it is 0.

    Each row has `multiple` and `net_return_frac`.
    """
    _require(bool(rows), "There are no cost multiples to draw.")
    multiple = np.array([row["multiple"] for row in rows], np.float64)
    net = 100.0 * np.array([row["net_return_frac"] for row in rows], np.float64)
    figure = Figure(figsize=(WIDTH_IN, 3.2), layout="constrained")
    ax = figure.subplots()
    ax.axhline(0.0, color=GREY, linewidth=0.8)
    ax.plot(multiple, net, color=BLUE, marker="o")
    ax.axvline(1.0, color=INK, linestyle="--", linewidth=1.0, label=strings.COSTS_AS_JUDGED)
    if break_even is None:
        finding = strings.NO_BREAK_EVEN if net.any() else strings.NEVER_TRADED
    else:
        finding = strings.BREAK_EVEN_AT.format(multiple=break_even)
        if multiple.min() <= break_even <= multiple.max():
            ax.axvline(break_even, color=VERMILION, linewidth=1.6, label=strings.BREAK_EVEN)
    if break_even == 0.0:
        finding = strings.LOSES_WITHOUT_COSTS
    ax.set_title(strings.COSTS_TITLE.format(finding=finding))
    ax.set(xlabel=strings.COST_MULTIPLE, ylabel=strings.NET_RETURN)
    ax.legend()
    return figure


@styled
def inputs_figure(moved: Mapping[str, float], most: int = 15) -> Figure:
    """Return the inputs that move the agent's target most when they are shuffled.

    `moved`: name -> mean absolute change of the target, in [0, 2].
    """
    _require(bool(moved), "There are no inputs to draw.")
    shown = sorted(moved.items(), key=lambda item: -item[1])[:most]
    figure = Figure(figsize=(WIDTH_IN, 1.2 + 0.24 * len(shown)), layout="constrained")
    ax = figure.subplots()
    ax.barh(range(len(shown)), [value for _, value in shown], color=BLUE, height=0.65)
    ax.set(yticks=range(len(shown)), yticklabels=[name for name, _ in shown], ylabel=strings.INPUT)
    ax.set_xlabel(strings.TARGET_CHANGE)
    ax.invert_yaxis()
    counts = {"shown": len(shown), "count": len(moved)}
    ax.set_title(strings.INPUTS_TITLE.format(first=shown[0][0], **counts))
    return figure


@styled
def drift_figure(rows: Sequence[Mapping[str, Any]], paths: Mapping[str, ArrayLike], word: str) -> Figure:
    """Return KS distances of the most suspicious series, and CUSUM paths with their 1 % bound.

    Parameters
    ----------
    rows : name, test ('KS' or 'CUSUM'), statistic, alarm
    paths : name -> daily cumulative deviation from the train mean, in standard errors
    word : 'retrain' or 'keep'
    """
    distances = [row for row in rows if row["test"] == "KS"][:12]
    _require(bool(distances and paths), "There are no drift series to draw.")
    figure = Figure(figsize=(WIDTH_IN, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    colors = [VERMILION if row["alarm"] else SKY for row in distances]
    left.barh(range(len(distances)), [row["statistic"] for row in distances], color=colors, height=0.65)
    left.set(yticks=range(len(distances)), yticklabels=[row["name"] for row in distances])
    left.set(xlabel=strings.KS_DISTANCE, ylabel=strings.DAILY_SERIES)
    left.invert_yaxis()
    for (name, path), (color, dash) in zip(paths.items(), _OTHERS, strict=False):
        values = np.asarray(path, np.float64)
        right.plot(np.arange(1, values.size + 1), values, color=color, linestyle=dash, label=name)
    for bound in (-_CUSUM_BOUND, _CUSUM_BOUND):
        right.axhline(bound, color=GREY, linestyle="--", linewidth=1.0)
    right.set(xlabel=strings.WINDOW_DAY, ylabel=strings.CUSUM)
    alarms = sum(bool(row["alarm"]) for row in rows)
    figure.suptitle(strings.DRIFT_TITLE.format(word=word, alarms=alarms, tests=len(rows)), **_LEFT)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise DataError(message)


def _history(ax: Axes, x: FloatArray, y: FloatArray, *, smooth: bool) -> None:
    known = np.isfinite(y)
    if not known.any():
        ax.text(0.5, 0.5, strings.NO_VALUE_YET, ha="center", color=GREY, transform=ax.transAxes)
        ax.set(xticks=[], yticks=[])
        return
    smooth = smooth and y.size >= _SMOOTH_FROM
    marker, alpha = "o" if known.sum() <= _FEW_POINTS else "", 0.35 if smooth else 1.0
    ax.plot(x[known], y[known], color=BLUE, alpha=alpha, marker=marker, markersize=3.5)
    if smooth:
        window = max(5, y.size // 10)
        mean = pd.Series(y).rolling(window, min_periods=1).mean()
        ax.plot(x, mean, color=BLUE, linewidth=2.0, label=strings.MEAN_OF.format(window=window))
        ax.legend()


def _main_level(held: FloatArray, width: float) -> tuple[float, float]:
    """Return the median in the most used interval of this width, and its share of the time."""
    ordered = np.sort(held)
    inside = np.searchsorted(ordered, ordered + width, side="right") - np.arange(held.size)
    first = int(np.argmax(inside))
    count = int(inside[first])
    return float(np.median(ordered[first : first + count])), count / held.size
