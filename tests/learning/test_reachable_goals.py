"""Reachable goals: hindsight finds how to reach them, agents without it do not."""

import pytest
import torch

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.known_markets import reachable_goals
from hrl_sarp.known_markets.reachable_goals import FollowFreely, RandomWeights
from hrl_sarp.known_markets.small_market import on_cpu
from hrl_sarp.studies.summary import Threshold, missed
from tests.tiny_runs import changed

SHORT_THRESHOLDS = (Threshold("with hindsight", ">=", 0.5), Threshold("without", "<=", 0.05))
"""After a seventh of the steps: 450 updates."""


def goal_config(**values: object) -> RunConfig:
    config: RunConfig = changed(load_config(experiment="reachable_goals"), values)
    return config


def test_the_oracle_reaches_every_goal_within_the_turnover_cap() -> None:
    config = goal_config()
    assert config.risk.turnover_cap == 0.25
    tensors = on_cpu(reachable_goals.goal_market(config.micro_agent.td3.horizon_days))
    assert reachable_goals.success(tensors, config, FollowFreely()) == 1.0


def test_random_and_untrained_agents_reach_nothing() -> None:
    shares = reachable_goals.reference_success(goal_config())
    assert max(shares.values()) < 0.01
    figures = {"with hindsight": shares["random"], "without": shares["untrained"]}
    assert missed(reachable_goals.THRESHOLDS, figures) == ["with hindsight = 0, expected >= 0.9"]
    assert missed(SHORT_THRESHOLDS, figures) == ["with hindsight = 0, expected >= 0.5"]


def test_every_episode_has_one_goal_drawn_from_the_whole_simplex() -> None:
    config = goal_config()
    horizon = config.micro_agent.td3.horizon_days
    tensors = on_cpu(reachable_goals.goal_market(horizon))
    level = reachable_goals.fresh_episodes(tensors, config)
    goals = []
    for _ in range(horizon):
        observation = level.observe("index")
        goals.append(observation["desired_goal"][:, : reachable_goals.N_ASSETS])
        level.step(RandomWeights(0).target(observation))
    assert all(torch.equal(goal, goals[0]) for goal in goals)
    # Dirichlet(1) over 11: mean 1/11, variance 10 / (121 x 12)
    assert goals[0].mean(dim=0).tolist() == pytest.approx([1 / 11] * 11, abs=0.015)
    assert float(goals[0].var(dim=0).mean()) == pytest.approx(10 / (121 * 12), rel=0.1)


def test_hindsight_reaches_goals_that_are_out_of_reach_without() -> None:
    short = {"total_timesteps": 2_800, "env_steps_per_update": 4, "batch_days": 16}
    config = goal_config(micro_agent={"td3": short})
    share = config.micro_agent.td3.hindsight_share
    figures = {
        "with hindsight": reachable_goals.trained_success(config, share),
        "without": reachable_goals.trained_success(config, 0.0),
    }
    assert missed(SHORT_THRESHOLDS, figures) == []
