"""The market and the account in it: one compiled bar engine, the Gymnasium envs in front of it.

`TradingEnvironment` and `TradingVectorEnv` step the same engine as backtest, baselines and paper trading.
`known_answer` has synthetic markets whose optimum is known.
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
