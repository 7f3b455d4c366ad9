"""Sectors as a graph and the network over it."""

from hrl_sarp.graph.sector_graph import (
    SectorGNN,
    adjacency,
    embed_all,
    node_features,
    node_names,
    raw_nodes,
    sector_returns,
    with_node_features,
)

__all__ = [
    "SectorGNN",
    "adjacency",
    "embed_all",
    "node_features",
    "node_names",
    "raw_nodes",
    "sector_returns",
    "with_node_features",
]
