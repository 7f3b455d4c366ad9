"""The variance of a factor model by stock: against the covariance matrix, and its gradient."""

import pytest
import torch

from hrl_sarp.agents.td3.stock_risk import N_FACTORS, SCALE, FactorModel, StockRisk, variance_parts
from hrl_sarp.envs.observations import MicroInputs, SlotRequest
from tests import tiny_runs
from tests.agents.td3.test_credit import RISK

S, K = 3, 4
N = S * K


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def covariance(loadings: torch.Tensor) -> torch.Tensor:
    """The matrix that loadings stand for, entry by entry."""
    of_all, of_sector, alone = loadings.split((N_FACTORS, N_FACTORS, 1), dim=1)
    found = torch.zeros(N, N, dtype=torch.float64)
    for i in range(N):
        for j in range(N):
            found[i, j] = of_all[i] @ of_all[j]
            if i // K == j // K:
                found[i, j] += of_sector[i] @ of_sector[j]
        found[i, i] += alone[i, 0] ** 2
    return found


def test_parts_are_weight_times_covariance_times_weights(generator: torch.Generator) -> None:
    market = torch.randn(2, N, 8, generator=generator, dtype=torch.float64)
    weights = torch.rand(2, 3, N, generator=generator, dtype=torch.float64)
    loadings = FactorModel(8).double()(market)
    found = variance_parts(weights, loadings, S)
    for row in range(2):
        for portfolio in range(3):
            held = weights[row, portfolio]
            wanted = held * (covariance(loadings[row]) @ held)
            torch.testing.assert_close(found[row, portfolio], wanted)


def seen(weights: torch.Tensor) -> tuple[MicroInputs, SlotRequest]:
    """An observation of the tiny market in which these weights are held."""
    tensors = tiny_runs.tensors_of(tiny_runs.tiny_market(), torch.float32)
    settings = tiny_runs.micro_agent(tensors, tiny_runs.tiny_config(**RISK)).settings
    env_goal = torch.full((len(weights), tensors.n_sectors + 4), 0.0)
    env_goal[:, : tensors.n_sectors] = 1 / tensors.n_sectors
    portfolio = torch.zeros(len(weights), tensors.n_slots + 4)
    portfolio[:, : tensors.n_slots] = weights
    day = (~tensors.slot_filled.all(dim=1)).nonzero()[: len(weights)]
    return settings.read({"day": day, "portfolio": portfolio, "desired_goal": env_goal})


def test_following_the_goal_has_no_part_and_weights_have_the_slope_of_the_variance(
    generator: torch.Generator,
) -> None:
    n_slots = tiny_runs.tensors_of(tiny_runs.tiny_market()).n_slots
    inputs, request = seen(torch.zeros(1, n_slots))
    inputs, request = seen(request.prior)
    risk = StockRisk(8)
    market = torch.randn(1, n_slots, 8, generator=generator)
    asked = (market, inputs, request)
    torch.testing.assert_close(risk(*asked, request.prior), torch.zeros(1, n_slots))
    executed = (request.prior + 0.01 * inputs.view.tradable).requires_grad_()
    risk(*asked, executed).sum().backward()
    loadings = risk.day(market)
    n_sectors = request.budgets.shape[1]
    held = executed.detach()
    slope = 2 * variance_parts(held[:, None], loadings, n_sectors)[:, 0] / held
    wanted = torch.where(inputs.view.tradable, -SCALE * slope, torch.zeros(()))
    assert executed.grad is not None
    torch.testing.assert_close(executed.grad, wanted, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_traded_has_no_part(generator: torch.Generator) -> None:
    n_slots = tiny_runs.tensors_of(tiny_runs.tiny_market()).n_slots
    inputs, request = seen(torch.rand(2, n_slots, generator=generator) / n_slots)
    market = torch.randn(len(inputs.features), n_slots, 8, generator=generator)
    found = StockRisk(8)(market, inputs, request, torch.rand(2, n_slots, generator=generator))
    assert not inputs.view.tradable.all()
    assert torch.equal(
        found[~inputs.view.tradable], torch.zeros(int((~inputs.view.tradable).sum()))
    )
    assert bool((found[inputs.view.tradable] != 0).all())
