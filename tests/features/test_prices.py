"""Bars to returns: splits, dividends, halts, leavers and defects."""

import datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from hrl_sarp.data.store import BARS_SCHEMA, INDEX_SCHEMA, MACRO_SCHEMA, SECTORS_SCHEMA, RawData
from hrl_sarp.errors import MarketError
from hrl_sarp.features.prices import PricePanel, build_panel
from hrl_sarp.features.technical import row_mean

NONE_FOUND = pl.DataFrame(schema={"symbol": pl.String, "date": pl.Date, "rule": pl.String})
OTHER = ("OTHER", "Alpha")


def _day(number: int) -> datetime.date:
    return datetime.date(2010, 3, 1) + datetime.timedelta(days=number)


def _build(
    rows: list[tuple[int, dict[str, Any]]],
    findings: tuple[tuple[int, str], ...] = (),
    n_days: int = 6,
    **columns: Any,
) -> PricePanel:
    """Build symbol X from (day, cells) beside a stock that trades from day 0 on."""
    plain = {"dividend": 0.0, "split": 1.0, "volume": 10.0}
    bars = [{**plain, "symbol": "X", "date": _day(number), **cells} for number, cells in rows]
    flat = dict.fromkeys(("open", "high", "low", "close", "adj_close"), 1.0)
    bars += [{**plain, **flat, "symbol": "OTHER", "date": _day(number)} for number in range(n_days)]
    frame = pl.DataFrame(bars, schema=BARS_SCHEMA).with_columns(
        pl.lit(value, dtype=pl.Float64).alias(name) for name, value in columns.items()
    )
    raw = RawData(
        bars=frame.sort("symbol", "date"),
        sectors=pl.DataFrame([("X", "Beta"), OTHER], schema=SECTORS_SCHEMA, orient="row"),
        macro=pl.DataFrame(schema=MACRO_SCHEMA),
        index=pl.DataFrame(schema=INDEX_SCHEMA),
        source="files",
        adjustment="",
        survivorship="",
    )
    found = pl.DataFrame(
        [("X", _day(number), rule) for number, rule in findings], NONE_FOUND.schema, orient="row"
    )
    return build_panel(raw, found, ["Alpha", "Beta"])


def _bar(opening: float, close: float, adjusted: float, **more: float) -> dict[str, float]:
    high, low = max(opening, close), min(opening, close)
    return {"open": opening, "high": high, "low": low, "close": close, "adj_close": adjusted} | more


SPLIT_AND_DIVIDEND = [
    (0, _bar(99.0, 100.0, 20.0)),
    (1, _bar(51.0, 50.0, 20.0, split=2.0)),  # 2 x 50 / 100: flat
    (2, _bar(49.0, 49.5, 20.2, dividend=1.0)),  # (49.5 + 1) / 50: +1 %
]


@pytest.mark.parametrize("adjusted", ["given", "made"])
def test_returns_around_a_split_and_a_dividend(adjusted: str) -> None:
    columns = {"adj_close": None} if adjusted == "made" else {}
    panel = _build(SPLIT_AND_DIVIDEND, **columns)
    # the adjusted open of day 1 is 51 x 20 / 50 = 20.4 on 20; of day 2 the dividend is in the night
    np.testing.assert_allclose(
        panel.overnight_return[:3, 1], [0.0, 0.02, 1.01 / (49.5 / 49.0) - 1], atol=1e-12
    )
    np.testing.assert_allclose(
        panel.intraday_return[:3, 1], [1 / 99, -1 / 51, 0.5 / 49], atol=1e-12
    )
    total = (1 + panel.overnight_return[1:3, 1]) * (1 + panel.intraday_return[1:3, 1]) - 1
    np.testing.assert_allclose(total, [0.0, 0.01], atol=1e-12)


def test_closes_only_put_the_whole_move_into_the_night() -> None:
    panel = _build(SPLIT_AND_DIVIDEND, open=None, high=None, low=None, volume=None)
    np.testing.assert_allclose(panel.overnight_return[:3, 1], [0.0, 0.0, 0.01], atol=1e-12)
    assert not panel.intraday_return.any()
    assert panel.columns == {"close"}
    assert not np.nan_to_num(panel.dollar_volume).any()


