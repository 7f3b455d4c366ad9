"""Splits an excess over 1/N into its sources, and finds the rule that a policy is nearest to."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from hrl_sarp.contracts import Market, Trajectory
from hrl_sarp.envs.rollout import INDEX
from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT, RULES
from hrl_sarp.evaluation.performance import Performance, column, market_rows, sector_weights
from hrl_sarp.metrics import ROUNDING

Weights = Float[np.ndarray, "D A"]
LARGEST = 10
"""Stocks that a report shows one by one."""
SMALLEST_TRADE = 1e-4
"""Share of wealth from which a change of a holding counts as a trade: 0.01 %."""
CLASSICAL_PRIOR, GOAL_FOLLOWING = "classical prior", "goal-following"
"""Rows of a trained run without a trained agent: the portfolio that agents start from, and the 1/N
goal with that portfolio inside the sectors."""
MACRO_SHARE, MICRO_SHARE = "share of the macro agent", "share of the micro agent"
"""What certification grants."""
DRAWN = tuple(RULES[name][0] for name in ("random_policy", "ridge_shuffled"))
"""Baselines that show luck. No policy is likened to them."""


@dataclass(frozen=True)
class Likeness:
    """The rule whose weights are nearest to those of a policy."""

    rule: str
    distance: float
    """Mean half-L1 distance of the weights, cash included: the share of wealth that lies elsewhere.
    """


@dataclass(frozen=True)
class Attribution:
    """Mean daily arithmetic excess over 1/N, times sessions per year, split by its source."""

    name: str
    sectors: float
    """From sector weights other than those of 1/N, which the macro agent decides."""
    stocks: float
    """From other stocks in the sectors (interaction included), which the micro agent decides."""
    cash: float
    """From holding more or less cash, interest included."""
    costs: float
    """From paying more (negative) or less than 1/N."""
    residual: float
    """Products of night, cost and day, which an arithmetic split cannot assign."""
    total: float
    """Sum of the parts."""


@dataclass(frozen=True)
class LevelSwaps:
    """Names of four policies; in each, either level is a trained agent or follows a rule."""

    both: str
    macro_only: str
    """Trained macro agent, rule inside the sectors."""
    micro_only: str
    """Rule for the sectors, trained micro agent."""
    neither: str


@dataclass(frozen=True)
class LevelGains:
    """Gain of each level in annual log growth. macro + micro = both - neither."""

    macro: float
    micro: float
    interaction: float
    """Both - macro only - micro only + neither. Each level's gain includes half of it."""


def level_gains(performances: Mapping[str, Performance], swaps: LevelSwaps) -> LevelGains:
    """Split the gain of two trained levels by swapping each for its rule (Shapley values).

    Gains are in log growth a year, with half of the interaction in each.
    """
    both, macro, micro, neither = (
        performances[name]["growth_excess"].value
        for name in (swaps.both, swaps.macro_only, swaps.micro_only, swaps.neither)
    )
    interaction = both - macro - micro + neither
    return LevelGains(
        macro=macro - neither + interaction / 2,
        micro=micro - neither + interaction / 2,
        interaction=interaction,
    )


def attribute(trajectory: Trajectory, market: Market, name: str) -> Attribution:
    """Attribute a policy's excess over 1/N to sectors, stocks, cash and costs.

    Night and day are split separately. The parts sum to the mean daily excess times the sessions
    of a year. The trajectory must include 1/N, with weights.

    Source:
        Brinson and Fachler (1985), "Measuring non-US equity portfolio performance".
    """
    i, base = column(trajectory, name), column(trajectory, EQUAL_WEIGHT)
    rows = market_rows(market, trajectory)
    own_night, base_night = (_held_over_night(trajectory, market, row) for row in (i, base))
    own_day, base_day = (trajectory.weights_after[:, row] for row in (i, base))
    parts = _brinson(own_night, base_night, market.overnight_return[rows], market)
    parts += _brinson(own_day, base_day, market.intraday_return[rows], market)
    sectors, stocks, cash = parts / len(rows) * market.sessions.year
    less_invested = base_night.sum(axis=1) - own_night.sum(axis=1)
    cash += float((less_invested * market.risk_free[rows]).mean() * market.sessions.year)
    costs = -float((trajectory.cost[:, i] - trajectory.cost[:, base]).mean() * market.sessions.year)
    excess = trajectory.net_return[:, i] - trajectory.net_return[:, base]
    total = float(excess.mean() * market.sessions.year)
    return Attribution(
        name=name,
        sectors=float(sectors),
        stocks=float(stocks),
        cash=float(cash),
        costs=costs,
        residual=float(total - sectors - stocks - cash - costs),
        total=total,
    )


