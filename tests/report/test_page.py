import base64
import re
import struct
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from sac_kernel.core.errors import DataError
from sac_kernel.report.page import write_report
from sac_kernel.report.tables import results_table
from sac_kernel.report.terminal import text_table
from tests.support import says, told

MINUS, DASH = "\u2212", "\u2013"


def row(policy="agent 1 (final)", tier="base", kind="agent", **more):
    return {
        "policy": policy,
        "kind": kind,
        "tier": tier,
        "net_return_frac": 0.0123456,
        "annual_return_frac": -0.05,
        "low_frac": -0.1,
        "high_frac": 0.125,
        "sharpe_ann": 0.456,
        "max_drawdown_frac": 0.25,
        "turnover_per_day": 1.5,
        "cost_frac": 0.0075,
        "trades": 1234,
        **more,
    }


EMPTY = dict.fromkeys(row().keys() - {"policy", "kind", "tier"})


def summary(**more):
    span = {"bars": 3735, "first_utc": "2017-05-01T00:00:00+00:00", "last_utc": "2018-01-05T21:00:00"}
    return {
        "verdict": {"word": "not shown", "sentence": "No edge is shown.", "notes": ["One split only."]},
        "table": [row("flat", **EMPTY), row(), row(tier="raw"), row(tier="retail")],
        "data": {"instruments": ["EURUSD"], "bar_seconds": 3600, "splits": {"train": {"EURUSD": span}}},
        "run": {"agent_id": 1, "seed": 20250101, "device": "Tesla T4", "train_s": 724.5, "episodes": None},
        "random": {"percentile": 0.9, "draws": 1000},
        "files": [{"name": "agent_1_final.pt", "bytes": 1234567}],
        "next_command": "kaggle kernels push -p build && echo done",
        **more,
    }


def figures(*names):
    out = {}
    for place, name in enumerate(names):
        figure = Figure(figsize=(2.0, 1.0), dpi=50)
        figure.subplots().plot([0, 1], [1, place])  # no two pictures alike
        out[name] = figure
    return out


class Page(HTMLParser):
    """Collect the tags, headings and texts of a page, and check that every tag is closed."""

    VOID = ("meta", "img", "br", "hr")

    def __init__(self, source):
        super().__init__()
        self.tags, self.open, self.headings, self.text = [], [], [], ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open += [] if tag in self.VOID else [tag]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        self.headings += [data] if self.open and self.open[-1] in ("h1", "h2") else []

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def page(folder, *names, **more):
    return write_report(folder, summary(**more), figures(*names)).read_text(encoding="utf-8")


def cells(source, policy):
    """Return the cells of each row of a policy, tags removed."""
    rows = re.findall(rf'<tr[^>]*><th scope="row">{re.escape(policy)}</th>(.*?)</tr>', source)
    return [re.findall(r'<td class="n"[^>]*>(?:<[^>]*>)?([^<]*)', found) for found in rows]


# --- the page -----------------------------------------------------------------------------------


def test_report_writes_the_page_and_each_figure(tmp_path):
    path = write_report(tmp_path / "out", summary(), figures("equity", "training"))
    assert path == tmp_path / "out" / "report.html"
    found = sorted(p.relative_to(path.parent).as_posix() for p in path.parent.rglob("*") if p.is_file())
    assert found == ["figures/equity.png", "figures/training.png", "report.html"]
    png = (path.parent / "figures" / "equity.png").read_bytes()
    assert struct.unpack(">II", png[16:24]) == (100, 50)


