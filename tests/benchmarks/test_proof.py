"""The default agent on markets whose optimum is known, in the short form; the long one is `make prove`."""

import numpy as np
import pytest

from benchmarks import proof
from benchmarks.proof import (
    SHORT,
    Row,
    Setting,
    on_path,
    prepare,
    prove,
    reference,
    trained,
    verdict,
)
from sac_kernel.agent.sac import SACAgent
from sac_kernel.features.forecast import fit_forecast
from sac_kernel.market.known_answer import Judge
from sac_kernel.market.known_answer_kinds import ALL_MARKETS as MARKETS

NAN = float("nan")


def rows(finals, best=None, turnover=1.0, bound=NAN):
    best = finals if best is None else best
    return [Row(f, b, turnover, bound, -f) for f, b in zip(finals, best, strict=True)]


def _setting(updates, log):
    return Setting(updates, "denoised", {}, log, learner="gaussian")


def test_exact_sac_finds_the_bandit_and_the_band_in_seconds():
    lines = []
    assert prove(MARKETS["M0"], range(1), Setting(100, "denoised", {}, lines.append), mark=0.99).passed
    short = Setting(400, "denoised", {}, lines.append, bars=20_000)
    assert prove(MARKETS["M4"], range(1), short, mark=0.85).passed
    assert len(lines) == 2


@pytest.mark.learns
@pytest.mark.slow
def test_the_default_agent_finds_the_band_of_a_linear_cost_market():
    # Measured at this length: about .90. A flat policy captures 0, the sign of the predictor about .6.
    lines = []
    line, passed, *_ = prove(MARKETS["M2"], range(1), _setting(1_500, lines.append), mark=0.70)
    assert passed, line
    assert "M2 seed 0" in lines[0]
    judge = Judge(MARKETS["M2"], bars=100, n=64)
    assert judge.capture(judge.result(lambda obs: np.sign(obs[:, 0]))) < 0.7


@pytest.mark.learns
@pytest.mark.slow
def test_the_default_agent_learns_from_one_path_with_denoised_rewards():
    line, *_ = prove(MARKETS["M11"], range(1), _setting(1_200, lambda _line: None), mark=-10.0)
    captured = float(line.split("|")[2].split("(")[0])
    assert captured > 0.2, line  # raw rewards are below 0 at this length


def test_noisy_markets_are_one_path_with_denoised_rewards_and_a_simulator_with_raw_ones():
    denoised = {name for name, market in MARKETS.items() if on_path(market, "denoised")}
    raw = {name for name, market in MARKETS.items() if on_path(market, "raw")}
    assert denoised == set(MARKETS) - {"M0", "M1", "M2", "M9"}
    assert raw == {"M7", "M11", "M11-02", "M12", "M13", "M14"}


def test_where_nothing_is_predicted_an_account_earns_nothing_and_pays_its_costs():
    market = MARKETS["M6"]
    env, spread, bound, _ = prepare(market, 0, Setting(1, "denoised", {}, print), Judge(market, bars=2, n=2))
    env.reset(seed=0)
    _, reward, *_ = env.step(np.ones((60, 1)))
    np.testing.assert_allclose(reward, -market.cost)
    assert spread == pytest.approx(0.05)  # half the cost of a unit
    assert np.isnan(bound)


def test_an_agent_that_decides_every_five_bars_discounts_five_at_once(monkeypatch):
    made = []

    class Seen(SACAgent):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(proof, "SACAgent", Seen)
    market, small = MARKETS["M4"], {"warmup_steps": 60, "batch_size": 16}
    setting = Setting(10, "denoised", small, lambda _line: None, bars=2_000, every=5)
    trained(market, 0, setting, Judge(market, bars=10, n=4))
    assert made[0].config.gamma == pytest.approx(0.95**5)
    batch = made[0].buffer.sample(200, made[0].generator)
    path = market.simulate(2_000, 1, np.random.default_rng(1_000)).features[:, 0, 0].astype(np.float32)
    bar_of = {float(x): bar for bar, x in enumerate(path)}
    moved = [
        bar_of[b] - bar_of[a]
        for a, b in zip(*(o[:, 0].tolist() for o in (batch.obs, batch.next_obs)), strict=True)
    ]
    assert set(moved) == {5}


def test_the_reference_is_near_the_optimum_with_much_data_and_flat_without_signal():
    market = MARKETS["M4"]
    judge = Judge(market, bars=100, n=100)
    path = market.simulate(40_000, 1, np.random.default_rng(0))
    fitted = fit_forecast(path.features[:-1, 0], path.returns[:, 0], heads=("ridge",))
    assert reference(market, fitted, judge) > 0.95
    noise = np.random.default_rng(1).standard_normal(40_000)
    assert reference(market, fit_forecast(path.features[:-1, 0], noise, heads=("ridge",)), judge) == 0.0


@pytest.mark.parametrize(
    ("name", "made", "met"),
    [
        ("M2", rows([0.90, 0.94, 0.95]), True),
        ("M2", rows([0.90, 0.92, 0.95]), False),
        ("M11", rows([0.86] * 3, bound=0.95), True),
        ("M11", rows([0.84] * 3, bound=0.95), False),
        ("M11", rows([0.86] * 3, best=[0.95] * 3, bound=0.95), False),
        ("M6", rows([-0.0005] * 3, turnover=0.005), True),
        ("M6", rows([-0.0005] * 3, turnover=0.02), False),
        ("M6", rows([-0.0050] * 3, turnover=0.005), False),
        ("M7", rows([-0.001] * 3), True),
        ("M7", rows([0.001] * 3), False),
    ],
)
def test_the_verdict_is_the_median_against_the_mark(name, made, met):
    line, passed = verdict(MARKETS[name], made, MARKETS[name].mark)
    assert passed is met
    assert ("MISSED" in line) is not met


def test_the_short_form_is_named_markets_with_marks_that_a_flat_agent_misses():
    assert set(SHORT) <= set(MARKETS)
    assert all(mark > 0 for _, mark in SHORT.values())
