"""The verdict as one page: a self-contained `report.html` with its figures.

Plain values in, text out; only units are converted here. The page needs no script and no network, and equal
input gives equal bytes. Markup is in `report.templates`, text in `core.strings`.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from sac_kernel.backtest.policies import Kind
from sac_kernel.core import files, strings
from sac_kernel.core.errors import DataError
from sac_kernel.report import plots, tables, templates
from sac_kernel.report.tables import finite, number
from sac_kernel.report.templates import (
    CODE,
    COMMAND,
    HASH,
    HEADING,
    NO_VALUE,
    PARAGRAPH,
    SOFT,
    STRONG,
    fragment,
)
from sac_kernel.stats.verdict import Word

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    Row = Mapping[str, Any]

NARROW = "-narrow"
"""Ending of the name of a figure's version for phones, which the page shows on narrow screens."""
DATA_FIGURES = ("bars", "features")
"""Figures of the data section; all others follow the results in the order given."""

_NAMES = ("agent_id", "seed")  # numbers that are names: no separators
_FILE_NAME = re.compile(r"[A-Za-z0-9_-]+")
_MINUS = re.compile(r"(?<!\w)-(?=\d)")  # before a number, not inside a date or a word
_LINE = 40  # characters; a longer text in a table may break
_SHORT = 6  # values; a longer mapping is folded
_STRESS = ("net_return_frac", "sharpe_ann", "max_drawdown_frac", "cost_frac")


class Cell(NamedTuple):
    """Text of a table's cell and its look: 'n' number, 'long' text that may break."""

    text: str
    look: str = ""


class Line(NamedTuple):
    """A row of a table, the agent's `own` emphasised."""

    cells: Sequence[Cell]
    own: bool = False


class Group(NamedTuple):
    """Rows of a table below a title."""

    rows: Sequence[Line]
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table as the page shows it; `named` if a row's first cell is its heading, `labels` for phones."""

    columns: Sequence[str]
    groups: Sequence[Group]
    numeric: Iterable[int]
    heading: str = ""
    note: str = ""
    named: bool = True
    look: str = "facts"
    labels: Sequence[str] = ()


def write_report(folder: Path, summary: Mapping[str, Any], figures: Mapping[str, Figure]) -> Path:
    """Write `figures/<name>.png` of each figure, then `report.html`; return the page's path.

    Parameters
    ----------
    folder : where to write; created if missing
    summary : plain values, None where there is no value. `verdict` (word, sentence, notes) is
        required; `table` (see `results_table`), `data`, `run`, `random` (percentile in [0, 1],
        draws), `months`, `tables`, `stress`, `drift`, `statistics`, `no_trade` (see `report.sections`), `judged`
        (what the headline judges, keyed as `strings.JUDGED`), `training` (job -> findings of
        `training_health`), `files`, `jobs`, `next_command`, `self_test` (facts of
        `experiment.planted_edge`), `title`, `captions` (by figure) are optional; the verdict may have
        `finding`, `marks` and `means`
    figures : by name, in the page's order; `equity` comes first, those in `DATA_FIGURES` with the data

    Raises
    ------
    DataError
        If the verdict is unknown, a row lacks policy or tier, or a figure's name is invalid.
    """
    wrong = [name for name in figures if not _FILE_NAME.fullmatch(name)]
    if wrong:
        msg = f"Invalid figure names: {wrong[:3]}. Use A-Z, a-z, 0-9, - and _ only."
        raise DataError(msg)
    pictures = {name: plots.to_png(figure) for name, figure in figures.items()}
    page = _page(summary, pictures)
    for name, content in pictures.items():
        files.write_bytes(folder / "figures" / f"{name}.png", content)
    path = folder / "report.html"
    files.write_text(path, page)
    return path


