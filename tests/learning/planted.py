"""A market whose best policies are known: a regime that is seen moves sectors, a signal stocks."""

from typing import Any

import numpy as np

from hrl_sarp.agents import MacroAgent, MicroAgent, MicroSettings
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.market.tensors import MarketTensors
from tests import factories, tiny_runs

N_SECTORS, SLOTS, N_DAYS = 4, 4, 900
TILT = np.array([[1, 0, 0, -1], [-1, 0, 0, 1], [0, 1, -1, 0]])
"""Favoured and unfavoured sector of each regime."""


def planted_market(*, sector_drift: float = 0.003, alpha: float = 0.15) -> Market:
    """Plant a regime in a macro feature and a signal in a stock feature.

    The regime is drawn at each week end, stays with probability 0.8 and moves sectors by
    `sector_drift` a day in the following week; noise of a sector 0.6 % a day. The signal has
    autocorrelation 0.9 from day to day and moves its stock by alpha x 1 % the day after; noise of a
    stock 1 % a day. All moves are intraday, so that a decision at the close earns them in full.
    """
    rng = np.random.default_rng(0)
    week = (np.arange(N_DAYS) + 1) // 5  # rows 4, 9, ... are week ends
    regime = _draw_regimes(rng, int(week[-1]) + 1)[week]
    sector_of = np.repeat(np.arange(N_SECTORS), SLOTS)
    signal = _draw_signal(rng, len(sector_of))
    intraday = rng.normal(0, 0.006, (N_DAYS, N_SECTORS))[:, sector_of] + rng.normal(
        0, 0.01, (N_DAYS, len(sector_of))
    )
    intraday[1:] += sector_drift * TILT[regime[:-1]][:, sector_of] + alpha * 0.01 * signal[:-1]
    features = rng.normal(size=(N_DAYS, len(sector_of), 3))
    features[..., 0] = np.clip(signal, -3, 3)
    macro = rng.normal(size=(N_DAYS, 5))
    macro[:, :3] = np.eye(3)[regime]
    return factories.market_with(
        np.zeros_like(intraday),
        intraday,
        sector_of,
        stock_features=features,
        feature_names=("signal", "noise_1", "noise_2"),
        macro_features=macro,
        benchmark_return=intraday.mean(axis=1),
    )


def _draw_regimes(rng: np.random.Generator, n_weeks: int) -> np.ndarray:
    steps = np.where(rng.random(n_weeks) < 0.8, 0, rng.integers(1, 3, n_weeks))
    return np.cumsum(steps) % 3


def _draw_signal(rng: np.random.Generator, n_assets: int) -> np.ndarray:
    signal = rng.normal(size=(N_DAYS, n_assets))
    for t in range(1, N_DAYS):
        signal[t] = 0.9 * signal[t - 1] + np.sqrt(1 - 0.81) * signal[t]
    return signal


def learning_config(**values: Any) -> RunConfig:
    """Return wide limits, 6 bps a side and the objective `growth`, as in the synthetic profile."""
    config = tiny_runs.tiny_config(
        objective={"kind": "growth"},
        market_profile={"costs": {"buy_bps": 1.0, "sell_bps": 1.0}},
        risk={"stock_cap": 0.25, "sector_cap": 0.6},
        macro_agent={
            "network": {
                "hidden": 16,
                "dropout": 0.1,
                "centre": "mode",
                "exchangeable": False,
                "concentration_min": 5.0,
                "concentration_range": 40.0,
            },
            "ppo": {"gamma": 0.9, "learning_rate": 1e-3},
            "graph": {"correlation_days": 40, "update_days": 20, "hidden": 16, "embedding": 8},
            "pretrain": {"epochs": 15, "batch_size": 16, "learning_rate": 5e-3},
        },
        micro_agent={
            "network": {"tower": 16, "head": 8},
            "pretrain": {"epochs": 8, "batch_size": 64, "learning_rate": 5e-3},
        },
        curriculum={"temperature_grid": [0.0, 1.0, 4.0, 16.0]},
    )
    changed: RunConfig = tiny_runs.changed(config, values)
    return changed


def untrained(tensors: MarketTensors, config: RunConfig) -> tuple[MacroAgent, MicroAgent]:
    """Return fresh agents: equal weights."""
    return (
        MacroAgent(tensors, config, seed=0),
        MicroAgent(MicroSettings(tensors, config), seed=0),
    )


def random_weights(tensors: MarketTensors, config: RunConfig) -> tuple[MacroAgent, MicroAgent]:
    """Return agents with random weights in all layers."""
    return tiny_runs.macro_agent(tensors, config), tiny_runs.micro_agent(tensors, config)
