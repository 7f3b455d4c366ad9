"""Collects raw data from a named source into `data/raw`."""

from pathlib import Path
from typing import Any

from loguru import logger

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.exchange_calendar import first_sessions
from hrl_sarp.data.sources import sample, synthetic
from hrl_sarp.data.sources.files import folder
from hrl_sarp.data.sources.yahoo import download
from hrl_sarp.data.sources.yahoo.download import YahooRequest
from hrl_sarp.data.sources.yahoo.history import live_link
from hrl_sarp.data.store import read_manifest, write_raw
from hrl_sarp.errors import DataError

DEFAULT_MARKETS = {"sample": "sample", "synthetic": "synthetic", "files": "us", "yahoo": "us"}
"""Market profile of each source where the user names none."""
SOURCES = tuple(DEFAULT_MARKETS)


def collect(
    source: str,
    data_dir: Path,
    config: RunConfig,
    input_path: Path | None = None,
    macro_path: Path | None = None,
    yahoo_request: YahooRequest | None = None,
) -> dict[str, Any]:
    """Fetch from the source, replace the data in `data_dir` and return the manifest.

    Only the source `files` takes `input_path` and `macro_path`. Only `yahoo` takes `yahoo_request`.
    The cache of `yahoo` lies beside `data_dir`.
    """
    if source not in SOURCES:
        raise DataError(f"source {source!r} is unknown; expected one of {', '.join(SOURCES)}")
    if source != "files" and (input_path or macro_path):
        raise DataError(f"--input and --macro belong to the source files, found source {source}")
    if source != "yahoo" and yahoo_request is not None:
        raise DataError(
            f"--symbols, --start and --end belong to the source yahoo, found source {source}"
        )
    logger.info("collecting from the source {}", source)
    if source == "sample":
        raw = sample.load()
    elif source == "synthetic":
        section, calendar = config.data.synthetic, config.market_profile.calendar
        sessions = first_sessions(calendar, section.start, section.n_days)
        raw = synthetic.generate(section, sessions)[0]
    elif source == "files":
        if input_path is None:
            raise DataError("source files: expected --input PATH (a file or folder), found none")
        raw = folder.load(input_path, macro_path, config.data.named_tables)
    else:
        if yahoo_request is None:
            raise DataError("source yahoo: expected a request with its days, found none")
        cache_dir = data_dir.parent / "yahoo"
        raw = download.load(yahoo_request, config, cache_dir, live_link(cache_dir))
    counts = raw.bars.height, raw.bars["symbol"].n_unique(), raw.macro.height
    logger.info("{} bars of {} symbols, {} macro values", *counts)
    for note in raw.notes:
        logger.info("note: {}", note)
    logger.info("wrote {}", write_raw(raw, data_dir))
    return read_manifest(data_dir)
