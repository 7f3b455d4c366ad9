"""The compiled kernels against the PyTorch of the simulator, which is the reference."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hrl_sarp.config.schema import RiskConfig
from hrl_sarp.contracts import Market, StepResult
from hrl_sarp.errors import SimulatorError
from hrl_sarp.simulator import fused, kernels, limits, portfolio
from hrl_sarp.simulator.limits import target_weights
from hrl_sarp.simulator.portfolio import PortfolioSimulator
from tests import factories

SEEDS = st.integers(0, 2**32 - 1)
NEAR = {torch.float64: 1e-12, torch.float32: 2e-6}


@contextmanager
def in_pytorch() -> Iterator[None]:
    """Refuse every kernel."""
    with (
        patch.object(portfolio, "fused_session", return_value=None),
        patch.object(limits, "fused_targets", return_value=None),
    ):
        yield


@contextmanager
def in_kernels() -> Iterator[None]:
    """Fail where a kernel leaves the work to PyTorch."""

    def served(kernel: Any) -> Any:
        def run(*given: Any) -> Any:
            found = kernel(*given)
            assert found is not None
            return found

        return run

    with (
        patch.object(portfolio, "fused_session", served(fused.fused_session)),
        patch.object(limits, "fused_targets", served(fused.fused_targets)),
    ):
        yield


def draw_simulators(
    rng: np.random.Generator, dtype: torch.dtype, n_envs: int = 5, n_days: int = 30
) -> tuple[PortfolioSimulator, PortfolioSimulator]:
    """Draw a market with halts and delistings, costs and limits, and start it twice."""
    sizes = rng.integers(1, 6, 2)
    market = factories.random_market(rng, n_days, int(sizes[0]), int(sizes[1]))
    tradable = market.tradable & (rng.random(market.tradable.shape) > rng.choice([0.0, 0.3]))
    tradable |= market.listed & ~(np.roll(market.listed, 1, 0) & np.roll(market.listed, -1, 0))
    market = replace(market, tradable=tradable)
    costs: Any = [draw_costs(rng) for _ in range(n_envs)]
    risk = factories.risk_config(
        stock_cap=float(rng.choice([0.05, 0.2, 1.0])),
        sector_cap=float(rng.choice([0.3, 0.6, 1.0])),
        turnover_cap=float(rng.choice([0.05, 0.3, 1.0])),
        drawdown_gate=bool(rng.random() < 0.5),
        gate_drawdown=0.02,
    )
    gated = torch.as_tensor(rng.random(n_envs) < 0.5) if rng.random() < 0.5 else None
    if rng.random() < 0.5:
        costs = costs[0]
    start = torch.as_tensor(rng.integers(0, n_days // 2, n_envs))
    pair = tuple(
        PortfolioSimulator(market, costs, risk, n_envs, dtype, gated=gated) for _ in range(2)
    )
    for simulator in pair:
        simulator.reset(start)
    return pair[0], pair[1]


def draw_costs(rng: np.random.Generator) -> Any:
    return factories.cost_config(
        buy_bps=rng.uniform(0, 50) * rng.integers(0, 2),
        sell_bps=rng.uniform(0, 50),
        impact_coefficient=float(rng.choice([0.0, 0.3])),
        delisting_return=float(rng.choice([0.0, -0.3, -1.0])),
    )


def draw_actions(rng: np.random.Generator, simulator: PortfolioSimulator) -> torch.Tensor:
    """Draw actions within the limits and far above, with zeros, signs and whole rows of cash."""
    shape = (simulator.n_envs, simulator.tensors.n_slots)
    action = rng.exponential(1.0, shape) ** rng.choice([0.5, 3.0])
    action *= (rng.random(shape) < 0.8) * rng.choice([-1.0, 1.0], shape, p=[0.1, 0.9])
    action *= rng.choice([0.0, 0.1, 1.0, 30.0], (simulator.n_envs, 1)) / np.maximum(
        np.abs(action).sum(axis=1, keepdims=True), 1e-9
    )
    return torch.as_tensor(action, dtype=simulator.tensors.dtype)


def decide(simulator: PortfolioSimulator, action: torch.Tensor, cash: torch.Tensor) -> torch.Tensor:
    state = simulator.state
    exposure = limits.exposure_limit(cash, simulator.risk, state.gate_days)
    tensors, risk = simulator.tensors, simulator.risk
    return target_weights(tensors, state.day, state.weights, action, exposure, risk)


def some_rows(rng: np.random.Generator, n_envs: int, share: float) -> torch.Tensor | None:
    return torch.as_tensor(rng.random(n_envs) < share) if rng.random() < 0.6 else None


@pytest.mark.parametrize("dtype", NEAR)
@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_kernels_equal_pytorch_over_all_that_can_happen(dtype: torch.dtype, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fast, slow = draw_simulators(rng, dtype)
    for _ in range(8):
        action = draw_actions(rng, fast)
        cash = torch.as_tensor(rng.uniform(-0.2, 1.2, fast.n_envs), dtype=dtype)
        orders = some_rows(rng, fast.n_envs, 0.8), some_rows(rng, fast.n_envs, 0.2)
        with in_kernels():
            target = decide(fast, action, cash)
            found = fast.step(target, *orders)
        with in_pytorch():
            expected_target = decide(slow, action, cash)
            expected = slow.step(expected_target, *orders)
        near = {"rtol": 0, "atol": NEAR[dtype]}
        torch.testing.assert_close(target, expected_target, **near)
        for item in fields(StepResult):
            pair = getattr(found, item.name), getattr(expected, item.name)
            torch.testing.assert_close(*pair, **near, msg=lambda text, i=item: f"{i.name}: {text}")
        for name, value in vars(slow.state).items():
            torch.testing.assert_close(getattr(fast.state, name), value, **near)
        # a last digit may close a gate a day apart, or lift a target over its cap
        fast.state = replace(slow.state)


@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_what_the_simulator_accepts_beyond_the_limits_is_booked_as_in_pytorch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fast, slow = draw_simulators(rng, torch.float64)
    shape = (fast.n_envs, fast.tensors.n_assets + 1)
    for _ in range(10):
        target = torch.as_tensor(rng.dirichlet(np.full(shape[1], 0.3), shape[0])[:, :-1])
        target[0] -= 0.5e-5 * torch.as_tensor(rng.random(shape[1] - 1))  # below 0 by rounding
        hold = some_rows(rng, fast.n_envs, 0.3)
        with in_kernels():
            found = fast.step(target, hold=hold)
        with in_pytorch():
            expected = slow.step(target, hold=hold)
        for item in fields(StepResult):
            pair = getattr(found, item.name), getattr(expected, item.name)
            torch.testing.assert_close(*pair, rtol=0, atol=1e-12)
        fast.state = replace(slow.state)


@pytest.fixture
def own_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave no thread behind: a later test may fork."""
    threads = fused._Threads()
    monkeypatch.setattr(fused, "_threads", threads)
    yield
    threads.get().shutdown()


