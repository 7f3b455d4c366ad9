"""PPO and TD3 around our networks: targets, warm-up, what moves, and a loss that is no number."""

from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback

from hrl_sarp.agents.ppo.algorithm import MacroPPO
from hrl_sarp.agents.td3.algorithm import MicroTD3
from hrl_sarp.agents.td3.hindsight import MicroBatch
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.envs import PortfolioVecEnv, make_level, make_starts
from hrl_sarp.errors import TrainingDivergedError
from hrl_sarp.market.tensors import MarketTensors
from tests import tiny_runs


@pytest.fixture(scope="module")
def tensors() -> MarketTensors:
    return tiny_runs.tensors_of(tiny_runs.tiny_market(), torch.float32)


def ppo(tensors: MarketTensors, **values: Any) -> MacroPPO:
    config = tiny_runs.tiny_config(macro_agent={"ppo": {"gamma": 0.9, **values}})
    agent = tiny_runs.macro_agent(tensors, config)
    section = config.macro_agent.ppo
    return agent.algorithm(batch_env(tensors, config, "macro", section.n_envs), section)


def td3(tensors: MarketTensors, **values: Any) -> MicroTD3:
    config = tiny_runs.tiny_config(micro_agent={"td3": values})
    agent = tiny_runs.micro_agent(tensors, config)
    section = config.micro_agent.td3
    return agent.algorithm(batch_env(tensors, config, "micro", section.n_envs), section)


def batch_env(
    tensors: MarketTensors, config: RunConfig, level: Any, n_envs: int
) -> PortfolioVecEnv:
    made = make_level(tensors, config, level, n_envs)
    group = config.micro_agent.td3.envs_per_group if level == "micro" else 1
    return PortfolioVecEnv(made, make_starts(tensors, config, level, None), group=group)


