"""The daily (micro) agent."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hrl_sarp.agents.files import (
    load_agent,
    networks_of,
    save_agent,
    set_networks,
)
from hrl_sarp.agents.td3.algorithm import MicroTD3, WeightActorCritic
from hrl_sarp.agents.td3.hindsight import HindsightBuffer
from hrl_sarp.agents.td3.networks import (
    MicroSettings,
    TwinCritic,
    WeightActor,
)
from hrl_sarp.config.schema import TD3Config
from hrl_sarp.envs.vectorized import PortfolioVecEnv


class MicroAgent:
    """The daily agent: it chooses target weights, learns by TD3, and is saved and loaded.

    Args:
        settings: market, network sizes, limits and costs.
        seed: of the networks' initial values.

    Examples:
        >>> from hrl_sarp.config.loading import load_config
        >>> from hrl_sarp.known_markets.reachable_goals import goal_market
        >>> from hrl_sarp.known_markets.small_market import on_cpu
        >>> tensors, config = on_cpu(goal_market(20)), load_config(market="synthetic")
        >>> agent = MicroAgent(MicroSettings(tensors, config), seed=1)
        >>> index = {"day": torch.tensor([[5]]), "portfolio": torch.zeros(1, tensors.n_slots + 4)}
        >>> index["desired_goal"] = torch.ones(1, tensors.n_sectors + 4) / tensors.n_sectors
        >>> agent.target(index).shape == (1, tensors.n_slots)
        True
    """

    kind = "micro"

    def __init__(self, settings: MicroSettings, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.tensors = settings.tensors
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = WeightActor(settings).to(self.tensors.device).eval()
            self.critic = TwinCritic(settings).to(self.tensors.device).eval()

    @torch.no_grad()
    def target(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Return deterministic target weights for index observations.

        Args:
            observation: `day`, `portfolio` and `desired_goal` of B decisions.

        Returns:
            Weights (B, N) of the day's slots, on the market's device.
        """
        weights: Tensor = self.actor(observation)
        return weights

    def act(self, observation: Mapping[str, Any], deterministic: bool = True) -> np.ndarray:  # noqa: FBT001, FBT002
        """Return target weights (B, N) for observations of either form, with a batch axis.

        The policy is deterministic. Only training adds exploration noise.

        Args:
            observation: index observation or flat arrays, with a batch axis.
            deterministic: not used.

        Returns:
            Weights (B, N).
        """
        device = self.tensors.device
        tensors = {k: torch.as_tensor(v, device=device) for k, v in observation.items()}
        weights: np.ndarray = self.target(tensors).cpu().numpy()
        return weights

    def algorithm(self, env: PortfolioVecEnv, td3: TD3Config) -> MicroTD3:
        """Build TD3 on `env` that starts from this agent's networks.

        Args:
            env: batch of daily environments.
            td3: section `micro_agent.td3`.

        Returns:
            The algorithm; it trains copies of the networks.
        """
        buffer = {
            "td3": td3,
            "reward": self.settings.config.reward,
            "n_sectors": self.tensors.n_sectors,
            "is_risk": self.settings.is_risk,
        }
        algorithm = MicroTD3(
            WeightActorCritic,
            env,
            learning_rate=td3.learning_rate,
            buffer_size=td3.buffer_size,
            learning_starts=td3.learning_starts,
            tau=td3.tau,
            gamma=td3.gamma,
            train_freq=1,
            gradient_steps=td3.n_envs // td3.env_steps_per_update,
            replay_buffer_class=HindsightBuffer,  # type: ignore[arg-type]
            replay_buffer_kwargs=buffer,
            policy_delay=td3.policy_delay,
            target_policy_noise=td3.target_noise,
            target_noise_clip=td3.target_noise_clip,
            policy_kwargs={"settings": self.settings, "optimizer_kwargs": {"fused": True}},
            seed=self.seed,
            device=self.tensors.device,
        )
        for name in ("actor", "actor_target"):
            getattr(algorithm.policy, name).load_state_dict(self.actor.state_dict())
        for name in ("critic", "critic_target"):
            getattr(algorithm.policy, name).load_state_dict(self.critic.state_dict())
        return algorithm.configure(td3, self.seed)

    def adopt(self, algorithm: MicroTD3) -> "MicroAgent":
        """Take over TD3's target networks, the running averages of those that it trains.

        The trained actor follows a noisy critic. The average is smoother.

        Args:
            algorithm: that `algorithm` built.

        Returns:
            This agent.
        """
        self.actor.load_state_dict(algorithm.policy.actor_target.state_dict())
        self.critic.load_state_dict(algorithm.policy.critic_target.state_dict())
        return self

    def on(self, settings: MicroSettings) -> "MicroAgent":
        """Return this agent reading another market of the same columns and sectors.

        Args:
            settings: of the other market.

        Returns:
            A copy with the same networks.
        """
        return set_networks(MicroAgent(settings, self.seed), networks_of(self))

    def learn(
        self, env: PortfolioVecEnv, total_timesteps: int, callback: Any = None
    ) -> "MicroAgent":
        """Train with TD3 and hindsight on `env` for a number of daily steps.

        Args:
            env: batch of daily environments.
            total_timesteps: steps over all environments.
            callback: of Stable-Baselines3.

        Returns:
            This agent, trained.
        """
        algorithm = self.algorithm(env, self.settings.config.td3)
        algorithm.learn(total_timesteps, callback)
        return self.adopt(algorithm)

    def save(self, path: Path) -> Path:
        """Write the agent; opening the file never runs code.

        Args:
            path: of the file.

        Returns:
            The path.
        """
        return save_agent(path, self)

    @classmethod
    def load(cls, path: Path, settings: MicroSettings) -> "MicroAgent":
        """Read an agent for this market.

        Args:
            path: of the file.
            settings: of the market it is to act on.

        Returns:
            The agent.

        Raises:
            CheckpointError: if the file is damaged or belongs to other shapes or another market.
        """
        return load_agent(path, cls(settings, seed=0))
