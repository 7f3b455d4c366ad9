"""A run of `train-forecaster`: from series and settings to weights, curves and a description."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger
from torch import nn

from hrl_sarp.config.encoder_schema import ForecasterModelConfig, ForecastersConfig, RatesConfig
from hrl_sarp.errors import MissingArtifactError, UsageError
from hrl_sarp.fitting import Epoch, Fit, Fitted, History, RunState, Schedule, Task, World
from hrl_sarp.fitting.schedule import one_cycle, warmup_stable_decay
from hrl_sarp.forecasters.kronos.files import load_tokenizer
from hrl_sarp.forecasters.series import content_hash
from hrl_sarp.forecasters.training.low_rank import (
    add_low_rank,
    count_trained,
    freeze_all_but,
    merge_low_rank,
)
from hrl_sarp.forecasters.training.models import KRONOS, TOKENIZER, TRAINABLE, make_task
from hrl_sarp.forecasters.training.sources import SplitSeries
from hrl_sarp.forecasters.training.tasks import VALIDATION_LOSS
from hrl_sarp.forecasters.training.windows import (
    TRAIN,
    VALIDATION,
    ForecastWindows,
    cut_forecast_windows,
)
from hrl_sarp.forecasters.weights import WEIGHTS, files_of_weights
from hrl_sarp.reporting.figure import Panel, convergence_figure, save_png
from hrl_sarp.run.files import read_json, sha256_file, sha256_plain, source_hash, write_json
from hrl_sarp.run.session import StopFlag, derive_seed

WRITER = "hrl-sarp train-forecaster"
MODEL, CHECKPOINTS, BEST = "model", "checkpoints", "best"
TOKENIZER_FOLDER = "tokenizer"
"""Folders of a run."""
DESCRIPTION, CURVE = "forecaster.json", "convergence.png"
RUNNING = "running.pt"
KEPT = (DESCRIPTION, f"{CHECKPOINTS}/{RUNNING}")
"""What only a training leaves in its folder."""
KIND = "forecaster training"
FIRST_WEIGHTS, UPDATES, LOW_RANK, TIMED = range(4)
"""Roles of derived seeds."""
CODE = ("forecasters", "fitting")
"""Folders of the package that a trained forecaster depends on."""
Watch = Callable[[Epoch, nn.Module, nn.Module | None], None]
"""Gets each epoch of the model with the module as it is then, and the tokenizer of `kronos`. A run
that is killed before the checkpoint of an epoch trains and shows it again, with the same bits."""


@dataclass(frozen=True)
class Pretrained:
    """What a training begins with, and which weights it changes."""

    weights: Path | None = None
    """Weights that are trained further; None begins from random ones."""
    tokenizer: Path | None = None
    """Tokenizer of `kronos`; None trains one first."""
    until: str | None = None
    """Time of the last bar that weights or tokenizer have seen."""
    symbols: frozenset[str] | None = frozenset()
    """Symbols that they were fitted on; None if nobody says."""
    freeze: bool = False
    """Train the last layers alone."""
    lora_rank: int | None = None
    """Rank of low-rank additions, which alone are trained; None trains all weights."""


@dataclass(frozen=True)
class TrainingRequest:
    """What a run trains, on what, and where its files go."""

    model: str
    """Key of `TRAINABLE`."""
    source: SplitSeries
    settings: ForecastersConfig
    output: Path
    """Folder of all files."""
    seed: int
    device: torch.device
    checkpoint_seconds: float
    """Least time between two checkpoints within an epoch."""
    start: Pretrained = Pretrained()
    resume: bool = False

    @property
    def of_model(self) -> ForecasterModelConfig:
        """Settings of the model."""
        return self.settings.models[self.model]  # type: ignore[index]  # checked by the command

    def windows(self) -> ForecastWindows:
        """Cut the windows of all spans."""
        most = {
            TRAIN: self.settings.train_windows,
            VALIDATION: self.settings.validation_windows,
        }
        sizes = self.of_model.context, self.of_model.horizon
        return cut_forecast_windows(self.source.series, self.source.split, *sizes, most)

    def identity(self) -> dict[str, Any]:
        """Return what a resumed run must agree with."""
        weights, tokenizer = self.start.weights, self.start.tokenizer
        given = {
            "weights": weights and weights_inside(weights),
            "tokenizer": tokenizer and tokenizer_inside(tokenizer),
        }
        return {
            "model": self.model,
            "settings": self.settings.model_dump(mode="json"),
            "data": content_hash(self.source.series),
            "split": {
                **self.source.split.stops,
                "holdout": sorted(self.source.split.holdout),
            },
            **{name: path and hash_of_weights(path) for name, path in given.items()},
            "freeze": self.start.freeze,
            "lora_rank": self.start.lora_rank,
            "seed": self.seed,
            "device": self.device.type,
        }


@dataclass(frozen=True)
class Trained:
    """A trained module, how its training went, and its windows."""

    module: nn.Module
    tokenizer: nn.Module | None
    description: dict[str, Any]
    """Content of `forecaster.json`."""


def train_forecaster(
    request: TrainingRequest, stop: StopFlag, watch: Watch | None = None
) -> Trained:
    """Train, keep the epoch that is best on validation, and write weights and description.

    A resumed run continues with the next batch and ends with the same bits. One that had finished
    is read.

    Args:
        request: model, series and settings.
        stop: flag that is checked after each batch.
        watch: is shown every epoch of the model, not those of its tokenizer; what it raises ends
            the run.

    Returns:
        The trained module.

    Raises:
        StoppedEarly: if the stop flag is set; a checkpoint is written first.
        HrlSarpError: if options, series or weights do not go together.
    """
    require_options(request)
    windows = request.windows()
    kind = TRAINABLE[request.model]
    state = RunState(
        *(request.output / CHECKPOINTS, KIND, request.identity(), request.resume),
        file=RUNNING,
        option="--output",
    )
    done = request.output / DESCRIPTION
    is_done = request.resume and done.is_file() and not state.path.is_file()
    description = read_json(done, WRITER) if is_done else {}
    # a run of other options is refused before its tokenizer is replaced
    if is_done:
        state.require_same(description["identity"], str(done))
    else:
        state.load()
    tokenizer = _tokenizer_of(request, windows, stop)
    if is_done:
        return Trained(kind.load(request.output / MODEL), tokenizer, description)
    module = _prepared_module(request, tokenizer)
    parts = module, tokenizer, windows
    task = make_task(request.model, *parts, request.device, request.of_model)

    def on_epoch(epoch: Epoch) -> None:
        _keep_best(request, task, epoch)
        if watch is not None:
            watch(epoch, task.module, tokenizer)

    fit = _new_fit(request, task, state, stop, on_epoch)
    _say_cost(task, request, fit)
    fitted = fit.run()
    merge_low_rank(module)
    kind.save(request.output / MODEL, module.cpu())
    description = _describe(request, windows, module, fitted, fit.history)
    save_png(request.output / CURVE, _curve(fit.history, fitted, task.title))
    write_json(done, description)
    state.finish()
    return Trained(module.eval(), tokenizer, description)


def hash_of_weights(path: Path) -> str:
    """Return the hash of a file of weights.

    Args:
        path: file or folder. Parts that an index names count, and so does `config.json`, which
            says how weights are read.

    Returns:
        SHA-256 as hex digits.
    """
    return sha256_plain([sha256_file(file) for file in files_of_weights(path)])


def weights_inside(path: Path) -> Path:
    """Return where the weights of a path lie.

    Args:
        path: folder of a run, which has them in `model/`, or the weights themselves.

    Returns:
        The folder or file of the weights.
    """
    return path / MODEL if (path / MODEL).is_dir() else path


def tokenizer_inside(path: Path) -> Path:
    """Return where the tokenizer of a path lies.

    Args:
        path: folder of a run of a tokenizer or of Kronos, or the tokenizer's weights themselves.

    Returns:
        The folder or file of the tokenizer's weights.
    """
    inside = path / TOKENIZER_FOLDER / MODEL
    return inside if inside.is_dir() else weights_inside(path)


def require_options(request: TrainingRequest) -> None:
    """Refuse options that do not go together, and weights that are not there.

    Args:
        request: of a training.

    Raises:
        UsageError: naming the options.
        MissingArtifactError: if weights are not there.
    """
    start = request.start
    ways = (("--freeze", start.freeze), ("--lora-rank", start.lora_rank))
    few = [name for name, given in ways if given]
    if few and request.start.weights is None:
        raise UsageError(
            f"{few[0]} keeps most weights as they are: name the trained ones with --weights"
        )
    if len(few) > 1:
        raise UsageError("--freeze trains the last layers, --lora-rank additions to all: give one")
    for path in (request.start.weights, request.start.tokenizer):
        if path is not None and not path.exists():
            raise MissingArtifactError(f"no weights at {path}; name a folder with {WEIGHTS}")
    if request.model == KRONOS and start.weights is not None and start.tokenizer is None:
        raise UsageError("--weights of kronos belong to a tokenizer: name it with --tokenizer")
    if request.start.tokenizer is not None and request.model != KRONOS:
        raise UsageError(f"--tokenizer belongs to --model {KRONOS}, found --model {request.model}")


def _tokenizer_of(
    request: TrainingRequest, windows: ForecastWindows, stop: StopFlag
) -> nn.Module | None:
    """Read the tokenizer of Kronos, or train it in a folder of the run."""
    if request.model != KRONOS:
        return None
    if request.start.tokenizer is not None:
        found = load_tokenizer(tokenizer_inside(request.start.tokenizer))
        # a run holds all that its forecasts need
        TRAINABLE[TOKENIZER].save(request.output / TOKENIZER_FOLDER / MODEL, found)
        return found
    own = tokenizer_request(request, request.output / TOKENIZER_FOLDER)
    return train_forecaster(own, stop).module


def tokenizer_request(request: TrainingRequest, output: Path) -> TrainingRequest:
    """Say how the tokenizer is trained that a training of Kronos makes for itself.

    Args:
        request: of `kronos`; its tokenizer cuts bars where the predictor does.
        output: folder of the tokenizer's run.

    Returns:
        The request. It gives the same bits whatever else differs between requests of `kronos`.
    """
    models: dict[Any, ForecasterModelConfig] = dict(request.settings.models)
    models[TOKENIZER] = models[TOKENIZER].model_copy(update={"clip": request.of_model.clip})
    settings = request.settings.model_copy(update={"models": models})
    return replace(request, model=TOKENIZER, settings=settings, output=output, start=Pretrained())


def _prepared_module(request: TrainingRequest, tokenizer: nn.Module | None) -> nn.Module:
    """Make or read the module, and choose the weights that are trained."""
    kind = TRAINABLE[request.model]
    torch.manual_seed(derive_seed(request.seed, FIRST_WEIGHTS))
    if request.start.weights is None:
        return kind.make(request.of_model.sizes, tokenizer)
    module = kind.load(request.start.weights)
    if request.start.freeze:
        freeze_all_but(module, kind.heads)
    if request.start.lora_rank is not None:
        scale, seed = request.settings.low_rank_scale, derive_seed(request.seed, LOW_RANK)
        add_low_rank(module, request.start.lora_rank, scale, seed)
    return module


def _new_fit(
    request: TrainingRequest,
    task: Task,
    state: RunState,
    stop: StopFlag,
    on_epoch: Callable[[Epoch], None],
) -> Fit:
    settings = request.of_model
    rate = settings.learning_rate if request.start.weights is None else settings.fine_tuning_rate
    schedule = Schedule(
        epochs=settings.epochs,
        patience=settings.patience,
        batch_size=settings.batch_size,
        learning_rate=rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        checkpoint_seconds=request.checkpoint_seconds,
        validate_first=request.start.weights is not None,
        betas=settings.betas,
        eps=settings.eps,
        by_update=_rates(settings.rates),
    )
    seed, world = derive_seed(request.seed, UPDATES), World.alone(request.device)
    return Fit(task, schedule, state, seed, stop, world, on_epoch=on_epoch)


def _keep_best(request: TrainingRequest, task: Task, epoch: Epoch) -> None:
    if epoch.is_best:
        merged = copy.deepcopy(task.module)
        merge_low_rank(merged)
        TRAINABLE[request.model].save(request.output / CHECKPOINTS / BEST, merged.cpu())


def _rates(rates: RatesConfig) -> Any:
    if rates.shape == "one_cycle":
        return partial(one_cycle, rising=rates.warmup, first_share=rates.last_share)
    return partial(
        warmup_stable_decay, warmup=rates.warmup, decay=rates.decay, last_share=rates.last_share
    )


def _say_cost(task: Task, request: TrainingRequest, fit: Fit) -> None:
    """Measure an update, whose gradient is thrown away, and say what all take at most."""
    rows, taken = task.train_rows[: fit.batch_size], 0.0
    for _ in range(2):  # the first one takes longer: libraries set themselves up
        generator = torch.Generator().manual_seed(derive_seed(request.seed, TIMED))
        started = time.perf_counter()
        loss, _ = task.loss(rows, generator)
        loss.backward()
        taken = time.perf_counter() - started
    task.module.zero_grad()
    seconds = taken * fit.n_batches * fit.schedule.epochs
    logger.info(
        f"{task.title}: {count_trained(task.module):,} of "
        f"{sum(weight.numel() for weight in task.module.parameters()):,} weights, "
        f"{fit.n_batches} updates an epoch: about {max(seconds / 60, 0.1):.1f} min for "
        f"{fit.schedule.epochs} epochs, less where validation stops it"
    )


def _describe(
    request: TrainingRequest,
    windows: ForecastWindows,
    module: nn.Module,
    fitted: Fitted,
    history: History,
) -> dict[str, Any]:
    chosen = np.concatenate([windows.first[TRAIN], windows.first[VALIDATION]])
    last = windows.timestamps[chosen + windows.length - 1].max()
    until, before = request.start.until, request.start.symbols
    own = frozenset(windows.symbols[i] for i in np.unique(windows.symbol[chosen]))
    folders = [request.output / MODEL]
    if request.model == KRONOS:
        folders.append(request.output / TOKENIZER_FOLDER / MODEL)
    files = [file for folder in folders for file in files_of_weights(folder)]
    return {
        "model": request.model,
        "context": windows.context,
        "horizon": windows.horizon,
        "clip": request.of_model.clip,
        "sampling": request.of_model.sampling and request.of_model.sampling.model_dump(),
        "fitted_from": str(windows.timestamps[chosen].min()),
        "fitted_to": str(last if until is None else max(last, np.datetime64(until))),
        "symbols": None if before is None else sorted(own | before),
        "holdout": sorted(request.source.split.holdout - (before or frozenset())),
        "split": request.source.split.stops,
        "source": request.source.origin,
        "seed": request.seed,
        "parameters": sum(weight.numel() for weight in module.parameters()),
        "validation_loss": fitted.best_loss,
        "best_epoch": fitted.best_epoch,
        "epochs": fitted.epochs,
        "seconds": sum(fitted.seconds),
        "windows": {span: len(rows) for span, rows in windows.first.items()},
        "weights_sha256": hash_of_weights(request.output / MODEL),
        "files": {file.relative_to(request.output).as_posix(): sha256_file(file) for file in files},
        "code_version": source_hash(*CODE),
        "identity": request.identity(),
        "history": history.rows,
    }


def _curve(history: History, fitted: Fitted, title: str) -> Any:
    epochs = [row["step"] for row in history.rows]
    curves = {
        "training": (epochs, [row.get("total_loss", math.nan) for row in history.rows]),
        "validation": (epochs, [row[VALIDATION_LOSS] for row in history.rows]),
    }
    return convergence_figure([Panel(f"{title}: loss", curves, best=fitted.best_epoch)])