def test_equal_input_gives_equal_bytes(tmp_path):
    first, second = (write_report(tmp_path / name, summary(), figures("equity")) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    png = "figures/equity.png"
    assert (first.parent / png).read_bytes() == (second.parent / png).read_bytes()


def test_page_is_well_formed(tmp_path):
    parsed = Page(page(tmp_path, "equity", "bars", jobs=[{"seed": 0}, {"seed": 1}]))
    assert parsed.open == []
    assert parsed.of("html") == [{"lang": "en"}]
    assert len(parsed.of("h1")) == 1


def test_every_picture_is_embedded_and_nothing_is_fetched(tmp_path):
    source = page(tmp_path, "equity", "exposure")
    parsed = Page(source)
    sources = [attrs["src"] for _, attrs in parsed.tags if "src" in attrs]
    assert len(sources) == 2
    assert all(src.startswith("data:image/png;base64,") for src in sources)
    assert not re.findall(r"https?:|url\(|@import|<script|<link|<iframe| href=\"[^#]", source)


def test_embedded_picture_is_the_file_of_the_same_name(tmp_path):
    picture = Page(page(tmp_path, "equity")).of("img")[0]
    png = (tmp_path / "figures" / "equity.png").read_bytes()
    assert base64.b64decode(picture["src"].split(",")[1]) == png
    assert (picture["width"], picture["height"]) == ("100", "50")


def test_pictures_have_alternative_texts_and_captions(tmp_path):
    source = page(tmp_path, "equity", "mine", captions={"equity": "After <base> costs."})
    alts = [attrs["alt"] for attrs in Page(source).of("img")]
    assert alts[0].endswith("After <base> costs.")
    assert alts[1] == "mine"
    assert source.count("<figcaption>") == 1
    assert "<figcaption>After &lt;base&gt; costs.</figcaption>" in source


def test_page_order_is_verdict_results_figures_data_run_files_rerun(tmp_path):
    # bars and features belong to the data, wherever they are given
    names = ("bars", "equity", "exposure", "random", "training", "features")
    source = page(tmp_path, *names)
    png = {
        name: base64.b64encode((tmp_path / "figures" / f"{name}.png").read_bytes()).decode() for name in names
    }
    order = [
        'class="verdict',
        png["equity"],
        '<th scope="row">agent 1 (final)</th>',
        png["exposure"],
        png["random"],
        png["training"],
        '<th scope="row">train</th>',
        "Tesla T4",
        "agent_1_final.pt",
        "kaggle kernels push",
    ]
    places = [source.index(text) for text in order]
    assert places == sorted(places)
    assert places[6] < source.index(png["bars"]) < places[7]
    assert places[6] < source.index(png["features"]) < places[7]


def test_page_is_made_for_phones_and_dark_mode(tmp_path):
    source = page(tmp_path, "equity")
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in Page(source).of("meta")
    assert "prefers-color-scheme:dark" in source
    boxes = source.count('<div class="box" tabindex="0">')
    assert boxes == source.count("<table")  # wide tables scroll inside their box, pictures shrink


# --- the verdict --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "tone"),
    [
        ("edge", "edge"),
        ("edge (null not run)", "edge"),
        ("not shown", "not-shown"),
        ("none", "none"),
    ],
)
def test_verdict_has_its_tone_and_its_sentence(tmp_path, word, tone):
    source = page(tmp_path, verdict={"word": word, "sentence": "S.", "notes": []})
    assert f'<div class="verdict {tone}">' in source
    assert '<p class="said">S.</p>' in source


def test_marks_of_the_rule_are_listed_with_their_figures(tmp_path):
    marks = [
        {"name": "interval above <0>", "passed": False, "found": "-3.0% to +1.0%"},
        {"name": "days", "passed": True, "found": "90 days"},
        {"name": "other", "passed": None, "found": "-"},
    ]
    source = page(tmp_path, verdict={"word": "not shown", "sentence": "S.", "marks": marks})
    found = dict(re.findall(r'<li class="(no|yes|open)">(.*?)</li>', source, re.DOTALL))
    assert told(found["no"], "interval above &lt;0&gt;", f"{MINUS}3.0% to +1.0%")
    assert told(found["yes"], "days", 90)
    assert told(found["open"], "other")
    assert Page(source).open == []


