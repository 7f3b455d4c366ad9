"""Tables are held against each other: what does not fit is refused or named, with its numbers."""

from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.data.exchange_calendar import first_sessions
from hrl_sarp.data.quality import alignment, series
from hrl_sarp.data.quality.validation import ValidationReport, validate
from hrl_sarp.data.store import (
    BARS_SCHEMA,
    INDEX_SCHEMA,
    MACRO_SCHEMA,
    MEMBERSHIP_SCHEMA,
    SECTORS_SCHEMA,
    RawData,
)
from hrl_sarp.errors import DataError
from hrl_sarp.market.assemble import _require_usable
from tests.data.quality.noisy_raw import CONFIG, SESSIONS, noisy_raw

PROFILE = load_config(market="us").market_profile


def check(raw: RawData, calendar: str = "XNYS") -> ValidationReport:
    return validate(raw, CONFIG, calendar, None, PROFILE)


def detail_of(report: ValidationReport, rule: str) -> str:
    rows = report.table.filter(pl.col("rule") == rule)
    assert rows.height == 1, report.table
    return str(rows["detail"][0])


def level() -> np.ndarray:
    """An index: the mean stock, and a little of its own."""
    closes = noisy_raw().bars.pivot("symbol", index="date", values="close").sort("date")
    moves = np.diff(np.log(closes.select("AAA", "BBB").to_numpy()), axis=0).mean(axis=1)
    own = np.random.default_rng(9).normal(0, 0.001, len(moves))
    return 100 * np.exp(np.append(0.0, np.cumsum(moves + own)))


def with_index(levels: np.ndarray, days: np.ndarray) -> RawData:
    return replace(noisy_raw(), index=pl.DataFrame({"date": days, "close": levels}, INDEX_SCHEMA))


def with_series(name: str, values: np.ndarray, days: np.ndarray = SESSIONS) -> RawData:
    table = {"date": days, "series": [name] * len(days), "value": values}
    return replace(noisy_raw(), macro=pl.DataFrame(table, MACRO_SCHEMA))


def test_index_of_the_same_days_is_no_finding() -> None:
    assert check(with_index(level(), SESSIONS)).table.is_empty()


@pytest.mark.parametrize(("late", "word"), [(1, "late"), (-1, "early")])
def test_index_that_is_a_session_off_is_refused_with_both_correlations(
    late: int, word: str
) -> None:
    if late > 0:
        report = check(with_index(level()[:-1], SESSIONS[1:]))
    else:
        report = check(with_index(level()[1:], SESSIONS[:-1]))
    detail = detail_of(report, "index_shifted")
    assert f"index is dated a session {word}" in detail
    assert report.has_failed
    with pytest.raises(DataError, match=f"index_shifted.*{word}.*correlate"):
        _require_usable(report)


def test_index_that_is_a_session_off_in_its_second_half_is_refused() -> None:
    long = together()
    moves = alignment.mean_returns(long.bars)
    late = np.append(moves["value"][:140], moves["value"][139:-1])  # from then on the day before's
    levels = {"date": moves["date"], "close": 100 * np.cumprod(1 + late)}
    raw = replace(long, index=pl.DataFrame(levels, INDEX_SCHEMA))
    sessions = long.bars["date"].unique().sort().to_numpy()
    found = alignment.index_against_bars(raw, sessions).filter(rule="index_shifted")
    assert found.height == 1
    assert "a session late from" in found["detail"][0]


def test_index_that_begins_late_or_ends_early_is_one_line_each() -> None:
    report = check(with_index(level()[20:-2], SESSIONS[20:-2]))
    rows = report.table.filter(pl.col("rule") == "index_span")
    assert rows.select("date", "count").rows() == [
        (SESSIONS[20].item(), 20),
        (SESSIONS[-3].item(), 2),
    ]
    assert not report.has_failed


def test_weekly_index_is_refused() -> None:
    report = check(with_index(level()[::5], SESSIONS[::5]))
    assert detail_of(report, "index_spacing").startswith("21% of the sessions")
    assert report.has_failed


@pytest.mark.parametrize("sign", [1.0, -6.0])
def test_series_that_shows_tomorrow_is_refused(sign: float) -> None:
    volatility = 20 * (level() / 100) ** sign
    assert check(with_series("VIX", volatility)).table.is_empty()
    early = check(with_series("VIX", volatility[1:], SESSIONS[:-1]))
    assert "dated a session early" in detail_of(early, "macro_shifted")
    assert early.has_failed


