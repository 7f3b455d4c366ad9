"""The reward terms of both levels, in %.

Under the objective `risk` a reward is a premium on what is invested, less costs and variance. No
realised mean return counts, because decades of prices hold no signal of it that could be learned.
Under `growth` a reward is log growth over 1/N, for markets whose best policy is known.
"""

from dataclasses import fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hrl_sarp.config.objective_schema import MacroRewardConfig, MicroRewardConfig, ObjectiveConfig
from hrl_sarp.config.own_code import call, load_function
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import StepResult, goal_size
from hrl_sarp.errors import OwnCodeError
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.simulator.portfolio import PortfolioSimulator

PERCENT = 100.0
TOTAL_LOSS_FLOOR = 1e-12
"""Smallest share of wealth that is left for a logarithm, where the precision can tell it from 0."""


def session_objective(
    tensors: MarketTensors,
    objective: ObjectiveConfig,
    result: StepResult,
    exposure: Float[Tensor, " B"],
) -> dict[str, Float[Tensor, " B"]]:
    """Compute the terms of the objective in one session; their sum is what agents maximise, in %.

    risk: premium x exposure - cost - gamma / 2 x squared net return. The premium of a year is
    gamma x invested share x normal variance, so that the invested share is the best exposure at
    normal variance. It is no forecast. growth: log growth over the benchmark 1/N.

    Args:
        tensors: the market.
        objective: kind and risk aversion.
        result: of the session.
        exposure: share of wealth that was to be invested.
    """
    if objective.kind == "growth":
        benchmark = log1p_growth(tensors.reward_benchmark[result.day])
        return {"growth": PERCENT * (log1p_growth(result.net_return) - benchmark)}
    decided = (result.day - 1).clamp(min=0)
    premium = objective.risk_aversion * objective.invested_share * tensors.normal_variance[decided]
    return {
        "premium": PERCENT * premium * exposure / tensors.market.sessions.year,
        "cost_term": -PERCENT * result.cost,
        "variance": -PERCENT * objective.risk_aversion / 2 * result.net_return.square(),
    }


def macro_penalties(
    drawdowns: tuple[Tensor, Tensor],
    sector_weights: Float[Tensor, "B S"],
    n_listed: Float[Tensor, " B"],
    config: MacroRewardConfig,
) -> dict[str, Float[Tensor, " B"]]:
    """Compute what the objective `growth` takes off for concentration and drawdown, in %.

    Args:
        drawdowns: active drawdown (of W/B since the episode began) before and after the week.
        sector_weights: the goal that was set.
        n_listed: sectors that could get weight.
        config: weights of the terms.
    """
    herfindahl = sector_weights.square().sum(dim=1)
    before, after = drawdowns
    threshold = config.drawdown_threshold
    worse = (after - threshold).clamp(min=0) - (before - threshold).clamp(min=0)
    return {
        "concentration": -config.concentration_weight * (herfindahl - 1 / n_listed),
        "drawdown": -config.drawdown_weight * PERCENT * worse.clamp(min=0),
    }


def micro_gain(
    tensors: MarketTensors,
    result: StepResult,
    objective: ObjectiveConfig,
    config: MicroRewardConfig,
) -> Float[Tensor, " B"]:
    """Return what a session gained, in %. It does not depend on the goal.

    risk: the negative of cost and variance. growth: 100 x (log growth over that of the own sectors
    at the weights that they have, overnight and intraday, minus cost), or log growth over 1/N where
    the configuration says so. Sums of returns would pay volatile stocks for what they lose again.
    A stock without a bar counts as if it moved with its sector.
    """
    if objective.kind == "risk":
        variance = objective.risk_aversion / 2 * result.net_return.square()
        return -PERCENT * (result.cost + variance)
    if config.gain == "growth":
        benchmark = tensors.reward_benchmark[result.day]
        return PERCENT * (log1p_growth(result.net_return) - log1p_growth(benchmark))
    night = _growth_over_sectors(
        result.weights_start, tensors.overnight[result.day], tensors.overnight_relative[result.day]
    )
    day = _growth_over_sectors(
        result.weights_after, tensors.intraday[result.day], tensors.intraday_relative[result.day]
    )
    return PERCENT * (night + day - result.cost)


def _growth_over_sectors(
    weights: Float[Tensor, "B A"], earned: Float[Tensor, "B A"], relative: Float[Tensor, "B A"]
) -> Float[Tensor, " B"]:
    own = (weights * earned).sum(dim=1)
    of_sectors = (weights * (earned - relative)).sum(dim=1)
    return log1p_growth(own) - log1p_growth(of_sectors)


