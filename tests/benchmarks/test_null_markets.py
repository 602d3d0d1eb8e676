"""The pipeline on a market without an edge: the short form of `python -m benchmarks.null_markets`."""

import numpy as np
import pytest

from benchmarks import null_markets


def test_the_market_is_a_driftless_random_walk_in_three_splits():
    data = null_markets.random_walk(3)
    closes = np.concatenate([split["EURUSD"]["close"] for split in data.splits.values()])
    change = np.diff(np.log(closes))
    assert change.std() == pytest.approx(null_markets.HOURLY_SD, rel=0.1)  # two holes between the splits
    assert abs(change.mean()) < 4 * change.std() / np.sqrt(change.size)
    assert abs(np.corrcoef(change[1:], change[:-1])[0, 1]) < 4 / np.sqrt(change.size)
    assert data.test["EURUSD"].index[-1].day_of_week < 5 or data.test["EURUSD"].index[-1].hour >= 21


def test_a_trained_agent_is_judged_with_its_trials_known(monkeypatch):
    monkeypatch.setattr(null_markets, "HIDDEN", (8, 8))
    monkeypatch.setattr(null_markets, "UTD", 0.01)
    judgement = null_markets.judged(5, 1, "log_return")
    assert judgement.verdict["word"] in ("none", "not shown")
    assert judgement.verdict["trials"] == {
        "listed": 1,
        "effective": 1.0,
        "spread": 1.0,
        "known": True,
        "elsewhere": 0,
    }
    assert judgement.verdict["days"] >= 60
