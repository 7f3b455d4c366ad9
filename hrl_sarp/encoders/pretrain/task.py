"""Masked reconstruction as a task of the training loop: any autoencoder, any table of bars."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from loguru import logger
from torch import Tensor, nn

from hrl_sarp.config.encoder_schema import PretrainingConfig
from hrl_sarp.encoders.pretrain.masking import MaskRule, draw_masks
from hrl_sarp.encoders.pretrain.reconstruction import (
    BASELINES,
    Errors,
    HeldOut,
    best_baseline,
    huber_sum,
    precision,
)
from hrl_sarp.encoders.windows.cut import gather
from hrl_sarp.encoders.windows.table import WindowTable
from hrl_sarp.errors import DataError, StoppedEarly
from hrl_sarp.fitting import Epoch, Fit, RunState, Schedule, World
from hrl_sarp.fitting.loop import VALIDATION as HIDDEN_BARS
from hrl_sarp.run.session import StopFlag, derive_seed

MODEL = "model"
"""Name of the trained module beside the baselines."""
TITLE = "pretraining"
VALIDATION, TEST = range(2)
"""Of the seed: whose hidden bars are drawn."""
TRAIN_METRICS, VAL_METRICS = "train_metrics", "val_metrics"

Keep = Callable[[dict[str, Any], list[float], bool], None]
"""Takes a checkpoint, the validation losses of all epochs, and whether the last one is the best."""


@dataclass(frozen=True)
class PretrainingRun:
    """How to train, and where states are kept; nothing in it says on what."""

    config: PretrainingConfig
    rule: MaskRule
    seed: int
    world: World
    stop: StopFlag
    state: RunState | None = None
    """None keeps nothing: a run that is stopped is lost then."""
    keep: Keep | None = None
    """Called in the first process after each epoch, before the state is written."""
    checkpoint_seconds: float = 0.0
    """Least time between two states within an epoch."""


@dataclass(frozen=True)
class PretrainingResult:
    """What training came to; the module holds the weights of the best epoch."""

    best_val_loss: float
    best_epoch: int
    train_metrics: list[dict[str, float]]
    """Per epoch."""
    val_metrics: list[dict[str, float]]
    validation: dict[str, Errors]
    """Of the model and of each baseline, on the same hidden bars."""
    test: dict[str, Errors] = field(default_factory=dict)
    """Likewise; empty without test windows."""
    seconds: float = 0.0
    """Spent training; the parts of a resumed run added up."""

    @property
    def judged(self) -> dict[str, Errors]:
        """Errors on the test split, or on validation where there is no test."""
        return self.test or self.validation

    @property
    def baselines(self) -> dict[str, Errors]:
        """Errors of rebuilding without a model on the validation windows."""
        return {name: self.validation[name] for name in BASELINES}

    @property
    def beats_baselines(self) -> bool:
        """Whether the model's loss is below that of the best baseline."""
        return self.judged[MODEL].loss < self.judged[best_baseline(self.judged)].loss


