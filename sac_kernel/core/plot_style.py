"""The style of this package's figures, and helpers that draw them to pixels and PNG bytes.

Figures use the Agg canvas and one local style, never pyplot or the caller's settings, so equal input gives
equal pixels.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from matplotlib import dates, style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap

from sac_kernel.core import strings
from sac_kernel.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]
    TimeArray = NDArray[np.datetime64]

WIDTH_IN = 9.0

# Okabe & Ito 2008: distinct under every common form of colour blindness.
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY, INK, GREY = "#CC79A7", "#56B4E9", "#24292F", "#6A737B"

_STYLE: dict[str, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), "#9AA1A7"),
    **dict.fromkeys(("axes.titleweight", "figure.titleweight"), "bold"),
    **dict.fromkeys(("axes.titlesize", "figure.titlesize"), 10.5),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 8.5),
    **dict.fromkeys(("font.size", "axes.labelsize"), 9.0),
    **dict.fromkeys(("axes.linewidth", "grid.linewidth"), 0.7),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    **dict.fromkeys((f"figure.constrained_layout.{side}_pad" for side in "hw"), 0.08),
    "axes.titlelocation": "left",
    "grid.color": "#E2E5E8",
    "figure.dpi": 144,
}
styled = style.context(["default", _STYLE])
"""The style, as a context and as a decorator."""
EXPOSURE_MAP = LinearSegmentedColormap.from_list("exposure", ("#F4B183", "#FFFFFF", "#92C5E8"))
"""Short to long."""
UNDER_WATER: dict[str, Any] = {"color": VERMILION, "alpha": 0.22, "linewidth": 0}
"""How drawdowns are filled."""
_MAX_POINTS = 4000  # far above the pixels of a figure; Agg fails on paths of many 100,000 points


@styled
def to_rgb(figure: Figure) -> NDArray[np.uint8]:
    """Return the drawn figure as pixels, shape (height, width, 3)."""
    canvas = _canvas(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba(), np.uint8)[:, :, :3].copy()


@styled
def to_png(figure: Figure) -> bytes:
    """Return the drawn figure as PNG bytes without date or version: equal figures, equal bytes."""
    stream = io.BytesIO()
    _canvas(figure).print_png(stream, metadata={"Software": None})
    return stream.getvalue()


def refuse(where: str, required: str, found: str) -> None:
    """Raise DataError '<where> needs <required>, got <found>'."""
    msg = f"{where} needs {required}, got {found}"
    raise DataError(msg)


def aligned(where: str, n: int, arrays: Mapping[str, ArrayLike]) -> list[FloatArray]:
    """Return arrays of `n` values each, or raise DataError naming those that are not."""
    series = [np.asarray(values, np.float64) for values in arrays.values()]
    wrong = [f"{k} {v.shape}" for k, v in zip(arrays, series, strict=True) if v.shape != (n,) or not n]
    if wrong:
        refuse(where, f"one value for each of {n} times (at least 1)", ", ".join(wrong))
    return series


def utc_times(index: pd.DatetimeIndex) -> TimeArray:
    """Return an index as naive UTC times."""
    naive = index if index.tz is None else index.tz_convert("UTC").tz_localize(None)
    return naive.to_numpy().astype("datetime64[ns]")


def numbers(values: Sequence[float | None] | None) -> FloatArray:
    """Return values with None as NaN."""
    return np.array([np.nan if v is None else v for v in values or ()], np.float64)


def percent(fraction: float) -> str:
    """Return a fraction as '+1.23 %'."""
    return f"{100 * fraction:+.2f} %"


def thin(values: FloatArray) -> NDArray[np.int64]:
    """Return the indices to draw: in a long series, the minimum and maximum of each slice."""
    n = values.size
    if n <= _MAX_POINTS:
        return np.arange(n)
    width = -(-2 * n // _MAX_POINTS)
    whole = n // width * width
    slices, start = values[:whole].reshape(-1, width), np.arange(0, whole, width)
    extremes = (start + slices.argmin(1), start + slices.argmax(1))
    kept: NDArray[np.int64] = np.unique(np.concatenate((*extremes, [0], np.arange(whole, n))))
    return kept


def line(ax: Axes, time: NDArray[Any], values: FloatArray, **look: Any) -> None:  # noqa: ANN401
    """Draw a series, thinned; a single value is a dot."""
    kept, marker = thin(values), "o" if values.size == 1 else ""
    ax.plot(time[kept], values[kept], marker=marker, markersize=4, **look)


def time_axis(ax: Axes) -> None:
    """Label the x axis with UTC times."""
    api = cast("Any", dates)  # without types
    locator = api.AutoDateLocator(maxticks=9)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(api.ConciseDateFormatter(locator))
    ax.set_xlabel(strings.TIME_UTC)
    ax.margins(x=0.01)


class MarketTime:
    """An x axis that counts the bars of several series, so that weekends and other holes take no room."""

    def __init__(self, series: Sequence[TimeArray]) -> None:
        self._grid = np.unique(np.concatenate(series))

    def x(self, time: TimeArray) -> NDArray[np.int64]:
        """Return the places of times that are on the axis."""
        return np.searchsorted(self._grid, time)

    def label(self, ax: Axes, most: int = 8) -> None:
        """Label the x axis with the first bar of about `most` evenly spaced days."""
        day = self._grid.astype("datetime64[D]")
        starts = np.flatnonzero(np.diff(day, prepend=day[0] - 1).astype(int))
        chosen = starts[:: max(1, -(-starts.size // most))]
        years = len({text[:4] for text in day[[0, -1]].astype(str)}) > 1
        ax.set_xticks(chosen, [str(d) if years else str(d)[5:] for d in day[chosen]])
        ax.set_xlabel(strings.DAY_UTC if years else strings.DAY_OF_YEAR_UTC.format(year=str(day[0])[:4]))
        ax.margins(x=0.01)


def _canvas(figure: Figure) -> Any:  # noqa: ANN401  # its methods carry no types
    """Return a figure's canvas with its layout frozen: a second layout pass would move it by a pixel."""
    canvas = FigureCanvasAgg(figure)
    if engine := figure.get_layout_engine():
        engine.execute(figure)
    figure.set_layout_engine("none")
    return canvas