def big_batch(n_envs: int, dtype: torch.dtype) -> tuple[Market, PortfolioSimulator, torch.Tensor]:
    """Return enough rows for several threads."""
    rng = np.random.default_rng(8)
    market = factories.random_market(rng, 12, n_sectors=6, slots_per_sector=20)
    costs = factories.cost_config(impact_coefficient=0.01)
    risk = factories.risk_config(turnover_cap=0.4)
    simulator = PortfolioSimulator(market, costs, risk, n_envs, dtype)
    action = torch.as_tensor(rng.exponential(0.05, (n_envs, market.n_slots)), dtype=dtype)
    return market, simulator, action


def run_some_days(simulator: PortfolioSimulator, action: torch.Tensor) -> list[torch.Tensor]:
    n_envs = simulator.n_envs
    simulator.reset(torch.arange(n_envs) % 5)
    cash = torch.zeros(n_envs, dtype=action.dtype)
    results = [simulator.step(decide(simulator, action, cash)) for _ in range(5)]
    return [getattr(result, item.name) for result in results for item in fields(StepResult)]


@pytest.mark.parametrize("dtype", NEAR)
def test_any_number_of_threads_and_any_batch_give_the_same_bits(
    dtype: torch.dtype, own_threads: None
) -> None:
    n_envs = 700
    market, simulator, action = big_batch(n_envs, dtype)
    assert n_envs * market.n_assets > 4 * fused.LEAST_WORK
    with in_kernels():
        expected = run_some_days(simulator, action)
        for n_threads in (2, 3, 4):
            torch.set_num_threads(n_threads)
            found = run_some_days(simulator, action)
            assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
        torch.set_num_threads(1)
        costs = factories.cost_config(impact_coefficient=0.01)
        for row in (0, 15, 16, 699):
            alone = PortfolioSimulator(market, costs, simulator.risk, 1, dtype)
            alone.reset(torch.tensor([row % 5]))
            cash = torch.zeros(1, dtype=dtype)
            for _ in range(5):
                alone.step(decide(alone, action[row : row + 1], cash))
            assert torch.equal(alone.state.weights[0], simulator.state.weights[row])
            assert torch.equal(alone.state.wealth[0], simulator.state.wealth[row])


