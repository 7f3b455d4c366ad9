"""Labelled windows with heavy-tailed walks, small models, and files of both."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.features.labels import expansion_label
from hrl_sarp.price_action.expansions.windows import CLASSES, LabelledWindows

LENGTH = 105
SMALL = {"jade": {"hidden": 8, "layers": 1}, "panel": {"embedding_size": 8}}


def small_config(**finetuning: Any) -> RunConfig:
    return load_config(overrides={"encoders": {**SMALL, "finetuning": finetuning}})


def walks(n_windows: int, seed: int) -> np.ndarray:
    """OHLC of windows without gaps; returns have the tails of 3 degrees of freedom."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(0.001 * rng.standard_t(3, (n_windows, LENGTH)), axis=1))
    opens = np.concatenate([close[:, :1], close[:, :-1]], axis=1)
    wick = 1 + 0.0005 * rng.random((2, n_windows, LENGTH))
    high, low = np.maximum(opens, close) * wick[0], np.minimum(opens, close) / wick[1]
    return np.stack([opens, high, low, close], axis=2)


def labelled(n_windows: int, seed: int = 0) -> LabelledWindows:
    """Windows with exactly one expansion, each a group of its own."""
    ohlc = walks(20 * n_windows, seed)
    label = expansion_label(ohlc, load_config().encoders.expansion)
    rows = np.flatnonzero(label.count == 1)[:n_windows]
    assert len(rows) == n_windows
    return LabelledWindows(
        window_id=tuple(f"w{row}" for row in rows),
        ohlc=ohlc[rows],
        label=label.is_retracement[rows].astype(np.int64),
        start=label.start[rows],
        end=label.end[rows],
        group=np.arange(n_windows),
        content_hash="made",
    )


def as_frame(windows: LabelledWindows) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "window_id": windows.window_id,
            "features": [window.tolist() for window in windows.ohlc],
            "label": [CLASSES[number] for number in windows.label],
            "expansion_start": windows.start,
            "expansion_end": windows.end,
            "group": windows.group,
        }
    )


def write(path: Path, windows: LabelledWindows) -> Path:
    as_frame(windows).write_parquet(path)
    return path
