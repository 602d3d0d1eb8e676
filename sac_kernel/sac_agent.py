"""The agent under the name that the manual guide's users import."""

from sac_kernel.agent.config import SACConfig
from sac_kernel.agent.sac import SACAgent

__all__ = ["SACAgent", "SACConfig"]