def copied(network: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def moved(network: Any, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, v in network.state_dict().items() if not torch.equal(v, before[name])}


class Watch(BaseCallback):
    """Calls a function at every rollout start."""

    def __init__(self, look: Any) -> None:
        super().__init__()
        self.look = look

    def _on_rollout_start(self) -> None:
        self.look()

    def _on_step(self) -> bool:
        return True


# ---- PPO


def test_the_macro_critic_warms_up_alone_and_the_regime_head_never_moves(
    tensors: MarketTensors,
) -> None:
    algorithm = ppo(tensors, critic_warmup_steps=32, total_timesteps=64)
    actor, critic = copied(algorithm.policy.actor), copied(algorithm.policy.critic)
    seen = []
    algorithm.learn(
        64,
        Watch(
            lambda: seen.append(
                (moved(algorithm.policy.actor, actor), moved(algorithm.policy.critic, critic))
            )
        ),
    )
    at_start, after_1, after_2, after_3 = seen  # rollouts of 16 steps
    assert at_start == (set(), set())
    assert after_1[0] == after_2[0] == set()
    assert "value.weight" in after_1[1]
    assert {"logit.weight", "cash.weight", "concentration.weight"} <= after_3[0]
    assert not {name for name in moved(algorithm.policy.actor, actor) if "regime" in name}


def test_ppo_logs_gradients_before_clipping_and_the_advantages_it_used(
    tensors: MarketTensors,
) -> None:
    algorithm = ppo(tensors, critic_warmup_steps=0, max_grad_norm=1e-6)
    algorithm.learn(16)
    logged = algorithm.logger.name_to_value
    assert logged["macro/clipped"] == 1.0
    assert min(logged["macro/actor_grad_norm"], logged["macro/critic_grad_norm"]) > 1e-6
    advantages = algorithm.rollout_buffer.advantages
    assert logged["macro/advantage_mean"] == pytest.approx(advantages.mean())
    assert logged["macro/advantage_max"] == pytest.approx(advantages.max())
    network = algorithm.policy.actor.config
    low, span = network.concentration_min, network.concentration_range
    assert low < logged["macro/kappa"] < low + span


def test_advantages_are_bootstrapped_through_time_limits(tensors: MarketTensors) -> None:
    algorithm = ppo(tensors, horizon_weeks=2, total_timesteps=16)
    buffers: list[Any] = []
    values: list[Any] = []
    policy = algorithm.policy
    predict = policy.predict_values

    def spied(observation: Any) -> torch.Tensor:
        found = predict(observation)
        values.append(found.detach().clone())
        return found

    policy.predict_values = spied  # type: ignore[method-assign]
    env: Any = algorithm.env
    rewards = []
    step = env.step_wait

    def recorded() -> Any:
        outcome = step()
        rewards.append(outcome[1].copy())
        return outcome

    env.step_wait = recorded
    algorithm.learn(16, Watch(lambda: buffers.append(None)))
    stored = algorithm.rollout_buffer.rewards
    earned = np.stack(rewards)
    ends = np.arange(4) % 2 == 1  # every second week is a time limit
    np.testing.assert_allclose(stored[~ends], earned[~ends], rtol=1e-6)
    bonus = (stored - earned)[ends] / algorithm.gamma
    at_limits = torch.stack(values[: 2 * 4]).view(2, 4).numpy()
    np.testing.assert_allclose(bonus, at_limits, rtol=1e-4, atol=1e-5)
    assert np.abs(bonus).min() > 1e-3


def test_generalised_advantages_by_hand(tensors: MarketTensors) -> None:
    algorithm = ppo(tensors, horizon_weeks=3)
    algorithm.train = lambda: None  # type: ignore[method-assign]
    algorithm.learn(16)
    buffer = algorithm.rollout_buffer
    last, _ = algorithm.policy.obs_to_tensor(algorithm._last_obs)
    following = algorithm.policy.predict_values(last).detach().numpy().ravel()
    alive, ahead = 1 - algorithm._last_episode_starts, np.zeros(4)
    for t in reversed(range(4)):
        delta = buffer.rewards[t] + 0.9 * following * alive - buffer.values[t]
        ahead = delta + 0.9 * 0.9 * alive * ahead
        np.testing.assert_allclose(buffer.advantages[t], ahead, rtol=1e-4, atol=1e-5)
        following, alive = buffer.values[t], 1 - buffer.episode_starts[t]
    assert buffer.episode_starts[3].all()  # an episode of three weeks ended inside the rollout


def test_a_macro_loss_that_is_no_number_names_step_and_rows(tensors: MarketTensors) -> None:
    algorithm = ppo(tensors)
    with torch.no_grad():
        algorithm.policy.critic.value.bias.fill_(torch.nan)
    with pytest.raises(TrainingDivergedError, match=r"macro/loss is nan at step 16.*rows \d+ to"):
        algorithm.learn(48)


# ---- TD3


def fixed_batch(algorithm: MicroTD3) -> MicroBatch:
    algorithm.learn(96)
    return algorithm.replay_buffer.sample_batch()


def test_the_target_is_bootstrapped_unless_the_episode_terminated(tensors: MarketTensors) -> None:
    algorithm = td3(tensors)
    batch = fixed_batch(algorithm)
    assert batch.terminated.sum() == 0  # time limits do not count: horizons of 12 have passed
    state = algorithm.generator.get_state()
    alive = algorithm.compute_target(batch)
    algorithm.generator.set_state(state)
    ended = algorithm.compute_target(
        MicroBatch(**{**vars(batch), "terminated": torch.ones_like(batch.terminated)})
    )
    torch.testing.assert_close(ended.sum(dim=1), batch.reward)
    algorithm.generator.set_state(state)
    noise = torch.randn(batch.executed.shape, generator=algorithm.generator)
    noise = (0.2 * noise).clamp(-0.5, 0.5)
    with torch.no_grad():
        action = algorithm.actor_target.with_noise(batch.next_observation, noise)
        both = torch.stack(algorithm.critic_target(batch.next_observation, action))
    torch.testing.assert_close(alive.sum(dim=1), batch.reward + 0.9 * both.min(dim=0).values)


def test_rows_that_reach_their_time_limit_store_their_own_last_portfolio(
    tensors: MarketTensors,
) -> None:
    algorithm = td3(tensors, horizon_days=3)
    algorithm.learn(96)
    arrays = algorithm.replay_buffer.arrays
    assert not arrays["terminated"].any()
    # after three steps an episode restarts in cash: its first portfolio is empty
    assert (arrays["portfolio"][3, :, :12] == 0).all()
    assert (arrays["next_portfolio"][2, :, :12].sum(axis=1) > 0.1).all()
    assert np.array_equal(arrays["portfolio"][1], arrays["next_portfolio"][0])


def test_the_micro_critics_warm_up_alone(tensors: MarketTensors) -> None:
    algorithm = td3(tensors, critic_warmup_updates=10, learning_starts=48)
    actor, critic = copied(algorithm.actor), copied(algorithm.critic)
    target = copied(algorithm.actor_target)
    seen: dict[int, tuple[set[str], set[str]]] = {}

    def look() -> None:
        seen[algorithm._n_updates] = moved(algorithm.actor, actor), moved(algorithm.critic, critic)

    algorithm.learn(120, Watch(look))
    # two updates a step once 48 steps are stored
    assert {0, 2, 8, 10, 12} <= set(seen)
    for updates in (0, 2, 8, 10):
        assert seen[updates][0] == set()
    assert seen[0][1] == set()
    assert "first.out.weight" in seen[2][1]
    assert "network.out.weight" in seen[12][0]
    assert "network.out.weight" in moved(algorithm.actor_target, target)


def test_the_targets_follow_by_tau(tensors: MarketTensors) -> None:
    algorithm = td3(tensors, policy_delay=1, critic_warmup_updates=0, learning_starts=48)
    algorithm.learn(64)
    before = copied(algorithm.critic_target)
    algorithm.train(gradient_steps=1)
    tau = algorithm.tau
    for name, value in algorithm.critic_target.state_dict().items():
        now = algorithm.critic.state_dict()[name]
        torch.testing.assert_close(value, (1 - tau) * before[name] + tau * now)


def test_the_actor_step_climbs_the_first_critic_and_leaves_it_alone(
    tensors: MarketTensors,
) -> None:
    algorithm = td3(tensors, learning_rate=1e-3)
    batch = fixed_batch(algorithm)
    critic = copied(algorithm.critic)

    def value() -> float:
        with torch.no_grad():
            weights = algorithm.actor(batch.observation)
            first, _ = algorithm.critic(batch.observation, weights)
        return float(first.mean())

    before = value()
    for _ in range(10):
        algorithm._update_actor(batch)
    assert value() > before
    assert moved(algorithm.critic, critic) == set()
    assert all(p.requires_grad for p in algorithm.critic.parameters())


def test_exploration_is_correlated_from_day_to_day_and_shrinks(tensors: MarketTensors) -> None:
    algorithm = td3(tensors)
    algorithm._setup_learn(192)
    drawn = []
    for _ in range(400):
        algorithm._sample_action(0)
        drawn.append(algorithm.noise.numpy().ravel())
    noise = np.stack(drawn)[50:]
    correlation = np.mean(noise[1:] * noise[:-1]) / np.mean(noise**2)
    assert correlation == pytest.approx(0.8, abs=0.03)
    assert noise.std() == pytest.approx(1.0, abs=0.05)


def test_a_micro_loss_that_is_no_number_names_step_and_rows(tensors: MarketTensors) -> None:
    algorithm = td3(tensors)
    with torch.no_grad():
        algorithm.critic.first.out.bias.fill_(torch.nan)
    match = r"micro/critic_loss is nan at step 1.*rows \d+ to \d+"
    with pytest.raises(TrainingDivergedError, match=match):
        algorithm.learn(192)


def test_learning_twice_from_one_seed_gives_the_same_networks(tensors: MarketTensors) -> None:
    first, second = td3(tensors), td3(tensors)
    first.learn(96)
    second.learn(96)
    assert moved(first.policy, copied(second.policy)) == set()


def test_td3_says_what_the_critic_thinks_the_actor_adds_to_following_the_goal(
    tensors: MarketTensors,
) -> None:
    algorithm = td3(tensors, critic_warmup_updates=0, env_steps_per_update=8)
    scores = algorithm.policy.actor.network.out, algorithm.policy.actor.network.direct
    with torch.no_grad():  # scores of 0: the actor follows the goal
        for layer in scores:
            layer.weight.zero_()
            layer.bias.zero_()
    algorithm.lr_schedule = lambda _: 0.0
    algorithm.learn(48 + 8 * 16)
    logged = algorithm.logger.name_to_value
    assert logged["micro/q_gain"] == 0.0
    assert logged["micro/q_gain_share"] == 0.0
    assert logged["micro/score_std"] == 0.0
    assert logged["micro/td_error"] > 0
