"""Converts the cells of a file to days, times and numbers.

What a column means is decided over all its cells: whether 03/04/2011 begins with the day, whether a
comma is the decimal mark. What cannot be decided is refused with its cause (`UnclearError`).
"""

from collections.abc import Iterable
from datetime import date
from typing import Any, NamedTuple

import polars as pl

from hrl_sarp.data.exchange_calendar import local_days, session_days
from hrl_sarp.errors import DataError, HrlSarpError

NULL_TEXTS = (
    *("", "null", "NULL", "Null", "NaN", "nan", "NAN", "NA", "N/A", "n/a", "#N/A", "None", "none"),
    *("N.A.", "n.a.", "#NA", "#N/A N/A", "<NA>", "NaT", "\\N"),
    *("-", "--", "\u2013", "\u2014", ".", "9999-12-31"),
)
"""What files write for a missing number or day. In a column of text they are text."""
DAY_WORDS = "days such as 2018-01-31, 20180131, 31.01.2018, 01/31/2018 or 31-Jan-2018"
TIME_WORDS = "times such as 2018-01-31 09:30:00"

_YEARS = (date(1700, 1, 1), date(2262, 1, 1))
_PLAIN_DAYS = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d.%m.%Y", "%d.%m.%y")
_NAMED_DAYS = (
    *("%d-%b-%Y", "%d %b %Y", "%d/%b/%Y", "%b %d, %Y", "%b %d %Y", "%b-%d-%Y", "%d%b%Y"),
    *("%d-%B-%Y", "%d %B %Y", "%B %d, %Y", "%B %d %Y"),
    *("%d-%b-%y", "%d %b %y", "%d/%b/%y"),
)
_EITHER_WAY = (
    ("%d/%m/%Y", "%m/%d/%Y"),
    ("%d-%m-%Y", "%m-%d-%Y"),
    ("%d/%m/%y", "%m/%d/%y"),
    ("%d-%m-%y", "%m-%d-%y"),
)
"""Day first or month first."""
_YEAR_FIRST = ("%y-%m-%d", "%y/%m/%d", "%y.%m.%d")
_DAILY_STEP = 10.0
"""Days between rows, at most, of a column that goes on day by day or week by week."""
_WEEKDAY = r"(?i)^(mon|tue|tues|wed|thu|thur|thurs|fri|sat|sun)[a-z]*[, ]+"
_COMPACT = r"^((?:19|20)\d{6})[ T]?(\d{2})(\d{2})(\d{2})?$"
"""Day and time without marks. As milliseconds since 1970 such numbers are of 1976, or far ahead."""
_SERIAL = r"^[2-6]\d{4}(\.\d+)?$"
"""Days as spreadsheets count them: 20000 to 69999 are the years 1954 to 2091."""
_TIME = (
    r"(?i)[T ]\s*(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<part>\d+))?)?"
    r"\s*(?:(?P<half>[AP])\.?M\.?)?\s*(?P<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2})?$"
)
_EPOCH = r"^\d{9,19}(?:\.0+)?$"
_MICROS = {"hour": 3_600_000_000, "minute": 60_000_000, "second": 1_000_000}
_DAY_MICROS = 24 * _MICROS["hour"]
_CURRENCY = r"[$€£¥₹₩]|(?i:USD|EUR|GBP|INR|JPY|CHF)"
_SHOWN_SIGNS = rf"[\u00a0\u202f\u2009\s]|{_CURRENCY}"
_FACTORS = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_GROUPS = r"^[+-]?\d{1,3}(,\d{2,3})*,\d{3}(\.\d+)?([eE][+-]?\d+)?$"
_PLAIN = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


_MOST_TIMES = 2
"""Times of day that daily bars may have, as of two exchanges."""


class UnclearError(HrlSarpError):
    """A column whose meaning cannot be decided.

    The reader that knows file and heading writes the line.
    """

    def __init__(self, expected: str, found: str, cure: str, rows: pl.Series | None = None) -> None:
        """Keep what was expected and found, the cure, and the rows (a mask), where some are."""
        super().__init__(f"expected {expected}, found {found}; {cure}")
        self.expected, self.found, self.cure, self.rows = expected, found, cure, rows


