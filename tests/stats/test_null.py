"""The pipeline null's arithmetic, by brute force and against other libraries."""

import itertools
import math

import numpy as np
import pytest

from sac_kernel.stats import null


@pytest.mark.parametrize(
    ("real", "copies", "p"),
    [
        (5.0, [1, 2, 3, 4], 1 / 5),
        (3.0, [1, 2, 3, 4], 3 / 5),  # the tie counts against us
        (0.0, [1, 2, 3, 4], 1.0),
        (3.0, [1, math.nan, 2], 2 / 4),  # so does a copy without a value
        (3.0, [], 1.0),
    ],
)
def test_p_value_by_hand(real, copies, p):
    assert null.p_value(real, copies) == pytest.approx(p, rel=1e-15)


def test_p_value_does_not_exist_without_a_real_value():
    assert math.isnan(null.p_value(math.nan, [1.0, 2.0]))


@pytest.mark.parametrize("stop_at", [0, 2, 3])
def test_every_order_of_exchangeable_values_is_rejected_no_more_often_than_its_level(stop_at):
    # All 720 orders of six different values are equally likely under the null; the first is the real one.
    found = [null.p_value(order[0], order[1:], stop_at) for order in itertools.permutations(range(6))]
    for level in sorted(set(found)):
        assert np.mean([p <= level + 1e-12 for p in found]) <= level + 1e-12
    assert min(found) == pytest.approx(1 / 6)


def test_sequential_stop_by_hand():
    # The second copy at or above 2 is the fourth: p = 2 / 4, whatever follows.
    assert null.p_value(2.0, [3, 1, 1, 2, 1, 1, 1], stop_at=2) == 0.5
    assert null.p_value(2.0, [3, 1, 1, 1], stop_at=2) == 2 / 5  # never reached: as without a stop


def test_copies_end_once_every_statistic_is_decided():
    real, copies = {"t": 2.0, "growth": 1.0}, {"t": [3, 3, 1], "growth": [0, 0, 2]}
    assert not null.is_decided(real, copies, 2)
    assert null.is_decided(real, copies, 1)
    assert null.is_decided({**real, "growth": math.nan}, copies, 2)


def test_result_is_holms_over_both_statistics():
    multiple = pytest.importorskip("statsmodels.stats.multitest")
    rng = np.random.default_rng(0)
    copies = {"t": rng.normal(size=39).tolist(), "growth": rng.normal(size=39).tolist()}
    real = {"t": 1.2, "growth": 2.5}
    found = null.result(real, copies)
    raw = [(1 + sum(c >= real[k] for c in copies[k])) / 40 for k in real]
    assert list(found["p_values"].values()) == pytest.approx(raw)
    assert found["p_value"] == pytest.approx(min(multiple.multipletests(raw, method="holm")[1]), rel=1e-12)
    assert (found["copies"], found["statistic"], found["values"]) == (39, real, copies)
    # 39 copies are the fewest with which one statistic above all of them passes at 5 %.
    assert found["least_p"] == 0.05
    best = null.result({"t": 9.0, "growth": 0.0}, copies)
    assert best["p_value"] == 0.05
    assert null.result(real, {k: v[:38] for k, v in copies.items()})["least_p"] == pytest.approx(2 / 39)


def test_no_trade_gives_no_p_and_a_missing_statistic_still_counts_for_holm():
    copies = {"t": [0.0] * 39, "growth": [0.0] * 39}
    nothing = null.result({"t": math.nan, "growth": math.nan}, copies)
    assert nothing["p_value"] is None
    assert nothing["p_values"] == {"t": None, "growth": None}
    one = null.result({"t": 1.0, "growth": math.nan}, copies)
    assert one["p_value"] == pytest.approx(2 / 40)


def test_offsets_are_distinct_whole_weeks_beyond_memory_horizon_and_margin():
    # 60 + 1 + 20 = 81 days: from the 12th week on; 365 spare days: 52 weeks. 41 fit.
    assert sorted(null.week_offsets(365, 60, 1, 100)) == list(range(12, 53))
    some = null.week_offsets(365, 60, 1, 10)
    assert len(set(some)) == 10
    assert min(some) * 7 >= 81
    assert max(some) * 7 <= 365
    assert null.week_offsets(83, 60, 1, 10).size == 0
    assert null.week_offsets(84, 60, 1, 10).tolist() == [12]
    assert not np.array_equal(some, null.week_offsets(365, 60, 1, 10, seed=1))


def test_rows_before_are_those_of_the_same_local_time():
    # Hourly rows of three weeks, without one day; clocks go back at row 200, so one hour repeats.
    hours = np.delete(np.arange(24 * 21), slice(24 * 9, 24 * 10))
    local = 3600 * (hours - (hours >= 200))
    found = null.rows_before(local, 1)
    for row in range(local.size):
        fitting = [k for k in range(local.size) if local[k] <= local[row] - 7 * 86_400]
        assert found[row] == (max(fitting) if fitting else -1)
    assert (found < np.arange(local.size)).all()


def test_power_has_exact_intervals_and_the_strength_found_four_times_in_five():
    stats = pytest.importorskip("scipy.stats")
    found = null.power([0.5, 1.0, 1.5, 2.0], [2, 8, 14, 18], 20)
    for row in found["rows"]:
        exact = stats.binomtest(row["found"], 20).proportion_ci(0.95, "exact")
        assert (row["low"], row["high"]) == pytest.approx((exact.low, exact.high), abs=1e-9)
    # .7 at 1.5 and .9 at 2: .8 lies half way.
    assert found["sharpe_ann"] == pytest.approx(1.75)
    assert "1.8" in found["sentence"]


def test_power_fits_shares_that_fall_by_chance_and_says_where_it_is_lacking():
    # 18 and 14 of 20 are pooled to 16: .8 is reached on the way from .4 at 1 to .8 at 1.5.
    assert null.power([1.0, 1.5, 2.0], [8, 18, 14], 20)["sharpe_ann"] == pytest.approx(1.5)
    lacking = null.power([1.0, 2.0], [3, 12], 20)
    assert lacking["sharpe_ann"] is None
    assert "12" in lacking["sentence"]
    assert null.power([1.0, 2.0], [20, 20], 20)["sharpe_ann"] == 1.0
    assert null.power([1.0], [0], 20)["rows"][0]["low"] == 0.0
