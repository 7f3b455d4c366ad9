"""The Dirichlet over listed sectors against PyTorch's, and what its samples and its mode are."""

import pytest
import torch
from torch.distributions import Dirichlet

from hrl_sarp.agents.ppo.networks import SMALLEST_SHARE, SectorDirichlet

LOGITS = torch.tensor([[0.3, -1.2, 2.0, 0.0], [5.0, 0.0, 0.0, -5.0]])
KAPPA = torch.tensor([7.0, 180.0])
ALL = torch.ones(2, 4, dtype=torch.bool)
SOME = torch.tensor([[True, False, True, True], [False, True, False, True]])


@pytest.mark.parametrize("listed", [ALL, SOME])
def test_density_and_entropy_are_those_of_the_dirichlet_on_the_listed_sectors(
    listed: torch.Tensor,
) -> None:
    ours = SectorDirichlet(LOGITS.double(), KAPPA.double(), listed)
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
        torch.testing.assert_close(ours.mode[row], expected)
        # the mode of a Dirichlet is (alpha - 1) / (sum alpha - K)
        alpha = ours.alpha[row, keep]
        torch.testing.assert_close(
            (alpha - 1) / (alpha.sum() - keep.sum()), expected[keep], rtol=1e-4, atol=1e-6
        )


def test_no_share_is_denser_than_the_mode() -> None:
    ours = SectorDirichlet(LOGITS, KAPPA, ALL)
    torch.manual_seed(1)
    at_mode = ours.log_prob(ours.mode)
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
