"""Defects of the index and of macro series are named; sound ones are not."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.data.quality.series import doubtful_names, index_defects, macro_defects
from hrl_sarp.data.quality.validation import ValidationReport, validate
from hrl_sarp.data.store import INDEX_SCHEMA, MACRO_SCHEMA
from tests.data.raw_factories import SESSIONS, clean_raw, day

CONFIG = load_config().data.validation


def index(levels: dict[int, float]) -> pl.DataFrame:
    """A level of 100 on every session but those given by row."""
    values = np.full(len(SESSIONS), 100.0)
    for row, level in levels.items():
        values[row] = level
    return pl.DataFrame({"date": SESSIONS, "close": values}, schema=INDEX_SCHEMA)


def found(frame: pl.DataFrame) -> list[tuple[str, date, float, int]]:
    table = index_defects(frame, CONFIG, SESSIONS).sort("date", "rule")
    assert set(table["symbol"]) <= {"index"}
    return table.select("rule", "date", "value", "count").rows()


def test_sound_index_has_no_finding() -> None:
    assert found(index({3: 125.0, 4: 90.0})) == []


def test_base_change_is_a_jump() -> None:
    later = dict.fromkeys(range(5, len(SESSIONS)), 10.0)
    assert found(index(later)) == [("index_jump", day(5), pytest.approx(-0.9), 1)]


def test_levels_between_a_jump_and_the_jump_back_are_wrong() -> None:
    assert found(index({5: 10.0, 6: 12.0})) == [
        ("index_jump", day(5), pytest.approx(-0.9), 1),
        ("index_wrong_level", day(5), 10.0, 1),
        ("index_wrong_level", day(6), 12.0, 1),
        ("index_jump", day(7), pytest.approx(100 / 12 - 1), 1),
    ]


def test_zero_level_is_named_and_no_jump() -> None:
    # without it day 5 has no level at all
    assert found(index({5: 0.0})) == [
        ("index_gap", day(5), 100.0, 1),
        ("index_not_positive", day(5), 0.0, 1),
    ]


def test_level_before_the_first_session_is_named() -> None:
    early = pl.DataFrame({"date": [date(2019, 1, 1)], "close": [100.0]}, schema=INDEX_SCHEMA)
    assert found(pl.concat([early, index({})])) == [
        ("index_off_session", date(2019, 1, 1), 100.0, 1)
    ]


def weekends(days: list[date], sessions: np.ndarray) -> list[tuple[str, date, int]]:
    """Check one macro series with values on these days."""
    n = len(days)
    macro = pl.DataFrame({"date": days, "series": ["FLOW"] * n, "value": [1.0] * n})
    table = macro_defects(replace(clean_raw(), macro=macro), sessions)
    about = table.filter(pl.col("rule") == "macro_weekend")
    return about.select("symbol", "date", "count").rows()


def test_daily_series_on_weekends_is_named_once_with_how_many() -> None:
    days = [SESSIONS[0].item() + timedelta(days=step) for step in range(14)]
    # from Wednesday, 2 January: the 5th, 6th, 12th and 13th
    assert weekends(days, SESSIONS) == [("FLOW", date(2019, 1, 5), 4)]
    with_saturday = np.append(SESSIONS, np.datetime64("2019-01-05"))
    assert weekends(days, with_saturday) == [("FLOW", date(2019, 1, 6), 3)]


def test_monthly_series_may_be_dated_on_weekends() -> None:
    # 1 June and 1 September are weekends
    assert weekends([date(2019, month, 1) for month in range(1, 13)], SESSIONS) == []


def notes_of(*sectors: str) -> tuple[str, ...]:
    symbols = [f"S{number}" for number in range(len(sectors))]
    return doubtful_names(pl.DataFrame({"symbol": symbols, "sector": sectors}))


@pytest.mark.parametrize(
    "word", ["NaN", "nan", "N/A", "#N/A", "-", "--", "Unknown", "None", "NULL"]
)
def test_a_sector_that_looks_like_a_missing_value_is_named(word: str) -> None:
    (note,) = notes_of("Energy", word, word)
    assert note.startswith(f"sector {word!r} (2 stocks) looks like a missing value")


@pytest.mark.parametrize("name", ["Financials", "Information Technology", "Consumer Staples"])
@pytest.mark.parametrize("place", [1, 3, 6])
@pytest.mark.parametrize("change", ["left out", "again", "other"])
def test_one_wrong_letter_in_a_sector_is_named(name: str, place: int, change: str) -> None:
    middle = {"left out": "", "again": 2 * name[place], "other": "q"}[change]
    wrong = name[:place] + middle + name[place + 1 :]
    (note,) = notes_of(name, name, wrong)
    assert repr(wrong) in note
    assert f"{name!r} (2 stocks)" in note


def test_sectors_of_the_usual_schemes_are_not_doubtful() -> None:
    gics = load_config(market="us").market_profile.sectors
    indian = load_config(market="nse").market_profile.sectors
    assert notes_of(*gics) == notes_of(*indian) == ()
    assert notes_of("1311", "1312", "Group 1 chemicals", "Group 2 chemicals") == ()


RIGHT = {"FEDFUNDS": 2.5, "IRX": 3.0, "DGS10": 4.0, "T10Y2Y": -0.4, "VIX": 18.0, "INDIAVIX": 14.0}


def checked(series: str, values: np.ndarray) -> ValidationReport:
    frame = {"date": SESSIONS, "series": [series] * len(values), "value": values}
    macro = pl.DataFrame(frame).cast(dict(MACRO_SCHEMA))
    return validate(replace(clean_raw(), macro=macro), CONFIG, "XNYS")


@pytest.mark.parametrize("sentinel", [-9999.0, -999.0, -99.0, 99999.0, 1e10])
@pytest.mark.parametrize("series", RIGHT)
@pytest.mark.parametrize("every", [3, 20])
def test_what_stands_for_a_missing_value_of_a_series_is_refused(
    series: str, sentinel: float, every: int
) -> None:
    values = np.full(len(SESSIONS), RIGHT[series])
    assert not checked(series, values).has_failed
    values[1::every] = sentinel
    report = checked(series, values)
    rows = report.table.filter(pl.col("rule") == "macro_impossible")
    assert rows.select("symbol", "date", "value", "count").row(0) == (
        *(series, SESSIONS[1].item(), sentinel, len(values[1::every])),
    )
    assert report.has_failed


@pytest.mark.parametrize("series", ["VIX", "VIXCLS", "INDIAVIX"])
def test_no_volatility_is_zero_and_a_rate_may_be(series: str) -> None:
    values = np.full(len(SESSIONS), 15.0)
    values[5] = 0.0
    assert checked(series, values).has_failed
    for value in (0.0, -0.75, 22.0):
        assert not checked("FEDFUNDS", np.where(values > 0, 2.0, value)).has_failed


def test_names_of_thousands_of_sectors_are_not_compared_with_each_other() -> None:
    few = [f"Sector of {chr(97 + i // 26)}{chr(97 + i % 26)} goods" for i in range(100)]
    many = [f"{name} {chr(97 + i)}" for i in range(26) for name in few]
    for names, is_compared in ((few, True), (many, False)):
        named = pl.DataFrame({"symbol": [str(i) for i in range(len(names))], "sector": names})
        assert bool(doubtful_names(named)) is is_compared
