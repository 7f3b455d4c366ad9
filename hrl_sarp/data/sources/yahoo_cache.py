"""Fetched histories on disk, one file per ticker, so that a second run asks for the rest only.

A file is the SHA-256 of what follows, a line end, and Parquet; written whole or not at all.
"""

import hashlib
import io
from pathlib import Path
from urllib.parse import quote

import polars as pl
from polars.exceptions import PolarsError

from hrl_sarp.data.sources.yahoo_history import HISTORY_SCHEMA
from hrl_sarp.run.files import write_bytes

SUFFIX = ".history"


class HistoryCache:
    """The histories of one span of days."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, made when the first history is kept.

        Args:
            folder: for one span only: its files do not name the days.
        """
        self.folder = folder
        self.damaged: list[str] = []
        """Tickers whose file was there but not usable, in the order they were asked for."""

    def read(self, ticker: str) -> pl.DataFrame | None:
        """Return the kept history, or None if there is none or its file is damaged."""
        path = self.path(ticker)
        if not path.is_file():
            return None
        history = _parse(path.read_bytes())
        if history is None:
            self.damaged.append(ticker)
        return history

    def keep(self, ticker: str, history: pl.DataFrame) -> None:
        """Write a history; a reader sees the old file or the new one."""
        buffer = io.BytesIO()
        history.write_parquet(buffer, compression="zstd")
        content = buffer.getvalue()
        write_bytes(self.path(ticker), _digest(content) + b"\n" + content)

    def path(self, ticker: str) -> Path:
        """Return the file of a ticker; signs such as ^, = and & are escaped."""
        return self.folder / f"{quote(ticker, safe='')}{SUFFIX}"


def _parse(stored: bytes) -> pl.DataFrame | None:
    digest, _, content = stored.partition(b"\n")
    if digest != _digest(content):
        return None
    try:
        history = pl.read_parquet(io.BytesIO(content))
    except PolarsError:  # whole, but written by something else
        return None
    return history if history.schema == HISTORY_SCHEMA else None


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
