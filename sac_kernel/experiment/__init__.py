"""Runs: parameters, the trainer, the queue of jobs, walk-forward and sweeps, and what they leave on disk.

An interrupted run continues bit for bit from its state. `planted_edge` is the
self-test of the learner on a market whose best policy is known.
"""

from sac_kernel.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "trainer": "KaggleTrainer",
        "run_config": "AGENT_PRESETS RUN_PRESETS RunConfig preset_of",
    },
)
