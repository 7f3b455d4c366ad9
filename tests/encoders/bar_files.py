"""A file of bars, and a configuration under which Jade trains on it in seconds."""

from pathlib import Path

import numpy as np
import polars as pl

START = np.datetime64("2018-01-01T00:00", "us")
N_BARS = 6000
"""One-minute bars: 4 days and 4 hours."""
CONFIG = """
window_length: 20
stride: 20
warmup_bars: 4
mask_ratio: 0.25
max_missing_bars: 5
splits: {train_end: 2018-01-02, val_end: 2018-01-03, test_end: 2018-01-04}
gates: {min_windows: 20, max_mask_ratio: 0.25, min_valid_ratio: 0.8}
threads: 1
encoders:
  jade: {hidden: 8}
  panel: {embedding_size: 16}   # no more than two directions of 8
  pretraining: {epochs: 3, warmup_epochs: 1, batch_size: 32, learning_rate: 5.0e-3}
"""
"""Training: 2 days of 1,440 bars, 144 windows; validation and test: a day less a window, 71."""


def write_bars(folder: Path, symbols: tuple[str, ...] = ("X",)) -> Path:
    """Write random walks; the names of the columns are those of the data that are documented."""
    rng = np.random.default_rng(3)
    frames = []
    for symbol in symbols:
        close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, N_BARS)))
        opening = np.concatenate(([100.0], close[:-1]))
        spread = 1 + np.abs(rng.normal(0, 5e-4, (2, N_BARS)))
        frames.append(
            pl.DataFrame(
                {
                    "ts": START + 60_000_000 * np.arange(N_BARS),
                    "symbol": [symbol] * N_BARS,
                    "open": opening,
                    "high": np.maximum(opening, close) * spread[0],
                    "low": np.minimum(opening, close) / spread[1],
                    "close": close,
                }
            )
        )
    path = folder / "bars.parquet"
    pl.concat(frames).write_parquet(path)
    return path


def write_config(folder: Path, min_windows: int = 20) -> Path:
    """Write the small configuration as a user's own file."""
    path = folder / "small.yaml"
    text = CONFIG.replace("min_windows: 20", f"min_windows: {min_windows}")
    path.write_text(text, encoding="utf-8")
    return path
