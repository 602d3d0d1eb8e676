"""A saved agent for the tests of its use: random weights that move the target at every decision."""

import dataclasses
import itertools

import numpy as np

from sac_kernel.agent.config import SACConfig
from sac_kernel.agent.sac import SACAgent
from sac_kernel.backtest import runner
from sac_kernel.experiment.run_config import AGENT_PRESETS
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.market.market import prepare_market


def lively_agent(path, data, agent_id, config):
    """Save an agent for processed data; return it and the market of the test split at base cost."""
    preset = AGENT_PRESETS[agent_id]
    pipeline = FeaturePipeline(regimes=preset.regimes, forecast=preset.forecast)
    frames = pipeline.run_full_pipeline(data.train, data.val, data.test)
    market = runner.market_of(data.test["EURUSD"], frames[2], config, "base")
    return _saved(path, pipeline, market, agent_id, config, (16, 16), data.content_hash), market


def save_agent(path, bars, agent_id, config, hidden_dims, own=None):
    """Save an agent for bars of instruments, its features fitted on the first three fifths of them."""
    n = len(bars["EURUSD"])
    cuts = (0, 3 * n // 5, 4 * n // 5, n)
    splits = [{k: b.iloc[a:z] for k, b in bars.items()} for a, z in itertools.pairwise(cuts)]
    preset = AGENT_PRESETS[agent_id]
    pipeline = FeaturePipeline(regimes=preset.regimes, forecast=preset.forecast, own=own)
    frames = pipeline.run_full_pipeline(*splits)
    market = prepare_market(splits[2]["EURUSD"], frames[2], config, close_at_end=True)
    return _saved(path, pipeline, market, agent_id, config, hidden_dims, "")


def with_holes(data):
    """Return the data with bars missing in the test split: over a freeze, up to one, and in an afternoon."""
    bars = data.test["EURUSD"]
    local = bars.index.tz_convert("America/New_York")
    missing = np.zeros(len(bars), bool)
    for day, first, end in (("2017-11-07", 17, 20), ("2017-11-08", 15, 18), ("2017-11-14", 10, 15)):
        missing |= (local.strftime("%Y-%m-%d") == day) & (local.hour >= first) & (local.hour < end)
    assert missing.sum() == 11
    return dataclasses.replace(data, test={"EURUSD": bars[~missing]})


def _saved(path, pipeline, market, agent_id, config, hidden_dims, data_hash):
    width = len(market.observation_names)
    agent = SACAgent(SACConfig(state_dim=width, hidden_dims=hidden_dims), agent_id, "cpu", seed=3)
    for parameter in agent.nets.average.parameters():
        parameter.data.normal_(0.0, 0.4, generator=agent.generator)
    agent.context = {
        "features": pipeline.state(),
        "observation_names": list(market.observation_names),
        "env": dataclasses.asdict(config),
        "data_hash": data_hash,
    }
    agent.save(path)
    return agent
