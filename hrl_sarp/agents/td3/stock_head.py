"""The hidden layer of a stock in the micro networks, computed without writing it to memory.

The layer is a sum of three small parts, but it has B x N x H numbers. With 256 decisions over 99
stocks each use of it would move 3 MB through memory, and an update would mostly wait for that.
"""

from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int
from numba import njit
from torch import Tensor, nn

N_OWN = 4
"""Largest number of portfolio tables; the kernels name each of them."""


def stock_head(
    market: Float[Tensor, "D N H"],
    own: list[Float[Tensor, "B N"]],
    weight: Float[Tensor, "P H"],
    context: Float[Tensor, "B H"],
    out: Float[Tensor, " H"],
    row_of: Int[Tensor, " B"],
) -> Float[Tensor, "B N"]:
    """Return out . relu(market[row] + sum_p own[p] weight[p] + context) of each stock.

    The product is over the H hidden numbers. Differentiable once, in everything but `row_of`, the
    row of `market` that each decision looks at. `own` holds at most `N_OWN` tables.
    """
    if market.device.type != "cpu" or torch.compiler.is_exporting():
        return _at_once(market, own, weight, context, out, row_of)
    missing = N_OWN - len(own)
    own = own + [torch.zeros_like(own[0])] * missing
    weight = nn.functional.pad(weight, (0, 0, 0, missing))
    tables = (market, weight, context, out, row_of, *own)
    if not torch.is_grad_enabled():
        return _in_cache(tables)
    result: Tensor = _InCache.apply(*tables)  # type: ignore[no-untyped-call]  # PyTorch gives no types
    return result


def _at_once(
    market: Float[Tensor, "D N H"],
    own: list[Float[Tensor, "B N"]],
    weight: Float[Tensor, "P H"],
    context: Float[Tensor, "B H"],
    out: Float[Tensor, " H"],
    row_of: Int[Tensor, " B"],
) -> Float[Tensor, "B N"]:
    columns = torch.stack([*own, torch.ones_like(own[0])], dim=2)
    rates = torch.cat([weight.expand(len(context), -1, -1), context[:, None]], dim=1)
    hidden = market.index_select(0, row_of).baddbmm_(columns, rates)
    return hidden.relu_() @ out


class _InCache(torch.autograd.Function):
    """Computes the hidden layer again in the backward pass instead of storing it."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        return _in_cache(inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        inputs = _arrays(ctx.saved_tensors)
        given = above.contiguous().numpy()
        shared: list[Tensor | None] = [None] * 4
        own: list[Tensor | None] = [None] * N_OWN
        if any(ctx.needs_input_grad[:4]):
            found = tuple(np.zeros_like(array) for array in inputs[:4])
            _backward_shared(inputs, given, found)
            shared = [torch.from_numpy(array) for array in found]
        if any(ctx.needs_input_grad[5:]):
            found = tuple(np.empty_like(array) for array in inputs[5:])
            _backward_own(inputs, given, found)
            own = [torch.from_numpy(array) for array in found]
        return (*shared, None, *own)


def _in_cache(inputs: tuple[Tensor, ...]) -> Tensor:
    arrays = _arrays(inputs)
    result = np.empty(arrays[-1].shape, arrays[-1].dtype)
    _forward(arrays, result)
    return torch.from_numpy(result)


def _arrays(tensors: tuple[Tensor, ...]) -> tuple[np.ndarray, ...]:
    return tuple(tensor.detach().contiguous().numpy() for tensor in tensors)


# The kernels have no shape annotations: the run-time checks of the tests would wrap them, and Numba
# could not compile them. fastmath may reorder sums, so that they run in vector registers. A loop
# over the own tables, instead of four names, would prevent that.


@njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
@no_type_check
def _forward(inputs, result):
    market, weight, context, out, row_of, own_0, own_1, own_2, own_3 = inputs
    n_rows, n_slots = result.shape
    zero = result.dtype.type(0)
    for b in range(n_rows):
        day = row_of[b]
        for n in range(n_slots):
            o0, o1, o2, o3 = own_0[b, n], own_1[b, n], own_2[b, n], own_3[b, n]
            total = zero
            for h in range(len(out)):
                hidden = market[day, n, h] + context[b, h]
                hidden += o0 * weight[0, h] + o1 * weight[1, h]
                hidden += o2 * weight[2, h] + o3 * weight[3, h]
                total += (zero if hidden <= 0 else hidden) * out[h]
            result[b, n] = total


@njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
@no_type_check
def _backward_shared(inputs, above, grads):
    market, weight, context, out, row_of, own_0, own_1, own_2, own_3 = inputs
    market_g, weight_g, context_g, out_g = grads
    n_rows, n_slots = above.shape
    zero = above.dtype.type(0)
    for b in range(n_rows):
        day = row_of[b]
        for n in range(n_slots):
            o0, o1, o2, o3 = own_0[b, n], own_1[b, n], own_2[b, n], own_3[b, n]
            given = above[b, n]
            for h in range(len(out)):
                hidden = market[day, n, h] + context[b, h]
                hidden += o0 * weight[0, h] + o1 * weight[1, h]
                hidden += o2 * weight[2, h] + o3 * weight[3, h]
                is_off = hidden <= 0
                below = zero if is_off else given * out[h]
                out_g[h] += zero if is_off else given * hidden
                market_g[day, n, h] += below
                context_g[b, h] += below
                weight_g[0, h] += below * o0
                weight_g[1, h] += below * o1
                weight_g[2, h] += below * o2
                weight_g[3, h] += below * o3


@njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
@no_type_check
def _backward_own(inputs, above, grads):
    market, weight, context, out, row_of, own_0, own_1, own_2, own_3 = inputs
    grad_0, grad_1, grad_2, grad_3 = grads
    n_rows, n_slots = above.shape
    zero = above.dtype.type(0)
    for b in range(n_rows):
        day = row_of[b]
        for n in range(n_slots):
            o0, o1, o2, o3 = own_0[b, n], own_1[b, n], own_2[b, n], own_3[b, n]
            g0, g1, g2, g3 = zero, zero, zero, zero
            for h in range(len(out)):
                hidden = market[day, n, h] + context[b, h]
                hidden += o0 * weight[0, h] + o1 * weight[1, h]
                hidden += o2 * weight[2, h] + o3 * weight[3, h]
                below = zero if hidden <= 0 else out[h]
                g0 += below * weight[0, h]
                g1 += below * weight[1, h]
                g2 += below * weight[2, h]
                g3 += below * weight[3, h]
            given = above[b, n]
            grad_0[b, n], grad_1[b, n] = given * g0, given * g1
            grad_2[b, n], grad_3[b, n] = given * g2, given * g3
