"""Trainings of a second, which the tests of runs share: one set of settings, as a trainer's and as a run's."""

from sac_kernel.agent.config import SACConfig
from sac_kernel.experiment.trainer import KaggleTrainer
from sac_kernel.market.account import TradingEnvConfig

SAC = SACConfig(hidden_dims=(16, 16), batch_size=32, warmup_steps=60, buffer_capacity=200, utd_ratio=0.25)
ENV = TradingEnvConfig(episode_lengths=(60,), horizon=37)
TINY = {
    "learner": "gaussian",
    "num_episodes": 2,
    "eval_frequency": 1,
    "checkpoint_frequency": 1,
    "num_envs": 6,
    "device": "cpu",
    "sac_hidden_dims": (16, 16),
    "sac_batch_size": 32,
    "sac_warmup_steps": 60,
    "sac_buffer_capacity": 2000,
    "env_episode_length": 60,
    "env_horizon": 50,
}
"""Fields of a `RunConfig`."""
BASELINES = (
    "flat",
    "buy and hold",
    "sell and hold",
    "momentum, 5 days",
    "moving averages, 1 and 5 days",
    "reversal, 1 day",
    "session means",
    "ridge + band",
    "logistic + band",
    "perfect foresight (bound)",
)
"""In the order of the results table."""


def small_trainer(h5, folder, **changes):
    """Return a trainer of four episodes of 60 steps in 6 envs: ten vector steps each."""
    settings = {
        "num_episodes": 4,
        "eval_frequency": 1,
        "checkpoint_frequency": 1,
        "device": "cpu",
        "num_envs": 6,
        "sac_config": SAC,
        "env_config": ENV,
    }
    return KaggleTrainer(h5, folder, **{**settings, **changes})
