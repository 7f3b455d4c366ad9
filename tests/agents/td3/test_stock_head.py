import pytest
import torch

from hrl_sarp.agents.td3.stock_head import _at_once, stock_head

ROW_OF = torch.tensor([1, 1, 0, 2, 1])


def draw(n_own: int, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Market (D=3, N=4, H=6), weight, context and out for 5 decisions, then the own tables."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4, 6), (n_own, 6), (5, 6), (6,), *[(5, 4)] * n_own]
    return [torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in shapes]


def compute(function, market, weight, context, out, *own):  # type: ignore[no-untyped-def]
    return function(market, list(own), weight, context, out, ROW_OF)


def test_one_stock_by_hand() -> None:
    market = torch.tensor([[[1.0, -2.0]]])  # one day, one stock, two hidden numbers
    own, weight = [torch.tensor([[0.5]])], torch.tensor([[2.0, 1.0]])
    context, out = torch.tensor([[1.0, 1.0]]), torch.tensor([3.0, 5.0])
    # hidden: 1 + 0.5 x 2 + 1 = 3 and -2 + 0.5 + 1 = -0.5, cut to 0; 3 x 3 + 5 x 0 = 9
    result = stock_head(market, own, weight, context, out, torch.tensor([0]))
    torch.testing.assert_close(result, torch.tensor([[9.0]]))


@pytest.mark.parametrize("n_own", [3, 4])
def test_gradients_match_finite_differences(n_own: int) -> None:
    assert torch.autograd.gradcheck(lambda *x: compute(stock_head, *x), draw(n_own))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_in_the_cache_and_at_once_agree_in_values_and_gradients(dtype: torch.dtype) -> None:
    inputs = draw(4, dtype)
    in_cache, at_once = compute(stock_head, *inputs), compute(_at_once, *inputs)
    torch.testing.assert_close(in_cache, at_once)
    above = torch.linspace(-1, 1, in_cache.numel(), dtype=dtype).view_as(in_cache)
    torch.testing.assert_close(
        torch.autograd.grad(in_cache, inputs, above), torch.autograd.grad(at_once, inputs, above)
    )


@pytest.mark.parametrize("trained", [slice(0, 4), slice(4, None)])
def test_parts_that_are_frozen_do_not_change_the_other_gradients(trained: slice) -> None:
    inputs = draw(4)
    together = torch.autograd.grad(compute(stock_head, *inputs).sum(), inputs)[trained]
    for tensor in inputs:
        tensor.requires_grad_(requires_grad=False)
    for tensor in inputs[trained]:
        tensor.requires_grad_()
    apart = torch.autograd.grad(compute(stock_head, *inputs).sum(), inputs[trained])
    torch.testing.assert_close(apart, together, rtol=0, atol=0)


def test_what_is_not_a_number_stays_visible() -> None:
    inputs = draw(4)
    with torch.no_grad():
        inputs[0][1, 2, 3] = torch.nan
    assert compute(stock_head, *inputs).isnan().any()
