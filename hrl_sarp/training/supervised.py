"""The loop of phases 1 and 2: epochs with early stopping, a checkpoint each, exact resume."""

import copy
import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from loguru import logger
from torch import Tensor, nn

from hrl_sarp.agents.checkpoints import require_finite
from hrl_sarp.config.schema import SupervisedConfig
from hrl_sarp.errors import StoppedEarly
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.run.checkpoints import restore_rng, restoring, rng_state
from hrl_sarp.run.terminal import phase_progress
from hrl_sarp.training.metric_log import MetricLog
from hrl_sarp.training.phase import RUNNING, PhaseContext, require_finite_weights


@runtime_checkable
class SupervisedTask(Protocol):
    """What a phase teaches: its networks, its rows and its losses."""

    number: int
    prefix: str
    """Of the metric names: `pretrain` or `pretrain_micro`."""
    tensors: MarketTensors
    networks: nn.ModuleDict
    train_rows: Tensor
    """Market rows that may be drawn."""
    generators: list[torch.Generator]
    """What its losses draw from, beside the global generators; a checkpoint holds their states."""

    def loss(self, rows: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a batch of market rows and its terms."""
        ...

    def validate(self) -> dict[str, float]:
        """Return validation measures; `val_total_loss` selects."""
        ...


@dataclass
class _Progress:
    """Where a run stands between two epochs."""

    epoch: int
    best_loss: float
    best_epoch: int
    best_state: dict[str, Tensor]
    generator: torch.Generator


def fit(
    task: SupervisedTask, config: SupervisedConfig, context: PhaseContext
) -> tuple[MetricLog, dict[str, Any]]:
    """Train until patience or epochs run out and load the best epoch's networks.

    Epoch -1 is the constant predictor that the networks start as, so a phase that learns nothing
    returns it.

    Raises:
        StoppedEarly: after writing a checkpoint, if a stop was asked for.
        TrainingDivergedError: at the first loss that is not finite.
    """
    parameters = [p for p in task.networks.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.epochs)
    running = context.load_running(task.number)
    log = MetricLog(
        context.folder(task.number), running["history"] if running is not None else None
    )
    generator = torch.Generator().manual_seed(context.config.seed)
    if running is None:
        state = _begin(task, log, generator)
    else:
        with restoring(context.folder(task.number) / RUNNING):
            state = _restore(task, running, optimizer, schedule, generator)
        logger.info(f"phase {task.number} continues after epoch {state.epoch}")
    with phase_progress(f"phase {task.number}", config.epochs, state.epoch) as bar:
        while state.epoch < config.epochs and state.epoch - state.best_epoch <= config.patience:
            if context.stop.is_set:
                raise StoppedEarly
            terms = _run_epoch(task, config, optimizer, state)
            require_finite_weights(task.number, task.networks, state.epoch)
            schedule.step()
            _close_epoch(task, terms, state, log, float(schedule.get_last_lr()[0]))
            context.save_running(
                task.number, _snapshot(task, state, optimizer, schedule, log.history)
            )
            bar.update(state.epoch)
    task.networks.load_state_dict(state.best_state)
    task.networks.eval()
    return log, {"best_epoch": state.best_epoch, "best_val_loss": state.best_loss}


def _begin(task: SupervisedTask, log: MetricLog, generator: torch.Generator) -> _Progress:
    measures = task.validate()
    log.add(-1, {f"{task.prefix}/{name}": value for name, value in measures.items()})
    first = copy.deepcopy(task.networks.state_dict())
    return _Progress(0, measures["val_total_loss"], -1, first, generator)


def _restore(
    task: SupervisedTask,
    running: dict[str, Any],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    generator: torch.Generator,
) -> _Progress:
    task.networks.load_state_dict(running["networks"])
    optimizer.load_state_dict(running["optimizer"])
    schedule.load_state_dict(running["schedule"])
    generator.set_state(running["generator"])
    for own, drawn in zip(task.generators, running["task_generators"], strict=True):
        own.set_state(drawn)
    restore_rng(running["rng"])
    best = (running["best_loss"], running["best_epoch"], running["best_state"])
    return _Progress(running["epoch"], *best, generator)


def _snapshot(
    task: SupervisedTask,
    state: _Progress,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    history: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "networks": task.networks.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "generator": state.generator.get_state(),
        "task_generators": [own.get_state() for own in task.generators],
        "rng": rng_state(),
        "epoch": state.epoch,
        "best_loss": state.best_loss,
        "best_epoch": state.best_epoch,
        "best_state": state.best_state,
        "history": history,
    }


def _run_epoch(
    task: SupervisedTask,
    config: SupervisedConfig,
    optimizer: torch.optim.Optimizer,
    state: _Progress,
) -> dict[str, float]:
    task.networks.train()
    order = torch.randperm(len(task.train_rows), generator=state.generator)
    sums: dict[str, float] = {}
    for chosen in order.split(config.batch_size):
        rows = task.train_rows[chosen]
        loss, terms = task.loss(rows)
        value = float(loss.detach())
        span = (int(rows.min()), int(rows.max()))
        require_finite(f"{task.prefix}/total_loss", value, state.epoch, span, task.tensors)
        optimizer.zero_grad()
        loss.backward()
        norm = float(nn.utils.clip_grad_norm_(task.networks.parameters(), config.max_grad_norm))
        optimizer.step()
        clipped = float(norm > config.max_grad_norm)
        terms = {**terms, "total_loss": value, "grad_norm": norm, "clipped": clipped}
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + term * len(rows)
    return {name: total / len(order) for name, total in sums.items()}


def _close_epoch(
    task: SupervisedTask, terms: dict[str, float], state: _Progress, log: MetricLog, lr: float
) -> None:
    task.networks.eval()
    measures = task.validate()
    values = {**terms, **measures, "lr": lr}
    log.add(state.epoch, {f"{task.prefix}/{name}": value for name, value in values.items()})
    loss = measures["val_total_loss"]
    if math.isfinite(loss) and loss < state.best_loss:
        state.best_loss, state.best_epoch = loss, state.epoch
        state.best_state = copy.deepcopy(task.networks.state_dict())
    shown = ", ".join(f"{name} {value:.4f}" for name, value in measures.items())
    logger.info(f"phase {task.number} epoch {state.epoch}: loss {terms['total_loss']:.4f}, {shown}")
    state.epoch += 1
