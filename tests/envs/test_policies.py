"""From goal and scores to target weights, by hand: budgets, halted holdings, full sectors."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hrl_sarp.contracts import DayRange, Goal, Trajectory
from hrl_sarp.envs.observations import MicroView, SlotRequest, achieved_sectors, slot_request
from hrl_sarp.envs.policies import (
    FollowGoal,
    MixedGoal,
    MixedTarget,
    ProportionalGoal,
    decode_free,
    decode_within_sector,
)
from hrl_sarp.envs.rollout import HierarchicalPolicy, Variant, rollout
from hrl_sarp.errors import SimulatorError
from tests import factories, tiny_runs

ALL = [True, True, True, True]


def view(
    goal: list[float],
    *,
    weights: Any = (0.0, 0.0, 0.0, 0.0),
    tradable: Any = ALL,
    preference: Any = (1.0, 1.0, 1.0, 1.0),
    cash: float = 0.0,
    gate: float = 0.0,
) -> MicroView:
    """Return one decision over two sectors of two slots."""
    regime = torch.tensor([[0.0, 0.5, 0.5]])
    return MicroView(
        weights=torch.tensor([weights]),
        tradable=torch.tensor([tradable]),
        preference=torch.tensor([preference]),
        scalars=torch.tensor([[0.0, 0.0, gate, 0.0]]),
        goal=Goal(torch.tensor([goal]), torch.tensor([cash]), regime),
    )


def followed(seen: MicroView, **risk: Any) -> list[float]:
    limits = factories.risk_config(**{"stock_cap": 0.5, "sector_cap": 0.9, **risk})
    request = slot_request(seen, limits)
    found: list[float] = decode_within_sector(torch.zeros(1, 4), request, 2.0, 1.0)[0].tolist()
    return found


def test_a_budget_is_spread_evenly_over_the_tradable_slots() -> None:
    # 98 % of wealth is invested, the rest is cash
    assert followed(view([0.6, 0.4])) == pytest.approx([0.294, 0.294, 0.196, 0.196])
    tradable = [True, False, True, True]
    assert followed(view([0.4, 0.6], tradable=tradable)) == pytest.approx(
        [0.392, 0.0, 0.294, 0.294]
    )


def test_a_halted_holding_counts_for_its_sector() -> None:
    seen = view([0.5, 0.5], weights=(0.1, 0.3, 0.2, 0.2), tradable=[True, False, True, True])
    # 0.49 for each sector; 0.3 of the first is there already and stays
    assert followed(seen) == pytest.approx([0.19, 0.0, 0.245, 0.245])


def test_a_halted_holding_above_the_budget_takes_room_from_the_others() -> None:
    seen = view([0.2, 0.8], weights=(0.0, 0.5, 0.0, 0.0), tradable=[True, False, True, True])
    # asked 0.196 and 0.784; 0.5 is stuck in the first, so 0.48 is left in all
    assert followed(seen) == pytest.approx([0.0, 0.0, 0.24, 0.24])


def test_what_a_full_sector_cannot_hold_goes_to_the_other_and_then_to_cash() -> None:
    # two stocks of at most 0.2 hold 0.4 of the 0.784 asked; 0.196 + 0.384 meets 0.4 again
    assert followed(view([0.8, 0.2]), stock_cap=0.2) == pytest.approx([0.2] * 4)
    # at 0.3 the first holds 0.6 and the other takes the rest, 0.38
    assert followed(view([0.8, 0.2]), stock_cap=0.3) == pytest.approx([0.3, 0.3, 0.19, 0.19])


def test_a_budget_is_spread_by_the_classical_portfolio() -> None:
    seen = view([0.5, 0.5], preference=(3.0, 1.0, 0.0, 0.2))
    # 0.49 a sector: three parts to one; the third stock gets nothing
    assert followed(seen, stock_cap=0.9) == pytest.approx([0.3675, 0.1225, 0.0, 0.49])
    halted = view([0.5, 0.5], preference=(3.0, 1.0, 1.0, 1.0), tradable=[False, True, True, True])
    assert followed(halted, stock_cap=0.9) == pytest.approx([0.0, 0.49, 0.245, 0.245])


def test_the_goals_cash_and_the_gate_leave_cash() -> None:
    # behind the gate half of it
    assert sum(followed(view([0.5, 0.5], cash=0.3))) == pytest.approx(0.7)
    behind = followed(view([0.5, 0.5], cash=0.3, gate=1.0), drawdown_gate=True)
    assert sum(behind) == pytest.approx(0.35)


def test_scores_tilt_inside_a_sector_by_their_exponential() -> None:
    limits = factories.risk_config(stock_cap=0.9, sector_cap=0.9)
    request = slot_request(view([0.5, 0.5]), limits)
    scores = torch.tensor([[1.0, 0.0, -0.5, 0.5]])
    found = decode_within_sector(scores, request, 2.0, 1.0)[0]
    assert float(found[0] / found[1]) == pytest.approx(7.389056, rel=1e-5)  # e^2
    assert float(found[3] / found[2]) == pytest.approx(7.389056, rel=1e-5)
    assert found.view(2, 2).sum(dim=1).tolist() == pytest.approx([0.49, 0.49])


def drawn_request(seed: int, *, all_tradable: bool = False) -> SlotRequest:
    """Draw five decisions over three sectors of four slots: some halted, some sectors not held."""
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.rand(5, 12, generator=rng, dtype=torch.float64)
    tradable = torch.rand(5, 12, generator=rng) < 0.8
    held = drawn / drawn.sum(dim=1, keepdim=True)
    held = held * (torch.rand(5, 3, generator=rng) < 0.7).repeat_interleave(4, dim=1)
    goal = torch.rand(5, 3, generator=rng, dtype=torch.float64)
    goal = goal / goal.sum(dim=1, keepdim=True)
    regime = torch.tensor([[0.2, 0.8, 0.0]], dtype=torch.float64).expand(5, -1)
    cash = torch.full((5,), 0.1, dtype=torch.float64)
    preference = 0.1 + torch.rand(5, 12, generator=rng, dtype=torch.float64)
    scalars = torch.zeros(5, 4, dtype=torch.float64)
    mask = torch.ones_like(tradable) if all_tradable else tradable
    seen = MicroView(held, mask, preference, scalars, Goal(goal, cash, regime))
    return slot_request(seen, factories.risk_config(stock_cap=0.15, sector_cap=0.5))


def drawn_scores(seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(5, 12, generator=rng, dtype=torch.float64) - 1


SEEDS = st.integers(0, 2**32 - 1)
SPEEDS = st.floats(0.01, 0.99)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_at_full_speed_holdings_do_not_matter(seed: int) -> None:
    request, scores = drawn_request(seed), drawn_scores(seed + 1)
    found = decode_within_sector(scores, request, 2.0, 1.0)
    elsewhere = replace(request, held=request.held.flip(0))
    assert torch.equal(decode_within_sector(scores, elsewhere, 2.0, 1.0), found)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, speed=SPEEDS)
def test_at_any_speed_sectors_follow_the_goal_within_the_limits(seed: int, speed: float) -> None:
    request, scores = drawn_request(seed), drawn_scores(seed + 1)
    target, found = (decode_within_sector(scores, request, 2.0, s) for s in (1.0, speed))
    sums = [weights.view(5, 3, 4).sum(dim=2) for weights in (target, found)]
    torch.testing.assert_close(sums[1], sums[0], rtol=0, atol=1e-12)
    assert bool((found >= 0).all())
    caps = request.limits.stock_caps.flatten(1)  # 0 where nothing trades
    assert bool((found <= caps + 1e-12).all())


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, speed=SPEEDS)
def test_each_session_goes_the_same_share_of_the_way(seed: int, speed: float) -> None:
    request = drawn_request(seed, all_tradable=True)
    target, start = (
        decode_within_sector(drawn_scores(seed + k), request, 2.0, 1.0) for k in (1, 2)
    )
    held = start
    for session in range(1, 5):
        now = replace(request, held=held)
        held = decode_within_sector(drawn_scores(seed + 1), now, 2.0, speed)
        expected = target + (1 - speed) ** session * (start - target)
        torch.testing.assert_close(held, expected, rtol=0, atol=1e-12)


def test_money_that_is_new_to_a_sector_goes_to_the_target_at_once() -> None:
    # the first sector holds its 0.49; the second has a crumb, which must not draw 0.49 to itself
    seen = view([0.5, 0.5], weights=(0.29, 0.2, 1e-6, 0.0))
    request = slot_request(seen, factories.risk_config(stock_cap=0.9, sector_cap=0.9))
    found = decode_within_sector(torch.zeros(1, 4), request, 2.0, 0.25)[0].tolist()
    # 0.245 each is wanted; in the first, three quarters of the way remain
    expected = [0.245 + 0.045 * 0.75, 0.245 - 0.045 * 0.75, 0.245, 0.245]
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_sector_that_shrinks_sells_evenly_before_it_moves() -> None:
    # 0.6 is held as 2 : 1 and 0.294 wanted: 0.196 and 0.098, then half of the way to 0.147 each
    seen = view([0.3, 0.7], weights=(0.4, 0.2, 0.2, 0.2))
    request = slot_request(seen, factories.risk_config(stock_cap=0.9, sector_cap=0.9))
    found = decode_within_sector(torch.zeros(1, 4), request, 2.0, 0.5)[0].tolist()
    assert found[:2] == pytest.approx([0.1715, 0.1225])


def test_slow_weights_are_differentiable_in_scores_and_holdings() -> None:
    request = drawn_request(3)
    scores = drawn_scores(4).requires_grad_()
    held = (request.held + 0.01).requires_grad_()  # 0 is a kink: less than nothing cannot be held

    def decoded(scores: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
        return decode_within_sector(scores, replace(request, held=held), 2.0, 0.3)

    assert torch.autograd.gradcheck(decoded, (scores, held))


def test_the_free_decode_sees_the_goal_only() -> None:
    limits = factories.risk_config(stock_cap=0.9, sector_cap=0.9)
    scores = torch.tensor([[0.4, -0.2, 0.1, 0.0]])
    first, second = (
        decode_free(scores, slot_request(view(goal), limits), 3.0)
        for goal in ([0.9, 0.1], [0.1, 0.9])
    )
    assert torch.equal(first, second)
    torch.testing.assert_close(first, 0.98 * (3.0 * scores).softmax(dim=1))


def test_achieved_shares_leave_cash_out() -> None:
    tensors = tiny_runs.tensors_of(tiny_runs.tiny_market())
    weights = torch.zeros(2, tensors.n_assets, dtype=torch.float64)
    weights[0, tensors.sector_of == 1] = 0.1  # five stocks
    weights[0, 0] = 0.1
    shares = achieved_sectors(tensors, weights)
    assert shares[0].tolist() == pytest.approx([1 / 6, 5 / 6, 0.0])
    assert shares[1].tolist() == [0.0, 0.0, 0.0]  # all cash achieves no goal


def mixtures(*shares: float) -> dict[str, Trajectory]:
    """Roll out a rule, trained networks and their mixtures in the exact simulator."""
    config = tiny_runs.tiny_config()
    tensors = tiny_runs.tensors_of(tiny_runs.tiny_market())
    prior = ProportionalGoal(tensors), FollowGoal(tensors, config.risk)
    learned = tiny_runs.macro_agent(tensors, config), tiny_runs.micro_agent(tensors, config)
    pairs = {"prior": prior, "learned": learned}
    for share in shares:
        both = (1 - share, share)
        macro = MixedGoal((prior[0], learned[0]), both)
        pairs[str(share)] = macro, MixedTarget((prior[1], learned[1]), both)
    frictions = [Variant(config.market_profile.costs, config.risk)]
    return {
        name: rollout([HierarchicalPolicy(name, *pair)], tensors, [DayRange(66, 96)], frictions)[0]
        for name, pair in pairs.items()
    }


def test_a_mixture_ends_in_its_parts_bit_by_bit() -> None:
    found = mixtures(0.0, 1.0)
    for share, part in (("0.0", "prior"), ("1.0", "learned")):
        for name in ("net_return", "target_weights", "goal"):
            mixed, alone = (getattr(found[policy], name)[:, 1] for policy in (share, part))
            np.testing.assert_array_equal(mixed, alone)
    assert np.ptp(found["prior"].net_return[:, 1] - found["learned"].net_return[:, 1]) > 1e-4


class Fixed:
    """Always the same goal and the same target weights."""

    def __init__(self, goal: list[float], target: list[float]) -> None:
        self.fixed = Goal.from_vector(torch.tensor([goal])), torch.tensor([target])

    def goal(self, observation: Any) -> Goal:
        return self.fixed[0]

    def target(self, observation: Any) -> torch.Tensor:
        return self.fixed[1]


def test_a_mixture_asks_for_the_mean_of_the_portfolios_and_of_the_targets() -> None:
    first = Fixed([0.2, 0.8, 0.0, 0.0, 0.5, 0.5], [0.2, 0.8])
    second = Fixed([0.6, 0.4, 0.5, 1.0, 0.0, 0.0], [0.6, 0.4])
    mixed = MixedGoal((first, second), (0.75, 0.25)).goal({})
    # of wealth: 0.75 x 0.2 + 0.25 x 0.5 x 0.6 = 0.225 in sector 0, 0.65 in sector 1, 0.125 cash
    expected = [[0.225 / 0.875, 0.65 / 0.875, 0.125, 0.25, 0.375, 0.375]]
    assert mixed.to_vector().tolist() == pytest.approx(np.array(expected))
    target = MixedTarget((first, second), (0.75, 0.25)).target({})
    assert target.tolist() == pytest.approx(np.array([[0.3, 0.7]]))


def test_a_mixture_of_cash_alone_keeps_the_mean_of_the_sectors() -> None:
    goals = [Fixed([share, 1 - share, 1.0, 0.0, 0.5, 0.5], [0.0]) for share in (0.2, 0.6)]
    mixed = MixedGoal(goals).goal({})
    assert mixed.sector_weights.tolist() == pytest.approx(np.array([[0.4, 0.6]]))
    assert mixed.cash.tolist() == [1.0]


def test_agents_that_agree_mix_to_the_agent() -> None:
    one = Fixed([0.2, 0.8, 0.25, 0.1, 0.5, 0.4], [0.2, 0.5])
    alone, three = MixedGoal([one]), MixedGoal([one, one, one])
    assert torch.equal(alone.goal({}).to_vector(), one.goal({}).to_vector())
    torch.testing.assert_close(three.goal({}).to_vector(), one.goal({}).to_vector())
    torch.testing.assert_close(MixedTarget([one, one, one]).target({}), one.target({}))


def test_a_mixture_with_a_rule_that_has_no_view_is_no_forecast() -> None:
    tensors = tiny_runs.tensors_of(tiny_runs.tiny_market())
    pair = ProportionalGoal(tensors), tiny_runs.macro_agent(tensors, tiny_runs.tiny_config())
    views = [MixedGoal(pair, (1 - share, share)).has_view for share in (0.0, 0.5, 1.0)]
    assert views == [False, False, True]


@pytest.mark.parametrize("shares", [(1.1, -0.1), (0.5, 0.6), (1.0,), (0.5, float("nan"))], ids=str)
def test_shares_that_are_none_are_refused(shares: tuple[float, ...]) -> None:
    rule = Fixed([1.0, 0.0, 0.0, 0.0, 0.5, 0.5], [1.0])
    with pytest.raises(SimulatorError, match="sum to 1"):
        MixedGoal((rule, rule), shares)