def test_months_stress_and_drift_stand_by_their_figures(tmp_path):
    source = page(
        tmp_path,
        "equity",
        "costs",
        "drift",
        months={"2019": [0.01, None, -0.02, *[None] * 9, -0.0102]},
        stress=[
            {
                "scenario": "spread x5",
                "net_return_frac": -0.1,
                "sharpe_ann": None,
                "max_drawdown_frac": 0.2,
                "cost_frac": 0.3,
            }
        ],
        drift={
            "word": "retrain",
            "sentence": "Retrain: a.",
            "rows": [{"name": "a", "test": "KS", "statistic": 0.5, "p_holm": 0.001, "alarm": True}],
        },
    )
    parsed = Page(source)
    assert parsed.open == []
    assert cells(source, "2019") == [["1.00", DASH, f"{MINUS}2.00", *[DASH] * 9, f"{MINUS}1.02"]]
    assert cells(source, "spread x5") == [[f"{MINUS}10.00", DASH, "20.00", "30.00"]]
    assert "<strong>Retrain: a.</strong>" in source
    months, stress = (source.index(f'<th scope="row">{name}</th>') for name in ("2019", "spread x5"))
    assert source.index("<img") < months < stress < source.index("<strong>Retrain: a.</strong>")


def test_sections_without_a_figure_are_shown_all_the_same(tmp_path):
    assert cells(page(tmp_path, months={"2019": [0.01] * 13}), "2019") == [["1.00"] * 13]


def test_verdict_comes_with_the_agents_interval_at_base_costs(tmp_path):
    table = [
        row("agent of old", kind="baseline", annual_return_frac=0.9),
        row(tier="raw", low_frac=0.0),
        row(),
    ]
    source = page(tmp_path, table=table)
    assert (
        f"After base costs: <strong>{MINUS}5.00\u00a0% a year (compound)</strong>, "
        f"95\u00a0% interval {MINUS}10.00 to 12.50\u00a0%." in source
    )


def test_verdict_without_an_interval_says_so(tmp_path):
    source = page(tmp_path, table=[row(low_frac=float("nan"), high_frac=None)])
    verdict = source[source.index('class="verdict') : source.index("<table")]
    assert told(verdict, f"{MINUS}5.00\u00a0%", "unknown")
    assert "nan" not in verdict


def test_verdict_of_an_unknown_word_is_refused(tmp_path):
    with pytest.raises(DataError, match=says("edge", "not shown", "none", "'yes'")):
        page(tmp_path, verdict={"word": "yes", "sentence": "", "notes": []})
    assert list(tmp_path.iterdir()) == []  # nothing half written


def test_verdict_notes_are_listed(tmp_path):
    assert "One split only." in Page(page(tmp_path)).text


# --- the table ----------------------------------------------------------------------------------


def test_page_shows_fractions_in_percent(tmp_path):
    # 0.0123456 -> 1.23 %, -0.05 -> -5.00 %, 0.25 -> 25.00 %, 0.0075 -> 0.75 %
    short, raw, base, retail = cells(page(tmp_path), "agent 1 (final)")  # the short table is of base costs
    assert base == [
        "1.23",
        f"{MINUS}5.00",
        f"{MINUS}10.00 to 12.50",
        "0.46",
        "25.00",
        "1.50",
        "0.75",
        "1,234",
    ]
    assert short == raw == base == retail


def test_missing_values_are_a_dash_with_a_title(tmp_path):
    source = page(tmp_path)
    assert cells(source, "flat") == [[DASH] * 8] * len(cells(source, "flat"))
    assert cells(source, "flat")
    assert f'<span class="absent" title="no value">{DASH}</span>' in source


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf"), np.float64("nan"), pd.NA])
def test_what_is_not_finite_is_missing(tmp_path, missing):
    source = page(tmp_path, table=[row(sharpe_ann=missing)])
    assert cells(source, "agent 1 (final)")[0][3] == DASH
    assert "nan" not in cells(source, "agent 1 (final)")[0]


