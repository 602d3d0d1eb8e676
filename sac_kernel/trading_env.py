"""The env under the name that the manual guide's users import."""

from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.envs import TradingEnvironment, TradingVectorEnv

__all__ = ["TradingEnvConfig", "TradingEnvironment", "TradingVectorEnv"]
