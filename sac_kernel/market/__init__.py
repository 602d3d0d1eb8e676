"""The market and the account: one compiled bar engine and the Gymnasium envs on top of it.

`TradingEnvironment` and `TradingVectorEnv` step the same engine as backtest, baselines and paper trading.
`known_answer` has synthetic markets with a known optimum.
"""

from sac_kernel.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "account": "TradingEnvConfig",
        "envs": "TradingEnvironment TradingVectorEnv",
        "market": "Market prepare_market",
    },
)