def test_numbers_of_numpy_are_numbers(tmp_path):
    source = page(tmp_path, table=[row(sharpe_ann=np.float32(0.5), trades=np.int64(7))])
    assert cells(source, "agent 1 (final)")[0][3::4] == ["0.50", "7"]


def test_all_three_tiers_are_shown_even_if_one_was_not_run(tmp_path):
    source = page(tmp_path, table=[row()])
    tiers = re.findall(r'<th scope="rowgroup" colspan="9"><span>(\w+)', source)
    assert tiers == ["raw", "base", "retail"]
    assert len(cells(source, "agent 1 (final)")) == 2  # in the short table and in its tier


def test_only_the_agents_rows_are_emphasised_whatever_the_names(tmp_path):
    rows = [row(), row("ridge", kind="baseline"), row("agents' rival", kind="random"), row("mine")]
    source = page(tmp_path, table=rows)
    assert re.findall(r'<tr class="own"><th scope="row">([^<]*)', source) == 2 * [
        "agent 1 (final)",
        "mine",
    ]


def test_headers_have_units(tmp_path):
    source = page(tmp_path)
    for title in ("Net return [%]", "Turnover [x equity / day]", "Costs [% of start]", "Trades"):
        assert f'<th scope="col" class="n">{title}</th>' in source


@pytest.mark.parametrize("gap", ["policy", "tier"])
def test_rows_without_policy_or_tier_are_refused(gap):
    broken = {key: value for key, value in row().items() if key != gap}
    with pytest.raises(DataError, match=says("policy", "tier", "row 1")):
        results_table([row(), broken])


# --- escaping and names -------------------------------------------------------------------------


def test_names_are_escaped_everywhere(tmp_path):
    bad = "<script>alert('x')</script>\"&"
    source = page(
        tmp_path,
        "mine",
        title=bad,
        verdict={"word": "none", "sentence": bad, "notes": [bad]},
        table=[row(bad), row("agent", tier=bad, kind=bad)],
        months={bad: [0.01] * 13},
        tables=[{"title": bad, "note": bad, "columns": [bad, bad], "rows": [[bad, 1.0]]}],
        stress=[{"scenario": bad}],
        drift={
            "sentence": bad,
            "rows": [{"name": bad, "test": bad, "statistic": 1, "p_holm": 1, "alarm": 0}],
        },
        training={bad: [{"sign": bad, "cause": bad, "remedy": bad}], "b": []},
        data={"source": bad, bad: 1, "splits": {bad: {bad: {"first_utc": bad}}}},
        run={"status": bad, "code_hash": bad, "versions": {bad: bad}},
        jobs=[{"status": bad}, {"status": bad}],
        files=[{"name": bad, "bytes": 1}],
        next_command=bad,
        captions={"mine": bad},
    )
    assert "<script" not in source.lower()
    parsed = Page(source)
    assert parsed.open == []
    assert parsed.text.count(bad) == 32
    assert [attrs["alt"] for attrs in parsed.of("img")] == [f"mine: {bad}"]
    assert [attrs["title"] for attrs in parsed.of("code") if attrs] == [bad]


@pytest.mark.parametrize("name", ["../evil", "a b", "", "x.png", 'a"b'])
def test_figure_names_that_are_no_file_names_are_refused(tmp_path, name):
    with pytest.raises(DataError, match=says("figure", repr(name))):
        page(tmp_path, name)


# --- facts --------------------------------------------------------------------------------------


def test_random_comparison_is_told_in_percent(tmp_path):
    assert told(page(tmp_path, "random"), "<strong>90 %</strong>", "1,000")


def test_random_comparison_is_told_without_its_figure_too(tmp_path):
    assert "<strong>90 %</strong>" in page(tmp_path)


