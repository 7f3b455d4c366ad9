"""A market with proportional costs, whose best policy trades only outside a band of weights.

It has a risky asset, 1 + R = (1 + mean) exp(sd z - sd^2 / 2) a week, and a riskless one. A shift
between them costs 2 % of the shifted value. The riskless asset is a stock too, because policies
choose stocks only, so each of the two trades costs 1 %. Dynamic programming on a grid of drifted
weights, with exactly the simulator's costs, gives the band and its growth.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.linalg import null_space

from hrl_sarp.agents import MacroAgent
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Goal, Market
from hrl_sarp.envs.policies import (
    FollowGoal,
    MacroPolicy,
    Observation,
    ProportionalGoal,
    SampledGoal,
    no_view,
)
from hrl_sarp.known_markets.small_market import (
    WeeklySpans,
    market_of_returns,
    on_cpu,
    run_on_fresh_paths,
    train_macro,
)
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.studies.summary import Threshold

MEAN, LOG_SD = 0.005, 0.10
"""Weekly simple mean and deviation of the log return of the risky asset."""
COST_PER_LEG = 0.01
"""Cost of each trade, in basis points of its value; the experiment's costs must be equal."""
SECTORS = np.array([0, 1])
"""Risky, riskless."""
GRID = 401
"""Drifted weights 0, 0.0025, ..., 1."""
SHOCKS = np.linspace(-6, 6, 241)
"""Grid for the standard normal: a polynomial quadrature would miss the kink of the costs."""
TOLERANCE = 1e-12
SPANS = WeeklySpans(train_weeks=52_000, n_paths=20, path_weeks=624)
BURN_IN_WEEKS = 104
"""First weeks of a path, which do not count: the entry costs 1 % under every policy."""
THRESHOLDS = (
    Threshold("share of the gap", ">=", 0.60),
    Threshold("turnover / oracle's", "<=", 2.5),
)


class Band(NamedTuple):
    """A rule: if the drifted weight is outside the band, trade to its nearest end."""

    low: float
    high: float


class LongRun(NamedTuple):
    """Weekly growth and turnover of a rule in its stationary state."""

    growth: float
    turnover: float


class BandPolicy:
    """Holds while the drifted weight of the risky sector is in the band, else trades to its end."""

    def __init__(self, band: Band) -> None:
        self.band = band

    def goal(self, observation: Observation) -> Goal:
        """Return the clipped drifted weight; from cash, the band's middle."""
        held = observation["portfolio"][:, : len(SECTORS)]
        middle = (self.band.low + self.band.high) / 2
        risky = torch.where(held.sum(dim=1) > 0, held[:, 0], middle)
        risky = risky.clamp(self.band.low, self.band.high)
        sectors = torch.stack([risky, 1 - risky], dim=1)
        return Goal(sectors, torch.zeros_like(risky), no_view(sectors))