def _page(summary: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    captions, titles = summary.get("captions") or {}, strings.FIGURES
    wide = {name: png for name, png in pictures.items() if not name.endswith(NARROW)}
    figures = {
        name: _figure(name, png, captions.get(name), pictures.get(name + NARROW))
        for name, png in wide.items()
    }
    texts = {
        "random": _chance(summary.get("random") or {}),
        "costs": _stress(summary.get("stress") or ()),
        "drift": _drift(summary.get("drift") or {}),
        "training": _training(summary.get("training")),
    }
    by_title = {table["title"]: _any_table(table) for table in summary.get("tables") or ()}
    rows = list(summary.get("table") or ())
    statistics = _statistics(summary.get("statistics") or {})
    head = _learns(summary.get("self_test"), figures.pop("self_test", Markup()))
    head += figures.pop("equity", Markup()) + _results(tables.short(rows)) + statistics
    head += PARAGRAPH.format(summary["no_trade"]) if summary.get("no_trade") else Markup()
    sections = [(strings.AGENTS, by_title.pop(strings.AGENTS, Markup()))]
    sections.append((strings.EVERY_RESULT, _every_result(rows)))
    sections.append((strings.MONTH_BY_MONTH, _months(summary.get("months") or {})))
    for name, picture in figures.items():
        if name not in DATA_FIGURES:
            title = titles.get(name, name)
            body = picture + texts.pop(name, Markup()) + by_title.pop(title, Markup())
            sections.append((title, body))
    sections += [(titles[name], text) for name, text in texts.items()]
    sections += by_title.items()
    sections.append((strings.FOLDS_HOME, _last_fold(summary.get("last_fold") or {})))
    parts = (HEADING.format(titles[name]) + figures[name] for name in DATA_FIGURES if name in figures)
    data = _data(summary.get("data") or {}) + Markup().join(parts)
    command = summary.get("next_command")
    sections += [
        (strings.DATA, data),
        (strings.RUN, _facts(summary.get("run") or {}) + _jobs(summary.get("jobs") or ())),
        (strings.FILES, _files(summary.get("files") or ())),
        (strings.AGAIN, COMMAND.format(command) if command else Markup()),
    ]
    title = summary.get("title") or strings.TITLE
    numbered = [(f"part-{i}", name, body) for i, (name, body) in enumerate(sections, 1) if body]
    return templates.report(title=title, verdict=_verdict(summary), head=head, sections=numbered)


def _learns(facts: Mapping[str, Any] | None, figure: Markup) -> Markup:
    """Return the self-test's figure, above the heading of the user's own bars."""
    if not facts:
        return Markup()
    note = SOFT.format(strings.SELF_TEST_CAPTION.format(**facts))
    return HEADING.format(strings.SELF_TEST_TITLE) + figure + note + HEADING.format(strings.ON_YOUR_BARS)


def _last_fold(parts: Mapping[str, Any]) -> Markup:
    """Return what a walk-forward's home model did on the last fold alone."""
    if not parts:
        return Markup()
    said = PARAGRAPH.format(parts["no_trade"]) if parts.get("no_trade") else Markup()
    rest = _statistics(parts.get("statistics") or {}) + _stress(parts.get("stress") or ())
    return said + _every_result(parts.get("table") or ()) + rest


def _statistics(values: Mapping[str, Any]) -> Markup:
    """Return the trade statistics of the headline."""
    if not values:
        return Markup()
    shown = [
        (title, _quantity(key, finite(values.get(key))))
        for key, title in strings.STATISTICS.items()
        if key in values
    ]
    facts = fragment("facts", {"short": shown, "long": []})
    return HEADING.format(strings.TRADES) + SOFT.format(strings.STATISTICS_NOTE) + facts


def _signed(text: str) -> str:
    """Return a number with a true minus sign, for the page."""
    return _MINUS.sub("\u2212", text)


def _number(value: object, scale: float = 1.0, decimals: int = 2) -> Cell:
    return _digits(number(value, scale, decimals))


def _digits(text: str | None) -> Cell:
    return Cell(_signed(text) if text else NO_VALUE, "n")


def _plain_table(
    columns: Sequence[str], rows: Sequence[Sequence[Cell]], heading: str = "", note: str = ""
) -> Markup:
    """Return a table without groups, columns numeric by their first row; nothing without rows."""
    if not rows:
        return Markup()
    numeric = [i for i, cell in enumerate(rows[0]) if cell.look == "n"]
    return fragment("table", Table(columns, [Group([Line(row) for row in rows])], numeric, heading, note))


def _verdict(summary: Mapping[str, Any]) -> Markup:
    verdict = summary.get("verdict") or {}
    word, sentence, marks = verdict.get("word"), verdict.get("sentence") or "", verdict.get("marks") or ()
    if word not in strings.VERDICTS:
        msg = f"The verdict must be one of {', '.join(strings.VERDICTS)}, got {word!r}."
        raise DataError(msg)
    signs = {True: ("yes", "\u2713 "), False: ("no", "\u2717 "), None: ("open", "")}
    listed = [
        {
            "tone": signs[mark["passed"]][0],
            "sign": signs[mark["passed"]][1] + strings.MARK_WORDS[mark["passed"]],
            "name": mark["name"],
            "found": _signed(str(mark["found"])),
        }
        for mark in marks
    ]
    failed = [mark for mark in listed if mark["tone"] != "yes"]
    notes, test = list(verdict.get("notes") or ()), summary.get("self_test")
    values = {
        "word": word,
        "tone": Word(word).tone,
        "learns": strings.SELF_TEST[test["passed"]].format(**test) if test else "",
        "means": verdict.get("means") or strings.VERDICTS[word],
        "finding": verdict.get("finding", sentence) if marks else sentence,  # the marks have the details
        "traded": (summary.get("data") or {}).get("traded", ""),
        "judged": _judged(summary.get("judged") or {}),
        "costs": _costs_line((summary.get("data") or {}).get("instrument_spec")),
        "headline": _headline(summary.get("table") or ()),
        "questions": verdict.get("questions") or (),
        "failed": failed,
        "passed": [mark for mark in listed if mark["tone"] == "yes"],
        "counts": {"failed": len(failed), "count": len(listed)},
        "first": notes[:1],
        "notes": notes[1:],
    }
    return fragment("verdict", values)


def _judged(parts: Mapping[str, Any]) -> str:
    """Return what the headline judges: instrument, agent, seed, model file, run."""
    return " \u00b7 ".join(
        text.format(value=parts[key])
        for key, text in strings.JUDGED.items()
        if parts.get(key) not in (None, "")
    )


def _costs_line(spec: Any) -> str:  # noqa: ANN401  # plain values of the instrument, if it has any
    """Return the instrument's costs that are stated in bps, one after another."""
    if not isinstance(spec, dict):
        return ""
    costs = {key: finite(value) for key, value in spec.items() if key.endswith("_bps")}
    shown = [
        f"{_label(key.removesuffix('_bps'))} {_quantity(key, x)} bps"
        for key, x in costs.items()
        if x is not None
    ]
    return strings.COSTS_LINE.format(symbol=spec.get("symbol", ""), costs=", ".join(shown)) if shown else ""


def _headline(rows: Iterable[Row]) -> str:
    own = next((row for row in rows if row.get("tier") == "base" and _is_agent(row)), None)
    if own is None:
        return ""
    annual, interval = number(own.get("annual_return_frac"), 100.0), tables.interval(own)
    value = strings.HEADLINE_ANNUAL.format(annual=_signed(annual)) if annual else strings.NO_ANNUAL
    spread = strings.HEADLINE_INTERVAL.format(interval=_signed(interval)) if interval else strings.NO_INTERVAL
    return Markup(strings.HEADLINE).format(annual=value, interval=spread)  # noqa: S704  # our own text


def _is_agent(row: Row) -> bool:
    return row.get("kind") == Kind.AGENT


def _results(rows: Sequence[Row]) -> Markup:
    """Return the short table, at base cost."""
    groups = [Group([_result(row) for row in rows])]
    return fragment("table", _result_table(groups, strings.BASE_NOTE)) if rows else Markup()


def _every_result(rows: Iterable[Row]) -> Markup:
    groups = [
        Group([_result(row) for row in group], tables.tier_title(tier))
        for tier, group in tables.by_tier(rows).items()
    ]
    return fragment("table", _result_table(groups, strings.RESULTS_NOTE))


def _result(row: Row) -> Line:
    return Line([Cell(str(row["policy"])), *map(_digits, tables.figures(row))], _is_agent(row))


def _result_table(groups: Sequence[Group], note: str) -> Table:
    columns = [strings.POLICY, *(column.title for column in tables.COLUMNS)]
    labels = [strings.POLICY, *(column.short for column in tables.COLUMNS)]
    return Table(columns, groups, range(1, len(columns)), note=note, look="results", labels=labels)


def _figure(name: str, png: bytes, caption: object, narrow: bytes | None = None) -> Markup:
    title = strings.FIGURES.get(name, name)
    width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))
    values = {
        "png": base64.b64encode(png).decode("ascii"),
        "narrow": base64.b64encode(narrow).decode("ascii") if narrow else "",
        "width": width,
        "height": height,
        "alt": f"{title}: {caption}" if caption else title,
        "caption": caption,
    }
    return fragment("figure", values)


