"""Every number of report.html is that of summary.json, and the headline's are those of the CSV files."""

import itertools
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks.planted_market import planted_data
from sac_kernel.core import files
from sac_kernel.experiment import planted_edge
from sac_kernel.experiment.job_queue import run_jobs
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.prices.ingest.writer import write_processed
from tests.conftest import make_data

KEYS = ("net_return_frac", "annual_return_frac", "interval", "sharpe_ann", "max_drawdown_frac", "turnover_per_day",
        "cost_frac", "trades")  # fmt: skip
"""Columns of a table of results, in order; those that end with _frac are in percent."""
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?")


class Tables(HTMLParser):
    """Rows of every table (cells as text, the group's title above them), and the page's names with their values."""

    def __init__(self, source):
        super().__init__()
        self.tables, self.facts, self.text, self._cell, self._name = [], {}, "", None, None
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th", "dt", "dd"):
            self._cell = ""

    def handle_data(self, data):
        self.text += data
        if self._cell is not None:
            self._cell += data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.tables[-1][-1].append(self._cell.replace("\u2212", "-"))
        if tag == "dt":
            self._name = self._cell
        if tag == "dd":
            self.facts.setdefault(self._name, self._cell.replace("\u2212", "-"))
        if tag in ("td", "th", "dt", "dd"):
            self._cell = None


def agrees(text, value):
    """Say whether a printed number is a value at its own precision; None and what is not finite are not printed."""
    found = NUMBER.findall(text)
    if value is None or not np.isfinite(value):
        return not found
    if len(found) != 1 or found[0] != text.strip():
        return False
    mantissa, _, exponent = found[0].partition("e")
    step = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    printed = float(found[0].replace(",", ""))
    return abs(printed - value) <= 0.5 * step * (1 + 1e-9) + 1e-12


def shown(row, key):
    value = row.get(key)
    return 100.0 * value if value is not None and key.endswith("_frac") else value


def row_agrees(cells, row):
    """Compare a row of a table of results, policy first."""
    assert cells[0] == row["policy"]
    for key, text in zip(KEYS, cells[1:], strict=True):
        if key == "interval":
            ends = text.split(" to ") if " to " in text else ("", "")
            assert agrees(ends[0], shown(row, "low_frac")), (row["policy"], text)
            assert agrees(ends[1], shown(row, "high_frac")), (row["policy"], text)
        else:
            assert agrees(text, shown(row, key)), (row["policy"], key, text)


def report_of(folder, data, **settings):
    """Train, judge and report; return the folder, summary.json, the page and what it was judged on."""
    h5 = folder / "data.h5"
    write_processed(data, h5)
    values = {"h5_path": str(h5), "output_dir": str(folder / "out"), "num_episodes": 6, "eval_frequency": 3,
              "checkpoint_frequency": 3, "device": "cpu", **settings}  # fmt: skip
    run_jobs(RunConfig.from_flat(values), tested=planted_edge.self_test(5_000, 30))
    out = folder / "out"
    page = Tables((out / "report.html").read_text(encoding="utf-8"))
    return SimpleNamespace(out=out, summary=files.read_json(out / "summary.json"), page=page)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    edge = planted_data(0.15, 0, years=1.2)
    return {
        "holding": report_of(tmp_path_factory.mktemp("holding"), make_data(6000)),
        "trading": report_of(tmp_path_factory.mktemp("trading"), edge),
        "seeds": report_of(tmp_path_factory.mktemp("seeds"), edge, seeds=(0, 1)),
    }


@pytest.fixture(params=["holding", "trading", "seeds"])
def run(request, runs):
    return runs[request.param]


def headline(run):
    return next(row for row in run.summary["table"] if row["tier"] == "base" and row["kind"] == "agent")


def results(page):
    """Return the tables of results: the short one at base cost, and the one of every tier with its groups' titles."""
    return [table for table in page.tables if len(table[0]) == 1 + len(KEYS)]