def test_the_range_of_a_session_is_a_variance() -> None:
    rows = [
        (0, _bar(10, 10, 10)),
        (1, _bar(10, 11, 11) | {"high": 12.0, "low": 9.0}),
        (3, _bar(11, 11, 11) | {"high": None, "low": None}),  # its move since row 1 is 0
        (4, _bar(12, 12, 12) | {"high": None, "low": None}),
    ]
    found = _build(rows).range_variance
    assert found is not None
    log_range, day = np.log(12 / 9), np.log(11 / 10)
    garman_klass = 0.5 * log_range**2 - (2 * np.log(2) - 1) * day**2
    expected = [0, garman_klass, 0, 0, np.log(12 / 11) ** 2, 0]
    np.testing.assert_allclose(found[:, 1], expected, atol=1e-12)
    without_open = _build(rows, open=None).range_variance
    assert without_open is not None
    assert without_open[1, 1] == pytest.approx(log_range**2 / (4 * np.log(2)))
    assert _build(rows, high=None).range_variance is None


def test_after_a_halt_the_night_runs_from_the_last_valid_close() -> None:
    rows = [(0, _bar(10, 10, 10)), (3, _bar(12, 13, 13)), (5, _bar(13, 13, 13))]
    panel = _build(rows)
    assert panel.listed[:, 1].all()
    assert panel.tradable[:, 1].tolist() == [True, False, False, True, False, True]
    np.testing.assert_allclose(panel.overnight_return[:, 1], [0, 0, 0, 0.2, 0, 0], atol=1e-12)
    np.testing.assert_allclose(panel.intraday_return[:, 1], [0, 0, 0, 1 / 12, 0, 0], atol=1e-12)


def test_a_stock_that_ends_is_not_listed_from_the_session_after_its_last_bar() -> None:
    panel = _build([(1, _bar(10, 10, 10)), (2, _bar(10, 11, 11))])
    assert panel.listed[:, 1].tolist() == [False, True, True, False, False, False]
    assert not panel.overnight_return[3:, 1].any()


def test_rows_that_a_source_prints_after_the_end_do_not_prolong_a_stock() -> None:
    # the shape of SIVB: a last trade at 0.475, a year later the price of before the collapse
    rows = [(0, _bar(1, 0.5, 0.5)), (1, _bar(0.5, 0.475, 0.475)), (4, _bar(106, 106, 106))]
    panel = _build(rows, ((4, "stale_repeat"),))
    assert panel.listed[:, 1].tolist() == [True, True, False, False, False, False]
    assert not panel.overnight_return[2:, 1].any()


def test_a_bad_row_counts_as_a_halt() -> None:
    rows = [(0, _bar(10, 10, 10)), (1, _bar(99, 10.5, 10.5)), (2, _bar(11, 11, 11))]
    panel = _build(rows, ((1, "ohlc_inconsistent"),))
    assert not panel.tradable[1, 1]
    assert panel.listed[1, 1]
    np.testing.assert_allclose(panel.overnight_return[:3, 1], [0, 0, 0.1], atol=1e-12)
    assert np.isnan(panel.dollar_volume[1, 1])


@pytest.mark.parametrize(
    ("found", "is_session"),
    [(("off_session", "no_trade"), False), (("off_session",), True), (("no_trade",), True)],
)
def test_a_day_without_a_session_and_without_trades_is_no_row(
    found: tuple[str, ...], *, is_session: bool
) -> None:
    # the close of 100 once more with a split for the next bar: 2 x 50 / 100 is flat
    flat = _bar(100.0, 100.0, 0.0)
    rows = [(0, flat), (1, flat), (2, {**flat, "split": 2.0}), (3, _bar(50.0, 50.0, 0.0))]
    findings = tuple((2, rule) for rule in found)
    panel = _build(rows, findings, n_days=2, adj_close=None)
    assert panel.dates.tolist() == [_day(n) for n in (0, 1, 2, 3) if n != 2 or is_session]
    if not is_session:
        np.testing.assert_allclose(panel.overnight_return[:, 1], 0.0, atol=1e-12)
        assert panel.tradable[:, 1].all()


def test_a_lasting_jump_of_the_adjusted_series_earns_nothing() -> None:
    # the shape of ZBRA 2003-08-21: the close is flat, adj_close jumps by a half and stays
    rows = [(0, _bar(80, 80, 40)), (1, _bar(80, 80, 60)), (2, _bar(82, 84, 63))]
    panel = _build(rows, ((1, "adjustment_gap"),))
    np.testing.assert_allclose(panel.overnight_return[:3, 1], 0.0, atol=1e-12)
    np.testing.assert_allclose(panel.intraday_return[:3, 1], [0, 0, 84 / 82 - 1], atol=1e-12)


