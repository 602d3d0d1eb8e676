"""What the agent sees: thirty causal features, volatility regimes and a forecast of the next return.

`FeaturePipeline` fits the scaler on train rows only; `assert_causal` checks that no row uses the future.
Indicators are compiled and carry their state from bar to bar, so live features equal those of a backtest.
"""

from sac_kernel.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "pipeline": "FeaturePipeline",
        "causality": "assert_causal",
        "regimes": "RegimeDetector",
        "forecast": "fit_forecast",
    },
)
