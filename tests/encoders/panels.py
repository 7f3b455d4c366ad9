"""A small market with its raw data, and encoders of its panel that train in a second."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.bars import Bars
from hrl_sarp.data.store import write_raw
from hrl_sarp.encoders.networks import EncoderKind
from hrl_sarp.encoders.pretrain.prepare import prepare_panel
from hrl_sarp.encoders.pretrain.run import pretrain_encoder
from hrl_sarp.encoders.stock_embeddings import encoder_folder
from hrl_sarp.fitting.distributed import World
from hrl_sarp.run.session import StopFlag
from tests import raw_data, tiny_runs

N_DAYS = 700
CPU = torch.device("cpu")
LENGTH = 16

SMALL_ENCODERS: Mapping[str, Any] = {
    "jade": {"hidden": 6, "layers": 1},
    "transformer": {"window_length": LENGTH, "width": 8, "heads": 2, "layers": 1, "feedforward": 8},
    "panel": {
        "window_length": LENGTH,
        "stride": 8,
        "warmup_bars": 2,
        "epochs": 1,
        "warmup_epochs": 0,
        "batch_size": 64,
        "embedding_size": 4,
        "block_windows": 64,
    },
}


def small_config(**encoders: Any) -> RunConfig:
    """Return the configuration of the small market; `encoders` are laid over `SMALL_ENCODERS`."""
    config = tiny_runs.changed(raw_data.small_config("us", N_DAYS), tiny_runs.TINY)
    config = tiny_runs.changed(config, {"encoders": dict(SMALL_ENCODERS)})
    changed: RunConfig = tiny_runs.changed(config, {"encoders": encoders})
    return changed


def write_small_data(folder: Path) -> Path:
    """Write raw data of 18 stocks with halts, a leaver and late listings."""
    data_dir = folder / "raw"
    write_raw(raw_data.random_raw(np.random.default_rng(0), N_DAYS), data_dir)
    return data_dir


def pretrain_small(kind: EncoderKind, data_dir: Path, config: RunConfig) -> Path:
    """Pretrain an encoder of the small market where `train` looks for it."""
    folder = encoder_folder(data_dir, config.market, kind)
    prepared = prepare_panel(kind, data_dir, folder, config, resume=False)
    pretrain_encoder(prepared, World.alone(CPU), StopFlag())
    return folder


def cut_off(bars: Bars, after: np.datetime64) -> Bars:
    """Return the bars up to and including a day."""
    return _rows(bars, bars.timestamps <= after)


def with_other_prices(bars: Bars, after: np.datetime64) -> Bars:
    """Change every price and volume after a day."""
    factor = np.exp(np.random.default_rng(5).normal(0.0, 0.1, len(bars)))
    factor[bars.timestamps <= after] = 1.0
    return Bars(
        timestamps=bars.timestamps,
        instrument=bars.instrument,
        instruments=bars.instruments,
        open=bars.open * factor,
        high=bars.high * factor,
        low=bars.low * factor,
        close=bars.close * factor,
        volume=None if bars.volume is None else bars.volume * factor,
        content_hash="another future",
    )


def _rows(bars: Bars, kept: np.ndarray) -> Bars:
    return Bars(
        timestamps=bars.timestamps[kept],
        instrument=bars.instrument[kept],
        instruments=bars.instruments,
        open=bars.open[kept],
        high=bars.high[kept],
        low=bars.low[kept],
        close=bars.close[kept],
        volume=None if bars.volume is None else bars.volume[kept],
        content_hash=bars.content_hash,
    )
