"""The loop of masked pretraining: any autoencoder, any table of bars, exact resume."""

import copy
import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from loguru import logger
from torch import Tensor, nn

from hrl_sarp.encoders.pretrain.held_out import HeldOut, precision
from hrl_sarp.encoders.pretrain.masking import draw_masks
from hrl_sarp.encoders.pretrain.reconstruction import Errors, best_baseline, huber_sum
from hrl_sarp.encoders.pretrain.run import (
    MODEL,
    PretrainingResult,
    PretrainingRun,
    learning_rate,
)
from hrl_sarp.encoders.windows.cut import gather
from hrl_sarp.encoders.windows.table import WindowTable
from hrl_sarp.errors import DataError, StoppedEarly, TrainingDivergedError
from hrl_sarp.run.checkpoints import restoring
from hrl_sarp.run.session import derive_seed
from hrl_sarp.run.terminal import PhaseBar, phase_progress

ORDER, MASKS, DROPOUT, FIXED_MASKS = range(4)
"""Roles of the seed: what each stream of draws is for."""
VALIDATION, TEST = range(2)
CUDA_LOOK_EVERY = 20
"""Batches between two looks at losses and stop signals; a look waits for the device."""


def pretrain(module: nn.Module, data: WindowTable, run: PretrainingRun) -> PretrainingResult:
    """Train until patience or epochs run out and load the best epoch's weights.

    All draws (order, masks, dropout) follow from the seed and the numbers of epoch and batch: a
    resumed run repeats them, and masks do not depend on the number of processes. Nothing is
    learned of the last, incomplete batch of an epoch; its windows come up in other epochs.

    Args:
        module: `forward(bars, hidden)` returns the bars rebuilt without the hidden ones; on the
            device of the data.
        data: bars and windows.
        run: settings, seed, processes and store.

    Raises:
        StoppedEarly: after keeping the state, if a stop was asked for.
        TrainingDivergedError: at a loss that is not finite; what was kept before stays.
        DataError: if training or validation has no window, or a batch fewer than processes.
        CheckpointError: if the stored state does not fit.
    """
    trainer = _Trainer(module, data, run)
    state = trainer.first_state()
    with trainer.bar(state) as bar:
        while trainer.goes_on(state):
            trainer.run_epoch(state, bar)
            trainer.close_epoch(state)
    module.load_state_dict(state.best_state)
    return trainer.result(state)


@dataclass
class _State:
    """Where a run stands between two batches."""

    losses: Tensor
    """Of the batches of the epoch so far: this process's parts."""
    best_state: dict[str, Tensor]
    epoch: int = 0
    batch: int = 0
    best_loss: float = math.inf
    best_epoch: int = -1
    train_metrics: list[dict[str, float]] = field(default_factory=list)
    val_metrics: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