class Stamps(NamedTuple):
    """The days and times of a column, row by row; null where a cell is missing or unreadable."""

    day: pl.Series
    """The day that the cell writes, of type Date."""
    micros: pl.Series
    """Microseconds since its midnight; null where the cell holds a day alone."""
    offset: pl.Series
    """Microseconds by which its clock is ahead of UTC; null where no zone is written."""
    is_lost: pl.Series
    """Which cells hold something that is no day."""

    def local(self) -> pl.Series:
        """Return the written times as datetimes without a zone."""
        day = self.day.cast(pl.Datetime("us")).cast(pl.Int64)
        return (day + self.micros.fill_null(0)).cast(pl.Datetime("us"))

    def utc(self) -> pl.Series:
        """Return the times in UTC; those without a zone as they are written."""
        local = self.local().cast(pl.Int64)
        return (local - self.offset.fill_null(0)).cast(pl.Datetime("us"))


def stamps(column: pl.Series) -> Stamps:
    """Read a column of days or times in any of the known forms.

    Args:
        column: Text, dates, datetimes with or without a zone, or numbers: YYYYMMDD, or seconds,
            milliseconds, microseconds or nanoseconds since 1970.

    Returns:
        The days, times and zones.

    Raises:
        UnclearError: if day and month cannot be told apart, or the column is neither text nor time
            nor number.
    """
    if column.dtype == pl.Date:
        return _stamps_of(column.cast(pl.Datetime("us")), is_day=True)
    if isinstance(column.dtype, pl.Datetime):
        return _stamps_of(column)
    if column.dtype.is_numeric():
        whole = column.cast(pl.Int64, strict=False)
        if (whole != column).any():
            raise UnclearError(DAY_WORDS, str(column.dtype), "convert the column")
        column = whole.cast(pl.String)
    if column.dtype not in (pl.String, pl.Null):
        raise UnclearError(DAY_WORDS, str(column.dtype), "convert the column")
    text = column.cast(pl.String).str.strip_chars()
    text = text.set(text.is_in(NULL_TEXTS).fill_null(value=False), None)
    day = text.str.to_date("%Y-%m-%d", strict=False)
    there = text.drop_nulls()
    if len(there) and there.str.contains(_SERIAL).all():
        found = f"{there[0]!r}, a day as workbooks count them"
        raise UnclearError(DAY_WORDS, found, "format the column as YYYY-MM-DD and save it again")
    if day.null_count() == text.null_count() and not _outside(day).any():
        return Stamps(day, _nothing(day), _nothing(day), text.is_null() & text.is_not_null())
    return _stamps_of_text(text)


def days(column: pl.Series, calendar: str | None) -> tuple[pl.Series, pl.Series]:
    """Read a column as days of the exchange.

    Midnights are the day that they write. Other times with a zone, and UTC times of numbers, belong
    to the session that contains them, or to the exchange's own midnight.

    Args:
        column: See `stamps`.
        calendar: Name of the exchange's calendar; None where none is known.

    Returns:
        The days, and which cells hold something that is no day.

    Raises:
        UnclearError: as `stamps`, and for times without a zone that are no midnight, or outside
            the sessions of the calendar.
    """
    read = stamps(column)
    if (read.micros.fill_null(0) == 0).all():
        return read.day, read.is_lost
    _refuse_several_a_day(read)
    is_other = (read.micros != 0).fill_null(value=False)
    if (is_other & read.offset.is_null()).any():
        found = read.local().filter(is_other)[0]
        raise UnclearError(
            "one bar a day, dated by its day",
            f"{found}, a time without a zone",
            "cut the time off, or write the zone",
            is_other,
        )
    if calendar is None:
        found = read.utc().filter(is_other)[0]
        raise UnclearError(
            "midnights, or a market whose calendar says which session holds a time",
            f"{found} UTC",
            "name the market",
            is_other,
        )
    utc = read.utc()
    try:
        found_days, is_outside, zone = session_days(utc.to_numpy(), calendar)
    except DataError as error:
        found = f"{utc.min()!s} to {utc.max()!s} UTC"
        raise UnclearError(f"times that calendar {calendar} covers", found, str(error)) from error
    outside = pl.Series(is_outside) & read.day.is_not_null()
    if outside.any():
        raise UnclearError(
            f"midnights, or times within a session of the market's calendar {calendar} ({zone})",
            f"{utc.filter(outside)[0]} UTC",
            "choose the market with --market, or write the day alone",
            outside,
        )
    known = pl.Series(found_days).cast(pl.Date)
    return known.set(read.day.is_null(), None).alias(column.name), read.is_lost


