"""B envs as one batch for Stable-Baselines3, without a process or a Python loop per env."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn
from torch import Tensor

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, Market
from hrl_sarp.envs.gym_env import LevelName, make_level, make_starts, market_and_config
from hrl_sarp.envs.levels import EpisodeStarts, Level, LevelStep, ObservationForm, as_action
from hrl_sarp.envs.policies import SampledGoal
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.run.session import derive_seed

GOAL_STREAM = 3


class StepInfos(list[dict[str, Any]]):
    """The info dictionaries of a step, one a row, with the step of the level.

    Stable-Baselines3 hands this list to callbacks and algorithms unchanged.
    """

    reply: LevelStep


class PortfolioVecEnv(VecEnv):
    """B environments of one level, stepped as one batch. Finished rows restart automatically.

    Args:
        level: macro or micro mechanics with its partner policy.
        starts: where episodes begin.
        form: `index` for training, `full` for any other library.
        group: number of rows that start on the same day. They differ in portfolio, goal and noise.

    Examples:
        >>> env = PortfolioVecEnv.of("micro", n_envs=3, seed=0)  # the bundled sample
        >>> observation = env.reset()
        >>> observation["desired_goal"].shape
        (3, 15)
        >>> _, rewards, dones, infos = env.step(np.full((3, env.action_space.shape[0]), 0.01))
        >>> rewards.shape
        (3,)
    """

    def __init__(
        self, level: Level, starts: EpisodeStarts, form: ObservationForm = "index", group: int = 1
    ) -> None:
        self.level, self.starts, self.form, self.group = level, starts, form, group
        self._actions: Tensor | None = None
        n_envs = level.clocks.n_envs
        self.episode_return = np.zeros(n_envs)
        self.episode_length = np.zeros(n_envs, dtype=np.int64)
        self.render_mode = None
        super().__init__(n_envs, level.observation_space(form), level.action_space)

    @classmethod
    def of(
        cls,
        level: LevelName,
        n_envs: int,
        market: Market | MarketTensors | None = None,
        config: RunConfig | None = None,
        span: DayRange | None = None,
        form: ObservationForm = "full",
        seed: int | None = None,
    ) -> "PortfolioVecEnv":
        """Build a batch for any library, with the rule that is documented as the partner.

        Args:
            level: the one that acts.
            n_envs: B.
            market: the market or its tensors; the bundled sample if it and `config` are None.
            config: run configuration of the market.
            span: rows that episodes may touch; the training span if None.
            form: of the observations.
            seed: of start days and goals; drawn anew if None.

        Returns:
            The batch, before its first reset.

        Raises:
            MarketError: if one of market and configuration is missing, or no episode fits.
        """
        tensors, chosen = market_and_config(market, config)
        made = make_level(tensors, chosen, level, n_envs)
        env = cls(made, make_starts(tensors, chosen, level, span), form)
        env.seed(int(np.random.default_rng().integers(2**31)) if seed is None else seed)
        return env

    def reset(self) -> VecEnvObs:
        """Start an episode in every row, at the day that `set_options` asked for if it did.

        Returns:
            The first observations.

        Raises:
            SimulatorError: for a day from which no whole episode fits into the market.
        """
        asked = [self.starts.asked(options) for options in self._options]
        with torch.no_grad():
            self._restart(torch.ones(self.num_envs, dtype=torch.bool), asked)
        self._reset_options()
        self.episode_return[:], self.episode_length[:] = 0.0, 0
        self.reset_infos = [{} for _ in range(self.num_envs)]
        return self._numpy(self.level.observe(self.form))

    def step_async(self, actions: Any) -> None:
        """Remember the actions.

        Args:
            actions: one row a portfolio; an array, a list or a tensor.
        """
        self._actions = as_action(actions, self.level.tensors.device)

    def step_wait(self) -> VecEnvStepReturn:
        """Step all rows. Rows that end restart, and their infos hold the last observation.

        Returns:
            Observations, rewards, ends, and `StepInfos` with the reply of the level.

        Raises:
            RuntimeError: if `step_async` was not called before.
            SimulatorError: for actions that are not finite or of another shape.
        """
        if self._actions is None:
            raise RuntimeError("step_wait was called before step_async")
        with torch.no_grad():
            step = self.level.step(self._actions.to(self.level.tensors.dtype))
            observation = self._numpy(self.level.observe(self.form))
            done = step.terminated | step.truncated
            reward = step.reward.cpu().numpy()
            self.episode_return += reward
            self.episode_length += 1
            infos = StepInfos({} for _ in range(self.num_envs))
            infos.reply = step
            if bool(done.any()):
                self._close_episodes(step, observation, infos)
                self._restart(done)
                observation = self._numpy(self.level.observe(self.form))
        return observation, reward.astype(np.float32), done.cpu().numpy(), infos

    def _close_episodes(
        self, step: LevelStep, observation: Any, infos: list[dict[str, Any]]
    ) -> None:
        truncated = step.truncated.cpu().numpy()
        for row in np.flatnonzero((step.terminated | step.truncated).cpu().numpy()).tolist():
            infos[row]["terminal_observation"] = _row(observation, row)
            infos[row]["TimeLimit.truncated"] = bool(truncated[row])
            infos[row]["episode"] = {
                "r": float(self.episode_return[row]),
                "l": int(self.episode_length[row]),
                "t": 0.0,
            }
            self.episode_return[row] = 0.0
            self.episode_length[row] = 0

    def _restart(self, rows: Tensor, asked: Sequence[int | None] = ()) -> None:
        if asked and None not in asked:
            days = np.asarray(asked)
        else:
            days = np.repeat(self.starts.draw(self.num_envs // self.group), self.group)
            for row, day in enumerate(asked):
                days[row] = days[row] if day is None else day
        device = self.level.tensors.device
        self.level.reset(torch.as_tensor(days, device=device), rows.to(device))

    @staticmethod
    def _numpy(observation: Any) -> Any:
        if isinstance(observation, dict):
            return {key: value.cpu().numpy() for key, value in observation.items()}
        return observation.cpu().numpy()

    def state_dict(self) -> dict[str, Any]:
        """Return all that a bit-identical continuation needs.

        Returns:
            Plain values and tensors.
        """
        state = {
            "level": {"clocks": self.level.clocks.state_dict()},
            "starts": self.starts.state_dict(),
            "episode_return": self.episode_return.tolist(),
            "episode_length": self.episode_length.tolist(),
        }
        if isinstance(self.level.partner, SampledGoal):
            state["partner"] = self.level.partner.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`.

        Args:
            state: of an env of the same market and batch.
        """
        self.level.clocks.load_state_dict(state["level"]["clocks"])
        self.starts.load_state_dict(state["starts"])
        self.episode_return = np.asarray(state["episode_return"])
        self.episode_length = np.asarray(state["episode_length"])
        if isinstance(self.level.partner, SampledGoal):
            self.level.partner.load_state_dict(state["partner"])

    def close(self) -> None:
        """Nothing to free."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return the attribute of the one object that all rows share, once per row.

        Args:
            attr_name: of this object.
            indices: rows; all if None.

        Returns:
            The value, once per row.
        """
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set the attribute of the batch.

        Args:
            attr_name: of this object.
            value: for all rows.
            indices: ignored: rows share one object.
        """
        setattr(self, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call a method of the batch once; the result is repeated per row.

        Args:
            method_name: of this object.
            method_args: handed on.
            indices: rows; all if None.
            kwargs: handed on.

        Returns:
            The result, once per row.
        """
        result = getattr(self, method_name)(*method_args, **kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """Rows are never wrapped.

        Args:
            wrapper_class: ignored.
            indices: rows; all if None.

        Returns:
            False for each row.
        """
        return [False for _ in self._get_indices(indices)]

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Reseed the draw of start days and of goals.

        Args:
            seed: None changes nothing.

        Returns:
            The seed, once per row.
        """
        if seed is not None:
            self.starts.rng = np.random.default_rng(seed)
            if isinstance(self.level.partner, SampledGoal):
                # Stable-Baselines3 seeds the global generator with the same number
                self.level.partner.generator.manual_seed(derive_seed(seed, GOAL_STREAM))
        return [seed] * self.num_envs


def _row(observation: Any, row: int) -> Any:
    if isinstance(observation, dict):
        return {key: value[row] for key, value in observation.items()}
    return observation[row]
