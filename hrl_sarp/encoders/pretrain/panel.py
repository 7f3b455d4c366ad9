"""Pretraining on the daily windows of a market's stocks: raw data in, encoder and axes out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from loguru import logger

from hrl_sarp.config.encoder_schema import EncodersConfig, PretrainingConfig
from hrl_sarp.config.loading import config_hash
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.data.bars import Bars
from hrl_sarp.encoders.embed.projection import PROJECTION, fit_projection, save_projection
from hrl_sarp.encoders.networks.kinds import EncoderKind, PanelEncoder, build_autoencoder
from hrl_sarp.encoders.pretrain.masking import MaskRule
from hrl_sarp.encoders.pretrain.results import PretrainingFolder
from hrl_sarp.encoders.pretrain.run import PretrainingResult, PretrainingRun
from hrl_sarp.encoders.pretrain.task import pretrain
from hrl_sarp.encoders.transfer import WEIGHTS, code_version, export_encoder
from hrl_sarp.encoders.windows.cut import SPLITS, Windows, gather
from hrl_sarp.encoders.windows.panel import pretraining_windows, read_panel_bars
from hrl_sarp.encoders.windows.panel_features import panel_columns, panel_features
from hrl_sarp.encoders.windows.scaler import Scaler
from hrl_sarp.encoders.windows.table import WindowTable, fit_scaler
from hrl_sarp.fitting.distributed import World
from hrl_sarp.market.cache import assembled_market
from hrl_sarp.run.files import sha256_file
from hrl_sarp.run.session import StopFlag, seed_everything

CUTTING = {
    *("window_length", "max_missing_sessions", "stride", "warmup_bars", "val_share", "clip"),
}
"""Keys of `encoders.panel` that training depends on beside its schedule: a finished run resumed
with another `embedding_size` fits its projection anew and trains nothing."""


@dataclass(frozen=True)
class PanelPretraining:
    """What a run is asked to do."""

    kind: EncoderKind
    data_dir: Path
    """`data/raw` as written by collect-data."""
    output: Path
    """Folder of all files that are written."""
    config: RunConfig
    resume: bool


@dataclass(frozen=True)
class PreparedPanel:
    """Bars as features and windows: everything that can be wrong with the data is known."""

    request: PanelPretraining
    market: Market
    bars: Bars
    windows: Windows
    features: Float32[np.ndarray, "N F"]
    """Standardised; not finite in rows that no window holds."""
    scaler: Scaler
    settings: PretrainingConfig
    rule: MaskRule


def prepare_panel(request: PanelPretraining) -> PreparedPanel:
    """Load the market, rebuild its bars, compute features and cut windows; writes no encoder.

    Raises:
        MissingArtifactError: if nothing was collected.
        DataError: if the bars, or the windows cut from them, cannot be used.
        ConfigError: if no bar of a window could be hidden.
    """
    config, panel = request.config, request.config.encoders.panel
    settings = panel_settings(request.kind, config.encoders)
    ratio = config.windowed.mask_ratio
    rule = MaskRule(settings.mask_strategy, ratio, panel.warmup_bars, settings.patch_bars)
    rule.count(panel.window_length)
    market = assembled_market(request.data_dir, config)
    bars = read_panel_bars(request.data_dir, market, config)
    features = panel_features(request.kind, bars, config)
    windows = pretraining_windows(bars, np.isfinite(features).all(axis=1), market, panel)
    scaler = fit_scaler(features, windows)
    scaled = np.clip(scaler.apply(features), -panel.clip, panel.clip)
    counts = ", ".join(f"{name} {len(getattr(windows, name))}" for name in SPLITS)
    logger.info(f"{len(bars.instruments)} stocks, windows of {windows.length} sessions: {counts}")
    return PreparedPanel(request, market, bars, windows, scaled, scaler, settings, rule)


def panel_settings(kind: EncoderKind, encoders: EncodersConfig) -> PretrainingConfig:
    """Return how an encoder is trained on a panel: `pretraining` with the panel's own schedule.

    The transformer is masked by patches: neighbours of a single hidden candle nearly tell it.
    """
    panel = encoders.panel
    changes: dict[str, Any] = {
        "epochs": panel.epochs,
        "warmup_epochs": panel.warmup_epochs,
        "batch_size": panel.batch_size,
    }
    if kind == "transformer":
        changes["mask_strategy"] = "patch"
    return encoders.pretraining.model_copy(update=changes)


def pretrain_panel(prepared: PreparedPanel, world: World, stop: StopFlag) -> PretrainingResult:
    """Pretrain on a panel and write checkpoints, results, curve, encoder and projection.

    Raises:
        StoppedEarly, TrainingDivergedError, CheckpointError: see `pretrain`.
    """
    config = prepared.request.config
    seed_everything(config.seed)
    n_features, kind = prepared.features.shape[1], prepared.request.kind
    module = build_autoencoder(kind, n_features, config.encoders).to(world.device)
    folder = _folder(prepared, world)
    table = WindowTable.place(prepared.features, prepared.windows, world.device)
    run = PretrainingRun(prepared.settings, prepared.rule, config.seed, world, stop, folder)
    result = pretrain(module, table, run)
    if world.is_first:
        encoder = module.encoder.eval()
        _write(folder, result, encoder, prepared)
        _write_projection(folder, encoder, table, config)
    return result


def pooled_embeddings(
    encoder: PanelEncoder, table: WindowTable, batch_size: int
) -> Float[np.ndarray, "W H"]:
    """Embed the training windows of a table."""
    parts = []
    with torch.inference_mode():
        for starts in table.train.split(batch_size):
            windows = gather(table.table, starts, table.length)
            parts.append(encoder.embed(windows).float().cpu().numpy())
    return np.concatenate(parts)


def _description(prepared: PreparedPanel) -> dict[str, Any]:
    """Describe the encoder; it is fitted on the whole training span: selection reads its end."""
    request, market = prepared.request, prepared.market
    config, train = request.config, market.split.train
    columns = panel_columns(request.kind)
    return {
        "kind": request.kind,
        "n_features": len(columns),
        "columns": list(columns),
        "window_length": prepared.windows.length,
        "sizes": getattr(config.encoders, request.kind).model_dump(mode="json"),
        "scaler": prepared.scaler.as_plain(),
        "fitted_from": str(market.dates[train.start]),
        "fitted_to": str(market.dates[train.stop - 1]),
        "data_hash": prepared.bars.content_hash,
        "config_hash": config_hash(config),
        "code_version": code_version(),
        "seed": config.seed,
        "market": market.name,
        "embedding_size": config.encoders.panel.embedding_size,
        "features": config.windowed.feature_config.model_dump(mode="json"),
    }


def _folder(prepared: PreparedPanel, world: World) -> PretrainingFolder:
    request, description = prepared.request, _description(prepared)
    config, settings = request.config, prepared.settings.model_dump(mode="json")
    panel = config.encoders.panel.model_dump(mode="json", include=CUTTING)
    identity = {
        "pretraining": settings,
        "panel": panel,
        "mask_ratio": config.windowed.mask_ratio,
        **{key: description[key] for key in ("kind", "sizes", "features", "market", "fitted_to")},
        "data": description["data_hash"],
        "seed": config.seed,
        "threads": config.threads,
        "processes": world.size,
        "device": world.device.type,
    }
    facts = {
        "config": settings,
        "windowed_config": panel,
        "seed": config.seed,
        "encoder": description,
    }
    top = prepared.settings.save_top_k
    return PretrainingFolder(request.output, identity, facts, top, request.resume)


def _write(
    folder: PretrainingFolder,
    result: PretrainingResult,
    encoder: PanelEncoder,
    panel: PreparedPanel,
) -> None:
    description, windows = folder.facts["encoder"], panel.windows
    facts = {
        "encoder": description,
        "columns": description["columns"],
        "stocks": len(panel.bars.instruments),
        "windows": {name: len(getattr(windows, name)) for name in SPLITS},
        "windows_dropped": windows.dropped,
        "processes": folder.identity["processes"],
        "device": folder.identity["device"],
    }
    export_encoder(folder.path, encoder, description)
    path = folder.write_results(result, facts)
    logger.info(f"wrote {path}")


def _write_projection(
    folder: PretrainingFolder, encoder: PanelEncoder, table: WindowTable, config: RunConfig
) -> None:
    panel, description = config.encoders.panel, folder.facts["encoder"]
    embeddings = pooled_embeddings(encoder, table, panel.block_windows)
    projection = fit_projection(embeddings, panel.embedding_size)
    facts = {key: description[key] for key in ("fitted_from", "fitted_to")}
    facts["encoder_hash"] = sha256_file(folder.path / WEIGHTS)
    save_projection(folder.path / PROJECTION, projection, facts)
    logger.info(
        f"{panel.embedding_size} components hold {projection.explained:.1%} of the variance of the "
        "pooled embeddings"
    )
