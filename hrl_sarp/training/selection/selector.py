"""Selects the best of several evaluations, and the temperature of a network."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hrl_sarp.agents.ppo.networks import MacroActor
from hrl_sarp.agents.td3.networks import MicroActor
from hrl_sarp.training.selection.validation import ValidationScore


@dataclass
class Selector:
    """Finds the evaluation with the best moving mean, and counts all evaluations."""

    window: int
    scores: list[dict[str, float]] = field(default_factory=list)
    best_mean: float = -float("inf")
    best_index: int = -1

    def add(self, score: ValidationScore) -> bool:
        """Add an evaluation; return True if the moving mean that ends here is the best so far.

        The first evaluation is that of the policy before training. Later means must beat it, and
        only full windows count.
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
        """Return what a checkpoint keeps: plain values, all but the window."""
        return {name: value for name, value in vars(self).items() if name != "window"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue a selection."""
        self.scores = state["scores"]
        self.best_mean, self.best_index = state["best_mean"], state["best_index"]

    def summary(self) -> dict[str, Any]:
        """Return counts, the best moving mean in % a year, and the first and the best score."""
        return {
            "n_evaluations": len(self.scores),
            "selection_window": self.window,
            "best_evaluation": self.best_index,
            "best_moving_mean_pct": self.best_mean,
            "first": self.scores[0] if self.scores else None,
            "best": self.scores[self.best_index] if self.scores else None,
        }


def choose_temperature(
    network: MacroActor | MicroActor, grid: Sequence[float], evaluate: Callable[[], ValidationScore]
) -> dict[str, Any]:
    """Scale a network's outputs in place by the temperature that grows most on validation.

    Supervised training leaves decisions too close to uniform. At equal growth the smaller
    temperature is taken. Returns the metrics `temperature`, `temperatures` (temperature -> excess
    growth, % a year) and `validation`, the score of the chosen one.
    """
    flat, scores = copy.deepcopy(network.state_dict()), {}
    for temperature in grid:
        network.load_state_dict(flat)
        network.calibrate(temperature)
        scores[temperature] = evaluate()
    best = max(scores, key=lambda t: (scores[t].excess_growth_pct, -t))
    network.load_state_dict(flat)
    network.calibrate(best)
    tried = {str(t): score.excess_growth_pct for t, score in scores.items()}
    return {"temperature": best, "temperatures": tried, "validation": asdict(scores[best])}
