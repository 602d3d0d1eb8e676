"""The figure of a walk-forward's folds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from sac_kernel.core import strings
from sac_kernel.core.errors import DataError
from sac_kernel.core.plot_style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    WIDTH_IN,
    styled,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@styled
def folds_figure(returns: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Return the net return of each fold: a dot per seed, a bar from worst to best, policies side by side.

    `returns`: policy -> per fold, in time order, a list of net returns, fractions, one per seed.
    """
    folds = max((len(by_fold) for by_fold in returns.values()), default=0)
    if not folds:
        msg = "There are no folds to draw."
        raise DataError(msg)
    figure = Figure(figsize=(WIDTH_IN, 3.6), layout="constrained")
    ax, colors = figure.subplots(), (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, GREY)
    ax.axhline(0.0, color=GREY, linewidth=0.8)
    for i, (name, by_fold) in enumerate(returns.items()):
        place = np.arange(1, folds + 1) + 0.8 * ((i + 0.5) / len(returns) - 0.5)
        values = [100.0 * np.array(fold, np.float64) for fold in by_fold]
        ends = [v.min() for v in values], [v.max() for v in values]
        ax.vlines(place, *ends, color=colors[i % len(colors)], linewidth=1.2)
        x = np.repeat(place, [v.size for v in values])
        ax.plot(x, np.concatenate(values), "o", markersize=5, color=colors[i % len(colors)], label=name)
    for edge in np.arange(1.5, folds):
        ax.axvline(edge, color="#E2E5E8", linewidth=0.8)
    first = next(iter(returns))
    gained = sum(bool(np.mean(fold) > 0) for fold in returns[first])
    ax.set_title(strings.FOLDS_TITLE.format(name=first, gained=gained, folds=folds))
    ax.set(xticks=range(1, folds + 1), xlabel=strings.FOLD_AXIS, ylabel=strings.NET_RETURN)
    ax.grid(visible=False, axis="x")
    figure.legend(loc="outside lower center", ncols=len(returns))
    return figure
