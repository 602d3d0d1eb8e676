"""Soft Actor-Critic trading agents: bars in, an honest verdict out.

`MODULES` is the package's one order. A module imports only from modules before it; the built notebook
carries them as cells in this order; a newcomer reads them in this order.
"""

__version__ = "0.1.0"

MODULES = (
    "core.errors",
    "core.lazy",
    "core.renamed",
    "core.config",
    "core.files",
    "core.paths",
    "core.packages",
    "core.network",
    "core.device",
    "core.clock",
    "core.plot_style",
    "core.strings",
    "prices.instruments",
    "prices.clocks",
    "prices.costs",
    "prices.bars",
    "prices.processed_file",
    "prices.pipeline",
    "stats.metrics",
    "stats.significance",
    "stats.verdict",
    "stats.trials",
    "features.indicators",
    "features.regimes",
    "features.stumps",
    "features.forecast",
    "features.forecast_input",
    "features.pipeline",
    "features.causality",
    "market.risk_limits",
    "market.engine",
    "market.market",
    "market.render",
    "market.envs",
    "market.training",
    "market.known_answer",
    "agent.config",
    "agent.networks",
    "agent.replay",
    "agent.update",
    "agent.cuda_graph",
    "agent.sac",
    "agent.ensemble",
    "agent.compiled_policy",
    "backtest.policies",
    "backtest.baselines",
    "backtest.runner",
    "backtest.judgement",
    "backtest.stress",
    "backtest.drift",
    "report.plots",
    "report.sections",
    "report.tables",
    "report.templates",
    "report.page",
    "report.training_health",
    "experiment.output_layout",
    "experiment.run_config",
    "experiment.checkpoint",
    "experiment.job_outputs",
    "experiment.proof",
    "experiment.trainer",
    "experiment.job_queue",
    "kaggle.display",
    # the names that users of the manual guide import
    "train_sac_kaggle",
    "data_pipeline",
    "feature_engineering",
    "sac_agent",
    "trading_env",
)
"""Modules that the kernel notebook carries, lowest layer first."""

HOME_MODULES = (
    "prices.ingest.text",
    "prices.ingest.binary",
    "prices.ingest.formats",
    "prices.ingest.download",
    "market.audit",
    "backtest.validation",
    "backtest.random_walk",
    "experiment.job_pool",
    "experiment.fold_training",
    "experiment.fold_jobs",
    "experiment.walk_forward_report",
    "experiment.walk_forward",
    "experiment.sweep",
    "live.journal",
    "live.model_store",
    "live.decide",
    "live.feed",
    "live.paper_page",
    "live.paper",
    "live.export",
    "live.promotion",
    "live.retrain",
    "kaggle.process",
    "kaggle.client",
    "kaggle.run",
    "kaggle.kernel_notebook",
    "kaggle.probe",
    "kaggle.rehearsal",
    "kaggle.wheels",
    # older spellings of commands
    "export",
    "paper",
    "retrain",
    "sweep",
    "walk_forward",
)
"""Modules that stay at home: readers of files, audits, walk-forwards, use of a model, the build."""


def inlined_files() -> tuple[str, ...]:
    """Return the files that the notebook carries, each package's `__init__.py` before its first module."""
    paths = ["__init__.py"]
    for name in MODULES:
        folder, _, module = name.rpartition(".")
        for path in (f"{folder}/__init__.py", f"{folder}/{module}.py") if folder else (f"{module}.py",):
            if path not in paths:
                paths.append(path)
    return tuple(paths)
