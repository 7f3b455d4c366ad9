"""Fine-tuning as a run: a job in; a model, its tables and its measures out."""

from typing import Any

import numpy as np
import torch
from loguru import logger

from hrl_sarp.config.loading import config_hash
from hrl_sarp.price_action.expansions import tables
from hrl_sarp.price_action.expansions.files import FinetuningFolder
from hrl_sarp.price_action.expansions.job import Job, Outcome
from hrl_sarp.price_action.expansions.training import Epoch, MultiTaskTrainer
from hrl_sarp.price_action.expansions.windows import CLASSES
from hrl_sarp.run.session import StopFlag
from hrl_sarp.run.terminal import phase_progress

MEASURED = (
    "detection: spans and countdowns are functions of the bars inside the window, the expansion "
    "included; nothing here is a forecast"
)


def finetune(job: Job, stop: StopFlag) -> Outcome:
    """Train a model and judge it on groups of windows it never saw.

    Writes `best_model.pt`, six tables, a figure and `metadata.json` into the output folder. A run
    that is stopped leaves `running.pt`; resumed from it, it ends in the same weights.

    Raises:
        CheckpointError: if the run to resume does not fit.
        StoppedEarly: after a stop was asked for.
        TrainingDivergedError: at a loss that is not finite.
    """
    request = job.request
    folder = FinetuningFolder(request.output, _identity(job), request.resume)
    done = folder.finished()
    if done is not None:
        logger.info(f"{request.output} has finished already; without --resume it begins anew")
        return Outcome(done["test"], done["baselines"])
    trainer = job.trainer(stop)
    rows = folder.begin(trainer)
    view = _validation_view(job)
    _log_start(job)
    epochs = request.config.encoders.finetuning.epochs
    title = f"fine-tuning {request.variant}"
    with phase_progress(title, epochs, trainer.standing.epoch) as bar:

        def on_epoch(epoch: Epoch) -> None:
            tables.add_epoch(rows, epoch, view)
            folder.keep(trainer, rows, _model_facts(job))
            bar.update(epoch.number, f"loss {epoch.val_loss:.4f}")
            logger.info(_epoch_line(epoch))

        trainer.fit(on_epoch)
    outcome = job.judge(trainer)
    folder.finish(rows, _metadata(job, trainer, outcome))
    return outcome


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
        "threads": torch.get_num_threads(),
        "device": request.device.type,
    }


def _model_facts(job: Job) -> dict[str, Any]:
    """Return what a reader of the model's weights needs."""
    config = job.request.config
    return {
        "variant": job.request.variant,
        "tasks": list(job.model.tasks),
        "columns": list(job.variant.features),
        "scaling": job.scaler.as_plain(),
        "window_length": config.windowed.window_length,
        "sizes": config.encoders.jade.model_dump(mode="json"),
        "features": config.windowed.feature_config.model_dump(mode="json"),
        "pos_weight": job.pos_weight,
    }


def _metadata(job: Job, trainer: MultiTaskTrainer, outcome: Outcome) -> dict[str, Any]:
    windows, parts = job.windows, vars(job.split)
    report = job.pretrained and job.pretrained.report
    inside = job.targets.inside.numpy()
    return {
        "what": MEASURED,
        "test": outcome.model,
        "baselines": outcome.trivial,
        "best_epoch": trainer.standing.best_epoch,
        "epochs": trainer.standing.epoch,
        "best_val_loss": trainer.standing.best_loss,
        "parameters": sum(weights.numel() for weights in job.model.parameters()),
        "windows": {name: len(rows) for name, rows in parts.items()},
        "groups": {name: len(np.unique(windows.group[rows])) for name, rows in parts.items()},
        "classes": {
            name: int((windows.label == number).sum()) for number, name in enumerate(CLASSES)
        },
        "share_inside": float(inside.mean()),
        "pretrained_encoder": job.request.pretrained,
        "pretrained_fitted_to": job.pretrained and job.pretrained.fitted_to,
        "missing_weights": report and list(report.missing),
        "unexpected_weights": report and list(report.unexpected),
        **_model_facts(job),
    }


def _validation_view(job: Job) -> tables.View:
    parts = {"train": job.split.train, "val": job.split.validation}
    inputs = {name: job.inputs[rows] for name, rows in parts.items()}
    return tables.View(job.truth(job.split.validation).inside, inputs, job.variant.features)


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


def _epoch_line(epoch: Epoch) -> str:
    parts = ", ".join(f"{task} {loss:.4f}" for task, loss in epoch.val.items())
    train = sum(epoch.train.values())
    return f"epoch {epoch.number}: train loss {train:.4f}, val loss {epoch.val_loss:.4f} ({parts})"
