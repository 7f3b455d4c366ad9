"""The two levels of the hierarchy, stepped in batches: their actions, rewards and episodes.

A level asks a partner policy for the decisions of the other level. The envs for Gymnasium and
Stable-Baselines3 are thin adapters over a level.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, Goal, Market, Regime, StepResult, goal_size
from hrl_sarp.envs.observations import (
    MACRO_SCALARS,
    MICRO_SCALARS,
    macro_inputs,
    macro_sizes,
    micro_inputs,
)
from hrl_sarp.envs.policies import MacroPolicy, MicroPolicy
from hrl_sarp.envs.rewards import (
    PERCENT,
    extra_reward,
    followed_variance,
    goal_alignment,
    macro_penalties,
    micro_gain,
    micro_reward,
    session_objective,
)
from hrl_sarp.envs.two_clocks import TwoClocks
from hrl_sarp.errors import MarketError, SimulatorError
from hrl_sarp.market.tensors import MarketTensors

ObservationForm = Literal["full", "index"]
RUIN = 0.1
"""An episode terminates when wealth falls below this share of its start."""
LONGEST_WEEK = 7
"""Sessions after which a missing week end is an error of the calendar."""


@dataclass(frozen=True)
class MicroTransition:
    """What hindsight replay stores of a micro step, apart from the observations."""

    executed: Float[Tensor, "B N"]
    """Weights after the trade in the slots of the decision day."""
    achieved: Float[Tensor, "B S"]
    """Sector shares that were executed."""
    gain: Float[Tensor, " B"]
    """The part of the reward that does not depend on the goal, see `micro_gain`."""
    followed: Float[Tensor, "B S"]
    """What the reward is measured from, see `followed_variance`."""
    next_desired: Float[Tensor, "B G"]
    """Goal in force after the step, before any reset."""
    renewed: Bool[Tensor, " B"]
    """True where the step ended at a week end, so that the macro partner set a new goal."""


@dataclass(frozen=True)
class LevelStep:
    """Result of one step of a level."""

    reward: Float[Tensor, " B"]
    terminated: Bool[Tensor, " B"]
    truncated: Bool[Tensor, " B"]
    terms: dict[str, Float[Tensor, " B"]]
    """Reward terms and measures; each is logged under its name."""
    trade: StepResult
    """The first session after a macro decision, or that of the micro step."""
    goal: Float[Tensor, "B G"]
    """The goal in force when the step was decided."""
    transition: MicroTransition | None = None
    """None for the macro level."""


class MacroLevel:
    """One step is a week: the action sets a goal, the micro partner trades until the week end."""

    def __init__(
        self,
        tensors: MarketTensors,
        config: RunConfig,
        n_envs: int,
        partner: MicroPolicy,
        horizon: int,
    ) -> None:
        self.tensors, self.config, self.partner = tensors, config, partner
        self.clocks = TwoClocks(tensors, config.market_profile.costs, config.risk, n_envs)
        self.horizon = horizon
        self.action_space = spaces.Box(0.0, 1.0, (goal_size(tensors.n_sectors),), np.float32)

    def observation_space(self, form: ObservationForm) -> spaces.Space[Any]:
        """Return the space of one row of the batch in the given form."""
        if form == "full":
            width, context = macro_sizes(self.tensors)
            return _box(self.tensors.n_sectors * (width + 1) + context + 1)
        day = spaces.Box(0, self.tensors.n_days - 1, (1,), np.int64)
        return spaces.Dict(
            {"day": day, "portfolio": _box(self.tensors.n_sectors + len(MACRO_SCALARS))}
        )

    def reset(self, days: Int[Tensor, " B"], rows: Bool[Tensor, " B"]) -> None:
        """Start episodes in the rows that are True, each at the close of its day."""
        self.clocks.reset(days, rows)

    def observe(self, form: ObservationForm) -> Any:
        """Return what the macro agent sees: a dict of tensors (index) or one tensor (full)."""
        index = self.clocks.macro_observation()
        return index if form == "index" else macro_inputs(self.tensors, index).flatten()

    def step(self, action: Tensor) -> LevelStep:
        """Set the goal of the week and trade until the next week end.

        `action` (B, G) holds sector weights, cash, then regime probabilities. The first and the
        last need not sum to 1.

        Raises:
            SimulatorError: for an action that is not finite or of another shape.
        """
        clocks = self.clocks
        check_action(action, clocks.n_envs, self.action_space)
        everyone = torch.ones(clocks.n_envs, dtype=torch.bool, device=self.tensors.device)
        clocks.set_goal(self.goal_of(action, clocks.day), everyone)
        n_listed = self.tensors.sector_listed[clocks.day].sum(dim=1)
        growth, drawdown = clocks.episode.active_growth, clocks.active_drawdown()
        trade, rewarded, measured = self._trade_week()
        clocks.episode.steps = clocks.episode.steps + 1
        goal = clocks.episode.goal
        if self.config.objective.kind == "growth":
            rewarded |= macro_penalties(
                (drawdown, clocks.active_drawdown()),
                goal[:, : self.tensors.n_sectors],
                n_listed.to(growth.dtype),
                self.config.macro_agent.reward,
            )
        else:
            measured["growth"] = PERCENT * (clocks.episode.active_growth - growth)
        reward = torch.stack(list(rewarded.values())).sum(dim=0)
        terminated, truncated = _episode_end(clocks, self.horizon)
        terms = {**rewarded, **measured}
        return LevelStep(reward, terminated, truncated, terms, trade, goal)

    def goal_of(self, action: Float[Tensor, "B G"], day: Int[Tensor, " B"]) -> Goal:
        """Read an action at the close of a day as a goal.

        Sector weights and regime probabilities are divided by their sums. Values below 0 count as
        0, cash above 1 as 1. Sector weights that are all 0 become 1/N. Regime probabilities that
        are all 0 become the filtered regime.
        """
        goal = Goal.from_vector(action.to(self.tensors.dtype).clamp(min=0))
        listed = goal.sector_weights * self.tensors.sector_listed[day]
        shares = self.tensors.sector_shares[day]
        filtered = self.tensors.filtered_regime[day].to(shares)
        return Goal(
            _normalised(listed, shares),
            goal.cash.clamp(max=1.0),
            _normalised(goal.regime_probabilities, filtered),
        )

    def _trade_week(self) -> tuple[StepResult, dict[str, Tensor], dict[str, Tensor]]:
        """Trade until every row is at a week end.

        Returns the first session, the terms of the objective and further measures of the week.
        """
        clocks, objective = self.clocks, self.config.objective
        sessions: list[StepResult] = []
        rewarded: dict[str, Tensor] = {}
        measured: dict[str, Tensor] = {}
        exposure = clocks.exposure_asked()
        active = torch.ones_like(exposure, dtype=torch.bool)
        while len(sessions) < 2 * LONGEST_WEEK:
            result = clocks.trade_day(self.partner.target(clocks.micro_observation()), active)
            sessions.append(result)
            terms = session_objective(self.tensors, objective, result, exposure)
            terms |= extra_reward(self.config.rewards.extra, result, self.tensors)
            _add_where(active, terms, rewarded)
            _add_where(active, {"cost": result.cost, "turnover": result.turnover}, measured)
            active = active & ~clocks.is_week_end()
            if not bool(active.any()):
                return sessions[0], rewarded, measured
        raise SimulatorError(
            f"no week end within {2 * LONGEST_WEEK} sessions after row {int(clocks.day.min())}: "
            "check `is_week_end` of the market"
        )


class MicroLevel:
    """One step is a session: the action trades, the macro partner sets a new goal at week ends."""

    def __init__(
        self,
        tensors: MarketTensors,
        config: RunConfig,
        n_envs: int,
        partner: MacroPolicy,
        horizon: int,
    ) -> None:
        self.tensors, self.config, self.partner = tensors, config, partner
        self.clocks = TwoClocks(tensors, config.market_profile.costs, config.risk, n_envs)
        self.horizon = horizon
        self.action_space = spaces.Box(0.0, 1.0, (tensors.n_slots,), np.float32)

    def observation_space(self, form: ObservationForm) -> spaces.Space[Any]:
        """Return the space of one row of the batch, a goal dictionary in either form."""
        slots, goal = self.tensors.n_slots, goal_size(self.tensors.n_sectors)
        goals = {
            "achieved_goal": spaces.Box(0.0, 1.0, (goal,), np.float32),
            "desired_goal": spaces.Box(0.0, 1.0, (goal,), np.float32),
        }
        portfolio = slots + len(MICRO_SCALARS)
        if form == "full":
            width = self.tensors.slot_features.shape[2]
            return spaces.Dict({"observation": _box(slots * (width + 2) + portfolio), **goals})
        day = spaces.Box(0, self.tensors.n_days - 1, (1,), np.int64)
        return spaces.Dict({"day": day, "portfolio": _box(portfolio), **goals})

    def reset(self, days: Int[Tensor, " B"], rows: Bool[Tensor, " B"]) -> None:
        """Start episodes in the rows that are True and ask for their first goal."""
        rows = rows.to(self.tensors.device)
        self.clocks.reset(days, rows)
        self._renew_goal(rows)

    def observe(self, form: ObservationForm) -> Any:
        """Return what the micro agent sees, index or flattened features, beside the two goals."""
        index = self.clocks.micro_observation()
        achieved = self.clocks.achieved_goal().float()
        if form == "index":
            return {**index, "achieved_goal": achieved}
        observation = micro_inputs(self.tensors, index).flatten()
        goals = {"achieved_goal": achieved, "desired_goal": index["desired_goal"]}
        return {"observation": observation, **goals}

    def step(self, action: Tensor) -> LevelStep:
        """Trade one session, and reward it under the goal that was in force at the decision.

        `action` (B, N) holds target weights of the day's slots, before the limits.

        Raises:
            SimulatorError: for an action that is not finite or of another shape.
        """
        check_action(action, self.clocks.n_envs, self.action_space)
        clocks, rewards = self.clocks, self.config.micro_agent.reward
        objective, exposure = self.config.objective, self.clocks.exposure_asked()
        decided, goal, growth = clocks.day, clocks.episode.goal, clocks.episode.active_growth
        result = clocks.trade_day(action)
        clocks.episode.steps = clocks.episode.steps + 1
        gain = micro_gain(self.tensors, result, objective, rewards)
        for extra in extra_reward(self.config.rewards.extra, result, self.tensors).values():
            gain = gain + extra
        followed = followed_variance(self.tensors, objective, result.day, exposure)
        # rewards are made from the goals as observed (float32), so that replay can remake them
        desired, achieved = (seen.float().to(gain.dtype) for seen in (goal, clocks.achieved_goal()))
        reward = micro_reward(gain, achieved, desired, rewards, followed)
        renewed = clocks.is_week_end()
        self._renew_goal(renewed)
        n_sectors = self.tensors.n_sectors
        transition = MicroTransition(
            executed=self.tensors.to_slots(result.weights_after, decided),
            achieved=achieved[:, :n_sectors],
            gain=gain,
            followed=followed,
            next_desired=clocks.episode.goal,
            renewed=renewed,
        )
        terms = {
            "gain": gain,
            "goal_term": reward - gain,
            "growth": PERCENT * (clocks.episode.active_growth - growth),
            "alignment": goal_alignment(achieved, desired, n_sectors),
            "cost": result.cost,
            "turnover": result.turnover,
        }
        terminated, truncated = _episode_end(clocks, self.horizon)
        return LevelStep(reward, terminated, truncated, terms, result, goal, transition)

    def _renew_goal(self, rows: Bool[Tensor, " B"]) -> None:
        if bool(rows.any()):
            self.clocks.set_goal(self.partner.goal(self.clocks.macro_observation()), rows)


Level = MacroLevel | MicroLevel


class EpisodeStarts:
    """Draws start days from which a whole episode fits into the span.

    `horizon` counts weeks if `weekly`, else sessions. The draw reads only the calendar and the
    filtered regime of the market.
    """

    def __init__(
        self, market: Market, span: DayRange, horizon: int, *, weekly: bool, seed: int
    ) -> None:
        week_ends = np.flatnonzero(market.is_week_end)
        week_ends = week_ends[(week_ends >= span.start) & (week_ends < span.stop)]
        last = span.stop - 1 - horizon
        if weekly:
            last = int(week_ends[-horizon - 1]) if len(week_ends) > horizon else -1
        self.days: Int[np.ndarray, " D"] = week_ends[week_ends <= last]
        if len(self.days) == 0:
            raise MarketError(
                f"no episode of {horizon} {'weeks' if weekly else 'sessions'} fits between "
                f"{market.dates[span.start]} and {market.dates[span.stop - 1]}: "
                "lengthen the span or shorten the horizon"
            )
        decided = np.flatnonzero(market.is_week_end) if weekly else np.arange(len(market.dates))
        self.n_days, self.horizon = len(market.dates), f"{horizon} {'weeks' if weekly else 'days'}"
        # a step ends at a week end or session after its start, and the last one must exist
        self.latest = int(decided[-horizon]) - 1 if len(decided) >= horizon else -1
        self.regime = market.filtered_regime[self.days].argmax(axis=1)
        self.rng = np.random.default_rng(seed)
        self.set_mix([1 / len(Regime)] * len(Regime))

    def set_mix(self, mix: Sequence[float] | None) -> None:
        """Set the shares of starts in bear, bull and sideways weeks, in the order of `Regime`.

        A regime without days gives its share to the others. None takes all weeks alike.
        """
        if mix is None:
            self.probabilities = np.full(len(self.days), 1 / len(self.days))
            return
        counts = np.bincount(self.regime, minlength=len(Regime))
        weights = np.where(counts > 0, np.asarray(mix) / np.maximum(counts, 1), 0.0)
        probabilities = weights[self.regime]
        if probabilities.sum() == 0:
            probabilities = np.ones(len(self.days))
        self.probabilities = probabilities / probabilities.sum()

    def draw(self, n: int) -> Int[np.ndarray, " n"]:
        """Draw `n` start days with replacement, all of them week ends."""
        return self.rng.choice(self.days, size=n, p=self.probabilities)

    def asked(self, options: Mapping[str, Any]) -> int | None:
        """Return the start day that the options of a reset ask for, None where they ask for none.

        Raises:
            SimulatorError: if no whole episode fits between it and the end of the market, or for an
                option of another name.
        """
        unknown = sorted(set(options) - {"day"})
        if unknown:
            raise SimulatorError(f"reset: expected the option 'day' or none, found {unknown}")
        day = options.get("day")
        if day is None:
            return None
        is_whole = isinstance(day, int | np.integer) and not isinstance(day, bool)
        if not is_whole or not 0 <= day <= self.latest:
            raise SimulatorError(
                f"reset: expected a day from 0 to {self.latest}, from which an episode of "
                f"{self.horizon} ends within the {self.n_days} days of the market, found {day!r}; "
                "choose another row or shorten the horizon"
            )
        return int(day)

    def state_dict(self) -> dict[str, Any]:
        """Return generator state and mix as plain values."""
        return {"rng": self.rng.bit_generator.state, "probabilities": self.probabilities.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore generator state and mix of a draw over the same span."""
        self.rng.bit_generator.state = state["rng"]
        self.probabilities = np.asarray(state["probabilities"])


