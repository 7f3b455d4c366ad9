"""The predictor is causal, learns, and its tables of the time are what they say."""

import math

import pytest
import torch

from hrl_sarp.forecasters.kronos import PREDICTORS, KronosPredictor
from tests.forecasters.kronos.tiny import (
    every_shape,
    networks,
    predictor_size,
    slope_error,
    stamps,
    tokens,
)

FIXED = "coarse bits rule, fixed times"
COUNTS = {"mini": 4_108_032, "small": 24_741_376, "base": 102_310_592}


@pytest.mark.parametrize("name", COUNTS)
def test_published_sizes_have_their_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        predictor = KronosPredictor(PREDICTORS[name])
    assert sum(weights.numel() for weights in predictor.parameters()) == COUNTS[name]


@every_shape
@pytest.mark.parametrize("is_training", [True, False])
def test_later_tokens_change_no_earlier_logits(shape: str, *, is_training: bool) -> None:
    _, predictor = networks(shape)
    predictor.train(is_training)
    (s1, s2), times = tokens(shape, 2, 10), stamps(2, 10)
    changed, other_times = s1.clone(), times.clone()
    changed[:, 6:] = (s1[:, 6:] + 1) % 2**predictor.size.s1_bits
    other_times[:, 6:, 0] = (times[:, 6:, 0] + 1) % 60
    with torch.no_grad():
        before, after = predictor.read(s1, s2, times), predictor.read(changed, s2, other_times)
        assert torch.equal(before[:, :6], after[:, :6])
        assert not torch.allclose(before[:, 6], after[:, 6])
        pairs = [(before, s1), (after, changed)]
        given, moved = (predictor.s2_logits(*pair) for pair in pairs)
        assert torch.equal(given[:, :6], moved[:, :6])
        assert not torch.allclose(given[:, 6], moved[:, 6])


@every_shape
def test_padding_on_the_left_changes_nothing(shape: str) -> None:
    _, predictor = networks(shape)
    (s1, s2), times = tokens(shape, 3, 9), stamps(3, 9)
    is_padding = torch.arange(9) < torch.tensor([[0], [2], [8]])
    with torch.no_grad():
        padded = predictor.read(s1, s2, times, is_padding)
        assert bool(torch.isfinite(padded).all())
        for row, n_missing in enumerate((0, 2, 8)):
            parts = (part[row : row + 1, n_missing:] for part in (s1, s2, times))
            alone = predictor.read(*parts)
            assert torch.allclose(padded[row, n_missing:], alone[0], atol=1e-5)


def test_a_token_is_a_pair_and_its_halves_are_no_number_together() -> None:
    _, predictor = networks("even bits, learned times")
    s1, s2 = torch.tensor([[3]]), torch.tensor([[5]])
    assert not torch.allclose(predictor.embed(s1, s2, None), predictor.embed(s2, s1, None))


def test_fixed_tables_of_the_time_are_sines_and_training_leaves_them() -> None:
    _, predictor = networks(FIXED)
    width = predictor.size.d_model
    table = predictor.state_dict()["time_emb.day_embed.emb.weight"].clone()
    for row, column in ((0, 0), (7, 4), (31, width - 2)):
        angle = row / 10_000 ** (column / width)
        assert table[row, column].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert table[row, column + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)
    optimizer = torch.optim.AdamW(predictor.parameters(), 1e-2)
    predictor.loss(*tokens(FIXED, 2, 6), stamps(2, 6)).total.backward()
    optimizer.step()
    assert torch.equal(predictor.state_dict()["time_emb.day_embed.emb.weight"], table)


def test_learned_tables_of_the_time_learn() -> None:
    shape = "even bits, learned times"
    _, predictor = networks(shape)
    predictor.loss(*tokens(shape, 2, 6), stamps(2, 6)).total.backward()
    for name, weights in predictor.time_emb.named_parameters():
        assert weights.grad is not None, name
        assert weights.grad.abs().max() > 0, name


@every_shape
def test_the_loss_has_the_slopes_that_its_gradients_say(shape: str) -> None:
    predictor = networks(shape)[1].double().train()
    inputs = *tokens(shape, 2, 6), stamps(2, 6)
    predictor.loss(*inputs).total.backward()
    moved = 0
    for i, (name, weights) in enumerate(predictor.named_parameters()):
        if weights.requires_grad:
            found = slope_error(lambda: predictor.loss(*inputs).total, weights, i)
            assert abs(found) < 1e-6, name
            moved += int(weights.grad is not None and weights.grad.abs().max() > 1e-5)
    assert moved > 20


def test_the_given_s1_is_true_or_drawn_from_the_model_by_the_generator() -> None:
    shape = "even bits, learned times"
    _, predictor = networks(shape)
    inputs = *tokens(shape, 4, 12), stamps(4, 12)

    def loss(seed: int | None) -> tuple[float, float]:
        drawn = None if seed is None else torch.Generator().manual_seed(seed)
        found = predictor.loss(*inputs, drawn)
        return found.s1.item(), found.s2.item()

    assert loss(None) == loss(None)
    assert loss(1) == loss(1)
    assert loss(1)[1] != loss(2)[1]
    assert loss(1)[1] != loss(None)[1]
    assert loss(1)[0] == loss(2)[0] == loss(None)[0]


def test_a_model_that_is_sure_draws_what_is_true() -> None:
    shape = "even bits, learned times"
    _, predictor = networks(shape)
    (s1, s2), times = tokens(shape, 1, 8), stamps(1, 8)
    with torch.no_grad():
        predictor.head.proj_s1.weight.zero_()
        predictor.head.proj_s1.bias.fill_(-1e3)[3] = 1e3
    s1.fill_(3)
    drawn = predictor.loss(s1, s2, times, torch.Generator().manual_seed(1))
    assert drawn.s2.item() == predictor.loss(s1, s2, times).s2.item()


def test_weights_begin_as_published() -> None:
    torch.manual_seed(1)
    size = predictor_size(FIXED).model_copy(update={"d_model": 64, "ff_dim": 96, "s1_bits": 8})
    predictor = KronosPredictor(size)
    table = predictor.embedding.emb_s1.weight
    assert table.std().item() == pytest.approx(64**-0.5, rel=0.05)
    projection = predictor.transformer[0].ffn.w1.weight
    assert projection.std().item() == pytest.approx(math.sqrt(2 / (64 + 96)), rel=0.05)
    assert predictor.head.proj_s1.bias.abs().max() == 0


def test_one_batch_can_be_learned_by_heart() -> None:
    shape = "even bits, learned times"
    _, predictor = networks(shape)
    inputs = *tokens(shape, 2, 10), stamps(2, 10)
    optimizer = torch.optim.AdamW(predictor.train().parameters(), 1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        loss = predictor.loss(*inputs)
        loss.total.backward()
        optimizer.step()
    assert loss.total < 0.05
