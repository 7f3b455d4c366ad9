"""Every rule finds its planted defect, names it, and finds nothing in clean data."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from rich.console import Console

from hrl_sarp.config.loading import load_config
from hrl_sarp.data.quality import validation
from hrl_sarp.data.quality.validation import ValidationReport, bad_rows
from hrl_sarp.data.sources.files import folder
from hrl_sarp.data.store import FINDINGS_SCHEMA, RawData, write_raw
from hrl_sarp.errors import DataError
from tests.data.raw_factories import clean_raw, day, with_cells, with_factor, without_row

CONFIG = load_config().data.validation
PRICES = ["open", "high", "low", "close"]


def check(raw: RawData) -> ValidationReport:
    return validation.validate(raw, CONFIG, "XNYS")


def findings(report: ValidationReport) -> list[SimpleNamespace]:
    return [SimpleNamespace(**row) for row in report.table.iter_rows(named=True)]


def until(last: date) -> pl.Expr:
    return pl.col("date") <= pl.lit(last)


def found(report: ValidationReport) -> set[tuple[str, str | None, str]]:
    return {(finding.rule, finding.symbol, str(finding.date)) for finding in findings(report)}


def test_clean_data_have_no_finding() -> None:
    report = check(clean_raw())
    assert findings(report) == []
    assert not report.has_failed
    assert bad_rows(report).is_empty()


# Row 5 of AAA is 9 January 2019: close 105, open 104.5, high 106, low 104.
@pytest.mark.parametrize(
    ("spoil", "rule", "value", "fails", "excluded"),
    [
        (lambda raw: with_cells(raw, 5, low=-1.0), "non_positive_price", -1.0, False, True),
        (lambda raw: with_cells(raw, 5, close=None), "missing_value", None, False, True),
        (lambda raw: with_cells(raw, 5, open=None), "missing_value", 105.0, False, True),
        # 106 / 104 - 1
        (lambda raw: with_cells(raw, 5, open=107.06), "ohlc_inconsistent", 0.01, False, True),
        (lambda raw: with_cells(raw, 5, volume=0.0), "zero_volume", 0.0, False, False),
        # 105 on 104: no split of 2 happened, in prices or in adj_close
        (lambda raw: with_cells(raw, 5, split=2.0), "split_unseen", 2.0, False, False),
        (lambda raw: with_cells(raw, 5, dividend=2.08), "adjustment_gap", -0.02, False, True),
    ],
)
def test_spoiled_row_is_named_with_its_value(
    spoil: Callable[[RawData], RawData],
    rule: str,
    value: float | None,
    *,
    fails: bool,
    excluded: bool,
) -> None:
    report = check(spoil(clean_raw()))
    rows = [finding for finding in findings(report) if finding.rule == rule]
    assert [(row.symbol, row.date) for row in rows] == [("AAA", day(5))]
    assert rows[0].value == (None if value is None else pytest.approx(value, abs=1e-9))
    assert report.has_failed == fails
    assert (("AAA", day(5)) in bad_rows(report).rows()) == excluded


def test_duplicate_bar_fails_and_both_copies_stay_out() -> None:
    raw = clean_raw()
    repeated = replace(raw, bars=pl.concat([raw.bars, raw.bars.head(1)]).sort("symbol", "date"))
    report = check(repeated)
    assert ("duplicate", "AAA", str(day(0))) in found(report)
    assert report.has_failed
    assert bad_rows(report).rows() == [("AAA", day(0))]


def test_descending_dates_fail() -> None:
    raw = clean_raw()
    report = check(replace(raw, bars=raw.bars.reverse()))
    # every row but the first of each of the two symbols is dated before the one above
    assert [finding.rule for finding in findings(report)] == ["ordering"] * 38
    assert report.has_failed


def test_missing_session_is_a_gap_and_the_last_close_is_given() -> None:
    report = check(without_row(without_row(clean_raw(), 5), 6))
    (finding,) = findings(report)
    assert (finding.rule, finding.symbol, finding.date) == ("calendar_gap", "AAA", day(5))
    assert (finding.value, finding.count) == (104.0, 2)
    assert not finding.is_excluded


def test_bar_on_a_holiday_is_named() -> None:
    raw = clean_raw()
    # 21 January 2019, Martin Luther King day, is between row 12 (18 January) and row 13
    moved = raw.bars.with_columns(
        date=pl.when(pl.col("date") == pl.lit(day(13)))
        .then(pl.lit(day(13)).dt.offset_by("-1d"))
        .otherwise("date")
    )
    assert ("off_session", "AAA", "2019-01-21") in found(check(replace(raw, bars=moved)))


def test_crash_is_named_but_stays() -> None:
    # a fall by 70 % with 100 times the usual volume: no split brings that
    raw = with_factor(clean_raw(), 5, 0.3, [*PRICES, "adj_close"])
    report = check(with_cells(raw, 5, volume=1e5))
    named = {"large_return", "suspected_split"}  # near 1 for 3
    assert found(report) == {(rule, "AAA", str(day(5))) for rule in named}
    assert bad_rows(report).is_empty()
    assert not report.has_failed


def test_split_without_a_flag_is_named_and_its_bar_stays() -> None:
    raw = with_factor(clean_raw(), 5, 0.5, [*PRICES, "adj_close"])
    report = check(raw)
    assert found(report) == {("undeclared_split", "AAA", str(day(5)))}
    assert bad_rows(report).is_empty()


def test_fall_by_half_with_heavy_trading_is_suspected_but_stays() -> None:
    raw = with_factor(clean_raw(), 5, 0.5, [*PRICES, "adj_close"])
    report = check(with_cells(raw, 5, volume=1e5))
    assert found(report) == {("suspected_split", "AAA", str(day(5)))}
    assert bad_rows(report).is_empty()


def test_flagged_split_is_no_finding() -> None:
    raw = with_factor(clean_raw(), 5, 0.5, PRICES)  # adj_close goes on smoothly
    assert findings(check(with_cells(raw, 5, split=2.0))) == []


def test_without_adjusted_closes_returns_come_from_splits_and_dividends() -> None:
    raw = with_cells(with_factor(clean_raw(), 5, 0.25, PRICES), 5, split=4.0)
    unadjusted = replace(raw, bars=raw.bars.with_columns(adj_close=pl.lit(None, pl.Float64)))
    report = check(unadjusted)
    assert findings(report) == []


def test_halt_printed_as_a_flat_bar_is_kept_out() -> None:
    flat = dict.fromkeys(PRICES, 104.0)
    report = check(with_cells(clean_raw(), 5, **flat, volume=0.0, adj_close=104.0))
    assert found(report) == {("no_trade", "AAA", str(day(5)))}
    assert bad_rows(report).rows() == [("AAA", day(5))]


def test_row_that_repeats_the_one_before_is_kept_out() -> None:
    # row 4: open 103.5, high 105, low 103, close 104, volume 1000
    prices = {"open": 103.5, "high": 105.0, "low": 103.0, "close": 104.0, "adj_close": 104.0}
    report = check(with_cells(clean_raw(), 5, **prices))
    assert found(report) == {("stale_repeat", "AAA", str(day(5)))}
    assert bad_rows(report).rows() == [("AAA", day(5))]


def test_stock_that_ends_before_the_others_is_named_at_its_last_good_bar() -> None:
    raw = clean_raw()
    ended = replace(raw, bars=raw.bars.filter((pl.col("symbol") == "BBB") | until(day(15))))
    bad_end = with_cells(ended, 15, open=None)
    (finding,) = [x for x in findings(check(bad_end)) if x.rule == "ends_early"]
    # row 14 closes at 114; rows 15 to 19 follow
    assert (finding.symbol, finding.date, finding.value) == ("AAA", day(14), 114.0)
    assert finding.count == 5


def test_dividends_that_no_column_states_are_named_and_stay() -> None:
    # 2 % paid at row 5: adj_close of the rows before is scaled down, the close is not
    raw = with_factor(clean_raw(), 5, 1.02, ["adj_close"])
    report = check(raw)
    (finding,) = findings(report)
    assert (finding.rule, finding.date) == ("unstated_dividend", day(5))
    assert finding.value == pytest.approx(105 / 104 * 0.02)
    assert bad_rows(report).is_empty()


def test_what_the_source_left_out_is_in_the_report() -> None:
    left_out = pl.DataFrame(
        [("AAA", day(3), 7.0, "junk_lines", 2, "AAA.csv line 7: <html>")],
        schema=FINDINGS_SCHEMA,
        orient="row",
    )
    report = check(replace(clean_raw(), import_findings=left_out))
    (finding,) = findings(report)
    assert (finding.rule, finding.detail) == ("junk_lines", "AAA.csv line 7: <html>")
    assert bad_rows(report).is_empty()
    assert not report.has_failed


def test_dividend_above_the_close_before_is_a_defect() -> None:
    report = check(with_cells(clean_raw(), 5, dividend=104.5))
    assert ("dividend_over_price", "AAA", str(day(5))) in found(report)


def test_stale_run_is_dated_at_its_start() -> None:
    raw = clean_raw()
    stale = raw.bars.with_columns(
        pl.when(pl.col("symbol") == "AAA").then(100.0).otherwise(pl.col(name)).alias(name)
        for name in [*PRICES, "adj_close"]
    )
    runs = [x for x in findings(check(replace(raw, bars=stale))) if x.rule == "stale_run"]
    assert [(run.symbol, run.date, run.count) for run in runs] == [("AAA", day(0), 20)]


def test_symbol_without_sector_fails() -> None:
    raw = clean_raw()
    report = check(replace(raw, sectors=raw.sectors.filter(pl.col("symbol") == "AAA")))
    assert found(report) == {("symbol_without_sector", "BBB", str(day(0)))}
    assert report.has_failed


def test_symbol_with_two_sectors_fails() -> None:
    raw = clean_raw()
    report = check(replace(raw, sectors=pl.concat([raw.sectors, raw.sectors.head(1)])))
    assert found(report) == {("sector_duplicate", "AAA", "None")}
    assert report.has_failed


def test_macro_series_of_other_years_fail() -> None:
    raw = clean_raw()
    report = check(replace(raw, macro=raw.macro.with_columns(pl.col("date").dt.offset_by("-468w"))))
    assert [(x.rule, x.symbol) for x in findings(report)] == [("macro_overlap", "DGS10")]
    assert report.has_failed


def test_macro_series_that_starts_late_is_a_warning() -> None:
    raw = clean_raw()
    report = check(replace(raw, macro=raw.macro.tail(5)))
    assert found(report) == {("macro_span", "DGS10", str(day(15)))}
    assert not report.has_failed


def test_column_of_another_type_fails_by_name() -> None:
    raw = clean_raw()
    report = check(replace(raw, bars=raw.bars.cast({"volume": pl.Int64})))
    assert found(report) == {("schema", "bars.volume", "None")}
    assert report.has_failed


def test_unknown_calendar_is_refused() -> None:
    with pytest.raises(DataError, match="calendar 'MARS' is unknown"):
        validation.validate(clean_raw(), CONFIG, "MARS")


def test_report_is_written_with_every_finding(tmp_path: Path) -> None:
    write_raw(with_cells(clean_raw(), 5, volume=0.0), tmp_path)
    report = validation.validate_folder(tmp_path, load_config(market="us"))
    written = json.loads((tmp_path / validation.REPORT_NAME).read_text())
    assert report.table.height == len(written["findings"])
    assert (written["has_failed"], written["n_bars"], written["n_symbols"]) == (False, 40, 2)
    assert written["findings_by_rule"] == {"zero_volume": 1}
    assert written["findings"] == [
        {
            "symbol": "AAA",
            "date": "2019-01-09",
            "value": 0.0,
            "rule": "zero_volume",
            "count": 1,
            "detail": None,
            "severity": "warn",
            "is_excluded": False,
        }
    ]


def test_terminal_table_names_symbol_date_and_value() -> None:
    console = Console(width=120, record=True, quiet=True)
    with console.capture() as capture:
        console.quiet = False
        console.print(validation.summary(check(with_cells(clean_raw(), 5, volume=0.0))))
    (line,) = [row for row in capture.get().splitlines() if "zero_volume" in row]
    assert line.split() == ["zero_volume", "AAA", "1", "2019-01-09", "0", "warn"]


def test_factor_applied_a_day_early_is_a_gap_and_its_reversal() -> None:
    # a 2:1 split at row 6 without a flag, whose factor reached adj_close at row 5 already
    raw = with_factor(clean_raw(), 6, 0.5, PRICES)
    raw = with_factor(with_factor(raw, 5, 2.0, ["adj_close"]), 6, 0.5, ["adj_close"])
    report = check(raw)
    assert bad_rows(report).rows() == [("AAA", day(5)), ("AAA", day(6))]
    assert {
        ("adjustment_gap", "AAA", str(day(5))),
        ("adjustment_reversal", "AAA", str(day(6))),
    } <= found(report)


def test_adjusted_series_that_jumps_for_good_is_a_gap_without_reversal() -> None:
    report = check(with_factor(clean_raw(), 5, 1.5, ["adj_close"]))
    assert found(report) == {("adjustment_gap", "AAA", str(day(5)))}


def test_known_defects_of_the_real_us_data_are_named_and_do_not_fail(data_folder: Path) -> None:
    raw = folder.load(data_folder / "us_daily")
    report = check(raw)
    of_rule = {
        rule: {(x.symbol, str(x.date)) for x in findings(report) if x.rule == rule}
        for rule in report.table["rule"].unique()
    }
    untraded = of_rule["no_trade"] | of_rule["stale_repeat"]
    excluded = {(symbol, str(on)) for symbol, on in bad_rows(report).rows()}
    assert excluded - untraded == {
        ("ZBRA", "2003-08-21"),
        ("ZBRA", "2004-08-25"),
        ("TRMB", "2007-02-23"),
        ("TRMB", "2007-02-26"),
        ("KSU", "2000-07-13"),
        ("HBI", "2015-03-04"),
        # dividends booked in shares of before a reverse or forward split
        ("JCI", "2007-07-02"),
        ("LDOS", "2013-09-30"),
        ("ROST", "2015-06-12"),
        ("MET", "2017-08-07"),
        # opened, or closed, at 2/3 or twice the price of the day before and the day after
        ("CMCSA", "2004-08-02"),
        ("IRM", "2006-02-02"),
        ("GPS", "2002-11-01"),
    }
    assert not report.has_failed
    # README: 175 bars without volume (one of them not flat), 21 single days missing
    assert len(of_rule["no_trade"]) == 174
    assert of_rule["zero_volume"] == {("ODFL", "2000-08-15")}
    assert len(of_rule["calendar_gap"]) == 21
    # the real rise of 5 December 2008 is named and stays
    assert ("large_return", "HIG", "2008-12-05") in found(report)
