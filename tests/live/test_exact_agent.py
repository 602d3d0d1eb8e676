"""An agent of exact SAC in use: one rule in select_action, backtest, decisions, ensemble and ONNX, and its file."""

import dataclasses
import importlib.util

import numpy as np
import pandas as pd
import pytest
import torch

from sac_kernel.agent.config import SACConfig
from sac_kernel.agent.ensemble import Ensemble
from sac_kernel.agent.exact_config import ExactConfig
from sac_kernel.agent.exact_policy import ExactPolicy, exact_size
from sac_kernel.agent.sac import SACAgent
from sac_kernel.backtest import runner
from sac_kernel.core import files
from sac_kernel.core.errors import CheckpointError, ConfigError
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.live import export
from sac_kernel.live.decide import Decider, account
from sac_kernel.market import engine
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.envs import TradingEnvironment
from sac_kernel.market.records import Account, blank
from tests.conftest import make_bars

CONFIG = ExactConfig(hidden_dims=(16, 16))
SCALE = 20_000.0
ENVS = {
    "every bar": TradingEnvConfig(observes="target"),
    "four hours": TradingEnvConfig(observes="target", decision_interval_min=240, exposure_cap=0.5),
}
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime")),
    reason="onnx and onnxruntime are not installed",
)


def policy(inputs, seed=0, size=1.0):
    weights = (
        size * 0.3 * torch.randn(exact_size(inputs, CONFIG), generator=torch.Generator().manual_seed(seed))
    )
    return ExactPolicy(CONFIG, weights, inputs, SCALE, 90)


def saved_agent(path, data, config, seed=0, size=1.0):
    """Save an agent of random weights; return it and the market of the test split."""
    pipeline = FeaturePipeline()
    frames = pipeline.run_full_pipeline(data.train, data.val, data.test)
    market = runner.market_of(data.test["EURUSD"], frames[2], config, "base")
    agent = SACAgent.of_policy(policy(market.observed.shape[1] - 2, seed, size))
    agent.context = {
        "features": pipeline.state(),
        "observation_names": list(market.observation_names),
        "env": dataclasses.asdict(config) | {"episode_lengths": [3000]},
        "data_hash": data.content_hash,
    }
    agent.save(path)
    return agent, market, frames


def by_hand(values, cost, can_fill, held):
    """argmax W - c |a - p| over 21 positions and the one held, one row."""
    grid = np.linspace(-1.0, 1.0, 21)
    best, target = np.interp(held, grid, values), held
    for position, value in zip(grid, values, strict=True):
        if abs(position - held) > 1e-6 and value - cost * abs(position - held) > best + 1e-15:
            best, target = value - cost * abs(position - held), position
    return target if can_fill else held


@pytest.mark.parametrize("name", ENVS)
def test_an_action_is_the_rule_by_hand_in_every_form(name, sample, tmp_path):
    agent, market, _ = saved_agent(tmp_path / "a.pt", sample, ENVS[name])
    rng = np.random.default_rng(0)
    rows = rng.integers(market.first_bar, len(market.bars), 400)
    held = rng.choice(np.float32([-1.0, -0.3, 0.0, 0.05, 0.7, 1.0]), len(rows))
    obs = np.concatenate((market.observed[rows], held[:, None]), axis=1)
    values = agent.exact.values(obs[:, :-3])
    wanted = [by_hand(w, *row[-3:].astype(float)) for w, row in zip(values, obs, strict=True)]
    act = runner.greedy_policy(agent)
    np.testing.assert_allclose([act(row) for row in obs], wanted, atol=1e-7)
    np.testing.assert_allclose(agent.select_action(obs, evaluate=True)[:, 0], wanted, atol=1e-7)
    assert len(np.unique(wanted)) > 10
    assert 0.1 < np.mean(np.float32(wanted) == held) < 0.9


def test_a_draw_follows_the_soft_policy(sample, tmp_path):
    agent, market, _ = saved_agent(tmp_path / "a.pt", sample, ENVS["every bar"], size=0.5)
    obs = np.append(market.observed[market.observed[:, -1] == 1.0][100], np.float32(0.3))
    assert obs[-2] == 1.0
    drawn = agent.select_action(np.tile(obs, (20_000, 1)))[:, 0]
    grid = np.linspace(-1.0, 1.0, 21)
    logits = SCALE * (agent.exact.values(obs[None, :-3])[0] - obs[-3] * np.abs(grid - 0.3)) / CONFIG.alpha
    wanted = np.exp(logits - logits.max())
    wanted /= wanted.sum()
    share = [(np.abs(drawn - g) < 1e-6).mean() for g in grid]
    np.testing.assert_allclose(share, wanted, atol=0.015)


