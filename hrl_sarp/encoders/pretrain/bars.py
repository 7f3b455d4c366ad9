"""Pretraining on a file of bars: from the file to the exported encoder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from loguru import logger
from torch import nn

from hrl_sarp.config.loading import config_hash
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.bars import Bars, read_bars
from hrl_sarp.encoders.networks.jade import JadeMaskedAutoencoder
from hrl_sarp.encoders.pretrain.masking import MaskRule
from hrl_sarp.encoders.pretrain.results import PretrainingFolder
from hrl_sarp.encoders.pretrain.run import PretrainingResult, PretrainingRun
from hrl_sarp.encoders.pretrain.task import pretrain
from hrl_sarp.encoders.transfer import code_version, export_encoder
from hrl_sarp.encoders.windows.cut import SPLITS, Windows, cut_windows
from hrl_sarp.encoders.windows.scaler import Scaler
from hrl_sarp.encoders.windows.table import WindowTable, fit_scaler
from hrl_sarp.features.relativity import PRETRAINING_COLUMNS, load_relativity
from hrl_sarp.fitting.distributed import World
from hrl_sarp.run.session import StopFlag, seed_everything

JADE = "jade"
FEATURES = "features"
"""Folder beside those of runs, which share it: features of a file are computed once."""


@dataclass(frozen=True)
class BarPretraining:
    """What a run is asked to do."""

    data: Path
    """File of bars."""
    symbol: str | None
    """Of the file; None takes all, and no window crosses from one to another."""
    output: Path
    """Folder of all files that are written."""
    config: RunConfig
    resume: bool


@dataclass(frozen=True)
class PreparedBars:
    """Bars as features and windows: everything that can be wrong with the data is known."""

    request: BarPretraining
    bars: Bars
    windows: Windows
    features: Float32[np.ndarray, "N F"]
    """The columns `PRETRAINING_COLUMNS`."""
    rule: MaskRule


def prepare(request: BarPretraining) -> PreparedBars:
    """Read bars, cut windows and compute features, which are kept beside the output folder.

    Raises:
        MissingArtifactError: if there is no such file.
        DataError: if the bars, or the windows cut from them, cannot be used.
        ConfigError: if no bar of a window could be hidden.
        StorageError: if the features cannot be kept.
    """
    windowed, settings = request.config.windowed, request.config.encoders.pretraining
    rule = MaskRule(
        settings.mask_strategy, windowed.mask_ratio, windowed.warmup_bars, settings.patch_bars
    )
    rule.count(windowed.window_length)
    bars = read_bars(request.data, request.symbol)
    windows = cut_windows(bars.timestamps, bars.instrument, windowed)
    folder = request.output.parent / FEATURES
    features = load_relativity(bars, windowed.feature_config, windowed.window_length, folder)
    chosen = np.ascontiguousarray(features[:, : len(PRETRAINING_COLUMNS)])
    return PreparedBars(request, bars, windows, chosen, rule)


def pretrain_jade(prepared: PreparedBars, world: World, stop: StopFlag) -> PretrainingResult:
    """Pretrain Jade and write checkpoints, results, curve and encoder.

    Raises:
        StoppedEarly, TrainingDivergedError, CheckpointError: see `pretrain`.
    """
    config = prepared.request.config
    scaler = fit_scaler(prepared.features, prepared.windows)
    scaled = scaler.apply(prepared.features)
    table = WindowTable.place(scaled, prepared.windows, world.device)
    seed_everything(config.seed)
    module = JadeMaskedAutoencoder(table.n_features, config.encoders.jade).to(world.device)
    folder = _folder(prepared.request, _description(prepared, scaler), world)
    settings = config.encoders.pretraining
    run = PretrainingRun(settings, prepared.rule, config.seed, world, stop, folder)
    result = pretrain(module, table, run)
    if world.is_first:
        _write(folder, result, module, prepared)
    return result


def _description(prepared: PreparedBars, scaler: Scaler) -> dict[str, Any]:
    """Describe the encoder.

    The choice of the best epoch depends on validation, so it is fitted up to its last bar.
    """
    config, windows = prepared.request.config, prepared.windows
    times = prepared.bars.timestamps
    fitted = np.concatenate((windows.train, windows.validation))
    return {
        "kind": JADE,
        "n_features": len(PRETRAINING_COLUMNS),
        "columns": list(PRETRAINING_COLUMNS),
        "window_length": windows.length,
        "sizes": config.encoders.jade.model_dump(mode="json"),
        "scaler": scaler.as_plain(),
        "fitted_from": str(times[fitted].min()),
        "fitted_to": str(times[fitted + windows.length - 1].max()),
        "data_hash": prepared.bars.content_hash,
        "config_hash": config_hash(config),
        "code_version": code_version(),
        "seed": config.seed,
        "symbol": prepared.request.symbol,
        "features": config.windowed.feature_config.model_dump(mode="json"),
    }


def _folder(
    request: BarPretraining, description: dict[str, Any], world: World
) -> PretrainingFolder:
    config = request.config
    settings = config.encoders.pretraining.model_dump(mode="json")
    windowed = config.windowed.model_dump(mode="json")
    identity = {
        "pretraining": settings,
        "windowed": windowed,
        "jade": description["sizes"],
        "data": description["data_hash"],
        "symbol": request.symbol,
        "seed": config.seed,
        "threads": config.threads,
        "processes": world.size,
        "device": world.device.type,
    }
    facts = {
        "config": settings,
        "windowed_config": windowed,
        "seed": config.seed,
        "encoder": description,
    }
    return PretrainingFolder(
        request.output, identity, facts, config.encoders.pretraining.save_top_k, request.resume
    )


def _write(
    folder: PretrainingFolder, result: PretrainingResult, module: nn.Module, prepared: PreparedBars
) -> None:
    description, windows = folder.facts["encoder"], prepared.windows
    facts = {
        "encoder": description,
        "columns": description["columns"],
        "windows": {name: len(getattr(windows, name)) for name in SPLITS},
        "windows_dropped": windows.dropped,
        "bars_excluded": prepared.bars.excluded,
        "processes": folder.identity["processes"],
        "device": folder.identity["device"],
    }
    export_encoder(folder.path, module.get_submodule("encoder"), description)
    path = folder.write_results(result, facts)
    logger.info(f"wrote {path}")
