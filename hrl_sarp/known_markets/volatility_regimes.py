"""A market whose hidden states move risk only, its best policies, and the score of others.

All stocks have the same mean return in all states, so nothing but risk can be learned. The state
changes every few months. It sets which sectors and which of their stocks are risky, how they move
together, and the level of risk. Agents see averages of returns and ranges. The oracles know the
process, and their belief about the state is that of the exact filter.

The best weights of a belief minimise gamma / 2 x variance - premium x invested share within the
simulator's limits. The oracles hold them, inside a band that saves costs. `cost_free_bound` is
above every policy that does not know the future.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.signal import lfilter
from torch import Tensor

from hrl_sarp.config.schema import RiskConfig, RunConfig
from hrl_sarp.contracts import DayRange, Goal, Market
from hrl_sarp.envs.observations import micro_view, slot_request
from hrl_sarp.envs.policies import (
    FollowGoal,
    MacroPolicy,
    MicroPolicy,
    Observation,
    ProportionalGoal,
    no_view,
)
from hrl_sarp.envs.rollout import HierarchicalPolicy, Variant, rollout
from hrl_sarp.features.technical import fitted_scale
from hrl_sarp.known_markets.small_market import market_of_returns
from hrl_sarp.known_markets.two_level import DAYS_PER_WEEK, FIRST_MONDAY, PathPlan
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.metrics import SESSIONS_PER_YEAR

N_SECTORS, PER_SECTOR = 5, 4
N_ASSETS = N_SECTORS * PER_SECTOR
SECTOR_OF = np.repeat(np.arange(N_SECTORS), PER_SECTOR)
MEMBER = np.eye(N_SECTORS)[SECTOR_OF]
"""1 where a stock belongs to a sector."""
MEAN = 0.0003
"""Simple return of a session that every stock has on average in every state."""
NIGHT = 0.25
"""Part of a session's variance, and of its mean, that falls between close and open."""
STATES = ("early", "late", "split", "stress")
DWELL_DAYS = np.array([100.0, 100.0, 80.0, 60.0])
"""Mean sessions that a state lasts; the next one is any of the others alike."""
STATE_SHARES = DWELL_DAYS / DWELL_DAYS.sum()
"""Of all sessions; every state is visited equally often."""
MARKET_SD = np.array([0.10, 0.10, 0.16, 0.34])
"""Annual deviation of the market factor in each state."""
LOADING = np.array(
    [
        [1.2, 1.0, 1.0, 0.6, 0.5],
        [0.5, 0.6, 1.0, 1.0, 1.2],
        [1.0, 1.0, 0.5, -0.6, -1.0],
        [1.2, 1.1, 0.6, 1.1, 1.2],
    ]
)
"""Sensitivity of each sector to the market factor, by state: two sectors hedge the rest in one."""
SECTOR_SD = np.array(
    [
        [0.40, 0.35, 0.12, 0.06, 0.05],
        [0.05, 0.06, 0.12, 0.35, 0.40],
        [0.10, 0.10, 0.45, 0.10, 0.10],
        [0.20, 0.20, 0.05, 0.20, 0.20],
    ]
)
"""Annual deviation of each sector's own factor, by state."""
STOCK_SCALE = np.array([1.4, 1.2, 0.8, 0.6])
"""Factor on all that moves a stock of a sector; the order turns round in some states."""
OWN_SD = 0.20
"""Annual deviation of a stock around its sector, before the factor."""
IS_TURNED = np.array(
    [[0, 1, 0, 1, 0], [1, 0, 1, 0, 1], [0, 0, 1, 1, 0], [1, 1, 0, 0, 1]], dtype=bool
)
"""States and sectors in which the last stock is the riskiest instead of the first."""
RANGE_DEGREES = 7.4
"""Degrees of freedom of a variance from a range: the precision of Garman and Klass's estimator, in
squared returns."""
HALF_LIVES = (2, 5, 20)
"""Sessions, of the moving averages that agents see."""
CLIP = 3.0
PERCENT = 100.0
NO_WEIGHT = 1e-9
"""Added to every weight, so that a sector without any is split evenly."""
BAND = 0.03
"""Best band of the micro oracle at 6 bps a side, from a grid of 0 to 0.1; the macro's is 0."""
BELIEF_STEPS = 40
"""Best weights are solved at beliefs in steps of 1/40."""
ROUNDS, STIFFNESS = 400, 5.0
"""Of the solver: at the best weights of every state to 1e-12."""


