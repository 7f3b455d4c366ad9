"""A Gymnasium env for either level: the agent acts on one, a partner policy on the other."""

from functools import lru_cache, partial
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, Market
from hrl_sarp.envs.levels import EpisodeStarts, MacroLevel, MicroLevel, ObservationForm
from hrl_sarp.envs.policies import (
    FollowGoal,
    MacroPolicy,
    MicroPolicy,
    ProportionalGoal,
    SampledGoal,
)
from hrl_sarp.envs.rewards import micro_reward
from hrl_sarp.errors import MarketError, SimulatorError
from hrl_sarp.graph import with_node_features
from hrl_sarp.market.cache import bundled_sample
from hrl_sarp.market.tensors import MarketTensors

LevelName = Literal["macro", "micro"]


class HierarchicalEnv(gym.Env[Any, Any]):
    """One level of the hierarchy as an env; a partner policy decides for the other level.

    Observation:
        `full`: an array (macro) or a goal dictionary that holds one (micro), for any library.
        `index`: day, portfolio and goals, for networks that look up the market rows themselves.
    Action:
        macro: 11 sector weights and 3 regime probabilities. Each part is divided by its sum.
        micro: target weights of the day's slots. They are projected onto the limits.
    Reward:
        % of log growth, see `hrl_sarp.envs.rewards`.
    Episode end:
        truncated after the horizon (weeks or sessions); terminated below 10 % of the first wealth.
    Timing:
        an observation at the close of t uses rows <= t; orders fill at the open of t + 1.
    Costs:
        those of the market profile, on every trade from drifted holdings, entry included.

    Randomness:
        start days and goals follow the seed of `reset`. Without one, each env draws its own; the
        seed of the configuration is for the training of this package.

    Args:
        market: the market or its tensors; the bundled sample if None.
        config: run configuration; the sample's if None.
        level: `macro` or `micro`.
        span: rows that episodes from drawn days may touch; the training span if None.
        partner: policy of the other level; the documented rule if None.
        observation: form of the observation.

    Examples:
        >>> from hrl_sarp.config.loading import load_config
        >>> from hrl_sarp.contracts import DayRange, Split
        >>> from hrl_sarp.known_markets.small_market import market_of_returns
        >>> split = Split(DayRange(0, 90), DayRange(90, 90), DayRange(90, 99))
        >>> market = market_of_returns("two stocks", np.full((99, 2), 0.01), np.arange(2), split)
        >>> config = load_config(market="sample")
        >>> env = HierarchicalEnv(market, config, level="micro")
        >>> observation, info = env.reset(seed=0)
        >>> sorted(observation)
        ['achieved_goal', 'desired_goal', 'observation']
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (gymnasium's own declaration)

    def __init__(
        self,
        market: Market | MarketTensors | None = None,
        config: RunConfig | None = None,
        level: LevelName = "micro",
        span: DayRange | None = None,
        partner: MacroPolicy | MicroPolicy | None = None,
        observation: ObservationForm = "full",
    ) -> None:
        tensors, config = market_and_config(market, config)
        self.form = observation
        self.level = make_level(tensors, config, level, n_envs=1, partner=partner)
        self.starts = make_starts(tensors, config, level, span)
        self.observation_space = self.level.observation_space(observation)
        self.action_space = self.level.action_space
        self._partner_is_default = partner is None
        self._over = True
        if level == "micro" and observation == "full":
            # libraries treat every env with this attribute as one with goal dictionaries
            self.compute_reward = self._hindsight_reward

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; `options={"day": row}` chooses where.

        Args:
            seed: reseeds the draw of start days and goals. Before the first seed the env draws one
                of its own; a partner that was given keeps its own then.
            options: `day` is the row of the market to start at. It takes no draw.

        Returns:
            The first observation, and its day.

        Raises:
            SimulatorError: if no whole episode fits between `day` and the end of the market, or for
                an option of another name.
        """
        is_seeded = self._np_random is not None
        super().reset(seed=seed)
        self.starts.rng = self.np_random
        goals = self.level.partner
        is_own = self._partner_is_default and not is_seeded
        if isinstance(goals, SampledGoal) and (seed is not None or is_own):
            drawn = int(self.np_random.integers(2**63)) if seed is None else seed
            goals.generator.manual_seed(drawn)
        asked = self.starts.asked(options or {})
        day = int(self.starts.draw(1)[0]) if asked is None else asked
        with torch.no_grad():
            self.level.reset(torch.tensor([day]), torch.ones(1, dtype=torch.bool))
        self._over = False
        return self._observe(), {"day": day}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one decision.

        Args:
            action: see the headings of the class.

        Returns:
            Observation, reward, terminated, truncated, and the terms of the reward.

        Raises:
            SimulatorError: after the end of an episode, and for an action that is not finite or of
                another length.
        """
        if self._over:
            raise SimulatorError("step was called after the end of the episode: call reset first")
        given = torch.as_tensor(np.asarray(action), dtype=self.level.tensors.dtype)
        with torch.no_grad():
            reply = self.level.step(given[None])
        info: dict[str, Any] = {name: float(value[0]) for name, value in reply.terms.items()}
        observation, reward = self._observe(), float(reply.reward[0])
        if reply.transition is not None:  # what hindsight replay of other libraries reads
            desired = reply.goal[0].float().cpu().numpy()
            info["followed"] = reply.transition.followed[0].double().tolist()
            reward = float(self._hindsight_reward(observation["achieved_goal"], desired, info))
        terminated, truncated = bool(reply.terminated[0]), bool(reply.truncated[0])
        self._over = terminated or truncated
        return observation, reward, terminated, truncated, info

    def _hindsight_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """Return the micro reward for any goal, for hindsight replay of other libraries."""
        config = self.level.config.micro_agent.reward
        achieved = np.asarray(achieved_goal, np.float64)
        infos = [info] if isinstance(info, dict) else info
        if not all("gain" in each and "followed" in each for each in infos):
            raise SimulatorError(
                "compute_reward: expected the infos of step, found one without 'gain' and "
                "'followed', which the reward needs; with Stable-Baselines3 pass "
                "replay_buffer_kwargs={'copy_info_dict': True}"
            )
        gain, followed = (
            np.array(info[name] if isinstance(info, dict) else [each[name] for each in info])
            for name in ("gain", "followed")
        )
        return micro_reward(gain, achieved, np.asarray(desired_goal, np.float64), config, followed)

    def _observe(self) -> Any:
        observation = self.level.observe(self.form)
        if isinstance(observation, dict):
            return {key: value[0].cpu().numpy() for key, value in observation.items()}
        return observation[0].cpu().numpy()


MacroEnv = partial(HierarchicalEnv, level="macro")
"""One step is an exchange week. The default partner holds equal weights inside each sector."""
MicroEnv = partial(HierarchicalEnv, level="micro")
"""One step is a session. The default partner sets half Dirichlet(1) goals, half 1/N."""


@lru_cache(maxsize=1)
def sample_market() -> tuple[Market, RunConfig]:
    """Assemble the sample in memory with raw node features as its sector table."""
    config = load_config(market="sample")
    market = bundled_sample(config)
    return with_node_features(market, config.macro_agent.graph), config


def market_and_config(
    market: Market | MarketTensors | None, config: RunConfig | None
) -> tuple[MarketTensors, RunConfig]:
    """Return the tensors of a market with its configuration; of the sample where both are None.

    Args:
        market: either form.
        config: of the market.

    Returns:
        What a level is made from.

    Raises:
        MarketError: if one of both is missing.
    """
    if market is None and config is None:
        market, config = sample_market()
    if market is None or config is None:
        raise MarketError("an env needs a market and its config, or neither for the sample")
    return to_tensors(market), config


def to_tensors(market: Market | MarketTensors) -> MarketTensors:
    """Put a market on the CPU in float64; tensors come back as they are.

    Args:
        market: either form.

    Returns:
        Tensors that a level can run on.
    """
    if isinstance(market, MarketTensors):
        return market
    return MarketTensors(market, torch.float64, "cpu")


def make_level(
    tensors: MarketTensors,
    config: RunConfig,
    level: LevelName,
    n_envs: int,
    partner: MacroPolicy | MicroPolicy | None = None,
) -> MacroLevel | MicroLevel:
    """Build a level with its partner: the documented rule where none is given.

    Macro: equal weight inside each sector. Micro: half Dirichlet(1) goals, half 1/N.

    Args:
        tensors: the market.
        config: horizons, rewards, costs and limits.
        level: the one that acts.
        n_envs: B.
        partner: policy of the other level; the rule if None.

    Returns:
        The level, before its first reset.
    """
    if level == "macro":
        micro = partner or FollowGoal(tensors, config.risk)
        horizon = config.macro_agent.ppo.horizon_weeks
        return MacroLevel(tensors, config, n_envs, micro, horizon)  # type: ignore[arg-type]
    share = config.micro_agent.td3.dirichlet_goal_share
    macro = partner or SampledGoal(tensors, share, ProportionalGoal(tensors), config.seed)
    horizon = config.micro_agent.td3.horizon_days
    return MicroLevel(tensors, config, n_envs, macro, horizon)  # type: ignore[arg-type]


def make_starts(
    tensors: MarketTensors, config: RunConfig, level: LevelName, span: DayRange | None
) -> EpisodeStarts:
    """Build the draw of start days for a level.

    Args:
        tensors: the market.
        config: horizons and seed.
        level: weekly or daily horizon.
        span: rows that episodes may touch; the training span if None.

    Returns:
        The draw of start days.
    """
    weekly = level == "macro"
    ppo, td3 = config.macro_agent.ppo, config.micro_agent.td3
    horizon = ppo.horizon_weeks if weekly else td3.horizon_days
    market = tensors.market
    span = span or market.split.train
    return EpisodeStarts(market, span, horizon, weekly=weekly, seed=config.seed)
