"""The agent: Soft Actor-Critic, its networks, replay and update, and its greedy policy.

The package does not know prices: it learns from any Gymnasium env with a Box action.
`agent.config` holds plain numbers and loads no framework.
"""

from sac_kernel.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "config": "SACConfig",
        "sac": "SACAgent Interaction",
        "ensemble": "Ensemble",
        "exact": "train_exact train_exact_population",
        "exact_config": "ExactConfig",
        "exact_policy": "ExactPolicy",
        "exact_rewards": "ExactProblem",
    },
)