@cache
def covariances() -> Float[np.ndarray, "Z A A"]:
    """Compute the covariance of a session's log returns in each state.

    That of simple returns is larger by a part of about the daily variance, less than 0.001.
    """
    market = MARKET_SD[:, None] * LOADING[:, SECTOR_OF]
    same_sector = SECTOR_OF[:, None] == SECTOR_OF
    unscaled = (
        market[:, :, None] * market[:, None, :]
        + SECTOR_SD[:, SECTOR_OF, None] ** 2 * same_sector
        + OWN_SD**2 * np.eye(N_ASSETS)
    )
    turned = IS_TURNED[:, :, None]
    scale = np.where(turned, STOCK_SCALE[::-1], STOCK_SCALE).reshape(len(STATES), -1)
    covariance: np.ndarray = scale[:, :, None] * scale[:, None, :] * unscaled / SESSIONS_PER_YEAR
    return covariance


def transition_matrix() -> Float[np.ndarray, "Z Z"]:
    """Compute the probabilities of the next session's state (columns) by this one's (rows)."""
    leave, stay = 1 / DWELL_DAYS, np.eye(len(STATES))
    moves: np.ndarray = (leave * (1 - stay) / (len(STATES) - 1) + (1 - leave) * stay).T
    return moves


def normal_variance() -> float:
    """Compute the mean square of the daily returns of 1/N, for a year."""
    by_state = covariances().mean(axis=(1, 2)) + MEAN**2
    return float(STATE_SHARES @ by_state) * SESSIONS_PER_YEAR


def _variances() -> Float[np.ndarray, "Z A"]:
    return np.diagonal(covariances(), axis1=1, axis2=2)


@dataclass(frozen=True)
class Sessions:
    """What the states have drawn; row t is known at the close of t."""

    night: Float[np.ndarray, "T A"]
    """Log return from the close before to the open."""
    day: Float[np.ndarray, "T A"]
    """Log return from the open to the close."""
    range_variance: Float[np.ndarray, "T A"]
    """Variance of the day's part, estimated from its range."""


@dataclass(frozen=True)
class VolatilityMarket:
    """A market, with the hidden truth that only oracles read."""

    market: Market
    sessions: Sessions
    states: Int[np.ndarray, " T"]
    beliefs: Float[np.ndarray, "T Z"]
    """P(state of session t + 1 | rows up to t), of the exact filter."""


def volatility_market(plan: PathPlan, seed: int) -> VolatilityMarket:
    """Draw states and sessions, and compute what agents and oracles know of them."""
    rng = np.random.default_rng(seed)
    states = _draw_states(plan.n_days, rng)
    variance = (1 - NIGHT) * _variances()[states]
    sessions = Sessions(
        night=_draw_log_returns(states, NIGHT, rng),
        day=_draw_log_returns(states, 1 - NIGHT, rng),
        range_variance=variance * rng.chisquare(RANGE_DEGREES, variance.shape) / RANGE_DEGREES,
    )
    beliefs = filter_beliefs(sessions)
    return VolatilityMarket(market_of_sessions(sessions, plan), sessions, states, beliefs)


def _draw_states(n_days: int, rng: np.random.Generator) -> Int[np.ndarray, " T"]:
    """Draw whole visits: by how much each state differs from the one before, and its sessions."""
    n_visits = 10 + int(2 * n_days / DWELL_DAYS.min())
    visited = np.cumsum(rng.integers(1, len(STATES), n_visits)) % len(STATES)
    days = rng.geometric(1 / DWELL_DAYS[visited])
    states: np.ndarray = np.repeat(visited, days)[:n_days]
    return states


