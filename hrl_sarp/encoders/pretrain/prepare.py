"""Prepares features and windows for pretraining, from a file of bars or from a market."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from loguru import logger

from hrl_sarp.config.encoder_schema import EncodersConfig, PretrainingConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.bars import read_bars
from hrl_sarp.encoders.networks import EncoderKind
from hrl_sarp.encoders.pretrain.rebuilds import Rebuild, rebuild_of
from hrl_sarp.encoders.pretrain.reconstruction import MaskRule
from hrl_sarp.encoders.windows.cut import Windows, cut_windows, fit_scaler
from hrl_sarp.encoders.windows.panel import (
    panel_columns,
    panel_features,
    pretraining_windows,
    read_panel_bars,
)
from hrl_sarp.encoders.windows.scaler import Scaler
from hrl_sarp.features.relativity import (
    load_relativity,
    pretraining_columns,
    pretraining_table,
)
from hrl_sarp.market.cache import assembled_market

FEATURES = "features"
"""Folder of cached features, beside the folders of runs, which share it."""
CUTTING = {
    *("window_length", "max_missing_sessions", "stride", "warmup_bars", "val_share", "clip"),
}
"""Keys of `encoders.panel` that must be equal in a resumed run. `embedding_size` is not among them:
a finished run with another one only fits its projection again."""


@dataclass(frozen=True)
class Prepared:
    """Checked features and windows of bars, with the settings of their pretraining."""

    kind: EncoderKind
    output: Path
    """Folder of all files that are written."""
    resume: bool
    config: RunConfig
    settings: PretrainingConfig
    """Schedule and masks."""
    rule: MaskRule
    rebuild: Rebuild
    """What the autoencoder is asked for."""
    features: Float32[np.ndarray, "N F"]
    """Scaled. Rows outside all windows may hold NaN."""
    scaler: Scaler
    windows: Windows
    cutting: dict[str, Any]
    """How windows were cut, in plain values."""
    source: dict[str, Any]
    """Entries about the data in the encoder's description: columns, span, hash, ..."""
    facts: dict[str, Any]
    """Further entries about the data in the results."""
    embedding_size: int | None = None
    """Columns of the projection that is fitted beside the encoder; None fits none."""


def prepare_bars(
    data: Path, symbol: str | None, output: Path, config: RunConfig, *, resume: bool
) -> Prepared:
    """Read bars, cut windows and compute features for Jade.

    Without a symbol all instruments are read, and no window crosses from one to another. Features
    are cached beside the output folder.

    Raises:
        DataError: if the bars, or the windows cut from them, cannot be used.
        ConfigError: if no bar of a window could be hidden, or no column holds what is rebuilt.
    """
    windowed, settings = config.windowed, config.encoders.pretraining
    length = windowed.window_length
    rule = _mask_rule(settings, windowed.mask_ratio, windowed.warmup_bars, length)
    columns = pretraining_columns(windowed.feature_config)
    rebuild = rebuild_of(settings.rebuilds, columns, windowed.warmup_bars)
    bars = read_bars(data, symbol)
    windows = cut_windows(bars.timestamps, bars.instrument, windowed)
    table = load_relativity(bars, windowed.feature_config, length, output.parent / FEATURES)
    features = pretraining_table(table, windowed.feature_config)
    scaler = fit_scaler(features, windows)
    # validation chooses the best epoch, so the encoder counts as fitted up to its end
    fitted = np.concatenate((windows.train, windows.validation))
    return Prepared(
        kind="jade",
        output=output,
        resume=resume,
        config=config,
        settings=settings,
        rule=rule,
        rebuild=rebuild,
        features=scaler.apply(features),
        scaler=scaler,
        windows=windows,
        cutting=windowed.model_dump(mode="json"),
        source={
            "columns": list(columns),
            "fitted_from": str(bars.timestamps[fitted].min()),
            "fitted_to": str(bars.timestamps[fitted + length - 1].max()),
            "data_hash": bars.content_hash,
            "symbol": symbol,
        },
        facts={"bars_excluded": bars.excluded},
    )


def prepare_panel(
    kind: EncoderKind, data_dir: Path, output: Path, config: RunConfig, *, resume: bool
) -> Prepared:
    """Load the market, rebuild its bars, compute features and cut windows.

    The encoder counts as fitted on the whole training span, because its end chooses the best epoch.

    Raises:
        DataError: if the bars, or the windows cut from them, cannot be used.
        ConfigError: if no bar of a window could be hidden, or no column holds what is rebuilt.
    """
    panel, ratio = config.encoders.panel, config.windowed.mask_ratio
    settings = panel_settings(kind, config.encoders)
    rule = _mask_rule(settings, ratio, panel.warmup_bars, panel.window_length)
    columns = panel_columns(kind, config.windowed.feature_config)
    rebuild = rebuild_of(settings.rebuilds, columns, panel.warmup_bars)
    market = assembled_market(data_dir, config)
    bars = read_panel_bars(data_dir, market, config)
    features = panel_features(kind, bars, config)
    windows = pretraining_windows(bars, np.isfinite(features).all(axis=1), market, panel)
    scaler = fit_scaler(features, windows)
    counts = ", ".join(f"{name} {count}" for name, count in windows.counts().items())
    logger.info(f"{len(bars.instruments)} stocks, windows of {windows.length} sessions: {counts}")
    train = market.split.train
    return Prepared(
        kind=kind,
        output=output,
        resume=resume,
        config=config,
        settings=settings,
        rule=rule,
        rebuild=rebuild,
        features=np.clip(scaler.apply(features), -panel.clip, panel.clip),
        scaler=scaler,
        windows=windows,
        cutting={**panel.model_dump(mode="json", include=CUTTING), "mask_ratio": ratio},
        source={
            "columns": list(columns),
            "fitted_from": str(market.dates[train.start]),
            "fitted_to": str(market.dates[train.stop - 1]),
            "data_hash": bars.content_hash,
            "market": market.name,
            "embedding_size": panel.embedding_size,
        },
        facts={"stocks": len(bars.instruments)},
        embedding_size=panel.embedding_size,
    )


def panel_settings(kind: EncoderKind, encoders: EncodersConfig) -> PretrainingConfig:
    """Return the section `encoders.pretraining` with the panel's own schedule.

    The transformer's masks are patches, because neighbours nearly reveal a single hidden candle.
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


def _mask_rule(
    settings: PretrainingConfig, ratio: float, warmup_bars: int, length: int
) -> MaskRule:
    """Return the rule for hiding bars; a ratio that hides no bar or all bars is a ConfigError."""
    rule = MaskRule(settings.mask_strategy, ratio, warmup_bars, settings.patch_bars)
    rule.count(length)
    return rule
