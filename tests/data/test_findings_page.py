"""The page of a validation: a row a rule and symbol, and a picture of each kind of finding."""

from pathlib import Path

import numpy as np
import polars as pl

from hrl_sarp.data.findings_page import PAGE_NAME, write_page
from hrl_sarp.data.quality.validation import summary
from hrl_sarp.features.prices import levels_around
from tests.data.quality.noisy_raw import LEVELS, SESSIONS, checked, noisy_raw, scaled


def test_repeated_findings_are_one_row_with_count_and_first_day() -> None:
    raw = scaled(noisy_raw(), slice(30, 33), volume=0.0)
    report, _ = checked(raw)
    (row,) = summary(report).rows
    assert row == ("zero_volume", "AAA", "3", str(SESSIONS[30]), "0", "warn", "")


def test_symbols_beyond_the_first_are_counted() -> None:
    report, _ = checked(scaled(noisy_raw(), slice(30, 31), volume=0.0))
    names = [f"S{number:02d}" for number in range(40)]
    many = pl.concat(report.table.with_columns(symbol=pl.lit(name)) for name in names)
    rows = summary(type(report)(many, 1, 1)).rows
    assert [row[1] for row in rows[-2:]] == ["S14", "25 further symbols"]
    assert rows[-1][2] == "25"


def test_page_shows_the_price_in_the_files_and_as_the_market_reads_it(tmp_path: Path) -> None:
    raw = scaled(noisy_raw(), slice(40, 42), **dict.fromkeys(LEVELS, 100.0))
    report, _ = checked(raw)
    levels = levels_around(raw, report, ["Energy"])
    assert levels is not None
    assert set(levels["symbol"]) == {"AAA"}
    assert np.abs(np.diff(np.log(levels["value"].to_numpy()))).max() < 0.1
    text = write_page(tmp_path, raw, report, levels).read_text()
    assert (tmp_path / PAGE_NAME).is_file()
    for rule in report.table["rule"].unique():
        assert f"{rule}: AAA around" in text
    assert text.count("<svg") == 2 * report.table["rule"].n_unique()
    assert "warn" in text.split("AAA around")[1].split("</figcaption>")[0]


def test_page_of_data_that_make_no_market_has_the_prices_alone(tmp_path: Path) -> None:
    raw = scaled(noisy_raw(), slice(40, 42), **dict.fromkeys(LEVELS, 100.0))
    report, _ = checked(raw)
    assert levels_around(raw, report, ["Utilities"]) is None
    assert "<svg" in write_page(tmp_path, raw, report, None).read_text()