def public_days(column: pl.Series, calendar: str | None) -> tuple[pl.Series, pl.Series]:
    """Read a column as the days on which something became public.

    Releases come at any hour. So a time with a zone is the day that the clock of the exchange shows
    then, inside a session or not. Midnights are the day that they write.

    Args:
        column: See `stamps`.
        calendar: Of the exchange; None where none is known.

    Returns:
        The days, and which cells hold something that is no day.

    Raises:
        UnclearError: as `stamps`, and for other times than midnight without zone or calendar.
    """
    read = stamps(column)
    is_time = (read.micros != 0).fill_null(value=False)
    if not is_time.any():
        return read.day, read.is_lost
    is_bare = is_time & read.offset.is_null()
    if is_bare.any() or calendar is None:
        wrong = is_bare if is_bare.any() else is_time
        found = f"the time {read.local().filter(wrong)[0]}"
        cure = "write the zone behind the times, or the days alone"
        raise UnclearError("days, or times whose zone and exchange are known", found, cure, wrong)
    local = pl.Series(local_days(read.utc().filter(is_time).to_numpy(), calendar)).cast(pl.Date)
    return read.day.scatter(is_time.arg_true(), local), read.is_lost


def _refuse_several_a_day(read: Stamps) -> None:
    """Refuse times of bars within the day; two exchanges may close at two times of the same day."""
    times = pl.DataFrame({"day": read.day, "micros": read.micros}).drop_nulls().unique()
    of_days = times.group_by("day").len()["len"]
    usual = of_days.median()
    if isinstance(usual, int | float) and usual > _MOST_TIMES:
        raise UnclearError(
            "one bar a day",
            f"{usual:.0f} times of a usual day, the first {read.local().drop_nulls()[0]}",
            "make daily bars of those within the day",
        )


def decimal_mark(columns: Iterable[pl.Series], separator: str | None) -> str:
    """Decide over all columns of numbers whether "." or "," is the decimal mark.

    Args:
        columns: The file's columns of numbers; those that hold no text do not count.
        separator: What stands between the cells of the file; None for a table of typed columns.

    Returns:
        The mark.

    Raises:
        UnclearError: if cells contradict each other, or every cell may be either; and if they have
            the signs of several currencies.
    """
    texts = [column.drop_nulls() for column in columns if column.dtype == pl.String]
    cells = pl.concat([text.rename("cell") for text in texts]) if texts else pl.Series("cell", [""])
    _refuse_currencies(cells)
    if not cells.str.contains(",", literal=True).any() and separator != ";":
        return "."
    bare = cells.str.replace_all(_SHOWN_SIGNS, "").str.replace(r"(?i)[KMBT%]$", "")
    comma = r"^[+-]?\d{1,3}(\.\d{3})+,\d+$|^[+-]?\d{1,3}(\.\d{3}){2,}$"
    comma += r"|^[+-]?\d*,\d{1,2}$|^[+-]?\d*,\d{4,}$|^[+-]?\d{4,},\d+$|^[+-]?0,\d+$"
    point = r"^[+-]?\d{1,3}(,\d{2,3})+\.\d*$|^[+-]?\d{1,3}(,\d{3}){2,}$"
    point += r"|^[+-]?\d*\.\d{1,2}$|^[+-]?\d*\.\d{4,}$|^[+-]?\d{4,}\.\d+$|^[+-]?0\.\d+$"
    is_comma, is_point = bare.str.contains(comma), bare.str.contains(point)
    if is_comma.any() and is_point.any():
        raise UnclearError(
            "one decimal mark in the file",
            f"{cells.filter(is_point)[0]!r} and {cells.filter(is_comma)[0]!r}",
            "write all numbers with the same mark",
        )
    if is_comma.any():
        return ","
    is_open = bare.str.contains(r"^[+-]?[1-9]\d{0,2}[.,]\d{3}$")
    if is_open.any() and not is_point.any() and separator == ";":
        raise UnclearError(
            "a decimal mark that can be told from a mark of thousands",
            f"{cells.filter(is_open)[0]!r} and no number that decides",
            "write the numbers without marks of thousands",
        )
    return "."


