"""A market of goals that can all be reached, which tests hindsight replay.

Eleven assets of eleven sectors never move. Each episode has one goal, drawn from Dirichlet(1). The
reward is 0 where the goal is reached and -1 elsewhere, so only hindsight shows how to reach
it. The decode is `free`, so the actor must learn to turn the observed goal into weights.
"""

from dataclasses import replace

import numpy as np
import torch

from hrl_sarp.agents import MicroAgent
from hrl_sarp.agents.td3.networks import MicroSettings
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, Market, Split
from hrl_sarp.envs.levels import MicroLevel
from hrl_sarp.envs.policies import MicroPolicy, Observation, ProportionalGoal, SampledGoal
from hrl_sarp.known_markets.small_market import market_of_returns, on_cpu, train_micro
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.run.session import derive_seed
from hrl_sarp.studies.summary import Threshold

N_ASSETS = 11
N_EPISODES = 1000
"""Fresh goals that an agent is evaluated on; they begin where the market's second week ends."""
EVALUATION_STREAM = 11
"""Role of the derived seed of these goals."""
THRESHOLDS = (Threshold("with hindsight", ">=", 0.9), Threshold("without", "<=", 0.2))


class FollowFreely:
    """The best policy: target weights in proportion to the goal."""

    def target(self, observation: Observation) -> torch.Tensor:
        """Return the goal's sector weights: there is one stock in each sector."""
        return observation["desired_goal"][:, :N_ASSETS]


class RandomWeights:
    """Weights drawn from Dirichlet(1) each day, whatever the goal."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def target(self, observation: Observation) -> torch.Tensor:
        """Return random weights."""
        shape = (len(observation["day"]), N_ASSETS)
        drawn = -torch.log1p(-torch.rand(shape, generator=self.generator))
        return drawn / drawn.sum(dim=1, keepdim=True)


def goal_market(horizon_days: int) -> Market:
    """Return assets that never move; a goal is renewed when an episode ends."""
    n_rows = 100 * horizon_days
    everything, nothing = DayRange(0, n_rows), DayRange(n_rows, n_rows)
    split = Split(everything, nothing, nothing)
    market = market_of_returns(
        "reachable_goals",
        np.zeros((n_rows, N_ASSETS)),
        np.arange(N_ASSETS),
        split,
        sessions_per_week=horizon_days,
    )
    # the assets are alike, so an identity feature would only be noise
    return replace(
        market, stock_features=np.zeros((n_rows, N_ASSETS, 1)), feature_names=("nothing",)
    )


def study(config: RunConfig) -> dict[str, float]:
    """Train with and without hindsight; return the shares of goals reached at an episode's end."""
    return {
        "with hindsight": trained_success(config, config.micro_agent.td3.hindsight_share),
        "without": trained_success(config, 0.0),
        **reference_success(config),
    }


def trained_success(config: RunConfig, hindsight_share: float) -> float:
    """Train a fresh agent with a share of relabelled goals and measure its success."""
    td3 = config.micro_agent.td3.model_copy(update={"hindsight_share": hindsight_share})
    micro = config.micro_agent.model_copy(update={"td3": td3})
    config = config.model_copy(update={"micro_agent": micro})
    tensors = on_cpu(goal_market(td3.horizon_days))
    return success(tensors, config, train_micro(tensors, config))


def reference_success(config: RunConfig) -> dict[str, float]:
    """Return the success of a network before training and of random weights."""
    tensors = on_cpu(goal_market(config.micro_agent.td3.horizon_days))
    untrained = MicroAgent(MicroSettings(tensors, config), config.seed)
    return {
        "untrained": success(tensors, config, untrained),
        "random": success(tensors, config, RandomWeights(config.seed)),
    }


def fresh_episodes(tensors: MarketTensors, config: RunConfig) -> MicroLevel:
    """Return a level at the start of episodes whose goals no training has drawn."""
    horizon = config.micro_agent.td3.horizon_days
    seed = derive_seed(config.seed, EVALUATION_STREAM)
    goals = SampledGoal(tensors, 1.0, ProportionalGoal(tensors), seed)
    level = MicroLevel(tensors, config, N_EPISODES, goals, horizon)
    start = torch.full((N_EPISODES,), 2 * horizon - 1)
    level.reset(start, torch.ones(N_EPISODES, dtype=torch.bool))
    return level


@torch.no_grad()
def success(tensors: MarketTensors, config: RunConfig, micro: MicroPolicy) -> float:
    """Return the share of fresh goals that are reached on the last day of their episode."""
    level = fresh_episodes(tensors, config)
    for _ in range(level.horizon):
        step = level.step(micro.target(level.observe("index")))
    return float((step.reward == 0).double().mean())
