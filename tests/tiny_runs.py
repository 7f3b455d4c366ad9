"""Configurations, contexts and levels small enough that whole phases take about a second."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import torch

from hrl_sarp.agents import MacroAgent, MicroAgent, MicroSettings
from hrl_sarp.config.loading import load_config
from hrl_sarp.config.market_schema import Section
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.graph import with_node_features
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.run.session import StopFlag
from hrl_sarp.training import make_context
from hrl_sarp.training.phase import PhaseContext
from tests import factories

TINY: dict[str, Any] = {
    "threads": 1,
    "data": {
        "macro_label_days": 5,
        "micro_label_days": 2,
        "regime": {"label_horizon_days": 5, "volatility_days": 10},
    },
    "macro_agent": {
        "network": {"hidden": 8},
        "graph": {"correlation_days": 10, "update_days": 5, "hidden": 8, "embedding": 6},
        "pretrain": {"epochs": 3, "batch_size": 8},
        "gradient": {"epochs": 3, "batch_size": 8},
        "ppo": {
            "total_timesteps": 48,
            "n_envs": 4,
            "envs_per_group": 1,
            "n_steps": 4,
            "batch_size": 8,
            "n_epochs": 2,
            "horizon_weeks": 6,
            "critic_warmup_steps": 16,
            "eval_every_steps": 32,
        },
    },
    "micro_agent": {
        "network": {"tower": 8, "head": 6},
        "pretrain": {"epochs": 3, "batch_size": 32},
        "gradient": {"epochs": 3, "batch_size": 32},
        "td3": {
            "total_timesteps": 192,
            "n_envs": 8,
            "envs_per_group": 4,
            "env_steps_per_update": 4,
            "batch_days": 4,
            "batch_per_day": 4,
            "buffer_size": 160,
            "learning_starts": 48,
            "horizon_days": 12,
            "critic_warmup_updates": 10,
            "eval_every_steps": 96,
        },
    },
    "curriculum": {
        "checkpoint_seconds": 1e9,
        "temperature_grid": [0.0, 1.0, 4.0],
        "certification": {"folds": 0},
        "joint": {"max_rounds": 1, "macro_steps": 16, "micro_steps": 96, "patience_rounds": 1},
    },
}
"""Laid over the default configuration; checkpoints are written only when a test asks."""


def changed(section: Section, values: dict[str, Any]) -> Any:
    """Return a copy of a configuration section with some values replaced, however deep."""
    update = {
        name: changed(getattr(section, name), value) if isinstance(value, dict) else value
        for name, value in values.items()
    }
    return section.model_copy(update=update)


def tiny_config(**values: Any) -> RunConfig:
    """Return a tiny configuration with unlike costs for both sides and limits that bind."""
    config = changed(load_config(market="us"), TINY)
    profile = config.market_profile.model_copy(update={"costs": factories.cost_config()})
    config = config.model_copy(
        update={"market_profile": profile, "risk": factories.risk_config(), "seed": 3}
    )
    return changed(config, values)


def tiny_market(seed: int = 0, n_days: int = 200, **options: Any) -> Market:
    """Draw a market with halts and delistings."""
    return factories.random_market(np.random.default_rng(seed), n_days=n_days, **options)


def with_nodes(market: Market, config: RunConfig | None = None) -> Market:
    """Give the market raw node features as its sector table."""
    return with_node_features(market, (config or tiny_config()).macro_agent.graph)


def tensors_of(market: Market, dtype: torch.dtype = torch.float64) -> MarketTensors:
    """Put a market with a sector table on the CPU."""
    return MarketTensors(with_nodes(market), dtype, "cpu")


def macro_agent(tensors: MarketTensors, config: RunConfig, seed: int = 0) -> MacroAgent:
    """Return a macro agent whose weights are all random: its goals depend on what it sees."""
    return shaken(MacroAgent(tensors, config, seed), seed)


def micro_agent(tensors: MarketTensors, config: RunConfig, seed: int = 0) -> MicroAgent:
    """Return a micro agent whose weights are all random: its scores depend on what it sees."""
    return shaken(MicroAgent(MicroSettings(tensors, config), seed), seed)


def shaken(agent: Any, seed: int) -> Any:
    """Add noise to every weight, for the last layers of fresh networks are zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (*agent.actor.parameters(), *agent.critic.parameters()):
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return agent


def context_of(
    market: Market, config: RunConfig, log_dir: Path, *, resume: bool = False
) -> PhaseContext:
    """Build the context of the phases on the CPU."""
    return make_context(config, market, log_dir, torch.device("cpu"), StopFlag(), resume=resume)


@contextmanager
def unchecked() -> Iterator[None]:
    """Check no shapes in a block: a training that a test only starts from takes half of the time.

    The whole run of the tests from end to end is checked.
    """
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", "1")
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
