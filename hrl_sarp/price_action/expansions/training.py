"""The loop that trains the multi-task model: any split, any device, exact resume by epochs."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hrl_sarp.config.encoder_schema import FinetuningConfig
from hrl_sarp.errors import StoppedEarly, TrainingDivergedError
from hrl_sarp.price_action.expansions.losses import (
    Targets,
    constant_answer,
    constant_losses,
    task_losses,
    weighted_total,
)
from hrl_sarp.price_action.expansions.measures import Found
from hrl_sarp.price_action.expansions.model import JadeMultiTask, MultiTaskOutput
from hrl_sarp.run.session import StopFlag, derive_seed

ORDER, DROPOUT = range(2)
"""Roles of the seed: what each stream of draws is for."""
EVALUATED_AT_ONCE = 512
"""Windows of a pass without gradients."""
LARGEST_ENCODED_BYTES = 2 << 30
"""What a frozen encoder makes of all windows is kept if it needs no more."""
BYTES = 4
"""Of a float."""
LEAST_LOSS = 1e-6
"""A task that a constant solves starts as if this were its loss."""


@dataclass(frozen=True)
class Taught:
    """Windows and what should be said of them, on one device."""

    inputs: Float[Tensor, "W L F"]
    targets: Targets
    train: Tensor
    """Rows."""
    validation: Tensor


@dataclass(frozen=True)
class TrainingRun:
    """How to train; nothing in it says on what."""

    config: FinetuningConfig
    """Its `epochs` and `patience` end the run."""
    batch_size: int
    pos_weight: float
    """Of bars inside, in the span loss."""
    is_frozen: bool
    """The encoder keeps its weights."""
    seed: int
    stop: StopFlag


@dataclass
class Epoch:
    """What an epoch measured."""

    number: int
    """From 1."""
    train: dict[str, float]
    """Mean loss of each task, with dropout, while it learned."""
    train_total: float
    """Mean of what was minimised."""
    val: dict[str, float]
    val_total: float
    found: Found
    """What the model says of the validation windows."""
    gradients: dict[str, float]
    """Norms of the first batch by weight, before clipping; `total_grad_norm` first."""
    log_sigma: dict[str, float]
    """At the end of the epoch."""
    seconds: float

    @property
    def val_loss(self) -> float:
        """The plain sum over tasks, which chooses the epoch: sigmas change its weighted form."""
        return sum(self.val.values())


@dataclass
class Standing:
    """Where a run stands between two epochs."""

    best_state: dict[str, Tensor]
    epoch: int = 0
    """Epochs done."""
    best_loss: float = math.inf
    best_epoch: int = 0
    history: dict[str, Any] = field(default_factory=dict)
    """What the caller keeps with it."""


class MultiTaskTrainer:
    """One model, its windows and its optimizer."""

    def __init__(self, model: JadeMultiTask, data: Taught, run: TrainingRun) -> None:
        self.model, self.data, self.run = model, data, run
        model.encoder.requires_grad_(not run.is_frozen)
        self.trained = [weights for weights in model.parameters() if weights.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=run.config.learning_rate, weight_decay=run.config.weight_decay
        )
        _start_from_constants(model, data, run)
        self.encoded = self._encode_all() if run.is_frozen and self._fits() else None
        self.standing = Standing(copy.deepcopy(model.state_dict()))

    def fit(self, on_epoch: Callable[[Epoch], None] | None = None) -> Standing:
        """Train until patience or epochs run out and load the best epoch's weights.

        Args:
            on_epoch: called after each epoch, when `state` holds all that a resumed run needs.

        Raises:
            StoppedEarly: if a stop was asked for; the epoch under way is lost.
            TrainingDivergedError: at the first loss that is not finite.
        """
        standing, config = self.standing, self.run.config
        while (
            standing.epoch < config.epochs
            and standing.epoch - standing.best_epoch < config.patience
        ):
            epoch = self._run_epoch(standing.epoch + 1)
            standing.epoch = epoch.number
            if epoch.val_loss < standing.best_loss:
                standing.best_loss, standing.best_epoch = epoch.val_loss, epoch.number
                standing.best_state = copy.deepcopy(self.model.state_dict())
            if on_epoch is not None:
                on_epoch(epoch)
        self.model.load_state_dict(standing.best_state)
        return standing

    def state(self) -> dict[str, Any]:
        """Return what a resumed run continues from."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "standing": vars(self.standing),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.standing = Standing(**state["standing"])

    @torch.no_grad()
    def look_at(self, rows: Tensor) -> tuple[dict[str, float], Found]:
        """Return the mean loss of each task over some windows, and what the model says of them."""
        self.model.eval()
        parts = [self._output(block) for block in rows.split(EVALUATED_AT_ONCE)]
        output = MultiTaskOutput(
            *(None if part[0] is None else torch.cat(part) for part in zip(*parts, strict=True))
        )
        losses = self._losses(output, rows)
        return {task: float(loss) for task, loss in losses.items()}, found_by(output)

    def _run_epoch(self, number: int) -> Epoch:
        began = time.perf_counter()
        self.model.train()
        self.model.encoder.train(not self.run.is_frozen)
        generator = torch.Generator().manual_seed(derive_seed(self.run.seed, ORDER, number))
        order = torch.randperm(len(self.data.train), generator=generator)
        rows = self.data.train[order.to(self.data.train.device)]
        sums: dict[str, float] = {}
        gradients: dict[str, float] = {}
        for place, batch in enumerate(rows.split(self.run.batch_size)):
            if self.run.stop.is_set:
                raise StoppedEarly
            torch.manual_seed(derive_seed(self.run.seed, DROPOUT, number, place))
            losses = self._differentiate(batch, number)
            gradients = gradients or self._gradient_norms()
            nn.utils.clip_grad_norm_(self.trained, self.run.config.max_grad_norm)
            self.optimizer.step()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value * len(batch) / len(rows)
        total = sums.pop("total")
        val, found = self.look_at(self.data.validation)
        sigmas = {task: float(s.detach()) for task, s in self.model.log_sigmas().items()}
        val_total = float(weighted_total(_as_tensors(val), _as_tensors(sigmas)))
        seconds = time.perf_counter() - began
        return Epoch(number, sums, total, val, val_total, found, gradients, sigmas, seconds)

    def _differentiate(self, rows: Tensor, number: int) -> dict[str, float]:
        """Set the gradients of a batch; returns its losses by task and what is minimised."""
        losses = self._losses(self._output(rows), rows)
        total = weighted_total(losses, self.model.log_sigmas())
        if not bool(torch.isfinite(total)):
            raise TrainingDivergedError(
                f"loss of epoch {number} is {float(total.detach())}: lower the learning rate; "
                "what was written after earlier epochs is kept"
            )
        self.optimizer.zero_grad()
        total.backward()
        return {task: float(loss.detach()) for task, loss in {**losses, "total": total}.items()}

    def _gradient_norms(self) -> dict[str, float]:
        norms = {
            name: float(weights.grad.norm())
            for name, weights in self.model.named_parameters()
            if weights.grad is not None
        }
        return {"total_grad_norm": math.hypot(*norms.values()), **norms}

    def _output(self, rows: Tensor) -> MultiTaskOutput:
        if self.encoded is not None:
            return self.model.decode(self.encoded[rows])
        return self.model(self.data.inputs[rows])

    def _losses(self, output: MultiTaskOutput, rows: Tensor) -> dict[str, Tensor]:
        targets = self.data.targets.rows(rows)
        return task_losses(output, targets, self.run.config, self.run.pos_weight)

    def _fits(self) -> bool:
        n_windows, length, _ = self.data.inputs.shape
        return n_windows * length * self.model.encoder.width * BYTES <= LARGEST_ENCODED_BYTES

    @torch.no_grad()
    def _encode_all(self) -> Float[Tensor, "W L E"]:
        """Return what the frozen encoder makes of every window: it never changes."""
        self.model.encoder.eval()
        blocks = self.data.inputs.split(EVALUATED_AT_ONCE)
        return torch.cat([self.model.encoder(block) for block in blocks])


