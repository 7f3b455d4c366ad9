"""Symmetries of the networks: order of stocks, what cannot be traded, and what a fresh one does."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hrl_sarp.agents import MacroAgent, MicroAgent, MicroSettings
from hrl_sarp.contracts import Goal
from hrl_sarp.envs.observations import MacroInputs, MicroInputs, slot_request
from hrl_sarp.envs.policies import FollowGoal, SampledGoal, decode_within_sector
from hrl_sarp.market.tensors import MarketTensors
from tests import tiny_runs

B, S, K = 24, 3, 4
N = S * K


@pytest.fixture(scope="module")
def tensors() -> MarketTensors:
    return tiny_runs.tensors_of(tiny_runs.tiny_market(), torch.float32)


@pytest.fixture(scope="module")
def settings(tensors: MarketTensors) -> MicroSettings:
    return MicroSettings(tensors, tiny_runs.tiny_config())


def observation(tensors: MarketTensors, seed: int = 0) -> dict[str, torch.Tensor]:
    """Draw B portfolios on days with untradable and empty slots."""
    rng = np.random.default_rng(seed)
    days = torch.from_numpy(rng.integers(0, tensors.n_days, B))
    assert not tensors.slot_tradable[days].all()
    weights = torch.from_numpy(rng.dirichlet(np.ones(N), B)).float() * 0.9
    weights *= tensors.slot_filled[days]
    scalars = torch.from_numpy(rng.random((B, 4))).float()
    goal = [rng.dirichlet(np.ones(S), B), 0.2 * rng.random((B, 1)), rng.dirichlet(np.ones(3), B)]
    return {
        "day": days[:, None],
        "portfolio": torch.cat([weights, scalars], dim=1),
        "desired_goal": torch.from_numpy(np.concatenate(goal, axis=1)).float(),
    }


def full_inputs(settings: MicroSettings, seed: int = 0) -> MicroInputs:
    """Return inputs with one row of features per decision, so that rows can be permuted freely."""
    inputs, _ = settings.read(observation(settings.tensors, seed))
    rows = torch.arange(B)
    return MicroInputs(inputs.features[inputs.row_of], inputs.view.tradable, rows, inputs.view)


def permuted(inputs: MicroInputs, order: torch.Tensor) -> MicroInputs:
    """Put the slots of every decision in another order."""
    view = replace(
        inputs.view,
        weights=inputs.view.weights[:, order],
        tradable=inputs.view.tradable[:, order],
        preference=inputs.view.preference[:, order],
    )
    return MicroInputs(inputs.features[:, order], view.tradable, inputs.row_of, view)


def order_within_sectors() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.cat([K * s + torch.randperm(K, generator=generator) for s in range(S)])


@pytest.mark.parametrize("decode", ["within_sector", "free"])
def test_target_weights_follow_the_order_of_stocks(
    settings: MicroSettings, tensors: MarketTensors, decode: str
) -> None:
    config = tiny_runs.tiny_config(micro_agent={"network": {"decode": decode}})
    agent = tiny_runs.micro_agent(tensors, config)
    own = agent.settings

    def weights(inputs: MicroInputs) -> torch.Tensor:
        request = slot_request(inputs.view, own.risk)
        with torch.no_grad():
            return own.decode(agent.actor.network(inputs, request), request)

    inputs, order = full_inputs(settings), order_within_sectors()
    before = weights(inputs)
    torch.testing.assert_close(weights(permuted(inputs, order)), before[:, order])
    assert not torch.allclose(before[:, order], before)


def test_the_critic_does_not_mind_the_order_of_stocks(
    settings: MicroSettings, tensors: MarketTensors
) -> None:
    critic = tiny_runs.micro_agent(tensors, tiny_runs.tiny_config()).critic.first
    inputs, order = full_inputs(settings), order_within_sectors()
    executed = torch.rand(B, N, generator=torch.Generator().manual_seed(1)) * 0.1

    def value(seen: MicroInputs, weights: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = critic(seen, slot_request(seen.view, settings.risk), weights)
        return found

    first = value(inputs, executed)
    torch.testing.assert_close(value(permuted(inputs, order), executed[:, order]), first)
    assert not torch.allclose(value(inputs, executed[:, order]), first)


def test_untradable_slots_are_neither_seen_nor_bought(
    settings: MicroSettings, tensors: MarketTensors
) -> None:
    agent = tiny_runs.micro_agent(tensors, tiny_runs.tiny_config())
    inputs = full_inputs(settings)
    blind = ~inputs.view.tradable
    other = replace(inputs, features=inputs.features + 7.0 * blind[:, :, None])
    request = slot_request(inputs.view, settings.risk)
    executed = torch.rand(B, N, generator=torch.Generator().manual_seed(1)) * 0.1
    with torch.no_grad():
        scores = agent.actor.network(inputs, request)
        assert torch.equal(scores, agent.actor.network(other, request))
        value = agent.critic.first(inputs, request, executed)
        assert torch.equal(value, agent.critic.first(other, request, executed))
        moved = executed + 0.05 * blind
        assert torch.equal(value, agent.critic.first(inputs, request, moved))
    assert (scores[blind] == 0).all()
    assert (settings.decode(scores, request)[blind] == 0).all()


def test_a_slow_agent_trades_the_configured_share_of_the_way(
    settings: MicroSettings, tensors: MarketTensors
) -> None:
    inputs = full_inputs(settings)
    targets = []
    for speed in (1.0, 0.25):
        config = tiny_runs.tiny_config(micro_agent={"network": {"trade_speed": speed}})
        agent = tiny_runs.micro_agent(tensors, config)
        request = slot_request(inputs.view, agent.settings.risk)
        with torch.no_grad():
            scores = agent.actor.network(inputs, request)
            targets.append(agent.settings.decode(scores, request))
            expected = decode_within_sector(
                scores, request, config.micro_agent.network.score_temperature, speed
            )
        assert torch.equal(targets[-1], expected)
    assert not torch.allclose(*targets)


def test_a_fresh_micro_agent_follows_the_goal(
    settings: MicroSettings, tensors: MarketTensors
) -> None:
    seen = observation(tensors)
    fresh, rule = MicroAgent(settings, seed=0), FollowGoal(tensors, settings.risk)
    torch.testing.assert_close(fresh.target(seen), rule.target(seen))


def test_scores_move_weights_inside_the_sectors_only(
    settings: MicroSettings, tensors: MarketTensors
) -> None:
    seen = observation(tensors)
    inputs, request = settings.read(seen)
    scores = torch.rand(B, N, generator=torch.Generator().manual_seed(2)) * 2 - 1
    followed = settings.decode(torch.zeros(B, N), request).view(B, S, K).sum(dim=2)
    tilted = settings.decode(scores, request).view(B, S, K).sum(dim=2)
    torch.testing.assert_close(tilted, followed)
    assert inputs.view.weights.shape == (B, N)


@pytest.mark.parametrize("decode", ["within_sector", "free"])
def test_the_gradient_of_the_decode_is_that_of_finite_differences(
    tensors: MarketTensors, decode: str
) -> None:
    config = tiny_runs.tiny_config(micro_agent={"network": {"decode": decode}})
    own = MicroSettings(tensors, config)
    seen = {k: v.double() if v.is_floating_point() else v for k, v in observation(tensors).items()}
    _, request = own.read(seen)
    generator = torch.Generator().manual_seed(3)
    scores = (torch.rand(B, N, generator=generator).double() - 0.5).requires_grad_()
    direction = torch.randn(B, N, generator=generator).double()
    value = torch.randn(B, N, generator=generator).double()

    (slope,) = torch.autograd.grad((own.decode(scores, request) * value).sum(), scores)
    step = 1e-6
    with torch.no_grad():
        ahead = (own.decode(scores + step * direction, request) * value).sum(dim=1)
        behind = (own.decode(scores - step * direction, request) * value).sum(dim=1)
    found = (slope * direction).sum(dim=1)
    assert found.abs().max() > 0.01
    torch.testing.assert_close(found, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-7)


def test_every_weight_of_the_micro_actor_gets_a_gradient(
    settings: MicroSettings, tensors: MarketTensors
) -> None:
    agent = tiny_runs.micro_agent(tensors, tiny_runs.tiny_config())
    weights = agent.actor(observation(tensors))
    (weights * torch.randn(B, N, generator=torch.Generator().manual_seed(4))).sum().backward()
    silent = {name for name, p in agent.actor.named_parameters() if p.grad.abs().max() == 0}
    # centred scores feel no common shift, so the last biases move nothing
    assert silent <= {"network.out.bias", "network.direct.bias"}


def test_the_known_cost_of_the_trade_is_in_the_critic_from_the_start(
    settings: MicroSettings, tensors: MarketTensors
) -> None:
    critic = MicroAgent(settings, seed=0).critic.first
    inputs = full_inputs(settings)
    request = slot_request(inputs.view, settings.risk)
    held = inputs.view.weights
    bought = held + 0.01 * inputs.view.tradable
    with torch.no_grad():
        rest = critic.columns(inputs, request, held)[:, -1]
        assert rest.tolist() == pytest.approx([0.0] * B, abs=1e-6)
        value = critic.columns(inputs, request, bought)[:, -1]
    # 13 bps of 1 % for each tradable slot, in percent, before the trade's own effect on wealth
    count = inputs.view.tradable.sum(dim=1)
    assert value.tolist() == pytest.approx((-100 * 0.0013 * 0.01 * count).tolist(), rel=2e-3)


def test_unlisted_sectors_get_nothing_and_change_no_value(tensors: MarketTensors) -> None:
    agent = tiny_runs.macro_agent(tensors, tiny_runs.tiny_config())
    width = tensors.sector_embeddings.shape[2] + 2
    context = tensors.macro_features.shape[1] + 6
    generator = torch.Generator().manual_seed(0)
    sectors = torch.randn(B, S, width, generator=generator)
    sectors[..., -1] = 1.0
    sectors[::2, 1, -1] = 0.0
    prior = torch.rand(B, S + 1, generator=generator)
    inputs = MacroInputs(sectors, torch.randn(B, context, generator=generator), prior)
    unlisted = ~inputs.listed
    assert unlisted.any()
    changed = sectors.clone()
    changed[..., :-1] += 3.0 * unlisted[..., None]
    prior_of_unlisted = torch.cat([0.5 * unlisted, torch.zeros(B, 1)], dim=1)
    unseen = replace(inputs, sectors=changed, prior=prior + prior_of_unlisted)
    with torch.no_grad():
        shares, other = agent.actor(inputs).shares, agent.actor(unseen).shares
        assert torch.equal(agent.critic(inputs), agent.critic(unseen))
    assert (shares.centre[~shares.listed] == 0).all()
    torch.testing.assert_close(shares.centre.sum(dim=1), torch.ones(B))
    assert torch.equal(shares.centre, other.centre)
    assert torch.equal(shares.alpha[shares.listed], other.alpha[shares.listed])


def test_a_fresh_macro_agent_of_growth_wants_equal_weights_and_knows_no_regime(
    tensors: MarketTensors,
) -> None:
    agent = MacroAgent(tensors, tiny_runs.tiny_config(objective={"kind": "growth"}), seed=0)
    days = torch.arange(0, 200, 10)
    zeros = torch.zeros(len(days), S + 3)
    goal = agent.goal({"day": days[:, None], "portfolio": zeros})
    listed = tensors.sector_listed[days].float()
    torch.testing.assert_close(goal.sector_weights, listed / listed.sum(dim=1, keepdim=True))
    torch.testing.assert_close(goal.regime_probabilities, torch.full((len(days), 3), 1 / 3))
    assert (goal.cash == 0).all()


def test_sampled_goals_mix_the_policys_with_uniform_ones(tensors: MarketTensors) -> None:
    one_sector = torch.tensor([[1.0, 0.0, 0.0]])

    class Constant:
        def goal(self, observation: Any) -> Any:
            n = len(observation["day"])
            return Goal(one_sector.expand(n, 3), torch.full((n,), 0.3), torch.eye(3)[[1] * n])

    n = 4000
    goals = SampledGoal(tensors, 0.25, Constant(), seed=0)
    goal = goals.goal({"day": torch.full((n, 1), 100)})
    sampled = goal.sector_weights[:, 0] < 1
    assert 0.22 < sampled.float().mean() < 0.28  # 0.25, four deviations of 0.0068 either side
    drawn = goal.sector_weights[sampled]
    torch.testing.assert_close(drawn.sum(dim=1), torch.ones(len(drawn)))
    # a share of Dirichlet(1, 1, 1) has mean 1/3 and deviation sqrt(1/18) = 0.236
    torch.testing.assert_close(drawn.mean(dim=0), torch.full((3,), 1 / 3), rtol=0, atol=0.03)
    torch.testing.assert_close(drawn.std(dim=0), torch.full((3,), 0.2357), rtol=0, atol=0.02)
    assert (goal.regime_probabilities[:, 1] == 1).all()
    assert (goal.cash == 0.3).all()
