"""Reward terms against numbers worked out by hand, and what they must prefer."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hrl_sarp.config.objective_schema import MacroRewardConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Goal, Market, goal_size
from hrl_sarp.envs.levels import MacroLevel, MicroLevel
from hrl_sarp.envs.policies import FollowGoal, ProportionalGoal
from hrl_sarp.envs.rewards import goal_alignment, log1p_growth, macro_penalties, micro_reward
from tests import factories, tiny_runs

ONE = torch.ones(1, dtype=torch.bool)
FREE = {"buy_bps": 0.0, "sell_bps": 0.0, "slippage_bps": 0.0}


def loose_config(**costs: Any) -> RunConfig:
    """Let one stock hold everything; costs are 13 bps to buy and 9 to sell unless given."""
    config = tiny_runs.tiny_config(objective={"kind": "growth"})
    profile = config.market_profile.model_copy(update={"costs": factories.cost_config(**costs)})
    risk = factories.risk_config(stock_cap=1.0, sector_cap=1.0, min_cash=0.0)
    return config.model_copy(update={"market_profile": profile, "risk": risk})


class FixedGoal:
    """Always wants the same sector weights; the regime is never bear."""

    def __init__(self, *sector_weights: float) -> None:
        self.weights = torch.tensor(sector_weights, dtype=torch.float64)

    def goal(self, observation: Any) -> Goal:
        n = len(observation["day"])
        calm = torch.tensor([[0.0, 0.5, 0.5]]).expand(n, -1)
        return Goal(self.weights.expand(n, -1), torch.zeros(n), calm)


def micro_level(
    market: Market, goal: Any = None, config: RunConfig | None = None, n_envs: int = 1
) -> MicroLevel:
    tensors = tiny_runs.tensors_of(market)
    goal = goal or ProportionalGoal(tensors)
    return MicroLevel(tensors, config or loose_config(), n_envs, goal, horizon=10_000)


def start(level: MicroLevel | MacroLevel, day: int = 0) -> None:
    n = level.clocks.n_envs
    level.reset(torch.full((n,), day), torch.ones(n, dtype=torch.bool))


# ---- macro


def test_growth_terms_sum_to_the_log_growth_over_the_benchmark() -> None:
    market = tiny_runs.tiny_market(n_days=400)
    tensors = tiny_runs.tensors_of(market)
    config = tiny_runs.tiny_config(objective={"kind": "growth"})
    level = MacroLevel(tensors, config, 3, FollowGoal(tensors, factories.risk_config()), 52)
    start(level, day=4)
    rng, total = np.random.default_rng(0), np.zeros(3)
    for _ in range(52):
        action = torch.from_numpy(rng.random((3, goal_size(tensors.n_sectors))))
        total += level.step(action).terms["growth"].numpy()
    wealth = level.clocks.simulator.state.wealth.numpy()
    stop = int(level.clocks.day[0])
    benchmark = np.prod([1 + one_over_n(market, t) for t in range(5, stop + 1)])
    np.testing.assert_allclose(total, 100 * np.log(wealth / benchmark), rtol=0, atol=1e-9)


def one_over_n(market: Market, t: int) -> float:
    """Return what 1/N of the stocks eligible on t-1 earns on t, one stock at a time."""
    chosen = np.flatnonzero(market.eligible[t - 1])
    night = [market.overnight_return[t, a] for a in chosen if market.listed[t, a]]
    day = [market.intraday_return[t, a] for a in chosen if market.tradable[t, a]]
    return (1 + np.mean(night)) * (1 + np.mean(day)) - 1


def test_macro_penalties_are_those_of_the_formula() -> None:
    config = MacroRewardConfig(
        concentration_weight=0.1, drawdown_weight=0.5, drawdown_threshold=0.05
    )
    penalties = macro_penalties(
        (torch.tensor([0.04, 0.08]), torch.tensor([0.07, 0.06])),
        torch.tensor([[0.6, 0.4, 0.0], [0.5, 0.25, 0.25]]),
        torch.tensor([2.0, 3.0]),
        config,
    )
    # 0.36 + 0.16 - 1/2 = 0.02; 0.25 + 0.0625 + 0.0625 - 1/3 = 0.041667
    assert penalties["concentration"].tolist() == pytest.approx([-0.002, -0.0041667], abs=1e-6)
    # 4 % -> 7 %: 2 % beyond the threshold, so -0.5 x 2; 8 % -> 6 % is a recovery: never paid
    assert penalties["drawdown"].tolist() == pytest.approx([-1.0, 0.0], abs=1e-5)


# ---- micro


def test_selection_gain_by_hand_on_two_stocks() -> None:
    overnight = [[0, 0], [0.02, -0.01], [0.04, 0.00], [0, 0]]
    intraday = [[0, 0], [0.01, 0.03], [-0.02, 0.02], [0, 0]]
    level = micro_level(factories.market_with(overnight, intraday, [0, 0]))
    start(level)
    action = torch.tensor([[0.5, 0.3]], dtype=torch.float64)

    first = level.step(action)
    # from cash: nothing is held over night. Intraday 0.5 x 1 % + 0.3 x 3 % = 1.4 %, and the
    # sector's mean of 2 % on 0.8 is 1.6 %
    # wealth after / before the purchase: 1 / (1 + 0.0013 x 0.8)
    cost = 1 - 1 / (1 + 0.0013 * 0.8)
    expected = 100 * (np.log(1.014 / 1.016) - cost)
    assert float(first.terms["gain"]) == pytest.approx(expected, abs=1e-12)
    assert float(first.terms["cost"]) == pytest.approx(cost, abs=1e-15)

    # the holdings drift to 0.505 and 0.309 of 1.014 of wealth
    held = np.array([0.505, 0.309]) / 1.014
    second = level.step(torch.zeros(1, 2, dtype=torch.float64))
    # over night 4 % and 0, mean 2 %; everything is sold at the open, at 9 bps of its value
    opening = held * [1.04, 1.0]
    sold = 0.0009 * opening.sum() / (1 + held[0] * 0.04)
    expected = 100 * (np.log((1 + 0.04 * held[0]) / (1 + 0.02 * held.sum())) - sold)
    assert float(second.terms["gain"]) == pytest.approx(expected, abs=1e-12)


def test_a_stock_without_a_bar_is_in_no_sector_mean() -> None:
    tradable = np.ones((3, 3), dtype=bool)
    tradable[1, 2] = False
    intraday = [[0, 0, 0], [0.01, 0.03, 0.00], [0, 0, 0]]
    market = factories.market_with(np.zeros((3, 3)), intraday, [0, 0, 0], tradable=tradable)
    level = micro_level(market, config=loose_config(**FREE))
    start(level)
    # the mean of 1 % and 3 % is 2 %; 0.4 in the first stock earns 0.4 %, in the sector 0.8 %
    step = level.step(torch.tensor([[0.4, 0.0, 0.0]], dtype=torch.float64))
    assert float(step.terms["gain"]) == pytest.approx(100 * np.log(1.004 / 1.008), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_holding_the_most_volatile_stocks_is_paid_their_growth_over_the_sectors(seed: int) -> None:
    # two sectors of a wild and a calm stock, all with log growth 0: each move is taken back
    rng = np.random.default_rng(seed)
    sizes = rng.uniform([0.01, 0.05, 0.01, 0.05], [0.02, 0.10, 0.02, 0.10], (40, 4))
    signs = rng.choice([-1.0, 1.0], (40, 4))
    intraday = np.concatenate(
        [
            np.zeros((1, 4)),
            np.expm1(np.stack([1, -1])[:, None, None] * signs * sizes)
            .transpose(1, 0, 2)
            .reshape(80, 4),
        ]
    )
    market = factories.market_with(np.zeros((81, 4)), intraday, [0, 0, 1, 1])
    level = micro_level(market, FixedGoal(0.5, 0.5), loose_config(**FREE))
    start(level)
    wild = torch.tensor([[0.0, 0.5, 0.0, 0.5]], dtype=torch.float64)
    gain = sum(float(level.step(wild).terms["gain"]) for _ in range(80))
    growth = float(level.clocks.simulator.state.wealth.log())
    sectors = intraday[1:].reshape(80, 2, 2).mean(axis=2)  # both hold half of wealth
    over = 100 * (growth - np.log1p(sectors.mean(axis=1)).sum())
    assert gain == pytest.approx(over, abs=1e-9)
    # the sum of returns over the sectors' would have paid for volatility
    assert 100 * (intraday[1:, [1, 3]].mean(axis=1) - sectors.mean(axis=1)).sum() > gain + 1


@pytest.mark.parametrize("library", [np.array, torch.tensor])
def test_misaligned_sectors_cost_their_weight_and_cash_and_regimes_nothing(library: Any) -> None:
    config = tiny_runs.tiny_config().micro_agent.reward
    assert config.alignment_weight == 0.3
    achieved = library([[1.0, 0.0, 0.9, 0.2, 0.3, 0.5], [0.4, 0.6, 0.0, 0.0, 0.0, 1.0]])
    desired = library([[0.5, 0.5, 0.1, 1.0, 0.0, 0.0], [0.4, 0.6, 0.3, 0.2, 0.3, 0.5]])
    # half the L1 distance of (1, 0) and (0.5, 0.5) is 0.5
    assert goal_alignment(achieved, desired, 2).tolist() == pytest.approx([0.5, 1.0])
    reward = micro_reward(library([2.0, -1.0]), achieved, desired, config)
    assert reward.tolist() == pytest.approx([2.0 - 0.15, -1.0])


@pytest.mark.parametrize("library", [np.array, torch.tensor])
def test_a_goal_is_reached_up_to_the_distance_whatever_was_gained(library: Any) -> None:
    reached = {"gain": "reached", "reached_distance": 0.05}
    config = tiny_runs.changed(tiny_runs.tiny_config().micro_agent.reward, reached)
    # half the L1 distances from (0.5, 0.5): 0, 0.04, 0.06
    achieved = library([[0.5, 0.5, 0, 0, 0, 1], [0.54, 0.46, 0, 0, 0, 1], [0.56, 0.44, 0, 0, 0, 1]])
    desired = library([[0.5, 0.5, 0, 0, 1, 0]] * 3)
    reward = micro_reward(library([3.0, -3.0, 3.0]), achieved, desired, config)
    assert reward.tolist() == [0.0, 0.0, -1.0]


def test_the_growth_gain_is_net_log_growth_over_the_benchmark() -> None:
    intraday = [[0, 0], [0.10, -0.02], [0, 0]]
    growth = {"reward": {"gain": "growth", "alignment_weight": 0.0}}
    config = tiny_runs.changed(loose_config(), {"micro_agent": growth})
    level = micro_level(factories.market_with(np.zeros((3, 2)), intraday, [0, 0]), config=config)
    start(level)
    step = level.step(torch.tensor([[0.5, 0.25]], dtype=torch.float64))
    # 0.5 x 10 % - 0.25 x 2 % = 4.5 % after buying 0.75 of wealth at 13 bps; 1/N earns 4 %
    expected = 100 * np.log(1.045 / (1 + 0.0013 * 0.75) / 1.04)
    assert float(step.reward) == pytest.approx(expected, abs=1e-12)


def test_cash_is_half_aligned_with_any_goal() -> None:
    achieved, desired = np.zeros((1, 6)), np.array([[0.3, 0.7, 0.0, 0.0, 0.0, 1.0]])
    assert goal_alignment(achieved, desired, 2) == pytest.approx(0.5)


def test_the_reward_refers_to_the_goal_under_which_it_was_decided() -> None:
    class Switching(FixedGoal):
        def goal(self, observation: Any) -> Goal:
            self.weights = self.weights.flip(0)
            return super().goal(observation)

    flat = np.zeros((12, 2))
    market = factories.market_with(flat, flat, [0, 1])
    level = micro_level(market, Switching(0.0, 1.0), loose_config(**FREE))
    start(level, day=0)  # a Monday: the goal is the first sector until Friday, row 4
    first_sector = torch.tensor([[0.9, 0.0]], dtype=torch.float64)
    rewards = [float(level.step(first_sector).reward) for _ in range(6)]
    # the last decision under the first goal is Thursday's (row 3), rewarded at Friday's close
    assert rewards == pytest.approx([0.0] * 4 + [-0.3] * 2)


# ---- what the rewards prefer

SECTORS = np.repeat(np.arange(2), 4)


@pytest.fixture(scope="module")
def path() -> Market:
    """Two sectors of four stocks; all moves are intraday, so that today's choice earns them."""
    rng = np.random.default_rng(7)
    weekly = np.repeat(rng.normal(0, 0.004, (80, 2)), 5, axis=0)[:, SECTORS]
    intraday = weekly + rng.normal(0, 0.01, (400, 8))
    return factories.market_with(np.zeros((400, 8)), intraday, SECTORS)


