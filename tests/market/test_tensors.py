"""A market's tensors with another sector table share everything else."""

from dataclasses import replace

import numpy as np
import torch

from hrl_sarp.market.tensors import MarketTensors
from tests import tiny_runs


def test_another_sector_table_changes_nothing_else_and_copies_nothing() -> None:
    market = tiny_runs.tiny_market()
    tensors = MarketTensors(market, torch.float32, "cpu")
    table = np.ones((market.n_days, market.n_sectors, 2), dtype=np.float32)
    changed = tensors.with_sector_table(replace(market, sector_embeddings=table))
    assert changed.sector_embeddings is not None
    assert np.array_equal(changed.sector_embeddings.numpy(), table)
    assert changed.market.sector_embeddings is table
    assert tensors.sector_embeddings is None
    assert tensors.market is market
    others = {"market", "sector_embeddings"}
    assert all(v is vars(tensors)[k] for k, v in vars(changed).items() if k not in others)