@pytest.mark.parametrize(
    ("name", "right", "factors"),
    [
        ("FEDFUNDS", 5.0, (0.01, 100.0)),
        ("IRX", 3.0, (0.01, 100.0)),
        ("VIX", 18.0, (0.01, 100.0)),
        ("BAMLH0A0HYM2", 5.0, (0.01, 100.0)),
        ("T10Y2Y", -1.0, (0.01, 100.0)),
    ],
)
def test_rate_in_another_unit_is_named(
    name: str, right: float, factors: tuple[float, float]
) -> None:
    values = np.full(len(SESSIONS), right)
    assert check(with_series(name, values)).table.is_empty()
    for factor in factors:
        report = check(with_series(name, values * factor))
        assert f"{name} lies between {right * factor:g}" in detail_of(report, "macro_unit")
        assert not report.has_failed


@pytest.mark.parametrize(("step", "share"), [(5, "20%"), (21, "5%")])
def test_weekly_and_monthly_bars_are_refused_with_their_share(step: int, share: str) -> None:
    days = first_sessions("XNYS", date(2010, 1, 4), 400)[::step]
    raw = noisy_raw()
    rows = raw.bars.group_by("symbol", maintain_order=True).head(len(days))
    new_days = [day.item() for day in days[: rows.height // 2]]
    weekly = rows.with_columns(date=pl.Series(new_days * 2))
    report = check(replace(raw, bars=weekly))
    assert detail_of(report, "bar_spacing").startswith(f"{share} of the")
    assert report.has_failed


def test_bars_of_every_day_of_the_week_need_their_calendar() -> None:
    raw = noisy_raw()
    every = first_sessions("24/7", date(2011, 1, 3), len(SESSIONS))
    days = pl.Series([day.item() for day in every] * 2)
    round_the_clock = replace(raw, bars=raw.bars.with_columns(date=days))
    detail = detail_of(check(round_the_clock), "calendar_mismatch")
    assert "Saturday" in detail
    assert "Sunday" in detail
    assert check(round_the_clock, "24/7").table.is_empty()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("energy", "Energy"),
        ("Energy ", "Energy"),
        ("Enrgy", "Energy"),
        ("Basic Materials", "Materials"),
        ("Technology", "Information Technology"),
        ("Financial Services", "Financials"),
        ("Healthcare", "Health Care"),
        ("Consumer Cyclical", "Consumer Discretionary"),
        ("Consumer-Defensive", "Consumer Staples"),
        ("Real  estate", "Real Estate"),
        ("Utilites", "Utilities"),
    ],
)
def test_sector_of_another_spelling_fails_with_the_one_that_is_meant(
    written: str, meant: str
) -> None:
    raw = noisy_raw()
    report = check(replace(raw, sectors=raw.sectors.with_columns(sector=pl.lit(written))))
    assert f"sector {written!r}" in detail_of(report, "unknown_sector")
    assert f"is it {meant!r}?" in detail_of(report, "unknown_sector")
    assert report.has_failed


def test_unknown_sector_fails_unless_the_profile_leaves_it_out() -> None:
    raw = noisy_raw()
    toys = replace(raw, sectors=raw.sectors.with_columns(sector=pl.Series(["Energy", "Toys"])))
    assert "served are Energy" in detail_of(check(toys), "unknown_sector")
    assert series.unknown_sectors(toys, ["Energy"], ["Toys"]).is_empty()
    assert series.unknown_sectors(toys, [], []).is_empty()


@pytest.mark.parametrize("other", ["energy", "Energy ", "EN-ERGY", "En ergy"])
def test_sector_under_two_spellings_fails_where_the_data_name_the_sectors(other: str) -> None:
    raw = noisy_raw()
    raw = replace(raw, sectors=raw.sectors.with_columns(sector=pl.Series(["Energy", other])))
    own = load_config(market="own").market_profile
    report = validate(raw, CONFIG, "XNYS", None, own)
    detail = detail_of(report, "sector_spelling")
    assert all(repr(name) in detail for name in ("Energy", other))
    assert report.has_failed


