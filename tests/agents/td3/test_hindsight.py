"""Replay by index: what is stored, which goals are put in its place, and what that earns."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from hrl_sarp.agents.td3.hindsight import HindsightBuffer
from hrl_sarp.config.schema import TD3Config
from hrl_sarp.contracts import goal_size
from hrl_sarp.envs.levels import MicroTransition
from hrl_sarp.envs.rewards import micro_reward
from tests import tiny_runs

S, R, N, N_ENVS = 3, goal_size(0), 12, 8
WEEK = 5
"""Every fifth stored step ends a week: the goal changes there."""


def td3_config(**values: Any) -> TD3Config:
    config: TD3Config = tiny_runs.changed(tiny_runs.tiny_config().micro_agent.td3, values)
    return config


def make_buffer(
    n_sectors: int = S, n_slots: int = N, size: int = 400, **values: Any
) -> HindsightBuffer:
    goal = spaces.Box(0, 1, (n_sectors + R,))
    space = spaces.Dict(
        {
            "day": spaces.Box(0, 1000, (1,), np.int64),
            "portfolio": spaces.Box(-1, 1, (n_slots + 4,)),
            "achieved_goal": goal,
            "desired_goal": goal,
        }
    )
    return HindsightBuffer(
        size,
        space,
        spaces.Box(0, 1, (n_slots,)),
        n_envs=N_ENVS,
        td3=td3_config(**values),
        reward=tiny_runs.tiny_config().micro_agent.reward,
        n_sectors=n_sectors,
        is_risk=True,
    )


def fill(buffer: HindsightBuffer, n_steps: int, seed: int = 0) -> None:
    """Store steps in which every number is recognisable: row i of step t is worth 100 t + i."""
    rng = np.random.default_rng(seed)
    goal = draw_goal(rng)
    for t in range(n_steps):
        renewed = t % WEEK == WEEK - 1
        following = draw_goal(rng) if renewed else goal
        name = 100.0 * t + np.arange(N_ENVS, dtype=np.float32)
        portfolio = np.tile(name[:, None], (1, N + 4)).astype(np.float32)
        transition = MicroTransition(
            executed=torch.from_numpy(rng.random((N_ENVS, N))).float(),
            achieved=torch.from_numpy(rng.dirichlet(np.ones(S), N_ENVS)).float(),
            gain=torch.from_numpy(name).float(),
            followed=torch.from_numpy(rng.normal(size=(N_ENVS, S))).float(),
            next_desired=torch.from_numpy(following),
            renewed=torch.full((N_ENVS,), renewed),
        )
        seen = {
            "day": np.full((N_ENVS, 1), 10 + t),
            "portfolio": portfolio,
            "desired_goal": goal,
        }
        buffer.add(seen, portfolio + 0.5, transition, np.zeros(N_ENVS, bool))
        goal = following


def draw_goal(rng: np.random.Generator) -> np.ndarray:
    parts = rng.dirichlet(np.ones(S), N_ENVS), rng.dirichlet(np.ones(R), N_ENVS)
    return np.concatenate(parts, axis=1).astype(np.float32)


def rows_of(buffer: HindsightBuffer, batch: Any) -> dict[str, np.ndarray]:
    """Find the stored rows of a batch by their names."""
    name = batch.observation["portfolio"][:, 0].numpy()
    steps, envs = (name // 100).astype(int) % buffer.n_steps, (name % 100).astype(int)
    return {key: array[steps, envs] for key, array in buffer.arrays.items()}


def test_without_hindsight_a_batch_is_what_was_stored() -> None:
    buffer = make_buffer(hindsight_share=0.0)
    fill(buffer, 20)
    batch = buffer.sample_batch()
    stored = rows_of(buffer, batch)
    assert np.array_equal(batch.observation["desired_goal"], stored["desired"])
    assert np.array_equal(batch.next_observation["desired_goal"], stored["next_desired"])
    assert np.array_equal(batch.observation["day"][:, 0], stored["day"])
    assert np.array_equal(batch.next_observation["day"], batch.observation["day"] + 1)
    assert np.array_equal(batch.next_observation["portfolio"], stored["portfolio"] + 0.5)
    assert np.array_equal(batch.executed, stored["executed"])


def test_a_batch_takes_groups_of_rows_that_share_their_day() -> None:
    buffer = make_buffer()
    fill(buffer, 30)
    batch = buffer.sample_batch()
    day, row = batch.observation["day"].view(4, 4), batch.observation["portfolio"][:, 0] % 100
    assert (day == day[:, :1]).all()
    assert len(day.unique()) > 1
    assert {tuple(group.tolist()) for group in row.view(4, 4)} <= {(0, 1, 2, 3), (4, 5, 6, 7)}


def test_relabelling_replaces_sector_entries_only() -> None:
    buffer = make_buffer(hindsight_share=1.0)
    fill(buffer, 30)
    batch = buffer.sample_batch()
    stored = rows_of(buffer, batch)
    desired = batch.observation["desired_goal"].numpy()
    assert np.array_equal(desired[:, S:], stored["desired"][:, S:])
    assert not (desired[:, :S] == stored["desired"][:, :S]).all(axis=1).any()
    np.testing.assert_allclose(desired[:, :S].sum(axis=1), 1, rtol=1e-6)


def test_inside_a_week_the_next_goal_follows_and_across_its_end_it_stays() -> None:
    buffer = make_buffer(hindsight_share=1.0)
    fill(buffer, 30)
    crossed = kept = 0
    for _ in range(20):
        batch = buffer.sample_batch()
        stored = rows_of(buffer, batch)
        desired = batch.observation["desired_goal"].numpy()
        following = batch.next_observation["desired_goal"].numpy()
        over = stored["renewed"]
        assert np.array_equal(following[over], stored["next_desired"][over])
        assert np.array_equal(following[~over], desired[~over])
        crossed, kept = crossed + over.sum(), kept + (~over).sum()
    assert crossed > 20
    assert kept > 100


def test_a_week_that_repeats_its_goal_is_a_boundary_all_the_same() -> None:
    buffer = make_buffer(hindsight_share=1.0)
    fill(buffer, 30)
    buffer.arrays["next_desired"][:] = buffer.arrays["desired"]
    buffer.arrays["renewed"][:] = True
    batch = buffer.sample_batch()
    stored = rows_of(buffer, batch)
    assert np.array_equal(batch.next_observation["desired_goal"], stored["next_desired"])


def test_shares_of_kept_own_and_others_goals_are_those_of_the_configuration() -> None:
    buffer = make_buffer(hindsight_share=0.8, batch_days=500)
    fill(buffer, 50)
    batch = buffer.sample_batch()
    stored = rows_of(buffer, batch)
    desired = batch.observation["desired_goal"].numpy()[:, :S]
    kept = (desired == stored["desired"][:, :S]).all(axis=1)
    own = (desired == stored["achieved"]).all(axis=1)
    # 2000 rows: three deviations of a share are at most 3.4 %
    assert kept.mean() == pytest.approx(0.2, abs=0.035)
    assert own.mean() == pytest.approx(0.4, abs=0.035)
    everyone = {row.tobytes() for row in buffer.arrays["achieved"].reshape(-1, S)}
    assert all(row.tobytes() in everyone for row in desired[~kept])


def test_others_goals_do_not_come_from_the_same_episode_more_than_by_chance() -> None:
    buffer = make_buffer(hindsight_share=1.0, batch_days=500)
    fill(buffer, 50)
    batch = buffer.sample_batch()
    stored = rows_of(buffer, batch)
    desired = batch.observation["desired_goal"].numpy()[:, :S]
    source = {row.tobytes(): i for i, row in enumerate(buffer.arrays["achieved"].reshape(-1, S))}
    found = np.array([source[row.tobytes()] for row in desired])
    other = ~(desired == stored["achieved"]).all(axis=1)
    step, env = divmod(found[other], N_ENVS)
    name = batch.observation["portfolio"][:, 0].numpy()[other]
    later_here = (env == name % 100) & (step > name // 100)
    assert later_here.mean() < 1 / N_ENVS  # half of an eighth is expected


def test_the_reward_is_the_one_function_of_env_and_replay() -> None:
    buffer = make_buffer(hindsight_share=0.5)
    fill(buffer, 30)
    batch = buffer.sample_batch()
    stored = rows_of(buffer, batch)
    achieved = np.concatenate([stored["achieved"], np.zeros((len(stored["gain"]), R))], axis=1)
    desired = batch.observation["desired_goal"].numpy()
    expected = micro_reward(stored["gain"], achieved, desired, buffer.reward, stored["followed"])
    np.testing.assert_allclose(batch.reward, expected, rtol=1e-5)
    own = (desired[:, :S] == stored["achieved"]).all(axis=1)
    lost = (stored["achieved"] * stored["followed"]).sum(axis=1) ** 2
    # nothing is misaligned, and the variance is measured from that of the goal that was achieved
    np.testing.assert_allclose(batch.reward[own], (stored["gain"] + lost)[own], rtol=1e-5)


def test_an_all_cash_portfolio_gives_no_goal() -> None:
    buffer = make_buffer(hindsight_share=1.0)
    fill(buffer, 20)
    buffer.arrays["achieved"][:] = 0
    batch = buffer.sample_batch()
    stored = rows_of(buffer, batch)
    assert np.array_equal(batch.observation["desired_goal"], stored["desired"])


def test_the_ring_keeps_the_latest_steps() -> None:
    buffer = make_buffer(size=10 * N_ENVS, hindsight_share=0.0)
    fill(buffer, 25)
    assert buffer.size() == 10
    days = np.unique([buffer.sample_batch().observation["day"].numpy() for _ in range(40)])
    assert days.tolist() == list(range(10 + 15, 10 + 25))


def test_a_restored_buffer_draws_the_same_batches() -> None:
    first = make_buffer(size=10 * N_ENVS)
    fill(first, 25)
    second = make_buffer(size=10 * N_ENVS)
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        a, b = first.sample_batch(), second.sample_batch()
        assert torch.equal(a.reward, b.reward)
        assert torch.equal(a.observation["desired_goal"], b.observation["desired_goal"])


def test_a_transition_of_99_stocks_takes_less_than_1_and_a_half_kib() -> None:
    assert make_buffer(n_sectors=11, n_slots=99).bytes_per_transition() <= 1536
