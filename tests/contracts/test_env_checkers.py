"""Every env passes the checkers of Gymnasium and Stable-Baselines3 and replays under its seed."""

import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as gymnasium_check
from stable_baselines3.common.env_checker import check_env as sb3_check

from hrl_sarp.envs import HierarchicalEnv, MacroEnv, MicroEnv
from hrl_sarp.errors import MarketError, SimulatorError
from tests import tiny_runs

LEVELS = ("macro", "micro")
FORMS = ("full", "index")


@pytest.fixture(autouse=True)
def _known_remarks() -> Iterator[None]:
    with warnings.catch_warnings():
        # portfolios and features have no natural bound
        warnings.filterwarnings("ignore", message=".*Box observation space m")
        # what we hand over is float32 on [0, 1]; the checkers prefer [-1, 1]
        warnings.filterwarnings("ignore", message=".*symmetric and normalized.*")
        warnings.filterwarnings("ignore", message=".*[Rr]escale your (action|observation).*")
        # the env is made by its class, on purpose
        warnings.filterwarnings("ignore", message=".*does not have a spec.*")
        warnings.filterwarnings("ignore", message=".*`check_env\\(\\.\\.\\.\\)`.*")
        yield


def small_env(level: Any, form: Any, **options: Any) -> HierarchicalEnv:
    market = tiny_runs.with_nodes(tiny_runs.tiny_market())
    return HierarchicalEnv(market, tiny_runs.tiny_config(), level, observation=form, **options)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("level", LEVELS)
def test_gymnasium_accepts_the_env(level: str, form: str) -> None:
    gymnasium_check(small_env(level, form), skip_render_check=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("level", LEVELS)
def test_stable_baselines_accepts_the_env(level: str, form: str) -> None:
    sb3_check(small_env(level, form), warn=True)


@pytest.mark.parametrize("level", LEVELS)
def test_a_second_env_with_the_same_seed_and_actions_replays_the_first(level: str) -> None:
    first = play(small_env(level, "full"), seed=5)
    again = play(small_env(level, "full"), seed=5)
    other = play(small_env(level, "full"), seed=6)
    assert first == again
    assert first != other


def play(env: HierarchicalEnv, seed: int) -> list[Any]:
    """Play two episodes with random actions; the second reset takes no seed."""
    rng = np.random.default_rng(0)
    seen: list[Any] = []
    for reset in ({"seed": seed}, {}):
        observation, info = env.reset(**reset)
        seen += [info["day"], plain(observation)]
        over = False
        while not over:
            action = rng.random(env.action_space.shape[0]).astype(np.float32)
            observation, reward, terminated, truncated, info = env.step(action)
            over = terminated or truncated
            seen += [plain(observation), reward, tuple(info.items())]
    return seen


def plain(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {name: value.tobytes() for name, value in observation.items()}
    return observation.tobytes()


@pytest.mark.parametrize(("level", "horizon"), [("macro", 6), ("micro", 12)])
def test_an_episode_is_truncated_after_its_horizon_and_then_refuses_a_step(
    level: str, horizon: int
) -> None:
    env = small_env(level, "index")
    env.reset(seed=0)
    action = env.action_space.sample()
    for step in range(horizon):
        _, _, terminated, truncated, _ = env.step(action)
        assert not terminated
        assert truncated is (step == horizon - 1)
    with pytest.raises(SimulatorError, match="call reset first"):
        env.step(action)


def test_a_reset_starts_at_the_day_that_is_asked_for() -> None:
    observation, info = small_env("macro", "index").reset(options={"day": 49})
    assert info["day"] == 49
    assert observation["day"].tolist() == [49]


@pytest.mark.parametrize("level", LEVELS)
def test_full_observations_hold_what_the_index_points_to(level: str) -> None:
    full, index = small_env(level, "full"), small_env(level, "index")
    a, _ = full.reset(seed=1)
    b, _ = index.reset(seed=1)
    tensors = index.level.tensors
    portfolio = b["portfolio"]
    flat = a["observation"] if level == "micro" else a
    if level == "micro":
        features = tensors.slot_features[int(b["day"][0])].numpy().ravel()
        assert flat[: len(features)].tobytes() == features.tobytes()
        assert np.array_equal(a["desired_goal"], b["desired_goal"])
        assert np.array_equal(flat[-3:], portfolio[-3:])
    else:
        day, prior = int(b["day"][0]), flat[-tensors.n_sectors - 1 :]
        assert np.array_equal(flat[: -len(prior)][-3:], portfolio[-3:])
        np.testing.assert_allclose(prior[:-1], tensors.sector_shares[day], rtol=1e-6)
        assert prior[-1] == 0  # without risk tables, nothing in cash


def test_a_market_without_sector_table_is_refused_with_the_command_to_run() -> None:
    with pytest.raises(MarketError, match=r"train --phase 1.*with_node_features"):
        HierarchicalEnv(tiny_runs.tiny_market(), tiny_runs.tiny_config(), "macro")


@pytest.mark.parametrize("name", ["Macro", "Micro"])
def test_gymnasium_makes_both_levels_on_the_bundled_sample(name: str) -> None:
    env = gymnasium.make(f"hrl_sarp/{name}-v0")
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    observation, reward, *_ = env.step(env.action_space.sample())
    assert env.observation_space.contains(observation)
    assert np.isfinite(reward)
    assert env.unwrapped.level.tensors.dtype is torch.float64


def test_the_named_envs_are_the_two_levels() -> None:
    market, config = tiny_runs.with_nodes(tiny_runs.tiny_market()), tiny_runs.tiny_config()
    assert type(MacroEnv(market, config).level).__name__ == "MacroLevel"
    assert type(MicroEnv(market, config).level).__name__ == "MicroLevel"
