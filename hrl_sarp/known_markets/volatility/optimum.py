"""The best policies of the market of known risk, and the score of others.

The best weights of a belief minimise gamma / 2 x variance - premium x invested share within the
simulator's limits. The oracles hold them, inside a band that saves costs. `cost_free_bound` is
above every policy that does not know the future.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hrl_sarp.config.schema import RiskConfig, RunConfig
from hrl_sarp.contracts import DayRange, Goal
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
from hrl_sarp.known_markets.two_level import DAYS_PER_WEEK, PathPlan
from hrl_sarp.known_markets.volatility.regimes import (
    MEMBER,
    N_ASSETS,
    N_SECTORS,
    PER_SECTOR,
    VolatilityMarket,
    covariances,
    normal_variance,
    transition_matrix,
)
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.metrics import SESSIONS_PER_YEAR

PERCENT = 100.0
NO_WEIGHT = 1e-9
"""Added to every weight, so that a sector without any is split evenly."""
BAND = 0.03
"""Best band of the micro oracle at 6 bps a side, from a grid of 0 to 0.1; the macro's is 0."""
BELIEF_STEPS = 40
"""Best weights are solved at beliefs in steps of 1/40."""
ROUNDS, STIFFNESS = 400, 5.0
"""Of the solver: at the best weights of every state to 1e-12."""


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
