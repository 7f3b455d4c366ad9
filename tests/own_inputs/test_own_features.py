"""Tables of the user's features: read, joined by the day on which they were public, and checked."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrl_sarp.data.known_at import market_series, stock_tables
from hrl_sarp.data.sources.files.own_features import read_own_features
from hrl_sarp.data.store import OWN_FEATURES_SCHEMA
from hrl_sarp.errors import DataError
from hrl_sarp.features.prices import PricePanel
from hrl_sarp.market.own.causality import _foresight, _foresight_of_table, _future_returns

SYMBOLS = ["AAA", "BBB"]
LONG = "date,symbol,name,value,known_at\n"


def frame(*rows: tuple[str, str, str | None, str, float]) -> pl.DataFrame:
    days = [(date.fromisoformat(a), date.fromisoformat(b), *rest) for a, b, *rest in rows]
    return pl.DataFrame(days, schema=OWN_FEATURES_SCHEMA, orient="row")


def sessions(first: str, n_days: int) -> np.ndarray:
    return np.datetime64(first) + np.arange(n_days)


def test_a_value_is_seen_from_the_session_after_it_became_public_on_and_carried() -> None:
    # the quarter ends on 3 March, its report appears on 5 March: the close of 6 March sees it first
    own = frame(("2020-03-03", "2020-03-05", "AAA", "eps", 7.0))
    table = stock_tables(own, sessions("2020-03-02", 7), ("AAA", "BBB"))["eps"]
    np.testing.assert_array_equal(table[:, 0], [np.nan] * 4 + [7.0] * 3)
    assert np.isnan(table[:, 1]).all()


def test_a_late_correction_of_an_older_quarter_does_not_replace_a_newer_one() -> None:
    own = frame(
        ("2020-03-01", "2020-03-02", "AAA", "eps", 1.0),
        ("2020-03-03", "2020-03-04", "AAA", "eps", 2.0),
        ("2020-03-01", "2020-03-05", "AAA", "eps", 9.0),  # of the older day
        ("2020-03-03", "2020-03-06", "AAA", "eps", 3.0),  # of the newest day
    )
    table = stock_tables(own, sessions("2020-03-02", 7), ("AAA",))["eps"]
    np.testing.assert_array_equal(table[:, 0], [np.nan, 1, 1, 2, 2, 3, 3])


def test_values_without_a_symbol_are_series_of_the_market() -> None:
    own = frame(("2020-03-02", "2020-03-02", None, "mood", 5.0))
    series = market_series(own, sessions("2020-03-02", 3))
    np.testing.assert_array_equal(series["mood"], [np.nan, 5.0, 5.0])
    assert stock_tables(own, sessions("2020-03-02", 3), ("AAA",)) == {}


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 10), st.integers(-9, 9)), min_size=1
    ),
    cut=st.integers(0, 20),
)
def test_no_row_reads_a_value_that_was_not_public_before_its_session(
    values: list[tuple[int, int, int]], cut: int
) -> None:
    first = date(2020, 1, 1)
    rows = [
        (first + timedelta(days=day), first + timedelta(days=day + lag), "AAA", "x", float(value))
        for day, lag, value in {(d, g): (d, g, v) for d, g, v in values}.values()
    ]
    own = pl.DataFrame(rows, schema=OWN_FEATURES_SCHEMA, orient="row")
    days = sessions("2020-01-01", 21)
    whole = stock_tables(own, days, ("AAA",))["x"]
    known = own.filter(pl.col("known_at") < days[cut].item())
    tables = stock_tables(known, days[: cut + 1], ("AAA",))
    expected = tables["x"] if tables else np.full((cut + 1, 1), np.nan)
    np.testing.assert_array_equal(whole[: cut + 1], expected)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_long_and_wide_tables_say_the_same(tmp_path: Path, suffix: str) -> None:
    long, wide = tmp_path / "long", tmp_path / "wide"
    for folder, text in (
        (long, LONG + "2020-01-02,AAA,pe,9.5,2020-01-03\n2020-01-02,AAA,eps,1,2020-01-03\n"),
        (wide, "date,symbol,known_at,pe,eps\n2020-01-02,AAA,2020-01-03,9.5,1\n"),
    ):
        folder.mkdir()
        (folder / "features.csv").write_text(text)
        if suffix == "parquet":
            table = pl.read_csv(folder / "features.csv", try_parse_dates=True)
            table.write_parquet(folder / "features.parquet")
            (folder / "features.csv").unlink()
    first, second = (read_own_features(folder, SYMBOLS, None) for folder in (long, wide))
    assert first is not None
    assert second is not None
    assert first.frame.equals(second.frame)
    assert first.frame["value"].to_list() == [1.0, 9.5]
    assert first.notes == (f"own features of features.{suffix}: eps, pe",)


def test_symbols_without_prices_are_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "features.csv").write_text(LONG + "2020-01-02,ZZZ,pe,1,2020-01-02\n")
    found = read_own_features(tmp_path, SYMBOLS, None)
    assert found is not None
    assert found.frame.is_empty()
    assert "1 values of symbols without prices: ZZZ" in found.notes[1]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("features", "date,symbol,pe\n2020-01-02,AAA,1\n", "found no known_at"),
        ("features", LONG + "2020-01-02,AAA,pe,x,2020-01-02\n", "column value"),
        ("features", LONG + "2020-01-02,AAA,pe,1,2019-12-31\n", "found 2019-12-31 for 2020-01-02"),
        ("features", LONG + "2020-01-02,AAA,pe,1,\n", "column known_at: expected a value"),
        ("features", LONG + "2020-01-02,aaa,pe,1,2020-01-02\n", "'aaa', where the prices have"),
        ("features", LONG + 2 * "2020-01-02,AAA,pe,1,2020-01-02\n", "twice"),
        ("features", "date,symbol,known_at\n2020-01-02,AAA,2020-01-02\n", "a column for each"),
        ("macro_features", "date,known_at,mood\n2020-01-02,2020-01-01,1\n", "known_at"),
        ("features", LONG + "2020-01-02,AAA,pe,1,2020-01-02 16:30\n", "time 2020-01-02 16:30"),
        ("macro_features", "date,known_at,name\n2020-01-02,2020-01-02,1\n", "name alone"),
        ("macro_features", "date,known_at,value\n2020-01-02,2020-01-02,1\n", "value alone"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / f"{name}.csv").write_text(text)
    with pytest.raises(DataError) as refused:
        read_own_features(tmp_path, SYMBOLS, None)
    assert said in str(refused.value)
    assert f"{name}.csv" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("written", ["inf", "-inf", "Infinity", "-INF", "1e999"])
@pytest.mark.parametrize("form", ["long", "wide", "parquet"])
def test_what_a_division_by_zero_left_is_refused(tmp_path: Path, written: str, form: str) -> None:
    value = float(written)
    wide = f"date,symbol,known_at,pe\n2020-01-02,AAA,2020-01-02,{written}\n"
    text = LONG + f"2020-01-02,AAA,pe,{written},2020-01-02\n" if form == "long" else wide
    if form == "parquet":
        frame(("2020-01-02", "2020-01-02", "AAA", "pe", value)).write_parquet(
            tmp_path / "features.parquet"
        )
    else:
        (tmp_path / "features.csv").write_text(text)
    with pytest.raises(DataError, match=r"(?i)expected finite numbers, found .*(inf|1e999)"):
        read_own_features(tmp_path, SYMBOLS, None)


@pytest.mark.parametrize("first", ["EPS", "earnings yield", "Mood"])
@pytest.mark.parametrize("change", [str.upper, str.lower, str.swapcase, lambda s: f"{s} ".title()])
def test_a_feature_under_two_spellings_is_refused(
    tmp_path: Path, first: str, change: Callable[[str], str]
) -> None:
    second = change(first)
    rows = f"2020-01-02,AAA,{first},1,2020-01-02\n2020-01-02,BBB,{second},2,2020-01-02\n"
    (tmp_path / "features.csv").write_text(LONG + rows)
    if second.strip() == first:
        read = read_own_features(tmp_path, SYMBOLS, None)
        assert read is not None
        assert set(read.frame["name"]) == {first}
        return
    with pytest.raises(DataError, match="each feature under one spelling"):
        read_own_features(tmp_path, SYMBOLS, None)


def test_numbers_of_rows_are_no_feature_and_columns_without_a_value_are_named(
    tmp_path: Path,
) -> None:
    head = "Unnamed: 0,date,symbol,known_at,pe,eps,\n"
    (tmp_path / "features.csv").write_text(head + "0,2020-01-02,AAA,2020-01-02,1,,7\n")
    read = read_own_features(tmp_path, SYMBOLS, None)
    assert read is not None
    assert set(read.frame["name"]) == {"pe"}
    assert "not read: Unnamed: 0, unnamed_6" in read.notes[0]
    assert read.notes[1:] == (
        "own features of features.csv: pe",
        "features.csv: without any value: eps",
    )


def test_a_table_without_a_value_says_so(tmp_path: Path) -> None:
    (tmp_path / "features.csv").write_text(LONG)
    read = read_own_features(tmp_path, SYMBOLS, None)
    assert read is not None
    assert read.notes == ("features.csv: no value in it",)


@pytest.mark.parametrize(("days", "is_named"), [(90, True), (30, True), (7, False), (1, False)])
@pytest.mark.parametrize("delay", [0, 40])
def test_values_of_months_that_claim_no_delay_are_named(
    tmp_path: Path, days: int, delay: int, *, is_named: bool
) -> None:
    first = date(2020, 1, 1)
    rows = [
        f"{first + timedelta(days=n)},{first + timedelta(days=n + delay)},{n}"
        for n in range(0, 6 * days, days)
    ]
    (tmp_path / "macro_features.csv").write_text("date,known_at,GDP\n" + "\n".join(rows))
    read = read_own_features(tmp_path, SYMBOLS, None)
    assert read is not None
    told = [note for note in read.notes if "known_at is the date itself" in note]
    assert bool(told) == (is_named and delay == 0)


@pytest.mark.parametrize("form", ["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d %H:%M%z", "typed"])
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize("hour", [1, 7, 12, 17, 23])
def test_a_release_at_any_hour_is_known_after_the_day_of_the_exchange(
    tmp_path: Path, form: str, zone: str, hour: int
) -> None:
    there = datetime(2020, 2, 8, hour, 30, tzinfo=ZoneInfo(zone))  # a Saturday
    if form == "typed":
        row = {"date": [date(2020, 1, 31)], "symbol": ["AAA"], "pe": [1.0], "known_at": [there]}
        pl.DataFrame(row).write_parquet(tmp_path / "features.parquet")
    else:
        line = f"2020-01-31,AAA,pe,1,{there.strftime(form)}\n"
        (tmp_path / "features.csv").write_text(LONG + line)
    read = read_own_features(tmp_path, SYMBOLS, "XNYS")
    assert read is not None
    assert read.frame["known_at"].item() == there.astimezone(ZoneInfo("America/New_York")).date()


def test_a_folder_without_tables_has_no_own_features(tmp_path: Path) -> None:
    assert read_own_features(tmp_path, SYMBOLS, None) is None


def panel_of(returns: np.ndarray) -> PricePanel:
    shape = returns.shape
    everything = np.ones(shape, dtype=bool)
    return PricePanel(
        dates=sessions("2020-01-01", shape[0]),
        symbols=tuple(f"S{i}" for i in range(shape[1])),
        sector_of=np.zeros(shape[1], dtype=np.int64),
        n_sectors=1,
        overnight_return=returns,
        intraday_return=np.zeros(shape),
        printed=everything,
        tradable=everything,
        listed=everything,
        high_to_close=np.zeros(shape),
        low_to_close=np.zeros(shape),
        dollar_volume=np.ones(shape),
        columns=frozenset({"close"}),
    )


@pytest.mark.parametrize("n_stocks", [1, 12])
@pytest.mark.parametrize("horizon", [1, 5, 20])
def test_a_table_of_future_returns_is_found_and_one_of_past_returns_is_not(
    n_stocks: int, horizon: int
) -> None:
    rng = np.random.default_rng(2)
    returns = rng.normal(0.0, 0.02, (600, n_stocks))
    panel = panel_of(returns)
    level = panel.log_level
    ahead, behind = np.full_like(level, np.nan), np.full_like(level, np.nan)
    ahead[:-horizon] = level[horizon:] - level[:-horizon]
    behind[horizon:] = level[horizon:] - level[:-horizon]
    future = _future_returns(panel)
    (problem,) = _foresight("mine", ahead, future).values()
    assert "as only the future can give" in problem
    assert _foresight("mine", behind, future) == {}
    assert _foresight("mine", rng.normal(size=level.shape), future) == {}
    faint = 0.1 * ahead / np.nanstd(ahead) + rng.normal(size=level.shape)  # a good honest signal
    assert _foresight("mine", faint, future) == {}


@pytest.mark.parametrize("n_known", [1, 2, 4])
@pytest.mark.parametrize("moves", [0, 1, 30])
def test_few_values_that_stand_still_are_no_foresight(n_known: int, moves: int) -> None:
    rng = np.random.default_rng(3)
    panel = panel_of(rng.normal(0.0, 0.02, (600, 12)))
    table = np.full((600, 12), np.nan)
    for column in range(n_known):  # in steps, as reports are carried forward
        table[:, column] = np.repeat(rng.normal(size=moves + 1), 600 // (moves + 1) + 1)[:600]
    assert _foresight("mine", table, _future_returns(panel)) == {}


@pytest.mark.parametrize("n_known", [1, 3, 12])
def test_foresight_of_few_stocks_of_many_is_found(n_known: int) -> None:
    panel = panel_of(np.random.default_rng(4).normal(0.0, 0.02, (600, 12)))
    level = panel.log_level
    ahead = np.full_like(level, np.nan)
    ahead[:-1, :n_known] = (level[1:] - level[:-1])[:, :n_known]
    assert "mine" in _foresight("mine", ahead, _future_returns(panel))


def test_a_day_with_one_stock_is_no_day_of_foresight() -> None:
    panel = panel_of(np.random.default_rng(5).normal(0.0, 0.02, (600, 12)))
    level = panel.log_level
    ahead = np.full_like(level, np.nan)
    ahead[:100] = level[1:101] - level[:100]
    ahead[100:190, 0] = 0.0
    (problem,) = _foresight("mine", ahead, _future_returns(panel)).values()
    assert "over 100 days" in problem


@pytest.mark.parametrize("n_stocks", [1, 12])
@pytest.mark.parametrize("seed", range(3))
def test_a_price_of_tomorrow_foretells_by_its_moves(n_stocks: int, seed: int) -> None:
    panel = panel_of(np.random.default_rng(seed).normal(0.0, 0.02, (600, n_stocks)))
    future, price = _future_returns(panel), np.exp(panel.log_level)
    ahead = np.full_like(price, np.nan)
    ahead[:-1] = price[1:]
    assert "move" in _foresight_of_table("mine", ahead, future)["mine"]
    assert _foresight_of_table("mine", price, future) == {}
    behind = np.full_like(price, np.nan)
    behind[1:] = price[:-1]
    assert _foresight_of_table("mine", behind, future) == {}


@pytest.mark.parametrize("n_reports", [8, 20])
@pytest.mark.parametrize("seed", range(20))
def test_reports_of_few_days_do_not_foretell_by_chance(n_reports: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    panel = panel_of(rng.normal(0.0, 0.02, (600, 12)))
    table = np.full((600, 12), np.nan)
    for column in range(12):
        days = np.sort(rng.choice(600, n_reports, replace=False))
        for day, value in zip(days, rng.normal(size=n_reports), strict=True):
            table[day:, column] = value
    assert _foresight_of_table("mine", table, _future_returns(panel)) == {}
