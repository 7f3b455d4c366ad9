"""Bars become tokens and tokens bars, causally, and the loss teaches both directions."""

import math

import pytest
import torch

from hrl_sarp.forecasters.kronos import TOKENIZER_2K, TOKENIZER_BASE, KronosTokenizer
from hrl_sarp.forecasters.kronos.tokenizer import BinarySphere
from tests.forecasters.kronos.tiny import every_shape, networks, slope_error, tokenizer_size, tokens


@pytest.mark.parametrize("size", [TOKENIZER_BASE, TOKENIZER_2K])
def test_published_sizes_have_their_number_of_parameters(size: object) -> None:
    with torch.device("meta"):
        tokenizer = KronosTokenizer(size)  # type: ignore[arg-type]
    assert sum(weights.numel() for weights in tokenizer.parameters()) == 3_958_042


def test_the_nearest_code_keeps_signs_and_zero_counts_as_negative() -> None:
    points = torch.tensor([0.5, -0.1, 0.0, 0.7], requires_grad=True)
    codes = BinarySphere(4, 2)(points)
    assert codes.tolist() == [0.5, -0.5, -0.5, 0.5]
    codes.sum().backward()
    assert points.grad is not None
    assert points.grad.tolist() == [1 / math.sqrt(4)] * 4


@every_shape
def test_every_token_is_found_again_in_the_bits_of_its_code(shape: str) -> None:
    tokenizer, _ = networks(shape)
    size = tokenizer.size
    s1 = torch.arange(2**size.s1_bits).repeat_interleave(2**size.s2_bits)[None]
    s2 = torch.arange(2**size.s2_bits).repeat(2**size.s1_bits)[None]
    # a layer that hands codes on shows them
    tokenizer.post_quant_embed = torch.nn.Identity()
    tokenizer.post_quant_embed.weight = torch.zeros(0)  # type: ignore[assignment]
    codes = tokenizer._embed_tokens(s1, s2)
    assert torch.allclose(codes.square().sum(dim=-1), torch.ones(s1.shape))
    bits = (codes[0] > 0).long()
    powers = 2 ** torch.arange(max(size.s1_bits, size.s2_bits))
    assert torch.equal(bits[:, : size.s1_bits] @ powers[: size.s1_bits], s1[0])
    assert torch.equal(bits[:, size.s1_bits :] @ powers[: size.s2_bits], s2[0])


@every_shape
def test_later_bars_change_no_earlier_token_and_no_decoded_bar(shape: str) -> None:
    tokenizer, _ = networks(shape)
    bars = torch.randn(2, 12, 6)
    changed = bars.clone()
    changed[:, 7:] += 3
    points, moved = tokenizer.points(bars), tokenizer.points(changed)
    assert torch.equal(points[:, :7], moved[:, :7])
    assert not torch.allclose(points[:, 7], moved[:, 7])
    s1, s2 = tokens(shape, 2, 12)
    other = s1.clone()
    other[:, 7:] = (other[:, 7:] + 1) % 2**tokenizer.size.s1_bits
    decoded, again = tokenizer.decode(s1, s2), tokenizer.decode(other, s2)
    assert torch.equal(decoded[:, :7], again[:, :7])
    assert not torch.equal(decoded[:, 7], again[:, 7])


@every_shape
@pytest.mark.parametrize("n_padding", [0, 3])
def test_paths_are_decoded_as_if_each_stood_alone(shape: str, n_padding: int) -> None:
    tokenizer, _ = networks(shape)
    context, paths = tokens(shape, 2, 9), tokens(shape, 2, 4, 5, seed=1)
    is_padding = torch.arange(9) < torch.tensor([[0], [n_padding]]) if n_padding else None
    with torch.no_grad():
        found = tokenizer.decode_paths(context, paths, is_padding)
        for series in range(2):
            start = n_padding * series
            for path in range(4):
                whole = (
                    torch.cat([old[series, start:], new[series, path]])[None]
                    for old, new in zip(context, paths, strict=True)
                )
                alone = tokenizer.decode(*whole)[0, -5:]
                assert torch.allclose(found[series, path], alone, atol=1e-5)


@every_shape
def test_the_loss_has_the_slopes_that_its_gradients_say(shape: str) -> None:
    tokenizer = networks(shape)[0].double().train()
    bars = torch.randn(2, 6, 6, dtype=torch.float64)
    tokenizer.loss(bars).total.backward()
    for weights in (tokenizer.head.weight, tokenizer.post_quant_embed.weight):
        assert abs(slope_error(lambda: tokenizer.loss(bars).total, weights, 1)) < 1e-6
    # signs have no slope, so before them only what does not pass through them can be compared
    tokenizer.zero_grad()
    tokenizer.loss(bars).quantisation.backward()
    for weights in (tokenizer.quant_embed.weight, tokenizer.embed.weight):
        found = slope_error(lambda: tokenizer.loss(bars).quantisation, weights, 2)
        assert abs(found) < 1e-7
        assert weights.grad is not None
        assert weights.grad.abs().max() > 1e-4


def test_the_group_size_changes_a_buffer_and_no_loss() -> None:
    size = tokenizer_size("even bits, learned times")
    losses, bars = [], torch.randn(2, 6, 6)
    for group_size in (1, 4, 8):
        torch.manual_seed(3)
        tokenizer = KronosTokenizer(size.model_copy(update={"group_size": group_size}))
        assert len(tokenizer.state_dict()["tokenizer.bsq.group_basis"]) == group_size
        losses.append(tokenizer.loss(bars).total.item())
    assert len(set(losses)) == 1


def test_one_batch_can_be_learned_by_heart() -> None:
    tokenizer = networks("even bits, learned times")[0].train()
    bars = torch.randn(1, 8, 6, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(tokenizer.parameters(), 1e-2)
    first = tokenizer.loss(bars)
    for _ in range(150):
        optimizer.zero_grad()
        last = tokenizer.loss(bars)
        last.total.backward()
        optimizer.step()
    assert last.full_error < 0.05 * first.full_error
    assert last.coarse_error < 0.3 * first.coarse_error
