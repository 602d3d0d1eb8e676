"""Statistics of equity curves and daily returns, and the rule that turns them into a verdict.

`metrics` describes one curve, `significance` tells an edge from luck, `trials` counts what was tried,
`verdict` holds the rule.
"""

from sac_kernel.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "trials": "Trial",
        "verdict": "TrialCount",
    },
)
