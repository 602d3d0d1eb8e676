"""The verdict as one page: a self-contained `report.html`, its figures, tables for other places.

Plain values in, text out; nothing is computed here but units. The page needs no script and no
network, and equal input gives equal bytes.
"""

from __future__ import annotations

import base64
import html
import itertools
import math
import re
from typing import TYPE_CHECKING, Any

import pandas as pd

from sac_kernel.core import files
from sac_kernel.core.errors import DataError
from sac_kernel.report import plots

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    Row = Mapping[str, Any]

TIERS = {
    "raw": "raw costs: an account as cheap as they come",
    "base": "base costs: the headline",
    "retail": "retail costs: an expensive retail account",
}
"""All three are always shown; a tier without a row says so."""

VERDICTS = {
    "edge": """On bars that the agent never saw, after costs, its result passed every mark of the
rule that was fixed before the test.|That the agent will earn money: this is one market, one period
and a model of costs, and an edge can end.""",
    "not shown": """On these bars the result cannot be told from chance: not all marks fixed before
the test were passed.|That no edge exists, or that one does: more bars could decide.""",
    "none": """After costs this agent has no edge on these bars.|That no agent or market has one.
Still, nothing here is a reason to trade this one.""",
}
"""Verdict word -> what it means | what it does not mean."""

AGENT = "agent"
"""A policy whose name starts with this is the agent: its rows are emphasised."""

DATA_FIGURES = ("bars", "features")
"""Figures of the data section; all others follow the results in the order given."""

_TITLES = {
    "equity": "Equity over the test period",
    "exposure": "What the agent held",
    "seeds": "Over the seeds",
    **{f"seeds-agent-{i}": f"Over the seeds: agent {i}" for i in (1, 2, 3)},
    "folds": "Folds",
    "random": "Against random policies",
    "costs": "Costs",
    "inputs": "What moves the agent",
    "policy": "What it does",
    "drift": "Drift since training",
    "training": "Training",
    "bars": "The bars",
    "features": "What the agent sees",
}
_INTERVAL = "95 % interval of annual return [%]"
# key, scale, decimals, column of the page and the notebook, column of the terminal
_COLUMNS = (
    ("net_return_frac", 100.0, 2, "Net return [%]", "net %"),
    ("annual_return_frac", 100.0, 2, "Annual return [%]", "annual %"),
    ("", 100.0, 2, _INTERVAL, "95 % interval"),
    ("sharpe_ann", 1.0, 2, "Sharpe (ann.)", "Sharpe"),
    ("max_drawdown_frac", 100.0, 2, "Max. drawdown [%]", "max DD %"),
    ("turnover_per_day", 1.0, 2, "Turnover [x equity / day]", "turn/day"),
    ("cost_frac", 100.0, 2, "Costs [% of start]", "costs %"),
    ("trades", 1.0, 0, "Trades", "trades"),
)
_FACTS = {
    "bar_seconds": "Bar [s]",
    "env_steps": "Environment steps",
    "updates_per_s": "Updates [1 / s]",
    "env_steps_per_s": "Environment steps [1 / s]",
    "utd_ratio": "Updates per environment step",
    "train_s": "Training time [s]",
    "sac_config": "Agent settings",
    "env_config": "Environment settings",
    **{key: title for key, _, _, title, _ in _COLUMNS if key},
}
_PLAIN = ("agent_id", "seed")  # numbers that are names: no separators
_DASH = '<span class="absent" title="no value">\u2013</span>'
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_MINUS = re.compile(r"(?<!\w)-(?=\d)")  # before a number, not inside a date or a word
_MAX_WIDTH = 100
_LINE = 40  # characters; a longer text in a table may break
_SHORT = 6  # values; a longer mapping is folded