def _refuse_currencies(cells: pl.Series) -> None:
    signs = cells.str.extract(f"({_CURRENCY})").str.to_uppercase()
    there = signs.drop_nulls()
    if there.n_unique() > 1:
        is_first = (signs == there[0]).fill_null(value=False)
        is_other = (signs != there[0]).fill_null(value=False)
        found = f"{cells.filter(is_first)[0]!r} and {cells.filter(is_other)[0]!r}"
        raise UnclearError("one currency in the file", found, "convert all cells to one")


def numbers(column: pl.Series, mark: str = ".") -> tuple[pl.Series, pl.Series]:
    """Read a column as numbers; currency signs, groups of thousands and K, M, B are understood.

    Args:
        column: Text or numbers.
        mark: The decimal mark, see `decimal_mark`.

    Returns:
        The numbers, null where a cell is missing, NaN or unreadable, and which cells are
        unreadable.
    """
    if column.dtype != pl.String:
        typed = column.cast(pl.Float64, strict=False)
        return typed.fill_nan(None), typed.is_null() & column.is_not_null()
    text = column.str.strip_chars()
    there = (text.is_not_null() & ~text.is_in(NULL_TEXTS)).fill_null(value=False)
    text = text.set(~there, None)
    if mark == ".":
        typed = text.cast(pl.Float64, strict=False)
        if (typed.is_null() & there).any():
            typed = typed.zip_with(typed.is_not_null(), _cleaned_numbers(text, mark))
    else:
        typed = _cleaned_numbers(text, mark)
    return typed.fill_nan(None), typed.is_null() & there


def splits(column: pl.Series, mark: str = ".") -> tuple[pl.Series, pl.Series]:
    """Read a column of split ratios: 4, 4:1, 4/1 or "4 for 1"; 0 is a day without a split."""
    if column.dtype == pl.String:
        pair = column.str.strip_chars().str.extract_groups(
            r"(?i)^(\d+(?:\.\d+)?)\s*(?::|/|-?for-?|\s+for\s+)\s*(\d+(?:\.\d+)?)$"
        )
        new, old = (pair.struct.field(name).cast(pl.Float64) for name in ("1", "2"))
        typed, is_lost = numbers(column.set(new.is_not_null(), None), mark)
        typed = (new / old).zip_with(new.is_not_null(), typed).alias(column.name)
    else:
        typed, is_lost = numbers(column, mark)
    return typed.set((typed == 0).fill_null(value=False), 1.0), is_lost


def _stamps_of(times: pl.Series, *, is_day: bool = False) -> Stamps:
    zone = getattr(times.dtype, "time_zone", None)
    local = times.dt.replace_time_zone(None).cast(pl.Datetime("us"))
    offset = _nothing(times)
    if zone:
        utc = times.dt.convert_time_zone("UTC").dt.replace_time_zone(None).cast(pl.Datetime("us"))
        offset = local.cast(pl.Int64) - utc.cast(pl.Int64)
    micros = local.cast(pl.Int64) % _DAY_MICROS
    if is_day:
        micros = _nothing(times)
    return Stamps(local.dt.date(), micros, offset, times.is_null() & times.is_not_null())


