"""Which bars of a window are hidden from the encoder, drawn for whole batches at once."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hrl_sarp.config.encoder_schema import MaskStrategy
from hrl_sarp.errors import ConfigError


@dataclass(frozen=True)
class MaskRule:
    """How bars are hidden. All strategies hide the same number, so that their losses compare."""

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
            ConfigError: if that is none, or if no bar would stay visible.
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
    """Draw which bars are hidden; the same generator state gives the same masks.

    Every bar gets a key, and the bars with the smallest keys are hidden: random keys for single
    bars, the distance behind a random first bar for a block, and for patches the random rank of
    the bar's patch with the place inside it.

    Returns:
        True where hidden, on the generator's device; exactly `rule.count(length)` in each row.
    """
    hidden, usable = rule.count(length), length - rule.warmup_bars
    device = generator.device
    if rule.strategy == "random":
        keys = torch.rand(n_windows, usable, generator=generator, device=device)
    elif rule.strategy == "block":
        keys = _block_keys(n_windows, usable, hidden, generator)
    else:
        keys = _patch_keys(n_windows, usable, rule.patch_bars, generator)
    chosen = keys.topk(hidden, dim=1, largest=False, sorted=False).indices + rule.warmup_bars
    masks = torch.zeros(n_windows, length, dtype=torch.bool, device=device)
    return masks.scatter_(1, chosen, value=True)


def _block_keys(
    n_windows: int, usable: int, hidden: int, generator: torch.Generator
) -> Float[Tensor, "B U"]:
    device = generator.device
    last_first = usable - hidden + 1
    first = torch.randint(last_first, (n_windows, 1), generator=generator, device=device)
    return ((torch.arange(usable, device=device) - first) % usable).float()


def _patch_keys(
    n_windows: int, usable: int, patch_bars: int, generator: torch.Generator
) -> Float[Tensor, "B U"]:
    device = generator.device
    n_patches = -(-usable // patch_bars)
    drawn = torch.rand(n_windows, n_patches, generator=generator, device=device)
    rank = drawn.argsort(dim=1).argsort(dim=1)
    bar = torch.arange(usable, device=device)
    return (rank[:, bar // patch_bars] * patch_bars + bar % patch_bars).float()
