"""What a profile leaves open, the data decide: sectors, features and spans."""

from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.market_schema import SpanConfig, SpansConfig, SpanShares
from hrl_sarp.contracts import Market
from hrl_sarp.data.exchange_calendar import first_sessions
from hrl_sarp.data.sources.files import folder
from hrl_sarp.data.store import OWN_FEATURES_SCHEMA, RawData
from hrl_sarp.errors import ConfigError, DataError, FeatureError, MarketError
from hrl_sarp.market.assemble import assemble_market, make_split, without_constant
from hrl_sarp.market.own.profile import cuts_of, dated_spans, describe, fit_profile, span_cuts
from tests import raw_data

SHARES = SpanShares(shares=[0.60, 0.15, 0.25])
COLUMNS = frozenset({"open", "high", "low", "close", "volume"})


def days_of(first: date, n_days: int) -> np.ndarray:
    return first_sessions("XNYS", first, n_days)


def bounds(spans: SpansConfig) -> list[str]:
    parts = (spans.train, spans.validation, spans.test)
    return [str(day) for part in parts for day in (part.start, part.end)]


def test_twenty_years_are_divided_at_the_turns_of_years() -> None:
    # 60 % of 20 years are 12, another 15 % are 3
    dates = days_of(date(2000, 1, 1), 5100)
    dates = dates[dates <= np.datetime64("2019-12-31")]
    found = dated_spans(SHARES, dates, 26)
    assert bounds(found) == [
        *("2000-01-03", "2012-01-02", "2012-01-03", "2015-01-01"),
        *("2015-01-02", "2019-12-31"),
    ]


def test_two_years_are_divided_by_sessions() -> None:
    # both bounds are nearest to the same turn of a year, so they stay where the shares put them
    dates = days_of(date(2024, 1, 1), 500)
    found = dated_spans(SHARES, dates, 26)
    assert found.validation.start == dates[300].item()
    assert found.test.start == dates[375].item()
    assert found.test.end == dates[-1].item()


def test_days_stay_as_they_are() -> None:
    spans = load_config(market="us").market_profile.spans
    assert dated_spans(spans, days_of(date(1990, 1, 1), 300), 26) is spans


@settings(max_examples=30, deadline=None)
@given(
    n_days=st.integers(200, 3000),
    offset=st.integers(0, 365),
    train=st.floats(0.3, 0.6),
    validation=st.floats(0.15, 0.3),
)
def test_shares_always_give_three_spans_that_keep_sessions_and_leave_no_gap(
    n_days: int, offset: int, train: float, validation: float
) -> None:
    dates = np.arange(n_days) + np.datetime64("2003-01-01") + offset
    shares = SpanShares(shares=[train, validation, 1 - train - validation])
    found = dated_spans(shares, dates, 26)
    split = make_split(dates, found, 21, 5)
    starts = [found.train.start, found.validation.start, found.test.start]
    ends = [found.train.end, found.validation.end, found.test.end]
    assert starts[0] == dates[0].item()
    assert ends[-1] == dates[-1].item()
    assert all((later - end).days == 1 for end, later in zip(ends, starts[1:], strict=False))
    ranges = (split.train, split.validation, split.test)
    assert all(earlier.stop <= later.start for earlier, later in pairwise(ranges))
    # half of the share is what a move to a turn of a year may take
    assert all(
        len(span) >= 0.5 * share * n_days - 27
        for span, share in zip(ranges, shares.shares, strict=True)
    )


def spans_of(*days: str) -> SpansConfig:
    marks = [date.fromisoformat(day) for day in days]
    spans = [SpanConfig(start=a, end=b) for a, b in zip(marks[::2], marks[1::2], strict=True)]
    return SpansConfig(train=spans[0], validation=spans[1], test=spans[2])


