"""Selects the evaluation that a phase keeps, and the temperature of a network."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
from loguru import logger
from torch import Tensor

from hrl_sarp.agents import MacroAgent, MicroAgent
from hrl_sarp.config.schema import AcceptanceConfig
from hrl_sarp.metrics import SESSIONS_PER_YEAR
from hrl_sarp.training.acceptance import PRIOR, Acceptance, PairedDays, accept
from hrl_sarp.training.selection.validation import ValidationScore

START = 0
"""Number of the evaluation of the policy before training."""
SPAN = "validation"
"""The only fold of what is selected while a phase runs."""
Weights = Mapping[str, Tensor]
AgentT = TypeVar("AgentT", MacroAgent, MicroAgent)


@dataclass
class Selector:
    """Keeps the evaluation with the largest accepted gain over the start, and counts them all."""

    rule: AcceptanceConfig
    seed: int
    scores: list[dict[str, float]] = field(default_factory=list)
    days: list[Tensor] = field(default_factory=list)
    """Objective of each session of each evaluation, % a day."""
    best_index: int = -1
    sessions_per_year: int = SESSIONS_PER_YEAR
    """Of the market's calendar."""
    newest_bound_pct: float | None = None
    """Lower bound of the newest evaluation's gain over the start, % a year; None for the start."""

    def add(self, score: ValidationScore) -> bool:
        """Add an evaluation; return True if its networks are to be kept.

        The first evaluation is that of the policy before training. A later one is kept if the lower
        bound of its gain over the start is above 0 and above that of the one kept before.
        """
        self.scores.append(score.figures())
        self.days.append(torch.from_numpy(score.daily))
        newest = len(self.scores) - 1
        if newest > START:
            bounds = self._bounds()
            self.newest_bound_pct = bounds[newest]
            is_best = bounds[newest] > max(bounds[self.best_index], bounds[START])
        else:
            is_best = True
        if is_best:
            self.best_index = newest
        return is_best

    def settle(self, title: str) -> int:
        """Return the evaluation to deploy, after all are in: the one kept, or the start.

        `title` names the phase in the line that says it.

        Every further evaluation is one more chance to be lucky. The bounds hold for all of them
        together, so that one kept early may fall below 0 later.
        """
        if len(self.days) > 1:
            found = self.acceptance()
            logger.info(found.sentence(title, "evaluation", "its start"))
            self.best_index = int(found.granted)
        return self.best_index

    def acceptance(self) -> Acceptance:
        """Return the evidence for each evaluation as a candidate; candidate 0 is the start.

        The networks of others than the one that was kept are gone.
        """
        start = self.days[START]
        gains = {float(i): (days - start).numpy() for i, days in enumerate(self.days)}
        days = PairedDays(SPAN, self.seed, gains, self.sessions_per_year)
        return replace(accept([days], self.rule, self.seed), kept=float(self.best_index))

    def _bounds(self) -> list[float]:
        return [row.lower_pct for row in self.acceptance().evidence]

    def recent_mean(self, since: int, window: int) -> float | None:
        """Return the mean score of the last `window` evaluations from number `since` on, % a year.

        None if there are fewer.
        """
        recent = self.days[since:][-window:]
        if len(recent) < window:
            return None
        return self.sessions_per_year * float(torch.stack(recent).mean())

    def newest(self) -> ValidationScore:
        """Return the evaluation that was added last."""
        return ValidationScore(**self.scores[-1], daily=self.days[-1].numpy())

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"scores": self.scores, "days": self.days, "best_index": self.best_index}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue a selection."""
        self.scores, self.days = state["scores"], state["days"]
        self.best_index = state["best_index"]

    def summary(self) -> dict[str, Any]:
        """Return counts, the first and the kept score, and the evidence for every evaluation."""
        tested = len(self.scores) > 1
        return {
            "n_evaluations": len(self.scores),
            "best_evaluation": self.best_index,
            "first": self.scores[START] if self.scores else None,
            "best": self.scores[self.best_index] if self.scores else None,
            "acceptance": self.acceptance().as_dict() if tested else None,
        }


def mean_weights(networks: Sequence[Weights]) -> dict[str, Tensor]:
    """Average the weights of networks of one shape; equal weights keep their bits.

    Counters and other whole numbers are those of the last network.
    """
    last = networks[-1]
    return {
        name: torch.stack([n[name].double() for n in networks]).mean(dim=0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in last.items()
    }


def choose_temperature(
    title: str,
    agent: AgentT,
    grid: Sequence[float],
    evaluate: Callable[[list[AgentT]], list[ValidationScore]],
    rule: AcceptanceConfig,
    sessions_per_year: int,
) -> dict[str, Any]:
    """Scale the actor's outputs in place by the temperature that acceptance grants to a phase.

    Supervised training leaves decisions too close to uniform. Temperature 0 is the policy without
    the network: the prior that it starts from. `evaluate` scores the agents of all temperatures.
    Returns the metrics `temperature`, `temperatures` (temperature -> objective over the rule, % a
    year), `acceptance` and `validation`, the score of the chosen one.
    """
    agents = [_at_temperature(agent, temperature) for temperature in grid]
    scores = dict(zip(grid, evaluate(agents), strict=True))
    prior: np.ndarray = scores[PRIOR].daily
    gains = {temperature: score.daily - prior for temperature, score in scores.items()}
    found = accept([PairedDays(SPAN, agent.seed, gains, sessions_per_year)], rule, agent.seed)
    logger.info(found.sentence(title, "temperature"))
    agent.actor.calibrate(found.granted)
    return {
        "temperature": found.granted,
        "temperatures": {str(t): score.objective_pct for t, score in scores.items()},
        "acceptance": found.as_dict(),
        "validation": scores[found.granted].figures(),
    }


def _at_temperature(agent: AgentT, temperature: float) -> AgentT:
    """Return an agent that shares all but a copy of the actor, which is scaled."""
    scaled = copy.copy(agent)
    scaled.actor = copy.deepcopy(agent.actor)
    scaled.actor.calibrate(temperature)
    return scaled
