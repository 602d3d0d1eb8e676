"""The rule, mark by mark; its error rates, against exact intervals and on sets without an edge."""

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import calibrate
from sac_kernel.stats import significance, verdict
from sac_kernel.stats.verdict import ErrorRate, TrialCount

ROOT = Path(__file__).resolve().parents[2]
ONE = TrialCount()
GAIN = np.tile([0.002, 0.001], 50)  # every bootstrap mean lies between .26 and .52 a year
NOISE = np.tile([0.01, -0.01], 50)  # mean 0: the interval straddles 0


@pytest.mark.parametrize(
    ("daily", "percentile", "trials", "word"),
    [
        (GAIN, 0.96, ONE, "edge (null not run)"),
        (GAIN, 1.0, TrialCount(50, 20.0, 1.0), "edge (null not run)"),
        (GAIN, 0.95, ONE, "not shown"),  # must beat more than 95 % of random policies
        (GAIN, 0.50, ONE, "not shown"),
        (GAIN, 0.99, None, "not shown"),  # no ledger: capped
        (GAIN, 0.99, TrialCount(7, 7.0, 1.0, known=False), "not shown"),
        (GAIN[:59], 0.99, ONE, "not shown"),  # 59 days are too few
        (GAIN[:60], 0.99, ONE, "edge (null not run)"),
        (NOISE, 0.99, ONE, "not shown"),
        (-GAIN, 0.99, ONE, "none"),
        (-GAIN, 0.01, None, "none"),
        (GAIN[:19], 0.99, ONE, "not shown"),
        (-GAIN[:19], 0.0, ONE, "not shown"),  # too few for an interval: not even a no
    ],
)
def test_rule(daily, percentile, trials, word):
    found = verdict.decide(daily, percentile, trials)
    assert found["word"] == word
    assert found["sentence"]


@pytest.mark.parametrize(
    ("daily", "p", "word", "passed"),
    [
        (GAIN, 0.05, "edge", True),
        (GAIN, 0.051, "not shown", False),
        (GAIN, None, "not shown", False),  # the null's agents never traded
        (NOISE, 0.01, "not shown", True),
        (-GAIN, 0.01, "none", True),
    ],
)
def test_rule_reads_the_pipelines_null(daily, p, word, passed):
    null = {"p_value": p, "copies": 39, "sentence": "S."}
    found = verdict.decide(daily, 0.99, ONE, null=null)
    assert found["word"] == word
    mark = found["marks"][-1]
    assert (mark["key"], mark["threshold"], mark["passed"]) == ("null", 0.05, passed)
    assert "39" in mark["found"]
    assert found["null"] == null
    assert found["questions"][1]["answer"].startswith("S.")


def test_four_questions_have_their_answers():
    found = verdict.decide(GAIN, 0.99, ONE, power={"sharpe_ann": 1.7, "sentence": "P."})
    assert [q["key"] for q in found["questions"]] == ["earns", "luck", "seen", "skill"]
    earns, luck, seen, _ = (q["answer"] for q in found["questions"])
    # 260 days at (1.002 x 1.001)^130 - 1 = 47.7 %.
    assert found["annual_frac"] == pytest.approx((1.002 * 1.001) ** 130 - 1)
    assert "47.7" in earns
    assert f"{found['dsr']:.3f}" in luck
    assert seen == "P." == found["notes"][0]
    few = verdict.decide(GAIN[:19], 0.99, ONE)
    assert [bool(q["answer"]) for q in few["questions"]] == [True] * 4


def test_series_of_zeros_has_no_deflated_sharpe_ratio():
    found = verdict.decide(np.zeros(100), None, ONE, 0.0)
    assert found["word"] == "none"
    assert all(math.isnan(found[key]) for key in ("dsr", "psr", "p_value", "sharpe_ann", "sharpe_lo_ann"))
    assert verdict.over_agents([found])[0]["p_holm"] == 1.0
    mark = next(m for m in found["marks"] if m["key"] == "dsr")
    assert mark["passed"] is False


def test_sharpe_ratio_of_the_year_allows_for_serial_correlation():
    rng = np.random.default_rng(7)
    noise = rng.normal(0.0003, 0.005, 601)
    daily = noise[1:] + 0.4 * noise[:-1]
    found = verdict.decide(daily, None, ONE)
    m = significance.moments(daily)
    # The sum of rho^k over an endless year: sqrt(260 (1 - rho) / (1 + rho)); 259 lags are nearly that.
    expected = m.sharpe * math.sqrt(260 * (1 - m.rho) / (1 + m.rho))
    assert found["sharpe_lo_ann"] == pytest.approx(expected, rel=0.005)
    assert 0.2 < found["rho"] < 0.5