@pytest.mark.parametrize("name", ENVS)
def test_live_decisions_are_the_backtests(name, sample, tmp_path):
    config = ENVS[name]
    agent, market, _ = saved_agent(tmp_path / "a.pt", sample, config)
    backtest = runner.validate(agent, market, config.initial_equity)
    assert backtest.trades > 20
    decider = Decider.from_checkpoint(tmp_path / "a.pt", price_side="ask")
    decider.follow(pd.concat([sample.train["EURUSD"], sample.val["EURUSD"]]))
    bars, targets, seen, state = sample.test["EURUSD"], [], 0, blank(Account)
    engine.reset(state, market.bars, market.terms, 0, len(bars) - 1, config.initial_equity, 0.0)
    while not state.truncated:
        t = int(state.t)
        # A broker's figures are enough: of the account, an exact agent looks at the last filled target alone.
        filled = state.target if abs(state.target) <= 1.0 else 0.0
        decision = decider.decide(bars.iloc[seen : t + 1], account(1e5, last_target=filled))
        assert np.array_equal(decider.observed[-1], market.observed[t])
        targets.append(decision.target)
        seen = t + 1
        engine.step(state, market.bars, market.minutes, market.terms, decision.target)
    assert targets == backtest.action.tolist()


def test_500_bars_of_holding_send_no_order(sample, tmp_path):
    """With W = 0 no trade pays for itself, so a position off the grid is kept to the last bit."""
    agent, _, frames = saved_agent(tmp_path / "a.pt", sample, ENVS["every bar"], size=0.0)
    env = TradingEnvironment(sample.test["EURUSD"], frames[2], ENVS["every bar"], eval_mode=True)
    obs, _ = env.reset()
    first = np.float32([0.37123])
    _, _, _, _, info = env.step(first)
    while info["trades"] == 0:
        _, _, _, _, info = env.step(first)
    obs = env.step(first)[0]
    assert obs[-1] == first[0]
    act = runner.greedy_policy(agent)
    for k in range(500):
        action = np.float32([act(obs)]) if k % 2 else agent.select_action(obs, evaluate=True)
        assert action[0] == first[0]
        obs, _, _, _, info = env.step(action)
    assert info["trades"] == 1


def test_what_is_observed_is_known_at_the_close_and_as_by_hand():
    """Half of .55 bps, x 1.2 at 19:00, and fees of .475 bps."""
    bars = make_bars(60)
    features = pd.DataFrame({"f": np.zeros(60, np.float32)}, index=bars.index)
    config = TradingEnvConfig(observes="target", decision_interval_min=120)
    market = runner.market_of(bars, features, config, "base")
    assert market.observation_names[-3:] == ("fill_cost", "can_fill", "held_target")
    closes = (market.open_time + pd.Timedelta(hours=1)).tz_convert("America/New_York").hour
    cost, can_fill = market.observed[:, -2], market.observed[:, -1]
    # At 16:00 and 17:00 both opens of the decision: 16:00 is before the freeze; 17:00 and 18:00 are in it.
    assert set(closes[can_fill == 0.0]) == {17}
    day = (0.275 + 0.475) * 1e-4
    np.testing.assert_allclose(cost[closes == 10], day, rtol=1e-4)
    np.testing.assert_allclose(cost[closes == 18], (1.2 * 0.275 + 0.475) * 1e-4, rtol=1e-4)  # fills at 19:00


def test_the_ensemble_takes_the_mean_of_values_and_one_is_itself(sample, tmp_path):
    agents = [saved_agent(tmp_path / f"{i}.pt", sample, ENVS["every bar"], seed=i)[0] for i in range(3)]
    market = saved_agent(tmp_path / "a.pt", sample, ENVS["every bar"])[1]
    rows = np.arange(market.first_bar, market.first_bar + 300)
    obs = np.concatenate((market.observed[rows], np.full((300, 1), 0.2, np.float32)), axis=1)
    values = np.mean([agent.exact.values(obs[:, :-3]) for agent in agents], axis=0)
    wanted = [by_hand(w, *row[-3:].astype(float)) for w, row in zip(values, obs, strict=True)]
    together = Ensemble.from_checkpoints([tmp_path / f"{i}.pt" for i in range(3)])
    np.testing.assert_allclose(together.select_action(obs, evaluate=True)[:, 0], wanted, atol=1e-7)
    act = runner.greedy_policy(together)
    np.testing.assert_allclose([act(row) for row in obs], wanted, atol=1e-7)


def test_a_gaussian_and_an_exact_agent_are_no_ensemble(sample, tmp_path):
    exact, market, _ = saved_agent(tmp_path / "a.pt", sample, ENVS["every bar"])
    other = SACAgent(SACConfig(state_dim=len(market.observation_names)), device="cpu")
    other.context = exact.context
    with pytest.raises(CheckpointError, match="learner"):
        Ensemble([exact, other])