def test_a_span_that_the_data_shorten_is_told_with_both_spans_and_the_reason() -> None:
    dates = np.arange("2014-01-02", "2019-07-01", dtype="datetime64[D]")
    asked = spans_of("2012-01-01", "2016-12-31", "2017-01-01", "2017-12-31", "2018-01-01",
                     "2019-12-31")  # fmt: skip
    first, last = span_cuts(asked, dates, date(2012, 1, 3), 504)
    assert first.startswith("train span: asked 2012-01-01 to 2016-12-31, got 2014-01-02 to 2016")
    assert "the data begin 2012-01-03" in first
    assert "after 504 sessions of look-back, is 2014-01-02" in first
    assert last.startswith(
        "test span: asked 2018-01-01 to 2019-12-31, got 2018-01-01 to 2019-06-30"
    )
    assert last.endswith("the data end 2019-06-30")
    # holidays at either end are no cut
    whole = spans_of("2014-01-01", "2016-12-31", "2017-01-01", "2017-12-31", "2018-01-01",
                     "2019-07-07")  # fmt: skip
    assert span_cuts(whole, dates, date(2012, 1, 3), 504) == []


def test_days_beyond_the_data_are_refused_with_the_way_to_shares() -> None:
    spans = load_config(market="us").market_profile.spans
    cure = r"keeps no session of 0 .*shares: \[0\.60, 0\.15, 0\.25\]"
    with pytest.raises(MarketError, match=cure):
        make_split(days_of(date(2023, 1, 1), 700), spans, 21, 5)


