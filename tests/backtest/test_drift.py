"""Drift: against another library, by simulation, and on shifts of known size."""

import math

import numpy as np
import pytest

from sac_kernel.backtest import drift
from sac_kernel.backtest.drift import Series
from sac_kernel.core.errors import DataError
from tests.stats.test_significance import ar1
from tests.support import says, told


def test_daily_means_are_those_of_each_day():
    values = np.array([[1.0, 5.0], [3.0, 5.0], [10.0, 7.0], [np.nan, 1.0], [2.0, 2.0]])
    found = drift.daily_means(values, np.array([4, 4, 5, 5, 9]))
    assert found.tolist() == [[2.0, 5.0], [10.0, 7.0], [2.0, 2.0]]
    assert drift.daily_means(np.full((2, 3), np.nan), np.array([1, 2])).shape == (0, 3)


def test_ks_is_that_of_another_library():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 300), np.round(rng.normal(0.2, 1, 120), 1)  # with ties
    expected = stats.ks_2samp(a, b, method="asymp")
    assert drift.ks_distance(a, b) == pytest.approx(expected.statistic, abs=1e-12)
    # Stephens' approximation of the one-sample law at the effective size, and the law itself.
    law = stats.distributions.kstwo.sf(0.1, round(300 * 120 / 420))
    assert drift.ks_p_value(0.1, 300, 120) == pytest.approx(law, abs=0.01)
    assert drift.ks_p_value(0.01, 100, 100) == 1.0


def test_brownian_motion_stays_inside_as_often_as_simulated():
    paths = np.abs(
        np.cumsum(np.random.default_rng(1).normal(0, 1 / math.sqrt(2000), (3000, 2000)), axis=1)
    ).max(axis=1)
    for reach in (1.0, 1.5, 2.24):
        assert drift.brownian_p_value(reach) == pytest.approx(np.mean(paths > reach), abs=0.03)
    assert drift.brownian_p_value(2.2414) == pytest.approx(0.05, abs=1e-3)  # the textbook's 5 % point
    assert drift.brownian_p_value(0.1) == 1.0


def test_independent_days_of_an_autoregression():
    # The variance of a mean of an AR(1) series is that of n (1 - rho) / (1 + rho) independent days.
    assert drift.independent_days(ar1(0.5, 20_000)) == pytest.approx(20_000 / 3, rel=0.08)
    assert drift.independent_days(ar1(-0.5, 20_000)) == 20_000


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_false_alarms_are_rare_even_for_slow_series(rho):
    words = [
        drift.check(
            {
                f"f{i}": Series(ar1(rho, 500, seed=9 * k + i), ar1(rho, 80, seed=5000 + 9 * k + i))
                for i in range(5)
            }
        )
        for k in range(150)
    ]
    # 1 % aimed at; the asymptotic tests on correlated series are allowed 5 %.
    assert sum(found["word"] == "retrain" for found in words) <= 8


@pytest.mark.parametrize("change", ["mean", "spread"])
def test_a_shift_is_found_and_named(change):
    calm = [np.random.default_rng(k).normal(0, 1, n) for k, n in enumerate((500, 100, 500, 100))]
    moved = calm[1] + 1.0 if change == "mean" else 3.0 * calm[1]
    found = drift.check({"volatility": Series(calm[0], moved), "rsi": Series(calm[2], calm[3])})
    assert found["word"] == "retrain"
    assert told(found["sentence"], "volatility")
    assert not told(found["sentence"], "rsi")
    assert found["rows"][0]["name"] == "volatility"
    assert not any(row["alarm"] for row in found["rows"] if row["name"] == "rsi")


def test_no_change_is_keep():
    same = np.random.default_rng(3).normal(0, 1, 700)
    found = drift.check({"a": Series(same[:600], same[600:])})
    assert found["word"] == "keep"
    assert told(found["sentence"], 1)


def test_too_few_days_are_refused():
    with pytest.raises(DataError, match=says("20 days", 30, 19)):
        drift.check({"a": Series(np.zeros(30), np.zeros(19))})