def test_no_random_comparison_without_a_percentile(tmp_path):
    source = page(tmp_path, random={"percentile": None, "draws": 1000})
    assert "1,000" not in source


def test_data_section_lists_the_splits(tmp_path):
    source = page(tmp_path)
    assert (
        '<tr><th scope="row">train</th><td>EURUSD</td><td>2017-05-01 00:00</td>'
        '<td>2018-01-05 21:00</td><td class="n">3,735</td></tr>' in source
    )
    assert "<dt>Bar [s]</dt><dd>3,600</dd>" in source


def test_run_facts_have_units_and_plain_seeds(tmp_path):
    source = page(tmp_path)
    assert "<dt>Training time [s]</dt><dd>724.5</dd>" in source
    assert "<dt>Seed</dt><dd>20250101</dd>" in source  # a name, not a quantity
    assert f'<dt>Episodes</dt><dd><span class="absent" title="no value">{DASH}</span></dd>' in source


def test_hashes_are_short_with_the_whole_on_hover(tmp_path):
    whole = "0123456789abcdef" * 4
    source = page(tmp_path, run={"code_hash": whole})
    assert f'<code title="{whole}">0123456789ab</code>' in source


def test_long_settings_are_folded(tmp_path):
    versions, settings = {"torch": "2.10"}, {f"k{i}": i for i in range(7)}
    source = page(tmp_path, run={"versions": versions, "sac_config": settings})
    assert "<dt>Versions</dt><dd>torch 2.10</dd>" in source
    assert "<details><summary>Agent settings</summary>" in source
    assert "<dt>K6</dt><dd>6</dd>" in source


def test_several_jobs_are_a_table_of_the_plain_values_in_which_they_differ(tmp_path):
    jobs = [{"device": "cpu", "net_return_frac": 0.01 * s, "seed": s, "versions": {"a": s}} for s in (1, 2)]
    source = page(tmp_path, jobs=jobs)
    assert '<tr><th scope="row">2</th><td class="n">2.00</td></tr>' in source  # the name stands first
    assert '<th scope="col" class="n">Net return [%]</th></tr>' in source


def test_one_job_is_not_told_twice(tmp_path):
    assert "<h3>Jobs</h3>" not in page(tmp_path, jobs=[{"seed": 1}])


def test_files_have_sizes(tmp_path):
    # 1,234,567 bytes are 1,234.6 kB
    assert '<code>agent_1_final.pt</code></th><td class="n">1,234.6</td>' in page(tmp_path)


def test_rerun_command_is_shown_as_it_is_typed(tmp_path):
    assert "kaggle kernels push -p build && echo done" in Page(page(tmp_path)).text


def test_sections_without_content_are_left_out(tmp_path):
    least = {"verdict": summary()["verdict"]}
    source = write_report(tmp_path, least, {}).read_text(encoding="utf-8")
    assert len(Page(source).headings) == 3  # the verdict, the contents and every result


# --- tables for other places --------------------------------------------------------------------


def test_results_table_has_units_and_percentages():
    table = results_table([row("flat", **EMPTY), row()])
    assert list(table.columns) == [
        "Policy",
        "Tier",
        "Net return [%]",
        "Annual return, compound [%]",
        "95 % interval of annual return [%]",
        "Sharpe (ann.)",
        "Max. drawdown [%]",
        "Turnover [x equity / day]",
        "Costs [% of start]",
        "Trades",
    ]
    assert table.iloc[1].tolist() == [
        "agent 1 (final)", "base", 1.23, -5.0, "-10.00 to 12.50", 0.46, 25.0, 1.5, 0.75, 1234,
    ]  # fmt: skip
    assert table.loc[0, "Sharpe (ann.)":"Trades"].isna().all()
    assert table["Net return [%]"].dtype == np.float64
    assert table["Trades"].dtype == "Int64"


