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
    "significance",
    "verdict",
    "trials",
    "job_folders",
    # bars
    "instruments",
    "bar_clocks",
    "bar_table",
    "bar_text",
    "bar_binary",
    "bar_formats",
    "processed_file",
    "data_download",
    "data_pipeline",
    "synthetic_markets",
    # what the agent sees
    "indicators",
    "hmm_detector",
    "stump_boosting",
    "expected_return",
    "market_costs",
    "auxiliary_task",
    "feature_engineering",
    "causality",
    # the market and the account
    "risk_manager",
    "plot_style",
    "plots",
    "bar_engine",
    "market",
    "trading_env",
    # the agent
    "sac_config",
    "networks",
    "replay_buffer",
    "sac_update",
    "cuda_graph",
    "sac_agent",
    "checkpoint",
    "ensemble",
    "greedy_net",
    # training and judgement
    "baselines",
    "evaluation",
    "stress",
    "drift",
    "validation",
    "report_sections",
    "report",
    "training_health",
    "job_outputs",
    "run_config",
    "train_market",
    "proof",
    "train_sac_kaggle",
    "job_queue",
    "walkthrough",
)
"""Modules that the kernel notebook carries, lowest layer first."""

BUNDLER_MODULES = (
    "kaggle_process",
    "kaggle_client",
    "kaggle_run",
    "kernel_notebook",
    "probe",
    "rehearsal",
    "wheels",
    "audit",
    "random_walk",
    "job_pool",
    "fold_training",
    "fold_jobs",
    "walk_forward_report",
    "walk_forward",
    "sweep",
    "journal",
    "model_store",
    "decide",
    "bar_feed",
    "paper_page",
    "paper",
    "export",
    "promotion",
    "retrain",
)
"""Modules of the build, of audits, walk-forwards, sweeps and use at home; the kernel notebook does not carry them."""
