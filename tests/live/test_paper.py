"""Paper trading is the backtest, whatever kills it on the way; journals, feeds and the kill switch."""

import base64
import json
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sac_kernel.backtest import runner, trades
from sac_kernel.cli.main import main, make_parser
from sac_kernel.core.errors import CheckpointError, DataError
from sac_kernel.live import paper, paper_page
from sac_kernel.live.decide import Decider
from sac_kernel.live.feed import BarFiles, one_by_one
from sac_kernel.live.journal import Journal
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.prices.costs import trading_day
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.instruments import EURUSD, spec_of
from sac_kernel.stats import evidence
from tests.conftest import make_bars
from tests.support import says, told
from tests.use_models import lively_agent

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {
    1: TradingEnvConfig(),
    3: TradingEnvConfig(
        decision_interval_min=240,
        stop_loss_bps=20,
        take_profit_bps=30,
        daily_loss_limit=0.004,
        drawdown_stop=0.02,
    ),
}


def write_csv(bars, path):
    bars[["open", "high", "low", "close"]].to_csv(path, date_format="%Y-%m-%dT%H:%M:%S+00:00")


def options(folder, journal, *more):
    names = {"--model": "agent.pt", "--history": "data.h5", "--bars": "EURUSD.csv"}
    paths = [part for name, file in names.items() for part in (name, str(folder / file))]
    return [*paths, "--journal", str(journal), *more]


def journal_of(folder):
    lines = (folder / paper.JOURNAL_FILE).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def world(sample, tmp_path_factory):
    """Folders with an agent, its data and a feed of the test split, and the backtest of each; by agent."""
    worlds = {}
    for agent_id, config in CONFIGS.items():
        folder = tmp_path_factory.mktemp(f"agent_{agent_id}")
        agent, market = lively_agent(folder / "agent.pt", sample, agent_id, config)
        write_processed(sample, folder / "data.h5")
        write_csv(sample.test["EURUSD"], folder / "EURUSD.csv")
        worlds[agent_id] = folder, runner.validate(agent, market, config.initial_equity)
    return worlds


@pytest.fixture(scope="module")
def uncut(world, tmp_path_factory):
    """The journal of a replay that nothing interrupted, and its last printed line; by agent."""
    out, said = {}, []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    paper.logger.addHandler(handler)
    paper.logger.setLevel(logging.INFO)
    for agent_id, (folder, _) in world.items():
        target = tmp_path_factory.mktemp("uncut")
        assert main(["paper", *options(folder, target, "--speed", "0")]) == 0
        out[agent_id] = (target / paper.JOURNAL_FILE).read_bytes(), said[-1]
    paper.logger.removeHandler(handler)
    return out


@pytest.mark.parametrize("agent_id", CONFIGS)
def test_a_replayed_feed_is_the_backtest(agent_id, world, uncut):
    backtest = world[agent_id][1]
    journal, last_said = uncut[agent_id]
    lines = [json.loads(line) for line in journal.splitlines()][1:]
    decided = [line for line in lines if "account" in line]
    k = {1: 1, 3: 4}[agent_id]
    assert len(lines) > 1100
    assert [line["asked"] for line in decided][: len(backtest.action)] == backtest.action.tolist()
    # The backtest's records stand at the closes of its decisions; the last one is closed at cost.
    equity = [line["equity"] for line in lines]
    assert equity[k::k][: len(backtest.equity) - 1] == backtest.equity[:-1].tolist()
    assert told(last_said, f"{backtest.equity[-1]:,.2f}")
    assert backtest.trades > 100
    if agent_id == 3:
        assert any(line["halted"] for line in lines)
        assert not all(line["halted"] for line in lines[-1000:])


@pytest.mark.parametrize(("agent_id", "share"), [(1, 0.9), (3, 0.77)])
def test_a_journal_cut_anywhere_goes_on_to_the_very_same_bytes(agent_id, share, world, uncut, tmp_path):
    folder, whole = world[agent_id][0], uncut[agent_id][0]
    header = whole.index(b"\n") + 1
    (tmp_path / paper.JOURNAL_FILE).write_bytes(whole[: header + int(share * (len(whole) - header))])
    assert main(["paper", *options(folder, tmp_path, "--speed", "0")]) == 0
    assert (tmp_path / paper.JOURNAL_FILE).read_bytes() == whole


