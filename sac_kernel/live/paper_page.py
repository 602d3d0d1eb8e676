"""The live page of a paper session: a chart and table of its journal, in one file that reloads itself."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sac_kernel.core import files, home_strings
from sac_kernel.core.plot_style import to_png
from sac_kernel.live.account_values import account_from_plain
from sac_kernel.market.records import COSTS
from sac_kernel.market.render import episode_figure
from sac_kernel.report.templates import filled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

REFRESH_S = 15.0
"""Seconds between two reloads in the browser, and least seconds between two writes of the page."""

_ROWS = 12
_PAGE = """<!DOCTYPE html>
<html lang="{{ t.LANGUAGE }}"><head><meta charset="utf-8"><meta http-equiv="refresh" content="{{ refresh_s }}">
<title>{{ title }}</title><style>:root{color-scheme:light dark}
body{max-width:1080px;margin:24px auto;padding:0 16px;font:16px/1.5 system-ui,sans-serif}
img{width:100%;background:#fff}table{border-collapse:collapse;width:100%;font-size:.88rem}
td,th{padding:4px 8px;text-align:right;border-bottom:1px solid #8884}td:last-child,th:last-child{text-align:left}
</style></head><body><h1>{{ title }}</h1><p>{{ account | join(" \u00b7 ") }}</p>
<img alt="{{ texts.PAPER_FIGURE }}" src="data:image/png;base64,{{ png }}">
<table><tr>{% for name in texts.PAPER_COLUMNS %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table><p>{{ texts.PAPER_KILL }}</p></body></html>
"""


def write_page(path: Path, lines: Sequence[Mapping[str, Any]], account: Sequence[str]) -> None:
    """Write the page of a journal.

    Parameters
    ----------
    lines : of the journal: its head, then at least one bar
    account : texts of the summary: equity, exposure, costs, drift, evidence for an edge
    """
    head, bars = lines[0], lines[1:]
    times = pd.DatetimeIndex([line["open_time_utc"] for line in bars])
    close, equity, exposure = (
        np.array(values)
        for values in zip(*((b["bar"][-1], b["equity"], b["exposure"]) for b in bars), strict=True)
    )
    figure = episode_figure(times, close, equity, exposure, costs(bars))
    page = filled(
        _PAGE,
        texts=home_strings,
        refresh_s=round(REFRESH_S),
        title=home_strings.PAPER_TITLE.format(instrument=head["instrument"], since=times[0]),
        account=account,
        png=base64.b64encode(to_png(figure)).decode("ascii"),
        rows=[_row(line) for line in reversed(bars[-_ROWS:])],
    )
    files.write_text(path, page)


def costs(bars: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """Return the costs paid so far at each bar, account currency, as of the last decision."""
    series, paid = np.zeros(len(bars)), 0.0
    for i, line in enumerate(bars):
        if "account" in line:
            account = account_from_plain(line["account"])
            paid = sum(getattr(account, f"{kind}_paid") for kind in COSTS)
        series[i] = paid
    return series


def _row(line: Mapping[str, Any]) -> tuple[str, ...]:
    why = line.get("why", {})
    beyond = [home_strings.NEVER_SEEN.format(name=name) for name in why.get("out_of_range", ())]
    reasons = [*([home_strings.HALTED] if line["halted"] else []), *why.get("limits", ()), *beyond]
    return (
        line["open_time_utc"][:16].replace("T", " "),
        f"{line['bar'][-1]:.5f}",
        f"{line['equity']:,.2f}",
        f"{line['exposure']:+.3f}",
        f"{line['target']:+.3f}" if "target" in line else "",
        "; ".join(reasons),
    )
