"""Both agents learn the planted two-level market from scratch; random and fresh ones do not.

Shares of the oracle's gap over 1/N on fresh paths, mean of three seeds. The full study with more
steps, seeds and paths is `hrl-sarp known-markets`.
"""

import numpy as np
import pytest
import torch

from hrl_sarp.agents import MacroAgent, MicroAgent, MicroSettings
from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.envs import PortfolioVecEnv, make_level, make_starts
from hrl_sarp.envs.observations import MICRO_SCALARS
from hrl_sarp.envs.policies import (
    FollowGoal,
    MacroPolicy,
    MicroPolicy,
    Observation,
    ProportionalGoal,
    SampledGoal,
)
from hrl_sarp.graph import with_node_features
from hrl_sarp.known_markets.two_level import (
    MacroOracle,
    MicroOracle,
    PathPlan,
    PathScore,
    planted_market,
    share_of_gap,
)
from hrl_sarp.known_markets.two_level_study import ORACLE_SPEED
from hrl_sarp.market.tensors import MarketTensors
from tests import tiny_runs

LINE = 0.40
SEEDS = (0, 1, 2)
PLAN = PathPlan(train_weeks=1560, validation_weeks=52, n_paths=20, path_weeks=39)


class Course:
    """One seed's market with what trains and scores on it."""

    def __init__(self, seed: int) -> None:
        self.config = load_config(experiment="two_level", overrides={"seed": seed})
        planted = planted_market(self.config, PLAN, seed)
        market = with_node_features(planted.market, self.config.macro_agent.graph)
        self.tensors = MarketTensors(market, torch.float32, "cpu")
        self.score = PathScore(self.tensors, self.config, PLAN)
        self.even = ProportionalGoal(self.tensors)
        self.rule = FollowGoal(self.tensors, self.config.risk)
        self.base = self.score.equal_weight()
        self.macro_oracle = self.score.growth(
            MacroOracle(self.tensors, planted, self.config.risk), self.rule
        )
        self.micro_oracle = self.score.growth(
            self.even, MicroOracle(self.tensors, self.config.risk, ORACLE_SPEED)
        )

    def macro_share(self, macro: MacroPolicy) -> float:
        return share_of_gap(self.score.growth(macro, self.rule), self.macro_oracle, self.base)

    def micro_share(self, micro: MicroPolicy) -> float:
        return share_of_gap(self.score.growth(self.even, micro), self.micro_oracle, self.base)


@pytest.fixture(scope="module")
def courses() -> list[Course]:
    return [Course(seed) for seed in SEEDS]


def fresh_macro(course: Course) -> MacroAgent:
    return MacroAgent(course.tensors, course.config, course.config.seed)


def fresh_micro(course: Course, config: RunConfig | None = None) -> MicroAgent:
    settings = MicroSettings(course.tensors, config or course.config)
    return MicroAgent(settings, course.config.seed)


def test_ppo_from_scratch_closes_the_gap_of_the_macro_level(courses: list[Course]) -> None:
    shares = []
    for course in courses:
        config, ppo = course.config, course.config.macro_agent.ppo
        level = make_level(course.tensors, config, "macro", ppo.n_envs)
        starts = make_starts(course.tensors, config, "macro", None)
        env = PortfolioVecEnv(level, starts, group=ppo.envs_per_group)
        shares.append(course.macro_share(fresh_macro(course).learn(env, 25_600)))
    assert np.mean(shares) >= LINE, shares


def test_td3_from_scratch_closes_the_gap_of_the_micro_level(courses: list[Course]) -> None:
    shares = []
    for course in courses:
        # as in the study, with larger steps for a course of a tenth of its length
        config = tiny_runs.changed(
            course.config,
            {
                "micro_agent": {
                    "td3": {
                        "learning_rate": 3e-3,
                        "learning_starts": 2560,
                        "critic_warmup_updates": 150,
                        "tau": 0.02,
                        "buffer_size": 30_000,
                        "total_timesteps": 30_000,
                    }
                }
            },
        )
        td3 = config.micro_agent.td3
        level = make_level(course.tensors, config, "micro", td3.n_envs)
        starts = make_starts(course.tensors, config, "micro", None)
        env = PortfolioVecEnv(level, starts, group=td3.envs_per_group)
        agent = fresh_micro(course, config).learn(env, td3.total_timesteps)
        shares.append(course.micro_share(agent))
    assert np.mean(shares) >= LINE, shares


def test_fresh_agents_hold_equal_weights_and_miss_the_line(courses: list[Course]) -> None:
    for course in courses:
        assert abs(course.macro_share(fresh_macro(course))) < 0.05
        assert abs(course.micro_share(fresh_micro(course))) < 0.05


class RandomWeights:
    """Holds the tradable slots in new random shares every day."""

    def __init__(self, course: Course) -> None:
        self.generator = torch.Generator().manual_seed(course.config.seed)

    def target(self, observation: Observation) -> torch.Tensor:
        n_slots = observation["portfolio"].shape[1] - len(MICRO_SCALARS)
        shape = (len(observation["day"]), n_slots)
        return torch.rand(shape, generator=self.generator) / n_slots


def test_random_decisions_do_not_beat_equal_weights(courses: list[Course]) -> None:
    random_goals = [SampledGoal(c.tensors, 1.0, c.even, c.config.seed) for c in courses]
    pairs = list(zip(courses, random_goals, strict=True))
    assert np.mean([course.macro_share(goals) for course, goals in pairs]) <= 0.0
    assert np.mean([course.micro_share(RandomWeights(course)) for course in courses]) <= 0.0