# -- the file


def test_equal_agents_are_equal_bytes_and_come_back(sample, tmp_path):
    agent, *_ = saved_agent(tmp_path / "a.pt", sample, ENVS["every bar"])
    back = SACAgent.from_checkpoint(tmp_path / "a.pt")
    back.save(tmp_path / "b.pt")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    assert back.learner_name == "exact"
    assert back.config == CONFIG
    assert back.context == agent.context
    assert (back.updates, back.exact.scale) == (90, SCALE)


def test_load_makes_an_agent_the_files_learner_and_says_so_once(sample, tmp_path, caplog):
    saved_agent(tmp_path / "a.pt", sample, ENVS["every bar"])
    agent = SACAgent(SACConfig(state_dim=7), device="cpu")
    agent.load(tmp_path / "a.pt")
    assert agent.exact is not None
    assert [("7" in r.getMessage(), "exact" in r.getMessage()) for r in caplog.records] == [(True, True)]
    gaussian = SACAgent(SACConfig(state_dim=5, hidden_dims=(8,)), device="cpu", seed=4)
    gaussian.save(tmp_path / "g.pt")
    agent.load(tmp_path / "g.pt")
    state = np.linspace(-1, 1, 5)
    assert agent.select_action(state, evaluate=True) == gaussian.select_action(state, evaluate=True)


def test_a_file_of_schema_1_is_a_gaussian_agent(tmp_path):
    agent = SACAgent(SACConfig(state_dim=5, hidden_dims=(8,)), device="cpu")
    content = agent.content() | {"schema": 1}
    del content["learner"]
    content["config"]["cuda_graph"] = False
    files.write_bytes(tmp_path / "old.pt", files.pt_bytes(content))
    with pytest.warns(FutureWarning, match="cuda_graph"):
        back = SACAgent.from_checkpoint(tmp_path / "old.pt")
    assert back.learner_name == "gaussian"
    assert back.config == agent.config


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"scale": float("nan")}, "nan"),
        ({"scale": 0.0}, "0.0"),
        ({"inputs": 10**9}, "1000000000"),
        ({"inputs": True}, "True"),
        ({"weights": {"exact": torch.zeros(3)}}, "3"),
        ({"weights": {"exact": torch.full((exact_size(9, CONFIG),), torch.nan)}}, "weights"),
        ({"weights": {}}, "weights"),
        ({"learner": "other"}, "other"),
    ],
)
def test_a_damaged_file_is_refused(changes, place, tmp_path):
    content = SACAgent.of_policy(policy(9)).content()
    assert content["weights"]["exact"].shape == (exact_size(9, CONFIG),)
    files.write_bytes(tmp_path / "x.pt", files.pt_bytes(content | changes))
    with pytest.raises(CheckpointError, match=place):
        SACAgent.from_checkpoint(tmp_path / "x.pt")


def test_an_exact_agent_does_not_learn_in_an_environment():
    with pytest.raises(ConfigError, match="KaggleTrainer"):
        SACAgent.of_policy(policy(4)).learn(None, 10)


# -- ONNX


@needs_onnx
@pytest.mark.parametrize("name", ENVS)
def test_onnx_is_the_backtests_policy(name, sample, tmp_path):
    import onnxruntime

    agent, market, _ = saved_agent(tmp_path / "a.pt", sample, ENVS[name])
    contract = export.export(tmp_path / "a.pt", tmp_path / "a.onnx")
    columns = contract["input"]["columns"]
    assert [column["name"] for column in columns] == list(market.observation_names)
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    pipeline = FeaturePipeline.from_checkpoint(tmp_path / "a.pt")
    bars = pd.concat([split["EURUSD"] for split in sample.splits.values()])
    raw = pipeline.compute(bars).iloc[-len(market.bars) :].to_numpy(np.float32)
    held = np.random.default_rng(0).choice(np.float32([-0.4, 0.0, 0.371, 1.0]), (len(raw), 1))
    after = market.observed[:, raw.shape[1] :]
    (target,) = session.run(None, {export.INPUT: np.concatenate((raw, after, held), axis=1)})
    wanted = agent.select_action(np.concatenate((market.observed, held), axis=1), evaluate=True)
    assert target.shape == wanted.shape
    # Raw features were rounded to single precision before scaling: a near tie may fall to the other side.
    assert (np.abs(target - wanted) < 1e-6).mean() > 0.995
    assert 0.02 < (wanted == held).mean() < 0.95
    same = np.abs(target - held) < 1e-6
    np.testing.assert_array_equal(target[same], held[same])
