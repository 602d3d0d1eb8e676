"""The sections of the page: months by hand, keys and figures for a real judgement, drift that is planted."""

import dataclasses
import html
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sac_kernel.agent.config import SACConfig
from sac_kernel.agent.sac import SACAgent
from sac_kernel.backtest import policies, runner
from sac_kernel.backtest.judgement import judge
from sac_kernel.backtest.policies import Form
from sac_kernel.experiment import job_outputs
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.records import PRICES
from sac_kernel.report import page as report
from sac_kernel.report import sections
from sac_kernel.stats import significance
from sac_kernel.stats.trials import Trial
from sac_kernel.stats.verdict import TrialCount
from tests.backtest.test_evaluation import random_agent, result_of
from tests.conftest import make_data
from tests.support import told

CONFIG = TradingEnvConfig(episode_lengths=(60,), horizon=100)


@pytest.fixture(scope="module")
def judged():
    data = make_data(4000)
    features = FeaturePipeline().run_full_pipeline(data.train, data.val, data.test)
    test, train = (data.test["EURUSD"], features[2]), (data.train["EURUSD"], features[0])
    agent = random_agent(runner.market_of(*test, CONFIG, "base"))
    policy = policies.agent(1, Form.FINAL)
    return agent, judge({policy: agent}, *test, CONFIG, 30, train=train, counted=TrialCount())


@pytest.fixture(scope="module")
def shown(judged):
    return sections.sections(judged[1], judged[0])


def test_months_compound_the_days_of_each_calendar_month():
    # 2020-01-30, -31 and 2020-02-01: day numbers since 1970; two days of 1 % and one of -2 %.
    days = (np.array(["2020-01-30", "2020-01-31", "2020-02-01"], "datetime64[D]")).astype(np.int64)
    result = dataclasses.replace(result_of([0.01, 0.01, -0.02]), day=days)
    found = sections.months(result)
    assert list(found) == ["2020"]
    assert found["2020"][0] == pytest.approx(1.01**2 - 1)
    assert found["2020"][1] == pytest.approx(-0.02)
    assert found["2020"][2:12] == [None] * 10
    assert found["2020"][12] == pytest.approx(1.01**2 * 0.98 - 1)


def test_months_of_two_years_multiply_to_the_whole_return(judged):
    base = judged[1].results["base"][0]
    years = [row[12] for row in sections.months(base).values()]
    assert np.prod([1 + y for y in years]) == pytest.approx(base.equity[-1] / base.start_equity)


def test_sections_of_a_judgement_and_the_figures_that_go_with_them(judged, shown):
    keys = [
        "tables",
        "months",
        "stress",
        "costs",
        "break_even_multiple",
        "statistics",
        "inputs",
        "policy",
        "drift",
    ]
    assert list(shown) == keys
    assert set(shown["inputs"]) == set(judged[1].market.observation_names)
    assert list(sections.figures(judged[1], shown)) == ["costs", "inputs", "policy", "drift"]


def test_days_are_sorted_by_what_the_market_did_on_them():
    # Three days of two bars: moves of 1 + 1, -2 + 1 and 6 - 3 (in %): sizes 1.41, 2.24, 6.71, moves +2, -1, +3.
    day = np.array([1, 1, 2, 2, 3, 3, 9])
    change = np.array([0.01, 0.01, -0.02, 0.01, 0.06, -0.03, 0.5])  # day 9 was not traded
    result = dataclasses.replace(result_of([0.01, -0.02, 0.04]), day=np.array([1, 2, 3]))
    rows = {row[0]: row[1:] for row in sections.regimes_table(result, day, change)["rows"]}
    assert [rows[name][0] for name in rows] == [1, 1, 1, 2, 1]
    assert rows["calm third (realised volatility)"][1] == pytest.approx(100 * (1.01**260 - 1))
    assert rows["middle third"][1] == pytest.approx(100 * (0.98**260 - 1))
    assert rows["wild third"][1] == pytest.approx(100 * (1.04**260 - 1))
    assert rows["market rose"][1] == pytest.approx(100 * ((1.01 * 1.04) ** 130 - 1))
    assert rows["market fell"][2] is None  # one day has no interval


def trial_of(i, daily):
    return Trial(1, 0, "val", i, "c", "d", np.arange(len(daily)), daily)


