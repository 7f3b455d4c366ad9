"""Masked reconstruction as a task of the training loop, for any autoencoder and table of bars."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from loguru import logger
from torch import Tensor, nn

from hrl_sarp.config.encoder_schema import PretrainingConfig
from hrl_sarp.encoders.pretrain.rebuilds import Rebuild
from hrl_sarp.encoders.pretrain.reconstruction import (
    BASELINES,
    Errors,
    ErrorSums,
    MaskRule,
    baseline_rebuilds,
    best_baseline,
    draw_masks,
    huber_sum,
    precision,
)
from hrl_sarp.encoders.windows.cut import WindowTable, gather
from hrl_sarp.errors import DataError, StoppedEarly
from hrl_sarp.fitting import Epoch, Fit, RunState, Schedule, World
from hrl_sarp.fitting.loop import VALIDATION as HIDDEN_BARS
from hrl_sarp.run.session import StopFlag, derive_seed

MODEL = "model"
"""Name of the trained module in tables that list the baselines, too."""
TITLE = "pretraining"
EVALUATED = ("validation", "test")
"""Splits that the module is not trained on."""
TRAIN_METRICS, VAL_METRICS = "train_metrics", "val_metrics"

Block = tuple[Float[Tensor, "B L F"], Bool[Tensor, "B L"]]
Keep = Callable[[dict[str, Any], list[float], bool], None]
"""Arguments: a checkpoint, the validation losses of all epochs, whether the last is the best."""


@dataclass(frozen=True)
class PretrainingRun:
    """How to train and where to keep the state, for any module and data."""

    config: PretrainingConfig
    rule: MaskRule
    rebuild: Rebuild
    seed: int
    world: World
    stop: StopFlag
    state: RunState | None = None
    """None keeps no state, so a stopped run is lost."""
    keep: Keep | None = None
    """Called in the first process after each epoch, before the state is written."""
    checkpoint_seconds: float = 0.0
    """Least time between two states within an epoch."""


@dataclass(frozen=True)
class PretrainingResult:
    """The result of pretraining; the module then holds the weights of the best epoch."""

    best_val_loss: float
    best_epoch: int
    train_metrics: list[dict[str, float]]
    """Per epoch."""
    val_metrics: list[dict[str, float]]
    validation: dict[str, Errors]
    """Errors of the model and of each baseline, on the same hidden bars."""
    test: dict[str, Errors] = field(default_factory=dict)
    """The same on the test windows; empty without any."""
    seconds: float = 0.0
    """Duration of training; the parts of a resumed run are added up."""

    @property
    def evaluated(self) -> dict[str, Errors]:
        """Errors on the test split, or on validation where there is no test."""
        return self.test or self.validation

    @property
    def baselines(self) -> dict[str, Errors]:
        """Errors of the baselines on the validation windows."""
        return {name: self.validation[name] for name in BASELINES}

    @property
    def beats_baselines(self) -> bool:
        """Whether the model's loss is below that of the best baseline."""
        return self.evaluated[MODEL].loss < self.evaluated[best_baseline(self.evaluated)].loss


