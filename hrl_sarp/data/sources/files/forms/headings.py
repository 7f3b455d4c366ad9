"""The one table of headings: how sources call the columns that this package reads.

Headings are compared by their letters and digits alone, so case, blanks, dots, underscores,
brackets, accents and numbering ("1. open") do not count. A heading that is not listed here is never
read, whatever its place.
"""

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

HEADINGS: Mapping[str, tuple[str, ...]] = {
    "date": (
        "date",
        "ts",
        "ts_local",
        "ts_event",
        "timestamp",
        "timestamps",
        "datetime",
        "date_time",
        "date1",
        "trade_date",
        "trading_date",
        "exchange_date",
        "dtyyyymmdd",
        "yyyymmdd",
        "ymd",
        "observation_date",
        "datadate",
        "caldt",
        "dlycaldt",
        "day",
        "open_time",
        "window_start",
        "gmt_time",
        "local_time",
        "time",
        "unix",
        "unixtime",
        "unix_timestamp",
        "datum",
        "日期",
        "fecha",
        "ex_date",
        "dates",
        "trad_dt",
        "snapped_at",
        "dt",
        "t",
        "交易日期",
        "日付",
        "日付け",
        "날짜",
        "일자",
        "data",
        "дата",
        "tarih",
        "fecha_hora",
    ),
    "time": ("time",),
    "symbol": (
        "symbol",
        "ticker",
        "tic",
        "act_symbol",
        "stock_symbol",
        "ts_code",
        "stock_code",
        "security_code",
        "instrument",
        "stock",
        "code",
        "股票代码",
        "permno",
        "name",
        "symbole",
        "simbolo",
        "kurzel",
        "代码",
        "证券代码",
        "コード",
        "종목코드",
        "tckr_symb",
    ),
    "contract": ("contract",),
    "instrument_id": ("instrument_id",),
    "open": (
        "open",
        "open_price",
        "opening_price",
        "px_open",
        "openprc",
        "dlyopen",
        "prcod",
        "first",
        "erster",
        "eroffnung",
        "eroffnungskurs",
        "apertura",
        "ouverture",
        "开盘",
        "o",
        "eroffn",
        "ouv",
        "abertura",
        "otwarcie",
        "откр",
        "открытие",
        "acilis",
        "开盘价",
        "今开",
        "始値",
        "시가",
        "opn_pric",
    ),
    "high": (
        "high",
        "high_price",
        "px_high",
        "askhi",
        "dlyhigh",
        "prchd",
        "max",
        "hoch",
        "tageshoch",
        "maximo",
        "haut",
        "plus_haut",
        "最高",
        "h",
        "massimo",
        "maxima",
        "maximum",
        "hoog",
        "najwyzszy",
        "макс",
        "максимум",
        "yuksek",
        "最高价",
        "高",
        "高値",
        "고가",
        "hgh_pric",
    ),
    "low": (
        "low",
        "low_price",
        "px_low",
        "bidlo",
        "dlylow",
        "prcld",
        "min",
        "tief",
        "tagestief",
        "minimo",
        "bas",
        "plus_bas",
        "最低",
        "l",
        "minimum",
        "laag",
        "minima",
        "najnizszy",
        "мин",
        "минимум",
        "dusuk",
        "最低价",
        "低",
        "安値",
        "저가",
        "lw_pric",
    ),
    "close": (
        "close",
        "close_price",
        "closing_price",
        "close_last",
        "last",
        "last_price",
        "price",
        "px_last",
        "prc",
        "dlyprc",
        "prccd",
        "schlusskurs",
        "schluss",
        "zuletzt",
        "cierre",
        "ultimo",
        "cloture",
        "clot",
        "dernier",
        "收盘",
        "c",
        "kurs",
        "chiusura",
        "fechamento",
        "laatste",
        "slotkoers",
        "slot",
        "zamkniecie",
        "ostatnio",
        "цена",
        "закрытие",
        "kapanis",
        "simdi",
        "收盘价",
        "終値",
        "종가",
        "cls_pric",
        "close_close_price_adjusted_for_splits",
    ),
    "volume": (
        "volume",
        "vol",
        "total_volume",
        "total_traded_quantity",
        "tottrdqty",
        "ttl_tradg_vol",
        "ttl_trd_qnty",
        "no_of_shares",
        "number_of_shares",
        "shares_traded",
        "px_volume",
        "dlyvol",
        "cshtrd",
        "stuecke",
        "stucke",
        "stuck",
        "umsatz_stuck",
        "成交量",
        "tick_volume",
        "tickvol",
        "v",
        "volumen",
        "wolumen",
        "wol",
        "объем",
        "объём",
        "hacim",
        "hac",
        "交易量",
        "出来高",
        "거래량",
    ),
    "adj_close": (
        "adj_close",
        "adjusted_close",
        "close_adj",
        "close_adjusted",
        "adj_close_price",
        "adj_price",
        "adjusted_price",
        "adjusted",
        "adjcp",
        "adj_close_adjusted_close_price_adjusted_for_splits_and_dividend_"
        "and_or_capital_gain_distributions",
    ),
    "dividend": (
        "dividend",
        "dividends",
        "div_cash",
        "cash_dividend",
        "dividend_amount",
        "dividend_per_share",
        "ex_dividend",
        "divamt",
    ),
    "split": (
        "split",
        "splits",
        "stock_split",
        "stock_splits",
        "split_factor",
        "split_coefficient",
        "split_ratio",
    ),
    "ret": ("ret", "dlyret"),
    "cfacpr": ("cfacpr", "dlyfacprc", "ajexdi"),
    "sector": ("sector", "gics_sector"),
    "series": ("series", "series_id"),
    "value": ("value",),
    "start": ("start", "start_date", "from", "from_date"),
    "end": ("end", "end_date", "to", "to_date", "thru"),
}
"""Our column -> spellings of the same column. Of several in one file the first here is read."""

