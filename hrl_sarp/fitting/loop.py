"""The training loop of every network that is fitted to rows of data by gradient descent."""

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from loguru import logger
from torch import Tensor, nn

from hrl_sarp.errors import DataError, StoppedEarly, TrainingDivergedError
from hrl_sarp.fitting.distributed import World
from hrl_sarp.fitting.epochs import Epoch, SlowsWeights, SummarisesTerms
from hrl_sarp.fitting.history import History
from hrl_sarp.fitting.resume import RunState, require_finite_weights
from hrl_sarp.fitting.schedule import Schedule
from hrl_sarp.run.checkpoints import require_same_threads, restoring
from hrl_sarp.run.session import StopFlag, derive_seed
from hrl_sarp.run.terminal import PhaseBar, phase_progress

ORDER, DRAWS, MODULE, VALIDATION = range(4)
"""Roles of seeds: order of the rows, draws of the task, of its module, and in `validate`."""
CUDA_LOOK_EVERY = 20
TRAINING = "train_"
"""Batches between two checks of losses and stop signals; each check waits for the device."""


@runtime_checkable
class Task(Protocol):
    """What `Fit` trains: a module, its rows and its loss.

    Examples:
        >>> isinstance(nn.Linear(1, 1), Task)  # a module alone has no rows and no loss
        False
    """

    @property
    def title(self) -> str:
        """Name in messages and on the progress bar, for example `phase 1`."""
        ...

    @property
    def module(self) -> nn.Module:
        """The module. Weights that require a gradient are trained; checkpoints hold all of it."""
        ...

    @property
    def train_rows(self) -> Tensor:
        """Numbers of the training rows, which only `loss` interprets; an epoch uses each once."""
        ...

    def loss(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Compute the mean loss of a batch.

        Args:
            rows: some of `train_rows`. All processes get the same rows, and each computes the loss
                of its `world.share(len(rows))`.
            generator: a generator on the CPU, seeded for this batch alike in every process. The
                global generator of PyTorch (dropout) has another seed in each process.

        Returns:
            The loss, with its graph, and further terms to log. Each process returns its part; the
            parts add up to the mean over the batch.
        """
        ...

    def validate(self) -> tuple[float, dict[str, float]]:
        """Measure the module, which is in evaluation mode.

        Returns:
            The loss that chooses the best epoch, and measures to log; equal in all processes.

        Raises:
            StoppedEarly: if the task checks the stop flag and it is set.
        """
        ...

    def describe(self, rows: Tensor) -> str:
        """Name rows for the error message of a run that diverges.

        Args:
            rows: some of `train_rows`.

        Returns:
            Part of a sentence, for example `market rows 3 to 90`.
        """
        ...


@dataclass(frozen=True)
class Fitted:
    """The result of a run; the module then holds the weights of the best epoch.

    Examples:
        >>> Fitted(best_epoch=1, best_loss=0.7, epochs=3, seconds=[2.5, 2.5, 2.4]).best_epoch
        1
    """

    best_epoch: int
    """-1 if no epoch was better than the untrained module."""
    best_loss: float
    epochs: int
    """Number of epochs trained."""
    seconds: list[float]
    """Duration of each epoch."""


@dataclass
class _Progress:
    """Where a run stands between two batches."""

    best_state: dict[str, Tensor]
    epoch: int = 0
    batch: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    """Sum of each term over the rows of this epoch so far."""
    gradients: dict[str, float] = field(default_factory=dict)
    best_loss: float = math.inf
    best_epoch: int = -1
    seconds: list[float] = field(default_factory=list)
    spent: float = 0.0
    """Seconds of this epoch so far."""


class Fit:
    """Trains a task with AdamW until patience or epochs run out.

    A resumed run gives the same bits. Every draw depends on the seed and the numbers of epoch and
    batch only, so a run that was killed within an epoch continues with the next batch.

    Args:
        task: module, rows and loss.
        schedule: how long and how fast to train.
        run: where checkpoints are kept; None keeps none.
        seed: seed of the order of rows and of all draws.
        stop: flag that is checked after each batch (each 20th on CUDA).
        world: the processes that train together.
        history: gets one row per epoch, and the rows of a resumed run; None makes one.
        on_epoch: called after each epoch, before its checkpoint is written.
        extra: plain values of the caller; checkpoints hold them, and a resumed run restores them.

    Raises:
        DataError: if there is no row, or a batch has fewer rows than processes.

    Examples:
        >>> class Mean:  # a task: the weight of a line goes to 3
        ...     title, module, train_rows = "mean", nn.Linear(1, 1, bias=False), torch.arange(8)
        ...
        ...     def loss(self, rows, generator):
        ...         return (self.module(torch.ones(len(rows), 1)) - 3).square().mean(), {}
        ...
        ...     def validate(self):
        ...         return abs(self.module.weight.item() - 3), {}
        ...
        ...     def describe(self, rows):
        ...         return f"rows {rows.tolist()}"
        >>> schedule = Schedule(
        ...     *(90, 90, 4), learning_rate=0.1, weight_decay=0.0, max_grad_norm=1.0,
        ...     checkpoint_seconds=60.0,
        ... )
        >>> world = World.alone(torch.device("cpu"))
        >>> Fit(Mean(), schedule, None, seed=1, stop=StopFlag(), world=world).run().best_loss < 0.1
        True
    """

    def __init__(
        self,
        task: Task,
        schedule: Schedule,
        run: RunState | None,
        seed: int,
        stop: StopFlag,
        world: World,
        *,
        history: History | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self.task, self.schedule, self.state = task, schedule, run
        self.seed, self.stop, self.world = seed, stop, world
        self.history = History() if history is None else history
        self.on_epoch, self.extra = on_epoch, {} if extra is None else extra
        n_rows = len(task.train_rows)
        if not n_rows:
            raise DataError(f"{task.title}: expected rows to train on, found none")
        self.batch_size = min(schedule.batch_size, n_rows)
        if self.batch_size < world.size:
            raise DataError(
                f"{task.title}: a batch of {self.batch_size} rows cannot be shared by {world.size} "
                "processes; start fewer processes or take larger batches"
            )
        self.n_rows = n_rows - n_rows % self.batch_size if schedule.drop_last else n_rows
        self.n_batches = -(-self.n_rows // self.batch_size)
        self.look_every = CUDA_LOOK_EVERY if world.device.type == "cuda" else 1
        self.weights = [w for w in task.module.parameters() if w.requires_grad]
        self.slow = list(task.slow_weights()) if isinstance(task, SlowsWeights) else []
        of_slow = {id(weights) for weights in self.slow}
        others = [weights for weights in self.weights if id(weights) not in of_slow]
        self.optimizer = torch.optim.AdamW(
            [{"params": part} for part in (others, self.slow) if part],
            lr=schedule.learning_rate,
            betas=schedule.betas,
            eps=schedule.eps,
            weight_decay=schedule.weight_decay,
            fused=world.device.type == "cuda",
        )
        self.progress = _Progress(copy.deepcopy(task.module.state_dict()))
        self._unseen: list[dict[str, Tensor]] = []  # terms of the batches since the last look
        self._clock = self._saved_at = time.monotonic()

    def run(self) -> Fitted:
        """Train and load the best epoch's weights.

        A resumed run that had finished trains nothing. Call `RunState.finish` when the results are
        written, because the state file stays until then.

        Returns:
            The best epoch and its loss.

        Raises:
            StoppedEarly: if the stop flag is set; a checkpoint is written first.
            TrainingDivergedError: at a loss that is not finite; earlier checkpoints stay.
            CheckpointError: if the state to resume belongs to another run.
        """
        self._begin()
        now, epochs, patience = self.progress, self.schedule.epochs, self.schedule.patience
        bar: AbstractContextManager[PhaseBar] = nullcontext(PhaseBar.silent())
        if self.world.is_first:
            total, done = epochs * self.n_batches, self._batches_done()
            bar = phase_progress(self.task.title, total, done, "batches")
        with bar as shown:
            while now.epoch < epochs and now.epoch - 1 - now.best_epoch < patience:
                self._run_epoch(shown)
                self._close_epoch()
        if now.epoch < epochs:
            best = "untrained" if now.best_epoch < 0 else f"epoch {now.best_epoch}"
            self._say(
                f"stopped early after epoch {now.epoch - 1}: no better than {best} in {patience} "
                "epochs"
            )
        self.task.module.load_state_dict(now.best_state)
        self.task.module.eval()
        return Fitted(now.best_epoch, now.best_loss, now.epoch, list(now.seconds))

    def _run_epoch(self, bar: PhaseBar) -> None:
        """Train on the remaining batches of an epoch."""
        now, batches = self.progress, self._batches()
        self.task.module.train()
        share = self._slow_share()
        while now.batch < self.n_batches:
            for group, part in zip(self.optimizer.param_groups, (1.0, share), strict=False):
                group["lr"] = part * self._rate()
            self._unseen.append(self._step(batches[now.batch]))
            now.batch += 1
            if now.batch % self.look_every and now.batch < self.n_batches:
                continue
            self._look(batches)
            bar.update(self._batches_done())
            if self.world.agree(is_wanted=self.stop.is_set):
                self._save()
                raise StoppedEarly
            if time.monotonic() - self._saved_at >= self.schedule.checkpoint_seconds:
                self._save()

    def _close_epoch(self) -> None:
        """Validate an epoch, keep its weights if they are the best, and write a checkpoint."""
        now, schedule = self.progress, self.schedule
        require_finite_weights(self.task.title, self.task.module, f"epoch {now.epoch}")
        loss, measures = self._validate()
        is_best = loss < now.best_loss - schedule.min_delta
        if is_best:
            now.best_loss, now.best_epoch = loss, now.epoch
            now.best_state = copy.deepcopy(self.task.module.state_dict())
        terms = {name: total / self.n_rows for name, total in now.sums.items()}
        if isinstance(self.task, SummarisesTerms):
            terms = self.task.summarise(terms)
        rate = self.optimizer.param_groups[0]["lr"]
        self.history.add(now.epoch, {**terms, **measures, "lr": rate})
        now.seconds.append(self._add_time())
        self._say_epoch(terms, loss, measures)
        epoch = Epoch(
            *(now.epoch, terms, loss, measures, now.gradients, rate, now.seconds[-1], is_best)
        )
        now.epoch, now.batch, now.sums, now.gradients, now.spent = now.epoch + 1, 0, {}, {}, 0.0
        if self.on_epoch is not None:
            self.on_epoch(epoch)
        self._save()

    def _begin(self) -> None:
        """Restore the run to resume, else validate the untrained module if asked to."""
        saved = None if self.state is None else self.state.load()
        if self.state is None or saved is None:
            if self.schedule.validate_first:
                self.progress.best_loss, measures = self._validate()
                self.history.add(-1, measures)
            return
        with restoring(self.state.path):
            require_same_threads(saved["threads"])
            self.task.module.load_state_dict(saved["module"])
            self.optimizer.load_state_dict(saved["optimizer"])
            kept = saved["progress"]
            self.progress = _Progress(**{name: kept[name] for name in vars(self.progress)})
            self.history.restore(saved["history"])
            self.extra.clear()
            self.extra.update(saved["extra"])
        now = self.progress
        self._say(f"continues at epoch {now.epoch}, batch {now.batch} of {self.n_batches}")

    def _slow_share(self) -> float:
        """Return the share of the rate that slow weights have in this epoch; let them wait at 0."""
        if not isinstance(self.task, SlowsWeights):
            return 1.0
        share = self.task.slow_share(self.progress.epoch)
        for weights in self.slow:
            weights.requires_grad_(share > 0.0)
        return share

    def _rate(self) -> float:
        """Return the learning rate of the next update."""
        schedule = self.schedule
        if schedule.by_update is None:
            return schedule.rate(self.progress.epoch)
        total = schedule.epochs * self.n_batches
        return schedule.learning_rate * schedule.by_update(self._batches_done(), total)

    def _batches(self) -> list[Tensor]:
        seed = derive_seed(self.seed, ORDER, self.progress.epoch)
        rows = self.task.train_rows
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        return list(rows[order.to(rows.device)][: self.n_rows].split(self.batch_size))

    def _step(self, rows: Tensor) -> dict[str, Tensor]:
        """Make one update; return this process's part of the loss and of the terms."""
        now, size = self.progress, self.world.size
        place = (now.epoch, now.batch)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, DRAWS, *place))
        self._seed_module(derive_seed(self.seed, MODULE, *place, self.world.rank))
        loss, terms = self.task.loss(rows, generator)
        self.optimizer.zero_grad()
        (loss * size).backward()
        if now.batch == 0:
            now.gradients = {
                name: float(weights.grad.norm())
                for name, weights in self.task.module.named_parameters()
                if weights.grad is not None
            }
        norm = nn.utils.clip_grad_norm_(self.weights, self.schedule.max_grad_norm)
        self.optimizer.step()
        # gradients are means over the processes, so each process reports a share of the norm
        clipped = (norm > self.schedule.max_grad_norm) / size
        seen = {"total_loss": loss, **terms, "grad_norm": norm / size, "clipped": clipped}
        return {name: value.detach() for name, value in seen.items()}

    def _look(self, batches: list[Tensor]) -> float:
        """Add up the terms of the batches since the last look; return their mean loss.

        The sums go over all processes, so all of them see the same divergence.
        """
        now, names, device = self.progress, list(self._unseen[0]), self.world.device
        stacked = [
            torch.stack([value.double().to(device) for value in terms.values()])
            for terms in self._unseen
        ]
        values = self.world.add_up(torch.stack(stacked)).tolist()
        rows = batches[now.batch - len(values) : now.batch]
        for place, (terms, batch) in enumerate(zip(values, rows, strict=True)):
            if not math.isfinite(terms[0]):
                raise TrainingDivergedError(
                    f"{self.task.title}: loss is {terms[0]} at epoch {now.epoch}, batch "
                    f"{now.batch - len(rows) + place}, of {self.task.describe(batch)}: lower the "
                    "learning rate or look at this data; the last good checkpoint is kept"
                )
            for name, value in zip(names, terms, strict=True):
                now.sums[name] = now.sums.get(name, 0.0) + value * len(batch)
        self._unseen.clear()
        return float(sum(terms[0] for terms in values) / len(values))

    def _validate(self) -> tuple[float, dict[str, float]]:
        self.task.module.eval()
        self._seed_module(derive_seed(self.seed, VALIDATION, self.progress.epoch))
        try:
            loss, measures = self.task.validate()
        except StoppedEarly:
            if self.progress.batch:  # at batch 0 no training is lost, so a run begins anew
                self._save()
            raise
        if not math.isfinite(loss):
            raise TrainingDivergedError(
                f"{self.task.title}: validation loss is {loss} at epoch {self.progress.epoch}: "
                "lower the learning rate or look at the validation data; the last good checkpoint "
                "is kept"
            )
        return loss, measures

    def _seed_module(self, seed: int) -> None:
        # torch.manual_seed is slow: without CUDA it formats a stack trace in each call
        torch.default_generator.manual_seed(seed)
        if self.world.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        self._add_time()
        if self.state is None or not self.world.is_first:
            return
        title, now = self.task.title, self.progress
        require_finite_weights(title, self.task.module, f"epoch {now.epoch}, batch {now.batch}")
        self.state.save(
            {
                "module": self.task.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "progress": vars(now),
                "threads": torch.get_num_threads(),
                "history": self.history.rows,
                "extra": self.extra,
            }
        )

    def _batches_done(self) -> int:
        return self.progress.epoch * self.n_batches + self.progress.batch

    def _add_time(self) -> float:
        """Add the seconds since the last call; return those of this epoch so far."""
        now = time.monotonic()
        self.progress.spent += now - self._clock
        self._clock = now
        return self.progress.spent

    def _say_epoch(self, terms: dict[str, float], loss: float, measures: dict[str, float]) -> None:
        """Show the losses; the log file has all measures. Untrained weights may be the best."""
        now = self.progress
        best = f"best {now.best_loss:.3g} at {now.best_epoch}"
        if now.best_epoch < 0:
            best = f"untrained {now.best_loss:.3g}"
        self._say(
            f"epoch {now.epoch}, loss {terms['total_loss']:.3g}, validation {loss:.3g}, {best}"
        )
        trained = {name: value for name, value in terms.items() if name.startswith(TRAINING)}
        said = {**trained, **measures}.items()
        if self.world.is_first:
            logger.debug(", ".join(f"{name} {value:.4f}" for name, value in said))

    def _say(self, line: str) -> None:
        if self.world.is_first:
            logger.info(f"{self.task.title}: {line}")