@pytest.mark.parametrize("more_bars", [0, 1, 4, 5, 6])
def test_a_fall_just_before_a_stock_ceases_is_earned_even_if_it_looks_like_a_split(
    more_bars: int,
) -> None:
    bars = [_bar(100, 100, 100), _bar(50, 50, 50), *[_bar(50, 50, 50)] * more_bars]
    # the other stock goes on to day 8
    panel = _build(list(enumerate(bars)), ((1, "undeclared_split"),), n_days=9)
    expected = -0.5 if more_bars < 5 else 0.0
    assert panel.overnight_return[1, 1] == pytest.approx(expected)


def test_a_split_just_before_the_data_end_is_not_earned() -> None:
    bars = [_bar(100, 100, 100)] * 5 + [_bar(50, 50, 50)]
    panel = _build(list(enumerate(bars)), ((5, "undeclared_split"),))
    assert panel.overnight_return[5, 1] == 0


def test_a_jump_that_is_taken_back_leaves_the_true_move() -> None:
    # the shape of TRMB 2007-02-23 and -26: twice the price for a day; 40 -> 44 is true
    rows = [
        (0, _bar(80, 80, 40)),
        (1, _bar(80, 80, 80)),
        (2, _bar(82, 84, 42)),
        (3, _bar(84, 88, 44)),
    ]
    panel = _build(rows, ((1, "adjustment_gap"), (2, "adjustment_reversal")))
    assert panel.tradable[:4, 1].tolist() == [True, False, False, True]
    assert panel.overnight_return[3, 1] == pytest.approx(0.05)  # 84 on 80


def test_non_positive_prices_are_no_bars() -> None:
    rows = [(0, _bar(10, 10, 10)), (1, _bar(0, 0, 0)), (2, _bar(11, 11, 11))]
    panel = _build(rows, ((1, "non_positive_price"),))
    assert not panel.tradable[1, 1]
    assert panel.overnight_return[2, 1] == pytest.approx(0.1)
    assert np.isfinite(panel.overnight_return).all()


def test_sectors_that_do_not_fit_the_profile_are_named() -> None:
    raw_sectors = "Alpha, Beta"
    panel = _build(SPLIT_AND_DIVIDEND)
    assert panel.symbols == ("OTHER", "X")
    with pytest.raises(MarketError, match=raw_sectors):
        _build_with_sectors(["Gamma"])


def _build_with_sectors(names: list[str]) -> None:
    bars = pl.DataFrame([{"symbol": "X", "date": _day(0), **_bar(1, 1, 1)}], schema=BARS_SCHEMA)
    sectors = pl.DataFrame([("X", "Beta"), OTHER], schema=SECTORS_SCHEMA, orient="row")
    empty = (pl.DataFrame(schema=MACRO_SCHEMA), pl.DataFrame(schema=INDEX_SCHEMA))
    build_panel(RawData(bars, sectors, *empty, "files", "", ""), NONE_FOUND, names)


def test_means_do_not_change_a_bit_when_empty_columns_appear() -> None:
    values = np.random.default_rng(0).normal(size=(50, 33))
    wider = np.insert(values, [3, 3, 20, 33], np.nan, axis=1)
    np.testing.assert_array_equal(row_mean(wider), row_mean(values))


def test_symbol_without_adjusted_closes_earns_by_its_own_splits_and_dividends() -> None:
    rows = [(number, {**cells, "adj_close": None}) for number, cells in SPLIT_AND_DIVIDEND]
    alone = _build(rows, n_days=3)  # OTHER has adj_close
    j = alone.symbols.index("X")
    assert alone.tradable[:, j].all()
    total = (1 + alone.overnight_return[1:, j]) * (1 + alone.intraday_return[1:, j]) - 1
    # 2 x 50 / 100 is flat, (49.5 + 1) / 50 is +1 %
    np.testing.assert_allclose(total, [0.0, 0.01], atol=1e-12)


def test_prices_and_sectors_that_share_no_symbol_are_refused_with_the_twin() -> None:
    bars = [{"symbol": "BRK.B", "date": _day(number), **_bar(1.0, 1.0, 1.0)} for number in range(3)]
    raw = RawData(
        bars=pl.DataFrame(bars, schema=BARS_SCHEMA),
        sectors=pl.DataFrame([("BRK-B", "Alpha")], schema=SECTORS_SCHEMA, orient="row"),
        macro=pl.DataFrame(schema=MACRO_SCHEMA),
        index=pl.DataFrame(schema=INDEX_SCHEMA),
        source="files",
        adjustment="",
        survivorship="",
    )
    with pytest.raises(MarketError, match=r"no stock has a sector: .*'BRK\.B' \(is it 'BRK-B'\?\)"):
        build_panel(raw, NONE_FOUND, ["Alpha", "Beta"])
