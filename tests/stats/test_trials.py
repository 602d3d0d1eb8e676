"""The ledger: append-only, merged by id, and what its trials amount to."""

import numpy as np
import pytest

from sac_kernel.core.errors import DataError
from sac_kernel.stats import trials
from sac_kernel.stats.trials import Trial
from tests.support import says, told


def trial(checkpoint=1, seed=0, daily=None, first=17_000, n=120):
    daily = np.random.default_rng([checkpoint, seed]).normal(0, 0.01, n) if daily is None else daily
    day = first + np.arange(len(daily)) // 5 * 7 + np.arange(len(daily)) % 5  # weekends are no days
    return Trial(1, seed, "val", checkpoint, "c0ffee", "da7a", day, np.asarray(daily))


def test_a_ledger_gives_back_what_was_written(tmp_path):
    path = tmp_path / "out" / trials.NAME
    assert trials.read(path) is None
    assert trials.append(path, [trial(1), trial(2)]) == 2
    found = trials.read(path)
    assert [t.checkpoint for t in found] == [1, 2]
    np.testing.assert_array_equal(found[0].day, trial(1).day)
    np.testing.assert_allclose(found[0].daily, trial(1).daily, atol=5.1e-8)  # three decimals of a bp


def test_the_same_trial_scored_again_adds_nothing_and_changes_nothing(tmp_path):
    path = tmp_path / trials.NAME
    trials.append(path, [trial(1)])
    before = path.read_bytes()
    assert trials.append(path, [trial(1, daily=np.zeros(50))]) == 0
    assert path.read_bytes() == before
    assert trials.append(path, [trial(1, daily=np.zeros(50)), trial(1, seed=9)]) == 1
    assert path.read_bytes().startswith(before)  # append-only


def test_ledgers_merge_by_id_in_any_order(tmp_path):
    home, away, absent = tmp_path / "home.csv", tmp_path / "away.csv", tmp_path / "absent.csv"
    trials.append(home, [trial(1), trial(2)])
    trials.append(away, [trial(2), trial(3)])
    assert trials.merge(home, [away, absent]) == 1
    assert [t.checkpoint for t in trials.read(home)] == [1, 2, 3]
    assert trials.merge(home, [away]) == 0


@pytest.mark.parametrize("damage", ["checkpoint", "days", "id", "cut"])
def test_a_damaged_line_is_named(tmp_path, damage):
    path = tmp_path / trials.NAME
    trials.append(path, [trial(1), trial(2)])
    lines = path.read_text().splitlines()
    fields = lines[2].split(",")
    fields[{"checkpoint": 4, "days": 7, "id": 0, "cut": 8}[damage]] = {"cut": "1.0 2.0", "days": "x"}.get(
        damage, "7"
    )
    path.write_text("\n".join([*lines[:2], ",".join(fields)]) + "\n")
    with pytest.raises(DataError, match=says("line 3")):
        trials.read(path)


def test_another_table_is_refused_and_kept(tmp_path):
    path = tmp_path / trials.NAME
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=says("trial_id")):
        trials.append(path, [trial(1)])
    assert path.read_text() == "a,b\n1,2\n"
    assert [p.name for p in tmp_path.iterdir()] == [trials.NAME]


def test_a_missing_ledger_is_a_count_that_is_not_known():
    found = trials.count(None, at_least=12)
    assert not found.known
    assert told(found, 12)
    assert trials.count([]).known


def test_equal_trials_count_as_one_and_independent_ones_as_many():
    days = np.random.default_rng(0).normal(0, 0.01, 2000)
    same = trials.count([trial(k, daily=days) for k in range(6)])
    assert (same.listed, same.effective) == (6, pytest.approx(1.0, abs=1e-3))
    apart = trials.count([trial(k, n=2000) for k in range(6)])
    assert apart.effective == pytest.approx(6.0, abs=0.05)
    rng = np.random.default_rng(1)
    nearly = trials.count([trial(k, daily=days + rng.normal(0, 0.003, 2000)) for k in range(6)])
    assert 1.0 < nearly.effective < 3.0


def test_count_does_not_depend_on_the_order_of_the_rows_and_takes_a_flat_trial_as_zero():
    rows = [*(trial(k, seed) for k in range(7) for seed in range(3)), trial(9, daily=np.zeros(120))]
    shuffled = [rows[i] for i in np.random.default_rng(3).permutation(len(rows))]
    assert trials.count(shuffled) == trials.count(rows)
    scaled = [0.0, *(t.daily.mean() / t.daily.std(ddof=1) * np.sqrt(120) for t in rows[:-1])]
    assert trials.count(rows).spread == pytest.approx(max(1.0, np.var(scaled, ddof=1)))


def test_trials_of_other_days_count_as_independent():
    days = np.random.default_rng(0).normal(0, 0.01, 100)
    apart = [trial(1, daily=days), trial(2, daily=days, first=30_000)]
    assert trials.count(apart).effective == pytest.approx(2.0)


def test_correlation_over_shared_days_is_that_of_another_library():
    import pandas as pd

    rng = np.random.default_rng(2)
    base = rng.normal(0, 0.01, 150)
    some = [
        trial(1, daily=base[:100]),
        trial(2, daily=(base + rng.normal(0, 0.01, 150))),
        trial(3, daily=base[:60] * -1 + rng.normal(0, 0.01, 60)),
    ]
    expected = pd.DataFrame(trials.matrix(some)[1]).corr(min_periods=20).to_numpy()
    np.testing.assert_allclose(trials._correlation(some), expected, atol=1e-9)


def test_spread_is_the_variance_of_sharpe_ratios_over_that_of_luck():
    # Sharpe ratios of luck alone vary by 1 / days: 400 trials give 1, within the error of a variance, 7 %.
    lucky = trials.count([trial(k, n=100) for k in range(400)])
    assert lucky.spread == pytest.approx(1.0, abs=0.25)
    wild = [trial(k, daily=trial(k, n=100).daily + (k % 2) * 0.006) for k in range(40)]
    assert trials.count(wild).spread > 5
