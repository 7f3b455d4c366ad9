"""The assembled market as a whole: rows, masks, weeks, splits, refusals, and the planted signal."""

import dataclasses
import datetime

import numpy as np
import polars as pl
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.market_schema import SpanConfig, SpansConfig
from hrl_sarp.contracts import DayRange, Market
from hrl_sarp.data.exchange_calendar import first_sessions
from hrl_sarp.data.sources import synthetic
from hrl_sarp.errors import FeatureError, MarketError
from hrl_sarp.features.labels import stock_label
from hrl_sarp.market.assemble import assemble_market, make_split, week_ends, without_constant
from hrl_sarp.market.own.profile import CURE
from tests import raw_data

N_DAYS = 700
HUNDRED_DAYS = np.arange("2001-01-01", "2001-04-11", dtype="datetime64[D]")


@pytest.fixture(scope="module")
def market() -> Market:
    raw = raw_data.random_raw(np.random.default_rng(0), N_DAYS)
    return assemble_market(raw, raw_data.small_config("us", N_DAYS))


def test_rows_begin_at_the_first_year_start_with_a_full_lookback(market: Market) -> None:
    # 2005 has 252 sessions, so the first session of 2006 has exactly the look-back before it
    assert market.dates[0] == np.datetime64("2006-01-03")
    assert market.n_days == N_DAYS - 252


def test_nothing_is_nan_and_shapes_agree(market: Market) -> None:
    for field in dataclasses.fields(market):
        value = getattr(market, field.name)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            assert np.isfinite(value).all(), field.name
    assert market.stock_features.dtype == np.float32
    assert market.overnight_return.dtype == np.float64
    assert market.stock_features.shape == (market.n_days, market.n_assets, 22)
    assert market.macro_features.shape == (market.n_days, 17)
    assert market.portfolio_names == ("portfolio_drawdown",)  # the 18th: the environment has it


def test_risk_is_known_without_gaps_and_only_where_the_objective_needs_it(market: Market) -> None:
    assert market.risk is not None
    for field in dataclasses.fields(market.risk):
        value = getattr(market.risk, field.name)
        if isinstance(value, np.ndarray):
            assert np.isfinite(value).all(), field.name
            assert len(value) == market.n_days
    assert {"log_implied_volatility", "log_range_over_close"} < set(market.risk.input_names)
    raw = raw_data.random_raw(np.random.default_rng(0), N_DAYS)
    config = raw_data.small_config("us", N_DAYS)
    growth = config.objective.model_copy(update={"kind": "growth"})
    assert assemble_market(raw, config.model_copy(update={"objective": growth})).risk is None


def test_implied_volatility_is_a_fraction_and_ranges_are_of_bars(market: Market) -> None:
    raw = raw_data.random_raw(np.random.default_rng(0), N_DAYS)
    points = raw.macro.filter(pl.col("series").is_in(["VIX", "VIXCLS"])).sort("date")
    last = points.filter(pl.col("date") <= market.dates[-1].item())["value"].drop_nulls()[-1]
    assert market.implied_volatility is not None
    assert market.range_variance is not None
    assert market.implied_volatility[-1] == pytest.approx(last / 100)
    assert (market.range_variance[~market.tradable] == 0).all()
    assert (market.range_variance[market.tradable] > 0).mean() > 0.99


def test_returns_are_zero_without_a_bar(market: Market) -> None:
    halted = market.listed & ~market.tradable
    assert halted.any()
    assert not market.overnight_return[~market.tradable].any()
    assert not market.intraday_return[~market.tradable].any()
    assert not market.stock_features[~market.tradable].any()


def test_slots_hold_the_eligible_of_their_sector_once(market: Market) -> None:
    slots = market.slots.reshape(market.n_days, market.n_sectors, -1)
    for t in (0, 100, market.n_days - 1):
        held = market.slots[t][market.slots[t] >= 0]
        assert len(held) == len(set(held))
        assert set(held) == set(np.flatnonzero(market.eligible[t]))
        for sector in range(market.n_sectors):
            inside = slots[t, sector][slots[t, sector] >= 0]
            assert (market.sector_of[inside] == sector).all()
    assert not (market.eligible & ~market.listed).any()