def test_results_table_orders_the_tiers_and_keeps_the_policies_order():
    rows = [row("b", "base"), row("b", "retail"), row("a", "base"), row("b", "raw"), row("b", "own")]
    table = results_table(rows)
    assert table["Tier"].tolist() == ["raw", "base", "base", "retail", "own"]
    assert table["Policy"].tolist() == ["b", "b", "a", "b", "b"]


def test_results_table_of_nothing_has_its_columns():
    assert results_table([]).shape == (0, 10)


def test_text_table_is_aligned():
    raw, base, retail = text_table([row(), row("flat", **EMPTY), row(tier="raw")]).split("\n\n")
    assert [part.split()[0] for part in (raw, base, retail)] == ["raw", "base", "retail"]
    _, header, agent, flat = base.splitlines()
    shown = "1.23 -5.00 -10.00 to 12.50 0.46 25.00 1.50 0.75 1,234"
    assert " ".join(agent.split()) == f"agent 1 (final) {shown}"
    assert flat.split() == ["flat", *"-" * 8]
    assert len(header) == len(agent) == len(flat)  # right-aligned
    assert raw.splitlines()[1:] == [header, agent]
    assert len(retail.splitlines()) == 2  # it was not run


def test_text_table_stays_within_100_columns():
    wide = row("agent_1_seed_12345678: agent 1 (best on validation)", net_return_frac=-12.3456)
    wide |= {"low_frac": -123.4567, "high_frac": 123.4567, "trades": 12_345_678}
    lines = text_table([wide, row()]).splitlines()
    assert max(map(len, lines)) == 100
    assert any("..." in line and "-12,346 to 12,346" in line for line in lines)


def test_a_bound_that_compounds_over_years_leaves_the_names_readable():
    bound = row(
        "perfect foresight", kind="bound", net_return_frac=1.976e10, cost_frac=8.12e9, high_frac=7827.9639
    )
    agent, best = text_table([row(), bound]).split("\n\n")[1].splitlines()[2:]
    assert agent.startswith("agent 1 (final)")
    assert best.split()[2:3] == ["1.98e+12"]
    assert "8.12e+11" in best
    assert "782,796" in best.split()  # whole from a thousand on


def test_text_table_is_plain_ascii():
    assert text_table([row(), row("flat", **EMPTY)]).isascii()


def source_of(folder, drawn, **more):
    return write_report(folder, summary(**more), drawn).read_text(encoding="utf-8")


def test_tables_of_any_kind_stand_under_their_figure_or_by_themselves(tmp_path):
    tables = [
        {"title": "Costs", "note": "why <so>", "columns": ["Name", "Days", "Net [%]"],
         "rows": [["a", 3, -1.234], ["b", 4, None]]},
        {"title": "Folds", "columns": ["Word"], "rows": [["-0.5 to 1.0"], [None]]},
    ]  # fmt: skip
    found = source_of(tmp_path, figures("costs"), tables=tables)
    assert "why &lt;so&gt;" in found
    assert found.index("<img") < found.index('<td>a</td><td class="n">3</td><td class="n">\u22121.23</td>')
    assert '<td class="n">4</td><td class="n"><span class="absent"' in found
    assert "<td>\u22120.5 to 1.0</td>" in found
    assert found.count("<h2>Folds</h2>") == 1


def test_what_was_not_passed_is_said_once(tmp_path):
    verdict = {
        "word": "not shown",
        "sentence": "Nothing: -1 %. The mark failed.",
        "finding": "Nothing: -1 %.",
    }
    bare = source_of(tmp_path, {}, verdict=verdict)
    assert '<p class="said">Nothing: -1 %. The mark failed.</p>' in bare
    marked = source_of(
        tmp_path, {}, verdict={**verdict, "marks": [{"name": "the mark", "passed": False, "found": "0"}]}
    )
    assert '<p class="said">Nothing: -1 %.</p>' in marked
    assert "The mark failed" not in marked
