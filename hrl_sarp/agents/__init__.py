"""The two agents."""

from hrl_sarp.agents.macro_agent import MacroAgent
from hrl_sarp.agents.micro_agent import MicroAgent, MicroSettings

__all__ = ["MacroAgent", "MicroAgent", "MicroSettings"]
