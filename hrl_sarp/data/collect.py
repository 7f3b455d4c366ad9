"""Collects raw data from a named source into `data/raw`."""

from pathlib import Path
from typing import Any

import polars as pl
from loguru import logger

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.exchange_calendar import first_sessions
from hrl_sarp.data.sources import sample, synthetic
from hrl_sarp.data.sources.files import folder
from hrl_sarp.data.sources.yahoo import download
from hrl_sarp.data.sources.yahoo.download import YahooRequest
from hrl_sarp.data.sources.yahoo.history import live_link
from hrl_sarp.data.store import (
    FileReading,
    RawData,
    is_same,
    read_manifest,
    read_raw,
    write_raw,
)
from hrl_sarp.errors import DataError, HrlSarpError, MissingArtifactError, OverwriteError
from hrl_sarp.reporting.table import Table

DEFAULT_MARKETS = {"sample": "sample", "synthetic": "synthetic", "files": "us", "yahoo": "us"}
"""Market profile of each source where the user names none."""
SOURCES = tuple(DEFAULT_MARKETS)


_CURE = "--overwrite replaces them, another --data-dir keeps them"
_SHOWN = 5
"""Files and symbols that a row of `render_readings` lists."""


def check_files(
    config: RunConfig,
    input_path: Path | None,
    macro_path: Path | None,
    collected: pl.DataFrame | None = None,
) -> RawData:
    """Read the user's files as `collect` does, and write nothing.

    Args:
        config: The run's configuration; its market says how tables are named.
        input_path: The folder or file of prices.
        macro_path: Macro series; None where there are none beside the prices.
        collected: The bars that the files continue, if they do; see `folder.load`.

    Returns:
        What would be written; `readings` and `notes` say how each file was read.

    Raises:
        DataError: what `collect` refuses, and an `input_path` of None.
    """
    if input_path is None:
        raise DataError("source files: expected --input PATH (a file or folder), found none")
    profile, names = config.market_profile, config.data.named_tables
    needs_sectors = bool(profile.sectors)
    return folder.load(
        input_path,
        macro_path,
        names,
        profile.calendar,
        needs_sectors=needs_sectors,
        collected=collected,
    )


def render_readings(raw: RawData) -> Table:
    """Show what of each file was read as what: layout, columns, days, symbols."""
    alike: dict[tuple[object, ...], list[FileReading]] = {}
    for reading in raw.readings:  # a folder of downloads is one row
        alike.setdefault((reading.layout, reading.columns), []).append(reading)
    cells = []
    for same in alike.values():
        columns = ", ".join(
            theirs if theirs == ours else f"{theirs} -> {ours}" for theirs, ours in same[0].columns
        )
        symbols = sorted({symbol for reading in same for symbol in reading.symbols})
        firsts = [reading.first for reading in same if reading.first]
        lasts = [reading.last for reading in same if reading.last]
        days = f"{min(firsts)} to {max(lasts)}" if firsts else ""
        rows = f"{sum(reading.n_rows for reading in same):,}"
        files = _some([reading.file for reading in same])
        cells.append((files, same[0].layout, columns, days, rows, _some(symbols)))
    return Table(
        f"{raw.bars.height:,} bars of {raw.bars['symbol'].n_unique()} symbols, nothing written",
        ("file", "read as", "columns", "days", "rows", "symbols"),
        cells,
        text_columns=frozenset({0, 1, 2, 3, 5}),
    )


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def collect(
    source: str,
    data_dir: Path,
    config: RunConfig,
    input_path: Path | None = None,
    macro_path: Path | None = None,
    yahoo_request: YahooRequest | None = None,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Fetch from the source, write the data into `data_dir` and return the manifest.

    Only the source `files` takes `input_path` and `macro_path`. Only `yahoo` takes `yahoo_request`.
    The cache of `yahoo` lies beside `data_dir`.

    Raises:
        OverwriteError: if `data_dir` holds other data, unless `overwrite` replaces them. Damaged
            data are replaced, because no command reads them.
        DataError: if the source cannot be read, or an argument belongs to another source.
    """
    if source not in SOURCES:
        raise DataError(f"source {source!r} is unknown; expected one of {', '.join(SOURCES)}")
    if source != "files" and (input_path or macro_path):
        raise DataError(f"--input and --macro belong to the source files, found source {source}")
    if source != "yahoo" and yahoo_request is not None:
        raise DataError(
            f"--symbols, --start and --end belong to the source yahoo, found source {source}; add "
            "`--source yahoo --experiment yahoo_us` (or `yahoo_nse`), or leave them out"
        )
    if not overwrite:
        _require_source(data_dir, source)
    logger.info("collecting from the source {}", source)
    raw = _fetch(source, data_dir, config, input_path, macro_path, yahoo_request)
    counts = raw.bars.height, raw.bars["symbol"].n_unique(), raw.macro.height
    logger.info("{} bars of {} symbols, {} macro values", *counts)
    for note in raw.notes:
        logger.info("note: {}", note)
    if not overwrite:
        _require_same_data(data_dir, raw)
    logger.info("wrote {}", write_raw(raw, data_dir))
    return read_manifest(data_dir)


def _fetch(
    source: str,
    data_dir: Path,
    config: RunConfig,
    input_path: Path | None,
    macro_path: Path | None,
    yahoo_request: YahooRequest | None,
) -> RawData:
    if source == "sample":
        return sample.load()
    if source == "synthetic":
        section, calendar = config.data.synthetic, config.market_profile.calendar
        sessions = first_sessions(calendar, section.start, section.n_days)
        return synthetic.generate(section, sessions)[0]
    if source == "files":
        return check_files(config, input_path, macro_path)
    if yahoo_request is None:
        raise DataError("source yahoo: expected a request with its days, found none")
    cache_dir = data_dir.parent / "yahoo"
    return download.load(yahoo_request, config, cache_dir, live_link(cache_dir))


def _require_source(data_dir: Path, source: str) -> None:
    """Refuse data of another source at once, before anything is fetched."""
    try:
        there = read_manifest(data_dir).get("source")
    except HrlSarpError:  # none, or damaged: no command reads it
        return
    if there != source:
        raise OverwriteError(
            f"{data_dir} holds data of the source {there}, asked for is {source}: {_CURE}"
        )


def _require_same_data(data_dir: Path, raw: RawData) -> None:
    """Refuse to replace sound data by others."""
    try:
        there = read_raw(data_dir)
    except MissingArtifactError:
        return
    except HrlSarpError as damage:
        logger.warning("data that cannot be read are replaced: {}", damage)
        return
    if not is_same(there, raw):
        before, after = _in_words(there), _in_words(raw)
        told = f"{before}, these are {after}" if before != after else f"{before} with other values"
        later = ", and update-data adds new days to them" if there.source == raw.source else ""
        raise OverwriteError(f"{data_dir} holds other data of {told}: {_CURE}{later}")


def _in_words(raw: RawData) -> str:
    days = raw.bars["date"].sort().to_list()
    first, last = (str(days[0]), str(days[-1])) if days else ("no day", "no day")
    n_symbols = raw.bars["symbol"].n_unique()
    return f"{n_symbols} symbols, {first} to {last} ({raw.bars.height:,} bars)"
