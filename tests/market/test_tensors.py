"""A market's tensors with another sector table share everything else."""

from dataclasses import replace

import numpy as np
import torch

from hrl_sarp.config.loading import load_config
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.risk import risk_tables
from tests import factories, tiny_runs


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


def test_a_market_without_risk_tables_is_one_over_n_fully_invested() -> None:
    market = factories.random_market(np.random.default_rng(0))
    tensors = MarketTensors(market, torch.float64, "cpu")
    assert torch.equal(tensors.sector_prior, tensors.sector_shares)
    inside = tensors.by_sector(tensors.stock_prior).sum(dim=2)
    assert torch.allclose(inside, tensors.sector_listed.to(torch.float64))
    assert tensors.risk_inputs.shape == (market.n_days, 0)
    assert tensors.sector_risk.shape == (market.n_days, market.n_sectors, 0)
    assert (tensors.prior_exposure == 1).all()
    assert (tensors.normal_variance == 0).all()


def test_the_prior_return_of_a_sector_is_earned_by_the_tradable_shares_of_the_day_before() -> None:
    day = np.array([[0.0, 0.0, 0.0], [0.1, 0.3, 0.2], [0.5, 0.5, 0.0]])
    market = factories.market_with(0 * day, day, [0, 0, 1])
    risk = risk_tables(market, load_config(market="sample"))
    shares = np.array([[0.25, 0.75, 1.0, 0.0], [0.6, 0.4, 1.0, 0.0], [0.5, 0.5, 1.0, 0.0]])
    halted = np.ones((3, 3), dtype=bool)
    halted[1, 1] = False
    market = replace(market, risk=replace(risk, stock_prior=shares))
    found = MarketTensors(market, torch.float64, "cpu").prior_return
    expected = torch.tensor([[0.0, 0.0], [0.25, 0.2], [0.5, 0.0]], dtype=torch.float64)
    assert torch.allclose(found, expected)
    # on the second day the second stock cannot be bought, so the first one is the whole sector
    found = MarketTensors(replace(market, tradable=halted), torch.float64, "cpu").prior_return
    assert torch.allclose(found[2], torch.tensor([0.5, 0.0], dtype=torch.float64))


def test_risk_tables_keep_the_dtype_of_what_reads_them() -> None:
    market = factories.random_market(np.random.default_rng(0))
    risk = risk_tables(market, load_config(market="sample"))
    tensors = MarketTensors(replace(market, risk=risk), torch.float64, "cpu")
    assert tensors.risk_inputs.dtype == tensors.sector_risk.dtype == torch.float32
    for name in ("sector_prior", "stock_prior", "prior_exposure", "normal_variance"):
        placed = getattr(tensors, name)
        assert placed.dtype == torch.float64
        assert np.array_equal(placed.numpy(), getattr(risk, name))
