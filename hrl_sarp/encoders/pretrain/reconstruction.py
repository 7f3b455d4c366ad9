"""Errors of rebuilt bars, and what rebuilding them without a model gives."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

BASELINES = ("mean", "previous bar", "linear interpolation")
"""In the order that `baseline_rebuilds` returns them."""


def huber_sum(
    rebuilt: Float[Tensor, "B L F"],
    bars: Float[Tensor, "B L F"],
    hidden: Bool[Tensor, "B L"],
    delta: float,
) -> Float[Tensor, ""]:
    """Return the Huber losses of all hidden values, summed, with their graph.

    Source:
        Huber (1964), "Robust estimation of a location parameter".
    """
    losses = nn.functional.huber_loss(rebuilt, bars, reduction="none", delta=delta)
    return (losses.sum(dim=2) * hidden).sum()


@dataclass(frozen=True)
class Errors:
    """Mean errors of hidden values, per column."""

    huber: Float[Tensor, " F"]
    absolute: Float[Tensor, " F"]
    squared: Float[Tensor, " F"]

    @property
    def loss(self) -> float:
        """Mean Huber loss over all columns: what training minimises."""
        return float(self.huber.mean())


class ErrorSums:
    """Adds up errors batch by batch, in float64 and without leaving the device.

    Example:
        >>> sums = ErrorSums(n_features=1, delta=1.0, device=torch.device("cpu"))
        >>> hidden = torch.tensor([[True, False]])  # the second bar does not count
        >>> sums.add(torch.ones(1, 2, 1), torch.zeros(1, 2, 1), hidden)
        >>> sums.means().loss
        0.5
    """

    def __init__(self, n_features: int, delta: float, device: torch.device) -> None:
        """Begin with nothing added; beyond an error of `delta` the loss is linear."""
        self.delta = delta
        self.sums = torch.zeros(4, n_features, dtype=torch.float64, device=device)
        """Huber, absolute and squared errors, and how many values; per column."""

    def add(
        self,
        rebuilt: Float[Tensor, "B L F"],
        bars: Float[Tensor, "B L F"],
        hidden: Bool[Tensor, "B L"],
    ) -> None:
        """Add the errors of the hidden values of one batch."""
        error = rebuilt.float() - bars
        huber = nn.functional.huber_loss(rebuilt.float(), bars, reduction="none", delta=self.delta)
        weights = hidden.unsqueeze(-1).to(error.dtype)
        parts = torch.stack((huber, error.abs(), error.square(), torch.ones_like(error)))
        self.sums += (parts * weights).sum(dim=(1, 2), dtype=torch.float64)

    def means(self) -> Errors:
        """Return the means over the hidden values, on the CPU."""
        sums = self.sums.cpu()
        huber, absolute, squared = (sums[:3] / sums[3]).unbind()
        return Errors(huber, absolute, squared)


def baseline_rebuilds(
    bars: Float[Tensor, "B L F"], hidden: Bool[Tensor, "B L"]
) -> tuple[Float[Tensor, "B L F"], ...]:
    """Rebuild windows as `BASELINES` do; what they say of visible bars means nothing.

    Where a window has no visible bar on one side, the nearest on the other side is copied. Bars are
    in deviations from the mean of the training bars.
    """
    before, after = _nearest_visible(hidden)
    place = torch.arange(hidden.shape[1], device=hidden.device)
    share = (place - before) / (after - before).clamp(min=1)
    earlier, later = _take(bars, before), _take(bars, after)
    between = earlier + share.unsqueeze(-1).to(bars.dtype) * (later - earlier)
    return torch.zeros_like(bars), earlier, between


def precision(device: torch.device) -> AbstractContextManager[Any]:
    """Return the context to compute in: bfloat16 on CUDA, float32 elsewhere."""
    is_cuda = device.type == "cuda"
    return torch.autocast(device.type, torch.bfloat16) if is_cuda else nullcontext()


def best_baseline(errors: dict[str, Errors]) -> str:
    """Name the baseline of least loss; `errors` may hold a model, too."""
    return min(BASELINES, key=lambda name: errors[name].loss)


def as_plain(errors: dict[str, Errors], columns: list[str]) -> dict[str, Any]:
    """Return name -> `loss`, `mae`, `mse`, `loss_by_column`, for a results file."""
    return {
        name: {
            "loss": part.loss,
            "mae": float(part.absolute.mean()),
            "mse": float(part.squared.mean()),
            "loss_by_column": dict(zip(columns, part.huber.tolist(), strict=True)),
        }
        for name, part in errors.items()
    }


def _nearest_visible(
    hidden: Bool[Tensor, "B L"],
) -> tuple[Int[Tensor, "B L"], Int[Tensor, "B L"]]:
    """Return the places of the nearest visible bars at or before, and at or after, each bar."""
    length = hidden.shape[1]
    place = torch.arange(length, device=hidden.device).expand_as(hidden)
    before = torch.where(hidden, -1, place).cummax(dim=1).values
    backwards = torch.where(hidden, length, place).flip(1)
    after = backwards.cummin(dim=1).values.flip(1)
    return torch.where(before < 0, after, before), torch.where(after == length, before, after)


def _take(bars: Float[Tensor, "B L F"], places: Int[Tensor, "B L"]) -> Float[Tensor, "B L F"]:
    return bars.gather(1, places.unsqueeze(-1).expand_as(bars))