PRICES = ("open", "high", "low", "close")
LETTERS = frozenset("tohlcv")
"""Headings of one letter; they count where a file has o, h, l and c."""
LOOSE = frozenset({"name", "stock", "instrument", "code"})
"""Headings of symbols under which some files have the name of a company."""
MEASURES = (*PRICES, "volume", "adj_close", "dividend", "split")
"""What a table of prices says about a symbol on a day."""
LABELS = frozenset({"", "ticker", "tickers", "symbol", "symbols", "price", "attributes", "names"})
"""What stands above the dates in headers of several lines."""

_NUMBERED = re.compile(r"^\d+[a-z]?\.\s+")
_ADJUSTING = re.compile(r"adj|div|split|factor|cfac|ajex|ratio|gain")
_UNIT = re.compile(r"\s*[(\[].*?[)\]]\s*$")
_QUOTED_PAIR = re.compile(r"^\(\s*['\"](.*?)['\"]\s*,\s*['\"](.*?)['\"]\s*\)$")
_JOINTS = re.compile(r"[ _.:|/-]")
_LETTERS_OF_PRICES = frozenset("ohlc")
_COPY = re.compile(r"(\.|_duplicated_)\d+$")
"""What programs add to a heading that stands again."""
_BRACKETS = re.compile(r"[(\[](.*?)[)\]]\s*$")
_SHARES: Mapping[str, float] = {
    **dict.fromkeys(("000", "000s", "k", "thousand", "thousands", "inthousands", "tsd"), 1e3),
    **dict.fromkeys(("lakh", "lakhs", "lac", "lacs", "inlakhs", "inlacs"), 1e5),
    **dict.fromkeys(("m", "mm", "mn", "mln", "mio", "million", "millions", "inmillions"), 1e6),
    **dict.fromkeys(("cr", "crore", "crores", "incrores"), 1e7),
    **dict.fromkeys(("bn", "mrd", "billion", "billions"), 1e9),
}
_NO_SHARES = frozenset(
    (
        *("lot", "lots", "contracts", "hands", "\u624b", "value", "turnover"),
        *("usd", "eur", "gbp", "gbx", "inr", "jpy", "chf", "cny", "hkd", "usdt", "usdc"),
    )
)
"""Units of volumes in the brackets of a heading: how many shares, or not to be told in shares."""


class Columns(NamedTuple):
    """Which columns of a file are read as which of ours."""

    taken: dict[str, str]
    """Our column -> the file's heading."""
    unread: tuple[str, ...]
    """Headings that are not read."""
    rivals: dict[str, tuple[str, ...]]
    """Our column -> headings of which only its reader can know which one is meant."""


def heading_key(text: str) -> str:
    """Return what is compared of a heading: "1. open", "<OPEN>" and "Open " are all open."""
    text = text.strip().strip("\"'\ufeff").strip()
    plain = unicodedata.normalize("NFKD", text.replace("ß", "ss").replace("\u0131", "i")).lower()
    plain = _NUMBERED.sub("", plain)
    without_unit = _UNIT.sub("", plain)
    return "".join(sign for sign in (without_unit or plain) if sign.isalnum())


_KEYS = {name: tuple(map(heading_key, texts)) for name, texts in HEADINGS.items()}
# a day and its time of day are one instant; a column that holds both comes first
_KEYS["instant"] = (*(key for key in _KEYS["date"] if key not in {"date", "time"}), "date", "time")
_MEANING = {key: name for name in reversed(list(HEADINGS)) for key in _KEYS[name]}
_MEASURE = {key: name for name in MEASURES for key in _KEYS[name]}
_MEASURE |= {"adjusted": "adj_close"}


