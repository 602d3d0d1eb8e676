"""Equity, and price with fills, as one page to hover and zoom: equity.html, where plotly is installed."""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sac_kernel.core import files, strings
from sac_kernel.core.plot_style import BLUE, GREEN, INK, VERMILION, thin

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sac_kernel.backtest.runner import EpisodeResult

logger = logging.getLogger(__name__)


def write_page(path: Path, results: Sequence[EpisodeResult], fills: pd.DataFrame) -> bool:
    """Write a self-contained page; return whether it was written.

    Parameters
    ----------
    results : passes on the same bars, the agent first
    fills : of the first (`backtest.trades.fills_table`)
    """
    if importlib.util.find_spec("plotly") is None:
        logger.info("%s", strings.NO_PLOTLY)
        return False
    from plotly import graph_objects, subplots

    figure = subplots.make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.06)
    for i, result in enumerate(results):
        percent = 100.0 * result.equity / result.start_equity
        kept, look = thin(percent), {"color": BLUE, "width": 2} if i == 0 else {"width": 1}
        figure.add_scatter(
            x=_texts(result.open_time_utc[kept]),
            y=percent[kept].round(4),
            name=result.name,
            line=look,
            row=1,
            col=1,
        )
    agent = results[0]
    kept = thin(agent.close)
    figure.add_scatter(
        x=_texts(agent.open_time_utc[kept]), y=agent.close[kept], name=strings.CLOSE, line={"color": INK, "width": 1},
        row=2, col=1,
    )  # fmt: skip
    for side, symbol, color in (
        (strings.BUY, "triangle-up", GREEN),
        (strings.SELL, "triangle-down", VERMILION),
    ):
        own = fills[fills["side"] == side]
        kind = graph_objects.Scatter if len(own) <= _SVG_FILLS else graph_objects.Scattergl
        figure.add_trace(
            kind(
                x=own["time_utc"].str[:16], y=own["price"], mode="markers", name=side,
                customdata=own[["size_units", "cost_ccy", "profit_ccy"]].to_numpy(), hovertemplate=strings.FILL_HOVER,
                marker={"symbol": symbol, "color": color, "size": 8},
            ), row=2, col=1,
        )  # fmt: skip
    gaps = _gaps(agent.open_time_utc)
    figure.update_xaxes(rangebreaks=gaps, gridcolor="#E2E5E8")
    figure.update_yaxes(title_text=strings.EQUITY_AXIS, row=1, col=1)
    figure.update_yaxes(title_text=strings.CLOSE, row=2, col=1)
    figure.update_layout(
        template="plotly_white", legend={"orientation": "h", "y": -0.08}, hovermode="x unified",
        margin={"l": 50, "r": 10, "t": 40, "b": 40},
    )  # fmt: skip
    body = figure.to_html(
        full_html=False,
        include_plotlyjs=True,
        div_id="equity",
        default_height="94vh",
        config={"responsive": True, "displaylogo": False},
    )
    files.write_text(path, _HEAD + body + "</body></html>\n")
    return True


_SVG_FILLS = 5_000  # up to so many are drawn without WebGL, which not every browser has
_HEAD = (
    f'<!DOCTYPE html>\n<html lang="{strings.LANGUAGE}"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>{strings.FIGURES['equity']}</title><style>:root{{color-scheme:light dark}}body{{margin:0}}"
    "@media (prefers-color-scheme:dark){body{background:#171717}#equity{filter:invert(.91) hue-rotate(180deg)}}"
    "</style></head><body>"
)


def _texts(times: pd.DatetimeIndex) -> list[str]:
    return list(times.strftime("%Y-%m-%d %H:%M"))


def _gaps(times: pd.DatetimeIndex) -> list[dict[str, list[str]]]:
    """Return the holes of a day and more between bars, to be left out of the axis."""
    step = np.diff(times.to_numpy()).astype("timedelta64[s]").astype(np.int64)
    usual = int(np.median(step)) if step.size else 0
    return [
        {"bounds": [str(times[i] + pd.Timedelta(seconds=usual))[:19], str(times[i + 1])[:19]]}
        for i in np.flatnonzero(step >= max(86_400, 2 * usual))
    ]
