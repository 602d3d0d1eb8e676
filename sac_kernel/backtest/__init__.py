"""Policies over a whole split at every cost tier, and what they must beat.

Agents, baselines and stress tests run through the engine that training uses. `validation` makes the folds of a
walk-forward, `drift` asks whether the market has changed since training.
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
