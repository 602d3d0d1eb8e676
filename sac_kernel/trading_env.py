"""The env under the name that the manual guide's users import; `gymnasium.make("sac_kernel/Trading-v0")` needs it."""

import gymnasium

from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.envs import TradingEnvironment, TradingVectorEnv

__all__ = ["TradingEnvConfig", "TradingEnvironment", "TradingVectorEnv"]

if "sac_kernel/Trading-v0" not in gymnasium.registry:
    gymnasium.register("sac_kernel/Trading-v0", "sac_kernel.market.envs:TradingEnvironment")
