"""What runs on windows of candles share: what they depend on, how they go on, their training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from hrl_sarp.config.encoder_schema import PriceActionConfig
from hrl_sarp.config.loading import config_hash
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.fitting import Epoch, Fit, RunState, Schedule, Task, World
from hrl_sarp.price_action.buys.windows import CandleWindows
from hrl_sarp.run.files import read_json
from hrl_sarp.run.session import StopFlag, derive_seed

EVALUATED = ("validation", "test")
UPDATES, BOOTSTRAP = 1, 2
"""Roles of derived seeds, beside that of `CandleInputs`."""


class CandleTask(Task, Protocol):
    """A task on windows of candles."""

    windows: CandleWindows
    config: RunConfig
    settings: PriceActionConfig
    device: torch.device


def identity(task: CandleTask) -> dict[str, Any]:
    """Return what a resumed run must agree with."""
    bars = task.windows.bars
    return {
        "configuration": config_hash(task.config),
        "data": f"{bars.content_hash} {', '.join(bars.instruments)}",
        "seed": task.config.seed,
        "device": task.device.type,
    }


def begin(
    state: RunState, results: Path, files: Sequence[str], writer: str, *, resume: bool
) -> dict[str, Any] | None:
    """Return the results of a run that is resumed and has finished; else make room for a new one.

    Args:
        state: of the run.
        results: file that is written last.
        files: of a run, beside it; removed unless it is resumed.
        writer: command that writes the results, for messages.
        resume: whether the run goes on.

    Returns:
        None if there is something to train.
    """
    if resume and results.is_file() and not state.path.is_file():
        done: dict[str, Any] = read_json(results, writer)
        state.require_same(done, str(results))
        return done
    if not resume:
        for name in files:
            (results.parent / name).unlink(missing_ok=True)
    return None


def new_fit(
    task: CandleTask,
    stop: StopFlag,
    state: RunState | None = None,
    save: Callable[[Path], None] | None = None,
) -> Fit:
    """Prepare a training; without a `state` it writes no checkpoints.

    `save` writes the model into the folder of the run, after each epoch that is the best so far.
    """
    config, settings = task.config, task.settings
    schedule = Schedule.of(
        settings,
        batch_size=settings.batch_size,
        checkpoint_seconds=config.curriculum.checkpoint_seconds,
    )

    def keep_best(epoch: Epoch) -> None:
        if state is not None and save is not None and epoch.is_best:
            save(state.folder)

    seed, world = derive_seed(config.seed, UPDATES), World.alone(task.device)
    return Fit(task, schedule, state, seed, stop, world, on_epoch=keep_best)
