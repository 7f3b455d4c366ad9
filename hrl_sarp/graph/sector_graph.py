"""Sectors as a graph, from rows <= day only, and the network over it that phase 1 trains."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

from hrl_sarp.config.schema import GraphConfig
from hrl_sarp.contracts import SECTOR_COLUMNS, Market
from hrl_sarp.features.technical import fitted_scale
from hrl_sarp.market.tensors import slot_feature_names

STATISTICS = ("mean", "std", "total", "sharpe", "min", "max", "share_positive", "median")
CLIP = 5.0
"""Bound of a standardised node feature, in training deviations."""


def sector_returns(market: Market) -> Float[np.ndarray, "T S"]:
    """Compute the close-to-close simple return of each sector's stocks held since the day before.

    Args:
        market: its universe says who is held.

    Returns:
        Equal weights over the stocks eligible on t-1 and listed on t; 0 for an empty sector and on
        the first row.
    """
    held = np.zeros_like(market.eligible)
    held[1:] = market.eligible[:-1]
    held &= market.listed
    return np.nan_to_num(market.sector_mean(market.session_return(), held))


def adjacency(market: Market, config: GraphConfig) -> Float[np.ndarray, "T S S"]:
    """Compute |trailing correlation| of sector returns, kept when large, with self-loops.

    Args:
        market: its sector returns are read.
        config: `update_days` between two computations, `correlation_days` of the window, and the
            least correlation that is an edge.

    Returns:
        float32 in 0..1, held between computations; the identity before a full window.
    """
    returns = sector_returns(market)
    table = np.empty((market.n_days, market.n_sectors, market.n_sectors))
    current = np.eye(market.n_sectors)
    for day in range(market.n_days):
        if day % config.update_days == 0 and day >= config.correlation_days:
            window = returns[day - config.correlation_days + 1 : day + 1]
            centred = window - window.mean(axis=0)
            scale = np.sqrt((centred**2).sum(axis=0))
            unit = centred / np.where(scale > 0, scale, 1.0)
            strength = np.abs(unit.T @ unit)
            current = np.where(strength >= config.min_correlation, strength, 0.0)
            np.fill_diagonal(current, 1.0)
        table[day] = current
    return table.astype(np.float32)


def node_features(market: Market, config: GraphConfig) -> Float[np.ndarray, "T S D"]:
    """Compute what a sector's node knows: pooled stock features and trailing return statistics.

    Stock features (and embeddings) are averaged over the day's slots that have a bar; the
    statistics are `STATISTICS` of the last `correlation_days` sector returns.

    Args:
        market: its training span fits the scale, so a table serves one fold only.
        config: the window of the statistics.

    Returns:
        float32, in deviations of the training span from its mean, within +-`CLIP`; 0 in empty
        sectors.
    """
    nodes = raw_nodes(market, config)
    scaled = (nodes.values - nodes.mean) / nodes.deviation
    return (np.clip(scaled, -CLIP, CLIP) * nodes.filled[..., None]).astype(np.float32)


class RawNodes(NamedTuple):
    """Node features in their own units, and the scale of the training span."""

    values: Float[np.ndarray, "T S D"]
    filled: Bool[np.ndarray, "T S"]
    """The sector has stocks on the day."""
    mean: Float[np.ndarray, " D"]
    deviation: Float[np.ndarray, " D"]


def raw_nodes(market: Market, config: GraphConfig) -> RawNodes:
    """Compute what `node_features` scales.

    Args:
        market: as for `node_features`.
        config: as for `node_features`.

    Returns:
        float64; no value is NaN.
    """
    statistics = _return_statistics(sector_returns(market), config.correlation_days)
    raw = np.concatenate([*_pooled_tables(market), statistics], axis=2)
    by_sector = (market.slots >= 0).reshape(market.n_days, market.n_sectors, -1)
    filled: Bool[np.ndarray, "T S"] = np.logical_or.reduce(by_sector, axis=2)
    train = slice(market.split.train.start, market.split.train.stop)
    return RawNodes(raw, filled, *fitted_scale(raw[train][filled[train]]))


def node_names(market: Market, config: GraphConfig) -> list[str]:
    """Name the columns of `node_features`.

    Args:
        market: names its features.
        config: the window of the statistics.

    Returns:
        D names.
    """
    columns = [f"mean {name}" for name in slot_feature_names(market)]
    window = config.correlation_days
    return columns + [f"sector return, {name} of {window} sessions" for name in STATISTICS]


def _pooled_tables(market: Market) -> Iterator[np.ndarray]:
    rows, safe = np.arange(market.n_days)[:, None], np.maximum(market.slots, 0)
    present = market.slot_tradable()
    shape = (market.n_days, market.n_sectors, -1)
    count = np.maximum(present.reshape(shape).sum(axis=2), 1)[..., None]
    for table in (market.stock_features, market.stock_embeddings):
        if table is not None:
            chosen = table[rows, safe] * present[..., None]
            yield chosen.reshape(*shape, table.shape[2]).sum(axis=2) / count


def _return_statistics(returns: np.ndarray, window: int) -> np.ndarray:
    """Stack `STATISTICS` over the trailing window; rows before day 0 count as zero returns."""
    padded = np.concatenate([np.zeros((window - 1, returns.shape[1])), returns])
    view = sliding_window_view(padded, window, axis=0)  # (T, S, window)
    mean, deviation = view.mean(axis=2), view.std(axis=2)
    columns = {
        "mean": mean,
        "std": deviation,
        "total": view.sum(axis=2),
        "sharpe": mean / np.maximum(deviation, 1e-8),
        "min": view.min(axis=2),
        "max": view.max(axis=2),
        "share_positive": (view > 0).mean(axis=2),
        "median": np.median(view, axis=2),
    }
    return np.stack([columns[name] for name in STATISTICS], axis=2)


def with_node_features(market: Market, config: GraphConfig) -> Market:
    """Give a market raw node features as its sector table: a graph without a network.

    Args:
        market: stays as it is.
        config: as for `node_features`.

    Returns:
        The same market with another sector table.
    """
    manifest = {**market.manifest, SECTOR_COLUMNS: node_names(market, config)}
    return replace(market, sector_embeddings=node_features(market, config), manifest=manifest)


class SectorGNN(nn.Module):
    """Embed sectors from their node features and their neighbours'.

    Layer `none` drops the edges (an ablation): each sector sees itself only.

    Args:
        n_features: columns of the node features.
        config: layer type and sizes.

    Examples:
        >>> from hrl_sarp.config.loading import load_config
        >>> network = SectorGNN(10, load_config().macro_agent.graph)
        >>> network(torch.zeros(2, 11, 10), torch.eye(11).expand(2, 11, 11)).shape[:2]
        torch.Size([2, 11])
    """

    def __init__(self, n_features: int, config: GraphConfig) -> None:
        super().__init__()
        self.layer = config.layer
        self.first = _graph_layer(n_features, config)
        self.second = _graph_layer(config.hidden, config)
        self.own = nn.Linear(n_features, config.hidden)
        self.readout = nn.Linear(2 * config.hidden, config.embedding)
        self.norm = nn.LayerNorm(config.embedding)

    def forward(
        self, nodes: Float[Tensor, "B S D"], edges: Float[Tensor, "B S S"]
    ) -> Float[Tensor, "B S E"]:
        """Embed the sectors of B days.

        Args:
            nodes: `node_features` of the days.
            edges: `adjacency` of the days.

        Returns:
            One embedding per sector, layer-normalised.
        """
        hidden = torch.relu(self._spread(self.first, nodes, edges))
        hidden = torch.relu(self._spread(self.second, hidden, edges))
        joined = torch.cat([hidden, torch.relu(self.own(nodes))], dim=2)
        embedding: Tensor = self.norm(self.readout(joined))
        return embedding

    def _spread(self, layer: nn.Module, nodes: Tensor, edges: Tensor) -> Tensor:
        if self.layer == "none":
            spread: Tensor = layer(nodes)
        elif self.layer == "gcn":
            spread = layer(nodes, edges, add_loop=False)  # the graph carries its self-loops
        else:
            spread = layer(nodes, (edges > 0).to(nodes.dtype), add_loop=False)
        return spread


def _graph_layer(n_inputs: int, config: GraphConfig) -> nn.Module:
    if config.layer == "none":
        return nn.Linear(n_inputs, config.hidden)
    # a third of the package's whole import time, and few commands build this network
    from torch_geometric.nn import DenseGATConv, DenseGCNConv

    if config.layer == "gcn":
        return DenseGCNConv(n_inputs, config.hidden)
    return DenseGATConv(n_inputs, config.hidden // config.heads, heads=config.heads)


@torch.no_grad()
def embed_all(
    network: SectorGNN, nodes: Float[Tensor, "T S D"], edges: Float[Tensor, "T S S"]
) -> Float[Tensor, "T S E"]:
    """Embed every day with the trained network.

    Args:
        network: is put into evaluation mode.
        nodes: `node_features` of the market.
        edges: `adjacency` of the market.

    Returns:
        The sector table that the agents read.
    """
    network.eval()
    blocks = zip(nodes.split(1024), edges.split(1024), strict=True)
    return torch.cat([network(block, edge) for block, edge in blocks])