def test_a_forked_process_makes_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = fused._Threads()
    pool = threads.get()  # its threads start with its first task
    assert threads.get() is pool
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert threads.get() is not pool


def test_more_costs_masks_and_orders_compile_nothing_new() -> None:
    for kernel in (kernels.limit_rows, kernels.session_rows):
        assert len(kernel.signatures) <= len(NEAR)


def ready(n_envs: int = 2, **costs: Any) -> tuple[PortfolioSimulator, torch.Tensor]:
    rng = np.random.default_rng(1)
    market = factories.random_market(rng, 12, 2, 3)
    config = factories.cost_config(**costs)
    simulator = PortfolioSimulator(market, config, factories.risk_config(), n_envs, torch.float64)
    simulator.reset(torch.zeros(n_envs, dtype=torch.int64))
    return simulator, torch.full((n_envs, market.n_assets), 0.05, dtype=torch.float64)


def with_entry(target: torch.Tensor, value: float) -> torch.Tensor:
    changed = target.clone()
    changed[1, 2] = value
    return changed


REFUSED = {
    "NaN": lambda simulator, target: simulator.step(with_entry(target, float("nan"))),
    "infinite": lambda simulator, target: simulator.step(with_entry(target, float("inf"))),
    "negative": lambda simulator, target: simulator.step(with_entry(target, -0.1)),
    "above 1": lambda simulator, target: simulator.step(with_entry(target, 0.9)),
}


def refusal(call: Any, simulator: PortfolioSimulator, target: torch.Tensor) -> str:
    with pytest.raises(SimulatorError) as caught:
        call(simulator, target)
    return str(caught.value)


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_refusals_are_those_of_pytorch_and_leave_the_portfolios_alone(call: Any) -> None:
    simulator, target = ready()
    before = simulator.state
    found = refusal(call, simulator, target)
    assert simulator.state is before
    with in_pytorch():
        assert found == refusal(call, simulator, target)


def test_tensors_of_another_shape_or_type_reach_no_kernel() -> None:
    simulator, target = ready()
    served = (target, torch.float64, tuple(target.shape))
    assert fused._is_served(simulator.tensors, (served,))
    for wrong in (target[:, 1:], target[:1], target[0], target.float(), target.to("meta")):
        assert not fused._is_served(simulator.tensors, ((wrong, *served[1:]),))
    parameter = torch.nn.Parameter(target, requires_grad=False)
    assert not fused._is_served(simulator.tensors, ((parameter, *served[1:]),))


