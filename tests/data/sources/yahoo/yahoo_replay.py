"""Answers of Yahoo's chart endpoint, replayed below yfinance: no test of the source has a network.

`ReplayingSession` stands where yfinance expects an HTTP session, so yfinance itself parses the
JSON and what the source gets has the form that this version of yfinance gives it.
"""

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import requests

from hrl_sarp.data.sources.yahoo.history import Link, fetch_history

RECORDED = Path(__file__).parent
NOT_FOUND = {
    "chart": {
        "result": None,
        "error": {"code": "Not Found", "description": "No data found, symbol may be delisted"},
    }
}
Script = dict[str, list[Any]]
"""By ticker, what its requests get in turn (payload, status or error); the last one stays."""


class ReplayingSession(requests.Session):
    """Answers chart requests from payloads, after the scripted failures of a ticker."""

    def __init__(self, payloads: dict[str, Any], script: Script | None = None) -> None:
        super().__init__()
        self.payloads, self.script = payloads, script or {}
        self.charts: list[str] = []
        """Tickers whose history was asked for, in order, failed requests included."""

    def get(self, url: str | bytes, **asked: Any) -> requests.Response:
        path = urlsplit(str(url)).path
        if "/v8/finance/chart/" not in path:
            # cookies, crumbs and company pages: the chart needs none of them
            return _response(str(url), 404, "")
        ticker = unquote(path.rsplit("/", 1)[1])
        # yfinance first asks for one day, to learn the time zone: not a request for the history
        if asked["params"].get("range") == "1d":
            return self._answer(str(url), self.payloads.get(ticker, NOT_FOUND))
        self.charts.append(ticker)
        turns = self.script.get(ticker, [])
        turn = turns.pop(0) if turns else self.payloads.get(ticker, NOT_FOUND)
        if isinstance(turn, BaseException):
            raise turn
        return self._answer(str(url), turn)

    def _answer(self, url: str, turn: Any) -> requests.Response:
        if isinstance(turn, int):
            return _response(url, turn, "Edge: Too Many Requests")
        if isinstance(turn, str):
            return _response(url, 200, turn)
        return _response(url, 200 if turn["chart"]["result"] else 404, json.dumps(turn))


def _response(url: str, status: int, body: str) -> requests.Response:
    response = requests.Response()
    response.status_code, response.url = status, url
    response._content, response.encoding = body.encode(), "utf-8"
    return response


def replay_link(session: ReplayingSession, sleeps: list[float]) -> Link:
    """Return a link that replays and notes what it would have slept."""
    fetch = partial(fetch_history, session=session)
    return Link(fetch, sleeps.append, np.random.default_rng(0))


def chart(
    ticker: str,
    rows: Iterable[tuple[date, float, float, float, float, float, int]],
    splits: dict[date, tuple[int, int]] | None = None,
    dividends: dict[date, float] | None = None,
    zone: tuple[str, float] = ("America/New_York", 14.5),
) -> dict[str, Any]:
    """Build the endpoint's JSON.

    Args:
        ticker: as Yahoo spells it.
        rows: date, open, high, low, close, adjusted close and volume.
        splits: numerator and denominator by date.
        dividends: cash by date, divided by later splits as Yahoo does.
        zone: the exchange's time zone and the hour (UTC) that its bars are stamped with.
    """
    name, hour = zone
    table = [*rows]
    events: dict[str, Any] = {}
    if splits:
        events["splits"] = {
            str(_stamp(day, hour)): {
                "date": _stamp(day, hour),
                "numerator": float(new),
                "denominator": float(old),
                "splitRatio": f"{new}:{old}",
            }
            for day, (new, old) in splits.items()
        }
    if dividends:
        events["dividends"] = {
            str(_stamp(day, hour)): {"amount": cash, "date": _stamp(day, hour)}
            for day, cash in dividends.items()
        }
    columns = [list(column) for column in zip(*table, strict=True)] or [[] for _ in range(7)]
    keys = ("open", "high", "low", "close")
    result = {
        "meta": {
            "currency": "USD",
            "symbol": ticker,
            "instrumentType": "INDEX" if ticker.startswith("^") else "EQUITY",
            "exchangeTimezoneName": name,
            "regularMarketPrice": columns[4][-1] if table else None,
            "priceHint": 2,
            "currentTradingPeriod": {
                kind: {"timezone": "EST", "start": 0, "end": 1, "gmtoffset": -18000}
                for kind in ("pre", "regular", "post")
            },
            "dataGranularity": "1d",
            "range": "",
            "validRanges": ["1d", "5d", "1mo", "1y", "5y", "10y", "ytd", "max"],
        },
        "timestamp": [_stamp(day, hour) for day in columns[0]],
        "events": events,
        "indicators": {
            "quote": [dict(zip((*keys, "volume"), [*columns[1:5], columns[6]], strict=True))],
            "adjclose": [{"adjclose": columns[5]}],
        },
    }
    return {"chart": {"result": [result], "error": None}}


def plain_chart(
    ticker: str, n_days: int = 10, level: float = 100.0, **given: Any
) -> dict[str, Any]:
    """Build a chart of weekdays from 2 January 2023, the close rising by 1 a day."""
    days = np.busday_offset(date(2023, 1, 2), np.arange(n_days)).tolist()
    rows = [
        (day, level + n, level + n + 2, level + n - 1, level + n + 1, level + n + 1, 1000 + n)
        for n, day in enumerate(days)
    ]
    return chart(ticker, rows, **given)


def _stamp(day: date, hour: float) -> int:
    midnight = datetime.combine(day, time(), tzinfo=UTC)
    return int((midnight + timedelta(hours=hour)).timestamp())
