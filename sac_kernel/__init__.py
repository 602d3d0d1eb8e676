"""Soft Actor-Critic trading agents: bars in, an honest verdict out.

`MODULES` is the package's one order. A module imports only from modules before it; the built notebook
carries them as cells in this order; a newcomer reads them in this order.
"""

__version__ = "0.1.0"

MODULES = (
    # ground
    "errors",
    "config",
    "files",
    "runtime",
    "metrics",
    # bars
    "bar_formats",
    "data_pipeline",
    "synthetic_markets",
    # what the agent sees
    "feature_engineering",
    "expected_return",
    # the market and the account
    "market_costs",
    "plots",
    "bar_engine",
    "trading_env",
    # the agent
    "networks",
    "replay_buffer",
    "sac_agent",
    "checkpoint",
    # training and judgement
    "evaluation",
    "report",
    "job_outputs",
    "run_config",
    "proof",
    "train_sac_kaggle",
    "job_queue",
    "walkthrough",
)
"""Modules that the kernel notebook carries, lowest layer first."""

BUNDLER_MODULES = ("kaggle_client", "kaggle_run", "kernel_notebook", "rehearsal")
"""Modules that only `build_kernel.py` uses; they stay at home."""