@pytest.mark.parametrize("written", ["aaa", "AA-A", "AAA (1)", "AAA_daily"])
def test_symbol_that_the_bars_have_twice_says_which_other(written: str) -> None:
    raw = noisy_raw()
    again = raw.bars.filter(symbol="AAA").with_columns(symbol=pl.lit(written))
    report = check(replace(raw, bars=pl.concat([raw.bars, again])))
    assert "the bars have 'AAA', too: keep one" in detail_of(report, "symbol_without_sector")


@pytest.mark.parametrize("factor", [0.01, 100.0])
@pytest.mark.parametrize("row", [1, 30, 69])
def test_rate_that_changes_its_unit_is_named_with_its_day(factor: float, row: int) -> None:
    rates = np.linspace(3.5, 4.0, len(SESSIONS))
    rates[row:] *= factor
    found = check(with_series("DGS10", rates)).table.filter(rule="macro_unit")
    assert SESSIONS[row].item() in found["date"].to_list()
    near_zero = np.where(np.arange(len(SESSIONS)) < row, 0.6, 0.006)
    assert check(with_series("DGS10", near_zero)).table.filter(rule="macro_unit").is_empty()


@pytest.mark.parametrize("written", ["bbb", "BBB ", "B-BB", "B.BB", "BBB.DE"])
def test_symbol_spelt_otherwise_in_the_sectors_fails_with_its_twin(written: str) -> None:
    raw = noisy_raw()
    spelt = raw.sectors.with_columns(symbol=pl.Series(["AAA", written]))
    report = check(replace(raw, sectors=spelt))
    detail = detail_of(report, "symbol_without_sector")
    assert f"no 'BBB'; it has {written!r}" in detail
    assert report.has_failed


def test_memberships_and_bars_that_do_not_meet_are_named_with_their_twin() -> None:
    days = {"start": [SESSIONS[0].item()] * 2, "end": [None] * 2}
    table = pl.DataFrame({"symbol": ["AAA", "b.bb"], **days}, MEMBERSHIP_SCHEMA)
    report = check(replace(noisy_raw(), membership=table))
    assert "the bars have 'BBB'" in detail_of(report, "membership_spelling")
    assert report.has_failed
    other = table.with_columns(symbol=pl.Series(["AAA", "ZZZ"]))
    report = check(replace(noisy_raw(), membership=other))
    assert set(report.table["rule"]) == {"membership_without_bars", "symbol_without_membership"}
    assert not report.has_failed


@pytest.mark.parametrize("year", [1711, 1911, 1970, 2010, 2012, 2101, 2206])
@pytest.mark.parametrize("n_rows", [1, 5])
def test_rows_of_another_century_fail_with_the_first_of_them(year: int, n_rows: int) -> None:
    raw = noisy_raw()
    wrong = SESSIONS[30 : 30 + n_rows].tolist()
    is_wrong = (pl.col("symbol") == "BBB") & pl.col("date").is_in(wrong)
    moved = pl.when(is_wrong).then(pl.col("date").dt.replace(year=year)).otherwise("date")
    bars = raw.bars.with_columns(date=moved).sort("symbol", "date")
    report = check(replace(raw, bars=bars))
    row = report.table.filter(rule="empty_span").row(0, named=True)
    assert (row["symbol"], row["date"], row["count"]) == (
        "BBB",
        wrong[0].replace(year=year),
        n_rows,
    )
    assert report.has_failed


def together(n_symbols: int = 6, seed: int = 0) -> RawData:
    """Stocks that share half of their variance."""
    rng = np.random.default_rng(seed)
    days = first_sessions("XNYS", date(2011, 1, 3), 200)
    common = rng.normal(0, 0.01, len(days))
    frames = []
    for i in range(n_symbols):
        close = 40 * np.exp(np.cumsum(common + rng.normal(0, 0.01, len(days))))
        bars = {"date": days, "symbol": [f"S{i}"] * len(days), "close": close}
        frames.append(pl.DataFrame(bars, schema_overrides={"date": pl.Date}))
    bars = pl.concat(frames).with_columns(adj_close=pl.lit(None, dtype=pl.Float64))
    return replace(noisy_raw(), bars=bars)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("days", "word"), [(1, "late"), (-1, "early"), (0, "")])