def _draw_log_returns(
    states: Int[np.ndarray, " T"], part: float, rng: np.random.Generator
) -> Float[np.ndarray, "T A"]:
    """Draw the part of each session whose simple return is (1 + MEAN)^part - 1 on average."""
    shocks = rng.standard_normal((len(states), N_ASSETS))
    for state, covariance in enumerate(part * covariances()):
        rows = states == state
        shocks[rows] = shocks[rows] @ np.linalg.cholesky(covariance).T - np.diag(covariance) / 2
    return part * np.log1p(MEAN) + shocks


def filter_beliefs(sessions: Sessions) -> Float[np.ndarray, "T Z"]:
    """Compute P(state of session t + 1 | rows up to t)."""
    ratio = sessions.range_variance[:, None] / ((1 - NIGHT) * _variances())
    density = (
        log_densities(sessions.night, NIGHT)
        + log_densities(sessions.day, 1 - NIGHT)
        + RANGE_DEGREES / 2 * (np.log(ratio) - ratio).sum(axis=2)  # up to what all states share
    )
    likelihood = np.exp(density - density.max(axis=1, keepdims=True))
    moves, belief = transition_matrix(), STATE_SHARES
    beliefs = np.empty_like(likelihood)
    for t, seen in enumerate(likelihood):
        posterior = belief * seen
        belief = posterior @ moves / posterior.sum()
        beliefs[t] = belief
    return beliefs


def log_densities(log_return: Float[np.ndarray, "T A"], part: float) -> Float[np.ndarray, "T Z"]:
    """Compute the log density of a part of each session in each state."""
    densities = []
    for covariance in part * covariances():
        root = np.linalg.cholesky(covariance)
        shocks = log_return - part * np.log1p(MEAN) + np.diag(covariance) / 2
        scaled = np.linalg.solve(root, shocks.T)
        constant = N_ASSETS * np.log(2 * np.pi) / 2 + np.log(np.diag(root)).sum()
        densities.append(-constant - (scaled**2).sum(axis=0) / 2)
    return np.stack(densities, axis=1)


def market_of_sessions(sessions: Sessions, plan: PathPlan) -> Market:
    """Show the sessions to agents, with features of rows <= t."""
    simple_return = np.expm1(sessions.night + sessions.day)
    stock, macro = _features(simple_return, sessions.range_variance, plan)
    name, weekly = "volatility_regimes", DAYS_PER_WEEK
    return replace(
        market_of_returns(name, simple_return, SECTOR_OF, plan.split(), weekly),
        dates=np.busday_offset(FIRST_MONDAY, np.arange(plan.n_days)),
        overnight_return=np.expm1(sessions.night),
        intraday_return=np.expm1(sessions.day),
        stock_features=np.stack(list(stock.values()), axis=2).astype(np.float32),
        feature_names=tuple(stock),
        macro_features=np.stack(list(macro.values()), axis=1).astype(np.float32),
        macro_names=tuple(macro),
        range_variance=sessions.range_variance,
        sector_embeddings=None,
    )