def followed_variance(
    tensors: MarketTensors,
    objective: ObjectiveConfig,
    earned: Int[Tensor, " B"],
    exposure: Float[Tensor, " B"],
) -> Float[Tensor, "B S"]:
    """Return what each sector of the classical portfolio adds to the root of a variance term.

    A gain of the objective `risk` is measured from that of following the goal without costs:
    (sum over sectors of goal x this)^2, in %, see `micro_reward`. It does not depend on the action,
    so it takes away only the noise that all actions share. It is 0 under `growth`.

    Args:
        tensors: the market.
        objective: kind and risk aversion.
        earned: the session that was earned.
        exposure: share of wealth that was to be invested.
    """
    scale = PERCENT * objective.risk_aversion / 2 if objective.kind == "risk" else 0.0
    return scale**0.5 * exposure[:, None] * tensors.prior_return[earned]


def extra_reward(
    name: str | None, result: StepResult, tensors: MarketTensors
) -> dict[str, Float[Tensor, " B"]]:
    """Compute the user's own term of a session's reward, in %; empty without one.

    Args:
        name: `rewards.extra` of the configuration, `package.module:function`.
        result: of the session.
        tensors: the market.

    Raises:
        ConfigError: if the function cannot be imported.
        OwnCodeError: if it fails, or gives other than B finite numbers.
    """
    if name is None:
        return {}
    function = load_function(name, "rewards.extra")
    parts = {item.name: getattr(result, item.name) for item in fields(result)}
    # of its own, because a function that works in place would change what the session earned
    own = StepResult(**{n: v.clone() if isinstance(v, Tensor) else v for n, v in parts.items()})
    given = call(function, name, own, tensors)
    shape = result.net_return.shape
    if not isinstance(given, Tensor) or given.shape != shape or not bool(given.isfinite().all()):
        shown = type(given).__name__
        if isinstance(given, Tensor):
            numbers = given.flatten()[~given.flatten().isfinite()][:1].tolist()
            shown = f"shape {tuple(given.shape)}" if given.shape != shape else f"{numbers[0]}"
        raise OwnCodeError(
            f"{name}: expected a tensor of {shape[0]} finite numbers, found {shown}; correct its "
            "return value"
        )
    return {"extra": given.to(result.net_return.dtype)}


def require_extra_reward(config: RunConfig, tensors: MarketTensors) -> None:
    """Ask the user's own reward term about one session, before a training that may take hours.

    Args:
        config: with the name of the term; nothing is asked where there is none.
        tensors: the market; the session is the second of its training span.

    Raises:
        ConfigError: if the function cannot be imported.
        OwnCodeError: if it fails, or gives other than one finite number for each portfolio.
    """
    if config.rewards.extra is None:
        return
    costs, n_asked = config.market_profile.costs, 2  # one alone would let a plain number pass
    simulator = PortfolioSimulator(
        tensors, costs, config.risk, n_asked, tensors.dtype, tensors.device
    )
    days = torch.full((n_asked,), tensors.market.split.train.start, device=tensors.device)
    simulator.reset(days)
    held = tensors.tradable[days].to(tensors.dtype)
    result = simulator.step(held / held.sum(dim=1, keepdim=True).clamp(min=1.0))
    extra_reward(config.rewards.extra, result, tensors)


def goal_alignment(achieved: Any, desired: Any, n_sectors: int) -> Any:
    """Return 1 - half the L1 distance of the first `n_sectors` entries, of arrays or tensors."""
    distance = abs(achieved[..., :n_sectors] - desired[..., :n_sectors])
    return 1 - 0.5 * distance.sum(-1)


def micro_reward(
    gain: Any, achieved: Any, desired: Any, config: MicroRewardConfig, followed: Any = None
) -> Any:
    """Return gain + what following the goal lost - weight x (1 - alignment), in %.

    The env and hindsight replay both call it. Takes arrays or tensors: gain (B,), achieved sector
    shares and desired goal (B, G), `followed_variance` (B, S). With `reached` the reward is 0 where
    the goal is reached and -1 elsewhere, whatever the gain.
    """
    n_sectors = desired.shape[-1] - goal_size(0)
    misaligned = 1 - goal_alignment(achieved, desired, n_sectors)
    if config.gain == "reached":
        return -1.0 * (misaligned > config.reached_distance)
    if followed is not None:
        gain = gain + (desired[..., :n_sectors] * followed).sum(-1) ** 2
    return gain - config.alignment_weight * misaligned


def log1p_growth(simple_return: Tensor) -> Tensor:
    """Return ln(1 + r), finite at a total loss: about -27.6 in float64, -15.9 in float32.

    The floor depends on the precision: in float32, -1 + 1e-12 would round to -1, whose log is -inf.
    """
    floor = max(TOTAL_LOSS_FLOOR, torch.finfo(simple_return.dtype).eps)
    return torch.log1p(simple_return.clamp(min=floor - 1))