def test_a_layer_with_shares_replaces_days_and_a_layer_with_days_replaces_shares() -> None:
    shares = {"shares": [0.5, 0.2, 0.3]}
    assert load_config(
        market="us", overrides={"market_profile": {"spans": shares}}
    ).market_profile.spans == SpanShares(**shares)
    days = load_config(market="us").market_profile.spans.model_dump()
    dated = load_config(market="own", overrides={"market_profile": {"spans": days}})
    assert isinstance(dated.market_profile.spans, SpansConfig)


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        ({"shares": [0.5, 0.2, 0.2]}, "must sum to 1, sum to 0.9"),
        ({"shares": [0.5, 0.5]}, "spans.shares: List should have at least 3"),
        ({"shares": [0.5, 0.2, 0.3], "test": {"end": "2020-01-01"}}, "found both"),
        ({"test": {"end": "2020-01-01"}}, "spans.train: required key is missing"),
    ],
)
def test_spans_that_cannot_be_meant_are_refused(spans: Any, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(market="own", overrides={"market_profile": {"spans": spans}})
    assert said in str(refused.value)
    assert "<" not in str(refused.value)


def test_features_that_the_data_cannot_serve_are_left_out_with_one_remark_each() -> None:
    raw = raw_of(2, 2, 160)
    found = fit_profile(load_config(market="us"), raw, frozenset({"open", "close"}))
    gone = {"atr_pct_14", "volume_ratio_20d", "amihud_20d", "dollar_volume_log"}
    gone |= {"implied_volatility", "implied_volatility_change_1w", "policy_rate", "credit_spread"}
    gone |= {"yield_curve_slope", *(f"{name}_momentum_20d" for name in ("dollar", "oil", "gold"))}
    profile = load_config(market="us").market_profile
    assert found.profile.stock_features == [n for n in profile.stock_features if n not in gone]
    assert found.profile.macro_features == [n for n in profile.macro_features if n not in gone]
    assert sorted(remark.split()[1] for remark in found.remarks) == sorted(gone)
    assert "feature amihud_20d left out: it needs volume, which the data lack" in found.remarks


def test_a_required_feature_is_refused_where_the_data_lack_it() -> None:
    config = load_config(
        market="us", overrides={"market_profile": {"required_features": ["credit_spread"]}}
    )
    with pytest.raises(FeatureError, match="'credit_spread' needs the series BAMLH0A0HYM2"):
        fit_profile(config, raw_of(2, 2, 160), COLUMNS)


def test_a_required_feature_must_be_one_of_the_profile() -> None:
    said = r"required_features: expected names .*found creditspread"
    changes = {"market_profile": {"required_features": ["creditspread"]}}
    with pytest.raises(ConfigError, match=said):
        load_config(market="us", overrides=changes)


def raw_of(n_sectors: int, per_sector: int, n_days: int) -> RawData:
    """Draw prices from 2023 on, of sectors that no profile knows."""
    rng = np.random.default_rng(3)
    days = days_of(date(2023, 1, 1), n_days)
    market = rng.normal(0.0, 0.01, n_days)
    symbols = [f"S{number:02d}" for number in range(n_sectors * per_sector)]
    frames = [raw_data.stock_bars(rng, days, symbol, market) for symbol in symbols]
    sectors = [(symbol, f"Branch {i // per_sector:02d}") for i, symbol in enumerate(symbols)]
    empty = raw_data.random_macro(rng, days[:1]).clear()
    return RawData(
        bars=pl.concat(frames).select(raw_data.BARS_SCHEMA.names()),
        sectors=pl.DataFrame(sectors, schema=raw_data.SECTORS_SCHEMA, orient="row"),
        macro=empty,
        index=pl.DataFrame(schema=raw_data.INDEX_SCHEMA),
        source="files",
        adjustment="adj_close",
        survivorship="complete",
    )


@pytest.fixture(scope="module")
def market() -> Market:
    """The market of 2023 to 2025 under the profile that leaves all to the data: one sector."""
    return assemble_market(raw_of(1, 6, 752), load_config(market="own"))


def test_three_years_of_prices_alone_make_a_market(market: Market) -> None:
    assert market.sector_names == ("Branch 00",)
    assert market.slots.shape[1] == 6  # no slot that no stock could fill
    split = market.split
    assert min(len(span) for span in (split.train, split.validation, split.test)) > 40
    lines = describe(market, load_config(market="own").risk)
    assert "the index of the report: 1/N of the eligible stocks, daily, gross" in cuts_of(market)
    assert market.benchmark_name == "1/N of the eligible stocks, for want of an index"
    assert lines[0].startswith("spans: train 2024-01-0")
    assert "sectors of the data: Branch 00" in lines
    assert any(line.startswith("left out, ") and "gold_momentum_20d" in line for line in lines)


def test_limits_that_leave_wealth_uninvested_are_named(market: Market) -> None:
    risk = load_config(market="us").risk
    line = next(text for text in describe(market, risk) if "limits" in text)
    assert "at most 35% of wealth" in line  # one sector under the sector cap
    assert "raise them" in line
    wide = risk.model_copy(update={"sector_cap": 1.0, "stock_cap": 0.2})
    assert not [text for text in describe(market, wide) if "limits" in text]


def test_constant_features_are_left_out_where_the_data_decide(market: Market) -> None:
    # one stock a sector: its correlation with its sector is 1 on every day
    features = market.stock_features.copy()
    features[:, :, 3] = 0.0
    still = replace(market, stock_features=features)
    found = without_constant(still, load_config(market="own").market_profile)
    name = market.feature_names[3]
    assert found.feature_names == tuple(n for n in market.feature_names if n != name)
    assert found.stock_features.shape[2] == features.shape[2] - 1
    assert (
        f"feature {name} left out: it is constant over the training span"
        in (found.manifest["remarks"])
    )
    with pytest.raises(FeatureError, match=rf"constant .*{name}"):
        without_constant(still, load_config(market="us").market_profile)
    required = load_config(
        market="own", overrides={"market_profile": {"required_features": [name]}}
    )
    with pytest.raises(FeatureError, match=rf"constant .*{name}"):
        without_constant(still, required.market_profile)


def test_a_market_without_any_sector_is_refused() -> None:
    raw = raw_of(2, 2, 160)
    with pytest.raises(MarketError, match="sectors: expected a sector for the stocks"):
        fit_profile(load_config(market="own"), replace(raw, sectors=raw.sectors.clear()), COLUMNS)


def test_a_folder_of_prices_alone_is_one_sector_with_a_note(tmp_path: Path) -> None:
    raw = raw_of(2, 2, 260)
    raw.bars.write_csv(tmp_path / "prices.csv")
    found = folder.load(tmp_path, needs_sectors=False)
    assert found.sectors["symbol"].to_list() == sorted(set(raw.bars["symbol"]))
    assert set(found.sectors["sector"]) == {folder.ONE_SECTOR}
    assert "no table of sectors: all stocks are in one sector, 'all stocks'" in found.notes


def own_table(raw: RawData, symbol: str | None, name: str, days_before_end: int) -> pl.DataFrame:
    day = raw.bars["date"].max()
    assert isinstance(day, date)
    day -= timedelta(days=days_before_end)
    return pl.DataFrame([(day, day, symbol, name, 1.0)], schema=OWN_FEATURES_SCHEMA, orient="row")


@pytest.mark.parametrize("symbol", ["S0", None])
@pytest.mark.parametrize(("days", "is_seen"), [(400, True), (1, True), (0, False), (-3000, False)])
def test_a_feature_of_which_no_close_sees_a_value_is_left_out_with_the_reason(
    symbol: str | None, days: int, *, is_seen: bool
) -> None:
    raw = raw_of(2, 2, 160)
    raw = replace(raw, own_features=own_table(raw, symbol, "mood", days))
    found = fit_profile(load_config(market="own"), raw, COLUMNS | {"mood"})
    names = [*found.profile.stock_features, *found.profile.macro_features]
    assert ("mood" in names) == is_seen
    assert ("own feature mood added" in found.remarks) == is_seen
    told = [line for line in found.remarks if "mood left out: it has its first value" in line]
    assert bool(told) != is_seen


@pytest.mark.parametrize("name", ["VIX", "T10Y2Y", "SURVEY"])
def test_a_series_that_stands_in_both_tables_of_the_market_is_refused(name: str) -> None:
    raw = raw_of(2, 2, 160)
    series = raw.bars.head(1).select("date", series=pl.lit(name), value=pl.lit(1.0))
    own = own_table(raw, None, name, 100)
    with pytest.raises(DataError, match=f"{name}: .*in macro_features and in the macro"):
        fit_profile(
            load_config(market="own"), replace(raw, own_features=own, macro=series), COLUMNS
        )
    # a feature of stocks may share the name
    fit_profile(
        load_config(market="own"),
        replace(raw, own_features=own_table(raw, "S0", name, 100), macro=series),
        COLUMNS | {name},
    )


@pytest.mark.parametrize(
    ("series", "unread"),
    [
        (["VIX", "VIXCLS"], []),  # the same numbers, read from the first
        (["VIX", "IRX", "FEDFUNDS", "ETF_XLK"], []),
        (["VIX", "ICSA"], ["ICSA"]),
        (["VIXCLS", "ICSA", "DGS10"], ["DGS10", "ICSA"]),
    ],
)
def test_a_market_names_the_series_that_it_cannot_use(series: list[str], unread: list[str]) -> None:
    raw = raw_of(1, 6, 752)
    days = raw.bars.select("date").unique().sort("date")
    value = 20.0 + pl.int_range(pl.len()).mul(7).mod(11).cast(pl.Float64)
    tables = [days.select("date", series=pl.lit(name), value=value) for name in series]
    made = assemble_market(replace(raw, macro=pl.concat(tables)), load_config(market="own"))
    told = [line for line in describe(made, load_config(market="own").risk) if "no feature" in line]
    assert [line.split(" of the macro")[0] for line in told] == (
        [f"no feature reads {', '.join(unread)}"] if unread else []
    )
