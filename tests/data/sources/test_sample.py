"""The bundled sample: offline, complete and mapped to sectors."""

import polars as pl
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.data.quality import validation
from hrl_sarp.data.sources import sample
from hrl_sarp.data.store import BARS_SCHEMA, RawData


@pytest.fixture(scope="module")
def raw() -> RawData:
    return sample.load()


def test_sample_has_20_stocks_over_33_years(raw: RawData) -> None:
    assert raw.bars.schema == BARS_SCHEMA
    # skfolio's documentation: 8,313 observations of 20 assets, 1990-01-02 to 2022-12-28
    assert raw.bars.height == 20 * 8313
    assert str(raw.bars["date"].min()) == "1990-01-02"
    assert str(raw.bars["date"].max()) == "2022-12-28"
    assert raw.index.height == 8313


def test_known_closes_stand_in_their_cells(raw: RawData) -> None:
    # first rows of skfolio's documentation of load_sp500_index
    assert raw.index.row(0)[1] == 359.69
    last = raw.bars.filter(pl.col("symbol") == "AAPL").row(-1, named=True)
    # Apple closed at 126.04 on 28 December 2022; dividends paid since then are adjusted out
    assert 0.99 * 126.04 < last["close"] < 126.04
    assert last["close"] == last["adj_close"]
    assert last["open"] is None
    assert last["volume"] is None


def test_every_symbol_has_one_gics_sector_of_the_profile(raw: RawData) -> None:
    assert raw.sectors["symbol"].to_list() == raw.bars["symbol"].unique().sort().to_list()
    profile = load_config(market="sample").market_profile
    assert set(raw.sectors["sector"]) <= set(profile.sectors)


def test_sample_passes_validation(raw: RawData) -> None:
    report = validation.validate(raw, load_config().data.validation, "XNYS")
    assert not report.has_failed
    assert validation.bad_rows(report).is_empty()