def expected_growth(risky: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
    """Compute the expected log growth of a week by the weight held through it."""
    returns, probability = _shocks()
    return np.asarray(np.log1p(risky[..., None] * returns) @ probability)


def trade_cost(
    held: Float[np.ndarray, "..."], target: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """Compute the share of wealth that a shift between the two assets costs; broadcasts.

    The target is a weight of wealth after costs k, so k = c (|target (1 - k) - held| + the same
    of the other leg). Solved for k, which is c-close to 2 c |target - held|.
    """
    shift = 2 * COST_PER_LEG * np.abs(target - held)
    side = np.where(target > held, -1, 1)
    return np.asarray(shift / (1 + side * COST_PER_LEG * (1 - 2 * target)))


@cache
def solve_band() -> tuple[Band, LongRun]:
    """Find the rule of largest long-run growth by relative value iteration on the grid."""
    grid = np.linspace(0, 1, GRID)
    drift, growth = _drift_matrix(grid), expected_growth(grid)
    paid = np.log1p(-trade_cost(grid[:, None], grid[None, :]))
    value = np.zeros(GRID)
    while True:
        choices = paid + (growth + drift @ value)
        renewed = choices.max(axis=1)
        renewed = renewed - renewed[GRID // 2]
        if np.abs(renewed - value).max() < TOLERANCE:
            break
        value = renewed
    best = choices.argmax(axis=1)
    held = grid[best == np.arange(GRID)]
    return Band(float(held.min()), float(held.max())), long_run(best)


def long_run(target: Int[np.ndarray, " W"]) -> LongRun:
    """Return growth and turnover of a rule in its stationary state.

    The rule names, for each drifted weight of the grid, where on the grid to trade to.
    """
    grid = np.linspace(0, 1, GRID)
    step = _drift_matrix(grid)[target]
    stationary = null_space(step.T - np.eye(GRID))[:, 0]
    state = stationary / stationary.sum()
    cost = trade_cost(grid, grid[target])
    earned = np.log1p(-cost) + expected_growth(grid)[target]
    return LongRun(float(state @ earned), float(state @ np.abs(grid[target] - grid)))


def always_rebalance() -> tuple[float, LongRun]:
    """Return the weight of largest growth without costs, and what returning to it weekly earns."""
    best = int(expected_growth(np.linspace(0, 1, GRID)).argmax())
    return best / (GRID - 1), long_run(np.full(GRID, best))


def band_market(seed: int, spans: WeeklySpans) -> Market:
    """Draw weekly returns."""
    shocks = np.random.default_rng(seed).standard_normal(spans.n_weeks)
    risky = (1 + MEAN) * np.exp(LOG_SD * shocks - LOG_SD**2 / 2) - 1
    returns = np.stack([risky, np.zeros_like(risky)], axis=1)
    return market_of_returns("no_trade_band", returns, SECTORS, spans.split())


def study(config: RunConfig, spans: WeeklySpans = SPANS) -> dict[str, float]:
    """Train the macro agent; return its share of (oracle - always rebalancing) and its turnover."""
    tensors = on_cpu(band_market(config.seed, spans))
    trained = figures_of(tensors, config, train_macro(tensors, config), spans)
    return {**trained, **reference_figures(config, spans)}


def reference_figures(config: RunConfig, spans: WeeklySpans) -> dict[str, float]:
    """Return the shares of the gap of a network before training and of random weights."""
    tensors = on_cpu(band_market(config.seed, spans))
    untrained = MacroAgent(tensors, config, config.seed)
    random = SampledGoal(tensors, 1.0, ProportionalGoal(tensors), config.seed)
    policies: dict[str, MacroPolicy] = {"untrained": untrained, "random": random}
    return {
        f"{name}: {figure}": value
        for name, policy in policies.items()
        for figure, value in figures_of(tensors, config, policy, spans).items()
    }


def figures_of(
    tensors: MarketTensors, config: RunConfig, macro: MacroPolicy, spans: WeeklySpans
) -> dict[str, float]:
    """Compare a macro policy with the oracle and always rebalancing on the same fresh paths."""
    band, _ = solve_band()
    centre, _ = always_rebalance()
    growth, turnover = _on_paths(tensors, config, macro, spans)
    best, best_turnover = _on_paths(tensors, config, BandPolicy(band), spans)
    weekly, _ = _on_paths(tensors, config, BandPolicy(Band(centre, centre)), spans)
    return {
        "share of the gap": (growth - weekly) / (best - weekly),
        "turnover / oracle's": turnover / best_turnover,
        "growth": growth,
        "turnover": turnover,
    }


def _on_paths(
    tensors: MarketTensors, config: RunConfig, macro: MacroPolicy, spans: WeeklySpans
) -> tuple[float, float]:
    """Return weekly growth, in expectation over the returns, and turnover after the burn-in."""
    rule = FollowGoal(tensors, config.risk)
    held = run_on_fresh_paths(tensors, config, macro, rule, spans)
    settled = slice(BURN_IN_WEEKS, None)
    earned = expected_growth(held.weights[settled, :, 0]) + np.log1p(-held.cost[settled])
    return float(earned.mean()), float(held.turnover[settled].mean())


@cache
def _shocks() -> tuple[np.ndarray, np.ndarray]:
    density = np.exp(-(SHOCKS**2) / 2)
    returns = (1 + MEAN) * np.exp(LOG_SD * SHOCKS - LOG_SD**2 / 2) - 1
    return returns, density / density.sum()


def _drift_matrix(grid: Float[np.ndarray, " W"]) -> Float[np.ndarray, "W W"]:
    """Probabilities of next week's drifted weights (columns) by the weight held (rows).

    Weights between two points of the grid count for both, in linear proportion.
    """
    returns, probability = _shocks()
    drifted = grid[:, None] * (1 + returns) / (1 + grid[:, None] * returns)
    position = np.clip(drifted * (len(grid) - 1), 0, len(grid) - 1 - 1e-9)
    below = position.astype(int)
    above_share = position - below
    matrix = np.zeros((len(grid), len(grid)))
    rows = np.broadcast_to(np.arange(len(grid))[:, None], below.shape)
    np.add.at(matrix, (rows, below), probability * (1 - above_share))
    np.add.at(matrix, (rows, below + 1), probability * above_share)
    return matrix