def _chance(random: Mapping[str, Any]) -> Markup:
    share, draws = number(random.get("percentile"), 100.0, 0), number(random.get("draws"), 1.0, 0)
    if share is None or draws is None:
        return Markup()
    text = Markup(strings.CHANCE).format(share=share, draws=draws)  # noqa: S704  # our own text
    return PARAGRAPH.format(text)


def _months(months: Mapping[str, Sequence[float | None]]) -> Markup:
    """Return net returns by month, the year in the last column."""
    rows = [[Cell(year), *(_number(x, 100.0) for x in values)] for year, values in months.items()]
    columns = [strings.COLUMNS["net_return_frac"][0], *strings.MONTHS, strings.YEAR]
    return _plain_table(columns, rows)


def _any_table(table: Mapping[str, Any]) -> Markup:
    """Return any table: `note`, `columns` with units, `rows` of text, numbers and None."""
    columns, rows = table["columns"], table["rows"]
    numeric = [i for i in range(len(columns)) if any(finite(row[i]) is not None for row in rows)]
    lines = [
        Line(
            [
                _number(value, 1.0, 0 if isinstance(value, int) else 2) if i in numeric else _word(value)
                for i, value in enumerate(row)
            ]
        )
        for row in rows
    ]
    note = table.get("note") or ""
    if not lines:
        return PARAGRAPH.format(note) if note else Markup()
    whole = Table(columns, [Group(lines)], numeric, note=note, named=False)
    return fragment("table", whole)