def pretrain(module: nn.Module, data: WindowTable, run: PretrainingRun) -> PretrainingResult:
    """Train until patience or epochs run out and load the best epoch's weights.

    Masks do not depend on the number of processes. An incomplete last batch of an epoch is skipped;
    other epochs use its windows. `module(bars, hidden)` returns all bars, reconstructed from those
    that are not hidden.

    Raises:
        StoppedEarly: if the stop flag is set; the state is kept first.
        TrainingDivergedError: at a loss that is not finite; earlier checkpoints stay.
        DataError: if training or validation has no window, or a batch has fewer than processes.
        CheckpointError: if the stored state belongs to another run.
    """
    task = MaskedReconstruction(module, data, run)
    baselines = task.baseline_errors("validation")
    if run.world.is_first:
        shown = ", ".join(f"{name} {errors.loss:.4f}" for name, errors in baselines.items())
        logger.info(f"{TITLE}: validation loss without a model: {shown}")
    metrics: dict[str, Any] = {TRAIN_METRICS: [], VAL_METRICS: []}

    def note(epoch: Epoch) -> None:
        trained = {"train_loss": epoch.terms["total_loss"], "train_batch": fit.n_batches}
        trained |= {"train_epoch": epoch.number, "train_lr": epoch.rate}
        n_blocks = -(-len(data.validation) // task.at_once)
        validated = {"val_loss": epoch.loss, "val_batch": n_blocks, "val_epoch": epoch.number}
        metrics[TRAIN_METRICS].append({**trained, "epoch_time": epoch.seconds})
        metrics[VAL_METRICS].append(validated)
        if run.keep is None or not run.world.is_first:
            return
        checkpoint = {
            "epoch": epoch.number,
            "model_state_dict": module.state_dict(),
            "optimizer_state_dict": fit.optimizer.state_dict(),
            "metrics": {**metrics[TRAIN_METRICS][-1], **validated, "lr": epoch.rate},
        }
        run.keep(checkpoint, [row["val_loss"] for row in metrics[VAL_METRICS]], epoch.is_best)

    schedule = course(run.config, run.checkpoint_seconds)
    fit = Fit(
        *(task, schedule, run.state, run.seed, run.stop, run.world), on_epoch=note, extra=metrics
    )
    fitted = fit.run()
    test: dict[str, Errors] = {}
    if len(data.test):
        test = {MODEL: task.errors("test"), **task.baseline_errors("test")}
    return PretrainingResult(
        best_val_loss=fitted.best_loss,
        best_epoch=fitted.best_epoch,
        train_metrics=metrics[TRAIN_METRICS],
        val_metrics=metrics[VAL_METRICS],
        validation={MODEL: task.errors("validation"), **baselines},
        test=test,
        seconds=sum(fitted.seconds),
    )


def course(config: PretrainingConfig, checkpoint_seconds: float) -> Schedule:
    """Return the schedule: the learning rate rises linearly, then falls as a cosine."""
    return Schedule.of(
        config,
        batch_size=config.batch_size,
        checkpoint_seconds=checkpoint_seconds,
        peak_epoch=config.warmup_epochs - 1,
        low_epoch=config.epochs - 1,
        final_share=config.final_learning_rate_share,
        min_delta=config.min_delta,
        drop_last=True,
    )


class MaskedReconstruction:
    """Task of `Fit`: rows are first rows of windows, and the loss is that of what is rebuilt.

    Validation and test windows always hide the same bars, so that their losses are comparable.

    Examples:
        As `pretrain` uses it::

            task = MaskedReconstruction(module, data, run)
            Fit(task, course(run.config, 60.0), None, run.seed, run.stop, run.world).run()
            loss = task.errors("test").loss
    """

    title = TITLE

    def __init__(self, module: nn.Module, data: WindowTable, run: PretrainingRun) -> None:
        """Draw the hidden bars of validation and test.

        Raises:
            DataError: if training or validation has no window.
        """
        for name, starts in (("training", data.train), ("validation", data.validation)):
            if not len(starts):
                raise DataError(f"{TITLE}: expected windows in the {name} split, found none")
        self.module, self.data, self.run = module, data, run
        self.train_rows = data.train
        self.connected = run.world.connect(module)
        self.counted_values = run.rebuild.count(run.rule, data.length)  # of a window
        self.at_once = min(run.config.batch_size, len(data.train))
        self.hidden = {
            split: self._masks(len(getattr(data, split)), number)
            for number, split in enumerate(EVALUATED)
        }
        """By split: which bars of each window are hidden."""

    def loss(
        self, rows: Int[Tensor, " B"], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Compute this process's part of the mean Huber loss of the values that count.

        `rows` and the masks that `generator` draws are those of all processes. The parts of all
        processes add up to the mean.
        """
        mine = self.run.world.share(len(rows))
        masks = draw_masks(self.run.rule, len(rows), self.data.length, generator)
        hidden = masks[mine].to(self.data.device)
        bars = gather(self.data.table, rows[mine], self.data.length)
        with self._precision():
            rebuilt = self.connected(bars, hidden)
        wanted = self.run.rebuild.wanted(bars, hidden)
        delta = self.run.config.huber_delta
        total = huber_sum(rebuilt.float(), wanted.values, wanted.counted, delta)
        return total / (len(rows) * self.counted_values), {}

    def validate(self) -> tuple[float, dict[str, float]]:
        """Measure the loss on the validation windows."""
        loss = self.errors("validation").loss
        return loss, {"val_loss": loss}

    def describe(self, rows: Int[Tensor, " B"]) -> str:
        """Name the windows of a batch in a message."""
        return f"windows from row {int(rows.min())} to {int(rows.max())} of the table"

    def errors(self, split: str) -> Errors:
        """Measure the module over all processes on one of `EVALUATED`, in evaluation mode.

        Several processes do not stop before the end, because their numbers of batches may differ.

        Raises:
            StoppedEarly: if the stop flag is set in a run of one process.
        """
        world, sums = self.run.world, self._sums()
        self.module.eval()
        for bars, hidden in self._blocks(split, world.share(len(self.hidden[split]))):
            with torch.no_grad(), self._precision():
                rebuilt = self.module(bars, hidden)
            wanted = self.run.rebuild.wanted(bars, hidden)
            sums.add(rebuilt, wanted.values, wanted.counted)
            if world.size == 1 and self.run.stop.is_set:
                raise StoppedEarly
        world.add_up(sums.sums)
        return sums.means()

    def baseline_errors(self, split: str) -> dict[str, Errors]:
        """Measure every baseline on one of `EVALUATED`; each process measures all windows."""
        sums = {name: self._sums() for name in BASELINES}
        for bars, hidden in self._blocks(split, slice(None)):
            wanted = self.run.rebuild.wanted(bars, hidden)
            rebuilds = baseline_rebuilds(wanted.values, wanted.unseen)
            for part, rebuilt in zip(sums.values(), rebuilds, strict=True):
                part.add(rebuilt, wanted.values, wanted.counted)
        return {name: part.means() for name, part in sums.items()}

    def _masks(self, n_windows: int, number: int) -> Bool[Tensor, "W L"]:
        # drawn on the CPU, so that every device has the same masks
        generator = torch.Generator().manual_seed(derive_seed(self.run.seed, HIDDEN_BARS, number))
        masks = draw_masks(self.run.rule, n_windows, self.data.length, generator)
        return masks.to(self.data.device)

    def _precision(self) -> AbstractContextManager[Any]:
        return precision(self.data.device, cpu_bfloat16=self.run.config.cpu_bfloat16)

    def _sums(self) -> ErrorSums:
        return ErrorSums(len(self.run.rebuild.names), self.run.config.huber_delta, self.data.device)

    def _blocks(self, split: str, mine: slice) -> Iterator[Block]:
        starts, hidden = getattr(self.data, split)[mine], self.hidden[split][mine]
        for first in range(0, len(starts), self.at_once):  # nothing, where a process has no window
            rows = slice(first, first + self.at_once)
            yield gather(self.data.table, starts[rows], self.data.length), hidden[rows]
