"""The daily env: `HierarchicalEnv` whose actions are the micro agent's target weights."""

from functools import partial

from hrl_sarp.envs.hierarchical_env import HierarchicalEnv

MicroEnv = partial(HierarchicalEnv, level="micro")
"""One step is a session; partner default: half Dirichlet(1) goals, half 1/N."""
