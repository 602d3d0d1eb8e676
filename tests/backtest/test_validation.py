"""Splitters against an independent enumerator; folds through the engine; the window that opens once."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sac_kernel.backtest import combinatorial, runner, validation
from sac_kernel.backtest.final_window import FinalWindow
from sac_kernel.backtest.validation import Fold
from sac_kernel.core import files
from sac_kernel.core.errors import ConfigError, DataError
from sac_kernel.market.account import TradingEnvConfig
from tests.conftest import make_bars
from tests.support import says

CONFIG = TradingEnvConfig()


def test_walk_forward_by_hand():
    first, second = validation.walk_forward(10, folds=2, test_days=2, val_days=1, purge_days=1)
    assert [x.tolist() for x in (first.train, first.val, first.test)] == [[0, 1, 2], [4], [6, 7]]
    assert [x.tolist() for x in (second.train, second.val, second.test)] == [[0, 1, 2, 3, 4], [6], [8, 9]]
    rolling = validation.walk_forward(10, folds=2, test_days=2, val_days=1, purge_days=1, expanding=False)
    assert rolling[1].train.tolist() == [2, 3, 4]


@given(st.integers(40, 300), st.integers(1, 5), st.integers(1, 8), st.integers(0, 5), st.integers(0, 4))
@settings(max_examples=80, deadline=None)
def test_walk_forward_never_lets_a_day_see_its_future(days, folds, test_days, val_days, purge_days):
    if days - folds * test_days - val_days - 2 * purge_days < 2:
        return
    found = validation.walk_forward(days, folds, test_days, val_days, purge_days)
    assert np.concatenate([f.test for f in found]).tolist() == list(range(days - folds * test_days, days))
    for fold in found:
        assert fold.train.size >= 2
        assert fold.val.size == val_days
        for before, after in itertools.pairwise([x for x in (fold.train, fold.val, fold.test) if x.size]):
            assert after[0] - before[-1] == purge_days + 1


def test_walk_forward_without_room_says_what_was_asked():
    with pytest.raises(DataError, match=says("100", "4", "25", "10")):
        validation.walk_forward(100, 4, 25, 10)
    with pytest.raises(ConfigError, match=says("folds", 1)):
        validation.walk_forward(100, 0)


def slow_combinatorial(days, groups, test_groups, purge, embargo):
    """An independent form: a day is free unless some test day is near enough, asked one by one."""
    edges = [round_up(days, groups, g) for g in range(groups + 1)]
    group_of = [next(g for g in range(groups) if edges[g] <= d < edges[g + 1]) for d in range(days)]
    out = []
    for chosen in itertools.combinations(range(groups), test_groups):
        test = [d for d in range(days) if group_of[d] in chosen]
        near = {d + k for d in test for k in range(-purge, embargo + 1)}
        out.append(([d for d in range(days) if d not in near], test))
    return out


def round_up(days, groups, g):
    return g * (days // groups) + min(g, days % groups)


@given(st.integers(12, 60), st.integers(2, 6), st.integers(1, 5), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_cpcv_is_that_of_an_independent_enumerator(days, groups, test_groups, purge, embargo):
    if test_groups >= groups:
        return
    found = combinatorial.combinatorial(days, groups, test_groups, purge, embargo)
    expected = slow_combinatorial(days, groups, test_groups, purge, embargo)
    assert [(f.train.tolist(), f.test.tolist()) for f in found] == expected
    assert len(found) == math.comb(groups, test_groups)


def test_cpcv_of_the_book_has_15_splits_and_5_paths():
    # Lopez de Prado 2018, section 12.3: N = 6, k = 2.
    assert len(combinatorial.combinatorial(60, 6, 2)) == 15
    found = combinatorial.paths(6, 2)
    assert found.shape == (5, 6)
    splits = list(itertools.combinations(range(6), 2))
    assert all(g in splits[found[p, g]] for p in range(5) for g in range(6))
    used = {(int(found[p, g]), g) for p in range(5) for g in range(6)}
    assert len(used) == 30  # every (split, group) once: 15 splits of two groups


def test_train_blocks_are_cut_at_holes():
    fold = Fold(np.array([0, 1, 2, 6, 7, 10]), np.zeros(0, int), np.array([4]))
    assert [b.tolist() for b in fold.train_blocks] == [[0, 1, 2], [6, 7], [10]]


class Recorder:
    """A fit that remembers what it was given; long always."""

    def __init__(self):
        self.calls = []

    def __call__(self, train, val):
        self.calls.append((train, val))
        return self

    def features(self, bars):
        self.seen = bars["EURUSD"]
        return pd.DataFrame({"x": np.arange(len(self.seen), dtype=float)}, index=self.seen.index)

    def act(self, obs):
        return 1.0


@pytest.fixture(scope="module")
def bars():
    return {"EURUSD": make_bars(2400)}


def test_folds_are_fitted_on_their_own_train_days_and_judged_on_the_next(bars):
    fit = Recorder()
    day = validation.trading_days(bars["EURUSD"])
    listed = np.unique(day)
    folds = validation.walk_forward(len(listed), folds=3, test_days=10, val_days=5, purge_days=2)
    results = [p.result for p in validation.fold_passes(bars, "EURUSD", folds, fit, CONFIG, warmup_days=3)]
    assert len(results) == len(fit.calls) == 3
    for fold, result, (train, val) in zip(folds, results, fit.calls, strict=True):
        (block,) = train
        assert set(validation.trading_days(block["EURUSD"])) == set(listed[fold.train])
        assert set(validation.trading_days(val["EURUSD"])) == set(listed[fold.val])
        assert block["EURUSD"].index[-1] < val["EURUSD"].index[0] < result.open_time_utc[0]
        assert set(result.day) == set(listed[fold.test])
        assert result.exposure[-1] == 0.0
    assert validation.trading_days(fit.seen)[0] == listed[folds[-1].test[0] - 3]
    days, daily = combinatorial.joined_daily_returns(results)
    assert days.tolist() == listed[np.concatenate([f.test for f in folds])].tolist()
    assert np.prod(1 + daily) == pytest.approx(np.prod([r.equity[-1] / r.start_equity for r in results]))


def test_cpcv_folds_start_flat_in_every_test_block_and_hand_over_train_blocks(bars):
    fit = Recorder()
    days = len(np.unique(validation.trading_days(bars["EURUSD"])))
    fold = combinatorial.combinatorial(days, 6, 2)[2]  # groups 0 and 3: two blocks
    results = [p.result for p in validation.fold_passes(bars, "EURUSD", [fold], fit, CONFIG)]
    assert len(results) == 2
    assert len(fit.calls[0][0]) == 2
    assert fit.calls[0][1]["EURUSD"].empty


def test_a_day_judged_twice_is_refused(bars):
    market_bars = bars["EURUSD"].iloc[:200]
    market = runner.market_of(
        market_bars, pd.DataFrame({"x": np.ones(200)}, market_bars.index), CONFIG, "base"
    )
    once = runner.run_targets(market, np.ones(runner.decisions(market)), 1e5, "x", "base")
    with pytest.raises(DataError, match=says(str(market_bars.index[0])[:4], "day")):
        combinatorial.joined_daily_returns([once, once])


def test_final_window_opens_once_and_writes_it_down(bars, tmp_path):
    window = FinalWindow("2017-03-01T00:00:00Z", "2017-03-31T23:59:59Z", "da7a")
    record = tmp_path / "final_window.json"
    found = window.open_once(record, bars, "agent 1, seed 0")
    assert found["EURUSD"].index[0] >= pd.Timestamp("2017-03-01", tz="UTC")
    assert found["EURUSD"].index[-1] < pd.Timestamp("2017-04-01", tz="UTC")
    assert found["EURUSD"].side == "bid"
    entry = files.read_json(record)
    assert entry["purpose"] == "agent 1, seed 0"
    assert entry["dates_hash"] == window.dates_hash
    with pytest.raises(DataError, match=says("agent 1, seed 0")):
        window.open_once(record, bars, "agent 2")
    assert files.read_json(record) == entry


def test_an_empty_final_window_is_not_spent(bars, tmp_path):
    window = FinalWindow("2030-01-01T00:00:00Z", "2030-02-01T00:00:00Z", "da7a")
    with pytest.raises(DataError, match=says("2030-01-01", "2030-02-01")):
        window.open_once(tmp_path / "x.json", bars, "agent 1")
    assert not (tmp_path / "x.json").exists()


def test_the_hash_changes_with_any_date_and_with_the_data():
    base = FinalWindow("a", "b", "c")
    others = [FinalWindow("x", "b", "c"), FinalWindow("a", "x", "c"), FinalWindow("a", "b", "x")]
    assert len({w.dates_hash for w in (base, *others)}) == 4
