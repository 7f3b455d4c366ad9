"""The weekly env: `HierarchicalEnv` whose actions are the macro agent's goals."""

from functools import partial

from hrl_sarp.envs.hierarchical_env import HierarchicalEnv

MacroEnv = partial(HierarchicalEnv, level="macro")
"""One step is an exchange week; partner default: equal weight inside each sector."""
