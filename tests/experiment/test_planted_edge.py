"""The self-test: exact SAC on a market with a planted edge, measured against the judge of known answers."""

import json

import numpy as np
import pytest

from sac_kernel.experiment import planted_edge
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.market.known_answer import Judge

BARS, UPDATES = 20_000, 300


@pytest.fixture(scope="module")
def tested():
    return planted_edge.self_test(BARS, UPDATES)


@pytest.fixture(scope="module")
def judge():
    return Judge(planted_edge.MARKET, planted_edge.TEST_BARS, planted_edge.ACCOUNTS)  # the same paths


def test_the_share_is_that_of_the_judge_of_known_answers(tested, judge):
    result = judge.result(tested.policy)
    assert tested.facts["capture"] == pytest.approx(judge.capture(result), rel=1e-12)
    assert tested.facts["turnover_ratio"] == pytest.approx(judge.turnover_ratio(result), rel=1e-12)
    assert tested.facts["profit_sd"] == pytest.approx(result.reward * planted_edge.TEST_BARS, rel=1e-12)
    assert 0.8 < tested.facts["capture"] < 1.0  # a flat agent has 0, random signs are far below


def test_the_curves_are_those_of_the_agent_the_optimum_and_the_ridge(tested, judge):
    agent, best, _ridge = tested.profit.values()
    assert best[-1] == pytest.approx(judge.best.reward * planted_edge.TEST_BARS, rel=1e-12)
    np.testing.assert_array_equal(best, judge.best.profit)
    assert agent.shape == (planted_edge.TEST_BARS,)
    ratio = tested.facts["ridge_capture"]
    assert ratio == pytest.approx(_ridge[-1] / best[-1], rel=1e-12)


def test_its_facts_are_plain_and_the_mark_decides(tested):
    assert json.loads(json.dumps(tested.facts)) == tested.facts
    assert tested.facts["passed"] is (tested.facts["capture"] >= planted_edge.MARK)
    untrained = planted_edge.self_test(5_000, 1)
    assert untrained.facts["passed"] is False
    assert untrained.sentence() != tested.sentence()


@pytest.mark.parametrize(
    ("changes", "runs"),
    [
        ({}, True),
        ({"self_test": False}, False),
        ({"learner": "gaussian"}, False),
        ({"learner": "both"}, True),
    ],
)
def test_a_run_of_exact_sac_has_it_unless_it_is_set_off(monkeypatch, changes, runs):
    monkeypatch.setattr(planted_edge, "self_test", lambda: "tested")
    assert planted_edge.of_run(RunConfig(**changes)) == ("tested" if runs else None)
