"""Envs as other libraries use them: without a seed, with hindsight replay, with broken actions."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from stable_baselines3 import TD3, HerReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from hrl_sarp.contracts import DayRange
from hrl_sarp.envs import HierarchicalEnv, PortfolioVecEnv, observation_table, policy_of
from hrl_sarp.envs.levels import EpisodeStarts
from hrl_sarp.envs.policies import ProportionalGoal, SampledGoal
from hrl_sarp.errors import SimulatorError
from hrl_sarp.evaluation import backtest
from tests import tiny_runs

LEVELS = ("macro", "micro")
CONFIG = tiny_runs.tiny_config()
MARKET = tiny_runs.with_nodes(tiny_runs.tiny_market())
HORIZON = {"macro": 6, "micro": 12}


def env_of(level: Any, **options: Any) -> HierarchicalEnv:
    return HierarchicalEnv(MARKET, CONFIG, level, **options)


@pytest.mark.parametrize("level", LEVELS)
def test_envs_without_a_seed_start_on_days_of_their_own(level: str) -> None:
    days = [env_of(level).reset()[1]["day"] for _ in range(12)]
    assert len(set(days)) > 3  # one day in 12 draws of about 20 has a chance below 1e-14


def test_envs_without_a_seed_have_goals_of_their_own_also_in_a_vector() -> None:
    vector = SyncVectorEnv([lambda: env_of("micro")] * 16)
    goals = vector.reset()[0]["desired_goal"]
    # half of the goals are 1/N by design, the others differ: two kinds in 16 have a chance of 3e-4
    assert len({goal.tobytes() for goal in goals}) > 2


@pytest.mark.parametrize("level", LEVELS)
def test_the_seed_of_the_configuration_does_not_reach_an_env(level: str) -> None:
    of_config = EpisodeStarts(
        MARKET, MARKET.split.train, HORIZON[level], weekly=level == "macro", seed=CONFIG.seed
    )
    expected = of_config.draw(6).tolist()
    env = env_of(level)
    assert [env.reset()[1]["day"] for _ in range(6)] != expected


def test_a_partner_that_was_given_keeps_its_own_seed() -> None:
    first, second = (
        env_of("micro", partner=SampledGoal(tensors, 1.0, ProportionalGoal(tensors), 9))
        for tensors in [tiny_runs.tensors_of(MARKET)] * 2
    )
    day = {"day": 60}
    one, two = (env.reset(options=day)[0]["desired_goal"] for env in (first, second))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("level", LEVELS)
def test_a_day_that_is_asked_for_takes_no_draw(level: str) -> None:
    plain, asked = env_of(level), env_of(level)
    days = [plain.reset(seed=4)[1]["day"], plain.reset()[1]["day"]]
    assert asked.reset(seed=4, options={"day": 60})[1]["day"] == 60
    assert [asked.reset()[1]["day"] for _ in range(2)] == days


@pytest.mark.parametrize("level", LEVELS)
def test_the_last_day_that_is_accepted_has_a_whole_episode_and_the_next_is_refused(
    level: str,
) -> None:
    env = env_of(level)
    week_ends = np.flatnonzero(MARKET.is_week_end)
    # a micro episode earns sessions day + 1 ... day + 12; a macro one reaches six week ends
    last = MARKET.n_days - 1 - 12 if level == "micro" else int(week_ends[-6]) - 1
    env.reset(options={"day": last})
    action = np.full(env.action_space.shape, 0.05, np.float32)
    for step in range(HORIZON[level]):
        *_, truncated, _ = env.step(action)
        assert truncated == (step == HORIZON[level] - 1)
    with pytest.raises(SimulatorError, match=rf"a day from 0 to {last}, .*found {last + 1};"):
        env.reset(options={"day": last + 1})


@pytest.mark.parametrize("day", [-1, 3.7, "60", True, 10**6, np.nan])
def test_a_day_that_is_no_row_is_refused(day: Any) -> None:
    with pytest.raises(SimulatorError, match=r"reset: expected a day from 0 to 187, "):
        env_of("micro").reset(options={"day": day})


def test_an_option_of_another_name_is_refused() -> None:
    with pytest.raises(SimulatorError, match=r"expected the option 'day' or none, found \['dya'\]"):
        env_of("micro").reset(options={"dya": 3})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("level", LEVELS)
def test_an_action_that_is_not_finite_is_refused_and_changes_nothing(
    level: str, value: float
) -> None:
    env = env_of(level)
    env.reset(seed=0)
    action = np.full(env.action_space.shape, 0.05, np.float32)
    action[2] = value
    before = env.level.clocks.state_dict()
    with pytest.raises(SimulatorError, match=rf"found {value} in entry 2 of portfolio 0; did"):
        env.step(action)
    after = env.level.clocks.state_dict()
    assert str(before) == str(after)


@pytest.mark.parametrize("level", LEVELS)
def test_an_action_of_another_length_is_refused(level: str) -> None:
    env = env_of(level)
    env.reset(seed=0)
    n = env.action_space.shape[0]
    for shape in ((n - 1,), (n + 1,), (1, n), ()):
        with pytest.raises(SimulatorError, match=rf"expected an action of shape \(1, {n}\)"):
            env.step(np.zeros(shape, np.float32))
    batch = PortfolioVecEnv.of(level, 2, MARKET, CONFIG)
    batch.reset()
    with pytest.raises(SimulatorError, match=rf"expected an action of shape \(2, {n}\)"):
        batch.step(np.zeros((2, n - 1), np.float32))
    broken = np.full((2, n), 0.05)
    broken[1, 0] = np.nan
    with pytest.raises(SimulatorError, match="found nan in entry 0 of portfolio 1"):
        batch.step(broken)


def shown_in(reply: tuple[Any, ...]) -> tuple[Any, ...]:
    observation = reply[0].values() if isinstance(reply[0], dict) else [reply[0]]
    return (*(values.tobytes() for values in observation), *reply[1:4])


@pytest.mark.parametrize("level", LEVELS)
def test_an_action_may_be_any_kind_of_numbers(level: str) -> None:
    n = env_of(level).action_space.shape[0]
    plain = np.full(n, 0.0625, np.float32)  # exact in every type
    kinds = [plain, plain.astype(np.float64), plain.astype(np.float16), plain.tolist()]
    kinds += [tuple(plain), torch.tensor(plain), torch.tensor(plain, requires_grad=True)]
    replies = []
    for kind in kinds:
        env = env_of(level)
        env.reset(seed=4)
        replies.append(shown_in(env.step(kind)))
    assert all(reply == replies[0] for reply in replies)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", [None, "buy", {"weights": 1}, "objects", "complex", "ragged"])
def test_an_action_that_is_no_numbers_is_refused_in_one_line(level: str, kind: Any) -> None:
    env = env_of(level)
    n = env.action_space.shape[0]
    wrong = {"objects": np.full(n, 0.1, object), "complex": np.full(n, 0.1j), "ragged": [[1], 2]}
    batch = PortfolioVecEnv.of(level, 2, MARKET, CONFIG)
    env.reset(seed=0)
    batch.reset()
    given = wrong.get(kind, kind) if isinstance(kind, str) else kind
    for step in (env.step, batch.step):
        with pytest.raises(SimulatorError, match="expected an action of real numbers, found"):
            step(given)


@pytest.mark.parametrize("level", LEVELS)
def test_any_seed_that_gymnasium_takes_is_taken(level: str) -> None:
    for seed in (0, 2**31, 2**63, 2**64 + 5, 2**70):
        first, second = (shown_in((*env_of(level).reset(seed=seed)[:1], 0, 0, 0)) for _ in "ab")
        assert first == second


def hindsight(**buffer: Any) -> TD3:
    return TD3(
        "MultiInputPolicy",
        env_of("micro"),
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={"n_sampled_goal": 2, **buffer},
        learning_starts=26,
        batch_size=8,
        buffer_size=64,
        train_freq=(4, "step"),
        policy_kwargs={"net_arch": [4]},
        device="cpu",
    )


def test_hindsight_replay_of_stable_baselines_needs_the_infos_and_says_so() -> None:
    with pytest.raises(SimulatorError, match=r"'copy_info_dict': True") as refused:
        hindsight().learn(32)
    assert "\n" not in str(refused.value)


def test_hindsight_replay_of_stable_baselines_learns_with_the_infos() -> None:
    model = hindsight(copy_info_dict=True).learn(32)
    assert model.num_timesteps == 32
    assert model._n_updates > 0


def start_days(env: PortfolioVecEnv) -> tuple[int, ...]:
    env.reset()
    return tuple(env.level.clocks.day.tolist())


@pytest.mark.parametrize("level", LEVELS)
def test_a_batch_for_other_libraries_draws_its_own_seed_or_takes_one(level: str) -> None:
    drawn = {start_days(PortfolioVecEnv.of(level, 4, MARKET, CONFIG)) for _ in range(6)}
    assert len(drawn) > 3
    first, second = (PortfolioVecEnv.of(level, 4, MARKET, CONFIG, seed=5) for _ in range(2))
    assert start_days(first) == start_days(second)


def test_a_batch_starts_where_its_options_say() -> None:
    batch = PortfolioVecEnv.of("micro", 3, MARKET, CONFIG, DayRange(0, 100), "index", seed=1)
    batch.set_options([{"day": 60}, {"day": 70}, {}])
    days = batch.reset()["day"].ravel().tolist()
    assert days[:2] == [60, 70]
    batch.set_options({"day": 199})
    with pytest.raises(SimulatorError, match="a day from 0 to 187"):
        batch.reset()


class Linear:
    """A model whose actions depend on every number that it is shown."""

    def __init__(self, n_actions: int) -> None:
        self.n_actions = n_actions

    def predict(self, observation: Any, *, deterministic: bool = False) -> tuple[Any, Any]:
        assert deterministic
        parts = observation.values() if isinstance(observation, dict) else [observation]
        flat = np.concatenate(list(parts), axis=1).astype(np.float64)
        weights = np.random.default_rng(0).normal(size=(flat.shape[1], self.n_actions))
        return 1 / (1 + np.exp(-flat @ weights)), None


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("start", [60, 64, 97])
def test_a_model_earns_in_a_backtest_what_it_earns_in_its_env(level: Any, start: int) -> None:
    tensors = tiny_runs.tensors_of(MARKET)
    partner = None if level == "macro" else ProportionalGoal(tensors)
    env = env_of(level, partner=partner)
    model = Linear(env.action_space.shape[0])
    observation, _ = env.reset(options={"day": start})
    wealth = {}
    for _ in range(HORIZON[level]):
        batch = (
            {name: value[None] for name, value in observation.items()}
            if isinstance(observation, dict)
            else observation[None]
        )
        (action,), _ = model.predict(batch, deterministic=True)
        observation, *_ = env.step(action)
        wealth[int(env.level.clocks.day[0])] = float(env.level.clocks.simulator.state.wealth[0])
    policy = policy_of(model, env, "linear")
    found = backtest(MARKET, [policy], DayRange(start, max(wealth) + 1), CONFIG)
    mine = found.wealth[:, found.names.index("linear")]
    # row i of the ledger is earned on row start + 1 + i of the market
    for day, value in wealth.items():
        assert mine[day - start - 1] == pytest.approx(value, abs=1e-9), day
    assert np.ptp(mine) > 1e-3


def test_a_model_is_found_below_wrappers_and_other_envs_and_markets_are_refused() -> None:
    single = env_of("micro")
    model = Linear(single.action_space.shape[0])
    batch = PortfolioVecEnv.of("micro", 2, MARKET, CONFIG)
    wrapped = [
        *(single, batch, VecMonitor(batch), DummyVecEnv([lambda: env_of("micro")])),
        gym.wrappers.TimeLimit(single, 5),
    ]
    for env in wrapped:
        policy = policy_of(model, env)
        assert isinstance(policy.macro, ProportionalGoal)  # drawn goals are for training
    with pytest.raises(SimulatorError, match=r"an env of this package, found CartPoleEnv"):
        policy_of(model, gym.make("CartPole-v1").unwrapped)
    other = tiny_runs.with_nodes(tiny_runs.tiny_market(seed=1, n_days=190))
    with pytest.raises(SimulatorError, match=r"its env reads the market .*200 sessions.* 190 "):
        backtest(other, [policy_of(model, single)], DayRange(60, 80), CONFIG)


@pytest.mark.parametrize("level", LEVELS)
def test_every_number_has_a_name_that_is_true(level: Any) -> None:
    env = env_of(level)
    observation, _ = env.reset(options={"day": 60})
    for _ in range(3):
        observation, *_ = env.step(np.full(env.action_space.shape, 0.04, np.float32))
    shown = observation if isinstance(observation, dict) else {"observation": observation}
    table = observation_table(env)
    assert {name: len(values) for name, values in shown.items()} | {
        "action": env.action_space.shape[0]
    } == dict(table.group_by("array").len().iter_rows())
    assert not table.select("array", "name").is_duplicated().any()
    named = dict(
        zip(table.filter(array="observation")["name"], shown["observation"].tolist(), strict=True)
    )
    state, tensors = env.level.clocks.simulator.state, env.level.tensors
    day, market = int(state.day[0]), tensors.market
    expected = {"cash": float(state.cash[0])}
    held = state.weights @ tensors.sector_member
    if level == "macro":
        expected |= dict(zip(market.macro_names, market.macro_features[day], strict=True))
        for s, sector in enumerate(market.sector_names):
            expected[f"{sector}: weight held"] = float(held[0, s])
            expected[f"{sector}: share of the prior"] = float(
                tensors.prior_exposure[day] * tensors.sector_prior[day, s]
            )
        feature = market.feature_names[1]
        inside = tensors.by_sector(tensors.slot_tradable)[day].double()
        values = tensors.by_sector(tensors.slot_features[..., 1])[day].double()
        mean = (values * inside).sum(dim=1) / inside.sum(dim=1).clamp(min=1)
        column = [named[f"{s}: mean {feature}"] for s in market.sector_names]
        # standardised over the training span, so in the same order as the raw means
        assert np.argsort(column).tolist() == torch.argsort(mean).tolist()
    else:
        slots = table.filter(array="action")["name"]
        weights = tensors.to_slots(state.weights, state.day)
        for n, slot in enumerate(slots):
            expected[f"{slot}: weight held"] = float(weights[0, n])
            for f, feature in enumerate(market.feature_names):
                expected[f"{slot}: {feature}"] = float(tensors.slot_features[day, n, f])
    for name, value in expected.items():
        assert named[name] == pytest.approx(value, abs=1e-6), name