def _features(
    simple_return: Float[np.ndarray, "T A"], ranges: Float[np.ndarray, "T A"], plan: PathPlan
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Average variances and products of returns at several speeds, for each stock and for all.

    A stock's log variance is that of all, plus its sector's over that, plus its own over its
    sector's; each part is shown. A beta to 1/N shows what the stock, or its sector, adds to the
    risk of all, and one to the sector what the stock adds there. The macro columns are the variance
    of the mean stock and the part of it that 1/N keeps.
    """
    together, sector = simple_return.mean(axis=1, keepdims=True), sector_means(simple_return)
    stock, macro = {}, {}
    for days in HALF_LIVES:
        variance = moving_average(ranges, days)
        own, whole = np.log(variance), moving_average(together**2, days)
        of_sector, mean = sector_means(own), np.log(variance.mean(axis=1))
        beta = moving_average(simple_return * together, days) / whole
        inside = moving_average(simple_return * sector, days) / moving_average(sector**2, days)
        columns = {
            "variance": own,
            "sector_variance": of_sector - own.mean(axis=1, keepdims=True),
            "relative_variance": own - of_sector,
            "beta": beta,
            "sector_beta": sector_means(beta),
            "beta_to_sector": inside,
        }
        stock |= {f"{name}_{days}d": by_training_span(v, plan) for name, v in columns.items()}
        macro[f"variance_{days}d"] = by_training_span(mean, plan)
        macro[f"correlation_{days}d"] = by_training_span(np.log(whole[:, 0]) - mean, plan)
    return stock, macro


def sector_means(values: Float[np.ndarray, "T A"]) -> Float[np.ndarray, "T A"]:
    """Give every stock the mean of its sector."""
    means: np.ndarray = values @ MEMBER / PER_SECTOR
    return means[:, SECTOR_OF]


def moving_average(
    values: Float[np.ndarray, "*shape"], half_life: int
) -> Float[np.ndarray, "*shape"]:
    """Compute exponentially weighted means of rows <= t; the first row starts them."""
    keep = 0.5 ** (1 / half_life)
    averages: np.ndarray = lfilter([1 - keep], [1, -keep], values, axis=0, zi=keep * values[:1])[0]
    return averages


def by_training_span(
    values: Float[np.ndarray, "*shape"], plan: PathPlan
) -> Float[np.ndarray, "*shape"]:
    """Measure values in deviations of the training span, over all its entries, within +-CLIP."""
    train = plan.split().train
    mean, deviation = fitted_scale(values[train.start : train.stop].reshape(-1, 1))
    return np.clip((values - mean) / deviation, -CLIP, CLIP)


@dataclass(frozen=True)
class Choice:
    """What may be chosen: n shares of wealth, of which `spread` makes the weights of the stocks."""

    spread: Float[np.ndarray, "A n"]
    rows: Float[np.ndarray, "m n"]
    """Linear limits: lower <= rows @ choice <= upper."""
    lower: Float[np.ndarray, " m"]
    upper: Float[np.ndarray, " m"]


def free_choice(risk: RiskConfig) -> Choice:
    """Allow every weight of stocks within the limits: both levels together."""
    return _within_sector_caps(np.eye(N_ASSETS), MEMBER, risk.stock_cap, risk)


def sector_choice(risk: RiskConfig) -> Choice:
    """Allow every sector weight, with equal weights inside: the macro level alone."""
    spread = MEMBER / PER_SECTOR
    return _within_sector_caps(spread, np.eye(N_SECTORS), PER_SECTOR * risk.stock_cap, risk)


def stock_choice(risk: RiskConfig) -> Choice:
    """Allow every split of equal sectors at full exposure: the micro level alone."""
    budget = np.full(N_SECTORS, (1 - risk.min_cash) / N_SECTORS)
    return Choice(
        spread=np.eye(N_ASSETS),
        rows=np.concatenate([np.eye(N_ASSETS), MEMBER.T]),
        lower=np.concatenate([np.zeros(N_ASSETS), budget]),
        upper=np.concatenate([np.full(N_ASSETS, risk.stock_cap), budget]),
    )


def _within_sector_caps(
    spread: Float[np.ndarray, "A n"], member: Float[np.ndarray, "n S"], cap: float, risk: RiskConfig
) -> Choice:
    """Limit each share, their sum, and each sector to its cap as a part of that sum.

    A goal holds parts of what is invested, and the simulator caps them there.
    """
    n = len(member)
    over = member.T - risk.sector_cap
    return Choice(
        spread=spread,
        rows=np.concatenate([np.eye(n), np.ones((1, n)), over]),
        lower=np.concatenate([np.zeros(n + 1), np.full(N_SECTORS, -1.0)]),
        upper=np.concatenate([np.full(n, cap), [1 - risk.min_cash], np.zeros(N_SECTORS)]),
    )


def best_of_beliefs(
    beliefs: Float[np.ndarray, "T Z"], choice: Choice, full_weight: float
) -> Float[np.ndarray, "T n"]:
    """Compute the best choice at each belief, rounded to steps of 1/40.

    The loss from rounding is of second order, and most beliefs are close to a single state.
    """
    rounded = np.round(beliefs * BELIEF_STEPS)
    unique, row_of = np.unique(rounded, axis=0, return_inverse=True)
    expected = np.einsum("uz,zab->uab", unique / unique.sum(axis=1, keepdims=True), covariances())
    chosen: np.ndarray = best_choices(expected, choice, full_weight)[row_of.reshape(-1)]
    return chosen


def best_choices(
    covariance: Float[np.ndarray, "U A A"], choice: Choice, full_weight: float
) -> Float[np.ndarray, "U n"]:
    """Minimise variance / 2 - full_weight x normal variance x sum of weights, for each covariance.

    The invested share `full_weight` is best where the variance of the portfolio is normal. All
    problems are solved in one batch by alternating directions.

    Source:
        Stellato et al. (2020), OSQP, algorithm 1.
    """
    relative = covariance * SESSIONS_PER_YEAR / normal_variance()
    quadratic = np.einsum("an,uab,bm->unm", choice.spread, relative, choice.spread)
    premium = full_weight * choice.spread.sum(axis=0)
    regular = 1e-6 * np.eye(len(premium))
    inverse = np.linalg.inv(quadratic + regular + STIFFNESS * choice.rows.T @ choice.rows)
    chosen = np.zeros(quadratic.shape[:2])
    limited, dual = np.zeros((2, len(quadratic), len(choice.rows)))
    for _ in range(ROUNDS):
        aim = chosen @ regular + premium + (STIFFNESS * limited - dual) @ choice.rows
        chosen = np.einsum("unm,um->un", inverse, aim)
        reached = chosen @ choice.rows.T
        limited = np.clip(reached + dual / STIFFNESS, choice.lower, choice.upper)
        dual += STIFFNESS * (reached - limited)
    return np.clip(chosen, 0.0, None)


class SectorTable:
    """Asks for the table's sector weights of the day, as shares of wealth; the rest is cash."""

    has_view = False
    """It forecasts no regime."""

    def __init__(self, tensors: MarketTensors, weights: Float[np.ndarray, "T S"]) -> None:
        self.weights = torch.as_tensor(weights, dtype=torch.float32, device=tensors.device)

    def goal(self, observation: Observation) -> Goal:
        """Return sector shares and exposure, whatever is held."""
        return ask(self.weights[observation["day"].long().flatten()])


def ask(weights: Float[Tensor, "B S"]) -> Goal:
    """Make a goal of sector weights as shares of wealth; the rest stays cash."""
    invested = weights.sum(dim=1)
    cash = 1 - invested.clamp(max=1.0)
    return Goal(weights / invested[:, None], cash, no_view(weights))


class StockTable:
    """Splits the goal's sectors by the table's weights of the day, unless what is held is near.

    It trades where half the L1 distance is above the band.
    """

    def __init__(
        self,
        tensors: MarketTensors,
        risk: RiskConfig,
        weights: Float[np.ndarray, "T A"],
        band: float,
    ) -> None:
        self.tensors, self.risk, self.band = tensors, risk, band
        grouped = weights.reshape(len(weights), N_SECTORS, PER_SECTOR) + NO_WEIGHT
        shares = grouped / grouped.sum(axis=2, keepdims=True)
        self.shares = torch.as_tensor(shares, dtype=torch.float32, device=tensors.device)

    def target(self, observation: Observation) -> Float[Tensor, "B N"]:
        """Return the ideal holdings inside the goal's budgets, or those held."""
        view = micro_view(self.tensors, observation)
        budgets = slot_request(view, self.risk).budgets
        shares = self.shares[observation["day"].long().flatten()]
        ideal = (budgets[:, :, None] * shares).flatten(1)
        distance = (ideal - view.weights).abs().sum(dim=1, keepdim=True) / 2
        return torch.where(distance > self.band, ideal, view.weights)


def best_pairs(
    tensors: MarketTensors, beliefs: Float[np.ndarray, "T Z"], config: RunConfig, band: float = BAND
) -> dict[str, tuple[MacroPolicy, MicroPolicy]]:
    """Make the best pair of policies at these beliefs, and the best of each level alone.

    The beliefs are those of the next session. Alone, a level faces a rule at the other one: equal
    weights inside the goal's sectors, or equal sectors at full exposure.
    """
    risk, full_weight = config.risk, config.objective.invested_share
    moves = transition_matrix()
    ahead = [np.linalg.matrix_power(moves, session) for session in range(DAYS_PER_WEEK)]
    weekly = beliefs @ np.mean(ahead, axis=0)

    def macro(choice: Choice) -> MacroPolicy:
        weights = best_of_beliefs(weekly, choice, full_weight) @ choice.spread.T
        return SectorTable(tensors, weights @ MEMBER)

    def micro(choice: Choice) -> MicroPolicy:
        weights = best_of_beliefs(beliefs, choice, full_weight)
        return StockTable(tensors, risk, weights, band)

    return {
        "optimum": (macro(free_choice(risk)), micro(free_choice(risk))),
        "macro optimum": (macro(sector_choice(risk)), FollowGoal(tensors, risk)),
        "micro optimum": (ProportionalGoal(tensors), micro(stock_choice(risk))),
    }


def path_score(
    tensors: MarketTensors,
    config: RunConfig,
    plan: PathPlan,
    pairs: Mapping[str, tuple[MacroPolicy, MicroPolicy]],
) -> dict[str, Float[np.ndarray, " P"]]:
    """Compute the mean risk objective of a week, in %, of pairs of policies on each test path.

    A week earns 100 [premium x invested share x sessions / 252 - costs - gamma / 2 sum r^2], with
    the premium gamma x 0.98 x normal variance. The invested share is that of the target weights.
    The paths, and the first day in cash, are the same for all.
    """
    spans = [DayRange(start, start + plan.path_days + 1) for start in plan.path_starts().tolist()]
    policies = [HierarchicalPolicy(name, *pair) for name, pair in pairs.items()]
    frictions = Variant(config.market_profile.costs, config.risk)
    weekly = []
    for ledger in rollout(policies, tensors, spans, [frictions]):
        invested = ledger.target_weights[:, 1:].sum(axis=2)
        variance = ledger.net_return[:, 1:] ** 2
        earned = session_objective(invested, variance, config) - ledger.cost[:, 1:]
        weekly.append(PERCENT * DAYS_PER_WEEK * earned.mean(axis=0))
    return dict(zip(pairs, np.array(weekly).T, strict=True))


def session_objective(
    invested: Float[np.ndarray, "*shape"], variance: Float[np.ndarray, "*shape"], config: RunConfig
) -> Float[np.ndarray, "*shape"]:
    """Compute the premium of the invested share less the price of a session's variance."""
    gamma, full_weight = config.objective.risk_aversion, config.objective.invested_share
    premium = full_weight * normal_variance() / SESSIONS_PER_YEAR
    return gamma * (premium * invested - variance / 2)


def cost_free_bound(planted: VolatilityMarket, config: RunConfig) -> float:
    """Compute the objective of a week, in %, that no policy without knowledge of the future passes.

    Each session of the test paths earns what the best weights of the filter's belief are expected
    to earn, without costs and whatever was held before.
    """
    test = planted.market.split.test
    beliefs = planted.beliefs[test.start : test.stop]
    weights = best_of_beliefs(beliefs, free_choice(config.risk), config.objective.invested_share)
    by_state = np.einsum("ta,zab,tb->tz", weights, covariances(), weights)
    earned = session_objective(weights.sum(axis=1), (beliefs * by_state).sum(axis=1), config)
    return float(PERCENT * DAYS_PER_WEEK * earned.mean())