def test_a_stock_keeps_its_slot_within_a_year(market: Market) -> None:
    years = market.dates.astype("datetime64[Y]")
    same_year = years[1:] == years[:-1]
    before, after = market.slots[:-1][same_year], market.slots[1:][same_year]
    assert ((after == before) | (after == -1)).all()


def test_the_leaver_is_unlisted_after_its_last_bar(market: Market) -> None:
    column = market.symbols.index("A2")
    last_bar = raw_data.sessions(N_DAYS)[519]
    after = market.dates > last_bar
    assert market.listed[~after, column].all()
    assert not market.listed[after, column].any()
    assert not market.eligible[after, column].any()


def test_manifest_says_what_was_fitted_where(market: Market) -> None:
    train = market.split.train
    assert market.manifest["fitted_span"] == [
        str(market.dates[train.start]),
        str(market.dates[train.stop - 1]),
    ]
    assert "FEDFUNDS" in market.manifest["risk_free"]
    assert "sector funds" in market.manifest["benchmark"]


def test_week_ends_follow_the_published_calendar() -> None:
    dates = first_sessions("XNYS", datetime.date(2001, 9, 3), 260)
    marked = dates[week_ends(dates, "XNYS")]
    for friday in ("2001-09-07", "2001-09-28"):
        assert np.datetime64(friday) in marked
    # 2002-03-29 is Good Friday: the four-session week ends on Thursday
    assert np.datetime64("2002-03-28") in marked
    # the week of 2001-09-11 had one session
    assert np.datetime64("2001-09-10") in marked
    # every week has one, but for the last, which the data leave on a Thursday
    assert len(marked) == len(np.unique((dates.astype(np.int64) + 3) // 7)) - 1


def test_week_ends_do_not_look_at_the_datas_next_row() -> None:
    dates = first_sessions("XNYS", datetime.date(2002, 3, 25), 10)
    for stop in (3, 4, 5, 8):
        np.testing.assert_array_equal(
            week_ends(dates[:stop], "XNYS"), week_ends(dates, "XNYS")[:stop]
        )


def test_a_bad_bar_is_kept_out_and_counted() -> None:
    raw = raw_data.random_raw(np.random.default_rng(0), N_DAYS)
    day = raw_data.sessions(N_DAYS)[400].item()
    bad = (pl.col("symbol") == "A0") & (pl.col("date") == day)
    lasting = (pl.col("symbol") == "A0") & (pl.col("date") >= day)
    bars = raw.bars.with_columns(
        adj_close=pl.when(lasting).then(pl.col("adj_close") * 1.5).otherwise(pl.col("adj_close"))
    )
    config = raw_data.small_config("us", N_DAYS)
    found = assemble_market(dataclasses.replace(raw, bars=bars), config)
    column, row = found.symbols.index("A0"), int(np.searchsorted(found.dates, day))
    assert raw.bars.filter(bad).height == 1
    assert not found.tradable[row, column]
    assert found.manifest["rows_kept_out"] == 1
    assert np.abs(found.overnight_return[:, column]).max() < 0.2


def test_a_profile_that_does_not_fit_lists_everything_to_change() -> None:
    raw = raw_data.closes_only(raw_data.random_raw(np.random.default_rng(0), N_DAYS))
    names = ["atr_pct_14", "amihud_20d", "overnight_return_20d", "policy_rate"]
    config = raw_data.small_config("us", N_DAYS, required_features=names)
    with pytest.raises(FeatureError) as error:
        assemble_market(raw, config)
    message = str(error.value)
    assert all(name in message for name in names)
    assert "gold" not in message  # left out, as nobody requires it


def test_a_constant_feature_is_refused_by_name(market: Market) -> None:
    still = market.stock_features.copy()
    still[:, :, 3] = 0.0
    macro = market.macro_features.copy()
    macro[:, 5] = 1.0
    changed = dataclasses.replace(market, stock_features=still, macro_features=macro)
    with pytest.raises(FeatureError, match="momentum_12_1, dollar_momentum_20d"):
        without_constant(changed, load_config(market="us").market_profile)


def test_too_short_a_history_says_what_there_is() -> None:
    raw = raw_data.random_raw(np.random.default_rng(0), N_DAYS)
    early = raw.bars.filter(pl.col("date") < datetime.date(2005, 12, 1))
    with pytest.raises(MarketError, match=r"no universe.*from 2005-01-03 to 2005-11-30"):
        assemble_market(dataclasses.replace(raw, bars=early), raw_data.small_config("us", N_DAYS))


def test_the_planted_signal_predicts_the_next_day_as_planted() -> None:
    spans = {
        "train": {"start": datetime.date(2001, 1, 1), "end": datetime.date(2002, 3, 31)},
        "validation": {"start": datetime.date(2002, 4, 1), "end": datetime.date(2002, 8, 30)},
        "test": {"start": datetime.date(2002, 9, 2), "end": datetime.date(2003, 12, 31)},
    }
    config = load_config(
        market="synthetic",
        overrides={"data": {"synthetic": {"n_days": 850}}, "market_profile": {"spans": spans}},
    )
    section = config.data.synthetic
    days = first_sessions(config.market_profile.calendar, section.start, section.n_days)
    market = assemble_market(synthetic.generate(section, days)[0], config)
    label, valid = stock_label(market, 1)
    signal = market.stock_features[valid, :, market.feature_names.index("planted_signal")]
    noise = market.stock_features[valid, :, market.feature_names.index("noise_01")]
    # fill to fill: 0.7 beta x(t) in the day and 0.3 beta x(t+1) in the night, x(t+1) ~ 0.9 x(t):
    # 0.97 x 0.15 %, over sqrt(0.7^2 + 0.3^2) x sqrt(1.5^2 + 0.8^2) % of noise: 0.11
    assert _daily_correlation(signal, label[valid]) == pytest.approx(0.11, abs=0.02)
    assert abs(_daily_correlation(noise, label[valid])) < 0.02
    assert market.is_week_end.sum() == (market.dates.astype(np.int64) % 7 == 1).sum()  # Fridays


def _daily_correlation(feature: np.ndarray, label: np.ndarray) -> float:
    days = [np.corrcoef(x, y)[0, 1] for x, y in zip(feature, label, strict=True)]
    return float(np.mean(days))


def _spans(*bounds: tuple[str, str]) -> SpansConfig:
    spans = [
        SpanConfig(start=datetime.date.fromisoformat(a), end=datetime.date.fromisoformat(b))
        for a, b in bounds
    ]
    return SpansConfig(train=spans[0], validation=spans[1], test=spans[2])


def test_spans_are_purged_at_the_end_and_embargoed_at_the_start() -> None:
    spans = _spans(
        ("2001-01-01", "2001-02-19"), ("2001-02-20", "2001-03-21"), ("2001-03-22", "2009-01-01")
    )
    split = make_split(HUNDRED_DAYS, spans, purge_days=10, embargo_days=3)
    # 50, 30 and 20 days; a test span may reach past the data
    assert split.train == DayRange(0, 40)
    assert split.validation == DayRange(53, 70)
    assert split.test == DayRange(83, 100)


def test_empty_and_overlapping_spans_are_named_with_the_dates_there_are() -> None:
    spans = _spans(
        ("2001-01-01", "2001-02-19"), ("2001-02-10", "2001-03-21"), ("2005-01-01", "2006-01-01")
    )
    with pytest.raises(MarketError) as error:
        make_split(HUNDRED_DAYS, spans, purge_days=10, embargo_days=3)
    assert str(error.value) == (
        "spans of the market profile: validation starts 2001-02-10, not after the end of train "
        "2001-02-19; test 2005-01-01 to 2006-01-01 keeps no session of 0 after 10 purged and 3 "
        "embargoed; the market has sessions from 2001-01-01 to 2001-04-10: change `spans` in "
        f"config/markets/, collect more data, or {CURE}"
    )
    # one day is shared, and three sessions are fewer than a span loses
    spans = _spans(
        ("2001-01-01", "2001-02-19"), ("2001-02-19", "2001-03-21"), ("2001-03-22", "2001-03-24")
    )
    with pytest.raises(MarketError) as error:
        make_split(HUNDRED_DAYS, spans, purge_days=10, embargo_days=3)
    assert "validation starts 2001-02-19, not after the end of train 2001-02-19;" in str(
        error.value
    )
    assert "test 2001-03-22 to 2001-03-24 keeps no session of 3 after" in str(error.value)
