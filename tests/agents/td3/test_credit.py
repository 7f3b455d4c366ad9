"""Rewards and values by stock: they sum to what they split, and each part is that of its stock."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hrl_sarp.agents.td3.algorithm import MicroTD3
from hrl_sarp.agents.td3.credit import carried, stock_rewards
from hrl_sarp.agents.td3.hindsight import MicroBatch
from hrl_sarp.market.tensors import MarketTensors
from tests import tiny_runs
from tests.agents.test_algorithms import batch_env

RISK = {"objective": {"kind": "risk"}, "micro_agent": {"td3": {"credit": "stock"}}}


def trained(*, is_calm: bool = False, **values: object) -> MicroTD3:
    """TD3 after a few steps on a market with halts and delistings, or on a calm one without."""
    market = tiny_runs.tiny_market(halts=not is_calm, delistings=not is_calm)
    if is_calm:
        night, day = 0.1 * market.overnight_return, 0.1 * market.intraday_return
        market = replace(market, overnight_return=night, intraday_return=day)
    tensors = tiny_runs.tensors_of(market, torch.float32)
    config = tiny_runs.tiny_config(**{**RISK, **values})
    agent = tiny_runs.micro_agent(tensors, config)
    section = config.micro_agent.td3
    algorithm = agent.algorithm(batch_env(tensors, config, "micro", section.n_envs), section)
    algorithm.learn(96)
    return algorithm


@pytest.fixture(scope="module")
def algorithm() -> MicroTD3:
    return trained()


@pytest.fixture(scope="module")
def batch(algorithm: MicroTD3) -> MicroBatch:
    return algorithm.replay_buffer.sample_batch()


def by_a_loop(batch: MicroBatch, algorithm: MicroTD3, row: int, slot: int) -> float:
    """The part of one stock in the gain of one transition, from the market's tables."""
    settings = algorithm.actor.settings
    tensors, market = settings.tensors, settings.tensors.market
    inputs, request = settings.read(batch.observation)
    decided = int(batch.observation["day"][row])
    earned = np.zeros((2, tensors.n_slots))  # of following the goal, and as it was
    for place in range(tensors.n_slots):
        asset = market.slots[decided, place]
        if asset < 0:
            continue
        night = market.overnight_return[decided + 1, asset]
        day = market.intraday_return[decided + 1, asset]
        earned[0, place] = float(request.prior[row, place]) * (night + day)
        earned[1, place] = float(inputs.view.weights[row, place]) * night
        earned[1, place] += float(batch.executed[row, place]) * day
    parts = earned[:, slot] * earned.sum(axis=1)
    return float(100 * settings.risk_aversion / 2 * (parts[0] - parts[1]))


def test_parts_sum_to_the_reward_and_are_those_of_a_loop_over_stocks(
    algorithm: MicroTD3, batch: MicroBatch
) -> None:
    settings = algorithm.actor.settings
    found = stock_rewards(batch, settings)
    assert found.shape == (len(batch.reward), settings.tensors.n_slots + 1)
    torch.testing.assert_close(found.sum(dim=1), batch.reward, rtol=1e-4, atol=1e-6)
    for row in range(0, len(batch.reward), 5):
        for slot in range(settings.tensors.n_slots):
            wanted = by_a_loop(batch, algorithm, row, slot)
            assert float(found[row, slot]) == pytest.approx(wanted, rel=1e-3, abs=1e-6)


def test_without_costs_and_alignment_hardly_anything_is_left_over() -> None:
    """The parts are those of the true reward: what is left are products of small returns."""
    free = dict.fromkeys(("buy_bps", "sell_bps", "slippage_bps", "impact_coefficient"), 0.0)
    algorithm = trained(
        is_calm=True,
        market_profile={"costs": free},
        micro_agent={"reward": {"alignment_weight": 0.0}, **RISK["micro_agent"]},
    )
    batch = algorithm.replay_buffer.sample_batch()
    found = stock_rewards(batch, algorithm.actor.settings)
    assert float(found[:, -1].abs().mean()) < 0.02 * float(batch.reward.abs().mean())


def moving(tensors: MarketTensors) -> torch.Tensor:
    """Days whose slots are not all those of the next day, or a day with other stocks made so."""
    changed = (tensors.slots[:-1] != tensors.slots[1:]).any(dim=1)
    return changed.nonzero().flatten()


def test_the_value_of_a_slot_goes_to_the_rest_where_its_stock_changes(algorithm: MicroTD3) -> None:
    tensors = algorithm.actor.settings.tensors
    n_slots, days = tensors.n_slots, torch.arange(tensors.n_days - 1)
    assert len(moving(tensors)) > 0
    future = torch.randn(len(days), n_slots + 1, generator=torch.Generator().manual_seed(1))
    found = carried(future, days, tensors)
    torch.testing.assert_close(found.sum(dim=1), future.sum(dim=1))
    slots = tensors.market.slots
    stays = torch.as_tensor((slots[:-1] == slots[1:]) & (slots[:-1] >= 0))
    assert torch.equal(found[:, :-1], future[:, :-1] * stays)


def test_the_target_is_that_of_the_smaller_critic_in_every_column(
    algorithm: MicroTD3, batch: MicroBatch
) -> None:
    state = algorithm.generator.get_state()
    target = algorithm.compute_target(batch)
    algorithm.generator.set_state(state)
    ended = algorithm.compute_target(
        MicroBatch(**{**vars(batch), "terminated": torch.ones_like(batch.terminated)})
    )
    torch.testing.assert_close(ended, stock_rewards(batch, algorithm.actor.settings))
    algorithm.generator.set_state(state)
    noise = torch.randn(batch.executed.shape, generator=algorithm.generator)
    clip = algorithm.target_noise_clip
    noise = (algorithm.target_policy_noise * noise).clamp(-clip, clip)
    with torch.no_grad():
        action = algorithm.actor_target.with_noise(batch.next_observation, noise)
        both = torch.stack(algorithm.critic_target(batch.next_observation, action))
    wanted = batch.reward + algorithm.gamma * both.min(dim=0).values
    torch.testing.assert_close(target.sum(dim=1), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "values",
    [{"objective": {"kind": "growth"}}, {"micro_agent": {"td3": {"credit": "portfolio"}}}],
    ids=["growth", "portfolio"],
)
def test_without_parts_of_stocks_there_is_one_column(values: dict[str, object]) -> None:
    algorithm = trained(**values)
    batch = algorithm.replay_buffer.sample_batch()
    assert algorithm.compute_target(batch).shape == (len(batch.reward), 1)
    assert not [name for name, _ in algorithm.critic.named_parameters() if "risk" in name]
