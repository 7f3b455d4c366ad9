"""B rows of the batched env are B single envs; each row restarts on its own."""

from typing import Any

import numpy as np
import pytest
import torch

from hrl_sarp.contracts import Market
from hrl_sarp.envs import HierarchicalEnv, PortfolioVecEnv, make_level, make_starts
from hrl_sarp.envs.levels import EpisodeStarts
from hrl_sarp.envs.policies import FollowGoal, ProportionalGoal
from tests import tiny_runs

N_ENVS = 4
LENGTH = {"macro": 6, "micro": 12}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


class ScriptedStarts(EpisodeStarts):
    """Hands out given days, one list per draw."""

    def __init__(self, *draws: list[int]) -> None:
        self.draws = [np.asarray(days) for days in draws]

    def draw(self, n: int) -> np.ndarray:
        days = self.draws.pop(0)
        assert len(days) == n
        return days


@pytest.fixture(scope="module")
def market() -> Market:
    return tiny_runs.with_nodes(tiny_runs.tiny_market())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("form", ["index", "full"])
@pytest.mark.parametrize("level", ["macro", "micro"])
def test_rows_equal_single_envs_step_by_step(
    market: Market, level: Any, form: Any, dtype: torch.dtype
) -> None:
    config = tiny_runs.tiny_config()
    days = make_starts(tiny_runs.tensors_of(market), config, level, None).draw(N_ENVS).tolist()
    batched = batch(market, level, form, dtype, ScriptedStarts(days, days))
    singles = [single(market, level, form, dtype) for _ in days]
    rng = np.random.default_rng(1)
    near = {"rtol": 0, "atol": TOLERANCE[dtype]}

    rows = batched.reset()
    for i, env in enumerate(singles):
        assert_near(row_of(rows, i), env.reset(options={"day": days[i]})[0], near)
    for _ in range(LENGTH[level]):
        actions = rng.random((N_ENVS, batched.action_space.shape[0])).astype(np.float32)
        rows, _, dones, infos = batched.step(actions)
        reward = infos.reply.reward.numpy()  # before its rounding to float32
        for i, env in enumerate(singles):
            seen, earned, terminated, truncated, _ = env.step(actions[i])
            assert dones[i] == (terminated or truncated)
            last = infos[i].get("terminal_observation")
            assert_near(row_of(rows, i) if last is None else last, seen, near)
            np.testing.assert_allclose(reward[i], earned, rtol=0, atol=100 * TOLERANCE[dtype])
    assert dones.all()


def batch(
    market: Market, level: Any, form: Any, dtype: torch.dtype, starts: Any, n_envs: int = N_ENVS
) -> PortfolioVecEnv:
    tensors, config = tiny_runs.tensors_of(market, dtype), tiny_runs.tiny_config()
    partner = fixed_partner(tensors, config, level)
    return PortfolioVecEnv(make_level(tensors, config, level, n_envs, partner), starts, form)


def single(market: Market, level: Any, form: Any, dtype: torch.dtype) -> HierarchicalEnv:
    tensors, config = tiny_runs.tensors_of(market, dtype), tiny_runs.tiny_config()
    partner = fixed_partner(tensors, config, level)
    return HierarchicalEnv(tensors, config, level, partner=partner, observation=form)


def fixed_partner(tensors: Any, config: Any, level: str) -> Any:
    """Return a partner that draws nothing: a draw for B rows is not B draws for one."""
    return ProportionalGoal(tensors) if level == "micro" else FollowGoal(tensors, config.risk)


def row_of(rows: Any, i: int) -> Any:
    return {name: value[i] for name, value in rows.items()} if isinstance(rows, dict) else rows[i]


def assert_near(found: Any, expected: Any, near: dict[str, float]) -> None:
    if not isinstance(expected, dict):
        found, expected = {"": found}, {"": expected}
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], err_msg=name, **near)