def _stamps_of_text(text: pl.Series) -> Stamps:
    frame = pl.DataFrame({"text": text.str.replace(_WEEKDAY, "").str.replace(r"\.0+$", "")})
    spread = pl.col("text").str.replace(_COMPACT, "$1 $2:$3:$4").str.strip_chars_end(":")
    frame = frame.with_columns(spread).with_columns(
        epoch=pl.when(pl.col("text").str.contains(_EPOCH)).then("text")
    )
    parts = pl.col("text").str.extract_groups(_TIME)
    frame = frame.with_columns(parts=parts, rest=pl.col("text").str.replace(_TIME, ""))
    frame = frame.unnest("parts")
    number = {name: pl.col(name).cast(pl.Int64, strict=False) for name in _MICROS}
    half = pl.col("half").str.to_uppercase()
    hour = pl.when(half.is_not_null()).then(number["hour"] % 12).otherwise(number["hour"])
    hour += pl.when(half == "P").then(12).otherwise(0)
    part = pl.col("part").fill_null("0").str.pad_end(6, "0").str.slice(0, 6).cast(pl.Int64)
    digits = pl.col("zone").str.replace(":", "", literal=True)
    size = digits.str.slice(1, 2).cast(pl.Int64, strict=False) * _MICROS["hour"]
    size += digits.str.slice(3, 2).cast(pl.Int64, strict=False) * _MICROS["minute"]
    is_utc = pl.col("zone").str.to_uppercase().is_in(["Z", "UTC", "GMT"])
    sign = pl.when(digits.str.starts_with("-")).then(-1).otherwise(1)
    frame = frame.with_columns(
        micros=hour * _MICROS["hour"]
        + number["minute"] * _MICROS["minute"]
        + number["second"].fill_null(0) * _MICROS["second"]
        + part,
        offset=pl.when(is_utc).then(0).otherwise(sign * size),
    )
    day = _days_of_text(frame["rest"].set(frame["epoch"].is_not_null(), None))
    utc = _epochs(frame["epoch"])
    is_epoch = frame["epoch"].is_not_null()
    micros = (utc.cast(pl.Int64) % _DAY_MICROS).zip_with(is_epoch, frame["micros"])
    offset = pl.repeat(0, len(text), dtype=pl.Int64, eager=True)
    offset = offset.zip_with(is_epoch, frame["offset"])
    day = utc.dt.date().zip_with(is_epoch, day)
    is_lost = day.is_null() & text.is_not_null()
    return Stamps(day.alias(text.name), micros, offset, is_lost)


def _nothing(rows: pl.Series) -> pl.Series:
    return pl.repeat(None, len(rows), dtype=pl.Int64, eager=True).alias(rows.name)