def test_micro_reward_and_net_growth_rank_the_same_four_policies(path: Market) -> None:
    rng = np.random.default_rng(8)

    def decisions(t: int) -> list[np.ndarray]:
        following = path.intraday_return[t + 1].reshape(2, 4)
        oracle = 0.5 * (following == following.max(axis=1, keepdims=True))
        churning = np.tile([0.25, 0.25, 0, 0] if t % 2 else [0, 0, 0.25, 0.25], (2, 1))
        return [oracle, np.full((2, 4), 0.125), 0.5 * rng.dirichlet(np.ones(4), size=2), churning]

    level = micro_level(path, FixedGoal(0.5, 0.5), n_envs=4)
    start(level, day=4)
    total = sum(
        level.step(torch.from_numpy(np.stack(decisions(t)).reshape(4, 8))).reward
        for t in range(4, 200)
    )
    assert_ranked(total, level)


def test_macro_reward_and_net_growth_rank_the_same_four_policies(path: Market) -> None:
    rng = np.random.default_rng(9)
    sector_day = path.intraday_return.reshape(400, 2, 4).mean(axis=2)

    def decisions(t: int) -> list[np.ndarray]:
        oracle = np.eye(2)[sector_day[t + 1 : t + 6].sum(axis=0).argmax()]
        return [oracle, np.array([0.5, 0.5]), rng.dirichlet(np.ones(2)), np.eye(2)[(t // 5) % 2]]

    tensors, config = tiny_runs.tensors_of(path), loose_config(buy_bps=60.0, sell_bps=60.0)
    level = MacroLevel(tensors, config, 4, FollowGoal(tensors, config.risk), horizon=1000)
    start(level, day=4)
    calm = np.tile([0.0, 0.0, 0.5, 0.5], (4, 1))  # no cash, no bear
    total = sum(
        level.step(torch.from_numpy(np.concatenate([np.stack(decisions(t)), calm], axis=1))).reward
        for t in range(4, 354, 5)
    )
    assert_ranked(total, level)


def assert_ranked(total_reward: Any, level: MicroLevel | MacroLevel) -> None:
    """Rows are oracle, goal-following, random, churning: both measures fall from row to row."""
    growth = level.clocks.simulator.state.wealth.log()
    assert total_reward.diff().max() < 0, total_reward
    assert growth.diff().max() < 0, growth


def test_doing_nothing_away_from_the_goal_never_earns_more_than_following_it() -> None:
    # all stocks of a sector move alike, so nothing can be gained by selection
    rng = np.random.default_rng(10)
    sectors = np.repeat(np.arange(3), 2)
    moves = rng.normal(0, 0.01, (2, 30, 3))[:, :, sectors]
    market = factories.market_with(moves[0], moves[1], sectors)
    n = 300
    goals = SimpleNamespace(goal=lambda observation: Goal(wanted, torch.zeros(n), calm))
    wanted = torch.from_numpy(rng.dirichlet(np.ones(3), size=n))
    calm = torch.tensor([[0.0, 0.5, 0.5]], dtype=torch.float64).expand(n, 3)
    held = torch.from_numpy(rng.dirichlet(np.full(6, 0.3), size=n) * rng.uniform(0, 1, (n, 1)))

    idle, following = (micro_level(market, goals, n_envs=n) for _ in range(2))
    partner = FollowGoal(idle.tensors, idle.config.risk)
    nothing, followed = torch.zeros(n), torch.zeros(n)
    for level in (idle, following):
        start(level, day=4)
        alignment = level.step(held).terms["alignment"]  # both begin with the same portfolio
    for _ in range(4):  # the rest of the goal's week
        nothing += idle.step(idle.clocks.simulator.state.weights).reward
        followed += following.step(partner.target(following.observe("index"))).reward
    # even trading everything costs 22 bps once; a quarter astray costs 4 x 7.5
    far = alignment < 0.75
    assert far.sum() > 100
    assert (followed > nothing)[far].all()
    assert not (followed > nothing).all()  # the costs are not negligible


# ---- the clock: what pays and what cannot


def t_statistics(gains: list[np.ndarray]) -> np.ndarray:
    series = np.stack(gains)
    return series.mean(axis=0) / series.std(axis=0) * np.sqrt(len(series))


def test_only_the_next_rows_intraday_move_can_be_traded_on() -> None:
    rng = np.random.default_rng(11)
    overnight, intraday = rng.normal(0, 0.01, (2, 500, 8))
    market = factories.market_with(overnight, intraday, SECTORS)
    own = (1 + overnight) * (1 + intraday) - 1
    level = micro_level(market, FixedGoal(0.5, 0.5), loose_config(**FREE), n_envs=3)
    start(level, day=4)
    gains = []
    for t in range(4, 480):
        hints = np.stack([own[t], overnight[t + 1], intraday[t + 1]]).reshape(3, 2, 4)
        ranks = hints.argsort(axis=2).argsort(axis=2)
        action = torch.from_numpy(0.48 * ranks / 6.0).reshape(3, 8)
        gains.append(level.step(action).terms["gain"].numpy())
    own_row, next_night, next_day = t_statistics(gains)
    assert abs(own_row) < 2
    assert abs(next_night) < 2
    assert next_day > 10


def test_only_the_coming_weeks_sector_returns_pay_a_goal() -> None:
    rng = np.random.default_rng(12)
    moves = rng.normal(0, 0.01, (400, 3))
    market = factories.market_with(np.zeros((400, 3)), moves, [0, 1, 2])
    tensors, config = tiny_runs.tensors_of(market), loose_config(**FREE)
    level = MacroLevel(tensors, config, 2, FollowGoal(tensors, config.risk), horizon=1000)
    start(level, day=9)
    growth = []
    for t in range(9, 379, 5):
        weeks = moves[t - 4 : t + 1].sum(axis=0), moves[t + 1 : t + 6].sum(axis=0)
        goals = [[*np.eye(3)[week.argmax()], 0.0, 0.0, 0.5, 0.5] for week in weeks]
        growth.append(level.step(torch.tensor(goals)).terms["growth"].numpy())
    past, coming = t_statistics(growth)
    assert abs(past) < 2
    assert coming > 10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@given(lost=st.floats(-2.0, 0.0), left=st.floats(0.0, 1.0) | st.floats(0.0, 1e-6))
def test_log_growth_and_its_gradient_are_finite_in_every_precision(
    dtype: torch.dtype, lost: float, left: float
) -> None:
    simple = torch.tensor([-1.0, -1.0 + left, -1.0 + lost, left], dtype=dtype, requires_grad=True)
    growth = log1p_growth(simple)
    (gradient,) = torch.autograd.grad(growth.sum(), simple)
    assert bool(growth.isfinite().all())
    assert bool(gradient.isfinite().all())
    assert bool((growth[1:3] >= growth[0]).all())


def test_log_growth_is_exact_where_wealth_is_left() -> None:
    simple = torch.tensor([-1.0, -0.999, -0.5, 0.0, 1.0], dtype=torch.float64)
    expected = torch.tensor([1e-12, 1e-3, 0.5, 1.0, 2.0], dtype=torch.float64).log()
    torch.testing.assert_close(log1p_growth(simple), expected, rtol=1e-4, atol=0)
    single = torch.nextafter(torch.tensor([-1.0, -0.5]), torch.ones(2))
    torch.testing.assert_close(log1p_growth(single)[1], torch.log1p(single[1]))