def test_the_runs_are_what_they_are_called(runs):
    assert headline(runs["holding"])["trades"] == 0
    assert headline(runs["trading"])["trades"] > 10
    assert len(runs["seeds"].summary["jobs"]) == 2


def test_the_headline_is_the_agents_row(run):
    row, said = headline(run), run.page.text.replace("\u2212", "-").replace("\xa0", " ")
    annual, low, high = re.search(
        r"After base costs: (\S+) % a year .*? interval (\S+) to (\S+) %", said
    ).groups()
    assert agrees(annual, 100 * row["annual_return_frac"])
    assert agrees(low, 100 * row["low_frac"])
    assert agrees(high, 100 * row["high_frac"])


def test_every_row_of_results_is_that_of_the_summary(run):
    short, every = results(run.page)
    by_policy = {row["policy"]: row for row in run.summary["table"] if row["tier"] == "base"}
    for cells in short[1:]:
        row_agrees(cells, by_policy[cells[0]])
    tiers = ("raw", "base", "retail")
    expected = [row for tier in tiers for row in run.summary["table"] if row["tier"] == tier]
    found = [cells for cells in every[1:] if len(cells) > 1]
    assert len(found) == len(expected) > 30
    for cells, row in zip(found, expected, strict=True):
        row_agrees(cells, row)


def test_every_other_table_is_in_the_summary(run):
    summary, values = run.summary, []
    values += [[v for v in row if isinstance(v, int | float)] for t in summary["tables"] for row in t["rows"]]
    values += [[None if x is None else 100 * x for x in row] for row in summary.get("months", {}).values()]
    stress = ("net_return_frac", "sharpe_ann", "max_drawdown_frac", "cost_frac")
    values += [[shown(row, key) for key in stress] for row in summary.get("stress", ())]
    values += [[row["statistic"], row["p_holm"]] for row in summary.get("drift", {}).get("rows", ())]
    values += [[file["bytes"] / 1e3] for file in summary["files"]]
    values += [[s["bars"]] for split in summary["data"]["splits"].values() for s in split.values()]
    values += [list(numbers(job)) for job in summary["jobs"]]
    compared = 0
    for table in run.page.tables:
        if len(table[0]) == 1 + len(KEYS):
            continue
        for cells in table[1:]:
            printed = [text for text in cells[1:] if NUMBER.fullmatch(text.strip())]
            known = [v for row in values for v in row if v is not None]
            for text in printed:
                assert any(agrees(text, value) for value in known), (text, cells)
            whole = [row for row in values if len(row) >= len(printed)]
            assert not printed or any(in_order(printed, row) for row in whole), cells
            compared += len(printed)
    assert compared > 20


