"""Cells become days, times and numbers; what cannot be decided is refused with its cause."""

import re
from datetime import date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrl_sarp.data.sources.files.forms.values import (
    UnclearError,
    days,
    decimal_mark,
    numbers,
    splits,
    stamps,
)

DAY = date(2011, 1, 13)
FORMS = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%Y%m%d",
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d-%b-%Y",
    "%d %b %Y",
    "%d %B %Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%a %b %d %Y",
    "%A, %B %d, %Y",
    "%d-%b-%y",
    "%m/%d/%y",
    "%Y-%m-%d 00:00:00",
    "%Y-%m-%dT00:00:00",
    "%Y-%m-%dT00:00:00.000000000",
    "%Y-%m-%d 00:00:00+01:00",
    "%Y-%m-%d 00:00:00-0500",
    "%Y-%m-%dT00:00:00Z",
    "%m/%d/%Y 12:00:00 AM",
    "%Y%m%d 000000",
    "%Y%m%d000000",
    "%Y%m%d0000",
    "%Y%m%d.0",
)


def column(*cells: str | None) -> pl.Series:
    return pl.Series("date", cells, dtype=pl.String)


@pytest.mark.parametrize("form", FORMS)
def test_every_way_to_write_a_day_is_read(form: str) -> None:
    cells = [DAY.strftime(form), None, "N/A", date(2011, 12, 30).strftime(form)]
    read, is_lost = days(column(*cells), "XNYS")
    assert read.to_list() == [DAY, None, None, date(2011, 12, 30)]
    assert not is_lost.any()


@settings(max_examples=30)
@given(
    st.dates(date(1990, 1, 1), date(2060, 1, 1)),
    st.sampled_from(["%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y"]),
)
def test_one_day_above_the_12th_decides_the_order_of_the_whole_column(day: date, form: str) -> None:
    read, _ = days(column(day.strftime(form), DAY.strftime(form)), None)
    assert read.to_list() == [day, DAY]


@pytest.mark.parametrize(
    ("cells", "cause"),
    [
        (["03/04/2011", "05/04/2011"], "order of day and month can be told, found '03/04/2011'"),
        (["13/04/2011", "04/13/2011"], "one order of day and month"),
        (["2011-01-03 16:00:00"], "2011-01-03 16:00:00, a time without a zone"),
    ],
)
def test_days_that_cannot_be_told_are_refused_with_the_cause(cells: list[str], cause: str) -> None:
    with pytest.raises(UnclearError, match=cause):
        days(column(*cells), "XNYS")


@settings(max_examples=30, deadline=None)
@given(
    st.dates(date(2001, 1, 1), date(2030, 1, 1)),
    st.integers(3, 60),
    st.integers(1, 7),
    st.sampled_from(["%y-%m-%d", "%y/%m/%d"]),
)
def test_year_of_two_digits_in_front_is_refused_or_lost_but_never_read(
    first: date, n_rows: int, step: int, form: str
) -> None:
    cells = [(first + timedelta(days=step * row)).strftime(form) for row in range(n_rows)]
    try:
        _, is_lost = days(column(*cells), None)
    except UnclearError:
        return
    assert is_lost.any()


@settings(max_examples=30, deadline=None)
@given(st.dates(date(2013, 1, 13), date(2030, 1, 1)), st.sampled_from(["%d-%m-%y", "%m/%d/%y"]))
def test_year_of_two_digits_at_the_end_is_read(first: date, form: str) -> None:
    expected = [first + timedelta(days=row) for row in range(40)]
    assert days(column(*(day.strftime(form) for day in expected)), None)[0].to_list() == expected


@pytest.mark.parametrize(
    ("one", "other"), [("$40.5", "€39"), ("40.5 USD", "39 EUR"), ("£1,040.50", "$39"), ("₹4", "$5")]
)
@pytest.mark.parametrize("n_columns", [1, 2])
def test_two_currencies_in_a_file_are_refused(one: str, other: str, n_columns: int) -> None:
    columns = [column(one, one, other)] if n_columns == 1 else [column(one, one), column(other)]
    with pytest.raises(UnclearError, match="one currency in the file") as caught:
        decimal_mark(columns, ",")
    assert repr(one) in str(caught.value)
    assert repr(other) in str(caught.value)
    assert not numbers(column(one, None, one, "39"))[1].any()


@pytest.mark.parametrize("serial", ["20000", "40546", "45658.0", "69999"])
def test_days_as_workbooks_count_them_are_refused_with_the_cure(serial: str) -> None:
    cause = f"'{serial}', a day as workbooks count them; format the column"
    with pytest.raises(UnclearError, match=re.escape(cause)):
        days(column(serial, None, serial), "XNYS")


def test_cells_that_are_no_day_are_marked() -> None:
    _, is_lost = days(column("2011-01-03", "soon", "40546", "2011-13-45"), None)
    assert is_lost.to_list() == [False, True, True, True]