def _add_where(active: Tensor, terms: dict[str, Tensor], totals: dict[str, Tensor]) -> None:
    """Add each term to its total in the rows that are active."""
    for name, value in terms.items():
        totals[name] = totals.get(name, torch.zeros_like(value)) + value * active


def _box(size: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (size,), np.float32)


def as_action(given: Any, device: torch.device) -> Tensor:
    """Return an action as a tensor, whatever holds its numbers: an array, a list, a tensor.

    Args:
        given: of a library or a user.
        device: of the tensor.

    Returns:
        The numbers, without a gradient.

    Raises:
        SimulatorError: if they are no numbers.
    """
    try:
        array = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given)
    except (TypeError, ValueError):  # rows of different lengths
        array = np.array(None)
    if array.dtype.kind not in "fiub":
        raise SimulatorError(
            f"step: expected an action of real numbers, found {type(given).__name__} of "
            f"{array.dtype}; the action space has its form"
        )
    return torch.as_tensor(array, device=device)


def check_action(action: Tensor, n_envs: int, space: spaces.Box) -> None:
    """Refuse actions that are not finite, or are not one row for each portfolio."""
    expected = (n_envs, *space.shape)
    if tuple(action.shape) != expected:
        raise SimulatorError(
            f"step: expected an action of shape {expected} (portfolio, entry), found "
            f"{tuple(action.shape)}; the action space has the number of entries"
        )
    # a finite sum has finite terms; a large one may overflow, and is looked at closely
    if not bool(torch.isfinite(action.sum())) and not bool(torch.isfinite(action).all()):
        row, entry = (~torch.isfinite(action)).nonzero()[0].tolist()
        raise SimulatorError(
            f"step: expected finite numbers in the action, found {float(action[row, entry])} in "
            f"entry {entry} of portfolio {row}; did the policy diverge?"
        )


def _normalised(weights: Tensor, fallback: Tensor) -> Tensor:
    total = weights.sum(dim=1, keepdim=True)
    return torch.where(total > 0, weights / total.clamp(min=1e-12), fallback)


def _episode_end(clocks: TwoClocks, horizon: int) -> tuple[Tensor, Tensor]:
    terminated = clocks.simulator.state.wealth < RUIN
    return terminated, (clocks.episode.steps >= horizon) & ~terminated
