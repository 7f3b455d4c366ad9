"""Replay buffer of executed weights, whose goals are relabelled in hindsight when sampled.

A new goal is one that this transition, or an independent one, achieved. Goals from later steps of
the same episode (`future`, `final`) would put later returns into the observation.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float
from stable_baselines3.common.buffers import BaseBuffer
from torch import Tensor

from hrl_sarp.config.objective_schema import MicroRewardConfig
from hrl_sarp.config.schema import TD3Config
from hrl_sarp.envs.levels import MicroTransition
from hrl_sarp.envs.rewards import micro_reward


@dataclass(frozen=True)
class MicroBatch:
    """B transitions, B = days x rows per day."""

    observation: dict[str, Tensor]
    next_observation: dict[str, Tensor]
    executed: Float[Tensor, "B N"]
    reward: Float[Tensor, " B"]
    terminated: Float[Tensor, " B"]


class HindsightBuffer(BaseBuffer):
    """A ring buffer of vectorised steps. It stores days instead of market rows.

    The first `n_sectors` entries of a goal are relabelled; the regime entries stay.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "cpu",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,  # noqa: FBT001, FBT002  (Stable-Baselines3's signature)
        *,
        td3: TD3Config,
        reward: MicroRewardConfig,
        n_sectors: int,
        is_risk: bool,
    ) -> None:
        self.n_steps = max(buffer_size // n_envs, 1)
        super().__init__(self.n_steps, observation_space, action_space, device, n_envs)
        del optimize_memory_usage
        self.td3, self.reward, self.n_sectors = td3, reward, n_sectors
        portfolio = observation_space["portfolio"].shape[0]  # type: ignore[index]
        goal = observation_space["desired_goal"].shape[0]  # type: ignore[index]
        shape = (self.n_steps, n_envs)
        self.arrays: dict[str, np.ndarray] = {
            "day": np.zeros(shape, np.int32),
            "portfolio": np.zeros((*shape, portfolio), np.float32),
            "next_portfolio": np.zeros((*shape, portfolio), np.float32),
            "desired": np.zeros((*shape, goal), np.float32),
            "next_desired": np.zeros((*shape, goal), np.float32),
            "executed": np.zeros((*shape, self.action_dim), np.float32),
            "achieved": np.zeros((*shape, n_sectors), np.float32),
            "gain": np.zeros(shape, np.float32),
            **({"followed": np.zeros((*shape, n_sectors), np.float32)} if is_risk else {}),
            "terminated": np.zeros(shape, np.bool_),
            "renewed": np.zeros(shape, np.bool_),
        }
        self.rng = np.random.default_rng(0)

    def bytes_per_transition(self) -> float:
        """Memory of one stored transition."""
        total = sum(array.nbytes for array in self.arrays.values())
        return total / (self.n_steps * self.n_envs)

    def add(
        self,
        observation: dict[str, np.ndarray],
        next_portfolio: np.ndarray,
        transition: MicroTransition,
        terminated: np.ndarray,
    ) -> None:
        """Store a step of all environments; one that ended stores its last portfolio."""
        row = {
            "day": observation["day"][:, 0],
            "portfolio": observation["portfolio"],
            "next_portfolio": next_portfolio,
            "desired": observation["desired_goal"],
            "next_desired": transition.next_desired.cpu().numpy(),
            "executed": transition.executed.cpu().numpy(),
            "achieved": transition.achieved.cpu().numpy(),
            "gain": transition.gain.cpu().numpy(),
            "followed": transition.followed.cpu().numpy(),
            "terminated": terminated,
            "renewed": transition.renewed.cpu().numpy(),
        }
        for name, array in self.arrays.items():
            array[self.pos] = row[name]
        self.pos = (self.pos + 1) % self.n_steps
        self.full = self.full or self.pos == 0

    def sample_batch(self) -> MicroBatch:
        """Draw `batch_days` groups of `batch_per_day` rows that share their day.

        A share of their goals is relabelled.
        """
        size = self.n_steps if self.full else self.pos
        per_group = self.td3.batch_per_day
        steps = np.repeat(self.rng.integers(size, size=self.td3.batch_days), per_group)
        groups = self.rng.integers(self.n_envs // per_group, size=self.td3.batch_days)
        envs = (groups[:, None] * per_group + np.arange(per_group)).ravel()
        rows = {name: array[steps, envs] for name, array in self.arrays.items()}
        desired, next_desired = self._relabel(rows)
        achieved = np.concatenate([rows["achieved"], desired[:, self.n_sectors :]], axis=1)
        gain, followed = rows["gain"], rows.get("followed")
        reward = micro_reward(gain, achieved, desired, self.reward, followed)
        day = rows["day"].astype(np.int64)
        return MicroBatch(
            observation=self._observation(day, rows["portfolio"], desired),
            next_observation=self._observation(day + 1, rows["next_portfolio"], next_desired),
            executed=self.to_torch(rows["executed"]),
            reward=self.to_torch(reward.astype(np.float32)),
            terminated=self.to_torch(rows["terminated"].astype(np.float32)),
        )

    def _relabel(self, rows: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return desired goals now and next. Across a week boundary the next goal is kept."""
        n = len(rows["day"])
        size = self.n_steps if self.full else self.pos
        other = self.arrays["achieved"][
            self.rng.integers(size, size=n), self.rng.integers(self.n_envs, size=n)
        ]
        use_current = self.rng.random(n) < self.td3.current_goal_share
        goal = np.where(use_current[:, None], rows["achieved"], other)
        # an all-cash portfolio achieved no sector weights, so it gives no goal
        chosen = (self.rng.random(n) < self.td3.hindsight_share) & (goal.sum(axis=1) > 0.5)
        desired, next_desired = rows["desired"].copy(), rows["next_desired"].copy()
        cut = self.n_sectors
        desired[chosen, :cut] = goal[chosen]
        kept = chosen & ~rows["renewed"]
        next_desired[kept, :cut] = goal[kept]
        return desired, next_desired

    def _observation(
        self, day: np.ndarray, portfolio: np.ndarray, desired: np.ndarray
    ) -> dict[str, Tensor]:
        arrays = {"day": day[:, None], "portfolio": portfolio, "desired_goal": desired}
        return {key: self.to_torch(value) for key, value in arrays.items()}

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> Any:
        """Refuse Stable-Baselines3's sampling by position: this buffer samples by day."""
        raise TypeError("call sample_batch: hindsight batches are drawn by day")

    def state_dict(self) -> dict[str, Any]:
        """Return the filled part, the position and the generator."""
        size = self.n_steps if self.full else self.pos
        arrays = {name: torch.from_numpy(array[:size]) for name, array in self.arrays.items()}
        state = self.rng.bit_generator.state
        return {"arrays": arrays, "pos": self.pos, "full": self.full, "rng": state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        for name, values in state["arrays"].items():
            self.arrays[name][: len(values)] = values.numpy()
        self.pos, self.full = state["pos"], state["full"]
        self.rng.bit_generator.state = state["rng"]
