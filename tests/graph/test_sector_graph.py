"""Edges and node features by hand, and that neither looks ahead."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hrl_sarp.config.schema import GraphConfig
from hrl_sarp.contracts import Market
from hrl_sarp.graph import (
    SectorGNN,
    adjacency,
    embed_all,
    node_features,
    sector_returns,
    with_node_features,
)
from hrl_sarp.graph.sector_graph import _return_statistics
from tests import factories, tiny_runs


def graph_config(**values: Any) -> GraphConfig:
    config: GraphConfig = tiny_runs.changed(tiny_runs.tiny_config().macro_agent.graph, values)
    return config


def closes_market(closes: np.ndarray, sector_of: list[int], **given: Any) -> Market:
    """Build a market whose whole move is over night."""
    return factories.market_with(closes, np.zeros_like(closes), sector_of, **given)


# ---- sector returns


def test_a_sector_earns_the_mean_of_those_held_since_the_day_before() -> None:
    overnight = np.array([[0.5, 0.5, 0.5], [0.01, 0.03, 0.05], [0.02, 0.04, 0.06]])
    intraday = np.array([[0.0, 0.0, 0.0], [0.01, 0.00, 0.00], [0.00, 0.00, 0.00]])
    eligible = np.array([[True, True, True], [True, False, True], [True, True, True]])
    market = factories.market_with(overnight, intraday, [0, 0, 1], eligible=eligible)
    expected = [[0, 0], [(1.01 * 1.01 - 1 + 0.03) / 2, 0.05], [0.02, 0.06]]
    np.testing.assert_allclose(sector_returns(market), expected, atol=1e-15)


def test_an_empty_sector_earns_nothing() -> None:
    listed = np.array([[True, False]] * 3)
    market = closes_market(np.full((3, 2), 0.01), [0, 1], listed=listed)
    np.testing.assert_allclose(sector_returns(market)[:, 1], 0)


# ---- edges


def test_edges_are_the_large_correlations_of_the_window() -> None:
    rng = np.random.default_rng(0)
    factor, noise = rng.normal(0, 0.01, (2, 12))
    closes = np.stack([factor, -factor + 0.2 * noise, rng.normal(0, 0.01, 12)], axis=1)
    edges = adjacency(
        closes_market(closes, [0, 1, 2]), graph_config(correlation_days=10, update_days=10)
    )
    expected = np.abs(np.corrcoef(closes[1:11], rowvar=False))
    expected[expected < 0.3] = 0
    assert expected[0, 1] > 0.9  # a mirror image is a neighbour
    np.testing.assert_allclose(edges[10], expected, atol=1e-6)


def test_edges_are_the_identity_until_a_window_is_full_and_then_held() -> None:
    rng = np.random.default_rng(1)
    factor = rng.normal(0, 0.01, (40, 1))
    market = closes_market(factor + rng.normal(0, 0.004, (40, 3)), [0, 1, 2])
    edges = adjacency(market, graph_config(correlation_days=10, update_days=7))
    assert (edges[:14] == np.eye(3)).all()  # row 7 has seen 8 days only
    assert (edges[14:21] == edges[14]).all()
    assert (edges[21] != edges[14]).any()
    assert (edges == edges.transpose(0, 2, 1)).all()
    assert (np.diagonal(edges, axis1=1, axis2=2) == 1).all()


def test_a_sector_that_never_moves_has_no_neighbours() -> None:
    rng = np.random.default_rng(2)
    closes = rng.normal(0, 0.01, (20, 1)) * [1.0, 1.0, 0.0]
    edges = adjacency(
        closes_market(closes, [0, 1, 2]), graph_config(correlation_days=10, update_days=5)
    )
    np.testing.assert_allclose(edges[15], [[1, 1, 0], [1, 1, 0], [0, 0, 1]], atol=1e-6)


# ---- node features


def test_node_features_pool_the_tradable_slots_and_standardise_by_the_training_span() -> None:
    market = tiny_runs.tiny_market()
    config = graph_config()
    table = node_features(market, config)
    raw = np.empty((market.n_days, 3, market.stock_features.shape[2]))
    filled = np.zeros((market.n_days, 3), dtype=bool)
    for t, slots in enumerate(market.slots.reshape(-1, 3, 4)):
        for s, stocks in enumerate(slots):
            inside = [a for a in stocks if a >= 0]
            traded = [a for a in inside if market.tradable[t, a]]
            filled[t, s] = bool(inside)
            raw[t, s] = market.stock_features[t, traded].mean(axis=0) if traded else 0
    train = slice(market.split.train.start, market.split.train.stop)
    seen = raw[train][filled[train]]
    expected = np.clip((raw - seen.mean(axis=0)) / seen.std(axis=0), -5, 5) * filled[..., None]
    n_features = raw.shape[2]
    np.testing.assert_allclose(table[..., :n_features], expected, atol=1e-5)
    assert table.shape == (market.n_days, 3, n_features + 8)
    assert table.dtype == np.float32
    assert np.isfinite(table).all()


def test_the_eight_statistics_by_hand() -> None:
    closes = np.array([[0.0], [0.02], [-0.01], [0.03], [0.05]])
    market = replace(closes_market(closes, [0]), split=replace(factories.three_way_split(5)))
    found = _return_statistics(sector_returns(market), window=3)[3, 0]
    window = np.array([0.02, -0.01, 0.03])
    deviation = window.std()
    expected = [window.mean(), deviation, 0.04, window.mean() / deviation]
    assert found.tolist() == pytest.approx([*expected, -0.01, 0.03, 2 / 3, 0.02])


def test_an_empty_sector_has_zeros() -> None:
    listed = np.ones((60, 4), dtype=bool)
    listed[:30, 2:] = False
    rng = np.random.default_rng(3)
    market = factories.market_with(
        rng.normal(0, 0.01, (60, 4)) * listed,
        np.zeros((60, 4)),
        [0, 0, 1, 1],
        listed=listed,
        stock_features=rng.normal(size=(60, 4, 5)),
    )
    table = node_features(market, graph_config())
    assert (table[:30, 1] == 0).all()
    assert (table[30:, 1] != 0).any()


# ---- causality


@pytest.mark.parametrize("t", [130, 171])
def test_edges_features_and_embeddings_ignore_later_rows(t: int) -> None:
    market, other = tiny_runs.tiny_market(), tiny_runs.tiny_market(seed=9)
    assert t > market.split.train.stop  # the standardisation is fitted on the span, which is kept
    names = ("overnight_return", "intraday_return", "tradable", "listed", "eligible", "slots")
    changed = replace(
        market,
        **{
            name: np.concatenate([getattr(market, name)[: t + 1], getattr(other, name)[t + 1 :]])
            for name in (*names, "stock_features")
        },
    )
    config = graph_config()
    network = SectorGNN(13, config)
    for table in (adjacency, node_features):
        first, second = table(market, config), table(changed, config)
        assert np.array_equal(first[: t + 1], second[: t + 1])
        assert not np.array_equal(first, second)
    tables = [
        embed_all(
            network,
            torch.from_numpy(node_features(each, config)),
            torch.from_numpy(adjacency(each, config)),
        )
        for each in (market, changed)
    ]
    assert torch.equal(tables[0][: t + 1], tables[1][: t + 1])


# ---- the network


@pytest.mark.parametrize("layer", ["gcn", "gat", "none"])
def test_embeddings_follow_the_order_of_sectors_and_see_neighbours_only(layer: Any) -> None:
    config = graph_config(layer=layer, heads=4)
    torch.manual_seed(0)
    network = SectorGNN(5, config).eval()
    nodes = torch.randn(2, 4, 5)
    edges = torch.eye(4).repeat(2, 1, 1)
    edges[:, 0, 1] = edges[:, 1, 0] = 0.6  # 2 and 3 stand alone
    with torch.no_grad():
        first = network(nodes, edges)
        order = torch.tensor([2, 0, 3, 1])
        permuted = network(nodes[:, order], edges[:, order][:, :, order])
        torch.testing.assert_close(permuted, first[:, order])
        moved = nodes.clone()
        moved[:, 1] += 1.0
        change = (network(moved, edges) - first).abs().amax(dim=(0, 2)) > 1e-6
    assert change.tolist() == [layer != "none", True, False, False]
    assert first.shape == (2, 4, config.embedding)


def test_raw_node_features_can_stand_in_for_the_table() -> None:
    market, config = tiny_runs.tiny_market(), graph_config()
    table = with_node_features(market, config).sector_embeddings
    assert np.array_equal(table, node_features(market, config))
