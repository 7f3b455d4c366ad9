"""Fetches one ticker of Yahoo Finance, with retries, and restores its bars as traded.

Yahoo adjusts prices, volumes and dividends by every later split, even one after the wanted end. So
a history is fetched up to now, the adjustment is undone, and then the history is cut.
"""

import contextlib
import hashlib
import io
import logging
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import polars as pl
from jaxtyping import Bool, Float
from loguru import logger
from polars.exceptions import PolarsError

from hrl_sarp.config.market_schema import YahooConfig
from hrl_sarp.data.store import BARS_SCHEMA
from hrl_sarp.errors import HrlSarpError
from hrl_sarp.run.files import write_bytes

HISTORY_SCHEMA = pl.Schema({name: kind for name, kind in BARS_SCHEMA.items() if name != "symbol"})
"""Bars of one ticker."""

_YAHOO_NAMES = {
    "open": "Open",
    "high": "High",
    "low": "Low",
    "close": "Close",
    "volume": "Volume",
    "adj_close": "Adj Close",
    "dividend": "Dividends",
    "split": "Stock Splits",
}
_PER_SHARE = ("open", "high", "low", "close", "dividend")
_JITTER = (0.5, 1.5)
"""Each wait is the exponential delay times a draw from this range, so that clients spread out."""
_NOT_FOUND = 404
_SMALLEST_VISIBLE = 0.04
"""Log ratio of a split below which an ordinary day hides it."""
_ODD_ANSWERS = (ValueError, LookupError, TypeError, AttributeError)
"""yfinance raises these on a page that is no chart (HTML, truncated JSON, missing fields)."""


class NoHistoryError(HrlSarpError):
    """Yahoo has no prices of this ticker, so a retry is useless."""


class UnreachableError(HrlSarpError):
    """No usable answer after all attempts: the network, Yahoo, its rate limit or its page."""


@dataclass(frozen=True)
class Link:
    """Access to the network, the clock and chance; tests replace all three."""

    fetch: Callable[[str, date], pd.DataFrame]
    """Ticker and first day to a daily frame up to now, in the form of `yfinance`."""
    sleep: Callable[[float], None]
    """Waits that many seconds."""
    jitter: np.random.Generator


def live_link(cache_dir: Path) -> Link:
    """Return the real link to Yahoo; yfinance keeps its cookies below `cache_dir`."""
    import yfinance  # takes a second to import, and only this source needs it

    yfinance.set_tz_cache_location(str(cache_dir / "yfinance"))
    # yfinance raises every failure, and this package reports it
    yfinance.config.debug.hide_exceptions = False
    logging.getLogger("yfinance").setLevel(logging.CRITICAL)
    return Link(fetch_history, time.sleep, np.random.default_rng())


def fetch_history(ticker: str, start: date, session: Any = None) -> pd.DataFrame:
    """Ask Yahoo once for the daily history from `start` to now.

    The frame is that of `yfinance.Ticker.history`: midnights of the exchange's time zone as index;
    Open, High, Low, Close, Volume and Dividends adjusted by later splits; Adj Close; Stock Splits
    (0 on other days). `ask` handles the errors of yfinance.
    """
    import yfinance
    from yfinance.data import YfData

    YfData.cache_get.cache_clear()  # it keeps failed answers, which a retry would get again
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="yfinance")  # deprecations, for its authors
        asked = yfinance.Ticker(ticker, session=session)
        return asked.history(start=start.isoformat(), interval="1d", auto_adjust=False)


def ask(ticker: str, start: date, link: Link, config: YahooConfig) -> pd.DataFrame:
    """Fetch a history; retry after growing waits.

    Raises NoHistoryError if Yahoo has no such ticker, and UnreachableError if every attempt failed.
    """
    from yfinance.exceptions import YFException, YFTickerMissingError

    for attempt in range(1, config.attempts + 1):
        try:
            return link.fetch(ticker, start)
        except (YFException, OSError, *_ODD_ANSWERS) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if isinstance(error, YFTickerMissingError) or status == _NOT_FOUND:
                raise NoHistoryError(f"unknown to Yahoo; {_reason(error)}") from error
            if attempt == config.attempts:
                raise UnreachableError(_reason(error)) from error
            exponential = config.first_delay_seconds * 2.0 ** (attempt - 1)
            delay = min(exponential, config.max_delay_seconds) * link.jitter.uniform(*_JITTER)
            logger.info("{}: {}; again in {:.0f} s", ticker, _reason(error), delay)
        link.sleep(delay)
    raise AssertionError("config.attempts is at least 1")


