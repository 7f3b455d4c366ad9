"""Judging a pair of policies on the validation span: one full rollout, and the best so far."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange
from hrl_sarp.envs.levels import MicroLevel
from hrl_sarp.envs.policies import MacroPolicy, MicroPolicy
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.metrics import SESSIONS_PER_YEAR


@dataclass(frozen=True)
class ValidationScore:
    """One deterministic rollout over a span, net of costs."""

    excess_growth_pct: float
    """Net log growth over that of the 1/N reward benchmark (gross), % a year: what selects."""
    growth_pct: float
    """Net log growth, % a year."""
    turnover_annual: float
    alignment: float
    """Mean of 1 - half L1 distance of achieved and desired sector weights."""
    reward_per_day: float


@torch.no_grad()
def validate_pair(
    tensors: MarketTensors,
    config: RunConfig,
    macro: MacroPolicy,
    micro: MicroPolicy,
    span: DayRange | None = None,
) -> ValidationScore:
    """Run both policies over the validation span (or another) from cash to its last session."""
    span = span or tensors.market.split.validation
    n_days = len(span) - 1
    level = MicroLevel(tensors, config, 1, macro, horizon=n_days)
    level.reset(torch.tensor([span.start]), torch.ones(1, dtype=torch.bool))
    turnover = alignment = reward = 0.0
    for _ in range(n_days):
        step = level.step(micro.target(level.observe("index")))
        turnover += float(step.terms["turnover"])
        alignment += float(step.terms["alignment"])
        reward += float(step.reward)
    years = n_days / SESSIONS_PER_YEAR
    clocks = level.clocks
    wealth = clocks.simulator.state.wealth.double().clamp(min=1e-12)
    return ValidationScore(
        excess_growth_pct=100 * float(clocks.episode.active_growth) / years,
        growth_pct=100 * float(torch.log(wealth)) / years,
        turnover_annual=turnover / years,
        alignment=alignment / n_days,
        reward_per_day=reward / n_days,
    )


@runtime_checkable
class Sharpenable(Protocol):
    """A network whose decisions can be made more extreme."""

    def sharpen(self, temperature: float) -> None:
        """Multiply what the decision is made from."""

    def state_dict(self) -> dict[str, Any]:
        """Return the weights."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Replace the weights."""


@dataclass
class Selector:
    """Keeps the evaluation whose moving mean is best, and counts how many were looked at."""

    window: int
    scores: list[dict[str, float]] = field(default_factory=list)
    best_mean: float = -float("inf")
    best_index: int = -1

    def add(self, score: ValidationScore) -> bool:
        """Add an evaluation.

        The first evaluation is the policy before training: the reference that full windows of
        later ones have to beat. Shorter windows do not compete.

        Args:
            score: of the policy as it is now.

        Returns:
            True if the moving mean that ends here is the best so far.
        """
        self.scores.append(asdict(score))
        if 1 < len(self.scores) <= self.window:
            return False
        recent = [row["excess_growth_pct"] for row in self.scores[1:][-self.window :]]
        recent = recent or [score.excess_growth_pct]
        mean = sum(recent) / len(recent)
        if not mean > self.best_mean:  # so that NaN is never the best
            return False
        self.best_mean, self.best_index = mean, len(self.scores) - 1
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: plain values, all but the window.

        Returns:
            What `load_state_dict` reads.
        """
        return {name: value for name, value in vars(self).items() if name != "window"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue a selection.

        Args:
            state: what `state_dict` returned.
        """
        self.scores = state["scores"]
        self.best_mean, self.best_index = state["best_mean"], state["best_index"]

    def summary(self) -> dict[str, Any]:
        """Return what a report must say about the selection.

        Returns:
            Counts, the best moving mean in % a year, and the first and the best score.
        """
        return {
            "n_evaluations": len(self.scores),
            "selection_window": self.window,
            "best_evaluation": self.best_index,
            "best_moving_mean_pct": self.best_mean,
            "first": self.scores[0] if self.scores else None,
            "best": self.scores[self.best_index] if self.scores else None,
        }


def choose_temperature(
    network: Sharpenable, grid: Sequence[float], evaluate: Callable[[], ValidationScore]
) -> dict[str, Any]:
    """Sharpen a network by the temperature whose policy grows most on validation.

    Supervised losses leave decisions too flat: they pay for being sure only where they are right.

    Args:
        network: sharpened in place.
        grid: temperatures to try; of two that grow alike the smaller one is taken.
        evaluate: judges the policy of the network as it is.

    Returns:
        For the metrics: `temperature`, `temperatures` (temperature -> excess growth, % a year) and
        `validation`, the score of the chosen one.
    """
    flat, scores = copy.deepcopy(network.state_dict()), {}
    for temperature in grid:
        network.load_state_dict(flat)
        network.sharpen(temperature)
        scores[temperature] = evaluate()
    best = max(scores, key=lambda t: (scores[t].excess_growth_pct, -t))
    network.load_state_dict(flat)
    network.sharpen(best)
    tried = {str(t): score.excess_growth_pct for t, score in scores.items()}
    return {"temperature": best, "temperatures": tried, "validation": asdict(scores[best])}
