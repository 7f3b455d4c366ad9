"""A fine-tuning run: turns labelled windows into a model, its tables and its measures."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int
from loguru import logger

from hrl_sarp.config.encoder_schema import FinetuneVariantConfig, JadeConfig
from hrl_sarp.config.loading import config_hash
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.encoders.windows.scaler import Scaler
from hrl_sarp.errors import CheckpointError, ConfigError, HrlSarpError
from hrl_sarp.features.relativity import described
from hrl_sarp.fitting import Epoch, Fit, Fitted, RunState, Schedule, World
from hrl_sarp.price_action.expansions import tables
from hrl_sarp.price_action.expansions.measures import (
    Truth,
    likeliest_bars,
    measures,
    trivial_measures,
)
from hrl_sarp.price_action.expansions.model import JadeMultiTask, Pretrained, load_pretrained
from hrl_sarp.price_action.expansions.rules import answers
from hrl_sarp.price_action.expansions.task import (
    ExpansionTask,
    Targets,
    balanced_weight,
    make_targets,
)
from hrl_sarp.price_action.expansions.windows import (
    CLASSES,
    GroupSplit,
    LabelledWindows,
    input_columns,
    read_labelled,
    require_both_classes,
    split_by_group,
    window_features,
)
from hrl_sarp.reporting.figure import save_png
from hrl_sarp.run.checkpoints import load_payload, restoring, save_payload
from hrl_sarp.run.earlier import RUNNING
from hrl_sarp.run.files import read_json, write_json
from hrl_sarp.run.session import StopFlag, derive_seed, require_bfloat16

FIRST_WEIGHTS, SPLIT, UPDATES = range(3)
"""Roles of derived seeds."""
KIND, MODEL = "jade multitask", "model"
BEST, METADATA, FIGURE = "best_model.pt", "metadata.json", "convergence.png"
FILES = (BEST, RUNNING, METADATA, FIGURE, *(f"{name}.csv" for name in tables.COLUMNS))
"""What a run that begins anew removes."""
WRITER = "hrl-sarp finetune-encoder"
MEASURED = (
    "detection: spans and countdowns are functions of the bars inside the window, the expansion "
    "included; nothing here is a forecast"
)


@dataclass(frozen=True)
class FinetuneRequest:
    """Options of a fine-tuning run."""

    variant: str
    data: Path
    output: Path
    pretrained: Path | None
    """An export of `pretrain-encoder`; None starts from random weights."""
    is_frozen: bool
    """The encoder keeps its pretrained weights."""
    device: torch.device
    config: RunConfig
    resume: bool


@dataclass(frozen=True)
class Outcome:
    """Measures on the test windows: of the model, and of what needs no network."""

    model: dict[str, float]
    trivial: dict[str, float]
    """Of the best constant answer to each measure."""
    rules: dict[str, dict[str, float]]
    """Of each of `rules.RULES`, which may read the labels of training and validation."""
    run_bars: dict[str, int]
    """Bars that the model's `run_f1` and each rule say, chosen on labels."""


@dataclass(frozen=True)
class Job:
    """A checked model with its windows, ready for training."""

    request: FinetuneRequest
    windows: LabelledWindows
    split: GroupSplit
    model: JadeMultiTask
    inputs: Float32[np.ndarray, "W L F"]
    """Scaled inputs of the encoder."""
    scaler: Scaler
    """Scaler of the inputs."""
    targets: Targets
    pretrained: Pretrained | None

    @property
    def variant(self) -> FinetuneVariantConfig:
        """Settings of the variant in the configuration."""
        return self.request.config.encoders.finetuning.variants[self.request.variant]

    @property
    def columns(self) -> tuple[str, ...]:
        """Input columns, in order."""
        return input_columns(self.variant.features, self.request.config.windowed.feature_config)

    @property
    def pos_weight(self) -> float:
        """Weight of bars inside, in the span loss."""
        given = self.variant.span_pos_weight
        inside = self.targets.inside[torch.from_numpy(self.split.train)]
        return balanced_weight(inside) if given is None else given

    def task(self) -> ExpansionTask:
        """Put model and windows on the requested device."""
        device = self.request.device
        return ExpansionTask(
            self.model.to(device),
            torch.from_numpy(self.inputs).to(device),
            self.targets.to(device),
            self.split,
            self.request.config.encoders.finetuning,
            self.pos_weight,
            is_frozen=self.request.is_frozen,
            title=f"fine-tuning {self.request.variant}",
        )

    def evaluate(self, task: ExpansionTask) -> Outcome:
        """Measure a model on the test windows."""
        split, device = self.split, self.request.device
        _, known = task.look_at(torch.from_numpy(split.validation).to(device))
        _, found = task.look_at(torch.from_numpy(split.test).to(device))
        training, truth = self._truth(split.train), self._truth(split.test)
        run_bars = 1  # of a model that says nothing about single bars
        if known.inside is not None:
            run_bars = likeliest_bars(known.inside, self._truth(split.validation).inside)
        model, trivial = measures(found, truth, run_bars), trivial_measures(training, truth)
        taught = self.windows.rows(np.concatenate([split.train, split.validation]))
        atr_bars = self.request.config.encoders.expansion.atr_bars
        answered = answers(taught, self.windows.rows(split.test), atr_bars)
        rules = {rule: measures(said, truth, n) for rule, (said, n) in answered.items()}
        lengths = {MODEL: run_bars, **{rule: n for rule, (_, n) in answered.items()}}
        return Outcome(model, {name: trivial[name] for name in model}, rules, lengths)

    def facts(self) -> dict[str, Any]:
        """Collect the facts that are saved with the model's weights."""
        config = self.request.config
        return {
            "variant": self.request.variant,
            "tasks": list(self.model.tasks),
            "columns": list(self.columns),
            "scaling": self.scaler.as_plain(),
            "window_length": config.windowed.window_length,
            "sizes": config.encoders.jade.model_dump(mode="json"),
            "features": described(config.windowed.feature_config),
            "pos_weight": self.pos_weight,
        }

    def _truth(self, rows: Int[np.ndarray, " W"]) -> Truth:
        some = self.targets.rows(torch.from_numpy(rows))
        return Truth(some.label.numpy(), some.pointers.double().numpy(), some.inside.numpy() > 0)


