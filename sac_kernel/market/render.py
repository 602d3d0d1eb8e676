"""One episode of an account as a figure: price with the held exposure, equity with drawdown, costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sac_kernel.core.plot_style import (
    BLUE,
    EXPOSURE_MAP,
    INK,
    UNDER_WATER,
    VERMILION,
    WIDTH_IN,
    aligned,
    line,
    percent,
    styled,
    thin,
    time_axis,
    utc_times,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]
    TimeArray = NDArray[np.datetime64]

_MAX_SHADES = 1200


@styled
def episode_figure(
    open_time: pd.DatetimeIndex,
    close: ArrayLike,
    equity: ArrayLike,
    exposure: ArrayLike,
    cost: ArrayLike,
) -> Figure:
    """Return one episode: price with the held exposure, equity with drawdown, costs.

    Parameters
    ----------
    open_time : shape (n,), n >= 1, UTC; a naive index is taken as UTC
    close : price
    equity : account currency
    exposure : notional over equity, long positive
    cost : costs paid so far, account currency
    """
    time = utc_times(open_time)
    arrays = {"close": close, "equity": equity, "exposure": exposure, "cost": cost}
    price, value, held, paid = aligned("episode_figure", time.size, arrays)
    peak = np.maximum.accumulate(value)
    figure = Figure(figsize=(WIDTH_IN, 6.2), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(2.0, 1.4, 1.0))
    _shade_exposure(top, time, price, held)
    line(top, time, price, color=INK, linewidth=1.1)
    drawdown, cost_share = np.max(1.0 - value / peak), paid[-1] / value[0]
    finding = f"largest drawdown {100 * drawdown:.2f} %, costs {100 * cost_share:.2f} % of start"
    top.set_title(f"Equity {percent(value[-1] / value[0] - 1)}, {finding}")
    top.set_ylabel("Close [price]")
    kept = thin(value)
    middle.fill_between(time[kept], value[kept], peak[kept], label="drawdown", **UNDER_WATER)
    line(middle, time, value, color=BLUE, label="equity")
    middle.legend(loc="upper left", ncols=2)
    middle.set_ylabel("Equity\n[account currency]")
    line(bottom, time, paid, color=VERMILION)
    bottom.set_ylabel("Costs so far\n[account currency]")
    time_axis(bottom)
    figure.align_ylabels()
    return figure


def _shade_exposure(ax: Axes, time: TimeArray, price: FloatArray, held: FloatArray) -> None:
    reach = float(np.abs(held).max()) or 1.0
    pad = 0.08 * float(np.ptp(price)) or 1e-3 * float(price[0])
    bounds = (float(price.min()) - pad, float(price.max()) + 3 * pad)  # room for the legend
    start = np.arange(0, time.size, -(-time.size // _MAX_SHADES))
    mean = np.add.reduceat(held, start) / np.diff(np.append(start, time.size))
    step = np.median(np.diff(time)) if time.size > 1 else np.timedelta64(1, "h")
    edges = np.append(time[start], time[-1] + step)
    look: dict[str, Any] = {"cmap": EXPOSURE_MAP, "vmin": -reach, "vmax": reach, "zorder": 0.4}
    mesh = cast("Any", ax.pcolormesh(edges, bounds, mean[None, :], **look))
    mesh.sticky_edges.x.clear()  # leave the margin that a single point needs
    ax.set_ylim(bounds)
    sides = (("long", EXPOSURE_MAP(1.0)), ("short", EXPOSURE_MAP(0.0)))
    labels = [Patch(color=c, label=f"{side} (darkest: {reach:.2f} x equity)") for side, c in sides]
    ax.legend(handles=labels, loc="upper left", ncols=2, frameon=True, edgecolor="none")
