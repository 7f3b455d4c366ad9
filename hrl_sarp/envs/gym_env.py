"""A Gymnasium env for either level: the agent acts on one, a partner policy on the other."""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, Literal, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import REGIME_NAMES, DayRange, Goal, Market
from hrl_sarp.envs.levels import (
    EpisodeStarts,
    Level,
    MacroLevel,
    MicroLevel,
    ObservationForm,
    as_action,
    check_action,
)
from hrl_sarp.envs.observations import (
    goal_names,
    macro_inputs,
    macro_names,
    micro_inputs,
    micro_names,
    slot_names,
)
from hrl_sarp.envs.policies import (
    FollowGoal,
    MacroPolicy,
    MicroPolicy,
    Observation,
    ProportionalGoal,
    SampledGoal,
)
from hrl_sarp.envs.rewards import micro_reward
from hrl_sarp.envs.rollout import HierarchicalPolicy
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
            goals.generator.manual_seed(drawn % 2**63)  # torch takes no longer ones
        asked = self.starts.asked(options or {})
        day = int(self.starts.draw(1)[0]) if asked is None else asked
        with torch.no_grad():
            self.level.reset(torch.tensor([day]), torch.ones(1, dtype=torch.bool))
        self._over = False
        return self._observe(), {"day": day}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one decision.

        Args:
            action: see the headings of the class.

        Returns:
            Observation, reward, terminated, truncated, and the terms of the reward.

        Raises:
            SimulatorError: after the end of an episode, and for an action that is no numbers, not
                finite or of another length.
        """
        if self._over:
            raise SimulatorError("step was called after the end of the episode: call reset first")
        tensors = self.level.tensors
        given = as_action(action, tensors.device).to(tensors.dtype)
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
    return starts_in(tensors.market, config, level, span)


def starts_in(
    market: Market, config: RunConfig, level: LevelName, span: DayRange | None
) -> EpisodeStarts:
    """Build the draw of start days for a level of a market that is on no device yet.

    Args:
        market: in memory.
        config: horizons and seed.
        level: weekly or daily horizon.
        span: rows that episodes may touch; the training span if None.

    Returns:
        The draw of start days.

    Raises:
        MarketError: if no episode fits into the span.
    """
    weekly = level == "macro"
    ppo, td3 = config.macro_agent.ppo, config.micro_agent.td3
    horizon = ppo.horizon_weeks if weekly else td3.horizon_days
    span = span or market.split.train
    return EpisodeStarts(market, span, horizon, weekly=weekly, seed=config.seed)


def observation_table(env: Any) -> pl.DataFrame:
    """Name every number that an env shows and takes.

    Args:
        env: of this package, as it is or wrapped, single or a batch.

    Returns:
        A row for each number: `array` (`observation`, `desired_goal`, `achieved_goal` or `action`),
        `position` in it from 0 on, `part` and `name`. A goal has the same names wherever it occurs.

    Raises:
        SimulatorError: for an env of another package.

    Examples:
        >>> from hrl_sarp.envs import PortfolioVecEnv
        >>> table = observation_table(PortfolioVecEnv.of("macro", n_envs=2))
        >>> table.filter(array="action")["name"][11]
        'share of wealth in cash'
    """
    level = level_of(env)
    goal = goal_names(level.tensors, REGIME_NAMES[level.config.objective.kind])
    if isinstance(level, MacroLevel):
        arrays = {"observation": macro_names(level.tensors), "action": goal}
    else:
        arrays = {"observation": micro_names(level.tensors), "desired_goal": goal}
        arrays |= {"achieved_goal": goal, "action": slot_names(level.tensors)}
    rows = [
        (array, position, part, name)
        for array, names in arrays.items()
        for position, (part, name) in enumerate(names)
    ]
    return pl.DataFrame(rows, ("array", "position", "part", "name"), orient="row")


def level_of(env: Any) -> Level:
    """Find the level below the wrappers of an env; of the first one in a vector of envs."""
    bare = getattr(env, "unwrapped", env)
    found = getattr(bare, "level", None)
    if found is None and getattr(bare, "envs", None):  # DummyVecEnv, SyncVectorEnv
        found = getattr(bare.envs[0].unwrapped, "level", None)
    if not isinstance(found, MacroLevel | MicroLevel):
        raise SimulatorError(
            f"expected an env of this package, found {type(env).__name__}; make one with "
            "PortfolioVecEnv.of(...) or gymnasium.make('hrl_sarp.envs:hrl_sarp/Macro-v0')"
        )
    return found


@runtime_checkable
class Predictor(Protocol):
    """An agent of another library: `predict` is what Stable-Baselines3 calls its decision.

    Examples:
        >>> class Even:
        ...     def predict(self, observation, *, deterministic=False):
        ...         return np.full((len(observation), 15), 0.1), None
    """

    def predict(self, observation: Any, *, deterministic: bool = False) -> tuple[Any, Any]:
        """Decide for a batch.

        Args:
            observation: full observations as the env shows them, one row a portfolio.
            deterministic: True in a backtest.

        Returns:
            One action a row, and a state that is not used.
        """


class LibraryPolicy(HierarchicalPolicy):
    """An agent of another library as a policy that can be backtested, with its partner.

    It shows the agent the full observations that its env showed, and reads the actions as the env
    did.

    Args:
        model: decides for the level of the env.
        level: that the model was trained on.
        name: in tables and legends.
        partner: policy of the other level.
    """

    def __init__(
        self, model: Predictor, level: Level, name: str, partner: MacroPolicy | MicroPolicy
    ) -> None:
        self._model, self._level = model, level
        is_macro = isinstance(level, MacroLevel)
        pair: tuple[Any, Any] = (self, partner) if is_macro else (partner, self)
        super().__init__(name, *pair)

    def prepare(self, tensors: MarketTensors, spans: Sequence[DayRange]) -> None:
        """Refuse another market than the one that the env reads; called before a rollout."""
        own, given = self._level.tensors.market, tensors.market
        same = own.symbols == given.symbols and np.array_equal(own.dates, given.dates)
        if not same or not np.array_equal(own.slots, given.slots):
            found, expected = (
                f"'{market.name}' with {market.n_assets} stocks and {market.n_days} sessions from "
                f"{market.dates[0]} on"
                for market in (given, own)
            )
            raise SimulatorError(
                f"policy '{self.name}': its env reads the market {expected}, the backtest {found}; "
                "make env and backtest from one market"
            )

    def goal(self, observation: Observation) -> Goal:
        """Ask the model for goals; they are read as the env reads its actions."""
        level: Any = self._level
        action = self._act(macro_inputs(level.tensors, observation).flatten().cpu().numpy())
        return level.goal_of(action, observation["day"].long().flatten())

    def target(self, observation: Observation) -> Float[Tensor, "B N"]:
        """Ask the model for target weights, before the limits."""
        shown = micro_inputs(self._level.tensors, observation).flatten()
        goals = {name: observation[name] for name in ("achieved_goal", "desired_goal")}
        arrays = {"observation": shown, **goals}
        return self._act({name: values.cpu().numpy() for name, values in arrays.items()})

    def _act(self, observation: Any) -> Tensor:
        given, _ = self._model.predict(observation, deterministic=True)
        action = torch.as_tensor(np.asarray(given), dtype=self._level.tensors.dtype)
        rows = observation["observation"] if isinstance(observation, dict) else observation
        check_action(action, len(rows), self._level.action_space)
        return action


def policy_of(
    model: Predictor,
    env: Any,
    name: str = "library agent",
    partner: MacroPolicy | MicroPolicy | None = None,
) -> LibraryPolicy:
    """Turn an agent of another library into a policy for `hrl_sarp.backtest`.

    Args:
        model: with `predict`, as those of Stable-Baselines3. A model that was trained on normalised
            observations has to normalise them itself.
        env: that it was trained on, or one like it; its level, market and limits are read.
        name: in tables and legends.
        partner: policy of the other level. None takes that of the env; of goals that an env draws
            at random, the rule that they are mixed with (1/N).

    Returns:
        The pair of the model and its partner.

    Raises:
        SimulatorError: for an env of another package.

    Examples:
        >>> from stable_baselines3 import PPO
        >>> from hrl_sarp.envs import PortfolioVecEnv
        >>> env = PortfolioVecEnv.of("macro", n_envs=2, seed=0)
        >>> model = PPO("MlpPolicy", env, n_steps=2, batch_size=4, device="cpu").learn(4)
        >>> policy_of(model, env, "stock PPO").name
        'stock PPO'
    """
    level = level_of(env)
    given = partner or level.partner
    rule = given.policy if isinstance(given, SampledGoal) else given
    return LibraryPolicy(model, level, name, rule)
