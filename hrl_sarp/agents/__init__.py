"""The macro agent (weekly, PPO) and the micro agent (daily, TD3)."""

from hrl_sarp.agents.ppo.agent import MacroAgent
from hrl_sarp.agents.td3.agent import MicroAgent
from hrl_sarp.agents.td3.networks import MicroSettings

__all__ = ["MacroAgent", "MicroAgent", "MicroSettings"]