def pretrain(module: nn.Module, data: WindowTable, run: PretrainingRun) -> PretrainingResult:
    """Train until patience or epochs run out and load the best epoch's weights.

    Masks do not depend on the number of processes. Nothing is learned of the last, incomplete batch
    of an epoch; its windows come up in other epochs.

    Args:
        module: `forward(bars, hidden)` returns the bars rebuilt without the hidden ones; on the
            device of the data.
        data: bars and windows.
        run: settings, seed, processes and where states are kept.

    Returns:
        The errors of the best epoch beside those of rebuilding without a model.

    Raises:
        StoppedEarly: after keeping the state, if a stop was asked for.
        TrainingDivergedError: at a loss that is not finite; what was kept before stays.
        DataError: if training or validation has no window, or a batch fewer than processes.
        CheckpointError: if the stored state does not fit.
    """
    task = MaskedReconstruction(module, data, run)
    baselines = task.validation.baseline_errors()
    if run.world.is_first:
        shown = ", ".join(f"{name} {errors.loss:.4f}" for name, errors in baselines.items())
        logger.info(f"{TITLE}: validation loss without a model: {shown}")
    metrics: dict[str, Any] = {TRAIN_METRICS: [], VAL_METRICS: []}

    def note(epoch: Epoch) -> None:
        trained = {"train_loss": epoch.terms["total_loss"], "train_batch": fit.n_batches}
        trained |= {"train_epoch": epoch.number, "train_lr": epoch.rate}
        n_blocks = -(-len(data.validation) // task.validation.batch_size)
        judged = {"val_loss": epoch.loss, "val_batch": n_blocks, "val_epoch": epoch.number}
        metrics[TRAIN_METRICS].append({**trained, "epoch_time": epoch.seconds})
        metrics[VAL_METRICS].append(judged)
        if run.keep is None or not run.world.is_first:
            return
        checkpoint = {
            "epoch": epoch.number,
            "model_state_dict": module.state_dict(),
            "optimizer_state_dict": fit.optimizer.state_dict(),
            "metrics": {**metrics[TRAIN_METRICS][-1], **judged},
        }
        run.keep(checkpoint, [row["val_loss"] for row in metrics[VAL_METRICS]], epoch.is_best)

    schedule = course(run.config, run.checkpoint_seconds)
    fit = Fit(
        *(task, schedule, run.state, run.seed, run.stop, run.world), on_epoch=note, extra=metrics
    )
    fitted = fit.run()
    test: dict[str, Errors] = {}
    if len(data.test):
        held_out = task.held_out(data.test, TEST)
        test = {MODEL: task.errors(held_out), **held_out.baseline_errors()}
    return PretrainingResult(
        best_val_loss=fitted.best_loss,
        best_epoch=fitted.best_epoch,
        train_metrics=metrics[TRAIN_METRICS],
        val_metrics=metrics[VAL_METRICS],
        validation={MODEL: task.errors(task.validation), **baselines},
        test=test,
        seconds=sum(fitted.seconds),
    )


def course(config: PretrainingConfig, checkpoint_seconds: float) -> Schedule:
    """Return the schedule of a pretraining: a linear rise, then a cosine to the last epoch.

    Args:
        config: epochs, rates, patience.
        checkpoint_seconds: least time between two states within an epoch.

    Returns:
        The rate peaks after `warmup_epochs`.
    """
    return Schedule(
        epochs=config.epochs,
        patience=config.patience,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        checkpoint_seconds=checkpoint_seconds,
        peak_epoch=config.warmup_epochs - 1,
        low_epoch=config.epochs - 1,
        final_share=config.final_learning_rate_share,
        min_delta=config.min_delta,
        drop_last=True,
    )


class MaskedReconstruction:
    """Rows are first rows of windows; the loss is that of their hidden bars."""

    title = TITLE

    def __init__(self, module: nn.Module, data: WindowTable, run: PretrainingRun) -> None:
        """Draw the hidden bars of validation, which stay the same in every epoch.

        Args:
            module: as for `pretrain`.
            data: bars and windows.
            run: gives mask rule, Huber's bend, seed and processes.

        Raises:
            DataError: if training or validation has no window.
        """
        for name, starts in (("training", data.train), ("validation", data.validation)):
            if not len(starts):
                raise DataError(f"{TITLE}: expected windows in the {name} split, found none")
        self.module, self.data, self.run = module, data, run
        self.train_rows = data.train
        self.connected = run.world.connect(module)
        self.hidden_values = run.rule.count(data.length) * data.n_features  # of a window
        self.validation = self.held_out(data.validation, VALIDATION)

    def loss(
        self, rows: Int[Tensor, " B"], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return this process's part of the mean Huber loss of the hidden values; no more terms.

        Args:
            rows: first rows of the windows of the batch of all processes.
            generator: of the masks of all of them: the same on every device.

        Returns:
            The part, with its graph; parts of all processes add up to the mean.
        """
        mine = self.run.world.share(len(rows))
        masks = draw_masks(self.run.rule, len(rows), self.data.length, generator)
        hidden = masks[mine].to(self.data.device)
        bars = gather(self.data.table, rows[mine], self.data.length)
        with precision(self.data.device):
            rebuilt = self.connected(bars, hidden)
        total = huber_sum(rebuilt.float(), bars, hidden, self.run.config.huber_delta)
        return total / (len(rows) * self.hidden_values), {}

    def validate(self) -> tuple[float, dict[str, float]]:
        """Return the loss on the validation windows.

        Returns:
            The loss, and the same by name.
        """
        loss = self.errors(self.validation).loss
        return loss, {"val_loss": loss}

    def describe(self, rows: Int[Tensor, " B"]) -> str:
        """Say where the windows of a batch begin.

        Args:
            rows: first rows of windows.

        Returns:
            Words for a message.
        """
        return f"windows from row {int(rows.min())} to {int(rows.max())} of the table"

    def held_out(self, starts: Int[Tensor, " W"], split: int) -> HeldOut:
        """Return windows that are not learned from, with hidden bars that the seed fixes.

        Args:
            starts: their first rows.
            split: `VALIDATION` or `TEST`.

        Returns:
            The windows, on the device of the data.
        """
        seed = derive_seed(self.run.seed, HIDDEN_BARS, split)
        generator = torch.Generator().manual_seed(seed)
        hidden = draw_masks(self.run.rule, len(starts), self.data.length, generator)
        delta, size = (
            self.run.config.huber_delta,
            min(self.run.config.batch_size, len(self.data.train)),
        )
        return HeldOut(self.data, starts, hidden.to(self.data.device), delta, size)

    def errors(self, held_out: HeldOut) -> Errors:
        """Return the module's errors.

        Args:
            held_out: windows of validation or test.

        Returns:
            Means over all hidden values.

        Raises:
            StoppedEarly: if a stop was asked for; several processes may have different numbers of
                batches here and could not agree on one, so they finish first.
        """

        def pause() -> None:
            if self.run.world.size == 1 and self.run.stop.is_set:
                raise StoppedEarly

        return held_out.module_errors(self.module, self.run.world, pause)