def test_symbol_that_is_dated_unlike_the_others_is_named(seed: int, days: int, word: str) -> None:
    bars = together(seed=seed).bars
    own = pl.col("date").shift(-days).over("symbol")
    moved = pl.when(pl.col("symbol") == "S3").then(own).otherwise("date").alias("date")
    found = alignment.symbols_against_others(bars.with_columns(moved).drop_nulls("date"))
    assert found["symbol"].to_list() == (["S3"] if days else [])
    assert all(f"dated a session {word} from 2011-01-0" in text for text in found["detail"])


def test_single_symbol_has_no_others() -> None:
    assert alignment.symbols_against_others(together(1).bars).is_empty()


def wide_raw(n_symbols: int, seed: int, *, price: float = 40.0) -> RawData:
    """Stocks that share half of their variance, over two years, at prices around one."""
    rng = np.random.default_rng(seed)
    days = first_sessions("XNYS", date(2011, 1, 3), 500)
    common = rng.normal(0, 0.01, (len(days), 1))
    moves = common + rng.normal(0, 0.01, (len(days), n_symbols))
    closes = price * np.exp(rng.normal(0, 0.5, n_symbols) + np.cumsum(moves, axis=0))
    names = [f"S{number:02d}" for number in range(n_symbols)]
    frame = pl.DataFrame(
        {
            "date": np.tile(days, n_symbols),
            "symbol": np.repeat(names, len(days)),
            "close": closes.T.reshape(-1),
        }
    )
    columns = {name: pl.col("close") for name in ("open", "high", "low", "adj_close")}
    bars = frame.with_columns(**columns, volume=1e6, dividend=0.0, split=1.0)
    sectors = pl.DataFrame({"symbol": names, "sector": ["Energy"] * n_symbols}, SECTORS_SCHEMA)
    return replace(noisy_raw(), bars=bars.select(BARS_SCHEMA.names()), sectors=sectors)


def rules_of(raw: RawData) -> set[str]:
    return set(check(raw).table["rule"])


@pytest.mark.parametrize("n_symbols", [4, 7, 30])
@pytest.mark.parametrize("seed", range(3))
def test_an_index_of_another_market_is_named(n_symbols: int, seed: int) -> None:
    raw, rng = wide_raw(n_symbols, seed), np.random.default_rng(seed + 99)
    days = raw.bars["date"].unique().sort()
    strange = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, len(days))))
    table = pl.DataFrame({"date": days, "close": strange}, INDEX_SCHEMA)
    report = check(replace(raw, index=table))
    assert "is it the index of this market?" in detail_of(report, "index_unrelated")
    assert not report.has_failed
    own = raw.bars.group_by("date").agg(pl.mean("close")).sort("date")
    assert "index_unrelated" not in rules_of(replace(raw, index=own))
    logs = own.with_columns((pl.col("close") * 100).log())
    assert "logarithms?" in detail_of(check(replace(raw, index=logs)), "index_unrelated")
    # nothing can be said where stocks do not move together either
    alone = wide_raw(1, seed)
    assert "index_unrelated" not in rules_of(replace(alone, index=table))


@pytest.mark.parametrize("n_symbols", [1, 6, 30])
@pytest.mark.parametrize("price", [12.0, 40.0, 2000.0, 60_000.0])
@pytest.mark.parametrize("log", [np.log, np.log1p])
def test_logarithms_of_prices_are_named(n_symbols: int, price: float, log: np.ufunc) -> None:
    raw = wide_raw(n_symbols, 5, price=price)
    levels = ("open", "high", "low", "close", "adj_close")
    logged = raw.bars.with_columns(pl.col(levels).map_batches(lambda one: log(one.to_numpy())))
    report = check(replace(raw, bars=logged))
    assert "if they are logarithms, give prices" in detail_of(report, "log_prices")
    assert "log_prices" not in rules_of(raw)


@pytest.mark.parametrize("price", [0.2, 1.0, 5.0])
def test_cheap_shares_and_rates_of_currencies_are_no_logarithms(price: float) -> None:
    assert "log_prices" not in rules_of(wide_raw(8, 6, price=price))
    rates = wide_raw(8, 7, price=1.0)
    quiet = (pl.col("close").log() / 4).exp()
    columns = dict.fromkeys(("open", "high", "low", "close", "adj_close"), quiet)
    assert "log_prices" not in rules_of(replace(rates, bars=rates.bars.with_columns(**columns)))


