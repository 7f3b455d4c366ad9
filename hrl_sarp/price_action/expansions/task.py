"""Targets, losses and training task of the multi-task model.

All targets describe bars inside the window, so this is detection, not a forecast.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from hrl_sarp.config.encoder_schema import FinetuningConfig
from hrl_sarp.price_action.expansions.measures import Found
from hrl_sarp.price_action.expansions.model import TYPES, JadeMultiTask, MultiTaskOutput
from hrl_sarp.price_action.expansions.windows import GroupSplit, LabelledWindows

EVALUATED_AT_ONCE = 512
"""Batch size of passes without gradients."""
LARGEST_ENCODED_BYTES = 2 << 30
"""Memory up to which a frozen encoder's output for all windows is kept."""
LEAST_LOSS = 1e-6
"""Starting loss of a task that a constant answer solves."""


class Targets(NamedTuple):
    """Targets of the heads for each window."""

    label: Int[Tensor, " W"]
    pointers: Float[Tensor, "W 2"]
    """Center and length of the expansion, in [0, 1]."""
    inside: Float[Tensor, "W L"]
    """1 on the bars of the expansion."""
    countdown: Float[Tensor, "W L"]

    def rows(self, chosen: Int[Tensor, " B"]) -> "Targets":
        """Choose some windows by rows on the device of the targets."""
        return Targets(*(tensor[chosen] for tensor in self))

    def to(self, device: torch.device) -> "Targets":
        """Copy to a device."""
        return Targets(*(tensor.to(device) for tensor in self))


