"""What the reinforcement loop logs about portfolios, and what each curriculum stage came to."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hrl_sarp.config.schema import RiskConfig
from hrl_sarp.envs.decoding import achieved_sectors
from hrl_sarp.envs.levels import LevelStep, Trade
from hrl_sarp.envs.rewards import goal_alignment
from hrl_sarp.market.tensors import MarketTensors

MEASURE_EVERY = 8
"""Steps of the batch between two looks at its portfolios."""
CAP_TOLERANCE = 1e-4
"""A weight this close to its cap, in shares of wealth, is at the cap."""

Stage = dict[str, Any]
"""A stage as a checkpoint holds it: when it began, its mix, steps and sums of what was earned."""


def portfolio_measures(
    tensors: MarketTensors, trade: Trade, risk: RiskConfig
) -> dict[str, Float[Tensor, " B"]]:
    """Measure B portfolios after their trade: exposure, concentration, limits that bind.

    Args:
        tensors: the market.
        trade: the last trade of a level.
        risk: caps and cash floor.

    Returns:
        `exposure` (share of wealth), `alignment` with the goal, `weights_hhi` and `sector_hhi` (of
        the invested part), `stock_capped` and `sector_capped` (share of the invested part that
        sits at a cap), `cash_floor` (1 where only the least cash is left).
    """
    weights = trade.result.weights_after
    invested = weights.sum(dim=1)
    shares = weights / invested.clamp(min=1e-12)[:, None]
    sectors = achieved_sectors(tensors, weights)
    at_cap = weights >= risk.stock_cap - CAP_TOLERANCE
    # goals are capped as shares of the invested part, so that binds before the share of wealth does
    sector_at_cap = sectors >= risk.sector_cap - CAP_TOLERANCE
    return {
        "exposure": invested,
        "alignment": goal_alignment(sectors, trade.goal, tensors.n_sectors),
        "weights_hhi": shares.square().sum(dim=1),
        "sector_hhi": sectors.square().sum(dim=1),
        "stock_capped": (shares * at_cap).sum(dim=1),
        "sector_capped": (sectors * sector_at_cap).sum(dim=1),
        "cash_floor": (1 - invested <= risk.min_cash + CAP_TOLERANCE).to(invested.dtype),
    }


def mean_terms(step: LevelStep) -> dict[str, float]:
    """Average reward, its terms and the level's measures over the batch, with one device wait."""
    terms = {"reward": step.reward, **step.terms}
    means = torch.stack(list(terms.values())).mean(dim=1)
    return dict(zip(terms, means.tolist(), strict=True))


def open_stage(name: str, step: int, evaluation: int, regime_mix: Sequence[float]) -> Stage:
    """Begin the tally of a stage.

    Args:
        name: of the stage.
        step: environment steps of the phase before it.
        evaluation: evaluations of the phase before it.
        regime_mix: shares of episodes that start in bear, bull, sideways.
    """
    return {
        "name": name,
        "from_step": step,
        "from_evaluation": evaluation,
        "regime_mix": list(regime_mix),
        "batch_steps": 0,
        "sums": {},
    }


def count_terms(stage: Stage, means: dict[str, float]) -> None:
    """Add one step of the batch to the tally of its stage."""
    stage["batch_steps"] += 1
    sums = stage["sums"]
    for name, value in means.items():
        sums[name] = sums.get(name, 0.0) + value


def stage_summaries(stages: list[Stage], scores: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Say of each stage what its steps earned on average and how validation went meanwhile.

    Args:
        stages: tallies in their order.
        scores: all evaluations of the phase.
    """
    ends = [stage["from_evaluation"] for stage in stages[1:]] + [len(scores)]
    summaries = []
    for stage, end in zip(stages, ends, strict=True):
        steps = stage["batch_steps"]
        growth = [row["excess_growth_pct"] for row in scores[stage["from_evaluation"] : end]]
        summaries.append(
            {
                **{name: value for name, value in stage.items() if name != "sums"},
                "means": {name: total / steps for name, total in stage["sums"].items()},
                "validation_excess_growth_pct": sum(growth) / len(growth) if growth else None,
            }
        )
    return summaries
