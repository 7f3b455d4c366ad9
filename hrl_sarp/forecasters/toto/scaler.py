"""Batches of series, and their scale: a patch is measured by itself and its past alone."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

LEAST_VARIANCE = 0.1
"""Toto 1.0 adds it to the variance, so that a constant series has a scale."""


@dataclass(frozen=True)
class SeriesBatch:
    """B groups of V series side by side, and what is known of their values.

    Examples:
        >>> batch = SeriesBatch.alone(torch.zeros(2, 8))
        >>> tuple(batch.values.shape), batch.append(torch.ones(2, 1, 4)).values.shape[-1]
        ((2, 1, 8), 12)
    """

    values: Float[Tensor, "B V T"]
    """Finite everywhere. Where not observed, what the network shall read instead."""
    observed: Bool[Tensor, "B V T"]
    """False values do not count in any statistic."""
    groups: Int[Tensor, "B V"]
    """Series of one row with the same number see each other."""
    n_exogenous: int = 0
    """So many of the last series are given to help with the others; their future may be known."""
    starts: Int[Tensor, "B V"] | None = None
    """Patches of padding before each series, which nothing reads; None for none."""

    @classmethod
    def alone(cls, values: Float[Tensor, "B T"]) -> "SeriesBatch":
        """Make a batch of single, fully observed series.

        Args:
            values: one series per row.

        Returns:
            A batch with V = 1.
        """
        values = values.unsqueeze(1)
        groups = torch.zeros(values.shape[:2], dtype=torch.long, device=values.device)
        return cls(values, torch.ones_like(values, dtype=torch.bool), groups)

    def append(self, values: Float[Tensor, "B V n"]) -> "SeriesBatch":
        """Add steps at the end that count as observed.

        Args:
            values: of the new steps.

        Returns:
            The longer batch.
        """
        observed = torch.ones_like(values, dtype=torch.bool)
        return replace(
            self,
            values=torch.cat([self.values, values.to(self.values.dtype)], dim=-1),
            observed=torch.cat([self.observed, observed], dim=-1),
        )

    def repeat(self, n: int) -> "SeriesBatch":
        """Repeat all rows.

        Args:
            n: how often.

        Returns:
            The rows in their order, n times.
        """
        starts = None if self.starts is None else self.starts.repeat(n, 1)
        values, observed = self.values.repeat(n, 1, 1), self.observed.repeat(n, 1, 1)
        return SeriesBatch(values, observed, self.groups.repeat(n, 1), self.n_exogenous, starts)


@dataclass(frozen=True)
class Scaled:
    """A batch as the network reads it."""

    values: Float[Tensor, "B V T"]
    loc: Float[Tensor, "B V S"]
    """Mean of each series up to the end of each patch."""
    scale: Float[Tensor, "B V S"]
    """Deviation up to the end of each patch, at least sqrt(0.1)."""


def running_statistics(
    values: Float[Tensor, "B V T"], observed: Bool[Tensor, "B V T"]
) -> tuple[Float[Tensor, "B V T"], Float[Tensor, "B V T"], Float[Tensor, "B V T"]]:
    """Compute count, mean and variance of all observed values up to each step.

    The variance is Welford's: a difference of squares would lose it where the level is high.

    Args:
        values: finite; those that are not observed do not count.
        observed: True = counts.

    Returns:
        Count, mean and variance (divisor n - 1, at least 1) in float64; all are 0 before the first
        observed value.
    """
    counts = observed.double()
    kept = values.double() * counts
    n = counts.cumsum(dim=-1)
    mean = kept.cumsum(dim=-1) / n.clamp(min=1.0)
    mean_before = torch.nn.functional.pad(mean[..., :-1], (1, 0))
    squares = (counts * (kept - mean_before) * (kept - mean)).cumsum(dim=-1)
    return n, mean, squares / (n - 1.0).clamp(min=1.0)


def at_patch_ends(steps: Shaped[Tensor, "B V T"], patch_size: int) -> Shaped[Tensor, "B V S"]:
    """Keep the last step of each patch.

    Args:
        steps: T is a multiple of `patch_size`.
        patch_size: P.

    Returns:
        One value per patch.
    """
    return steps[..., patch_size - 1 :: patch_size]


def measure(batch: SeriesBatch, patch_size: int, dtype: torch.dtype) -> Scaled:
    """Scale a batch as Toto 1.0 does: every step of a patch by the statistics at the patch's end.

    Args:
        batch: T is a multiple of `patch_size`.
        patch_size: P.
        dtype: precision of the results; statistics are computed in float64.

    Returns:
        Scaled values, and mean and scale of each patch.
    """
    _, means, variances = running_statistics(batch.values, batch.observed)
    loc = at_patch_ends(means, patch_size)
    scale = (at_patch_ends(variances, patch_size) + LEAST_VARIANCE).sqrt()
    mean, deviation = (part.repeat_interleave(patch_size, -1) for part in (loc, scale))
    scaled = (batch.values.double() - mean) / deviation
    return Scaled(scaled.to(dtype), loc.to(dtype), scale.to(dtype))