def test_the_search_is_told_with_spa_stepm_and_pbo(monkeypatch):
    rng = np.random.default_rng(0)
    models = {"agent 1": rng.normal(0.002, 0.005, 200), "agent 2": rng.normal(0, 0.005, 200)}
    ledger = [trial_of(i, rng.normal(0, 0.005, 64)) for i in range(12)]
    rows = sections.search_table(models, {"flat": np.zeros(200)}, ledger)["rows"]
    stacked = np.stack(list(models.values()), axis=1)
    assert rows[0][1] == significance.spa_p_value(stacked, np.zeros(200)) < 0.05
    assert rows[1][1] == 1
    assert told(rows[1][2], "agent 1", "5 %")
    assert rows[2][1] == significance.pbo(np.stack([t.daily for t in ledger], axis=1))
    assert told(rows[2][2], "12 checkpoints", "64 days")
    monkeypatch.setattr(significance.importlib.util, "find_spec", lambda name: None)
    bare = sections.search_table(models, {"flat": np.zeros(200)}, ledger[:4])
    assert bare["rows"] == []  # what cannot be computed is a sentence, said once
    assert bare["note"].count("arch") == 1
    assert told(bare["note"], 10, "32 days", 4)


def test_clock_features_are_not_watched_for_drift(judged):
    watched = sections.watched_series(judged[1].train, judged[1].market)
    assert {"return", "volatility"} < set(watched)
    assert not {"hour_sin", "weekday_cos", "time_to_rollover", "can_trade"} & set(watched)
    assert "eurusd_return_1h" in watched


def test_daily_return_and_volatility_are_those_of_the_closes(judged):
    market = judged[1].market
    found = sections.watched_series(judged[1].train, market)
    frame = pd.DataFrame(
        {"day": market.bars["trading_day"], "r": np.log(pd.Series(market.bars["close"])).diff()}
    )
    by_day = frame[1:].groupby("day")["r"]
    size = np.median(frame.groupby("day").size())
    np.testing.assert_allclose(found["return"].now[1:], (size * by_day.mean()).to_numpy()[1:], rtol=1e-9)
    rms = np.sqrt((frame[1:]["r"] ** 2).groupby(frame[1:]["day"]).mean())
    np.testing.assert_allclose(found["volatility"].now[1:], np.log(rms).to_numpy()[1:], rtol=1e-6)


def test_a_market_three_times_as_volatile_is_a_reason_to_retrain(judged):
    _, judgement = judged
    bars = judgement.market.bars.copy()
    start = float(bars["open"][0])
    for name in PRICES:
        bars[name] = start * (bars[name] / start) ** 3
    wild = dataclasses.replace(judgement, market=dataclasses.replace(judgement.market, bars=bars))
    found = sections.sections(wild)["drift"]
    assert found["word"] == "retrain"
    assert "volatility" in found["sentence"]


def test_without_train_rows_or_a_trade_the_section_is_left_out(judged):
    _, judgement = judged
    bare = dataclasses.replace(judgement, train=None)
    found = sections.sections(bare)
    assert list(found) == ["tables", "months", "stress", "costs", "break_even_multiple", "statistics"]
    assert list(sections.figures(bare, found)) == ["costs"]
    width = len(judgement.market.observation_names)
    flat = SACAgent(SACConfig(state_dim=width, hidden_dims=(16,)), device="cpu")
    base = [runner.validate(flat, judgement.market, 1e5)]
    still = dataclasses.replace(judgement, results={**judgement.results, "base": base})
    shown = sections.sections(still, flat)
    assert not {"inputs", "months", "stress", "costs", "statistics"} & set(shown)
    assert shown["no_trade"]


def test_the_page_shows_every_section(judged, shown, tmp_path):
    _, judgement = judged
    summary = {"verdict": judgement.verdict, "table": judgement.rows, **shown}
    path = report.write_report(tmp_path, summary, sections.figures(judgement, shown))
    page = path.read_text(encoding="utf-8")
    rows = [*shown["months"], *(row["scenario"] for row in shown["stress"]), "perfect foresight (bound)"]
    for name in rows:
        assert f'<th scope="row">{html.escape(name)}</th>' in page, name
    assert html.escape(shown["drift"]["sentence"]) in page
    assert page.count('class="yes"') + page.count('class="no"') == len(judgement.verdict["marks"])


def test_drawn_passes_are_the_agents_and_what_they_must_beat(judged):
    names = [result.name for result in judged[1].drawn]
    assert names == [
        "agent 1 (final)",
        "buy and hold",
        "momentum, 5 days",
        "ridge + band",
        "random, same turnover",
    ]


def test_the_headline_is_corrected_for_the_agents_of_a_run_and_not_for_its_seeds():
    def job(agent_id):
        return SimpleNamespace(final=SimpleNamespace(agent_id=agent_id))

    def judged_as(p):
        return SimpleNamespace(
            verdict={"word": "edge", "p_value": p, "marks": [], "sentence": "", "notes": []}
        )

    jobs, judgements = [job(1), job(1), job(2)], [judged_as(0.03), judged_as(0.9), judged_as(0.04)]
    found = job_outputs._verdict(jobs, judgements)
    assert found["p_holm"] == pytest.approx(0.06)  # two agents: .03 x 2
    assert found["word"] == "not shown"
    assert job_outputs._verdict(jobs[:2], judgements[:2])["word"] == "edge"  # one agent, two seeds
