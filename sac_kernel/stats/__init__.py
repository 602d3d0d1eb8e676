"""Statistics of equity curves and daily returns, and the rule that turns them into a verdict.

`metrics` describes one curve, `significance` separates an edge from luck, `exposure` timing from a static position,
`trials` counts trials, `null` has the arithmetic of refitted copies, and `verdict` holds the rule. `evidence` may be
looked at every day.
"""

from sac_kernel.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "trials": "Trial",
        "verdict": "TrialCount",
    },
)
