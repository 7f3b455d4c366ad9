"""What the multi-task model is taught, and how its losses become one.

All targets describe bars inside the window, the expansion included: this is detection. Nothing
here says what happens after a window.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from hrl_sarp.config.encoder_schema import FinetuningConfig
from hrl_sarp.price_action.expansions.model import TYPES, MultiTaskOutput
from hrl_sarp.price_action.expansions.windows import LabelledWindows


@dataclass(frozen=True)
class Targets:
    """What each window's heads should say."""

    label: Int[Tensor, " W"]
    pointers: Float[Tensor, "W 2"]
    inside: Float[Tensor, "W L"]
    """1 on the bars of the expansion."""
    countdown: Float[Tensor, "W L"]

    def rows(self, chosen: Int[Tensor, " B"]) -> "Targets":
        """Return the targets of some windows."""
        return Targets(
            self.label[chosen], self.pointers[chosen], self.inside[chosen], self.countdown[chosen]
        )

    def to(self, device: torch.device) -> "Targets":
        """Return the targets on a device."""
        moved = (self.label, self.pointers, self.inside, self.countdown)
        return Targets(*(tensor.to(device) for tensor in moved))


def make_targets(windows: LabelledWindows, countdown_bars: int) -> Targets:
    """Turn labels into targets of one scale: all lie in [0, 1].

    Center (s + e) / 2 / (L - 1) and length (e - s + 1) / L. The countdown is 1 at `countdown_bars`
    and more before the expansion's first bar, falls by 1 / `countdown_bars` a bar and is 0 from its
    first bar on.
    """
    length = windows.ohlc.shape[1]
    bars = np.arange(length)
    start, end = windows.start[:, None], windows.end[:, None]
    inside = (bars >= start) & (bars <= end)
    countdown = np.clip((start - bars) / countdown_bars, 0.0, 1.0)
    center = (windows.start + windows.end) / 2 / (length - 1)
    share = (windows.end - windows.start + 1) / length
    return Targets(
        torch.from_numpy(windows.label),
        torch.from_numpy(np.stack([center, share], axis=1)).float(),
        torch.from_numpy(inside).float(),
        torch.from_numpy(countdown).float(),
    )


def balanced_weight(inside: Float[Tensor, "W L"]) -> float:
    """Return bars outside / bars inside: the weight under which both count alike."""
    n_inside = float(inside.sum())
    return (inside.numel() - n_inside) / n_inside


def task_losses(
    output: MultiTaskOutput, targets: Targets, config: FinetuningConfig, pos_weight: float
) -> dict[str, Tensor]:
    """Return the mean loss of each task that the output has.

    Cross-entropy (type), Huber (pointers, countdown), binary cross-entropy in which the bars of an
    expansion weigh `pos_weight` (span).
    """
    losses: dict[str, Tensor] = {}
    if output.type_logits is not None:
        losses["type"] = functional.cross_entropy(output.type_logits, targets.label)
    if output.pointers is not None:
        losses["pointers"] = functional.huber_loss(
            output.pointers, targets.pointers, delta=config.pointer_huber_delta
        )
    if output.span_logits is not None:
        losses["span"] = functional.binary_cross_entropy_with_logits(
            output.span_logits,
            targets.inside,
            pos_weight=torch.tensor(pos_weight, device=targets.inside.device),
        )
    if output.countdown is not None:
        losses["countdown"] = functional.huber_loss(
            output.countdown, targets.countdown, delta=config.countdown_huber_delta
        )
    return losses


def weighted_total(losses: dict[str, Tensor], log_sigma: dict[str, Tensor]) -> Tensor:
    """Return the sum over tasks of loss / (2 sigma^2) + log sigma.

    Source:
        Kendall, Gal and Cipolla (2018), "Multi-task learning using uncertainty to weigh losses".
    """
    terms = [
        0.5 * torch.exp(-2.0 * log_sigma[task]) * loss + log_sigma[task]
        for task, loss in losses.items()
    ]
    return torch.stack(terms).sum()


def task_weights(log_sigma: Mapping[str, float]) -> dict[str, float]:
    """Return each task's share of the sum of 1 / sigma^2."""
    precision = {task: float(np.exp(-2.0 * value)) for task, value in log_sigma.items()}
    total = sum(precision.values())
    return {task: value / total for task, value in precision.items()}


def constant_answer(targets: Targets, pos_weight: float) -> MultiTaskOutput:
    """Return one answer for all windows: shares of classes and of bars inside, and means."""
    n_windows, length = targets.inside.shape
    classes = torch.bincount(targets.label, minlength=TYPES) / n_windows
    share = targets.inside.mean()
    odds = pos_weight * share / (1.0 - share)
    return MultiTaskOutput(
        type_logits=classes.log().expand(n_windows, TYPES),
        pointers=targets.pointers.mean(dim=0).expand(n_windows, 2),
        span_logits=odds.log().expand(n_windows, length),
        countdown=targets.countdown.mean().expand(n_windows, length),
    )


def constant_losses(
    targets: Targets, config: FinetuningConfig, pos_weight: float
) -> dict[str, float]:
    """Return each task's loss under `constant_answer`."""
    losses = task_losses(constant_answer(targets, pos_weight), targets, config, pos_weight)
    return {task: float(loss) for task, loss in losses.items()}