@pytest.mark.parametrize("n_own", [0, 2, 30])
def test_symbol_with_the_closes_of_another_is_named(n_own: int) -> None:
    raw = noisy_raw()
    first = raw.bars.filter(symbol="AAA")
    own = pl.int_range(pl.len()) >= pl.len() - n_own
    copy = first.with_columns(
        symbol=pl.lit("AAA (1)"), close=pl.when(own).then(pl.col("close") + 1).otherwise("close")
    )
    found = alignment.copies(pl.concat([raw.bars, copy])).filter(rule="same_series")
    named = [("AAA", "AAA (1)"), ("AAA (1)", "AAA")] if n_own < 30 else []
    assert found["symbol"].to_list() == [symbol for symbol, _ in named]
    for detail, (_, other) in zip(found["detail"], named, strict=True):
        assert f"has the closes of {other} on {60 - n_own} of its last 60 bars" in detail


@pytest.mark.parametrize("close", [5.0, None])
def test_constant_closes_are_no_copies(close: float | None) -> None:
    bars = noisy_raw().bars.with_columns(close=pl.lit(close, dtype=pl.Float64))
    assert alignment.copies(bars).is_empty()


@pytest.mark.parametrize(("days", "is_wrong"), [(60, False), (61, True)])
def test_days_without_any_bar_are_wrong_from_sixty_on(
    days: int,
    is_wrong: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    raw = noisy_raw()
    first = SESSIONS[40].item()
    step = (first - SESSIONS[39].item()).days
    late = pl.col("date") + pl.duration(days=days - step)
    moved = pl.when(pl.col("date") >= pl.lit(first)).then(late).otherwise("date")
    found = check(replace(raw, bars=raw.bars.with_columns(date=moved))).table
    assert found.filter(rule="empty_span").height == is_wrong


@pytest.mark.parametrize("n_days", [1, 5])
@pytest.mark.parametrize("column", ["adj_close", "close"])
def test_last_days_on_which_no_bar_can_be_used_fail(column: str, n_days: int) -> None:
    raw = noisy_raw()
    last = pl.col("date") > pl.lit(SESSIONS[-1 - n_days].item())
    for symbols, is_wrong in ((["AAA", "BBB"], True), (["AAA"], False)):
        lost = pl.when(last & pl.col("symbol").is_in(symbols)).then(None).otherwise(pl.col(column))
        report = check(replace(raw, bars=raw.bars.with_columns(lost.alias(column))))
        found = report.table.filter(rule="end_unusable")
        expected = [("AAA", SESSIONS[-n_days].item(), 2 * n_days)] if is_wrong else []
        assert found.select("symbol", "date", "count").rows() == expected
        assert report.has_failed == is_wrong


@pytest.mark.parametrize("symbols", [["AAA"], ["AAA", "BBB"]])
@pytest.mark.parametrize("holidays", [["2011-02-21"], ["2011-02-19", "2011-02-21"]])
def test_closes_that_are_printed_again_on_days_without_a_session_are_no_end(
    holidays: list[str], symbols: list[str]
) -> None:
    raw, eve = noisy_raw(), date(2011, 2, 18)
    until = raw.bars.filter(pl.col("date") <= pl.lit(eve))
    last = until.filter(pl.col("date") == pl.lit(eve), pl.col("symbol").is_in(symbols))
    again = [
        last.with_columns(
            date=pl.lit(date.fromisoformat(holiday)),
            volume=pl.lit(0.0),
            **{name: pl.col("close") for name in ("open", "high", "low")},
        )
        for holiday in holidays
    ]
    report = check(replace(raw, bars=pl.concat([until, *again]).sort("symbol", "date")))
    rules = set(report.table.filter(pl.col("date") > pl.lit(eve))["rule"])
    assert {"no_trade", "off_session"} <= rules
    assert "end_unusable" not in rules


def paying(n_lost: int, n_kept: int, digits: int = 12) -> RawData:
    """AAA and BBB pay 0.4 on days of their own; so many adjusted closes lack it, or have it."""
    raw = noisy_raw()
    rows = range(3, 3 + 4 * (n_lost + n_kept), 4)
    ends = [SESSIONS[row].item() for row in rows]
    pays = (pl.col("symbol") == "AAA") & pl.col("date").is_in(ends)
    factor = pl.lit(1.0)
    for day in ends[n_lost:]:
        before = raw.bars.filter(pl.col("symbol") == "AAA", pl.col("date") < day)["close"][-1]
        is_before = (pl.col("symbol") == "AAA") & (pl.col("date") < pl.lit(day))
        factor *= pl.when(is_before).then(before / (before + 0.4)).otherwise(1.0)
    bars = raw.bars.with_columns(
        dividend=pl.when(pays).then(0.4).otherwise(0.0),
        adj_close=(pl.col("close") * factor).round(digits),
    )
    return replace(raw, bars=bars)


@pytest.mark.parametrize("digits", [2, 12])
@pytest.mark.parametrize(
    ("n_lost", "n_kept", "is_wrong"),
    [(0, 6, False), (1, 0, False), (2, 0, True), (6, 0, True), (4, 3, True), (3, 4, False)],
)
def test_adjusted_closes_without_the_stated_dividends_fail(
    n_lost: int,
    n_kept: int,
    is_wrong: bool,  # noqa: FBT001 -- a parameter of the test
    digits: int,
) -> None:
    report = check(paying(n_lost, n_kept, digits))
    found = report.table.filter(rule="dividend_not_adjusted")
    expected = [("AAA", SESSIONS[3].item(), n_lost)] if is_wrong else []
    assert found.select("symbol", "date", "count").rows() == expected
    assert report.has_failed == is_wrong


@pytest.mark.parametrize(("first", "last"), [(0, 30), (12, 40), (0, 69)])
def test_rows_of_another_symbol_are_named(first: int, last: int) -> None:
    raw = noisy_raw()
    days = [day.item() for day in SESSIONS[first:last]]
    here = pl.col("date").is_in(days)
    own, other = raw.bars.filter(symbol="AAA"), raw.bars.filter(symbol="BBB")
    taken = other.filter(here).with_columns(symbol=pl.lit("AAA"))
    bars = pl.concat([own.filter(~here), taken, other]).sort("symbol", "date")
    found = alignment.copies(bars)
    rule = "same_series" if last - first > 60 else "rows_of_another"
    assert found.select("symbol", "rule").rows() == [("AAA", rule), ("BBB", rule)]
    if rule == "rows_of_another":
        assert found.select("date", "count").rows() == [(days[0], last - first)] * 2


@pytest.mark.parametrize(
    ("pause", "price", "shares", "is_named"),
    [
        (0, 1.0, 1.0, True),
        (2, 1.05, 1.5, True),
        (3, 1.0, 1.0, False),
        (0, 1.5, 1.0, False),
        (0, 1.0, 9.0, False),
    ],
)
def test_symbol_that_goes_on_as_another_is_named(
    pause: int,
    price: float,
    shares: float,
    is_named: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    raw = noisy_raw()
    is_late = (pl.col("symbol") == "AAA") & (pl.col("date") >= pl.lit(SESSIONS[35].item()))
    resumes = pl.lit(SESSIONS[35 + pause].item())
    bars = raw.bars.filter(~is_late | (pl.col("date") >= resumes))
    scales = {"open": price, "high": price, "low": price, "close": price, "volume": shares}
    new = [
        pl.when(is_late).then(pl.col(name) * by).otherwise(name).alias(name)
        for name, by in scales.items()
    ]
    name = pl.when(is_late).then(pl.lit("NEW")).otherwise("symbol").alias("symbol")
    found = alignment.renamed(bars.with_columns(*new, name), SESSIONS)
    expected = [("AAA", SESSIONS[34].item())] if is_named else []
    assert found.select("symbol", "date").rows() == expected
    assert all("NEW begins on" in detail for detail in found["detail"])


@pytest.mark.parametrize("overlap", [1, 2, 5, 12])
def test_symbol_that_begins_before_another_ends_is_no_new_name_of_it(overlap: int) -> None:
    bars = noisy_raw().bars
    own = bars.filter(pl.col("symbol") == "AAA")
    old = own.filter(pl.col("date") < SESSIONS[35].item())
    new = own.filter(pl.col("date") >= SESSIONS[35 - overlap].item())
    both = pl.concat([old, new.with_columns(symbol=pl.lit("NEW"))])
    assert alignment.renamed(both, SESSIONS).is_empty()
