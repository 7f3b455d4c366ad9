"""Both decisions of a deployed pair as modules of plain arrays, without a market or a simulator.

A module asks the same policies, decodes and limits as the package does. Only what they read comes
from its inputs instead of the tables of a market.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hrl_sarp.agents import MacroAgent, MicroAgent
from hrl_sarp.agents.td3.networks import MicroSettings
from hrl_sarp.config.schema import RiskConfig
from hrl_sarp.contracts import Goal
from hrl_sarp.envs.observations import (
    MICRO_SCALARS,
    MacroInputs,
    MicroInputs,
    MicroView,
    SlotRequest,
    macro_inputs,
    slot_request,
)
from hrl_sarp.envs.policies import (
    ClassicalGoal,
    FollowGoal,
    MacroPolicy,
    MicroPolicy,
    MixedGoal,
    MixedTarget,
    Observation,
    follow_goal,
    no_view,
)
from hrl_sarp.envs.rollout import HierarchicalPolicy
from hrl_sarp.envs.two_clocks import TwoClocks
from hrl_sarp.errors import HrlSarpError
from hrl_sarp.simulator.limits import exposure_limit, feasible_sectors, slot_targets
from hrl_sarp.simulator.projection import cap_turnover

SMALLEST_INVESTED = 1e-12
NETWORK_INPUTS = {"weekly": ("sectors", "context"), "daily": ("features",)}
"""Inputs that only learned agents read; a decision without any does not have them."""


class WeeklyDecision(nn.Module):
    """The goal that a pair sets at the close of a week, as the backtest holds it.

    Args:
        policy: of the weekly level.
        risk: limits.
        slots_per_sector: places of a sector in the universe of the day.
    """

    outputs = ("goal",)

    def __init__(self, policy: MacroPolicy, risk: RiskConfig, slots_per_sector: int) -> None:
        super().__init__()
        agents = macro_agents(policy)
        self.actors = nn.ModuleList(agent.actor for agent in agents)
        self.inputs = (*(NETWORK_INPUTS["weekly"] if agents else ()), "classical", "tradable")
        self.policy = _weekly(policy, iter(range(len(agents))), self.actors)
        self.risk, self.slots_per_sector = risk, slots_per_sector

    def forward(self, *arrays: Tensor) -> Float[Tensor, "1 G"]:
        """Return sector weights within what they can hold, cash and regime probabilities."""
        seen = dict(zip(self.inputs, arrays, strict=True))
        goal = self.policy.goal(seen)
        tradable = seen["tradable"].double().unflatten(1, (-1, self.slots_per_sector))
        weights = feasible_sectors(goal.sector_weights.double(), tradable, self.risk)
        return Goal(weights.float(), goal.cash, goal.regime_probabilities).to_vector()


class DailyDecision(nn.Module):
    """The weights that a pair holds after the next open, within all limits.

    Args:
        policy: of the daily level.
        settings: of its networks, with the decode.
    """

    outputs = ("weights", "kept_elsewhere", "asked")

    def __init__(self, policy: MicroPolicy, settings: MicroSettings) -> None:
        super().__init__()
        agents = micro_agents(policy)
        self.actors = nn.ModuleList(agent.actor.network for agent in agents)
        seen = ("tradable", "preference", "held", "scalars", "goal")
        elsewhere = ("halted_elsewhere", "held_elsewhere")
        self.inputs = (*(NETWORK_INPUTS["daily"] if agents else ()), *seen, *elsewhere)
        self.risk = settings.risk
        places = iter(range(len(agents)))
        self.policy = _daily(policy, places, self.actors, settings)

    def forward(self, *arrays: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return weights after the limits, what stays of stocks without a slot, what was asked."""
        seen = dict(zip(self.inputs, arrays, strict=True))
        asked, risk = self.policy.target(seen), self.risk
        held, away = seen["held"].double(), seen["held_elsewhere"].double()
        tradable, cash = seen["tradable"].double(), Goal.from_vector(seen["goal"]).cash
        gate = (seen["scalars"][:, MICRO_SCALARS.index("gate_on")] > 0.5).long()
        halted = held * (1 - tradable)
        by_sector = (seen["halted_elsewhere"].shape[1], -1)
        slots = slot_targets(
            (asked.double().clamp_min(0.0) * tradable).unflatten(1, by_sector),
            tradable.unflatten(1, by_sector),
            halted.unflatten(1, by_sector).sum(dim=2) + seen["halted_elsewhere"].double(),
            exposure_limit(cash.double(), risk, gate),
            risk,
        )
        target = torch.cat([slots.flatten(1) + halted, torch.zeros_like(away)], dim=1)
        if risk.turnover_cap < 1:
            target = cap_turnover(target, torch.cat([held, away], dim=1), risk.turnover_cap)
        return target[:, :-1].float(), target[:, -1:].float(), asked


class _Network:
    """A learned weekly agent that reads row `place` of the input `sectors`."""

    def __init__(self, place: int, actor: nn.Module) -> None:
        self.place, self.actor = place, actor

    def goal(self, observation: Observation) -> Goal:
        sectors, classical = observation["sectors"], observation["classical"]
        shares, cash = classical[:, :-1], classical[:, -1:]
        prior = torch.cat([(1 - cash) * shares, cash], dim=1)
        own = sectors[self.place : self.place + 1]
        decision = self.actor(MacroInputs(own, observation["context"], prior))
        goal: Goal = decision.goal(decision.shares.centre)
        return goal