def _word(value: object) -> Cell:
    return Cell(_signed(str(value)) if value else NO_VALUE, "long" if len(str(value)) > _LINE else "")


def _stress(rows: Iterable[Row]) -> Markup:
    """Return the results of the agent's trades in changed markets."""
    columns = [column for column in tables.COLUMNS if column.key in _STRESS]
    body = [
        [Cell(row["scenario"]), *(_number(row.get(c.key), c.scale, c.decimals) for c in columns)]
        for row in rows
    ]
    head = [strings.CHANGED_TO, *(column.title for column in columns)]
    return _plain_table(head, body, strings.UNDER_STRESS, strings.STRESS_NOTE)


def _drift(check: Mapping[str, Any], most: int = 8) -> Markup:
    """Return retrain or keep, and the most suspicious tests."""
    rows = [
        [
            Cell(row["name"]),
            Cell(row["test"]),
            *(_number(row[key], 1.0, 3) for key in ("statistic", "p_holm")),
            Cell(strings.ALARM if row["alarm"] else strings.NO_ALARM),
        ]
        for row in list(check.get("rows") or ())[:most]
    ]
    if not rows:
        return Markup()
    return STRONG.format(check["sentence"]) + _plain_table(strings.DRIFT_COLUMNS, rows)


def _training(jobs: Mapping[str, Sequence[Row]] | None) -> Markup:
    """Return the findings on the training curves of each job; nothing if there was no check."""
    if jobs is None:
        return Markup()
    items = [
        {**finding, "job": strings.IN_JOB.format(job=job, label="") if len(jobs) > 1 else ""}
        for job, findings in jobs.items()
        for finding in findings
    ]
    return fragment("findings", items) if items else PARAGRAPH.format(strings.HEALTHY)