def as_traded(history: pd.DataFrame, start: date, end: date) -> pl.DataFrame:
    """Undo Yahoo's split adjustment and cut the span, both days inclusive.

    Prices and dividends are multiplied by the splits after their day. Volume is divided by them, in
    whole shares: Yahoo rounds it after a split. A split that the close shows on its day was not
    counted by Yahoo yet, so it is not undone. One that adj_close shows is counted there: adj_close
    is adjusted for splits and dividends up to the day of the download. Days after the last close
    are left out, because Yahoo does not know them yet. The result is `HISTORY_SCHEMA`, by date;
    null where Yahoo has no number.
    """
    missing = [name for name in _YAHOO_NAMES.values() if name not in history.columns]
    if missing and len(history):
        found = ", ".join(map(str, history.columns))
        raise NoHistoryError(f"expected the columns {', '.join(missing)}, found only {found}")
    if history.empty:
        raise NoHistoryError("expected prices, found none: delisted, renamed or never listed")
    history = history.sort_index()
    local = pd.DatetimeIndex(history.index).tz_localize(None)  # the exchange's own calendar day
    columns = {
        name: history[yahoo_name].to_numpy(dtype=np.float64)
        for name, yahoo_name in _YAHOO_NAMES.items()
    }
    split = columns["split"] = np.where(columns["split"] > 0.0, columns["split"], 1.0)
    counted = _product_of_later(np.where(_is_raw(columns["close"], split), 1.0, split))
    late = _product_of_later(np.where(_is_raw(columns["adj_close"], split), split, 1.0))
    for name in _PER_SHARE:
        columns[name] = columns[name] * counted
    columns["volume"] = np.round(columns["volume"] / counted)
    columns["adj_close"] = columns["adj_close"] / late
    bars = pl.DataFrame({"date": local.to_numpy().astype("datetime64[D]"), **columns})
    bars = bars.select(HISTORY_SCHEMA.names()).cast(HISTORY_SCHEMA).fill_nan(None)
    bars = bars.filter(pl.col("date").is_between(start, end)).sort("date")
    known = bars.filter(pl.col("close").is_not_null())
    if not known.is_empty():
        return bars.filter(pl.col("date") <= known["date"][-1])
    raise NoHistoryError(
        f"expected prices from {start} to {end}, found only {local[0].date()} to "
        f"{local[-1].date()}: delisted before or listed after"
    )


def _product_of_later(factors: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    return np.append(np.cumprod(factors[::-1])[::-1][1:], 1.0)


def _is_raw(
    close: Float[np.ndarray, " T"], split: Float[np.ndarray, " T"]
) -> Bool[np.ndarray, " T"]:
    """Mark the splits that Yahoo's own closes show, against its rule to divide earlier ones."""
    with np.errstate(divide="ignore", invalid="ignore"):
        move = np.log(close[1:] / close[:-1])
        size = np.log(split)
    shows = np.zeros(len(close), dtype=bool)
    shows[1:] = np.abs(move + size[1:]) <= np.abs(size[1:]) / 2
    return shows & (np.abs(size) > _SMALLEST_VISIBLE)


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


class HistoryCache:
    """The histories of one span of days on disk, so that a second run fetches only the rest.

    Each ticker has a file: a SHA-256, a line end, and the Parquet content that it belongs to.
    """

    def __init__(self, folder: Path) -> None:
        """Use a folder for one span only, because its files do not name the days."""
        self.folder = folder
        self.damaged: list[str] = []
        """Tickers whose file was damaged, in the order of reading."""

    def read(self, ticker: str) -> pl.DataFrame | None:
        """Read a kept history; None if there is none or its file is damaged."""
        path = self.path(ticker)
        if not path.is_file():
            return None
        digest, _, content = path.read_bytes().partition(b"\n")
        history = None
        if digest == _digest(content):
            with contextlib.suppress(PolarsError):  # the hash fits, but it is no Parquet
                history = pl.read_parquet(io.BytesIO(content))
        if history is not None and history.schema == HISTORY_SCHEMA:
            return history
        self.damaged.append(ticker)
        return None

    def keep(self, ticker: str, history: pl.DataFrame) -> None:
        """Write a history in one step: a reader sees the old file or the new one."""
        buffer = io.BytesIO()
        history.write_parquet(buffer, compression="zstd")
        content = buffer.getvalue()
        write_bytes(self.path(ticker), _digest(content) + b"\n" + content)

    def forget(self) -> None:
        """Remove the folder, so that whoever asks next gets what Yahoo says then."""
        if self.folder.is_dir():
            shutil.rmtree(self.folder)

    def path(self, ticker: str) -> Path:
        """Name the file of a ticker; signs such as ^, = and & are escaped."""
        return self.folder / f"{quote(ticker, safe='')}.history"


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