class _Trainer:
    """The parts of `pretrain`, over one module, one table and one run."""

    def __init__(self, module: nn.Module, data: WindowTable, run: PretrainingRun) -> None:
        _require_windows(data, run)
        self.module, self.data, self.run = module, data, run
        self.batch_size = min(run.config.batch_size, len(data.train))
        self.n_batches = len(data.train) // self.batch_size
        self.look_every = CUDA_LOOK_EVERY if data.device.type == "cuda" else 1
        self.hidden_values = run.rule.count(data.length) * data.n_features  # of a window
        self.validation = self._held_out(data.validation, VALIDATION)
        self.baselines = self.validation.baseline_errors()
        self.connected = run.world.connect(module)
        self.optimizer = torch.optim.AdamW(
            module.parameters(),
            lr=run.config.learning_rate,
            weight_decay=run.config.weight_decay,
            fused=data.device.type == "cuda",
        )
        self.clock = time.perf_counter()

    def first_state(self) -> _State:
        """Return the state to train from: that of the store, else the beginning."""
        shown = ", ".join(f"{name} {errors.loss:.4f}" for name, errors in self.baselines.items())
        self._say(f"validation loss without a model: {shown}")
        store = self.run.store
        kept = store.load() if store is not None else None
        if store is None or kept is None:
            losses = torch.zeros(self.n_batches, device=self.data.device)
            return _State(losses, copy.deepcopy(self.module.state_dict()))
        with restoring(store.state_file):
            self.module.load_state_dict(kept["model_state_dict"])
            self.optimizer.load_state_dict(kept["optimizer_state_dict"])
            state = _State(**kept["progress"])
            state.losses = state.losses.to(self.data.device)
        self._say(f"continues at epoch {state.epoch}, batch {state.batch} of {self.n_batches}")
        return state

    def bar(self, state: _State) -> AbstractContextManager[PhaseBar]:
        """Return the progress bar, in batches."""
        if not self.run.world.is_first:
            return nullcontext(PhaseBar.silent())
        total = self.run.config.epochs * self.n_batches
        return phase_progress("pretraining", total, self._batches_done(state))

    def goes_on(self, state: _State) -> bool:
        """Say whether another epoch is due."""
        config = self.run.config
        without_gain = state.epoch - 1 - state.best_epoch
        return state.epoch < config.epochs and without_gain < config.patience

    def run_epoch(self, state: _State, bar: PhaseBar) -> None:
        """Train on what is left of an epoch."""
        generator = torch.Generator().manual_seed(derive_seed(self.run.seed, ORDER, state.epoch))
        order = torch.randperm(len(self.data.train), generator=generator).to(self.data.device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(state.epoch, self.run.config)
        self.connected.train()
        while state.batch < self.n_batches:
            first = state.batch * self.batch_size
            rows = self.data.train[order[first : first + self.batch_size]]
            state.losses[state.batch] = self._step(rows, state)
            state.batch += 1
            if state.batch % self.look_every == 0 or state.batch == self.n_batches:
                loss = self._look(state)
                bar.update(self._batches_done(state), f"epoch {state.epoch}, loss {loss:.4f}")

    def close_epoch(self, state: _State) -> None:
        """Validate, judge and keep an epoch."""
        errors = self._errors(self.validation, state)
        if not math.isfinite(errors.loss):
            raise TrainingDivergedError(
                f"validation loss of epoch {state.epoch} is {errors.loss}: lower the learning "
                "rate; the checkpoints of earlier epochs are kept"
            )
        is_best = errors.loss < state.best_loss - self.run.config.min_delta
        if is_best:
            state.best_loss, state.best_epoch = errors.loss, state.epoch
            state.best_state = copy.deepcopy(self.module.state_dict())
        self._note_epoch(state, errors)
        payload = self._payload(state)
        state.epoch, state.batch = state.epoch + 1, 0
        if self.run.store is not None and self.run.world.is_first:
            losses = [row["val_loss"] for row in state.val_metrics]
            self.run.store.save_epoch(payload, losses, is_best=is_best)
            self.run.store.save_latest({**payload, "progress": vars(state)})

    def result(self, state: _State) -> PretrainingResult:
        """Judge the module, now of the best epoch, beside the baselines."""
        validation = {MODEL: self._errors(self.validation, state), **self.baselines}
        test: dict[str, Errors] = {}
        if len(self.data.test):
            held_out = self._held_out(self.data.test, TEST)
            test = {MODEL: self._errors(held_out, state), **held_out.baseline_errors()}
        return PretrainingResult(
            best_val_loss=state.best_loss,
            best_epoch=state.best_epoch,
            train_metrics=state.train_metrics,
            val_metrics=state.val_metrics,
            validation=validation,
            test=test,
            seconds=state.seconds,
        )

    def _step(self, rows: Int[Tensor, " B"], state: _State) -> Float[Tensor, ""]:
        """Make one update; returns this process's part of the loss of the global batch."""
        run, data = self.run, self.data
        mine = run.world.share(len(rows))
        hidden = self._masks(len(rows), MASKS, state.epoch, state.batch)[mine].to(data.device)
        bars = gather(data.table, rows[mine], data.length)
        torch.manual_seed(derive_seed(run.seed, DROPOUT, state.epoch, state.batch, run.world.rank))
        with precision(data.device):
            rebuilt = self.connected(bars, hidden)
        total = huber_sum(rebuilt.float(), bars, hidden, run.config.huber_delta)
        loss = total / (len(rows) * self.hidden_values)
        self.optimizer.zero_grad()
        (loss * run.world.size).backward()  # gradients are averaged over processes, losses add up
        nn.utils.clip_grad_norm_(self.module.parameters(), run.config.max_grad_norm)
        self.optimizer.step()
        return loss.detach()

    def _look(self, state: _State) -> float:
        """Return the mean loss since the last look; refuse what is not finite; stop if asked."""
        first = (state.batch - 1) // self.look_every * self.look_every
        losses = state.losses[first : state.batch].tolist()
        for batch, loss in enumerate(losses, start=first):
            if not math.isfinite(loss):
                raise TrainingDivergedError(
                    f"loss of epoch {state.epoch}, batch {batch} is {loss}: lower the learning "
                    "rate, or look for values in the data that are not finite; the checkpoints "
                    "of earlier epochs are kept"
                )
        self._stop_if_asked(state)
        return sum(losses) / len(losses) * self.run.world.size

    def _stop_if_asked(self, state: _State) -> None:
        if not self.run.world.agree(is_wanted=self.run.stop.is_set):
            return
        # when all epochs are done, the module holds the best one, and the last state is kept
        if self.run.store is not None and self.run.world.is_first and self.goes_on(state):
            self._add_time(state)
            self.run.store.save_latest({**self._payload(state), "progress": vars(state)})
        raise StoppedEarly

    def _errors(self, held_out: HeldOut, state: _State) -> Errors:
        # several processes may have different numbers of batches here, and could not agree
        alone = self.run.world.size == 1
        pause = (lambda: self._stop_if_asked(state)) if alone else (lambda: None)
        return held_out.module_errors(self.module, self.run.world, pause)

    def _masks(self, n_windows: int, *role: int) -> Bool[Tensor, "B L"]:
        # drawn on the CPU: the same on every device
        generator = torch.Generator().manual_seed(derive_seed(self.run.seed, *role))
        return draw_masks(self.run.rule, n_windows, self.data.length, generator)

    def _held_out(self, starts: Int[Tensor, " W"], split: int) -> HeldOut:
        hidden = self._masks(len(starts), FIXED_MASKS, split).to(self.data.device)
        return HeldOut(self.data, starts, hidden, self.run.config.huber_delta, self.batch_size)

    def _note_epoch(self, state: _State, errors: Errors) -> None:
        epoch, spent = state.epoch, self._add_time(state)
        train_loss = float(self.run.world.add_up(state.losses.clone()).mean())
        rate = learning_rate(epoch, self.run.config)
        state.train_metrics.append(
            {
                "train_loss": train_loss,
                "train_batch": self.n_batches,
                "train_epoch": epoch,
                "train_lr": rate,
                "epoch_time": spent,
            }
        )
        n_blocks = -(-len(self.data.validation) // self.batch_size)
        row = {"val_loss": errors.loss, "val_batch": n_blocks, "val_epoch": epoch}
        state.val_metrics.append(row)
        against = best_baseline(self.baselines)
        self._say(
            f"epoch {epoch}: train loss {train_loss:.4f}, validation loss {errors.loss:.4f} "
            f"({against}: {self.baselines[against].loss:.4f}), lr {rate:.1e}, {spent:.1f} s"
            + (", best" if state.best_epoch == epoch else "")
        )

    def _payload(self, state: _State) -> dict[str, Any]:
        done = bool(state.val_metrics)
        metrics = {**state.train_metrics[-1], **state.val_metrics[-1]} if done else {}
        return {
            "epoch": state.epoch,
            "model_state_dict": self.module.state_dict(),
            "optimizer_state_dict": self.optimizer.state_dict(),
            "metrics": metrics,
        }

    def _batches_done(self, state: _State) -> int:
        return state.epoch * self.n_batches + state.batch

    def _add_time(self, state: _State) -> float:
        now = time.perf_counter()
        spent, self.clock = now - self.clock, now
        state.seconds += spent
        return spent

    def _say(self, line: str) -> None:
        if self.run.world.is_first:
            logger.info(line)


def _require_windows(data: WindowTable, run: PretrainingRun) -> None:
    for name, starts in (("training", data.train), ("validation", data.validation)):
        if not len(starts):
            raise DataError(f"pretraining: expected windows in the {name} split, found none")
    smallest = min(run.config.batch_size, len(data.train))
    if smallest < run.world.size:
        raise DataError(
            f"pretraining: a batch of {smallest} windows cannot be shared by {run.world.size} "
            "processes; start fewer processes or take larger batches"
        )