_TOP = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
"""
_CSS = """
:root{color-scheme:light dark;--page:#fff;--ink:#1f2328;--soft:#59636e;--line:#d8dee4;
--band:#f5f7f9;--own:#e8f2fb;--edge:#00795a;--wait:#8a5a00;--none:#b34700}
@media (prefers-color-scheme:dark){:root{--page:#14181d;--ink:#e3e8ed;--soft:#9aa6b2;--line:#343c45;
--band:#1b2128;--own:#16304a;--edge:#4cc9a0;--wait:#e8b44c;--none:#f08a4b}
figure img{filter:invert(.91) hue-rotate(180deg)}}*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);overflow-wrap:break-word;
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
header,main,footer{max-width:1120px;margin:0 auto;padding:0 20px}header{padding-top:36px}
footer{padding:28px 20px 40px}h1{font-size:.95rem;font-weight:600;color:var(--soft);margin:0 0 12px}
h2{font-size:1.25rem;margin:44px 0 10px}h3{font-size:1rem;margin:26px 0 8px}
.verdict{border-left:6px solid var(--tone);padding:2px 0 2px 18px}
.edge{--tone:var(--edge)}.not-shown{--tone:var(--wait)}.none{--tone:var(--none)}
.word{color:var(--tone);font-weight:700;text-transform:uppercase;font-size:.85rem;margin:0}
.said{font-size:clamp(1.3rem,1rem + 1.6vw,1.9rem);font-weight:650;line-height:1.25;margin:6px 0}
.soft,.absent,figcaption,footer{color:var(--soft);font-size:.88rem}
.box{overflow-x:auto;border:1px solid var(--line);border-radius:8px}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:.86rem}
table{font-variant-numeric:tabular-nums}
th,td{padding:7px 10px;text-align:left;vertical-align:bottom;border-top:1px solid var(--line)}
thead th{border-top:0;font-weight:600;color:var(--soft);line-height:1.3}.n{text-align:right}
tr>:last-child{padding-right:16px}
tbody th{font-weight:400}tbody th,td{white-space:nowrap}td.long{white-space:normal;min-width:12em}
.tier th{background:var(--band);color:var(--soft);font-weight:600}
.tier span{position:sticky;left:8px}.own th,.own td{background:var(--own);font-weight:650}
figure{margin:0}figcaption{margin-top:8px}
figure img{display:block;width:100%;height:auto;border-radius:8px}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(235px,1fr));gap:2px 28px;margin:0}
dl div{border-bottom:1px solid var(--line);padding:6px 0;min-width:0}
dt,summary{color:var(--soft);font-size:.8rem}dd{margin:0;overflow-wrap:anywhere}
ul{padding-left:1.2em}.marks{list-style:none;padding:0;margin:10px 0;font-size:.92rem}
.marks b{font-size:.8rem;margin-right:6px}.marks .yes b{color:var(--edge)}.marks .no b{color:var(--none)}
summary{padding:8px 0}
pre{background:var(--band);border:1px solid var(--line);border-radius:8px;padding:14px;margin:0}
pre{overflow-x:auto}code{font:.88em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
@media (max-width:900px){.results tbody th{position:sticky;left:0;background:var(--page)}
.results tbody th{white-space:normal;min-width:9.5em}.results .own th{background:var(--own)}
.results .tier th{background:var(--band)}th,td{padding:6px 6px}
.results{font-size:.8rem}}
@media (max-width:640px){.results tbody th{min-width:6.8em}figure img{width:700px;max-width:none}
header{padding-top:22px}}
@media print{figure img{filter:none}.box{overflow:visible}}
"""


def write_report(folder: Path, summary: Mapping[str, Any], figures: Mapping[str, Figure]) -> Path:
    """Write `figures/<name>.png` of each figure, then `report.html`; return the page's path.

    Parameters
    ----------
    folder : where to write; made if absent
    summary : plain values, None where there is no value. `verdict` (word, sentence, notes) is
        required; `table` (see `results_table`), `data`, `run`, `random` (percentile in [0, 1],
        draws), `months`, `tables`, `stress`, `drift` (see `report_sections`), `training` (job -> findings of
        `training_health`), `files`, `jobs`, `next_command`,
        `title`, `captions` (by figure) may be absent; the verdict may have `marks`
    figures : by name, in the page's order, but for those in `DATA_FIGURES`

    Raises
    ------
    DataError
        If the verdict is unknown, a row lacks policy or tier, or a figure's name is no file name.
    """
    wrong = [name for name in figures if not _NAME.fullmatch(name)]
    if wrong:
        msg = f"report: figure names of A-Z, a-z, 0-9, - and _ required, found {wrong[:3]}; rename"
        raise DataError(msg)
    pictures = {name: plots.to_png(figure) for name, figure in figures.items()}
    page = _page(summary, pictures)
    for name, content in pictures.items():
        files.write_bytes(folder / "figures" / f"{name}.png", content)
    path = folder / "report.html"
    files.write_text(path, page)
    return path


def results_table(rows: Iterable[Row]) -> pd.DataFrame:
    """Return the results with units in the column names, tiers in the order raw, base, retail.

    Parameters
    ----------
    rows : each with policy, tier, net_return_frac, annual_return_frac, low_frac and high_frac (95 %
        interval of the annual return), sharpe_ann, max_drawdown_frac, turnover_per_day, cost_frac,
        trades; an absent value, None or NaN is an empty cell
    """
    ordered = [row for group in _by_tier(rows).values() for row in group]
    columns: dict[str, Any] = {
        "Policy": [str(row["policy"]) for row in ordered],
        "Tier": [str(row["tier"]) for row in ordered],
    }
    for key, scale, decimals, title, _ in _COLUMNS:
        if title == _INTERVAL:
            columns[title] = [_interval(row) or "" for row in ordered]
            continue
        numbers = [_finite(row.get(key)) for row in ordered]
        rounded = [math.nan if x is None else round(scale * x, decimals) for x in numbers]
        columns[title] = pd.Series(rounded, dtype="Int64" if decimals == 0 else "float64")
    return pd.DataFrame(columns)


def text_table(rows: Iterable[Row]) -> str:
    """Return the results as aligned plain text, one block a tier, at most 100 columns wide."""
    head = ["policy", *(short for *_, short in _COLUMNS)]
    blocks = {tier: [_cells(row) for row in group] for tier, group in _by_tier(rows).items()}
    lines = [head, *itertools.chain.from_iterable(blocks.values())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    widths[0] = min(widths[0], _MAX_WIDTH - sum(widths[1:]) - len(_COLUMNS))
    texts = []
    for tier, block in blocks.items():
        body = [_aligned(cells, widths) for cells in (head, *block)] if block else ["not run"]
        texts.append("\n".join((TIERS.get(tier, f"{tier} costs"), *body)))
    return "\n\n".join(texts) + "\n"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    name = cells[0] if len(cells[0]) <= widths[0] else cells[0][: widths[0] - 3] + "..."
    numbers = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return " ".join((name.ljust(widths[0]), *numbers))


def _cells(row: Row, missing: str = "-") -> list[str]:
    """Return the policy and the text of each column."""
    texts = (
        _interval(row) if title == _INTERVAL else _number(row.get(key), scale, decimals)
        for key, scale, decimals, title, _ in _COLUMNS
    )
    return [str(row["policy"]), *(text or missing for text in texts)]


def _by_tier(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the rows by tier, raw, base, retail first and always there; the order within is kept."""
    groups: dict[str, list[Row]] = {tier: [] for tier in TIERS}
    for i, row in enumerate(rows):
        if row.get("policy") is None or row.get("tier") is None:
            msg = f"report: policy and tier required in every row, found {sorted(row)} in row {i}"
            raise DataError(msg + "; add them")
        groups.setdefault(str(row["tier"]), []).append(row)
    return groups


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        value = getattr(value, "item", lambda: None)()  # a NumPy scalar, or nothing that counts
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


def _number(value: object, scale: float = 1.0, decimals: int = 2) -> str | None:
    """Return digits with thousands separators, None where there is no finite number."""
    number = _finite(value)
    return None if number is None else f"{round(scale * number, decimals) + 0.0:,.{decimals}f}"


def _interval(row: Row) -> str | None:
    low, high = _number(row.get("low_frac"), 100.0), _number(row.get("high_frac"), 100.0)
    return None if low is None or high is None else f"{low} to {high}"


def _page(summary: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    title = _text(summary.get("title") or "Does this agent have an edge after costs?")
    captions = summary.get("captions") or {}
    shown = {n: _figure(n, png, captions.get(n)) for n, png in pictures.items()}
    chance = _chance(summary.get("random") or {})
    texts = {
        "random": chance,
        "equity": _months(summary.get("months") or {}),
        "costs": _stress(summary.get("stress") or ()),
        "drift": _drift(summary.get("drift") or {}),
        "training": _training(summary.get("training")),
    }
    sections = [_results(summary.get("table") or ())]
    tables = {table["title"]: _table(table) for table in summary.get("tables") or ()}
    sections += [_section(name, tables.pop(name)) for name in ("Agents",) if name in tables]
    for name, picture in shown.items():
        if name not in DATA_FIGURES:
            body = picture + texts.pop(name, "") + tables.pop(_TITLES.get(name, name), "")
            sections.append(_section(_TITLES.get(name, name), body))
    sections += [_section(_TITLES[name], text) for name, text in texts.items()]
    sections += [_section(title, text) for title, text in tables.items()]
    parts = (f"<h3>{_text(_TITLES[n])}</h3>{shown[n]}" for n in DATA_FIGURES if n in shown)
    sections.append(_section("Data", _data(summary.get("data") or {}) + "".join(parts)))
    sections.append(_section("Run", _facts(summary.get("run") or {}) + _jobs(summary.get("jobs"))))
    sections.append(_section("Files", _files(summary.get("files") or ())))
    again = _text(summary.get("next_command") or "")
    sections.append(_section("How to run it again", again and f"<pre><code>{again}</code></pre>"))
    return (
        f"{_TOP}<title>{title}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        f"<header><h1>{title}</h1>{_verdict(summary)}</header>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n<footer><p>Simulated on past bars with modelled costs. No advice.</p>"
        "</footer>\n</body>\n</html>\n"
    )


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


def _signed(number: str) -> str:
    """Return a number with a true minus sign, for the page."""
    return _text(_MINUS.sub("\u2212", number))


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{_text(title)}</h2>\n{body}\n</section>" if body else ""


def _verdict(summary: Mapping[str, Any]) -> str:
    verdict = summary.get("verdict") or {}
    word = verdict.get("word")
    if word not in VERDICTS:
        msg = f"report: a verdict of {', '.join(VERDICTS)} required, found {word!r}; check the rule"
        raise DataError(msg)
    means, not_means = VERDICTS[word].replace("\n", " ").split("|")
    tone = word.replace(" ", "-")
    notes = "".join(f"<li>{_text(note)}</li>" for note in verdict.get("notes") or ())
    said, part, rest = str(verdict.get("sentence") or "").partition("Not passed:")
    said, rest = (
        said.strip(),
        f"{part}{rest}" if part and not verdict.get("marks") else "",
    )  # the marks say it
    return (
        f'<div class="verdict {tone}">\n<p class="word">Verdict: {_text(word)}</p>\n'
        f'<p class="said">{_text(said)}</p>\n'
        f"{f'<p>{_text(rest)}</p>' if rest else ''}"
        f"{_traded(summary.get('data') or {})}"
        f"{_headline(summary.get('table') or ())}"
        f"{_marks(verdict.get('marks') or ())}"
        f"<p><strong>What it means.</strong> {_text(means)}</p>\n"
        f"<p><strong>What it does not mean.</strong> {_text(not_means)}</p>\n</div>\n"
        + (f"<ul>{notes}</ul>" if notes else "")
    )


def _traded(data: Mapping[str, Any]) -> str:
    return f"<p>Traded: <strong>{_text(data['traded'])}</strong>.</p>\n" if data.get("traded") else ""


def _headline(rows: Iterable[Row]) -> str:
    own = next((row for row in rows if row.get("tier") == "base" and _is_agent(row)), None)
    if own is None:
        return ""
    annual, interval = _number(own.get("annual_return_frac"), 100.0), _interval(own)
    value = f"{_signed(annual)}&nbsp;% a year" if annual else "no annual return"
    spread = f"interval {_signed(interval)}&nbsp;%" if interval else "interval unknown: few days"
    return f"<p>After base costs: <strong>{value}</strong>, 95&nbsp;% {spread}.</p>\n"


def _marks(marks: Iterable[Row]) -> str:
    """Return the conditions of the rule as a list, each with its figures."""
    signs = {
        True: ("yes", "\u2713 passed"),
        False: ("no", "\u2717 not passed"),
        None: ("open", "not looked at"),
    }
    items = ""
    for mark in marks:
        kind, text = signs[mark["passed"]]
        found = _signed(str(mark["found"]))
        items += f'<li class="{kind}"><b>{text}</b> {_text(mark["name"])}: <span class="soft">{found}</span></li>\n'
    return f'<ul class="marks">\n{items}</ul>\n' if items else ""


def _is_agent(row: Row) -> bool:
    return str(row.get("policy", "")).casefold().startswith(AGENT)


def _results(rows: Iterable[Row]) -> str:
    width, body = len(_COLUMNS) + 1, ""
    missing = f'<tr><td colspan="{width}" class="soft">not run</td></tr>\n'
    for tier, group in _by_tier(rows).items():
        name = f"<span>{_text(TIERS.get(tier, f'{tier} costs'))}</span>"
        title = f'<th scope="rowgroup" colspan="{width}">{name}</th>'
        body += f'<tbody>\n<tr class="tier">{title}</tr>\n'
        body += ("".join(map(_row, group)) or missing) + "</tbody>\n"
    head = _head(["Policy"], [title for *_, title, _ in _COLUMNS])
    note = '<p class="soft">Every result is after the costs of its tier; the test split only.</p>'
    return _section("Results", note + _box(head + body, "results"))


def _row(row: Row) -> str:
    name, *values = _cells(row, missing="")
    own = ' class="own"' if _is_agent(row) else ""
    return f'<tr{own}><th scope="row">{_text(name)}</th>{"".join(map(_number_cell, values))}</tr>\n'


def _number_cell(value: str | None) -> str:
    return f'<td class="n">{_signed(value) if value else _DASH}</td>'


def _head(texts: Iterable[str], numbers: Iterable[str]) -> str:
    cells = "".join(f'<th scope="col">{_text(text)}</th>' for text in texts)
    cells += "".join(f'<th scope="col" class="n">{_text(text)}</th>' for text in numbers)
    return f"<thead><tr>{cells}</tr></thead>\n"


def _box(table: str, kind: str = "facts") -> str:
    """Return a table in a box that scrolls by itself, also by keyboard."""
    return f'<div class="box" tabindex="0"><table class="{kind}">\n{table}</table></div>\n'


def _figure(name: str, png: bytes, caption: object) -> str:
    title = _TITLES.get(name, name)
    width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))
    source = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    alt = f"{title}: {caption}" if caption else title
    below = f"<figcaption>{_text(caption)}</figcaption>" if caption else ""
    return (
        f'<figure><div class="box" tabindex="0"><img src="{source}" width="{width}" '
        f'height="{height}" alt="{_text(alt)}"></div>{below}</figure>\n'
    )


