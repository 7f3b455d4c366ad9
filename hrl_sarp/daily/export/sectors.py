"""The graph network of phase 1 with its scale, which makes the sector embeddings of new days."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hrl_sarp.agents import MacroAgent
from hrl_sarp.agents.files import sector_table_hash
from hrl_sarp.errors import HrlSarpError
from hrl_sarp.graph import SectorGNN, adjacency, raw_nodes
from hrl_sarp.graph.sector_graph import CLIP
from hrl_sarp.market.sector_table import read_graph
from hrl_sarp.run.checkpoints import load_module
from hrl_sarp.training.phase import PhaseContext


class SectorEmbeddings(nn.Module):
    """Embeds the sectors of a day by the graph network of each weekly agent.

    Args:
        agents: that decide on weeks, in the order in which they are asked.
        contexts: of all seeds of all runs, among which are theirs.

    Raises:
        HrlSarpError: if the graph network of an agent is not among them.
    """

    inputs = ("nodes", "edges", "filled")
    outputs = ("embeddings",)

    def __init__(self, agents: Sequence[MacroAgent], contexts: Sequence[PhaseContext]) -> None:
        super().__init__()
        first = contexts[0]
        nodes = raw_nodes(first.market, first.config.macro_agent.graph)
        self.mean, self.deviation = map(torch.from_numpy, (nodes.mean, nodes.deviation))
        self._tables = tuple(map(torch.from_numpy, (nodes.values, nodes.filled)))
        self._edges = torch.from_numpy(adjacency(first.market, first.config.macro_agent.graph))
        places = {sector_table_hash(each.tensors): each for each in contexts}
        n_features = len(nodes.mean)
        self.networks = nn.ModuleList(_network(agent, places, n_features) for agent in agents)
        self._read = tuple(agent.tensors.sector_embeddings for agent in agents)

    def forward(self, nodes: Tensor, edges: Tensor, filled: Tensor) -> Float[Tensor, "W S E"]:
        """Return the embeddings of each network, from node features in their own units."""
        scaled = (nodes.double() - self.mean) / self.deviation
        seen = (scaled.clamp(-CLIP, CLIP) * filled.double().unsqueeze(2)).float()
        return torch.cat([network(seen, edges) for network in self.networks])

    def arrays(self, row: int) -> dict[str, Tensor]:
        """Return what the module reads at the close of a row of the market."""
        values, filled = (table[row : row + 1] for table in self._tables)
        return {
            "nodes": values.float(),
            "edges": self._edges[row : row + 1],
            "filled": filled,
        }

    def expected(self, row: int) -> dict[str, Tensor]:
        """Return the embeddings that the agents read at a row."""
        tables = [table[row : row + 1] for table in self._read if table is not None]
        return {"embeddings": torch.cat(tables).float()}


def _network(agent: MacroAgent, contexts: Mapping[str, PhaseContext], n_features: int) -> SectorGNN:
    """Load the network that made the sector table which an agent reads."""
    context = contexts.get(sector_table_hash(agent.tensors))
    if context is None:
        raise HrlSarpError(
            "export: an agent reads a sector table of none of the runs: phase 1 has run again "
            "since it was trained; run the phases after it again"
        )
    path = context.best(1, which=1)
    network = SectorGNN(n_features, context.config.macro_agent.graph)
    load_module(path, network, read_graph(path)[2])
    return network.eval()
