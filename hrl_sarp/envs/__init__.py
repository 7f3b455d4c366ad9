"""Gymnasium envs of both levels, and batched versions of them for Stable-Baselines3."""

import gymnasium as gym

from hrl_sarp.envs.gym_env import (
    HierarchicalEnv,
    MacroEnv,
    MicroEnv,
    make_level,
    make_starts,
    observation_table,
    policy_of,
    to_tensors,
)
from hrl_sarp.envs.vectorized import PortfolioVecEnv

gym.register("hrl_sarp/Macro-v0", entry_point="hrl_sarp.envs:MacroEnv")
gym.register("hrl_sarp/Micro-v0", entry_point="hrl_sarp.envs:MicroEnv")

__all__ = [
    "HierarchicalEnv",
    "MacroEnv",
    "MicroEnv",
    "PortfolioVecEnv",
    "make_level",
    "make_starts",
    "observation_table",
    "policy_of",
    "to_tensors",
]