def numbers(value):
    """Yield every plain number of a tree."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def in_order(printed, row):
    """Say whether the printed numbers are values of one row, one after another."""
    left = iter([v for v in row if v is not None])
    return all(any(agrees(text, value) for value in left) for text in printed)


def test_the_facts_of_the_run_are_those_of_the_summary(run):
    facts, summary = run.page.facts, run.summary
    plain = {str(k): v for k, v in summary["run"].items() if isinstance(v, int | float)}
    titles = {"train_s": "Training time [s]", "updates": "Updates", "episodes": "Episodes", "seed": "Seed"}
    for key, title in titles.items():
        assert agrees(facts[title], plain[key]), (key, facts[title])


def test_the_self_test_is_that_of_the_summary(run):
    facts, said = run.summary["self_test"], run.page.text
    percents = [f"{100 * facts[key]:.0f}%" for key in ("capture", "mark")]
    assert all(text in said for text in percents)
    assert f"{facts['bars']:,}" in said


# -- the CSV files


def csv(run):
    return (pd.read_csv(run.out / name) for name in ("equity.csv", "fills.csv", "daily_returns.csv"))


def test_the_headlines_figures_are_those_of_the_csv_files(run):
    equity, fills, daily = csv(run)
    start = run.summary["run"]["env_config"]["initial_equity"]
    returns, curve = daily["net_return_frac"].to_numpy(), np.append(start, equity["equity_ccy"])
    growth = float(np.prod(1.0 + returns))
    deviation = returns.std(ddof=1)
    computed = {
        "net_return_frac": curve[-1] / start - 1.0,
        "annual_return_frac": growth ** (260.0 / len(returns)) - 1.0,
        "sharpe_ann": returns.mean() / deviation * np.sqrt(260.0) if deviation else 0.0,
        "max_drawdown_frac": float((1.0 - curve / np.maximum.accumulate(curve)).max()),
        "cost_frac": equity["costs_paid_ccy"].iloc[-1] / start,
        "trades": len(fills),
    }
    assert growth == pytest.approx(curve[-1] / start, rel=1e-9)
    assert fills["cost_ccy"].sum() <= equity["costs_paid_ccy"].iloc[-1] + 1e-6  # swap is no fill
    (cells,) = [row for row in results(run.page)[0] if row[0] == headline(run)["policy"]]
    for key, value in computed.items():
        text = cells[1 + KEYS.index(key)]
        assert agrees(text, 100 * value if key.endswith("_frac") else value), (key, text, value)


@pytest.mark.parametrize("name", ["trading", "seeds"])
def test_the_trade_statistics_are_those_of_the_csv_files(runs, name):
    run = runs[name]
    equity, fills, daily = csv(run)
    profit = fills["profit_ccy"][fills["closed_units"] > 0].to_numpy()
    held, days = equity["exposure_x_equity"].to_numpy(), daily["net_return_frac"].to_numpy()
    peak, under = 1.0, []
    for value in np.cumprod(1.0 + days):
        under.append(value < peak)
        peak = max(peak, value)
    runs_below = [len(list(group)) for below, group in itertools.groupby(under) if below]
    computed = {
        "Trades closed": len(profit),
        "Win rate [%]": 100.0 * np.mean(profit > 0),
        "Profit factor": profit[profit > 0].sum() / -profit[profit < 0].sum(),
        "Time in the market [%]": 100.0 * np.mean(np.abs(held) >= 0.01),
        "Time long [%]": 100.0 * np.mean(held >= 0.01),
        "Time short [%]": 100.0 * np.mean(held <= -0.01),
        "Longest drawdown [trading days]": max(runs_below, default=0),
        "Best day [%]": 100.0 * days.max(),
        "Worst day [%]": 100.0 * days.min(),
        "Largest order [account currency]": (fills["size_units"] * fills["price"]).max(),
    }
    for title, value in computed.items():
        assert agrees(run.page.facts[title], value), (title, run.page.facts[title], value)
    stated = run.summary["statistics"]
    assert agrees(run.page.facts["Mean hold [h]"], stated["mean_hold_h"])
    assert agrees(run.page.facts["Turnover [x equity / day]"], stated["turnover_per_day"])


@pytest.mark.parametrize("name", ["trading", "seeds"])
def test_the_months_are_those_of_the_daily_returns(runs, name):
    run = runs[name]
    *_, daily = csv(run)
    by_month = (1.0 + daily["net_return_frac"]).groupby(daily["date"].str[:7]).prod() - 1.0
    (table,) = [t for t in run.page.tables if t[0][1:] and t[0][1] == "Jan"]
    printed = {f"{cells[0]}-{m:02d}": cells[m] for cells in table[1:] for m in range(1, 13)}
    assert {key for key, text in printed.items() if NUMBER.search(text)} == set(by_month.index)
    for month, value in by_month.items():
        assert agrees(printed[month], 100.0 * value), (month, printed[month], value)


@pytest.mark.parametrize(
    ("text", "value", "same"),
    [("12.35", 12.3456, True), ("12.34", 12.3456, False), ("1,234", 1234.4, True), ("-0.50", -0.5, True),
     ("no value", None, True), ("0.00", None, False), ("0.00", 0.0049, True), ("0.01", 0.0049, False),
     ("1.98e+12", 1.9785e12, True), ("1.98e+12", 1.96e12, False)],
)  # fmt: skip
def test_numbers_are_compared_at_their_own_precision(text, value, same):
    assert agrees(text, value) is same