def test_many_trials_turn_an_edge_into_one_not_shown():
    # Annual Sharpe 1.6 over five years: 3.6 standard errors. The best of 1,000 has 3.26 by luck.
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.005, 1300)
    daily = 0.005 * ((noise - noise.mean()) / noise.std() + 1.6 / math.sqrt(260))
    words = [verdict.decide(daily, None, TrialCount(n, float(n)))["word"] for n in (1, 10, 1000)]
    assert words == ["edge (null not run)", "edge (null not run)", "not shown"]
    wild = verdict.decide(daily, None, TrialCount(10, 10.0, spread=4.0))  # hurdle twice as high
    assert wild["word"] == "not shown"
    assert wild["dsr"] < verdict.decide(daily, None, TrialCount(10, 10.0))["dsr"]


def test_flat_is_none_whatever_the_curve():
    found = verdict.decide(GAIN, None, ONE, turnover=0.0)
    assert found["word"] == "none"
    assert "flat" in found["sentence"]


def test_figures_are_those_of_their_formulas():
    daily = np.random.default_rng(1).normal(0.0002, 0.005, 500)
    found = verdict.decide(daily, 0.9, TrialCount(12, 5.0, 1.5))
    m = significance.moments(daily)
    assert found["sharpe_ann"] == pytest.approx(math.sqrt(260) * m.sharpe)
    assert found["dsr"] == significance.dsr(m, 5.0, 1.5 / 500)
    assert found["psr"] == significance.psr(m) > found["dsr"]
    assert (found["low_frac"], found["high_frac"]) == significance.bootstrap_interval(daily)
    assert "500 days" in found["sentence"]
    days, interval, deflated, random, trials = found["marks"]
    assert (days["value"], days["threshold"]) == (500, 60)
    assert (interval["value"], interval["threshold"]) == (found["low_frac"], 0.0)
    assert (deflated["value"], deflated["threshold"]) == (found["dsr"], 0.95)
    assert (random["value"], random["threshold"]) == (0.9, 0.95)
    assert (trials["value"], trials["passed"]) == (12, True)
    assert str(TrialCount(12, 5.0, 1.5)) in deflated["found"]


def test_every_mark_is_named_and_those_not_passed_are_in_the_sentence():
    found = verdict.decide(NOISE, 0.99, None)
    assert [(mark["key"], mark["passed"]) for mark in found["marks"]] == [
        ("days", True),
        ("interval", False),
        ("dsr", False),
        ("random", True),
        ("trials", False),
    ]
    missed = [mark["name"] for mark in found["marks"] if not mark["passed"]]
    assert all(name in found["sentence"] and name not in found["finding"] for name in missed)
    assert found["sentence"].startswith(found["finding"])
    assert any(str(TrialCount(known=False)) in note for note in found["notes"])


def test_power_statement_is_the_sharpe_ratio_found_in_four_of_five_sets():
    # 400 sets of one year with just that true Sharpe ratio: 80 %, give or take three errors of 2 %.
    sharpe = verdict.detectable_sharpe(260, ONE)
    assert sharpe == pytest.approx(1.96 + 0.8416, abs=1e-3)
    days = calibrate.random_walk(400, 260, np.random.default_rng(2))
    found = calibrate.edges(calibrate.with_sharpe(days, sharpe)) / 400
    assert found == pytest.approx(0.80, abs=0.06)
    assert verdict.detectable_sharpe(260, TrialCount(20, 20.0)) > sharpe
    assert math.isnan(verdict.detectable_sharpe(59, ONE))
    note = verdict.decide(NOISE, 0.5, ONE)["notes"][0]
    assert "100 days" in note
    assert f"{verdict.detectable_sharpe(100, ONE):.1f}" == "4.5" in note


def test_three_agents_are_corrected_for_their_number():
    base = {"marks": [], "sentence": "", "notes": []}
    three = [{**base, "word": "edge", "p_value": p} for p in (0.01, 0.03, 0.02)]
    found = verdict.over_agents(three)
    # Holm: .01 x 3 = .03 passes; .02 x 2 = .04 passes; .03 x 1, not below the one before: .04 passes.
    assert [v["p_holm"] for v in found] == pytest.approx([0.03, 0.04, 0.04])
    assert [v["word"] for v in found] == ["edge"] * 3
    others = verdict.over_agents([{**v, "word": "edge (null not run)"} for v in three])
    assert [v["word"] for v in others] == ["edge (null not run)"] * 3
    worse = verdict.over_agents([{**v, "p_value": v["p_value"] + 0.01} for v in three])
    assert [v["word"] for v in worse] == ["not shown"] * 3  # .02 x 3 = .06 already fails
    last = worse[0]["marks"][-1]
    assert (last["key"], last["passed"], last["value"]) == ("holm", False, pytest.approx(0.06))
    assert worse[0]["finding"] == worse[0]["sentence"] != ""
    assert verdict.over_agents([{**base, "word": "none", "p_value": None}])[0]["word"] == "none"


