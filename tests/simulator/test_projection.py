from collections.abc import Callable

import cvxpy
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hrl_sarp.simulator.projection import (
    _find_theta,
    _find_theta_at_once,
    _find_theta_by_rank,
    cap_turnover,
    limit_positions,
    project_sectors,
    project_weights,
    project_within_sectors,
)

SEEDS = st.integers(0, 2**32 - 1)


def draw_problem(
    seed: int, shape: tuple[int, int, int] = (4, 3, 4), dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Preferences of any temperature, some 0; caps that forbid, bind or do not; any exposure."""
    rng = np.random.default_rng(seed)
    batch, sectors, _ = shape
    spread = rng.choice([0.1, 1.0, 4.0])
    preferences = np.exp(spread * rng.normal(size=shape)) * (rng.random(shape) > 0.15)
    stock_caps = rng.uniform(0.02, 0.4, shape) * (rng.random(shape) > 0.1)
    sector_caps = rng.uniform(0.0, 0.8, (batch, sectors))
    exposure = rng.uniform(0.1, 1.0, batch)
    arrays = (preferences, stock_caps, sector_caps, exposure)
    p, u, c, e = (torch.as_tensor(a, dtype=dtype) for a in arrays)
    return p, u, c, e


def capacity(p: torch.Tensor, u: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    return torch.minimum((u * (p > 0)).sum(2), c).sum(1)


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_weights_keep_every_limit_and_the_sum_is_exact(seed: int) -> None:
    p, u, c, e = draw_problem(seed)
    w = project_weights(p, u, c, e)
    assert bool((w >= 0).all())
    assert float((w - u).max()) <= 0.0
    assert float((w.sum(2) - c).max()) <= 1e-12
    torch.testing.assert_close(
        w.sum((1, 2)), torch.minimum(e, capacity(p, u, c)), rtol=0, atol=1e-12
    )


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_uncapped_stocks_of_a_sector_share_one_factor_and_full_sectors_a_smaller_one(
    seed: int,
) -> None:
    p, u, c, e = draw_problem(seed, (1, 3, 4))
    w = project_weights(p, u, c, e)
    free = (p > 0) & (w < u - 1e-9)
    factor = torch.where(free, w / p.clamp_min(1e-300), torch.nan)[0].numpy()
    full = (w.sum(2) > c - 1e-9)[0].numpy()
    open_factors = factor[~full][~np.isnan(factor[~full])]
    for row in factor:
        known = row[~np.isnan(row)]
        np.testing.assert_allclose(known, known[:1].repeat(len(known)), rtol=1e-9)
    if len(open_factors):
        np.testing.assert_allclose(open_factors, open_factors[0], rtol=1e-9)
        full_factors = factor[full][~np.isnan(factor[full])]
        assert (full_factors <= open_factors[0] * (1 + 1e-9)).all()


@pytest.mark.parametrize("seed", range(24))
def test_weights_are_the_kl_projection_that_cvxpy_finds(seed: int) -> None:
    p, u, c, e = draw_problem(seed, (1, 3, 4))
    p = torch.where(p > 0, p.clamp_min(1e-3 * p.max()), 0.0)  # the solver's precision ends there
    total = float(torch.minimum(e, capacity(p, u, c))) * 0.999  # strictly feasible for the solver
    ours = project_weights(p, u, c, torch.tensor([total], dtype=torch.float64))[0].numpy()
    mask = (p[0] > 0).numpy() & (u[0] > 0).numpy()
    wanted = p[0].numpy() / p[0].sum().item()
    w = cvxpy.Variable((3, 4), nonneg=True)
    objective = cvxpy.sum(cvxpy.kl_div(w[mask], wanted[mask]))
    limits = [w <= u[0].numpy(), cvxpy.sum(w, axis=1) <= c[0].numpy(), cvxpy.sum(w) == total]
    problem = cvxpy.Problem(cvxpy.Minimize(objective), [*limits, w[~mask] == 0])
    problem.solve(solver="CLARABEL")
    np.testing.assert_allclose(ours, w.value, atol=1e-4)  # the solver's weights, to 4 digits
    found = problem.value
    w.save_value(ours)
    assert objective.value <= found + 1e-7  # and nothing nearer than ours exists


def test_feasible_preferences_come_back_unchanged() -> None:
    p = torch.tensor([[[0.10, 0.05], [0.02, 0.0]]], dtype=torch.float64)
    w = project_weights(
        p, torch.full_like(p, 0.1), torch.full((1, 2), 0.35, dtype=p.dtype), p.sum((1, 2))
    )
    torch.testing.assert_close(w, p, rtol=0, atol=1e-15)


def test_what_a_capped_stock_cannot_hold_goes_to_the_others_pro_rata() -> None:
    # cap 0.5 takes stock 0; the other 0.4 is split 3 : 1
    p = torch.tensor([[[6.0, 3.0, 1.0]]], dtype=torch.float64)
    w = project_weights(p, torch.full_like(p, 0.5), torch.ones(1, 1).double(), torch.tensor([0.9]))
    expected = torch.tensor([[[0.5, 0.3, 0.1]]], dtype=torch.float64)
    torch.testing.assert_close(w, expected, rtol=0, atol=1e-7)  # exposure came as float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_preference_or_no_exposure_gives_all_cash(dtype: torch.dtype) -> None:
    p = torch.tensor([[[0.0, 0.0]], [[1.0, 2.0]]], dtype=dtype)
    u, c = torch.full_like(p, 0.5), torch.ones(2, 1, dtype=dtype)
    w = project_weights(p, u, c, torch.tensor([0.9, 0.0], dtype=dtype))
    assert torch.equal(w, torch.zeros_like(w))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sixty_decades_of_preferences_stay_finite_and_exact(dtype: torch.dtype) -> None:
    decades = torch.linspace(-30, 30, 12, dtype=torch.float64).view(1, 3, 4)
    p = (10**decades).to(dtype)
    u, c = torch.full_like(p, 0.1), torch.full((1, 3), 0.35, dtype=dtype)
    w = project_weights(p, u, c, torch.tensor([0.98], dtype=dtype))
    # The two sectors of large preferences fill to 0.35 each; the third takes the other 0.28.
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(
        w.sum(2), torch.tensor([[0.28, 0.35, 0.35]], dtype=dtype), rtol=0, atol=tolerance
    )


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_the_scale_of_preferences_does_not_matter(seed: int) -> None:
    p, u, c, e = draw_problem(seed)
    torch.testing.assert_close(
        project_weights(1e-7 * p, u, c, e), project_weights(p, u, c, e), rtol=0, atol=1e-12
    )


BY_ROW: dict[str, Callable[..., torch.Tensor]] = {
    "weights": project_weights,
    "within sectors": lambda p, u, c, _: project_within_sectors(p, u, c),
    "sectors": lambda p, _, c, e: project_sectors(p.sum(2), c, e),
    "positions": lambda p, _, c, __: limit_positions(p, c, 5),
    "turnover": lambda p, u, _, __: cap_turnover(p.flatten(1), u.flatten(1), 0.4),
}


@pytest.mark.parametrize("project", BY_ROW.values(), ids=BY_ROW)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("with_gradients", [False, True])
def test_a_row_does_not_depend_on_its_batch(
    project: Callable[..., torch.Tensor], seed: int, *, with_gradients: bool
) -> None:
    problem = draw_problem(seed, (16, 3, 4))
    with torch.set_grad_enabled(with_gradients):
        alone = torch.cat([project(*(part[i : i + 1] for part in problem)) for i in range(16)])
        torch.testing.assert_close(project(*problem), alone, rtol=0, atol=1e-13)


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_float32_agrees_with_float64(seed: int) -> None:
    p, u, c, e = draw_problem(seed, dtype=torch.float32)
    exact = project_weights(p.double(), u.double(), c.double(), e.double())
    torch.testing.assert_close(project_weights(p, u, c, e).double(), exact, rtol=0, atol=1e-7)


@pytest.mark.parametrize("seed", range(6))
def test_gradients_match_finite_differences(seed: int) -> None:
    p, u, c, e = draw_problem(seed, (2, 3, 4))
    # Away from 0, where a stock changes sides, and of size 1, where small steps are meaningful.
    p = 0.1 + p / p.sum((1, 2), keepdim=True)
    inputs = [a.clone().requires_grad_() for a in (p, u + 0.03, c + 0.03, e)]
    assert torch.autograd.gradcheck(project_weights, inputs, eps=1e-7, atol=1e-5)
    inputs = [inputs[0], inputs[1], (0.5 * c).requires_grad_()]
    assert torch.autograd.gradcheck(project_within_sectors, inputs, eps=1e-7, atol=1e-5)


def test_sector_weights_above_their_caps_spill_pro_rata() -> None:
    # 0.6 -> 0.35; 0.65 left for 0.3 : 0.1 is 0.4875 : 0.1625; 0.4875 -> 0.35; the last takes 0.30
    w = project_sectors(
        torch.tensor([[0.6, 0.3, 0.1]]).double(), torch.full((1, 3), 0.35).double(), torch.ones(1)
    )
    torch.testing.assert_close(w, torch.tensor([[0.35, 0.35, 0.30]]).double(), rtol=0, atol=1e-7)


def test_sectors_follow_their_budgets_and_spill_what_they_cannot_hold() -> None:
    p = torch.ones(1, 3, 2, dtype=torch.float64)
    u = torch.full_like(p, 0.2)
    u[0, 0] = 0.05  # sector 0 holds 0.1 of its budget 0.3; 0.2 goes to budgets 0.2 : 0.1
    budgets = torch.tensor([[0.3, 0.2, 0.1]], dtype=torch.float64)
    w = project_within_sectors(p, u, budgets)
    expected = torch.tensor([[0.1, 0.2 + 0.4 / 3, 0.1 + 0.2 / 3]], dtype=torch.float64)
    torch.testing.assert_close(w.sum(2), expected, rtol=0, atol=1e-12)


def test_sectors_without_room_leave_cash_and_sectors_without_budget_stay_empty() -> None:
    p = torch.ones(1, 3, 2, dtype=torch.float64)
    p[0, 1] = 0.0
    budgets = torch.tensor([[0.6, 0.3, 0.0]], dtype=torch.float64)
    w = project_within_sectors(p, torch.full_like(p, 0.2), budgets)
    expected = torch.tensor([[0.4, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(w.sum(2), expected, rtol=0, atol=1e-12)


def test_preferences_move_weights_inside_their_sector_only() -> None:
    p = torch.ones(1, 2, 3, dtype=torch.float64)
    tilted = p.clone()
    tilted[0, 0, 0] = 3.0
    budgets, u = torch.tensor([[0.3, 0.3]], dtype=torch.float64), torch.full_like(p, 0.5)
    w, moved = project_within_sectors(p, u, budgets), project_within_sectors(tilted, u, budgets)
    torch.testing.assert_close(moved[0, 0], torch.tensor([0.18, 0.06, 0.06]).double())
    assert torch.equal(moved[0, 1], w[0, 1])


def test_turnover_cap_mixes_towards_the_current_weights() -> None:
    # half the L1 distance is 0.4; cap 0.1 keeps a quarter of the way
    current = torch.tensor([[0.4, 0.0], [0.2, 0.2]])
    target = torch.tensor([[0.0, 0.4], [0.25, 0.2]])
    capped = cap_turnover(target, current, 0.1)
    torch.testing.assert_close(capped, torch.tensor([[0.3, 0.1], [0.25, 0.2]]))


def test_positions_go_to_sectors_by_mass_and_keep_their_mass() -> None:
    # D'Hondt, 4 positions, masses 0.5, 0.3, 0.1: quotients 0.5, 0.3, 0.25, 0.166 -> 3, 1 and 0
    p = torch.tensor([[[0.2, 0.1, 0.15, 0.05], [0.1, 0.2, 0.0, 0.0], [0.1, 0.0, 0.0, 0.0]]])
    w = limit_positions(p, p.sum(2), 4)
    scale = 0.5 / 0.45
    expected = torch.tensor(
        [[[0.2 * scale, 0.1 * scale, 0.15 * scale, 0], [0, 0.3, 0, 0], [0, 0, 0, 0]]]
    )
    torch.testing.assert_close(w, expected)


@pytest.mark.parametrize("positions", [1, 7, 25, 80])
def test_at_equal_quotients_the_earlier_sector_and_slot_come_first(positions: int) -> None:
    # 20 equal sectors of 10 equal stocks: every sector gets a first position before any a second
    p = torch.full((1, 20, 10), 0.005, dtype=torch.float64)
    w = limit_positions(p, p.sum(2), positions)[0]
    counts = [positions // 20 + (sector < positions % 20) for sector in range(20)]
    expected = torch.zeros(20, 10, dtype=torch.float64)
    for sector, count in enumerate(counts):
        if count:
            expected[sector, :count] = 0.05 / count
    torch.testing.assert_close(w, expected, rtol=1e-12, atol=0)


@given(seed=SEEDS, positions=st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_never_more_positions_than_allowed(seed: int, positions: int) -> None:
    p, _, _, _ = draw_problem(seed)
    w = limit_positions(p, p.sum(2), positions)
    wanted = (p > 0).sum((1, 2)).clamp_max(positions)
    assert torch.equal((w > 0).sum((1, 2)), wanted)


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_the_factor_found_row_by_row_is_the_one_found_for_all_rows_at_once(seed: int) -> None:
    p, u, _, _ = draw_problem(seed, (5, 3, 6))
    share = torch.as_tensor(np.random.default_rng(seed).uniform(0, 1.3, (5, 3)))
    total = share * (u * (p > 0)).sum(2)  # some beyond the capacity
    by_row, at_once = _find_theta(p, u, total), _find_theta_at_once(p, u, total)
    torch.testing.assert_close(by_row, at_once, rtol=1e-13, atol=0)


def test_preferences_that_are_not_numbers_stay_visible() -> None:
    p = torch.tensor([[[1.0, torch.nan]]], dtype=torch.float64)
    limits = (torch.ones_like(p), torch.ones(1, 1).double(), torch.ones(1).double())
    assert bool(project_weights(p, *limits).isnan().any())


@given(seed=SEEDS)
@settings(max_examples=60, deadline=None)
def test_the_factor_found_by_rank_gives_the_weights_of_the_one_that_is_searched(seed: int) -> None:
    p, u, _, _ = draw_problem(seed, (5, 3, 6))
    share = torch.as_tensor(np.random.default_rng(seed).uniform(0, 1.3, (5, 3)))
    total = share * (u * (p > 0)).sum(2)  # some beyond the capacity
    searched, ranked = (
        torch.minimum(find(p, u, total)[..., None] * p, u)
        for find in (_find_theta, _find_theta_by_rank)
    )
    torch.testing.assert_close(ranked, searched, rtol=1e-12, atol=1e-15)


def test_the_factor_by_rank_is_0_where_nothing_can_be_held_and_nan_where_it_is_unknown() -> None:
    nothing, one = torch.zeros(1, 2).double(), torch.ones(1).double()
    assert _find_theta_by_rank(nothing, nothing + 1, one).item() == 0.0
    unknown = torch.tensor([[1.0, torch.nan]]).double()
    assert bool(_find_theta_by_rank(unknown, nothing + 1, one).isnan().all())