def prepare(request: FinetuneRequest) -> Job:
    """Read the windows, split them by groups and make the model; writes nothing."""
    config = request.config
    settings = config.encoders.finetuning
    if request.variant not in settings.variants:
        raise ConfigError(
            f"no variant '{request.variant}': expected one of {', '.join(settings.variants)}; see "
            "encoders.finetuning.variants in encoder_config.yaml"
        )
    if request.is_frozen and request.pretrained is None:
        raise HrlSarpError(
            "--freeze-encoder keeps the encoder's weights, and random ones are no use: name a "
            "pretrained encoder with --pretrained-encoder"
        )
    windows = read_labelled(request.data, config.windowed.window_length)
    seed = derive_seed(config.seed, SPLIT)
    split = split_by_group(windows.group, settings.val_share, settings.test_share, seed)
    return assemble(request, windows, split)


def assemble(request: FinetuneRequest, windows: LabelledWindows, split: GroupSplit) -> Job:
    """Make the model and its inputs for a given split."""
    if request.config.encoders.finetuning.cpu_bfloat16:
        require_bfloat16("encoders.finetuning.cpu_bfloat16", request.device)
    require_both_classes(windows.label[split.train], "training windows")
    config = request.config
    variant = config.encoders.finetuning.variants[request.variant]
    torch.manual_seed(derive_seed(config.seed, FIRST_WEIGHTS))
    dropout, jade = config.encoders.finetuning.dropout, config.encoders.jade
    columns = input_columns(variant.features, config.windowed.feature_config)
    model = JadeMultiTask(len(columns), jade, variant.tasks, dropout)
    pretrained = None
    if request.pretrained is not None:
        pretrained = load_pretrained(request.pretrained, model.encoder, columns, jade)
    table = window_features(windows.ohlc, columns, config.windowed.feature_config)
    scaler = Scaler.fit(table[split.train])
    for place, name in enumerate(columns):
        if pretrained is not None and name in pretrained.scaling:
            scaler.mean[place], scaler.std[place] = pretrained.scaling[name]
    return Job(
        request,
        windows,
        split,
        model,
        scaler.apply(table),
        scaler,
        make_targets(windows, config.encoders.finetuning.countdown_bars),
        pretrained,
    )


def new_fit(
    job: Job,
    task: ExpansionTask,
    stop: StopFlag,
    state: RunState | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    rows: tables.Rows | None = None,
) -> Fit:
    """Prepare the training of a job."""
    config, settings = job.request.config, job.request.config.encoders.finetuning
    schedule = Schedule.of(
        settings,
        batch_size=job.variant.batch_size,
        checkpoint_seconds=config.curriculum.checkpoint_seconds,
    )
    seed, world = derive_seed(config.seed, UPDATES), World.alone(job.request.device)
    return Fit(task, schedule, state, seed, stop, world, on_epoch=on_epoch, extra=rows)