def _epochs(text: pl.Series) -> pl.Series:
    """Return UTC times of seconds, milliseconds, microseconds or nanoseconds since 1970.

    The number of digits tells the unit of each value, because files change it in their middle.
    """
    number = text.cast(pl.Float64, strict=False).cast(pl.Int64, strict=False)
    exact = text.cast(pl.Int64, strict=False)
    number = exact.zip_with(exact.is_not_null(), number)
    frame = pl.DataFrame({"n": number})
    n = pl.col("n")
    micros = (
        pl.when(n < 10**11)
        .then(n * 1_000_000)
        .when(n < 10**14)
        .then(n * 1000)
        .when(n < 10**17)
        .then(n)
        .otherwise(n // 1000)
    )
    return frame.select(micros.cast(pl.Datetime("us"))).to_series()


def _days_of_text(text: pl.Series) -> pl.Series:
    text = text.str.strip_chars()
    read = _nothing(text).cast(pl.Date)
    for form in _PLAIN_DAYS:
        read = read.zip_with(read.is_not_null(), _dates(text, form))
    if read.null_count() == text.null_count():
        return read
    for form in _NAMED_DAYS:
        read = read.zip_with(read.is_not_null(), _dates(text, form))
    for day_first, month_first in _EITHER_WAY:
        read = read.zip_with(read.is_not_null(), _either_way(text, day_first, month_first))
    _refuse_year_first(text, read)
    return read


def _refuse_year_first(text: pl.Series, read: pl.Series) -> None:
    """Refuse 13-01-31 where it is read as a day of 2031, but goes on day by day in 2013."""
    for form in _YEAR_FIRST:
        other = _dates(text, form)
        if other.is_null().all():
            continue
        chosen = read.set(other.is_null(), None)
        if _usual_step(other) <= _DAILY_STEP < _usual_step(chosen):
            raise UnclearError(
                "years of four digits",
                f"{text.filter(other.is_not_null())[0]!r}, whose year may stand first",
                "write the days as YYYY-MM-DD",
            )


def _usual_step(day: pl.Series) -> float:
    """Return the median number of days from row to row, either way."""
    step = day.drop_nulls().diff().dt.total_days().abs().median()
    return float(step) if isinstance(step, int | float) else 0.0


def _either_way(text: pl.Series, day_first: str, month_first: str) -> pl.Series:
    """Read days whose order of day and month only the whole column tells."""
    one, other = _dates(text, day_first), _dates(text, month_first)
    only_one, only_other = one.is_not_null() & other.is_null(), other.is_not_null() & one.is_null()
    if only_one.any() and only_other.any():
        raise UnclearError(
            "one order of day and month in the column",
            f"{text.filter(only_one)[0]!r} and {text.filter(only_other)[0]!r}",
            "write the days as YYYY-MM-DD",
        )
    if only_one.any():
        return one
    if only_other.any():
        return other
    differs = (one != other).fill_null(value=False)
    if differs.any():
        raise UnclearError(
            "days whose order of day and month can be told",
            f"{text.filter(differs)[0]!r} and no day above 12 in {len(text)} rows",
            "write the days as YYYY-MM-DD",
            differs,
        )
    return one


def _dates(text: pl.Series, form: str) -> pl.Series:
    if form.endswith("%y"):  # a year of four digits also fits, and would be cut
        text = text.set(text.str.contains(r"\d{4}").fill_null(value=False), None)
    read = text.str.to_date(form, strict=False)
    return read.set(_outside(read), None)


def _outside(day: pl.Series) -> pl.Series:
    first, last = _YEARS
    return ((day < first) | (day > last)).fill_null(value=False)


def _cleaned_numbers(text: pl.Series, mark: str) -> pl.Series:
    frame = pl.DataFrame({"cell": text})
    cell = pl.col("cell").str.replace_all(_SHOWN_SIGNS, "").str.replace("\u2212", "-")
    cell = cell.str.replace(r"^\((.*)\)$", "-$1")
    cell = cell.str.replace_all("['\u2019]", "," if mark == "." else ".")
    frame = frame.with_columns(cell=cell)
    frame = frame.with_columns(
        unit=pl.col("cell").str.extract(r"\d[.,]?([KMBTkmbt])$").str.to_uppercase(),
        cell=pl.col("cell").str.replace(r"([\d.,])[KMBTkmbt]$", "$1"),
    )
    if mark == ",":
        swapped = pl.col("cell").str.replace_all(".", "\0", literal=True)
        swapped = swapped.str.replace_all(",", ".", literal=True).str.replace_all(
            "\0", ",", literal=True
        )
        frame = frame.with_columns(cell=swapped)
    cell = pl.col("cell")
    is_grouped, is_plain = cell.str.contains(_GROUPS), cell.str.contains(_PLAIN)
    bare = cell.str.replace_all(",", "", literal=True).cast(pl.Float64, strict=False)
    factor = pl.col("unit").replace_strict(_FACTORS, default=1.0, return_dtype=pl.Float64)
    scaled = pl.when(pl.col("unit").is_null()).then(bare).otherwise((bare * factor).round(3))
    read: Any = pl.when(is_grouped | is_plain).then(scaled)
    return frame.select(read.alias(text.name)).to_series()