def found_by(output: MultiTaskOutput) -> Found:
    """Turn what the heads say into what the measures read."""
    label = None if output.type_logits is None else output.type_logits.argmax(dim=1)
    inside = None if output.span_logits is None else output.span_logits.sigmoid()
    pointers = output.pointers
    return Found(
        None if label is None else label.cpu().numpy(),
        None if pointers is None else pointers.double().cpu().numpy(),
        None if inside is None else inside.double().cpu().numpy(),
    )


def _start_from_constants(model: JadeMultiTask, data: Taught, run: TrainingRun) -> None:
    """Let heads begin near the best constant answer, and tasks weigh alike: sigma^2 is its loss.

    A model that knows nothing would arrive there. From sigma 1, pointers, whose loss is a hundredth
    of the others', would not be learned for thousands of updates.
    """
    targets = data.targets.rows(data.train)
    model.start_at(constant_answer(targets, run.pos_weight))
    losses = constant_losses(targets, run.config, run.pos_weight)
    starts = [0.5 * math.log(max(losses[task], LEAST_LOSS)) for task in model.tasks]
    model.log_sigma.data.copy_(torch.tensor(starts))


def _as_tensors(values: dict[str, float]) -> dict[str, Tensor]:
    return {task: torch.tensor(value) for task, value in values.items()}