@dataclass(frozen=True)
class Holdings:
    """What a policy held, stock by stock."""

    largest: tuple[str, ...]
    """Symbols with the largest mean weights, at most `LARGEST`, the largest first."""
    last: dict[str, float]
    """Symbol -> weight after the last trade, the largest first; without stocks that it did not
    hold."""
    contributions: dict[str, float]
    """Symbol -> part of the mean return before costs, times sessions per year, the largest first;
    without stocks that it never held."""
    trades: dict[str, int]
    """Month as 2021-03 -> purchases and sales that moved more than `SMALLEST_TRADE` of wealth."""


def holdings(trajectory: Trajectory, market: Market, name: str) -> Holdings:
    """Summarise what a policy held, what each stock earned for it, and how often it traded.

    The contributions sum to the mean return before costs and interest, up to the products of night
    and day.
    """
    i, rows = column(trajectory, name), market_rows(market, trajectory)
    after = trajectory.weights_after[:, i]
    night = _held_over_night(trajectory, market, i) * market.overnight_return[rows]
    earned = (night + after * market.intraday_return[rows]).mean(axis=0) * market.sessions.year
    kept = 1.0 - trajectory.cost[:, i, None]
    traded = np.abs(after * kept - trajectory.weights_before[:, i]) > SMALLEST_TRADE
    months = trajectory.dates.astype("datetime64[M]")
    held = after > ROUNDING

    def ordered(values: np.ndarray, shown: Any) -> dict[str, float]:
        order = np.argsort(-values, kind="stable")
        return {market.symbols[a]: float(values[a]) for a in order.tolist() if shown[a]}

    return Holdings(
        largest=tuple(ordered(after.mean(axis=0), held.max(axis=0)))[:LARGEST],
        last=ordered(after[-1], held[-1]),
        contributions=ordered(earned, held.max(axis=0)),
        trades={
            str(month): int(traded[months == month].sum()) for month in np.unique(months).tolist()
        },
    )


def _held_over_night(trajectory: Trajectory, market: Market, i: int) -> Weights:
    """Return the weights at the close before each session; the first is all cash."""
    rows = market_rows(market, trajectory)
    after = trajectory.weights_after[:-1, i]
    gained = after * market.intraday_return[rows[:-1]]
    closing = (after + gained) / (1.0 + gained.sum(axis=1, keepdims=True))
    return np.concatenate([np.zeros((1, closing.shape[1])), closing])


def _brinson(own: Weights, base: Weights, returns: Weights, market: Market) -> np.ndarray:
    """Sum the daily effects of sectors, stocks and cash."""
    own_sector, base_sector = sector_weights(own, market), sector_weights(base, market)
    own_earned = sector_weights(own * returns, market)
    base_earned = sector_weights(base * returns, market)
    base_return = np.divide(
        base_earned, base_sector, out=np.zeros_like(base_earned), where=base_sector > ROUNDING
    )
    base_invested = base_sector.sum(axis=1, keepdims=True)
    invested = np.where(base_invested > ROUNDING, base_invested, 1.0)
    overall = base_earned.sum(axis=1, keepdims=True) / invested
    sectors = ((own_sector - base_sector) * (base_return - overall)).sum()
    stocks = (own_earned - own_sector * base_return).sum()
    cash = ((own_sector.sum(axis=1, keepdims=True) - base_invested) * overall).sum()
    return np.array([sectors, stocks, cash])


def nearest_rule(trajectory: Trajectory, name: str, policy_names: Collection[str]) -> Likeness:
    """Find the rule that a policy comes nearest to, by the weights after each trade.

    Rules are the baselines and the rows of a trained run without a trained agent.

    Args:
        trajectory: with the weights of all policies.
        name: of the policy.
        policy_names: policies that are no baselines.
    """
    own = trajectory.weights_after[:, column(trajectory, name)]
    others = {*policy_names, INDEX, name, *DRAWN} - ({CLASSICAL_PRIOR, GOAL_FOLLOWING} - {name})
    found = []
    for i, rule in enumerate(trajectory.names):
        if rule not in others:
            moved = share_elsewhere(own, trajectory.weights_after[:, i])
            found.append(Likeness(rule, float(moved.mean())))
    return min(found, key=lambda likeness: likeness.distance)


def share_elsewhere(
    first: Float[np.ndarray, "*#shape A"], second: Float[np.ndarray, "*#shape A"]
) -> Float[np.ndarray, "..."]:
    """Compute the share of wealth that two portfolios hold in different places; broadcasts.

    Args:
        first: weights of the stocks, as shares of wealth; the rest is cash.
        second: of the other portfolio.

    Returns:
        Half the L1 distance with cash included: the total-variation distance, from 0 to 1.

    Examples:
        >>> round(float(share_elsewhere(np.array([0.5, 0.3]), np.array([0.4, 0.2]))), 2)
        0.2
    """
    gap = first - second
    return np.asarray((np.abs(gap).sum(axis=-1) + np.abs(gap.sum(axis=-1))) / 2)
