"""Decides where the day of the portfolios is computed: in compiled kernels, or in PyTorch.

The kernels serve tensors on the CPU that need no gradient. Everything else is left to PyTorch, and
so is every step that has to be refused: PyTorch is the reference, and refuses in its own words.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hrl_sarp.config.schema import RiskConfig
from hrl_sarp.contracts import PortfolioState, StepResult
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.simulator import kernels

LEAST_WORK = 16_384
"""Weights of all rows together for which one more thread pays."""

Expected = tuple[Tensor, torch.dtype, tuple[int, ...]]
"""A tensor, and the type and shape that it must have."""


@dataclass(frozen=True)
class SessionTables:
    """What a session reads beside the tables of the market."""

    fillable: Float[Tensor, "T A"]
    """1 where an order decided at the close before can be filled at the open of the day."""
    stuck: Float[Tensor, "T A"]
    """1 where a stock is listed and no order can be filled."""
    listed: Float[Tensor, "T A"]
    """1 where a stock is listed."""
    delisted: Bool[Tensor, "T A"]
    """True on the first day without the stock."""
    costs: Float[np.ndarray, "R 5"]
    """As `TradeCosts.table` gives them."""
    has_impact: bool
    sector_cap: float


@dataclass
class _Threads:
    """The threads of this process; a forked process inherits none."""

    owner: int = 0
    pool: ThreadPoolExecutor | None = None

    def get(self) -> ThreadPoolExecutor:
        if self.pool is None or self.owner != os.getpid():
            self.pool, self.owner = ThreadPoolExecutor(os.cpu_count()), os.getpid()
        return self.pool


_threads = _Threads()


def fused_targets(
    tensors: MarketTensors,
    day: Int[Tensor, " B"],
    weights: Float[Tensor, "B A"],
    slot_action: Float[Tensor, "B N"],
    exposure: Float[Tensor, " B"],
    risk: RiskConfig,
) -> Float[Tensor, "B A"] | None:
    """Compute `limits.target_weights` in a kernel; None where PyTorch has to.

    A limit on the number of positions is left to PyTorch.
    """
    n_rows, dtype = len(day), tensors.dtype
    expected = (
        (day, torch.int64, (n_rows,)),
        (weights, dtype, (n_rows, tensors.n_assets)),
        (slot_action, slot_action.dtype, (n_rows, tensors.n_slots)),
        (exposure, dtype, (n_rows,)),
    )
    if risk.max_positions > 0 or not _is_served(tensors, expected):
        return None
    targets = torch.empty(n_rows, tensors.n_assets, dtype=dtype)
    decisions = _arrays(day, weights, slot_action.to(dtype), exposure)
    tables = _arrays(
        tensors.halted, tensors.slot_open, tensors.slot_held, tensors.slots, tensors.sector_of
    )
    rules = (risk.stock_cap, risk.sector_cap, risk.turnover_cap, tensors.n_sectors)
    done = _run(kernels.limit_rows, targets, (decisions, tables, rules, targets.numpy()))
    return targets if done else None


def fused_session(
    tensors: MarketTensors,
    tables: SessionTables,
    before: PortfolioState,
    target: Float[Tensor, "B A"],
    active: Bool[Tensor, " B"] | None,
    hold: Bool[Tensor, " B"] | None,
) -> tuple[StepResult, Float[Tensor, " B"]] | None:
    """Compute a session and the cash after it in a kernel; None where PyTorch has to.

    Rows that are not active are computed as well, as in PyTorch.
    """
    n_rows, dtype = len(before.day), tensors.dtype
    many, one = (n_rows, tensors.n_assets), (n_rows,)
    nobody = torch.empty(0, dtype=torch.bool)
    moves, holds = (nobody if rows is None else rows for rows in (active, hold))
    expected = (
        (before.day, torch.int64, one),
        (before.weights, dtype, many),
        (before.cash, dtype, one),
        (before.wealth, dtype, one),
        (target, target.dtype, many),
        (moves, torch.bool, (0,) if active is None else one),
        (holds, torch.bool, (0,) if hold is None else one),
    )
    if len(tables.costs) not in {1, n_rows} or not _is_served(tensors, expected):
        return None
    day = torch.empty(n_rows, dtype=torch.int64)
    held = [torch.empty(many, dtype=dtype) for _ in range(3)]
    earned = [torch.empty(n_rows, dtype=dtype) for _ in range(6)]
    arguments = (
        _arrays(before.weights, before.cash, before.wealth),
        _arrays(before.day, target.to(dtype), moves, holds),
        (*_market_arrays(tensors, tables), tensors.n_sectors),
        tables.costs,
        tables.sector_cap,
        (day.numpy(), *(rows.numpy() for rows in held)),
        tuple(values.numpy() for values in earned),
    )
    if not _run(kernels.session_rows, before.weights, arguments):
        return None
    net, gross, cost, turnover, cash, delisted = earned
    result = StepResult(
        day=day,
        net_return=net,
        gross_return=gross,
        cost=cost,
        turnover=turnover,
        target_weights=target,
        weights_start=before.weights,
        weights_before=held[0],
        weights_after=held[1],
        weights_end=held[2],
        delisted_value=delisted,
    )
    return result, cash


def _is_served(tensors: MarketTensors, expected: tuple[Expected, ...]) -> bool:
    if tensors.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    if tensors.dtype not in {torch.float32, torch.float64}:
        return False
    has_gradient = torch.is_grad_enabled()
    return all(
        type(given) is Tensor
        and given.device.type == "cpu"
        and given.dtype == dtype
        and given.shape == shape
        and not (has_gradient and given.requires_grad)
        for given, dtype, shape in expected
    )


def _arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    return tuple(tensor.detach().contiguous().numpy() for tensor in tensors)


def _market_arrays(tensors: MarketTensors, tables: SessionTables) -> tuple[np.ndarray, ...]:
    volume = tensors.dollar_volume
    return _arrays(
        tensors.overnight,
        tensors.intraday,
        tensors.risk_free,
        tables.fillable,
        tables.stuck,
        tables.listed,
        tables.delisted,
        volume if tables.has_impact else volume[:0],
        tensors.sector_of,
    )


def _run(kernel: Callable[..., bool], weights: Tensor, arguments: tuple[Any, ...]) -> bool:
    """Run a kernel over all rows, on as many threads as PyTorch may use and the work is worth."""
    n_rows = len(weights)
    n_parts = min(torch.get_num_threads(), weights.numel() // LEAST_WORK, n_rows)
    if n_parts <= 1:
        return kernel(0, n_rows, *arguments)
    cuts = [n_rows * part // n_parts for part in range(n_parts + 1)]
    pool = _threads.get()
    parts = [pool.submit(kernel, *ends, *arguments) for ends in pairwise(cuts[1:])]
    done = [kernel(0, cuts[1], *arguments), *(part.result() for part in parts)]
    return all(done)
