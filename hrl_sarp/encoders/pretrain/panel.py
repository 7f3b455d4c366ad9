"""Pretraining on the daily windows of a market's stocks: what the market gives."""

from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from hrl_sarp.config.encoder_schema import EncodersConfig, PretrainingConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.encoders.networks import EncoderKind
from hrl_sarp.encoders.pretrain.run import Prepared, mask_rule
from hrl_sarp.encoders.windows.panel import pretraining_windows, read_panel_bars
from hrl_sarp.encoders.windows.panel_features import panel_columns, panel_features
from hrl_sarp.encoders.windows.table import fit_scaler
from hrl_sarp.market.cache import assembled_market

CUTTING = {
    *("window_length", "max_missing_sessions", "stride", "warmup_bars", "val_share", "clip"),
}
"""Keys of `encoders.panel` that training depends on beside its schedule: a finished run resumed
with another `embedding_size` fits its projection anew and trains nothing."""


def prepare_panel(
    kind: EncoderKind, data_dir: Path, output: Path, config: RunConfig, *, resume: bool
) -> Prepared:
    """Load the market, rebuild its bars, compute features and cut windows; writes no encoder.

    The encoder counts as fitted on the whole training span, because selection reads its end.

    Raises:
        DataError: if the bars, or the windows cut from them, cannot be used.
        ConfigError: if no bar of a window could be hidden.
    """
    panel, ratio = config.encoders.panel, config.windowed.mask_ratio
    settings = panel_settings(kind, config.encoders)
    rule = mask_rule(settings, ratio, panel.warmup_bars, panel.window_length)
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
        features=np.clip(scaler.apply(features), -panel.clip, panel.clip),
        scaler=scaler,
        windows=windows,
        cutting={**panel.model_dump(mode="json", include=CUTTING), "mask_ratio": ratio},
        source={
            "columns": list(panel_columns(kind)),
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
