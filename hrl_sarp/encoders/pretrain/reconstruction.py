"""Masks of hidden bars, errors of reconstructed bars, and baselines without a model."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hrl_sarp.config.encoder_schema import MaskStrategy
from hrl_sarp.errors import ConfigError

BASELINES = ("mean", "previous bar", "linear interpolation")
"""In the order that `baseline_rebuilds` returns them."""


@dataclass(frozen=True)
class MaskRule:
    """Rule for hiding bars; all strategies hide the same number, so their losses are comparable.

    Examples:
        >>> MaskRule("block", ratio=0.25, warmup_bars=4, patch_bars=3).count(20)
        4
    """

    strategy: MaskStrategy
    """random: single bars; block: one run of bars; patch: runs of `patch_bars` on a fixed grid."""
    ratio: float
    """Share of the bars that are not warm-up."""
    warmup_bars: int
    """First bars of a window, never hidden."""
    patch_bars: int
    """Bars of a patch; the last patch of a window may be hidden in part."""

    def count(self, length: int) -> int:
        """Return how many bars of a window are hidden.

        Raises:
            ConfigError: if no bar would be hidden, or none would stay visible.
        """
        usable = length - self.warmup_bars
        hidden = int(self.ratio * max(usable, 0))
        if not 0 < hidden < length:
            raise ConfigError(
                f"windowed.mask_ratio: {self.ratio} of {length} bars less {self.warmup_bars} of "
                f"warm-up hides {hidden}; expected from 1 to {length - 1}: change mask_ratio, "
                "window_length or warmup_bars"
            )
        return hidden


def draw_masks(
    rule: MaskRule, n_windows: int, length: int, generator: torch.Generator
) -> Bool[Tensor, "B L"]:
    """Draw exactly `rule.count(length)` hidden bars per window, on the generator's device.

    Every bar gets a key, and the bars with the smallest keys are hidden. For single bars the key is
    random. For a block it is the distance from a random first bar. For patches it is the random
    rank of the bar's patch, then the place inside the patch.
    """
    hidden, usable = rule.count(length), length - rule.warmup_bars
    device = generator.device
    if rule.strategy == "random":
        keys = torch.rand(n_windows, usable, generator=generator, device=device)
    elif rule.strategy == "block":
        last_first = usable - hidden + 1
        first = torch.randint(last_first, (n_windows, 1), generator=generator, device=device)
        keys = (torch.arange(usable, device=device) - first) % usable
    else:
        bar, n_patches = torch.arange(usable, device=device), -(-usable // rule.patch_bars)
        drawn = torch.rand(n_windows, n_patches, generator=generator, device=device)
        rank = drawn.argsort(dim=1).argsort(dim=1)
        keys = rank[:, bar // rule.patch_bars] * rule.patch_bars + bar % rule.patch_bars
    chosen = (
        keys.float().topk(hidden, dim=1, largest=False, sorted=False).indices + rule.warmup_bars
    )
    masks = torch.zeros(n_windows, length, dtype=torch.bool, device=device)
    return masks.scatter_(1, chosen, value=True)


def huber_sum(
    rebuilt: Float[Tensor, "B L F"],
    values: Float[Tensor, "B L F"],
    counted: Bool[Tensor, "B L #F"],
    delta: float,
) -> Float[Tensor, ""]:
    """Return the sum of the Huber losses of all values that count, with its graph.

    Source:
        Huber (1964), "Robust estimation of a location parameter".
    """
    losses = nn.functional.huber_loss(rebuilt, values, reduction="none", delta=delta)
    return (losses * counted).sum(dim=2).sum()


@dataclass(frozen=True)
class Errors:
    """Mean errors of the values that count, per column."""

    huber: Float[Tensor, " F"]
    absolute: Float[Tensor, " F"]
    squared: Float[Tensor, " F"]

    @property
    def loss(self) -> float:
        """Mean Huber loss over all columns: what training minimises."""
        return float(self.huber.mean())


class ErrorSums:
    """Sums errors batch by batch, in float64 and on the device.

    Examples:
        >>> sums = ErrorSums(n_features=1, delta=1.0, device=torch.device("cpu"))
        >>> counted = torch.tensor([[[True], [False]]])  # the second bar does not count
        >>> sums.add(torch.ones(1, 2, 1), torch.zeros(1, 2, 1), counted)
        >>> sums.means().loss
        0.5
    """

    def __init__(self, n_features: int, delta: float, device: torch.device) -> None:
        """Begin at 0; the Huber loss is linear for errors above `delta`."""
        self.delta = delta
        self.sums = torch.zeros(4, n_features, dtype=torch.float64, device=device)
        """Rows: Huber, absolute and squared errors, number of values. Columns: features."""

    def add(
        self,
        rebuilt: Float[Tensor, "B L F"],
        values: Float[Tensor, "B L F"],
        counted: Bool[Tensor, "B L #F"],
    ) -> None:
        """Add the errors of the values of one batch that count."""
        error, delta = rebuilt.float() - values, self.delta
        huber = nn.functional.huber_loss(rebuilt.float(), values, reduction="none", delta=delta)
        weights = counted.to(error.dtype)
        parts = torch.stack((huber, error.abs(), error.square(), torch.ones_like(error)))
        self.sums += (parts * weights).sum(dim=(1, 2), dtype=torch.float64)

    def means(self) -> Errors:
        """Return the means over the values, on the CPU."""
        sums = self.sums.cpu()
        huber, absolute, squared = (sums[:3] / sums[3]).unbind()
        return Errors(huber, absolute, squared)


def baseline_rebuilds(
    values: Float[Tensor, "B L F"], unseen: Bool[Tensor, "B L #F"]
) -> tuple[Float[Tensor, "B L F"], ...]:
    """Reconstruct values by each of `BASELINES`; those that are seen are copied, but by the mean.

    Without a seen value on one side, the nearest on the other side is copied. Values must be
    scaled, so that their mean is 0.
    """
    length = unseen.shape[1]
    place = torch.arange(length, device=unseen.device).unsqueeze(-1)
    seen_before = torch.where(unseen, -1, place).cummax(dim=1).values
    seen_after = torch.where(unseen, length, place).flip(1).cummin(dim=1).values.flip(1)
    before = torch.where(seen_before < 0, seen_after, seen_before)
    after = torch.where(seen_after == length, seen_before, seen_after)
    share = (place - before) / (after - before).clamp(min=1)
    earlier, later = _take(values, before), _take(values, after)
    between = earlier + share.to(values.dtype) * (later - earlier)
    return torch.zeros_like(values), earlier, between


def precision(device: torch.device, *, cpu_bfloat16: bool = False) -> AbstractContextManager[Any]:
    """Return the context that sets the precision: bfloat16 on CUDA and where asked for."""
    is_short = device.type == "cuda" or (device.type == "cpu" and cpu_bfloat16)
    return torch.autocast(device.type, torch.bfloat16) if is_short else nullcontext()


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


def _take(values: Float[Tensor, "B L F"], places: Int[Tensor, "B L #F"]) -> Float[Tensor, "B L F"]:
    return values.gather(1, places.expand_as(values))
