"""The user's macro series: one long file, or a folder with FRED series, VIX, sector ETFs and gold.

Dates stay reference dates; release lags are applied when the series are joined to the market.
"""

from pathlib import Path

import polars as pl

from hrl_sarp.data.quality.series import REVISED
from hrl_sarp.data.sources.files.tables import (
    find_table,
    read_table,
    refuse_null_keys,
    refuse_unsorted,
)
from hrl_sarp.data.store import FINDINGS_SCHEMA, MACRO_SCHEMA, PRICE_COLUMNS
from hrl_sarp.errors import DataError, MissingArtifactError

_CLOSE_SCHEMA = pl.Schema({"date": pl.Date(), "close": pl.Float64()})
_RANGE_SCHEMA = pl.Schema({name: pl.Float64() for name in PRICE_COLUMNS if name != "close"})
_SYMBOL_CLOSE_SCHEMA = pl.Schema({"date": pl.Date(), "symbol": pl.String(), "close": pl.Float64()})


def load_macro(path: Path) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Load macro series from a file or a folder.

    Args:
        path: a file `date, series (or series_id), value`; or a folder with any of `macro`,
            `fred_series` (such files), `vix_ohlc`, `sector_etf_close`, `gold_daily`.

    Returns:
        A frame of `MACRO_SCHEMA` without nulls and revised indices, and notes for the manifest.
        The VIX close becomes VIX, sector ETFs ETF_<symbol>, gold GOLD.

    Raises:
        MissingArtifactError: if there is nothing to read.
        DataError: naming file, column, expected and found.
    """
    frames = [_read_series(path)] if path.is_file() else _read_folder(path)
    macro = pl.concat(frames).drop_nulls("value")
    if macro.filter(pl.col("series") == "VIX").is_empty():
        same_day = macro.filter(pl.col("series") == "VIXCLS")
        macro = macro.vstack(same_day.with_columns(series=pl.lit("VIX")))
    is_revised = pl.col("series").str.contains(REVISED)
    revised = macro.filter(is_revised)["series"].unique().sort()
    macro = macro.filter(~is_revised).sort("series", "date")
    refuse_unsorted(macro, "series", path)
    notes: tuple[str, ...] = ()
    if len(revised):
        notes = (f"revised macro indices left out, no vintages: {', '.join(revised)}",)
    return macro, notes


def broken_ranges(path: Path) -> pl.DataFrame:
    """Name the days on which the range of a folder's VIX or gold does not contain its prices.

    Returns:
        `FINDINGS_SCHEMA`, rule `macro_range`; the value is the open. Only closes are read, so
        nothing follows from it.
    """
    if path.is_file():
        return FINDINGS_SCHEMA.to_frame()
    names = {"VIX": "vix_ohlc", "GOLD": "gold_daily"}
    found = [(name, find_table(path, stem)) for name, stem in names.items()]
    frames = [_broken_ranges(name, table) for name, table in found if table is not None]
    return pl.concat([FINDINGS_SCHEMA.to_frame(), *frames])


def _read_folder(folder: Path) -> list[pl.DataFrame]:
    readers = {
        "macro": _read_series,
        "fred_series": _read_series,
        "vix_ohlc": _read_vix,
        "sector_etf_close": _read_sector_etfs,
        "gold_daily": _read_gold,
    }
    found = [(read, find_table(folder, stem)) for stem, read in readers.items()]
    frames = [read(path) for read, path in found if path is not None]
    if not frames:
        raise MissingArtifactError(
            f"{folder}: expected a macro file or a folder with {', '.join(readers)} as .csv or "
            ".parquet, found none"
        )
    return frames


def _read_series(path: Path) -> pl.DataFrame:
    required = pl.Schema({"date": pl.Date(), "value": pl.Float64()})
    names = pl.Schema({"series": pl.String(), "series_id": pl.String()})
    macro = read_table(path, required, names)
    if "series" not in macro.columns:
        if "series_id" not in macro.columns:
            raise DataError(f"{path}: expected a column series or series_id, found neither")
        macro = macro.rename({"series_id": "series"})
    macro = macro.select(MACRO_SCHEMA.names())
    refuse_null_keys(macro, ["date", "series"], path)
    refuse_unsorted(macro, "series", path)
    return macro


def _read_vix(path: Path) -> pl.DataFrame:
    return _as_series(read_table(path, _CLOSE_SCHEMA), pl.lit("VIX"))


def _read_sector_etfs(path: Path) -> pl.DataFrame:
    return _as_series(read_table(path, _SYMBOL_CLOSE_SCHEMA), "ETF_" + pl.col("symbol"))


def _read_gold(path: Path) -> pl.DataFrame:
    return _as_series(read_table(path, _CLOSE_SCHEMA), pl.lit("GOLD"))


def _as_series(closes: pl.DataFrame, name: pl.Expr) -> pl.DataFrame:
    return closes.with_columns(series=name, value=pl.col("close")).select(MACRO_SCHEMA.names())


def _broken_ranges(name: str, path: Path) -> pl.DataFrame:
    bars = read_table(path, _CLOSE_SCHEMA, _RANGE_SCHEMA)
    if not set(_RANGE_SCHEMA) <= set(bars.columns):
        return FINDINGS_SCHEMA.to_frame()
    above = pl.max_horizontal("open", "close") > pl.col("high")
    below = pl.min_horizontal("open", "close") < pl.col("low")
    told = pl.format("open {}, high {}, low {}, close {}; the close is read", *PRICE_COLUMNS)
    return bars.filter(above | below).select(
        symbol=pl.lit(name),
        date=pl.col("date"),
        value=pl.col("open"),
        rule=pl.lit("macro_range"),
        count=pl.lit(1, dtype=pl.Int64),
        detail=told,
    )
