"""Pretraining on a file of bars: what the file gives."""

from pathlib import Path

import numpy as np

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.bars import read_bars
from hrl_sarp.encoders.pretrain.run import Prepared, mask_rule
from hrl_sarp.encoders.windows.cut import cut_windows
from hrl_sarp.encoders.windows.table import fit_scaler
from hrl_sarp.features.relativity import PRETRAINING_COLUMNS, load_relativity

FEATURES = "features"
"""Folder beside those of runs, which share it: features of a file are computed once."""


def prepare_bars(
    data: Path, symbol: str | None, output: Path, config: RunConfig, *, resume: bool
) -> Prepared:
    """Read bars, cut windows and compute features for Jade; writes no encoder.

    Without a symbol all are taken, and no window crosses from one to another. Features are kept
    beside the output folder.

    Raises:
        DataError: if the bars, or the windows cut from them, cannot be used.
        ConfigError: if no bar of a window could be hidden.
    """
    windowed, settings = config.windowed, config.encoders.pretraining
    length = windowed.window_length
    rule = mask_rule(settings, windowed.mask_ratio, windowed.warmup_bars, length)
    bars = read_bars(data, symbol)
    windows = cut_windows(bars.timestamps, bars.instrument, windowed)
    table = load_relativity(bars, windowed.feature_config, length, output.parent / FEATURES)
    features = np.ascontiguousarray(table[:, : len(PRETRAINING_COLUMNS)])
    scaler = fit_scaler(features, windows)
    # the choice of the best epoch depends on validation, so the encoder is fitted up to its end
    fitted = np.concatenate((windows.train, windows.validation))
    return Prepared(
        kind="jade",
        output=output,
        resume=resume,
        config=config,
        settings=settings,
        rule=rule,
        features=scaler.apply(features),
        scaler=scaler,
        windows=windows,
        cutting=windowed.model_dump(mode="json"),
        source={
            "columns": list(PRETRAINING_COLUMNS),
            "fitted_from": str(bars.timestamps[fitted].min()),
            "fitted_to": str(bars.timestamps[fitted + length - 1].max()),
            "data_hash": bars.content_hash,
            "symbol": symbol,
        },
        facts={"bars_excluded": bars.excluded},
    )
