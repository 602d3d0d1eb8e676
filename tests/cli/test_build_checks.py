"""What cannot run is refused at the build, all of it at once."""

import pytest

from sac_kernel.cli.build_checks import check_run, fold_lines, trading_days, with_folds
from sac_kernel.core.errors import ConfigError
from sac_kernel.prices.ingest.split import split_table
from sac_kernel.prices.ingest.tables import BarTable
from sac_kernel.prices.pipeline import DataConfig
from tests.conftest import make_bars, make_data
from tests.support import says


def test_a_run_that_fits_passes():
    check_run(make_data(1600), {})


def test_every_fault_is_named_at_once():
    # 60 % of 1,600 hourly bars are 960; two days of them warm up, and the first return needs one
    with pytest.raises(ConfigError, match=says("device", "'gpu'", "3,000", "911", "env_horizon")):
        check_run(make_data(1600), {"device": "gpu", "learner": "gaussian"})


def own_data(days, folds=8, source="synthetic"):
    """Hourly bars of so many whole trading days, split for a walk-forward."""
    return split_table(BarTable(make_bars(24 * days), source, "UTC"), DataConfig(folds=folds))


def test_the_test_split_of_own_bars_is_the_last_block_of_a_walk_forward():
    data = own_data(560)
    count = {name: len(split["EURUSD"]) for name, split in data.splits.items()}
    # Eight blocks of a twelfth of the bars each, less 120 hours of embargo, which may hold a weekend.
    assert count["train"] == 24 * 560 * 10 // 12
    assert 24 * 560 / 12 - 120 <= count["test"] <= 24 * 560 / 12 - 60
    found = with_folds(data, {})
    assert (found["folds"], found["seeds"], found["null_copies"]) == (8, [0, 1, 2, 3, 4], 39)
    check_run(data, found)
    assert says("8 folds", str(len(trading_days(data.test["EURUSD"]))), "120 trainings")
    assert "120 trainings" in fold_lines(data, found)[0]  # 8 folds, 5 seeds, 3 tiers


@pytest.mark.parametrize(
    ("days", "folds"),
    [(235, 0), (250, 5), (300, 6), (900, 8)],  # blocks of at least 30 days in two thirds of them
)
def test_folds_are_as_many_as_the_days_allow(days, folds):
    data = own_data(days)
    share = len(data.train["EURUSD"]) / (24 * days)
    assert share == pytest.approx(1.0 - 4.0 / 3.0 / folds if folds else 0.6, abs=0.01)
    assert bool(with_folds(data, {}).get("folds")) is bool(folds)


def test_what_the_user_sets_stays():
    data = own_data(560)
    assert with_folds(data, {"folds": 0}) == {"folds": 0}
    assert with_folds(data, {"folds": 2, "seeds": [3]}) == {"folds": 2, "seeds": [3]}
    assert with_folds(data, {"seeds": [3], "null_copies": 9})["seeds"] == [3]
    assert with_folds(data, {"seeds": [3], "null_copies": 9})["null_copies"] == 9
    assert with_folds(data, {"learner": "gaussian"})["null_copies"] == 0
    assert with_folds(data, {"learner": "both"}) == {"learner": "both"}


def test_the_sample_is_judged_on_one_split():
    assert with_folds(own_data(560, source="sample of gym-anytrading"), {}) == {}


def test_folds_that_do_not_fit_are_refused_with_the_number_that_does():
    with pytest.raises(ConfigError, match=says("null_copies = 9", "folds")):
        check_run(make_data(1600), {"null_copies": 9})
    data = own_data(560, folds=0)  # 112 test days of 560: two blocks leave as many train days, four do not
    check_run(data, {"folds": 2})
    with pytest.raises(ConfigError, match=says("folds = 5", "set folds to 2")):
        check_run(data, {"folds": 5})
