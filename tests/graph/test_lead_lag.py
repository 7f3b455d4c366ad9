"""Where a sector follows its neighbour, only a graph that is learned can see it coming."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hrl_sarp.contracts import Market
from hrl_sarp.training.phase import fitted_phase
from hrl_sarp.training.pretrain.macro import MacroTask
from tests import factories, tiny_runs

N_SECTORS, N_DAYS = 6, 1000
PARTNER = np.array([1, 0, 3, 2, 5, 4])


def lead_lag_market() -> Market:
    """Plant x(s) in the first feature of sector s; next week it moves the partner sector.

    x is drawn anew at each week end, so that a sector's own past says nothing of its future.
    Partners share a factor, so that the correlation graph joins them. Daily: drift 0.6 % x, factor
    1 %, own noise 0.3 %, so a pair's correlation is about 0.7.
    """
    rng = np.random.default_rng(0)
    week_of = (np.arange(N_DAYS) + 1) // 5  # row 0 is a Monday, row 4 a Friday
    x = rng.normal(size=(week_of[-1] + 1, N_SECTORS))[week_of]
    factor = np.repeat(rng.normal(0, 0.01, (N_DAYS, N_SECTORS // 2)), 2, axis=1)
    moves = factor + rng.normal(0, 0.003, (N_DAYS, N_SECTORS))
    moves[1:] += 0.006 * x[:-1, PARTNER]
    sector_of = np.repeat(np.arange(N_SECTORS), 2)
    features = rng.normal(size=(N_DAYS, 2 * N_SECTORS, 3))
    features[..., 0] = x[:, sector_of]
    return factories.market_with(
        np.zeros((N_DAYS, 2 * N_SECTORS)),
        moves[:, sector_of],
        sector_of,
        stock_features=features,
        feature_names=("lead", "noise_1", "noise_2"),
        benchmark_return=rng.normal(0, 0.01, N_DAYS),
    )


class NoiseTable(nn.Module):
    """Embeddings that mean nothing, as in the systems this one replaces."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, nodes: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        return torch.randn(*nodes.shape[:2], self.width)


def skill(market: Market, folder: Path, layer: str, *, random: bool = False) -> float:
    """Return the validation skill of the sector weights after phase 1's training."""
    config = tiny_runs.tiny_config(
        macro_agent={
            "network": {"hidden": 16, "dropout": 0.1},
            "graph": {"layer": layer, "correlation_days": 60, "hidden": 16, "embedding": 16},
            "pretrain": {"epochs": 25, "patience": 25, "batch_size": 20, "learning_rate": 5e-3},
        }
    )
    context = tiny_runs.context_of(market, config, folder)
    torch.manual_seed(0)
    task = MacroTask(context)
    if random:
        task.graph = NoiseTable(16)  # type: ignore[assignment]
        task.module = nn.ModuleDict({"actor": task.agent.actor})
    with fitted_phase(task, 1, config.macro_agent.pretrain, context):
        return task.validate()[1]["val_alloc_skill"]


@pytest.fixture(scope="module")
def market() -> Market:
    return lead_lag_market()


def test_a_learned_graph_beats_a_random_table_and_no_graph(market: Market, tmp_path: Path) -> None:
    learned = skill(market, tmp_path / "learned", "gcn")
    alone = skill(market, tmp_path / "alone", "none")
    random = skill(market, tmp_path / "random", "gcn", random=True)
    assert learned > 0.3
    assert max(alone, random) < 0.1
