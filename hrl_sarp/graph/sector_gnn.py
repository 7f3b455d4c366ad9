"""The network over the sector graph: two dense graph layers and a readout, trained in phase 1."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hrl_sarp.config.schema import GraphConfig


class SectorGNN(nn.Module):
    """Embed sectors from their node features and their neighbours'.

    Layer `none` drops the edges (an ablation): each sector sees itself only.

    Args:
        n_features: columns of the node features.
        config: layer type and sizes.
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
        """Return one embedding per sector."""
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
    # a third of the package's whole import time, and only phase 1 builds this network
    from torch_geometric.nn import DenseGATConv, DenseGCNConv

    if config.layer == "gcn":
        return DenseGCNConv(n_inputs, config.hidden)
    return DenseGATConv(n_inputs, config.hidden // config.heads, heads=config.heads)


@torch.no_grad()
def embed_all(
    network: SectorGNN, nodes: Float[Tensor, "T S D"], edges: Float[Tensor, "T S S"]
) -> Float[Tensor, "T S E"]:
    """Embed every day with the trained network: the table that the agents read."""
    network.eval()
    blocks = zip(nodes.split(1024), edges.split(1024), strict=True)
    return torch.cat([network(block, edge) for block, edge in blocks])