@pytest.mark.parametrize(("unit", "scale"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_numbers_since_1970_are_read_in_every_unit(unit: str, scale: int) -> None:
    midnight = 1_294_012_800 * scale  # 2011-01-03 00:00 UTC
    for cells in (pl.Series([midnight]), pl.Series([str(midnight)])):
        assert days(cells, None)[0].to_list() == [date(2011, 1, 3)], unit


def test_unit_may_change_within_a_column() -> None:
    cells = column("1735603200000", "1735689600000000")  # Binance changed it with 2025
    assert days(cells, None)[0].to_list() == [date(2024, 12, 31), date(2025, 1, 1)]


ZONES = {
    "Europe/Berlin": "XETR",
    "America/New_York": "XNYS",
    "Asia/Tokyo": "XTKS",
    "Asia/Kolkata": "XBOM",
    "Australia/Sydney": "XASX",
    "Europe/London": "XLON",
}


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("form", [None, "%Y-%m-%d %H:%M:%S%z"])
def test_midnight_of_an_exchange_told_in_utc_or_its_zone_is_its_day(
    zone: str, form: str | None
) -> None:
    expected = [date(2011, 1, 3), date(2011, 7, 4)]  # winter and summer time
    own = pl.Series("date", expected).cast(pl.Datetime("us")).dt.replace_time_zone(zone)
    for times in (own, own.dt.convert_time_zone("UTC")):
        cells = times.dt.strftime(form) if form else times
        assert days(cells, ZONES[zone])[0].to_list() == expected


def test_usual_close_is_within_a_half_day_too() -> None:
    # on the day after Thanksgiving New York closes at 13:00, and many bars are dated 16:00
    times = pl.Series([datetime(2010, 11, day, 21) for day in (24, 26, 29)])  # noqa: DTZ001
    read, _ = days(times.dt.replace_time_zone("UTC"), "XNYS")
    assert read.to_list() == [date(2010, 11, day) for day in (24, 26, 29)]


@pytest.mark.parametrize(("hour", "minute"), [(14, 30), (18, 0), (21, 0), (21, 10)])
def test_time_within_a_session_is_the_session_s_day(hour: int, minute: int) -> None:
    times = pl.Series([datetime(2011, 1, 3, hour, minute)])  # noqa: DTZ001 -- the zone follows
    assert days(times.dt.replace_time_zone("UTC"), "XNYS")[0].to_list() == [date(2011, 1, 3)]


def test_midnight_of_another_exchange_is_refused_and_names_the_calendar() -> None:
    times = pl.Series([datetime(2011, 1, 2, 23)]).dt.replace_time_zone("UTC")  # noqa: DTZ001 -- the zone is apart
    with pytest.raises(UnclearError, match=r"XNYS .America/New_York., found 2011-01-02 23:00:00"):
        days(times, "XNYS")
    with pytest.raises(UnclearError, match="name the market"):
        days(times, None)


@pytest.mark.parametrize(
    ("cell", "hour"),
    [
        ("2024-12-31 20:01:00", 20),
        ("12/31/2024 08:01 PM", 20),
        ("20241231 200100", 20),
        ("2024-12-31T20:01:00-05:00", 25),
        ("1735675260000", 20),
        ("2024.12.31 20:01", 20),
    ],
)
def test_times_of_bars_are_read_in_utc(cell: str, hour: int) -> None:
    day, of_day = divmod(hour, 24)
    expected = datetime(2024, 12, 31 - day * 30, of_day, 1)  # noqa: DTZ001 -- the zone is apart
    expected = expected.replace(year=2024 + day, month=12 if not day else 1)
    assert stamps(column(cell)).utc().to_list() == [expected]


@settings(max_examples=30)
@given(st.decimals(min_value=0, max_value=10**7, places=2))
def test_a_number_is_the_same_in_every_notation(value: object) -> None:
    plain = float(str(value))
    american = f"{plain:,.2f}"
    german = american.translate(str.maketrans(",.", ".,"))
    swiss = american.replace(",", "'")
    french = german.replace(".", "\u202f")
    for text in (american, f"${american}", f"{american} USD", swiss):
        assert numbers(column(text), ".")[0].to_list() == [plain], text
    for text in (german, f"{german} €", french):
        assert numbers(column(text), ",")[0].to_list() == [plain], text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("320.30K", 320_300.0),
        ("1.2M", 1.2e6),
        ("0.52B", 5.2e8),
        ("-", None),
        ("", None),
        ("#N/A", None),
        ("(1.5)", -1.5),
        ("\u22123", -3.0),
        ("1e6", 1e6),
        ("12,34,567.5", 1_234_567.5),
    ],
)
def test_notations_of_sources_are_numbers(text: str, value: float | None) -> None:
    read, is_lost = numbers(column(text))
    assert read.to_list() == [value]
    assert not is_lost.any()


@pytest.mark.parametrize("text", ["x", "1,2,3", "1.2.3", "12:30", "0.5%"])
def test_what_is_no_number_is_marked(text: str) -> None:
    read, is_lost = numbers(column(text))
    assert (read.to_list(), is_lost.to_list()) == ([None], [True])


@pytest.mark.parametrize(
    ("cells", "separator", "mark"),
    [
        (["40.07", "291300"], ",", "."),
        (["40.07", "291,300"], ",", "."),
        (["1,468", "1,500"], ",", "."),  # quoted thousands
        (["40,07", "291.300"], ";", ","),
        (["1.468,80", "3"], ",", ","),
        (["0,5", "12"], ";", ","),
        (["$1,468.80"], ",", "."),
    ],
)
def test_decimal_mark_is_decided_over_the_whole_file(
    cells: list[str], separator: str, mark: str
) -> None:
    assert decimal_mark([column(*cells)], separator) == mark


@pytest.mark.parametrize(
    ("cells", "cause"),
    [(["40.07", "40,07"], "one decimal mark"), (["1,468", "1,500"], "no number that decides")],
)
def test_decimal_mark_that_cannot_be_told_is_refused(cells: list[str], cause: str) -> None:
    with pytest.raises(UnclearError, match=cause):
        decimal_mark([column(*cells)], ";")


@pytest.mark.parametrize(
    ("text", "ratio"),
    [
        ("4", 4.0),
        ("4:1", 4.0),
        ("1:10", 0.1),
        ("3/2", 1.5),
        ("2-for-1", 2.0),
        ("0", 1.0),
        ("", None),
    ],
)
def test_splits_are_new_shares_for_an_old_one(text: str, ratio: float | None) -> None:
    assert splits(column(text))[0].to_list() == [ratio]