def meaning(heading: str) -> str | None:
    """Return our name of a heading, or None if it is unknown; single letters are unknown alone."""
    key = heading_key(heading)
    return None if key in LETTERS else _MEANING.get(key)


def measure(heading: str) -> str | None:
    """Return which price, volume, dividend or split a heading is; None if it is none of them."""
    key = heading_key(heading)
    return None if key in LETTERS else _MEASURE.get(key)


def volume_unit(heading: str) -> float | None:
    """Return how many shares one unit of a heading of volumes is: "Volume ('000)" counts thousands.

    None if the unit in the brackets cannot be told in shares, such as lots or money.

    Examples:
        >>> [volume_unit(text) for text in ("Vol. (mln)", "Volume", "Volume (lots)")]
        [1000000.0, 1.0, None]
    """
    unit = _BRACKETS.search(heading)
    key = heading_key(unit[1]) if unit else ""
    return None if key in _NO_SHARES else _SHARES.get(key, 1.0)


def match(
    headings: Sequence[str], wanted: Collection[str], given: Mapping[str, str] | None = None
) -> Columns:
    """Find our columns among the headings of a file.

    Args:
        headings: The file's headings, each once.
        wanted: Our columns that the table may have.
        given: Our column -> heading, as a market profile declares it; it wins over `HEADINGS`.

    Returns:
        The columns. A price or volume that stands under several spellings is a rival, unless one
        of them is our own, or alone has our word in it: "Close Price" beside "Last Price".
    """
    by_key: dict[str, str] = {}
    twice: dict[str, tuple[str, ...]] = {}
    for heading in headings:
        key = heading_key(heading)
        if key in by_key:
            twice[key] = (*twice.get(key, (by_key[key],)), heading)
        by_key.setdefault(key, heading)
        first = by_key.get(heading_key(_COPY.sub("", heading)))
        if first is not None and first != heading and measure(first):
            twice[heading_key(first)] = (first, heading)
    has_letters = by_key.keys() >= _LETTERS_OF_PRICES
    taken: dict[str, str] = {}
    rivals: dict[str, tuple[str, ...]] = {}
    for name in wanted:
        if given and name in given:
            keys: tuple[str, ...] = (heading_key(given[name]),)
        else:
            keys = _KEYS.get(name, (heading_key(name),))
            keys = tuple(key for key in keys if has_letters or key not in LETTERS)
        used = set(taken.values()) if name == "time" else set()
        found = [by_key[key] for key in keys if key in by_key and by_key[key] not in used]
        if not found:
            continue
        taken[name] = found[0]
        key = heading_key(found[0])
        if key in twice:
            rivals[name] = twice[key]
        elif name in PRICES and len(found) > 1 and key != keys[0]:
            own = [text for text in found if name in heading_key(text)]
            if len(own) == 1:
                taken[name] = own[0]
            else:
                rivals[name] = tuple(found)
    read = set(taken.values())
    return Columns(taken, tuple(text for text in headings if text not in read), rivals)


def with_adjusted(columns: Columns) -> Columns:
    """Read the adjusted closes as closes where a file has no prices but them."""
    taken = columns.taken
    if "adj_close" not in taken or taken.keys() & set(PRICES):
        return columns
    others = {name: heading for name, heading in taken.items() if name != "adj_close"}
    return columns._replace(taken={**others, "close": taken["adj_close"]})


def adjusting(headings: Collection[str]) -> tuple[str, ...]:
    """Return the headings that look like adjustments: what is not read of them changes returns."""
    return tuple(
        text
        for text in headings
        if _ADJUSTING.search(heading_key(text)) and "yield" not in heading_key(text)
    )


def split_pair(heading: str) -> tuple[str, str] | None:
    """Split a heading that holds a measure and a symbol: "Close_AAA", "AAA.Close".

    Returns:
        Our measure and the symbol, or None if the heading is no such pair.
    """
    quoted = _QUOTED_PAIR.match(heading)
    halves = [(quoted[1], quoted[2])] if quoted else []
    if not quoted:
        halves = [
            (heading[: sign.start()].strip(), heading[sign.end() :].strip())
            for sign in _JOINTS.finditer(heading)
        ]
    pairs = [
        (len(field), str(measure(field)), symbol)
        for left, right in halves
        for field, symbol in ((left, right), (right, left))
        if symbol and measure(field)
    ]
    if not pairs:
        return None
    # the longest measure: "Adj Close_AAA" is no close of "Adj AAA"
    _, name, symbol = max(pairs)
    return name, symbol