def _chance(random: Mapping[str, Any]) -> str:
    share, draws = _number(random.get("percentile"), 100.0, 0), _number(random.get("draws"), 1.0, 0)
    if share is None or draws is None:
        return ""
    return (
        f"<p>The agent's net return is above that of <strong>{share} %</strong> of {draws} random "
        "policies with the same turnover. Luck alone gives 50 % on average.</p>\n"
    )


_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _months(months: Mapping[str, Sequence[float | None]]) -> str:
    """Return net returns by month, the year in the last column."""
    body = ""
    for year, values in months.items():
        cells = "".join(map(_number_cell, (_number(value, 100.0) for value in values)))
        body += f'<tr><th scope="row">{_text(year)}</th>{cells}</tr>\n'
    head = _head(["Net return [%]"], [*_MONTHS, "Year"])
    return f"<h3>Month by month</h3>{_box(f'{head}<tbody>{body}</tbody>')}" if body else ""


def _table(table: Mapping[str, Any]) -> str:
    """Return a table of any kind: `note`, `columns` with units, `rows` of text, numbers and None."""
    numeric = [
        any(_finite(row[i]) is not None for row in table["rows"]) for i in range(len(table["columns"]))
    ]
    head, body = "", ""
    for title, number in zip(table["columns"], numeric, strict=True):
        kind = ' class="n"' if number else ""
        head += f'<th scope="col"{kind}>{_text(title)}</th>'
    for row in table["rows"]:
        cells = ""
        for value, number in zip(row, numeric, strict=True):
            shown = _number(value, 1.0, 0 if isinstance(value, int) else 2) if number else value
            kind = ' class="long"' if len(str(shown)) > _LINE else ""
            text = f"<td{kind}>{_signed(str(shown)) if shown else _DASH}</td>"
            cells += _number_cell(shown) if number else text
        body += f"<tr>{cells}</tr>\n"
    note = f'<p class="soft">{_text(table["note"])}</p>' if table.get("note") else ""
    return note + _box(f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>")


_STRESS = (
    ("net_return_frac", 100.0, "Net return [%]"),
    ("sharpe_ann", 1.0, "Sharpe (ann.)"),
    ("max_drawdown_frac", 100.0, "Max. drawdown [%]"),
    ("cost_frac", 100.0, "Costs [% of start]"),
)


def _stress(rows: Iterable[Row]) -> str:
    """Return what the agent's own trades are worth in changed markets."""
    body = ""
    for row in rows:
        cells = "".join(_number_cell(_number(row.get(key), scale)) for key, scale, _ in _STRESS)
        body += f'<tr><th scope="row">{_text(row["scenario"])}</th>{cells}</tr>\n'
    note = '<p class="soft">The trades as judged, replayed: the agent does not react.</p>'
    head = _head(["Market changed to"], [title for *_, title in _STRESS])
    return f"<h3>Under stress</h3>{note}{_box(f'{head}<tbody>{body}</tbody>')}" if body else ""


def _drift(found: Mapping[str, Any], most: int = 8) -> str:
    """Return retrain or keep, and the most suspicious tests."""
    body = ""
    for row in list(found.get("rows") or ())[:most]:
        name = f'<th scope="row">{_text(row["name"])}</th><td>{_text(row["test"])}</td>'
        cells = (_number_cell(_number(row[key], 1.0, 3)) for key in ("statistic", "p_holm"))
        body += f"<tr>{name}{''.join(cells)}<td>{'alarm' if row['alarm'] else 'no'}</td></tr>\n"
    if not body:
        return ""
    head = _head(["Series", "Test"], ["Statistic", "p (Holm)"]).replace(
        "</tr>", '<th scope="col">Alarm</th></tr>'
    )
    return f"<p><strong>{_text(found['sentence'])}</strong></p>{_box(f'{head}<tbody>{body}</tbody>')}"


def _training(found: Mapping[str, Sequence[Row]] | None) -> str:
    """Return what the training curves of each job say; None is a summary that was not asked."""
    if found is None:
        return ""
    items = "".join(
        f"<li>{_text(f'{job}: ') if len(found) > 1 else ''}<strong>{_text(finding['sign'])}</strong> "
        f"{_text(finding['cause'])} {_text(finding['remedy'])}</li>\n"
        for job, findings in found.items()
        for finding in findings
    )
    return f"<ul>\n{items}</ul>\n" if items else "<p>No sign of trouble in the training curves.</p>\n"


def _data(data: Mapping[str, Any]) -> str:
    facts = _facts({key: value for key, value in data.items() if key != "splits"})
    body = ""
    for split, instruments in (data.get("splits") or {}).items():
        for name, span in instruments.items():
            times = (str(span.get(key) or "") for key in ("first_utc", "last_utc"))
            texts = (_text(time.replace("T", " ")[:16]) or _DASH for time in times)  # to the minute
            cells = "".join(f"<td>{text}</td>" for text in texts)
            first = f'<th scope="row">{_text(split)}</th><td>{_text(name)}</td>{cells}'
            body += f"<tr>{first}{_number_cell(_number(span.get('bars'), 1.0, 0))}</tr>\n"
    if not body:
        return facts
    head = _head(("Split", "Instrument", "First bar opens [UTC]", "Last bar opens [UTC]"), ("Bars",))
    return f"{facts}<h3>Splits, in time order</h3>{_box(f'{head}<tbody>{body}</tbody>')}"


def _label(key: str) -> str:
    return _FACTS.get(key, key.replace("_", " ").capitalize())


def _value(key: str, value: object) -> str:
    """Return one fact as safe HTML: hashes short, lists and mappings in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{_text(k)} {_value(str(k), v)}" for k, v in value.items()) or _DASH
    if isinstance(value, list | tuple):
        return ", ".join(_value(key, v) for v in value) or _DASH
    if isinstance(value, str | bool) and value != "":
        short = f'<code title="{_text(value)}">{_text(value)[:12]}</code>'
        return short if "hash" in key else _text(value)
    return _quantity(key, _finite(value))


def _quantity(key: str, number: float | None) -> str:
    if number is None:
        return _DASH
    if key.endswith("_frac"):
        return _signed(f"{100.0 * number:,.2f}")
    if key in _PLAIN:
        return f"{number:.0f}"
    return _signed(f"{number:,.0f}" if number == round(number) else f"{number:,.4g}")


def _facts(facts: Row) -> str:
    items = more = ""
    for key, value in facts.items():
        name = _text(_label(key))
        if isinstance(value, dict) and len(value) > _SHORT:
            more += f"<details><summary>{name}</summary>\n{_facts(value)}</details>\n"
        else:
            items += f"<div><dt>{name}</dt><dd>{_value(key, value)}</dd></div>\n"
    return (f"<dl>\n{items}</dl>\n" if items else "") + more


def _jobs(jobs: Sequence[Row] | None) -> str:
    """Return a row a job, of the plain values in which they differ; what they share is told by the run's facts."""
    if not jobs or len(jobs) == 1:
        return ""
    values = {key: [job.get(key) for job in jobs] for key in (*_PLAIN, *(k for job in jobs for k in job))}
    keys = [k for k, v in values.items() if v != v[:1] * len(v) and not isinstance(v[0], dict | list)]
    if not keys:
        return ""
    body = ""
    for job in jobs:
        first, *rest = (_value(key, job.get(key)) for key in keys)
        cells = "".join(f'<td class="n">{cell}</td>' for cell in rest)
        body += f'<tr><th scope="row">{first}</th>{cells}</tr>\n'
    head = _head([_label(keys[0])], map(_label, keys[1:]))
    return f"<h3>Jobs</h3>{_box(f'{head}<tbody>{body}</tbody>')}"


def _files(entries: Iterable[Row]) -> str:
    body = ""
    for entry in entries:
        size = _number_cell(_number(entry.get("bytes"), 1e-3, 1))
        body += f'<tr><th scope="row"><code>{_text(entry["name"])}</code></th>{size}</tr>\n'
    return _box(f"{_head(['File'], ['Size [kB]'])}<tbody>{body}</tbody>") if body else ""
