"""Run policies over a whole split at every cost tier and compare them with baselines.

Agents, baselines and stress tests run through the training engine. `validation` makes the folds of a
walk-forward; `drift` tests whether the market has changed since training.
"""

from sac_kernel.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "runner": "EpisodeResult run_policy run_targets",
        "judgement": "Judgement evaluate_checkpoint evaluate_file judge",
        "policies": "PolicyId",
    },
)
