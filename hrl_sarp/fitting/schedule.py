"""How long and how fast to train: by epochs, or by updates as shares of the highest rate."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ONE_CYCLE_END = 1e-4
"""Last share of a one-cycle schedule, of its first one."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Examples:
        >>> schedule = Schedule(4, 2, 8, 0.1, 0.0, 1.0, 60.0, low_epoch=3, final_share=0.0)
        >>> [round(schedule.rate(epoch), 3) for epoch in range(4)]
        [0.1, 0.075, 0.025, 0.0]
    """

    epochs: int
    patience: int
    """Training stops after so many epochs without a gain."""
    batch_size: int
    learning_rate: float
    """Peak learning rate of AdamW."""
    weight_decay: float
    max_grad_norm: float
    """Larger gradients are scaled down to this norm."""
    checkpoint_seconds: float
    """Least time between two checkpoints within an epoch; each epoch ends with one, too."""
    peak_epoch: int = 0
    """The rate rises linearly up to this epoch and falls as a cosine afterwards."""
    low_epoch: int = 1
    """Epoch of the lowest rate."""
    final_share: float = 1.0
    """Lowest rate over its peak; 1 keeps it constant."""
    min_delta: float = 0.0
    """A better validation loss is lower by more than this."""
    drop_last: bool = False
    """Skip an incomplete last batch; other epochs use its rows."""
    validate_first: bool = False
    """Validate the untrained module, too; it may be the best as epoch -1."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of AdamW's running means of gradients and of their squares."""
    eps: float = 1e-8
    """What AdamW adds to the root of the running mean of squares."""
    by_update: Callable[[int, int], float] | None = None
    """Share of the peak rate at an update, by its number from 0 and the number of all updates; it
    replaces the rates by epoch."""

    @classmethod
    def of(cls, settings: Any, **others: Any) -> "Schedule":
        """Make a schedule of a section of the configuration.

        Args:
            settings: the section, with `epochs`, `patience`, `learning_rate`, `weight_decay` and
                `max_grad_norm`.
            others: the other fields of the schedule.

        Returns:
            The schedule.
        """
        names = ("epochs", "patience", "learning_rate", "weight_decay", "max_grad_norm")
        return cls(**{name: getattr(settings, name) for name in names}, **others)

    def rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch.

        Args:
            epoch: number of the epoch, from 0.

        Returns:
            The rate of AdamW.
        """
        if epoch <= self.peak_epoch:
            return self.learning_rate * (epoch + 1) / (self.peak_epoch + 1)
        done = min((epoch - self.peak_epoch) / (self.low_epoch - self.peak_epoch), 1.0)
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * (self.final_share + (1 - self.final_share) * cosine)


def one_cycle(update: int, total: int, rising: float, first_share: float) -> float:
    """Rise as a cosine from a first share to 1, then fall as a cosine to nearly 0.

    Args:
        update: number of the update, from 0.
        total: number of all updates.
        rising: part of the updates in which the rate rises.
        first_share: share of the first update.

    Returns:
        The share of the highest rate, as PyTorch's `OneCycleLR` gives it.

    Examples:
        >>> [round(one_cycle(update, 10, 0.3, 0.1), 2) for update in (0, 2, 9)]
        [0.1, 1.0, 0.0]
    """
    peak = rising * total - 1.0
    if update <= peak:
        return _cosine(first_share, 1.0, update / peak if peak else 1.0)
    return _cosine(1.0, first_share * ONE_CYCLE_END, (update - peak) / (total - 1 - peak))


def warmup_stable_decay(
    update: int, total: int, warmup: float, decay: float, last_share: float
) -> float:
    """Rise in a line from a last share to 1, stay there, then fall as 1 minus a square root.

    Args:
        update: number of the update, from 0.
        total: number of all updates.
        warmup: part of the updates in which the rate rises.
        decay: part of the updates in which it falls.
        last_share: share that the rise leaves, and which the last update reaches.

    Returns:
        The share of the highest rate; the last one after the end.

    Source:
        The published training of Toto 1.0.

    Examples:
        >>> shares = [warmup_stable_decay(update, 100, 0.1, 0.2, 0.25) for update in (4, 50, 84)]
        >>> [round(share, 3) for share in shares]
        [0.625, 1.0, 0.625]
    """
    rising, falling = warmup * total, decay * total
    if update < rising:
        return last_share + (1.0 - last_share) * min((update + 1) / rising, 1.0)
    fallen = update + 1 - (total - falling)
    if fallen <= 0:
        return 1.0
    done = min(fallen / falling, 1.0) if falling else 1.0
    return 1.0 - (1.0 - last_share) * math.sqrt(done)


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * done))
