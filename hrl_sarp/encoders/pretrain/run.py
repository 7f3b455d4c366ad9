"""Runs a pretraining and writes its checkpoints, results, loss curve and encoder."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loguru import logger

from hrl_sarp.config.loading import config_hash
from hrl_sarp.encoders.networks import PanelEncoder, build_autoencoder
from hrl_sarp.encoders.networks.projection import PROJECTION, fit_projection, save_projection
from hrl_sarp.encoders.pretrain.prepare import Prepared
from hrl_sarp.encoders.pretrain.reconstruction import as_plain, best_baseline
from hrl_sarp.encoders.pretrain.task import PretrainingResult, PretrainingRun, pretrain
from hrl_sarp.encoders.transfer import CODE_FOLDERS, DESCRIPTION, WEIGHTS, export_encoder
from hrl_sarp.encoders.windows.cut import WindowTable, gather
from hrl_sarp.features.relativity import described
from hrl_sarp.fitting import RunState, World
from hrl_sarp.reporting.figure import Panel, convergence_figure, save_png
from hrl_sarp.run.checkpoints import save_payload
from hrl_sarp.run.files import link_beside, sha256_file, source_hash, write_json
from hrl_sarp.run.session import StopFlag, seed_everything

KIND = "encoder pretraining"
BEST, LATEST = "checkpoint_best.pt", "checkpoint_latest.pt"
TOP = "checkpoint_top_1.pt"
"""Link to `BEST`."""
EPOCHS = "checkpoint_epoch_*_loss_*.pt"
RESULTS, CURVE = "training_results.json", "loss_curve.png"
FILES = (BEST, TOP, LATEST, RESULTS, CURVE, WEIGHTS, DESCRIPTION)
"""What a run that begins anew removes, beside the epochs."""
IDENTIFYING = ("kind", "sizes", "features", "data_hash", "fitted_to", "symbol", "market")
"""Keys of the description that must be equal in a resumed run."""


def pretrain_encoder(prepared: Prepared, world: World, stop: StopFlag) -> PretrainingResult:
    """Pretrain an encoder and write checkpoints, results, curve and encoder.

    The folder also holds the state to resume (`checkpoint_latest.pt`), and the projection if the
    run has an `embedding_size`. A resumed run that had finished only writes its results again.
    """
    config, folder = prepared.config, prepared.output
    if world.is_first and not prepared.resume:
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        for old in folder.glob(EPOCHS):
            old.unlink()
    seed_everything(config.seed)
    n_features, n_rebuilt = prepared.features.shape[1], len(prepared.rebuild.names)
    module = build_autoencoder(prepared.kind, n_features, n_rebuilt, config.encoders)
    module = module.to(world.device)
    table = WindowTable.place(prepared.features, prepared.windows, world.device)
    description = _description(prepared)
    settings = prepared.settings.model_dump(mode="json")
    identity = {
        "pretraining": settings,
        "windows": prepared.cutting,
        **{key: description[key] for key in IDENTIFYING if key in description},
        "seed": config.seed,
        "threads": config.threads,
        "processes": world.size,
        "device": world.device.type,
    }
    said = {
        "config": settings,
        "windowed_config": prepared.cutting,
        "seed": config.seed,
        "encoder": description,
    }
    state = RunState(folder, KIND, identity, prepared.resume, file=LATEST, option="--output")
    run = PretrainingRun(
        *(prepared.settings, prepared.rule, prepared.rebuild, config.seed, world, stop, state),
        keep=partial(keep_epoch, folder, {"kind": KIND, **said}, prepared.settings.save_top_k),
        checkpoint_seconds=config.curriculum.checkpoint_seconds,
    )
    result = pretrain(module, table, run)
    if world.is_first:
        export_encoder(folder, module.encoder.eval(), description)
        if prepared.embedding_size is not None:
            _write_projection(prepared, module.encoder, table, prepared.embedding_size)
        facts = {"processes": world.size, "device": world.device.type, **prepared.facts}
        _write_results(prepared, result, {**said, **facts})
    return result


def keep_epoch(
    folder: Path,
    said: dict[str, Any],
    top_k: int,
    payload: dict[str, Any],
    val_losses: list[float],
    is_best: bool,  # noqa: FBT001 -- `Keep` is called by position
) -> None:
    """Write an epoch that is among the `top_k` best, and remove those that no longer are.

    `said` are the entries that all checkpoints share.
    """
    content = {**said, **payload}
    if is_best:
        save_payload(folder / BEST, content)
        link_beside(folder / TOP, BEST)
    ranked = sorted(range(len(val_losses)), key=lambda epoch: (val_losses[epoch], epoch))
    names = {
        epoch: f"checkpoint_epoch_{epoch}_loss_{val_losses[epoch]:.6f}.pt"
        for epoch in ranked[:top_k]
    }
    if payload["epoch"] in names:
        save_payload(folder / names[payload["epoch"]], content)
    for old in folder.glob(EPOCHS):
        if old.name not in names.values():
            old.unlink()


def loss_panel(result: PretrainingResult) -> Panel:
    """Plot training and validation loss per epoch, with the losses of the baselines."""
    epochs = range(len(result.val_metrics))
    losses = {
        "training": [row["train_loss"] for row in result.train_metrics],
        "validation": [row["val_loss"] for row in result.val_metrics],
    }
    baselines = {name: errors.loss for name, errors in result.baselines.items()}
    return Panel(
        "Rebuilding hidden bars; baselines on the validation windows",
        {name: (epochs, values) for name, values in losses.items()},
        baselines,
        result.best_epoch,
        y_label="Huber loss per value, in standard deviations",
    )


def _description(prepared: Prepared) -> dict[str, Any]:
    config = prepared.config
    return {
        "kind": prepared.kind,
        "n_features": prepared.features.shape[1],
        "window_length": prepared.windows.length,
        "sizes": getattr(config.encoders, prepared.kind).model_dump(mode="json"),
        "scaler": prepared.scaler.as_plain(),
        "config_hash": config_hash(config),
        "code_version": source_hash(*CODE_FOLDERS),
        "seed": config.seed,
        "features": described(config.windowed.feature_config),
        **prepared.source,
    }


def _write_projection(
    prepared: Prepared, encoder: PanelEncoder, table: WindowTable, size: int
) -> None:
    at_once = prepared.config.encoders.panel.block_windows
    with torch.inference_mode():
        windows = (gather(table.table, rows, table.length) for rows in table.train.split(at_once))
        pooled = [encoder.embed(bars).float().cpu().numpy() for bars in windows]
    projection = fit_projection(np.concatenate(pooled), size)
    facts = {key: prepared.source[key] for key in ("fitted_from", "fitted_to")}
    facts["encoder_hash"] = sha256_file(prepared.output / WEIGHTS)
    save_projection(prepared.output / PROJECTION, projection, facts)
    logger.info(
        f"{size} components hold {projection.explained:.1%} of the variance of the pooled "
        "embeddings"
    )


def _write_results(prepared: Prepared, result: PretrainingResult, said: dict[str, Any]) -> None:
    rebuilt, path = list(prepared.rebuild.names), prepared.output / RESULTS
    content = {
        "best_val_loss": result.best_val_loss,
        "best_epoch": result.best_epoch,
        "total_time": result.seconds,
        "train_metrics": result.train_metrics,
        "val_metrics": result.val_metrics,
        "test_metrics": as_plain(result.test, rebuilt),
        "best_epoch_val_metrics": as_plain(result.validation, rebuilt),
        "best_baseline": best_baseline(result.evaluated),
        "beats_best_baseline": result.beats_baselines,
        "columns": prepared.source["columns"],
        "windows": prepared.windows.counts(),
        "windows_dropped": prepared.windows.dropped,
        **said,
    }
    write_json(path, content)
    save_png(prepared.output / CURVE, convergence_figure([loss_panel(result)]))
    logger.info(f"wrote {path}")
