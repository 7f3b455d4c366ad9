"""What the macro agent sees of its own portfolio."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hrl_sarp.envs.observations import MACRO_SCALARS, macro_inputs, macro_sizes
from hrl_sarp.market.tensors import MarketTensors
from tests import tiny_runs


@pytest.mark.parametrize("names", [(), ("portfolio_drawdown",)])
def test_the_portfolios_features_stand_behind_those_of_the_market(names: tuple[str, ...]) -> None:
    market = tiny_runs.tiny_market()
    table = np.zeros((market.n_days, market.n_sectors, 2), dtype=np.float32)
    market = replace(market, portfolio_names=names, sector_embeddings=table)
    tensors = MarketTensors(market, torch.float64, "cpu")
    weights = torch.zeros(2, market.n_sectors)
    scalars = torch.tensor([[0.3, 0.07, 1.0], [1.0, 0.0, 0.0]])  # cash, drawdown, gate
    observation = {
        "day": torch.tensor([[20], [21]]),
        "portfolio": torch.cat([weights, scalars], dim=1),
    }
    context = macro_inputs(tensors, observation).context
    n_macro = len(market.macro_names)
    assert context.shape[1] == macro_sizes(tensors)[1]
    assert torch.equal(context[:, :n_macro], tensors.macro_features[[20, 21]])
    if names:
        assert torch.equal(context[:, n_macro], scalars[:, 1])
    assert torch.equal(context[:, -len(MACRO_SCALARS) :], scalars)