class _Classical:
    """The goal of the classical portfolio, from the input of that name."""

    def goal(self, observation: Observation) -> Goal:
        shares = observation["classical"][:, :-1]
        return Goal(shares, observation["classical"][:, -1], no_view(shares))


class _Scores:
    """A learned daily agent."""

    def __init__(self, network: nn.Module, settings: MicroSettings) -> None:
        self.network, self.settings = network, settings

    def target(self, observation: Observation) -> Float[Tensor, "B N"]:
        view = _view(observation)
        request = slot_request(view, self.settings.risk)
        row = torch.zeros(1, dtype=torch.int64)
        inputs = MicroInputs(observation["features"], view.tradable, row, view)
        return self.settings.decode(self.network(inputs, request), request)


class _Follow:
    """Holds the goal."""

    def __init__(self, risk: RiskConfig) -> None:
        self.risk = risk

    def target(self, observation: Observation) -> Float[Tensor, "B N"]:
        request: SlotRequest = slot_request(_view(observation), self.risk)
        return follow_goal(request)


def _view(observation: Observation) -> MicroView:
    return MicroView(
        weights=observation["held"],
        tradable=observation["tradable"],
        preference=observation["preference"],
        scalars=observation["scalars"],
        goal=Goal.from_vector(observation["goal"]),
    )


def macro_agents(policy: Any) -> list[MacroAgent]:
    """Return the learned weekly agents of a policy, in the order in which it asks them.

    Args:
        policy: of the weekly level.
    """
    return [part for part in _leaves(policy) if isinstance(part, MacroAgent)]


def micro_agents(policy: Any) -> list[MicroAgent]:
    """Return the learned daily agents of a policy, in the order in which it asks them.

    Args:
        policy: of the daily level.
    """
    return [part for part in _leaves(policy) if isinstance(part, MicroAgent)]


def _leaves(policy: Any) -> Iterator[Any]:
    if not isinstance(policy, MixedGoal | MixedTarget):
        yield policy
        return
    for part in policy.parts:
        yield from _leaves(part)


def _weekly(policy: Any, places: Iterator[int], actors: nn.ModuleList) -> MacroPolicy:
    """Rebuild a policy over the inputs of the module."""
    if isinstance(policy, MixedGoal):
        return MixedGoal([_weekly(part, places, actors) for part in policy.parts], policy.shares)
    if isinstance(policy, MacroAgent):
        place = next(places)
        return _Network(place, actors[place])
    if isinstance(policy, ClassicalGoal):
        return _Classical()
    raise _unknown(policy)


def _daily(
    policy: Any, places: Iterator[int], actors: nn.ModuleList, settings: MicroSettings
) -> MicroPolicy:
    if isinstance(policy, MixedTarget):
        parts = [_daily(part, places, actors, settings) for part in policy.parts]
        return MixedTarget(parts, policy.shares)
    if isinstance(policy, MicroAgent):
        return _Scores(actors[next(places)], settings)
    if isinstance(policy, FollowGoal):
        return _Follow(settings.risk)
    raise _unknown(policy)


def _unknown(policy: Any) -> HrlSarpError:
    return HrlSarpError(
        f"cannot export {type(policy).__name__}: expected agents, the classical portfolio or "
        "mixtures of them; choose another --pair"
    )


def weekly_arrays(policy: HierarchicalPolicy, clocks: TwoClocks) -> dict[str, Tensor]:
    """Return what the weekly module reads at the close at which one portfolio stands.

    Args:
        policy: the pair.
        clocks: of one portfolio.

    Returns:
        Name of each input -> array with one row, `sectors` with a row for each network.
    """
    observation, day, tensors = clocks.macro_observation(), clocks.day, clocks.tensors
    shares, exposure = tensors.sector_prior[day], tensors.prior_exposure[day, None]
    arrays = {
        "classical": torch.cat([shares, 1 - exposure], dim=1).float(),
        "tradable": tensors.slot_tradable[day],
    }
    seen = [macro_inputs(agent.tensors, observation) for agent in macro_agents(policy.macro)]
    if not seen:
        return arrays
    sectors = torch.cat([inputs.sectors for inputs in seen])
    return {"sectors": sectors, "context": seen[0].context, **arrays}


def daily_arrays(policy: HierarchicalPolicy, clocks: TwoClocks) -> dict[str, Tensor]:
    """Return what the daily module reads at the close at which one portfolio stands.

    Args:
        policy: the pair.
        clocks: of one portfolio, with the goal in force.

    Returns:
        Name of each input -> array with one row.
    """
    observation, day, tensors = clocks.micro_observation(), clocks.day, clocks.tensors
    held, n_slots = clocks.simulator.state.weights, tensors.n_slots
    halted = tensors.halted[day]
    away = held - tensors.to_assets(tensors.to_slots(held, day), day)
    arrays: Mapping[str, Tensor] = {
        "features": tensors.slot_features[day],
        "tradable": tensors.slot_tradable[day],
        "preference": tensors.slot_preference[day],
        "held": observation["portfolio"][:, :n_slots],
        "scalars": observation["portfolio"][:, n_slots:],
        "goal": observation["desired_goal"],
        "halted_elsewhere": (away * halted) @ tensors.sector_member,
        "held_elsewhere": (away * (1 - halted)).sum(dim=1, keepdim=True),
    }
    left_out = () if micro_agents(policy.micro) else NETWORK_INPUTS["daily"]
    return {
        name: array if array.dtype == torch.bool else array.float()
        for name, array in arrays.items()
        if name not in left_out
    }