def test_a_journal_whose_accounts_are_lists_goes_on(world, uncut, tmp_path):
    folder, whole = world[3][0], [json.loads(line) for line in uncut[3][0].splitlines()]
    begun = [dict(line) for line in whole[: len(whole) // 2]]
    for line in begun:
        if "account" in line:
            line["account"] = list(line["account"].values())
    path = tmp_path / paper.JOURNAL_FILE
    path.write_text("".join(json.dumps(line) + "\n" for line in begun), encoding="utf-8")
    assert main(["paper", *options(folder, tmp_path, "--speed", "0")]) == 0
    assert journal_of(tmp_path) == begun + whole[len(begun) :]
    assert np.array_equal(paper_page.costs(journal_of(tmp_path)[1:]), paper_page.costs(whole[1:]))


def test_kill_9_in_the_middle_and_the_same_command_again(world, uncut, tmp_path):
    folder, path = world[3][0], tmp_path / paper.JOURNAL_FILE
    command = [sys.executable, "-m", "sac_kernel.paper", *options(folder, tmp_path, "--speed", "1000")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and (not path.is_file() or path.read_bytes().count(b"\n") < 800):
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert 800 <= path.read_bytes().count(b"\n") < 1100
    assert uncut[3][0].startswith(path.read_bytes())
    assert main(["paper", *options(folder, tmp_path, "--speed", "0")]) == 0
    assert path.read_bytes() == uncut[3][0]


# -- what a session refuses


@pytest.fixture
def short(world, sample, tmp_path):
    """A folder as agent 1's, with a feed of 60 bars, after one session over the first 40."""
    folder = world[1][0]
    bars = sample.test["EURUSD"].iloc[:60]
    write_csv(bars.iloc[:40], tmp_path / "EURUSD.csv")
    for name in ("agent.pt", "data.h5"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert main(["paper", *options(tmp_path, tmp_path, "--speed", "0")]) == 0
    write_csv(bars, tmp_path / "EURUSD.csv")
    return tmp_path


def opened(folder, *more):
    words = ["paper", *options(folder, folder, "--speed", "0", *more)]
    return paper.open_session(make_parser(words).parse_args(words))


def test_a_grown_file_goes_on_where_the_session_was(short, uncut):
    assert main(["paper", *options(short, short, "--speed", "0")]) == 0
    first = b"".join(uncut[1][0].splitlines(keepends=True)[:61])
    assert (short / paper.JOURNAL_FILE).read_bytes() == first


def test_evidence_is_that_of_the_journals_complete_days_also_when_the_session_goes_on(short):
    session = opened(short).session
    lines = journal_of(short)[1:]
    day = trading_day(pd.DatetimeIndex([line["open_time_utc"] for line in lines]) + pd.Timedelta(minutes=59))
    equity = np.array([line["equity"] for line in lines])
    last = [equity[day == d][-1] for d in np.unique(day)]
    daily = np.diff([100_000.0, *last]) / [100_000.0, *last[:-1]]
    found = session.evidence()
    assert vars(found) == pytest.approx(vars(evidence.of_returns(daily[:-1], 0.2)))
    assert found.days == len(last) - 1 >= 1
    page = (short / paper.PAGE_FILE).read_text(encoding="utf-8")
    assert told(page, f"e = {found.now:.2f}", "at least 20", f"{found.days} complete")


def test_the_page_is_the_journal_drawn(short):
    lines = journal_of(short)[1:]
    text = (short / paper.PAGE_FILE).read_text(encoding="utf-8")
    assert '<meta http-equiv="refresh" content="15">' in text
    assert "Paper account: EURUSD since 2017-10-23 08:00" in text
    rows = [re.findall(r"<td>([^<]*)</td>", row) for row in re.findall(r"<tr>(<td>.*?)</tr>", text)]
    fills = [(line["open_time_utc"], fill) for line in lines for fill in line.get("fills", ())]
    assert len(rows) == 8 + 12
    for cells, (when, fill) in zip(rows, reversed(fills[-8:]), strict=False):
        assert cells == [
            when[5:16].replace("T", " "),
            "open",
            f"{'buy' if fill['units'] > 0 else 'sell'} {abs(fill['units']):,.0f}",
            f"{fill['price']:.5f}",
            f"{fill['cost']:,.2f}",
            f"{fill['position']:+,.0f}",
        ]
    for cells, line in zip(rows[8:], lines[:-13:-1], strict=True):
        assert cells == [
            line["open_time_utc"][5:16].replace("T", " "),
            f"{line['bar'][-1]:.5f}",
            f"{line['equity']:,.2f}",
            f"{line['exposure']:+.3f}",
            f"{line['target']:+.3f}",
        ]
    figures = dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<\n]*)", text))
    last, equity = lines[-1], np.array([1e5, *(line["equity"] for line in lines)])
    side = "short" if last["units"] < 0 else "long"
    assert figures == {
        "Equity": f"{last['equity']:,.2f}",
        "Position": f"{side} {abs(last['exposure']):.3f} x equity",
        "Open profit": f"{last['open_profit']:+,.2f}",
        "Costs paid": f"{last['costs']:,.2f}",
        "Evidence": "e = 1.00",
        "Market": "drift: 3 of 20 days",
        "Last close": "2017-10-25 00:00 UTC",
    }
    drawdown = 100 * (1 - equity / np.maximum.accumulate(equity)).max()
    assert told(
        text, f"{last['equity'] / 1e3 - 100:+.2f} %", f"{drawdown:.2f} %", f"{last['units']:+,.0f} units"
    )
    paid, assumed = (sum(fill[name] for _, fill in fills) for name in ("cost", "assumed"))
    assert told(text, f"{paid:,.2f} for {len(fills)} fills", f"{assumed:,.2f} by")
    # The account's own count of its costs, after it was restored from the journal.
    account = opened(short).session.account
    costs = paper_page.costs(lines)
    assert costs[-1] == pytest.approx(account.report().costs, rel=1e-12)
    assert paid + account.now.swap_paid == pytest.approx(costs[-1], rel=1e-12)
    assert assumed == pytest.approx(paid, rel=1e-9)  # the tier that the agent was trained with
    assert costs[0] == 0.0
    assert (np.diff(costs) >= 0).all()
    pictures = re.findall(r"base64,([^\"]+)", text)
    assert [base64.b64decode(png)[:4] for png in pictures] == [b"\x89PNG"] * 2
    assert pictures[0] != pictures[1]
    assert "<script" not in text  # a replay has no age


def test_the_fills_of_the_journal_are_the_backtests(world, uncut, sample):
    """Agent 3 has stops, profits and limits: they fill inside a bar, within an interval of four."""
    config = CONFIGS[3]
    for agent_id in CONFIGS:
        folder, backtest = world[agent_id]
        config = CONFIGS[agent_id]
        decider = Decider.from_checkpoint(folder / "agent.pt", "ask")
        decider.follow(pd.concat([sample.train["EURUSD"], sample.val["EURUSD"]]))
        rows, observed = decider.append(sample.test["EURUSD"])
        market = decider.as_market(rows, observed, sample.test["EURUSD"].index)
        known = trades.fills_of(market, backtest)
        known = known[known["place"] < 2]
        lines = [json.loads(line) for line in uncut[agent_id][0].splitlines()][1:]
        made = [(i, fill) for i, line in enumerate(lines) for fill in line.get("fills", ())]
        assert [i for i, _ in made] == known["t"].astype(int).tolist()
        for name in ("place", "units", "price", "cost", "position"):
            np.testing.assert_allclose([fill[name] for _, fill in made], known[name], rtol=1e-9)
        assert (agent_id == 3) == any(fill["place"] == 1 for _, fill in made)
        assert config.cost_tier == "base"


def test_costs_of_another_tier_stand_beside_those_of_the_training(short):
    """Retail costs 14 / 3 of base, swap apart."""
    (short / paper.JOURNAL_FILE).unlink()
    assert main(["paper", *options(short, short, "--speed", "0", "--cost-tier", "retail")]) == 0
    fills = [fill for line in journal_of(short)[1:] for fill in line.get("fills", ())]
    assert len(fills) > 20
    for fill in fills:
        assert fill["cost"] == pytest.approx(14 / 3 * fill["assumed"], rel=1e-3)


def test_the_account_pays_the_costs_of_its_instrument(short):
    session = opened(short).session
    session.journal.close()
    decider = session.decider
    decider.spec = spec_of("XAUUSD")
    terms = paper.PaperAccount(decider, 1e5, {})._terms
    assert (terms.commission, terms.slippage) == pytest.approx((0.35e-4, 0.3e-4))


@pytest.mark.parametrize(
    ("closed", "due"),
    [
        ("2024-03-13 12:00", "2024-03-13 13:02"),
        ("2024-03-15 21:00", "2024-03-17 22:02"),  # Friday and Sunday 17:00 New York, in summer time
    ],
)
def test_a_live_page_warns_when_the_next_bar_is_late_by_the_calendar(closed, due, tmp_path):
    closed_s, due_s = (int(pd.Timestamp(t, tz="UTC").timestamp()) for t in (closed, due))
    assert paper_page.due(closed_s, 3600, EURUSD) == due_s
    opened_at = pd.Timestamp(closed_s - 3600, unit="s", tz="UTC").isoformat()
    bar = {"open_time_utc": opened_at, "bar": [1.0] * 4, "equity": 1e5, "exposure": 0.0, "halted": True}
    standing = paper_page.Standing(evidence.Evidence(), "drift", 3600, EURUSD, live=True)
    paper_page.write_page(tmp_path / "p.html", [{"instrument": "EURUSD"}, bar], standing)
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert f'data-due-s="{due_s}" hidden' in text
    assert f'data-closed-s="{closed_s}"' in text
    assert text.count("<script>") == 1
    assert '<meta name="viewport" content="width=device-width' in text
    assert text.count('role="alert"') == 2  # halted, and the one that the script shows


def test_a_watched_file_has_its_page_while_it_waits(short):
    """The page is written before the loop sleeps for the first time."""

    def stop(_):
        assert (short / paper.PAGE_FILE).stat().st_mtime_ns > before
        raise KeyboardInterrupt

    before = (short / paper.PAGE_FILE).stat().st_mtime_ns
    session = opened(short)
    with session.session.journal, pytest.raises(KeyboardInterrupt):
        paper.follow(session, None, stop)
    assert len(journal_of(short)) == 1 + 60  # what came while nobody looked


def test_other_terms_than_the_journals_are_refused_by_name(short):
    with pytest.raises(CheckpointError, match=says("start_equity", "100000.0", "5000.0")):
        opened(short, "--equity", "5000")


def test_a_bar_that_was_revised_since_is_refused_by_time(short):
    text = (short / "EURUSD.csv").read_text(encoding="utf-8").splitlines()
    time_, open_, high, low, close = text[20].split(",")
    text[20] = f"{time_},{open_},{float(high) + 0.001},{low},{close}"
    (short / "EURUSD.csv").write_text("\n".join(text) + "\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=says(time_[:10])):
        opened(short)


def test_a_line_in_the_middle_that_is_no_line_is_refused_by_number(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.append({"a": 1})
        journal.append({"b": 2.5})
    assert Journal(tmp_path / "j").lines == [{"a": 1}, {"b": 2.5}]
    (tmp_path / "j").write_bytes(b'{"a":1}\n{"a\n{"b":2}\n')
    with pytest.raises(CheckpointError, match=says("line 2")):
        Journal(tmp_path / "j")


def test_a_torn_last_line_is_cut_off_and_written_over(tmp_path):
    path = tmp_path / "j"
    path.write_bytes(b'{"a":1}\n{"b":')
    with Journal(path) as journal:
        assert (journal.lines, journal.torn_bytes) == ([{"a": 1}], 5)
        journal.append({"b": 2})
    assert path.read_bytes() == b'{"a":1}\n{"b":2}\n'


# -- the kill switch


def test_the_kill_file_flattens_at_the_next_open_for_good(short):
    session, feed, after, _ = opened(short)
    held = []
    for i, bars in enumerate(feed.replay(after)):
        if i == 5:
            (short / paper.KILL_FILE).touch()
        session.take(bars)
        held.append(session.account.now.units)
    assert all(held[:6])
    assert not any(held[6:])
    session.journal.close()
    lines = journal_of(short)
    assert [line["halted"] for line in lines[41:]] == [False] * 5 + [True] * 15
    # It stays so in the next session, the file gone or not.
    (short / paper.KILL_FILE).unlink()
    again = opened(short).session
    assert again.account.now.halted_until == np.inf
    again.journal.close()


def test_limits_bind_an_agent_that_was_trained_without(short, tmp_path):
    (short / paper.JOURNAL_FILE).unlink()
    session, feed, after, _ = opened(short, "--kill-loss", "0.0005")
    for bars in feed.replay(after):
        session.take(bars)
    session.journal.close()
    lines = journal_of(short)[1:]
    first = next(i for i, line in enumerate(lines) if line["equity"] <= 100_000 * (1 - 0.0005))
    assert 0 < first < 55
    assert [line["halted"] for line in lines] == [i >= first for i in range(60)]
    assert all(line["exposure"] == 0.0 for line in lines[first + 1 :])


# -- feeds


def test_a_tail_gives_each_bar_once_when_its_line_is_whole(tmp_path):
    bars, path = make_bars(3000, bar_seconds=300), tmp_path / "EURUSD.csv"
    write_csv(bars.iloc[:1200], path)
    assert path.stat().st_size > 1 << 16  # only its end is read
    feed = BarFiles(path, "EURUSD", (), "bid", None).tail(bars.index[1197])
    got = [next(feed) for _ in range(3)]
    assert [step and step["EURUSD"].index[0] for step in got] == [bars.index[1198], bars.index[1199], None]
    write_csv(bars.iloc[:1202], path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text[:-5], encoding="utf-8")
    assert next(feed)["EURUSD"].index[0] == bars.index[1200]
    assert next(feed) is None
    assert next(feed) is None
    path.write_text(text, encoding="utf-8")
    step = next(feed)["EURUSD"]
    assert step.index[0] == bars.index[1201]
    assert step["close"].to_numpy() == bars["close"].to_numpy()[1201]
    assert next(feed) is None
    write_csv(bars, path)  # more at once than the end that is read
    rest = [next(feed)["EURUSD"].index[0] for _ in range(1798)]
    assert rest == list(bars.index[1202:])


def test_the_others_bars_come_with_the_first_traded_bar_that_knows_them():
    own, other = make_bars(4, weekends=False), make_bars(9, bar_seconds=1800, weekends=False)
    steps = list(one_by_one({"EURUSD": own, "XAUUSD": other}, "EURUSD", own.index[0]))
    assert [len(step["XAUUSD"]) for step in steps] == [3, 2, 2]
    assert steps[1]["XAUUSD"].index[-1] == own.index[2]


def test_a_tail_of_a_format_that_does_not_grow_is_refused(tmp_path):
    (tmp_path / "EURUSD.parquet").touch()
    with pytest.raises(DataError, match=says("--speed")):
        next(BarFiles(tmp_path / "EURUSD.parquet", "EURUSD", (), "bid", None).tail())


def test_what_comes_from_files_is_escaped_on_the_page(tmp_path):
    bad = "<script>alert('x')</script>"
    line = {
        "bar": [1.0, 1.0, 1.0, 1.1],
        "equity": 1e5,
        "exposure": 0.5,
        "halted": False,
        "why": {"limits": [bad], "out_of_range": [bad]},
    }
    bars = [{**line, "open_time_utc": f"2024-01-02T0{hour}:00:00+00:00"} for hour in range(3)]
    path = tmp_path / "page.html"
    standing = paper_page.Standing(evidence.Evidence(), bad, 3600, EURUSD, live=False)
    paper_page.write_page(path, [{"instrument": bad}, *bars], standing)
    text = path.read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 2 + 1 + 2 * 3  # title and heading, drift, two reasons a row
