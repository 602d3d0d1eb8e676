"""The env under the name that the manual guide's users import."""

from sac_kernel.market.envs import TradingEnvironment, TradingVectorEnv
from sac_kernel.market.market import TradingEnvConfig

__all__ = ["TradingEnvConfig", "TradingEnvironment", "TradingVectorEnv"]
