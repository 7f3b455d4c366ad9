"""Summarises a study over seeds: means with their errors, paired differences, thresholds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95
"""Of an interval over seeds."""


@dataclass(frozen=True)
class Moments:
    """A measure over seeds.

    Examples:
        >>> moments([0.01, 0.03]).standard_error
        0.01
    """

    values: tuple[float, ...]
    """One per seed."""
    mean: float
    standard_error: float | None
    """Of the mean; None for a single seed."""

    @property
    def half_width(self) -> float:
        """Half the 95 % interval of the mean by Student's t; infinite for a single seed."""
        if self.standard_error is None:
            return math.inf
        return float(stdtrit(len(self.values) - 1, 0.5 + CONFIDENCE / 2) * self.standard_error)

    def shown(self, digits: int, scale: float = 1.0) -> str:
        """Write mean and standard error as a table does.

        Args:
            digits: after the point.
            scale: that both are multiplied by.

        Returns:
            `mean ± error`, or the mean alone for a single seed.
        """
        error = self.standard_error
        shown = "" if error is None else f" ± {scale * error:.{digits}f}"
        return f"{scale * self.mean:.{digits}f}{shown}"


def moments(values: Sequence[float]) -> Moments:
    """Compute mean and standard error.

    Args:
        values: one per seed, at least one; NaN stays NaN.

    Returns:
        Their moments; the standard error divides by n - 1.
    """
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return Moments(tuple(map(float, values)), float(np.mean(values)), error)


def paired_difference(
    first: Mapping[int, float], second: Mapping[int, float]
) -> tuple[tuple[int, ...], Moments | None]:
    """Compare two settings on the seeds that both have.

    Args:
        first: seed -> value.
        second: seed -> value of the reference.

    Returns:
        The common seeds in the order of `first`, and the moments of first - second; None where no
        seed is common.
    """
    seeds = tuple(seed for seed in first if seed in second)
    return seeds, moments([first[seed] - second[seed] for seed in seeds]) if seeds else None


@dataclass(frozen=True)
class Threshold:
    """A figure of a study and the bound that its mean over seeds is held against.

    Examples:
        >>> Threshold("share_of_gap", ">=", 0.6).is_met(0.6)
        True
    """

    figure: str
    side: Literal[">=", "<="]
    bound: float

    def is_met(self, value: float) -> bool:
        """Say whether a value is on the right side; the bound itself is.

        Args:
            value: mean over seeds.

        Returns:
            True on the right side.
        """
        return value >= self.bound if self.side == ">=" else value <= self.bound


def missed(thresholds: Sequence[Threshold], figures: Mapping[str, float]) -> list[str]:
    """List the thresholds that are missed."""
    return [
        f"{line.figure} = {figures[line.figure]:.4g}, expected {line.side} {line.bound:g}"
        for line in thresholds
        if not line.is_met(figures[line.figure])
    ]
