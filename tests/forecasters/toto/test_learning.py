"""Toto 1.0 learns: right gradients, a batch learned by heart, masked targets that do not count."""

import pytest
import torch

from hrl_sarp.forecasters.toto import toto_loss
from tests.forecasters.toto.small_models import SMALL, batch_of, toto, walks

SIZE = SMALL.patch_size


def test_gradients_are_finite_differences() -> None:
    model = toto(labels=True, embed_dim=8, num_layers=2, spacewise_every_n_layers=2)
    values = walks(2, 2, 4 * SIZE)
    batch = batch_of(values[..., :-SIZE], n_exogenous=1)
    targets, observed = values[..., SIZE:], batch.observed

    def loss() -> torch.Tensor:
        return toto_loss(model, batch, targets, observed)

    loss().backward()
    generator, step = torch.Generator().manual_seed(0), 1e-6
    for name, part in model.named_parameters():
        direction = torch.randn(part.shape, generator=generator, dtype=part.dtype)
        slope = (part.grad * direction).sum().item()
        with torch.no_grad():
            part += step * direction
            above = loss().item()
            part -= 2 * step * direction
            below = loss().item()
            part += step * direction
        assert (above - below) / (2 * step) == pytest.approx(slope, rel=1e-5, abs=1e-7), name


def test_one_batch_can_be_learned_by_heart() -> None:
    model = toto(dropout=0.0).float().train()
    values = walks(4, 1, 5 * SIZE).float()
    batch, targets = batch_of(values[..., :-SIZE]), values[..., SIZE:]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(150):
        loss = toto_loss(model, batch, targets, batch.observed)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1.5


def test_targets_that_are_not_observed_do_not_count() -> None:
    model, values = toto(), walks(2, 2, 4 * SIZE)
    batch, targets = batch_of(values[..., :-SIZE]), values[..., SIZE:]
    observed = torch.rand(targets.shape, generator=torch.Generator().manual_seed(0)) > 0.4
    loss = toto_loss(model, batch, targets, observed)
    wrong = torch.where(observed, targets, 1e30)
    again = toto_loss(model, batch, wrong, observed)
    assert torch.equal(again, loss)
    again.backward()
    assert all(bool(part.grad.isfinite().all()) for part in model.parameters())
    assert toto_loss(model, batch, targets, torch.zeros_like(observed)).item() == 0.0


def test_the_weight_of_the_likelihood_mixes_both_parts() -> None:
    model, values = toto(), walks(2, 1, 4 * SIZE)
    batch, targets = batch_of(values[..., :-SIZE]), values[..., SIZE:]
    ends = [toto_loss(model, batch, targets, batch.observed, weight) for weight in (0.0, 1.0)]
    assert ends[0] != ends[1]
    assert torch.isclose(
        toto_loss(model, batch, targets, batch.observed, 0.3), 0.7 * ends[0] + 0.3 * ends[1]
    )
