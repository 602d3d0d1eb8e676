"""The live page of a paper session: its journal in one file that reloads itself and says when it is out of date."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from sac_kernel.core import files, home_strings, strings
from sac_kernel.core.plot_style import to_png
from sac_kernel.live.account_values import account_from_plain
from sac_kernel.live.next_opens import next_opens
from sac_kernel.market.records import COSTS
from sac_kernel.market.render import episode_figure
from sac_kernel.report.templates import filled
from sac_kernel.stats import evidence

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from sac_kernel.prices.instruments import InstrumentSpec
    from sac_kernel.stats.evidence import Evidence

    Line = Mapping[str, Any]

REFRESH_S = 15.0
"""Seconds between two reloads in the browser, and least seconds between two writes of the page."""

_ROWS, _FILLS = 12, 8
_GRACE_S = 120  # after the close of a bar, before it counts as missing
_PHONE_IN = (4.6, 6.6)
# The script reads nothing but times; its words are attributes, which the template escapes.
_PAGE = """<!DOCTYPE html>
<html lang="{{ t.LANGUAGE }}"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{{ refresh_s }}">
<title>{{ title }}</title><style>{% include "css" %}
.alert{border-left:6px solid var(--none);background:var(--band);padding:10px 14px;margin:14px 0;font-weight:650}
dl.now{grid-template-columns:repeat(auto-fill,minmax(220px,1fr));gap:10px 20px;margin:18px 0 24px}
.now dd{font-size:1.25rem;font-weight:650;line-height:1.3;font-variant-numeric:tabular-nums}
.now dd small{display:block;font-size:.82rem;font-weight:400;color:var(--soft)}
@media (max-width:640px){dl.now{grid-template-columns:1fr}
.now div{display:grid;grid-template-columns:6.4em 1fr;gap:12px}
.now dd{font-size:1.05rem}h2{margin-top:28px}table{font-size:.76rem}th,td,tr>:last-child{padding:6px 4px}
td+td{white-space:normal}}
.why td{border-top:0;padding-top:0;white-space:normal;color:var(--soft)}
</style></head>
<body><header><h1>{{ title }}</h1></header><main>
{% for text in alerts %}
<p class="alert" role="alert">{{ text }}</p>
{% endfor %}
{% if due_s %}
<p class="alert" role="alert" id="late" data-due-s="{{ due_s }}" hidden>{{ late }}</p>
{% endif %}
<dl class="now">
{% for name, value, notes in figures %}
<div><dt>{{ name }}</dt><dd>{{ value }}{% for note in notes %}<small>{{ note }}</small>{% endfor %}</dd></div>
{% endfor %}
<div><dt>{{ texts.PAPER_DATA }}</dt><dd>{{ closed }}
{% if due_s %}
<small id="age" data-closed-s="{{ closed_s }}" data-minutes="{{ texts.PAPER_MINUTES }}"
data-hours="{{ texts.PAPER_HOURS }}" data-days="{{ texts.PAPER_DAYS }}"></small>
{% else %}
<small>{{ texts.PAPER_REPLAY }}</small>
{% endif %}
</dd></div>
</dl>
<figure><picture><source media="(max-width:640px)" srcset="data:image/png;base64,{{ narrow }}">
<img alt="{{ texts.PAPER_FIGURE }}" src="data:image/png;base64,{{ wide }}"></picture></figure>
{% for heading, columns, rows, nothing in tables %}
<h2>{{ heading }}</h2>
{% if rows %}
<div class="box" tabindex="0"><table>
<thead><tr>{% for name in columns %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
{% for row, why in rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% if why %}
<tr class="why"><td colspan="{{ columns | length }}">{{ why }}</td></tr>
{% endif %}
{% endfor %}
</table></div>
{% else %}
<p>{{ nothing }}</p>
{% endif %}
{% endfor %}
</main><footer><p>{{ texts.PAPER_KILL }}</p></footer>
{% if due_s %}
<script>
const age=document.getElementById("age"),late=document.getElementById("late")
function show(){const now=Date.now()/1000,m=Math.max(0,Math.floor((now-age.dataset.closedS)/60))
const unit=m<120?"minutes":m<2880?"hours":"days",n=m<120?m:Math.floor(m/(m<2880?60:1440))
age.textContent=age.dataset[unit].replace("{n}",n);late.hidden=now<late.dataset.dueS}
show();setInterval(show,5000)
</script>
{% endif %}
</body></html>
"""


class Standing(NamedTuple):
    """What the page shows beside the journal.

    Attributes
    ----------
    evidence : for an edge, of the account's complete days
    drift : result of the drift check, or the days seen so far
    bar_seconds, spec : of the traded instrument
    live : whether bars are still to come; a replay has no age
    """

    evidence: Evidence
    drift: str
    bar_seconds: int
    spec: InstrumentSpec
    live: bool


def write_page(path: Path, lines: Sequence[Line], standing: Standing) -> None:
    """Write the page of a journal.

    Parameters
    ----------
    lines : of the journal: its head, then at least one bar
    """
    head, bars = lines[0], lines[1:]
    times = pd.DatetimeIndex([line["open_time_utc"] for line in bars])
    close, equity, exposure = (
        np.array(values)
        for values in zip(*((b["bar"][-1], b["equity"], b["exposure"]) for b in bars), strict=True)
    )
    wide, narrow = (episode_figure(times, close, equity, exposure, costs(bars)) for _ in range(2))
    closed_s = int(times[-1].timestamp()) + standing.bar_seconds
    due_s = due(closed_s, standing.bar_seconds, standing.spec) if standing.live else 0
    t = home_strings
    page = filled(
        _PAGE,
        texts=t,
        refresh_s=round(REFRESH_S),
        title=t.PAPER_TITLE.format(instrument=head["instrument"], since=times[0]),
        alerts=[t.PAPER_HALTED] if bars[-1]["halted"] else [],
        late=t.PAPER_LATE.format(due=_utc(due_s)),
        due_s=due_s,
        closed=_utc(closed_s),
        closed_s=closed_s,
        figures=figures(bars, float(head.get("start_equity", equity[0])), standing),
        wide=base64.b64encode(to_png(wide)).decode("ascii"),
        narrow=base64.b64encode(to_png(_for_a_phone(narrow))).decode("ascii"),
        tables=[
            (t.PAPER_FILLS, t.PAPER_FILL_COLUMNS, last_fills(bars), t.PAPER_NO_FILL),
            (t.PAPER_BARS, t.PAPER_COLUMNS, [_row(line) for line in reversed(bars[-_ROWS:])], ""),
        ],
    )
    files.write_text(path, page)


def due(closed_s: int, bar_seconds: int, spec: InstrumentSpec) -> int:
    """Return when the bar after one that closed at `closed_s` is late, by the calendar, Unix seconds."""
    return int(next_opens(closed_s, 1, bar_seconds, spec)[0]) + bar_seconds + _GRACE_S


def figures(
    bars: Sequence[Line], start_equity: float, standing: Standing
) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return the account's figures: name, value and notes of each."""
    t, last = home_strings, bars[-1]
    equity = np.array([start_equity, *(line["equity"] for line in bars)])
    drawdown = float(np.max(1.0 - equity / np.maximum.accumulate(equity)))
    units, profit, found = last.get("units"), last.get("open_profit"), standing.evidence
    side = t.PAPER_SIDES[int(np.sign(last["exposure"]))]
    made = [fill for line in bars for fill in line.get("fills", ())]
    paid, assumed = (sum(fill[name] for fill in made) for name in ("cost", "assumed"))
    return [
        (
            t.PAPER_EQUITY,
            f"{equity[-1]:,.2f}",
            (
                t.PAPER_RETURN.format(
                    change=100.0 * (equity[-1] / start_equity - 1.0), drawdown=100.0 * drawdown
                ),
            ),
        ),
        (
            t.PAPER_POSITION,
            side.format(abs(last["exposure"])),
            () if not units else (t.PAPER_UNITS.format(units=units),),
        ),
        (t.PAPER_OPEN_PROFIT, t.PAPER_UNKNOWN if profit is None else f"{profit:+,.2f}", ()),
        (
            t.PAPER_COSTS,
            f"{costs(bars)[-1]:,.2f}",
            (t.PAPER_ASSUMED.format(n=len(made), paid=paid, assumed=assumed),) if made else (),
        ),
        (
            t.PAPER_EVIDENCE,
            f"e = {found.now:.2f}",
            (t.PAPER_ASKED.format(asked=evidence.ASKED_FOR, days=found.days, highest=found.highest),),
        ),
        (t.PAPER_DRIFT, standing.drift, ()),
    ]


def last_fills(bars: Sequence[Line]) -> list[tuple[tuple[str, ...], str]]:
    """Return the newest fills as cells: time, place, side and size, price, cost, position after it."""
    made = [(line["open_time_utc"], fill) for line in bars for fill in line.get("fills", ())]
    return [
        (
            (
                _short(time),
                strings.FILL_PLACES[fill["place"]],
                f"{strings.BUY if fill['units'] > 0 else strings.SELL} {abs(fill['units']):,.0f}",
                f"{fill['price']:.5f}",
                f"{fill['cost']:,.2f}",
                f"{fill['position']:+,.0f}" if fill["position"] else "0",
            ),
            "",
        )
        for time, fill in reversed(made[-_FILLS:])
    ]


def costs(bars: Sequence[Line]) -> NDArray[np.float64]:
    """Return the costs paid so far at each bar, account currency; of older journals, as of the last decision."""
    series, paid = np.zeros(len(bars)), 0.0
    for i, line in enumerate(bars):
        if "costs" in line:
            paid = line["costs"]
        elif "account" in line:
            account = account_from_plain(line["account"])
            paid = sum(getattr(account, f"{kind}_paid") for kind in COSTS)
        series[i] = paid
    return series


def _for_a_phone(figure: Figure) -> Figure:
    """Return the figure for a narrow screen, its title left to the figures beside it."""
    figure.set_size_inches(*_PHONE_IN)
    figure.axes[0].set_title("", loc="left")
    for axes in figure.axes:
        legend = axes.get_legend()
        for text in legend.get_texts() if legend is not None else ():
            text.set_text(text.get_text().partition(" (")[0])
    return figure


def _row(line: Line) -> tuple[tuple[str, ...], str]:
    """Return the cells of a bar, and why its decision is what it is."""
    why = line.get("why", {})
    beyond = [home_strings.NEVER_SEEN.format(name=name) for name in why.get("out_of_range", ())]
    reasons = [*([home_strings.HALTED] if line["halted"] else []), *why.get("limits", ()), *beyond]
    cells = (
        _short(line["open_time_utc"]),
        f"{line['bar'][-1]:.5f}",
        f"{line['equity']:,.2f}",
        f"{line['exposure']:+.3f}",
        f"{line['target']:+.3f}" if "target" in line else "",
    )
    return cells, "; ".join(reasons)


def _short(time: str) -> str:
    """Return month, day and minute: the year stands above the tables."""
    return time[5:16].replace("T", " ")


def _utc(seconds: int) -> str:
    return f"{pd.Timestamp(seconds, unit='s'):%Y-%m-%d %H:%M} UTC"
