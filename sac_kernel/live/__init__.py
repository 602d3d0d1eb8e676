"""Uses of a saved agent on your machine: decisions on new bars, paper trading, ONNX export, retraining.

Decisions equal the backtest's bit for bit. A new model replaces the one in use only by a rule fixed in code.
The kernel notebook does not carry this package.
"""

from sac_kernel.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "decide": "Decider",
        "model_store": "ModelStore",
        "journal": "Journal",
    },
)
