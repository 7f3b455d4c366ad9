"""The market, configuration and algorithms that the benchmarks share: nothing here is timed."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.logger import Logger

from hrl_sarp.agents import MacroAgent, MicroAgent, MicroSettings
from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.graph import with_node_features
from hrl_sarp.market.tensors import MarketTensors
from tests import factories

N_SECTORS, SLOTS_PER_SECTOR, N_FEATURES = 11, 9, 22


def configuration() -> RunConfig:
    """Return the default configuration."""
    return load_config(market="us")


def market(n_days: int = 600) -> Market:
    """Draw 99 slots over 11 sectors with 22 features, as the default universe has."""
    rng = np.random.default_rng(0)
    drawn = factories.random_market(
        rng, n_days, N_SECTORS, SLOTS_PER_SECTOR, halts=False, delistings=False
    )
    features = np.clip(rng.normal(size=(*drawn.tradable.shape, N_FEATURES)), -3, 3)
    names = tuple(f"feature_{i}" for i in range(N_FEATURES))
    drawn = replace(drawn, stock_features=features, feature_names=names)
    return with_node_features(drawn, configuration().macro_agent.graph)


def tensors(n_days: int = 600) -> MarketTensors:
    """Put the market on the CPU, as training does."""
    return MarketTensors(market(n_days), torch.float32, "cpu")


def agents(on: MarketTensors, config: RunConfig) -> tuple[MacroAgent, MicroAgent]:
    """Return fresh agents."""
    return MacroAgent(on, config, 0), MicroAgent(MicroSettings(on, config), 0)


def silent(algorithm: Any) -> Any:
    """Give an algorithm a logger that keeps its numbers to itself."""
    algorithm.set_logger(Logger(folder=None, output_formats=[]))
    return algorithm
