"""Whatever happens after day t, every row up to t stays the same to the last bit."""

import dataclasses
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from hrl_sarp.contracts import Market
from hrl_sarp.data.store import RawData
from hrl_sarp.features.regime import RegimeModel
from hrl_sarp.market.assemble import assemble_market
from tests import raw_data

N_DAYS = 700
MODEL = RegimeModel(
    centre=np.array([0.001, 0.01]),
    scale=np.array([0.02, 0.004]),
    start=np.array([0.2, 0.3, 0.5]),
    transition=np.array([[0.90, 0.05, 0.05], [0.04, 0.92, 0.04], [0.03, 0.03, 0.94]]),
    means=np.array([[-0.5, 1.0], [0.5, 0.0], [0.0, -0.5]]),
    covariances=np.tile(np.eye(2), (3, 1, 1)),
)
"""Fixed: a fit on the training span would rightly move when that span is changed."""


def truncate(raw: RawData, day: np.datetime64) -> RawData:
    """Cut everything after the day."""
    keep = pl.col("date") <= day.item()
    return dataclasses.replace(
        raw,
        bars=raw.bars.filter(keep),
        macro=raw.macro.filter(keep),
        index=raw.index.filter(keep),
    )


def corrupt(raw: RawData, day: np.datetime64) -> RawData:
    """Replace every later number by another one of its kind; dates and symbols stay."""
    rng = np.random.default_rng(1)
    after = pl.col("date") > day.item()

    def scaled(frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
        factor = pl.Series("factor", rng.uniform(0.5, 2.0, frame.height))
        return frame.with_columns(
            pl.when(after).then(pl.col(name) * factor).otherwise(pl.col(name)).alias(name)
            for name in columns
        )

    prices = ("open", "high", "low", "close", "adj_close", "volume")
    return dataclasses.replace(
        raw,
        bars=scaled(raw.bars, *prices),
        macro=scaled(raw.macro, "value"),
        index=scaled(raw.index, "close"),
    )


def permute(raw: RawData, day: np.datetime64) -> RawData:
    """Shuffle the later numbers of each symbol and series among their dates."""
    rng = np.random.default_rng(2)

    def shuffled(frame: pl.DataFrame, group: str | None) -> pl.DataFrame:
        if frame.is_empty():
            return frame
        parts = frame.partition_by(group, maintain_order=True) if group else [frame]
        done = []
        for part in parts:
            past = part.filter(pl.col("date") <= day.item())
            later = part.filter(pl.col("date") > day.item())
            order = rng.permutation(later.height)
            done += [past, later.select(pl.exclude("date"))[order].insert_column(0, later["date"])]
        return pl.concat(part.select(frame.columns) for part in done)

    return dataclasses.replace(
        raw,
        bars=shuffled(raw.bars, "symbol"),
        macro=shuffled(raw.macro, "series"),
        index=shuffled(raw.index, None),
    )


def _assert_same_until(expected: Market, found: Market, day: np.datetime64) -> None:
    n_rows = int(np.searchsorted(expected.dates, day, side="right"))
    column = {symbol: index for index, symbol in enumerate(found.symbols)}
    common = [symbol for symbol in expected.symbols if symbol in column]
    left = [expected.symbols.index(symbol) for symbol in common]
    right = [column[symbol] for symbol in common]
    assert n_rows > 50
    np.testing.assert_array_equal(found.dates[:n_rows], expected.dates[:n_rows])
    tables = ("stock_features", "overnight_return", "intraday_return", "eligible")
    for name in (*tables, "tradable", "dollar_volume"):
        before, after = getattr(expected, name), getattr(found, name)
        for index, feature in enumerate(expected.feature_names if before.ndim == 3 else (name,)):
            parts = (before[..., index], after[..., index]) if before.ndim == 3 else (before, after)
            np.testing.assert_array_equal(
                parts[0][:n_rows, left], parts[1][:n_rows, right], err_msg=feature
            )
    for index, feature in enumerate(expected.macro_names):
        np.testing.assert_array_equal(
            found.macro_features[:n_rows, index],
            expected.macro_features[:n_rows, index],
            err_msg=feature,
        )
    for name in ("filtered_regime", "is_week_end", "risk_free", "benchmark_return"):
        np.testing.assert_array_equal(
            getattr(found, name)[:n_rows], getattr(expected, name)[:n_rows], err_msg=name
        )
    assert _slot_symbols(found, n_rows) == _slot_symbols(expected, n_rows)


def _slot_symbols(market: Market, n_rows: int) -> list[list[str]]:
    names = (*market.symbols, "empty")  # slot -1 reads the last entry
    return [[names[asset] for asset in row] for row in market.slots[:n_rows]]


@pytest.fixture(scope="module", params=["us", "sample"])
def case(request: pytest.FixtureRequest) -> tuple[str, RawData, Market]:
    raw = raw_data.random_raw(np.random.default_rng(0), N_DAYS)
    if request.param == "sample":
        raw = raw_data.closes_only(raw)
    return request.param, raw, _assemble(request.param, raw)


def _assemble(market: str, raw: RawData) -> Market:
    config = raw_data.small_config(market, N_DAYS)
    n_days = raw.bars["date"].n_unique()
    if n_days < N_DAYS:  # spans must lie inside the data
        spans = raw_data.small_config(market, n_days).market_profile.spans
        profile = config.market_profile.model_copy(update={"spans": spans})
        config = config.model_copy(update={"market_profile": profile})
    return assemble_market(raw, config, MODEL)


@pytest.mark.parametrize("change", [truncate, corrupt, permute])
@pytest.mark.parametrize("row", [575])
def test_rows_up_to_t_ignore_everything_after_t(
    case: tuple[str, RawData, Market],
    change: Callable[[RawData, np.datetime64], RawData],
    row: int,
) -> None:
    name, raw, expected = case
    day = _day_with_all_bars(raw, row)
    _assert_same_until(expected, _assemble(name, change(raw, day)), day)


def _day_with_all_bars(raw: RawData, row: int) -> np.datetime64:
    # a halt on the very last day cannot be told from a delisting, so t is a day without halts
    counts = raw.bars.group_by("date").len().sort("date")
    full = counts.filter(pl.col("len") == counts["len"][row:].max())["date"].to_numpy()
    return full[np.searchsorted(full, raw_data.sessions(N_DAYS)[row])].astype("datetime64[D]")


def test_the_changes_do_move_later_rows(case: tuple[str, RawData, Market]) -> None:
    # positive control: else the tests above could not fail
    name, raw, expected = case
    day = _day_with_all_bars(raw, 560)
    n_rows = int(np.searchsorted(expected.dates, day, side="right"))
    changed = _assemble(name, corrupt(raw, day))
    moved = np.any(changed.stock_features[n_rows:] != expected.stock_features[n_rows:], axis=(0, 1))
    assert moved.all(), np.array(expected.feature_names)[~moved]


def test_a_full_sample_z_score_would_be_caught(case: tuple[str, RawData, Market]) -> None:
    name, raw, expected = case
    day = _day_with_all_bars(raw, 560)

    def leaky(market: Market) -> Market:
        table = market.macro_features
        return dataclasses.replace(market, macro_features=table - table.mean(axis=0))

    with pytest.raises(AssertionError):
        _assert_same_until(leaky(expected), leaky(_assemble(name, corrupt(raw, day))), day)
