"""The Dirichlet over listed sectors against PyTorch's; its samples, its centre and its goals."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Dirichlet

from hrl_sarp.agents.ppo.networks import SMALLEST_SHARE, MacroDecision, SectorDirichlet
from hrl_sarp.contracts import Goal

LOGITS = torch.tensor([[0.3, -1.2, 2.0, 0.0], [5.0, 0.0, 0.0, -5.0]])
KAPPA = torch.tensor([7.0, 180.0])
ALL = torch.ones(2, 4, dtype=torch.bool)
SOME = torch.tensor([[True, False, True, True], [False, True, False, True]])


@pytest.mark.parametrize("listed", [ALL, SOME])
@pytest.mark.parametrize("centre", ["mode", "mean"])
def test_density_and_entropy_are_those_of_the_dirichlet_on_the_listed_sectors(
    listed: torch.Tensor, centre: Any
) -> None:
    ours = SectorDirichlet(LOGITS.double(), KAPPA.double(), listed, centre)
    torch.manual_seed(0)
    shares = ours.sample()
    for row in range(2):
        keep = listed[row]
        theirs = Dirichlet(ours.alpha[row, keep])
        assert ours.log_prob(shares)[row].item() == pytest.approx(
            theirs.log_prob(shares[row, keep]).item(), abs=1e-9
        )
        assert ours.entropy()[row].item() == pytest.approx(theirs.entropy().item(), abs=1e-9)


@pytest.mark.parametrize("listed", [ALL, SOME])
def test_the_mode_is_the_softmax_over_listed_sectors(listed: torch.Tensor) -> None:
    ours = SectorDirichlet(LOGITS, KAPPA, listed)
    for row in range(2):
        keep = listed[row]
        expected = torch.zeros(4)
        expected[keep] = LOGITS[row, keep].softmax(dim=0)
        torch.testing.assert_close(ours.centre[row], expected)
        # the mode of a Dirichlet is (alpha - 1) / (sum alpha - K)
        alpha = ours.alpha[row, keep]
        torch.testing.assert_close(
            (alpha - 1) / (alpha.sum() - keep.sum()), expected[keep], rtol=1e-4, atol=1e-6
        )


def test_no_share_is_denser_than_the_mode() -> None:
    ours = SectorDirichlet(LOGITS, KAPPA, ALL)
    torch.manual_seed(1)
    at_mode = ours.log_prob(ours.centre)
    for _ in range(50):
        assert (ours.log_prob(ours.sample()) <= at_mode + 1e-4).all()


def test_samples_lie_on_the_simplex_of_listed_sectors() -> None:
    # the last sector of the second row has probability 5e-5: its draws underflow without the clamp
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [10.0, 0.0, 0.0, -60.0]]).repeat(500, 1)
    listed = torch.tensor([[True, True, False, True], [True, True, True, True]]).repeat(500, 1)
    ours = SectorDirichlet(logits, torch.full((1000,), 200.0), listed)
    torch.manual_seed(2)
    shares = ours.sample()
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(1000))
    assert (shares[listed] >= 0.9 * SMALLEST_SHARE).all()
    assert (shares[~listed] == 0).all()
    assert torch.isfinite(ours.log_prob(shares)).all()


def test_the_mean_of_the_samples_is_that_of_the_dirichlet() -> None:
    n = 20_000
    ours = SectorDirichlet(LOGITS[:1].repeat(n, 1), KAPPA[:1].repeat(n), SOME[:1].repeat(n, 1))
    torch.manual_seed(3)
    mean = ours.sample().mean(dim=0)
    alpha = ours.alpha[0] * SOME[0]
    # deviation of a share is below 0.16, of the mean of 20,000 below 0.0012
    torch.testing.assert_close(mean, alpha / alpha.sum(), rtol=0, atol=0.005)


@given(
    logits=st.lists(st.floats(-2.0, 2.0), min_size=4, max_size=4),
    kappa=st.floats(5.0, 200.0),
    listed=st.sampled_from([ALL[0], *SOME]),
)
def test_as_the_mean_the_centre_is_the_mean_of_the_samples_up_to_the_floor(
    logits: list[float], kappa: float, listed: torch.Tensor
) -> None:
    count = int(listed.sum())
    row = SectorDirichlet(torch.tensor([logits]), torch.tensor([kappa]), listed[None], "mean")
    alpha, centre = row.alpha[0, listed], row.centre[0, listed]
    mean, at_floor = alpha / alpha.sum(), (count + kappa) * centre < 1
    if not at_floor.any():
        torch.testing.assert_close(mean, centre, rtol=1e-4, atol=1e-6)
    # every share at the floor gains less than 1 / (count + kappa), at the cost of the others
    assert (alpha[at_floor] == 1).all()
    assert (mean - centre).abs().max() < count / (count + kappa)


def test_samples_of_the_mean_form_average_to_the_centre() -> None:
    n = 20_000
    logits, listed = LOGITS[:1].repeat(n, 1), SOME[:1].repeat(n, 1)
    ours = SectorDirichlet(logits, KAPPA[:1].repeat(n), listed, centre="mean")
    torch.manual_seed(4)
    torch.testing.assert_close(ours.sample().mean(dim=0), ours.centre[0], rtol=0, atol=0.005)


@pytest.mark.parametrize("centre", ["mode", "mean"])
def test_the_density_integrates_to_one(centre: Any) -> None:
    n = 400
    first = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    shares = torch.stack([first, 1 - first], dim=1)
    one = torch.tensor([[0.7, -0.4]], dtype=torch.float64).expand(n, 2)
    ours = SectorDirichlet(
        one, torch.full((n,), 9.0), torch.ones(n, 2, dtype=torch.bool), centre=centre
    )
    assert ours.log_prob(shares).exp().mean().item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("decides_cash", [True, False])
@given(st.lists(st.floats(0.001, 1.0), min_size=4, max_size=4))
def test_a_goal_is_made_of_the_shares_that_are_read_from_it(
    decides_cash: bool,  # noqa: FBT001
    drawn: list[float],
) -> None:
    asked = torch.tensor([drawn], dtype=torch.float64)
    asked /= asked.sum()
    shares = SectorDirichlet(torch.zeros(1, 4), torch.ones(1), ALL[:1])
    decision = MacroDecision(shares, torch.zeros(1, 3), n_sectors=3 if decides_cash else 4)
    goal = decision.goal(asked)
    assert goal.sector_weights.sum().item() == pytest.approx(1.0)
    assert goal.cash.item() == pytest.approx(asked[0, 3].item() if decides_cash else 0.0)
    torch.testing.assert_close(decision.shares_of(goal), asked)
    again = decision.goal(decision.shares_of(Goal.from_vector(goal.to_vector())))
    torch.testing.assert_close(again.to_vector(), goal.to_vector())


def test_the_log_density_has_a_gradient_for_logits_and_concentration() -> None:
    logits, kappa = LOGITS.clone().requires_grad_(), KAPPA.clone().requires_grad_()
    ours = SectorDirichlet(logits, kappa, SOME)
    ours.log_prob(torch.full((2, 4), 0.25)).sum().backward()
    assert logits.grad is not None
    assert kappa.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[SOME] != 0).all()
    assert (logits.grad[~SOME] == 0).all()
    assert (kappa.grad != 0).all()
