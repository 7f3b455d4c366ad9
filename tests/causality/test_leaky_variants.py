"""The causality tests find planted leaks, and flag none of their clean twins."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hrl_sarp.contracts import Market
from hrl_sarp.data.store import RawData
from hrl_sarp.errors import CheckpointError
from hrl_sarp.features.labels import stock_label
from hrl_sarp.graph.sector_graph import node_features
from hrl_sarp.market.assemble import make_split
from hrl_sarp.simulator.portfolio import PortfolioSimulator
from hrl_sarp.training.phase import save_sector_table, with_sector_table
from tests import factories, raw_data, tiny_runs
from tests.causality import changed_futures as futures
from tests.causality import leaky_variants as variants

HORIZON = 5
"""Sessions of the label in the tests of spans."""


@pytest.fixture(scope="module")
def raw() -> RawData:
    return raw_data.random_raw(np.random.default_rng(0), futures.N_DAYS)


@pytest.fixture(autouse=True)
def _calendars(monkeypatch: pytest.MonkeyPatch) -> None:
    futures.remember_calendars(monkeypatch)


def moved(raw: RawData, variant: variants.Variant) -> list[str]:
    """Assemble with and without the change; name what moved up to the day."""
    day = futures.day_with_all_bars(raw, variant.row)
    expected = futures.assemble("us", raw)
    found = futures.assemble("us", variant.change(raw, day))
    return futures.moved_until(expected, found, day)


@pytest.mark.parametrize("name", variants.ASSEMBLY)
def test_a_leak_of_the_assembly_is_found(
    name: str, raw: RawData, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = variants.ASSEMBLY[name]
    monkeypatch.setattr(variant.place, variant.leaky)
    assert variant.moves in moved(raw, variant)


@pytest.mark.parametrize("name", variants.ASSEMBLY)
def test_its_clean_twin_is_not_flagged(
    name: str, raw: RawData, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = variants.ASSEMBLY[name]
    monkeypatch.setattr(variant.place, variant.clean)
    allowed = {"risk_free"} if variant.change is futures.unpublish else set()
    assert set(moved(raw, variant)) - allowed == set()


@pytest.fixture(scope="module")
def two_futures() -> tuple[Market, Market]:
    """Two markets that agree up to the last training row and nowhere after it."""
    market = tiny_runs.tiny_market(seed=1, delistings=False)
    other = tiny_runs.tiny_market(seed=2, delistings=False)
    stop = market.split.train.stop
    tables = ("overnight_return", "intraday_return", "stock_features", "tradable", "listed")
    joined = {
        name: np.concatenate([getattr(market, name)[:stop], getattr(other, name)[stop:]])
        for name in tables
    }
    return market, dataclasses.replace(market, **joined)


@pytest.mark.parametrize(
    ("scaled", "is_leaky"), [(variants.nodes_scaled_on_all_rows, True), (node_features, False)]
)
def test_a_scaler_fitted_on_the_test_span_is_found(
    scaled: Callable[..., np.ndarray], two_futures: tuple[Market, Market], *, is_leaky: bool
) -> None:
    config = tiny_runs.tiny_config().macro_agent.graph
    stop = two_futures[0].split.train.stop
    first, second = (scaled(market, config)[:stop] for market in two_futures)
    assert (not np.array_equal(first, second)) == is_leaky


def labels_move(rows: np.ndarray, two_futures: tuple[Market, Market]) -> bool:
    """Return whether a label of these rows depends on what comes after the training span."""
    first, second = (stock_label(market, HORIZON)[0][rows] for market in two_futures)
    return not np.array_equal(first, second, equal_nan=True)


def test_training_rows_drawn_from_the_whole_calendar_are_found(
    two_futures: tuple[Market, Market],
) -> None:
    market = two_futures[0]
    purged = slice(None, -(HORIZON + 1))
    assert labels_move(variants.shuffled_training_rows(market)[purged], two_futures)
    assert not labels_move(variants.consecutive_training_rows(market)[purged], two_futures)


@pytest.mark.parametrize(("purge_days", "is_leaky"), [(0, True), (HORIZON, True), (6, False)])
def test_labels_that_overlap_the_next_span_are_found(
    purge_days: int, two_futures: tuple[Market, Market], *, is_leaky: bool
) -> None:
    # a label of row t ends at the open of t + 1 + 5: six sessions must be purged
    market = two_futures[0]
    stop = market.split.train.stop
    marks = [market.dates[row].item() for row in (0, stop - 1, stop, 160, 161, market.n_days - 1)]
    spans = {
        name: {"start": marks[2 * i], "end": marks[2 * i + 1]}
        for i, name in enumerate(("train", "validation", "test"))
    }
    config = type(tiny_runs.tiny_config().market_profile.spans).model_validate(spans)
    split = make_split(market.dates, config, purge_days, embargo_days=0)
    rows = np.arange(split.train.start, split.train.stop)
    assert labels_move(rows, two_futures) == is_leaky


def test_a_sector_table_fitted_past_the_fold_is_refused(tmp_path: Path) -> None:
    config = tiny_runs.tiny_config()
    market = tiny_runs.tiny_market()
    table = node_features(market, config.macro_agent.graph)
    context = tiny_runs.context_of(market, config, tmp_path)
    path = context.folder(1) / "sector_graph.pt"
    save_sector_table(path, context, table)
    assert np.array_equal(with_sector_table(context).market.sector_embeddings, table)

    longer = dataclasses.replace(
        market.split, train=dataclasses.replace(market.split.train, stop=market.n_days)
    )
    past = tiny_runs.context_of(dataclasses.replace(market, split=longer), config, tmp_path)
    save_sector_table(path, past, table)
    with pytest.raises(CheckpointError, match=re.escape(path.name)):
        with_sector_table(context)


def gain_of_buying_the_winner_of_the_day(market: Market) -> float:
    """Hold each day the stock that has just gained most; t statistic of what it earns over 1/N.

    Returns are drawn independently, so it earns nothing unless it is paid the day it has seen.
    """
    total = market.session_return()
    costs = factories.cost_config(buy_bps=0.0, sell_bps=0.0, slippage_bps=0.0)
    simulator = PortfolioSimulator(market, costs, factories.risk_config(), 1, torch.float64)
    simulator.reset(torch.tensor([0]))
    extra = []
    for day in range(market.n_days - 1):
        target = torch.zeros(1, market.n_assets, dtype=torch.float64)
        target[0, int(np.argmax(total[day]))] = 1.0
        earned = float(simulator.step(target).gross_return[0])
        extra.append(earned - total[day + 1].mean())
    return float(np.mean(extra) / (np.std(extra) / np.sqrt(len(extra))))


def test_a_fill_in_the_bar_that_was_decided_on_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    market = factories.random_market(
        np.random.default_rng(5), n_days=150, halts=False, delistings=False
    )
    assert abs(gain_of_buying_the_winner_of_the_day(market)) < 2
    monkeypatch.setattr("hrl_sarp.simulator.portfolio._on", variants.row_of_the_decision)
    assert gain_of_buying_the_winner_of_the_day(market) > 5


def test_there_are_enough_kinds_of_leaks() -> None:
    assert len(variants.ASSEMBLY) >= 10
