"""Where the series of a training come from: files, or the stocks of a market; and their split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hrl_sarp.config.encoder_schema import ForecastersConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.encoders.windows.panel import read_panel_bars
from hrl_sarp.forecasters.series import Series, read_series, series_of
from hrl_sarp.forecasters.training.windows import (
    Split,
    choose_holdout,
    join_roots,
    split_by_time,
)
from hrl_sarp.market.cache import assembled_market
from hrl_sarp.run.trials import prices_hash

Holdout = int | Sequence[str]
PRICES = "prices"
"""Entry of an origin: hash of the prices of the market, as the trial log names it."""


@dataclass(frozen=True)
class SplitSeries:
    """The series of a training, and their split."""

    series: list[Series]
    split: Split
    origin: dict[str, Any]
    """Where they come from, in plain values."""


def from_roots(
    train_root: Path,
    val_root: Path | None,
    settings: ForecastersConfig,
    holdout: Holdout,
) -> SplitSeries:
    """Read files of bars.

    Args:
        train_root: file or folder.
        val_root: file or folder; None, or the same path, splits the training root by time.
        settings: shares of the spans, seed of the holdout.
        holdout: number or names of symbols that are left out.

    Returns:
        The series and their split.
    """
    shares = settings.train_share, settings.validation_share
    series, stops = read_series(train_root), None
    if val_root is not None and val_root.resolve() != train_root.resolve():
        series, stops = join_roots(series, read_series(val_root), shares)
    left_out = choose_holdout([one.symbol for one in series], holdout, settings.holdout_seed)
    split = split_by_time(series, shares, left_out) if stops is None else Split(*stops, left_out)
    return SplitSeries(
        series, split, {"train_root": str(train_root), "val_root": str(val_root or train_root)}
    )


def from_market(
    data_dir: Path, config: RunConfig, settings: ForecastersConfig, holdout: Holdout
) -> SplitSeries:
    """Take the daily bars of all stocks of a market.

    Training and validation lie inside the training span of the market, so that its agents may use
    the forecaster. The test is the validation span of the market; its test span is not read.

    Args:
        data_dir: folder of the collected data.
        config: of the market.
        settings: shares of the spans, seed of the holdout.
        holdout: number or names of symbols that are left out.

    Returns:
        The series and their split.
    """
    market = assembled_market(data_dir, config)
    spans, dates = market.split, market.dates.astype("datetime64[us]")
    both = settings.train_share + settings.validation_share
    train_stop = dates[round(settings.train_share / both * spans.train.stop)]
    last = dates[spans.validation.stop - 1]
    series = [_until(one, last) for one in series_of(read_panel_bars(data_dir, market, config))]
    series = [one for one in series if len(one)]
    left_out = choose_holdout([one.symbol for one in series], holdout, settings.holdout_seed)
    split = Split(train_stop, dates[spans.train.stop], left_out)
    origin = {"data_dir": str(data_dir), "market": market.name, PRICES: prices_hash(market)}
    return SplitSeries(series, split, origin)


def without_test(source: SplitSeries) -> SplitSeries:
    """Leave out the test and the symbols of the holdout, so that nothing reads them.

    Args:
        source: of a training.

    Returns:
        The bars before the end of validation, of the other symbols.
    """
    tick = np.timedelta64(1, "us")
    last = source.split.validation_stop.astype("datetime64[us]") - tick
    cut = [_until(one, last) for one in source.series if one.symbol not in source.split.holdout]
    return SplitSeries([one for one in cut if len(one)], source.split, source.origin)


def _until(one: Series, last: np.datetime64) -> Series:
    stop = int(np.searchsorted(one.timestamps, last, side="right"))
    bars = None if one.bars is None else one.bars[:stop]
    return Series(one.symbol, one.timestamps[:stop], one.target[:stop], bars)