class ExpansionTask:
    """The task of `fitting.Fit` that teaches a model to find expansions.

    The plain sum of the tasks' losses chooses the epoch, because learned sigmas change the
    weighted sum.
    """

    def __init__(
        self,
        model: JadeMultiTask,
        inputs: Float[Tensor, "W L F"],
        targets: Targets,
        split: GroupSplit,
        config: FinetuningConfig,
        pos_weight: float,
        *,
        is_frozen: bool,
        title: str = "expansions",
    ) -> None:
        """Freeze the encoder if requested, and start heads and sigmas at constant answers.

        An encoder that is frozen, or that waits for its heads, reads every window once.

        If sigmas started at 1, the pointers would not be learned for thousands of updates, because
        their loss is a hundredth of the others'.
        """
        device = inputs.device
        self.module, self.inputs, self.targets, self.title = model, inputs, targets, title
        self.config, self.pos_weight, self.is_frozen = config, pos_weight, is_frozen
        self.train_rows = torch.from_numpy(split.train).to(device)
        self.validation = torch.from_numpy(split.validation).to(device)
        self.found = Found(None, None, None)
        """The model's answers for the validation windows at the last validation."""
        model.encoder.requires_grad_(not is_frozen)
        taught = targets.rows(self.train_rows)
        model.start_at(constant_answer(taught, pos_weight))
        chance = constant_losses(taught, config, pos_weight)
        starts = [0.5 * math.log(max(chance[task], LEAST_LOSS)) for task in model.tasks]
        model.log_sigma.data.copy_(torch.tensor(starts))
        n_bytes = inputs[..., 0].numel() * model.encoder.width * inputs.element_size()
        fits = n_bytes <= LARGEST_ENCODED_BYTES
        waits = is_frozen or config.heads_first_epochs > 0
        self.encoded = self._encode_all() if waits and fits else None

    def loss(
        self, rows: Int[Tensor, " B"], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the weighted total of a batch, and the plain loss of each task."""
        if not self._encoder_learns:
            self.module.encoder.eval()
        losses = self._losses(self._output(rows), rows)
        total = weighted_total(losses, self.module.log_sigmas())
        return total, {f"train_{task}": loss for task, loss in losses.items()}

    def validate(self) -> tuple[float, dict[str, float]]:
        """Return the sum of the losses on the validation windows, and the loss of each task."""
        losses, self.found = self.look_at(self.validation)
        return sum(losses.values()), {f"val_{task}": loss for task, loss in losses.items()}

    def describe(self, rows: Int[Tensor, " B"]) -> str:
        """Say which windows these are, for the message of a run that diverges."""
        return f"labelled windows {int(rows.min())} to {int(rows.max())}"

    @torch.no_grad()
    def look_at(self, rows: Int[Tensor, " B"]) -> tuple[dict[str, float], Found]:
        """Return the mean loss of each task over some windows, and the model's answers."""
        self.module.eval()
        parts = [self._output(block) for block in rows.split(EVALUATED_AT_ONCE)]
        output = MultiTaskOutput(
            *(None if part[0] is None else torch.cat(part) for part in zip(*parts, strict=True))
        )
        losses = {task: float(loss) for task, loss in self._losses(output, rows).items()}
        types, pointers, spans = output.type_logits, output.pointers, output.span_logits
        return losses, Found(
            None if types is None else types.argmax(dim=1).cpu().numpy(),
            None if pointers is None else pointers.double().cpu().numpy(),
            None if spans is None else spans.sigmoid().double().cpu().numpy(),
        )

    def slow_weights(self) -> list[nn.Parameter]:
        """Name the encoder's weights, unless they learn as the heads do or not at all."""
        as_heads = self.config.encoder_rate_share == 1.0 and self.config.heads_first_epochs == 0
        return [] if self.is_frozen or as_heads else list(self.module.encoder.parameters())

    def slow_share(self, epoch: int) -> float:
        """Return the share of the learning rate that the encoder has; 0 while it waits."""
        waits = epoch < self.config.heads_first_epochs
        return 0.0 if waits else self.config.encoder_rate_share

    @property
    def _encoder_learns(self) -> bool:
        return next(self.module.encoder.parameters()).requires_grad

    def _output(self, rows: Int[Tensor, " B"]) -> MultiTaskOutput:
        if self.encoded is not None and not self._encoder_learns:
            return self.module.decode(self.encoded[rows])
        return self.module.decode(self._encode(self.inputs[rows]))

    def _encode(self, windows: Float[Tensor, "B L F"]) -> Float[Tensor, "B L E"]:
        device, is_short = windows.device.type, self.config.cpu_bfloat16
        with torch.autocast(device, torch.bfloat16, enabled=is_short and device == "cpu"):
            per_bar: Tensor = self.module.encoder(windows)
        return per_bar.float()

    def _losses(self, output: MultiTaskOutput, rows: Int[Tensor, " B"]) -> dict[str, Tensor]:
        return task_losses(output, self.targets.rows(rows), self.config, self.pos_weight)

    @torch.no_grad()
    def _encode_all(self) -> Float[Tensor, "W L E"]:
        """Return the frozen encoder's output for every window, which never changes."""
        self.module.encoder.eval()
        blocks = self.inputs.split(EVALUATED_AT_ONCE)
        return torch.cat([self._encode(block) for block in blocks])


def make_targets(windows: LabelledWindows, countdown_bars: int) -> Targets:
    """Turn labels into targets of one scale: all lie in [0, 1].

    Center (s + e) / 2 / (L - 1) and length (e - s + 1) / L. The countdown is 1 at `countdown_bars`
    and more before the expansion, falls by the same step each bar, and is 0 from its first bar on.
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
    """Compute the weight under which bars inside count as much as those outside."""
    n_inside = float(inside.sum())
    return (inside.numel() - n_inside) / n_inside


def task_losses(
    output: MultiTaskOutput, targets: Targets, config: FinetuningConfig, pos_weight: float
) -> dict[str, Tensor]:
    """Compute the mean loss of each task that the output has.

    Cross-entropy (type), Huber (pointers, countdown), weighted binary cross-entropy (span).
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


def weighted_total(losses: Mapping[str, Tensor], log_sigma: Mapping[str, Tensor]) -> Tensor:
    """Add up loss / (2 sigma^2) + log sigma over the tasks.

    Source:
        Kendall, Gal and Cipolla (2018), "Multi-task learning using uncertainty to weigh losses".
    """
    terms = [
        0.5 * torch.exp(-2.0 * log_sigma[task]) * loss + log_sigma[task]
        for task, loss in losses.items()
    ]
    return torch.stack(terms).sum()


def constant_answer(targets: Targets, pos_weight: float) -> MultiTaskOutput:
    """Find one answer for all windows: shares of classes and of bars inside, and means."""
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
    """Compute each task's loss under `constant_answer`."""
    losses = task_losses(constant_answer(targets, pos_weight), targets, config, pos_weight)
    return {task: float(loss) for task, loss in losses.items()}