@pytest.mark.parametrize(("count", "total"), [(0, 60), (3, 60), (64, 2000), (1999, 2000)])
def test_upper_bound_is_the_exact_one(count, total):
    # At the bound, so few are found once in 20 times.
    bound, counts = verdict.upper_bound(count, total), range(count + 1)
    few = sum(math.comb(total, k) * bound**k * (1 - bound) ** (total - k) for k in counts[:65])
    assert (few if count < 65 else 1 - bound**total) == pytest.approx(0.05, rel=1e-9)
    assert verdict.upper_bound(5, 5) == 1.0


# -- calibration, short form (python -m benchmarks.calibrate is the long one) ------------------------


def test_printed_error_rates_are_within_five_percent_and_those_of_the_page():
    page = (ROOT / "docs" / "verdict.md").read_text(encoding="utf-8")
    assert {rate.market for rate in verdict.CALIBRATION} >= {
        "random walk",
        "GARCH with leverage",
        "serial correlation 0.3",
        "overlapping holds of 5 days",
        "real days",
    }
    for rate in verdict.CALIBRATION:
        assert rate.upper <= 0.05
        assert rate.sets == 2000
        assert f"| {rate.market} | {rate.days} | {rate.false_edges} of {rate.sets} |" in page
    worst = max(verdict.CALIBRATION, key=lambda r: r.upper)
    told = f"{worst.false_edges} of {worst.sets:,}"
    assert sum(told in note for note in verdict.decide(NOISE, 0.5, ONE)["notes"]) == 1


@pytest.mark.parametrize(
    "make",
    [
        calibrate.random_walk,
        calibrate.garch,
        calibrate.leveraged_garch,
        calibrate.correlated(0.3),
        calibrate.overlapping(5),
        calibrate.rare_losses,
    ],
)
def test_rule_seldom_sees_an_edge_in_noise(make):
    # At a true rate of 3 %, more than 22 of 300 happen once in 10,000 times; at 10 %, fewer once in 20.
    assert calibrate.edges(make(300, 260, np.random.default_rng(3))) <= 22


def test_rule_seldom_sees_an_edge_in_real_days_of_random_sign(shared_data):
    real = calibrate.real_days(shared_data / "fx_m5_2017_2019")
    assert 700 < real.size < 800
    assert 0.003 < real.std() < 0.006
    assert calibrate.edges(calibrate.signed(real)(200, 260, np.random.default_rng(4))) <= 17


def test_best_of_twenty_is_no_edge_once_the_trials_are_counted():
    chosen = calibrate.best_of(calibrate.random_walk, 150, 260, np.random.default_rng(5))
    assert calibrate.edges(chosen, TrialCount(20, 20.0)) <= 12
    assert calibrate.edges(chosen) > 50  # uncounted, the same sets would mislead


@pytest.mark.parametrize(("sharpe", "least"), [(2.0, 0.80), (3.0, 0.95)])
def test_rule_sees_a_true_edge_over_five_years(sharpe, least):
    days = calibrate.with_sharpe(calibrate.garch(60, 1300, np.random.default_rng(6)), sharpe)
    assert calibrate.edges(days) / 60 >= least


def test_real_days_are_absent_where_the_bars_are(tmp_path):
    assert calibrate.real_days(tmp_path) is None


def test_a_rule_that_misses_a_mark_fails_the_calibration():
    good = [ErrorRate("random walk", 260, 60, 2000)]
    power = [{"sharpe": 2.0, "trials": 1, "share": 0.8}, {"sharpe": 3.0, "trials": 1, "share": 0.95}]
    assert calibrate.passes(good, power)
    assert not calibrate.passes([ErrorRate("random walk", 260, 90, 2000)], power)
    assert not calibrate.passes(good, [{**power[0], "share": 0.79}])


def test_null_markets_are_what_they_are_called():
    sets = [
        make(400, 500, np.random.default_rng(8))
        for make in (calibrate.overlapping(5), calibrate.correlated(0.3))
    ]
    lags = [[np.mean(x[:, k:] * x[:, :-k]) / np.mean(x**2) for k in (1, 2, 5)] for x in sets]
    assert lags[0] == pytest.approx([0.8, 0.6, 0.0], abs=0.02)
    assert lags[1] == pytest.approx([0.3, 0.09, 0.0], abs=0.02)
    days = calibrate.leveraged_garch(400, 500, np.random.default_rng(9))
    after_loss = days[:, 1:][days[:, :-1] < -0.005].std()
    assert after_loss > 1.1 * days[:, 1:][days[:, :-1] > 0.005].std()
    rare = calibrate.rare_losses(400, 500, np.random.default_rng(10))
    assert ((rare - rare.mean()) ** 3).mean() / rare.std() ** 3 < -1.0
    for x in (*sets, days, rare):
        assert x.mean() == pytest.approx(0.0, abs=4 * x.std(axis=1).mean() * 3 / math.sqrt(x.size))