def finetune(job: Job, stop: StopFlag) -> Outcome:
    """Train a model and measure it on groups of windows that it never saw.

    Writes `best_model.pt`, six tables, a figure and `metadata.json` into the output folder. A run
    that is stopped leaves `running.pt`; resumed from it, it ends in the same weights.
    """
    request, folder = job.request, job.request.output
    state = RunState(folder, KIND, _identity(job), request.resume, option="--output")
    if request.resume and (folder / METADATA).is_file() and not state.path.is_file():
        done = read_json(folder / METADATA, WRITER)
        state.require_same(done.get("identity", {}), str(folder / METADATA))
        logger.info(f"{folder} has finished already; --overwrite begins anew")
        return Outcome(done["test"], done["baselines"], done["rules"], done["run_bars"])
    if not request.resume:
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
    _log_start(job)
    task = job.task()
    rows: tables.Rows = {name: [] for name in tables.COLUMNS}

    def on_epoch(epoch: Epoch) -> None:
        tables.add_epoch(rows, epoch, task, job.columns)
        tables.write_tables(folder, rows)
        if epoch.is_best:
            weights = {name: value.cpu() for name, value in task.module.state_dict().items()}
            best = {"epoch": epoch.number + 1, "val_loss": epoch.loss, **job.facts()}
            save_payload(folder / BEST, {"kind": KIND, "model_state_dict": weights, **best})

    fitted = new_fit(job, task, stop, state, on_epoch, rows).run()
    outcome = job.evaluate(task)
    save_png(folder / FIGURE, tables.losses_figure(rows))
    write_json(folder / METADATA, _metadata(job, fitted, outcome))
    state.finish()
    return outcome


@dataclass(frozen=True)
class Finetuned:
    """A model as it was saved, ready to be asked."""

    model: JadeMultiTask
    """Eats windows of `columns`, less `mean`, over `std`."""
    columns: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    window_length: int


def load_finetuned(path: Path) -> Finetuned:
    """Read a fine-tuned model."""
    payload = load_payload(path)
    if payload["kind"] != KIND:
        raise CheckpointError(
            f"{path}: expected a {KIND} model, found {payload['kind']}; `{WRITER}` writes one"
        )
    with restoring(path):
        columns = tuple(payload["columns"])
        sizes = JadeConfig(**payload["sizes"])
        model = JadeMultiTask(len(columns), sizes, payload["tasks"], dropout=0.0)
        model.load_state_dict(payload["model_state_dict"])
        mean, std = (tuple(payload["scaling"][name]) for name in ("mean", "std"))
        return Finetuned(model.eval(), columns, mean, std, payload["window_length"])


def _identity(job: Job) -> dict[str, Any]:
    """Return what a resumed run must share with the one that was stopped."""
    request = job.request
    return {
        "config_hash": config_hash(request.config),
        "data": job.windows.content_hash,
        "variant": request.variant,
        "pretrained": None if job.pretrained is None else job.pretrained.weights_hash,
        "is_frozen": request.is_frozen,
        "seed": request.config.seed,
        "device": request.device.type,
    }


def _metadata(job: Job, fitted: Fitted, outcome: Outcome) -> dict[str, Any]:
    windows, parts = job.windows, vars(job.split)
    report = job.pretrained and job.pretrained.report
    return {
        "what": MEASURED,
        "test": outcome.model,
        "baselines": outcome.trivial,
        "rules": outcome.rules,
        "run_bars": outcome.run_bars,
        "best_epoch": fitted.best_epoch + 1,
        "epochs": fitted.epochs,
        "best_val_loss": fitted.best_loss,
        "parameters": sum(weights.numel() for weights in job.model.parameters()),
        "windows": {name: len(rows) for name, rows in parts.items()},
        "groups": {name: len(np.unique(windows.group[rows])) for name, rows in parts.items()},
        "classes": {
            name: int((windows.label == number).sum()) for number, name in enumerate(CLASSES)
        },
        "share_inside": float(job.targets.inside.mean()),
        "pretrained_encoder": job.request.pretrained,
        "pretrained_fitted_to": job.pretrained and job.pretrained.fitted_to,
        "missing_weights": report and list(report.missing),
        "unexpected_weights": report and list(report.unexpected),
        **job.facts(),
        "identity": _identity(job),
    }


def _log_start(job: Job) -> None:
    parts = ", ".join(f"{name} {len(rows)}" for name, rows in vars(job.split).items())
    logger.info(f"{len(job.windows)} labelled windows: {parts}; span weight {job.pos_weight:.2f}")
    if job.pretrained is not None:
        missing, unexpected = job.pretrained.report.missing, job.pretrained.report.unexpected
        logger.info(
            f"encoder of {job.request.pretrained}, fitted to {job.pretrained.fitted_to}: "
            f"missing {', '.join(missing) or 'nothing'}; "
            f"unexpected {', '.join(unexpected) or 'nothing'}"
        )