def _data(data: Mapping[str, Any]) -> Markup:
    rows = [
        [
            Cell(split),
            Cell(name),
            *(_minute(span.get(key)) for key in ("first_utc", "last_utc")),
            _number(span.get("bars"), 1.0, 0),
        ]
        for split, instruments in (data.get("splits") or {}).items()
        for name, span in instruments.items()
    ]
    facts = _facts({key: value for key, value in data.items() if key != "splits"})
    return facts + _plain_table(strings.SPLIT_COLUMNS, rows, strings.SPLITS)


def _minute(time_utc: object) -> Cell:
    return Cell(str(time_utc or "").replace("T", " ")[:16] or NO_VALUE)


def _label(key: str) -> str:
    return strings.FACTS.get(key, key.replace("_", " ").capitalize())


def _value(key: str, value: object) -> str:
    """Return one fact: short hashes, lists and mappings in one line."""
    if isinstance(value, dict):
        pairs = (Markup("{} {}").format(k, _value(str(k), v)) for k, v in value.items())
        return Markup(", ").join(pairs) or NO_VALUE
    if isinstance(value, list | tuple):
        return Markup(", ").join(_value(key, v) for v in value) or NO_VALUE
    if isinstance(value, str | bool) and value != "":
        return HASH.format(value, str(value)[:12]) if "hash" in key else str(value)
    return _quantity(key, finite(value))


def _quantity(key: str, value: float | None) -> str:
    """Return a number in the unit of its key: a fraction in percent."""
    if value is None:
        return NO_VALUE
    if key.endswith("_frac"):
        return _signed(f"{100.0 * value:,.2f}")
    if key in _NAMES:
        return f"{value:.0f}"
    whole = value == round(value) or abs(value) >= 1000.0
    return _signed(f"{value:,.0f}" if whole else f"{value:.4g}")


def _facts(facts: Row) -> Markup:
    folded = {key: value for key, value in facts.items() if isinstance(value, dict) and len(value) > _SHORT}
    short = [(_label(key), _value(key, value)) for key, value in facts.items() if key not in folded]
    long = [(_label(key), _facts(value)) for key, value in folded.items()]
    return fragment("facts", {"short": short, "long": long}) if facts else Markup()


def _jobs(jobs: Sequence[Row]) -> Markup:
    """Return a row for each job, of the plain values that differ; shared ones are in the run's facts."""
    values = {key: [job.get(key) for job in jobs] for key in (*_NAMES, *(k for job in jobs for k in job))}
    keys = [k for k, v in values.items() if v != v[:1] * len(v) and not isinstance(v[0], dict | list)]
    rows = [[Cell(_value(key, job.get(key)), "n" if i else "") for i, key in enumerate(keys)] for job in jobs]
    return _plain_table([_label(key) for key in keys], rows if keys else [], strings.JOBS)


def _files(entries: Iterable[Row]) -> Markup:
    rows = [[Cell(CODE.format(entry["name"])), _number(entry.get("bytes"), 1e-3, 1)] for entry in entries]
    return _plain_table(strings.FILE_COLUMNS, rows)
