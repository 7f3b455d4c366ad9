"""Which bars of a window are hidden from the encoder, drawn for whole batches at once."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from hrl_sarp.config.encoder_schema import MaskStrategy
from hrl_sarp.errors import ConfigError


@dataclass(frozen=True)
class MaskRule:
    """How bars are hidden. All strategies hide the same number, so that their losses compare.

    Example:
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
    """Draw exactly `rule.count(length)` hidden bars a window, on the generator's device.

    Every bar gets a key, and the bars with the smallest keys are hidden: random keys for single
    bars, the distance behind a random first bar for a block, and for patches the random rank of
    the bar's patch with the place inside it.
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