def test_a_row_that_ends_restarts_alone_and_reports_its_last_observation(market: Market) -> None:
    tensors = tiny_runs.tensors_of(market)
    env = batch(market, "micro", "index", torch.float64, ScriptedStarts([4, 9], [14, 19]), 2)
    env.reset()
    env.level.clocks.episode.steps[1] = LENGTH["micro"] - 1  # the second row is one step ahead
    rows, _, dones, infos = env.step(np.full((2, tensors.n_slots), 0.05, np.float32))
    assert dones.tolist() == [False, True]
    assert rows["day"].ravel().tolist() == [5, 19]  # the first row's 14 is not used
    assert infos[1]["terminal_observation"]["day"].tolist() == [10]
    assert infos[1]["TimeLimit.truncated"] is True
    assert infos[0] == {}
    state = env.level.clocks.simulator.state
    assert state.wealth[1] == 1
    assert state.wealth[0] != 1
    assert state.weights[1].sum() == 0


def test_ruin_terminates_without_truncation(market: Market) -> None:
    env = batch(market, "micro", "index", torch.float64, ScriptedStarts([4, 9], [4, 9]), 2)
    env.reset()
    env.level.clocks.simulator.state.wealth[0] = 0.09
    _, _, dones, infos = env.step(np.zeros((2, env.action_space.shape[0]), np.float32))
    assert dones.tolist() == [True, False]
    assert infos[0]["TimeLimit.truncated"] is False


def test_a_reset_in_the_middle_forgets_the_open_episodes(market: Market) -> None:
    env = batch(market, "micro", "index", torch.float64, ScriptedStarts([4], [4], [4]), 1)
    action = np.full((1, env.action_space.shape[0]), 0.05, np.float32)
    env.reset()
    for _ in range(3):
        env.step(action)
    env.reset()
    for _ in range(LENGTH["micro"]):
        _, _, _, infos = env.step(action)
    assert infos[0]["episode"]["l"] == LENGTH["micro"]


def test_rows_of_a_group_share_their_day_and_differ_in_their_goal(market: Market) -> None:
    tensors, config = tiny_runs.tensors_of(market), tiny_runs.tiny_config()
    level = make_level(tensors, config, "micro", 8)
    env = PortfolioVecEnv(level, make_starts(tensors, config, "micro", None), group=4)
    env.seed(0)
    rows = env.reset()
    days = rows["day"].reshape(2, 4)
    assert (days == days[:, :1]).all()
    assert len(np.unique(rows["desired_goal"], axis=0)) > 2


def test_the_seed_of_the_batch_fixes_days_and_goals(market: Market) -> None:
    tensors, config = tiny_runs.tensors_of(market), tiny_runs.tiny_config()
    level = make_level(tensors, config, "micro", 8)
    env = PortfolioVecEnv(level, make_starts(tensors, config, "micro", None))

    def first(seed: int) -> bytes:
        env.seed(seed)
        return b"".join(value.tobytes() for value in env.reset().values())

    assert first(1) == first(1)
    assert first(1) != first(2)


@pytest.mark.parametrize("level", ["macro", "micro"])
def test_a_restored_batch_continues_bit_for_bit(market: Market, level: Any) -> None:
    tensors, config = tiny_runs.tensors_of(market, torch.float32), tiny_runs.tiny_config()

    def fresh() -> PortfolioVecEnv:
        partner = None if level == "micro" else FollowGoal(tensors, config.risk)
        made = make_level(tensors, config, level, N_ENVS, partner)
        return PortfolioVecEnv(made, make_starts(tensors, config, level, None))

    rng = np.random.default_rng(2)
    actions = rng.random((20, N_ENVS, fresh().action_space.shape[0])).astype(np.float32)
    first = fresh()
    first.reset()
    for action in actions[:7]:
        first.step(action)
    second = fresh()
    second.load_state_dict(first.state_dict())
    for action in actions[7:]:
        a, b = first.step(action), second.step(action)
        assert a[1].tobytes() == b[1].tobytes()
        assert {k: v.tobytes() for k, v in a[0].items()} == {
            k: v.tobytes() for k, v in b[0].items()
        }
        assert repr(a[3]) == repr(b[3])
