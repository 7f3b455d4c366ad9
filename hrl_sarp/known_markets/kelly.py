"""A market of independent lognormal assets, whose best policy is the constant Kelly weights.

It has four risky assets and a riskless one, weekly returns, no costs and no caps:
1 + R_i = (1 + mean_i) exp(sd z - sd^2 / 2), z standard normal, independent over weeks and assets.
The macro agent gets five sectors of one stock each, the micro agent five stocks of one sector. No
observation predicts a return.
"""

import itertools
from functools import cache

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize

from hrl_sarp.agents import MacroAgent, MicroAgent
from hrl_sarp.agents.td3.networks import MicroSettings
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.envs.policies import (
    FollowGoal,
    MacroPolicy,
    MicroPolicy,
    ProportionalGoal,
    SampledGoal,
)
from hrl_sarp.known_markets.small_market import (
    WeeklySpans,
    market_of_returns,
    on_cpu,
    run_on_fresh_paths,
    train_macro,
    train_micro,
)
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.studies.summary import Threshold

MEAN = np.array([0.008, 0.005, 0.002, -0.004, 0.0])
"""Weekly mean simple returns; the last asset is cash."""
RISKY = 4
LOG_SD = 0.08
"""Weekly deviation of the log return of every risky asset."""
QUADRATURE_NODES = 7
"""Quadrature points per asset; 5 and 9 give the same growth to 1e-10."""
N_ASSETS = len(MEAN)
MACRO_SECTORS = np.arange(N_ASSETS)
MICRO_SECTORS = np.zeros(N_ASSETS, dtype=np.int64)
SPANS = WeeklySpans(train_weeks=52_000, n_paths=20, path_weeks=520)
"""A thousand years of training, so that the best mix of the sample is that of the process."""
THRESHOLDS = (Threshold("macro", ">=", 0.95), Threshold("micro", ">=", 0.95))


def expected_growth(weights: Float[np.ndarray, "*batch A"]) -> Float[np.ndarray, "*batch"]:
    """Compute the exact expected log growth of a week, by Gauss-Hermite quadrature."""
    returns, probability = _quadrature()
    return np.asarray(np.log1p(weights[..., :RISKY] @ returns.T) @ probability)


def kelly_weights() -> Float[np.ndarray, " A"]:
    """Compute the long-only mix of largest expected log growth."""
    found = minimize(
        lambda weights: -float(expected_growth(weights)) / MEAN.max(),
        np.full(N_ASSETS, 1 / N_ASSETS),
        method="SLSQP",
        bounds=[(0.0, 1.0)] * N_ASSETS,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        options={"ftol": 1e-12},
    )
    weights: np.ndarray = found.x
    return weights


def kelly_market(seed: int, sector_of: Int[np.ndarray, " A"], spans: WeeklySpans) -> Market:
    """Draw weekly returns."""
    rng = np.random.default_rng(seed)
    sd = np.where(np.arange(N_ASSETS) < RISKY, LOG_SD, 0.0)
    shocks = sd * rng.standard_normal((spans.n_weeks, N_ASSETS))
    returns = (1 + MEAN) * np.exp(shocks - sd**2 / 2) - 1
    return market_of_returns("kelly", returns, sector_of, spans.split())


def study(config: RunConfig, spans: WeeklySpans = SPANS) -> dict[str, float]:
    """Train both agents; return which share of the largest growth they and references reach."""
    sectors = on_cpu(kelly_market(config.seed, MACRO_SECTORS, spans))
    stocks = on_cpu(kelly_market(config.seed, MICRO_SECTORS, spans))
    return {
        "macro": macro_share(sectors, config, train_macro(sectors, config), spans),
        "micro": micro_share(stocks, config, train_micro(stocks, config), spans),
        **reference_shares(config, spans),
    }


def reference_shares(config: RunConfig, spans: WeeklySpans) -> dict[str, float]:
    """Return the shares of networks before training and of random weights each week."""
    sectors = on_cpu(kelly_market(config.seed, MACRO_SECTORS, spans))
    stocks = on_cpu(kelly_market(config.seed, MICRO_SECTORS, spans))
    macro = MacroAgent(sectors, config, config.seed)
    micro = MicroAgent(MicroSettings(stocks, config), config.seed)
    random = SampledGoal(sectors, 1.0, ProportionalGoal(sectors), config.seed)
    return {
        "untrained macro": macro_share(sectors, config, macro, spans),
        "untrained micro": micro_share(stocks, config, micro, spans),
        "random": macro_share(sectors, config, random, spans),
    }


def macro_share(
    tensors: MarketTensors, config: RunConfig, macro: MacroPolicy, spans: WeeklySpans
) -> float:
    """Return a macro policy's expected growth as a share of the largest."""
    rule = FollowGoal(tensors, config.risk)
    return _share(run_on_fresh_paths(tensors, config, macro, rule, spans).weights)


def micro_share(
    tensors: MarketTensors, config: RunConfig, micro: MicroPolicy, spans: WeeklySpans
) -> float:
    """Return a micro policy's expected growth as a share of the largest."""
    whole = ProportionalGoal(tensors)
    return _share(run_on_fresh_paths(tensors, config, whole, micro, spans).weights)


def _share(weights: Float[np.ndarray, "W P A"]) -> float:
    growth = np.mean([expected_growth(week).mean() for week in weights])
    return float(growth / expected_growth(kelly_weights()))


@cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Return the risky assets' joint returns and their probabilities."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(QUADRATURE_NODES)
    grid = np.array(list(itertools.product(nodes, repeat=RISKY)))
    probability = np.array(list(itertools.product(mass / mass.sum(), repeat=RISKY))).prod(axis=1)
    returns = (1 + MEAN[:RISKY]) * np.exp(LOG_SD * grid - LOG_SD**2 / 2) - 1
    return returns, probability