def test_a_step_past_the_last_day_is_refused_unless_the_row_stays() -> None:
    simulator, target = ready()
    last = simulator.tensors.n_days - 1
    simulator.reset(torch.tensor([last, 0]))
    with pytest.raises(SimulatorError, match="1 rows are at the last day"):
        simulator.step(target)
    with in_kernels():
        result = simulator.step(target, active=torch.tensor([False, True]))
    assert result.day.tolist() == [last, 1]
    assert result.turnover.tolist()[0] == 0.0


def test_a_state_of_another_day_than_the_market_has_is_refused() -> None:
    simulator, target = ready()
    simulator.state = replace(simulator.state, day=torch.tensor([-7, 0]))
    with pytest.raises(IndexError):
        simulator.step(target)


def test_an_account_too_large_for_the_market_is_refused() -> None:
    simulator, target = ready(capital=1e15, impact_coefficient=5.0)
    with pytest.raises(SimulatorError, match="a trade costs"):
        simulator.step(target)
    assert simulator.state.wealth.tolist() == [1.0, 1.0]


def test_actions_that_are_not_finite_reach_no_kernel() -> None:
    simulator, _ = ready()
    action = torch.full((2, simulator.tensors.n_slots), 0.1, dtype=torch.float64)
    action[1, 0] = float("nan")
    state, risk = simulator.state, simulator.risk
    given = (simulator.tensors, state.day, state.weights, action, state.cash, risk)
    assert fused.fused_targets(*given) is None
    assert bool(target_weights(*given)[1].isnan().any())


def test_gradients_flow_wherever_they_are_asked_for() -> None:
    simulator, target = ready()
    target.requires_grad_()
    simulator.step(target)
    assert simulator.state.wealth.requires_grad
    simulator.step(target.detach())  # the state remembers the first step
    assert simulator.state.wealth.requires_grad
    simulator.detach_state()
    with in_kernels():
        simulator.step(target.detach())
        with torch.no_grad():
            simulator.step(target)
    assert not simulator.state.wealth.requires_grad


def test_views_and_tensors_of_another_precision_are_read_as_they_are() -> None:
    simulator, target = ready()
    other, _ = ready()
    rng = np.random.default_rng(3)
    values = torch.as_tensor(rng.uniform(0, 0.09, (2, target.shape[1])))
    transposed = values.t().contiguous().t()
    assert not transposed.is_contiguous()
    with in_kernels():
        assert torch.equal(simulator.step(transposed).net_return, other.step(values).net_return)
        single = simulator.step(values.float())
    assert single.target_weights.dtype == torch.float32
    assert single.net_return.dtype == torch.float64


def test_a_limit_on_positions_is_left_to_pytorch() -> None:
    simulator, _ = ready()
    action = torch.full((2, simulator.tensors.n_slots), 0.1, dtype=torch.float64)
    risk: RiskConfig = factories.risk_config(max_positions=1)
    state = simulator.state
    given = (simulator.tensors, state.day, state.weights, action, state.cash, risk)
    assert fused.fused_targets(*given) is None
    assert int((target_weights(*given) > 0).sum()) == 2


def test_one_stock_and_all_cash_are_portfolios_too() -> None:
    market = factories.market_with(np.full((5, 1), 0.01), np.zeros((5, 1)), [0])
    simulator = PortfolioSimulator(
        market, factories.cost_config(), factories.risk_config(), 1, torch.float64
    )
    simulator.reset(torch.tensor([0]))
    with in_kernels():
        nothing = simulator.step(torch.zeros(1, 1, dtype=torch.float64))
        assert (nothing.net_return.item(), nothing.cost.item()) == (0.0, 0.0)
        assert simulator.state.cash.item() == 1.0
        simulator.step(torch.full((1, 1), 0.5, dtype=torch.float64))
        held = simulator.step(torch.full((1, 1), 0.5, dtype=torch.float64))
    assert held.gross_return.item() == pytest.approx(0.005, rel=1e-12)
