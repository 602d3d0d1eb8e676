"""Evidence while trading on paper: by hand, against a slow twin, and its false alarms."""

import math

import numpy as np
import pytest

from benchmarks import calibrate
from sac_kernel.core.errors import DataError
from sac_kernel.stats import evidence
from sac_kernel.stats.evidence import Evidence
from tests.support import says

SHARPES = (0.5, 1.0, 2.0, 3.0, 4.0)


def slow_evidence(returns, largest):
    """The bets one by one, each from what was known on the day before."""
    stakes, found = [1.0] * 5, []
    for t, gain in enumerate(returns):
        past = returns[:t]
        for j, sharpe in enumerate(SHARPES):
            if sum(x != 0 for x in past) >= 10:
                deviation = math.sqrt(sum(x * x for x in past) / len(past))
                stakes[j] *= 1 + min(sharpe / math.sqrt(260) / deviation, 1 / largest) * min(gain, largest)
        found.append(sum(stakes) / 5)
    return found


def test_evidence_is_that_of_bets_one_by_one():
    returns = np.random.default_rng(0).standard_t(4, 120) * 0.004 + 0.001
    returns[[0, 3, 50]] = 0.0
    returns[70] = 0.09  # clipped
    assert evidence.e_process(returns, 0.05) == pytest.approx(
        slow_evidence(returns.tolist(), 0.05), rel=1e-12
    )


def test_a_bet_sees_nothing_of_its_own_day_or_later():
    returns = np.random.default_rng(1).normal(0, 0.005, 60)
    changed = returns.copy()
    changed[40:] *= -3
    assert np.array_equal(evidence.e_process(returns, 0.2)[:40], evidence.e_process(changed, 0.2)[:40])
    # Day 40 gains or loses in proportion to its return: the bet itself is the same.
    one, other = (evidence.e_process(x, 0.2) for x in (returns, changed))
    assert (other[40] / one[39] - 1) / (one[40] / one[39] - 1) == pytest.approx(-3.0)


def test_losses_count_in_full_and_one_beyond_the_largest_ends_the_evidence():
    returns = np.tile([0.004, -0.003], 20)
    assert (evidence.e_process(returns, 0.05) > 0).all()
    returns[30] = -0.051
    found = evidence.e_process(returns, 0.05)
    assert found[29] > 0
    assert not found[30:].any()


def test_no_bet_before_ten_returns_are_known():
    returns = np.concatenate([np.zeros(5), np.full(11, 0.004)])
    found = evidence.e_process(returns, 0.2)
    assert (found[:15] == 1.0).all()
    assert found[15] > 1.0
    assert evidence.e_process(np.zeros(30), 0.2).tolist() == [1.0] * 30
    assert evidence.e_process(np.zeros(0), 0.2).size == 0


@pytest.mark.parametrize(
    ("cap", "limit", "largest"),
    [(1.0, 0.0, 0.2), (0.5, 0.0, 0.1), (1.0, 0.02, 0.07), (30.0, 0.0, 1.0), (1.0, 0.5, 0.2)],
)
def test_largest_loss_of_a_day_by_hand(cap, limit, largest):
    assert evidence.largest_daily_loss(cap, limit) == pytest.approx(largest)


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.1, math.nan])
def test_a_largest_loss_that_cannot_be_is_refused(bad):
    with pytest.raises(DataError, match=says("largest_loss", bad)):
        evidence.e_process(np.zeros(3), bad)


@pytest.mark.parametrize(("sharpe", "years"), [(1.0, 6.0), (2.0, 1.5), (3.0, 0.7)])
def test_expected_years_at_best(sharpe, years):
    # log 20 = 3.0 and a rate of Sharpe^2 / 2 a year.
    assert evidence.expected_years(sharpe) == pytest.approx(years, abs=0.05)
    assert evidence.expected_years(sharpe) == pytest.approx(2 * math.log(20) / sharpe**2)


def test_a_bound_on_the_bet_costs_time():
    # Sharpe 2, sd .005, loss .2: bets of 5 with mean .00062 and variance 25e-6 a day: rate 5 x .00062 - 25 x 12.5e-6.
    rate = 5 * 0.005 * 2 / math.sqrt(260) - 25 * 0.005**2 / 2
    assert evidence.expected_years(2.0, 0.2) == pytest.approx(math.log(20) / rate / 260)
    assert evidence.expected_years(2.0, 0.2) > evidence.expected_years(2.0)
    assert evidence.expected_years(0.0) == math.inf


def test_summary_has_days_and_weeks_and_leaves_out_the_day_that_is_not_over():
    daily = np.random.default_rng(2).normal(0.0005, 0.005, 43)
    equity = 100.0 * np.cumprod(1 + np.repeat(daily, 2) ** 1 * np.tile([0.0, 1.0], 43))
    day = np.repeat(np.arange(43), 2)
    found = evidence.of_equity(equity, day, 100.0, 0.2)
    assert found.days == 42
    assert found.now == pytest.approx(evidence.e_process(daily[:42], 0.2)[-1], rel=1e-9)
    weeks = [np.prod(1 + daily[i : i + 5]) - 1 for i in range(0, 40, 5)]
    assert found.weekly == pytest.approx(slow_evidence(weeks, 1 - 0.8**5)[-1], rel=1e-9)
    assert found.highest >= found.now
    assert found.deviation == pytest.approx(daily[:42].std(), rel=1e-9)
    assert evidence.of_equity(equity[:1], day[:1], 100.0, 0.2) == Evidence()
    assert evidence.of_returns(daily[:3], 0.2).weekly == 1.0


@pytest.mark.parametrize("make", [calibrate.random_walk, calibrate.garch, calibrate.leveraged_garch])
def test_false_alarms_under_daily_peeking_for_three_years(make):
    # At a true rate of 5 % more than 32 of 400 happen once in 100 times; 16 or so alarms would be allowed.
    rates = calibrate.false_evidence({"null": make}, 400, 1)
    assert [rate.sets for rate in rates] == [400, 400]
    assert all(rate.false_edges <= 32 for rate in rates)


def test_a_true_edge_is_shown_about_when_it_is_expected():
    days = calibrate.with_sharpe(calibrate.random_walk(60, 1300, np.random.default_rng(3)), 3.0)
    first = [np.argmax(evidence.e_process(x, 0.07) >= 20) / 260 for x in days]
    expected = evidence.expected_years(3.0, 0.07)
    assert 0.8 * expected < np.median(first) < 1.6 * expected
