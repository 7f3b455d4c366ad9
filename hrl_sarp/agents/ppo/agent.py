"""The weekly (macro) agent."""

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
from hrl_sarp.agents.ppo.algorithm import DirichletActorCritic, MacroPPO
from hrl_sarp.agents.ppo.networks import MacroDecision, macro_networks
from hrl_sarp.config.schema import PPOConfig, RunConfig
from hrl_sarp.contracts import Goal
from hrl_sarp.envs.observations import MacroInputs, macro_inputs, macro_sizes
from hrl_sarp.envs.vectorized import PortfolioVecEnv
from hrl_sarp.market.tensors import MarketTensors


class MacroAgent:
    """The weekly agent: it sets goals, learns by PPO, and is saved and loaded.

    Args:
        tensors: the market, with a sector table.
        config: of the run.
        seed: of the networks' initial values.

    Examples:
        >>> from hrl_sarp.config.loading import load_config
        >>> from hrl_sarp.known_markets.reachable_goals import goal_market
        >>> from hrl_sarp.known_markets.small_market import on_cpu
        >>> tensors, config = on_cpu(goal_market(20)), load_config(market="synthetic")
        >>> agent = MacroAgent(tensors, config, seed=1)
        >>> index = {"day": torch.tensor([[5]]), "portfolio": torch.zeros(1, tensors.n_sectors + 3)}
        >>> float(agent.goal(index).sector_weights.sum().round(decimals=3))
        1.0
    """

    kind = "macro"

    def __init__(self, tensors: MarketTensors, config: RunConfig, seed: int) -> None:
        self.tensors, self.config, self.seed = tensors, config, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            actor, critic = macro_networks(tensors, config)
        self.actor = actor.to(tensors.device).eval()
        self.critic = critic.to(tensors.device).eval()

    @torch.no_grad()
    def goal(self, observation: Mapping[str, Tensor]) -> Goal:
        """Return the deterministic goal: the policy's centre and the regime head's probabilities.

        Args:
            observation: `day` and `portfolio` of B decisions.

        Returns:
            Sector weights (B, S), cash (B,) and regime probabilities (B, R), on the market's
            device.
        """
        decision: MacroDecision = self.actor(macro_inputs(self.tensors, observation))
        return decision.goal(decision.shares.centre)

    @torch.no_grad()
    def act(self, observation: Any, deterministic: bool = True) -> np.ndarray:  # noqa: FBT001, FBT002
        """Return actions (B, G) for observations of either form, as arrays with a batch axis.

        Args:
            observation: index observation (a mapping) or flat rows, with a batch axis.
            deterministic: take the centre instead of a draw.

        Returns:
            Goals (B, G): sector weights, cash, then regime probabilities.
        """
        if isinstance(observation, Mapping):
            device = self.tensors.device
            index = {k: torch.as_tensor(v, device=device) for k, v in observation.items()}
            inputs = macro_inputs(self.tensors, index)
        else:
            width, _ = macro_sizes(self.tensors)
            flat = torch.as_tensor(observation, device=self.tensors.device)
            inputs = MacroInputs.unflatten(flat, self.tensors.n_sectors, width)
        decision: MacroDecision = self.actor(inputs)
        shares = decision.shares
        chosen = shares.centre if deterministic else shares.sample()
        return np.asarray(decision.goal(chosen).to_vector().cpu())

    def algorithm(self, env: PortfolioVecEnv, ppo: PPOConfig) -> MacroPPO:
        """Build PPO on `env` that starts from this agent's networks.

        Args:
            env: batch of weekly environments.
            ppo: section `macro_agent.ppo`.

        Returns:
            The algorithm; it trains copies of the networks.
        """
        algorithm = MacroPPO(
            DirichletActorCritic,
            env,
            learning_rate=ppo.learning_rate,
            n_steps=ppo.n_steps,
            batch_size=ppo.batch_size,
            n_epochs=ppo.n_epochs,
            gamma=ppo.gamma,
            gae_lambda=ppo.gae_lambda,
            clip_range=ppo.clip_range,
            ent_coef=ppo.ent_coef,
            vf_coef=ppo.vf_coef,
            max_grad_norm=ppo.max_grad_norm,
            policy_kwargs={"tensors": self.tensors, "config": self.config},
            seed=self.seed,
            device=self.tensors.device,
        )
        algorithm.critic_warmup_steps = ppo.critic_warmup_steps
        algorithm.policy.actor.load_state_dict(self.actor.state_dict())
        algorithm.policy.critic.load_state_dict(self.critic.state_dict())
        return algorithm

    def adopt(self, algorithm: MacroPPO) -> "MacroAgent":
        """Take over the networks that PPO has trained.

        Args:
            algorithm: that `algorithm` built.

        Returns:
            This agent.
        """
        self.actor.load_state_dict(algorithm.policy.actor.state_dict())
        self.critic.load_state_dict(algorithm.policy.critic.state_dict())
        return self

    def on(self, tensors: MarketTensors) -> "MacroAgent":
        """Return this agent reading another market of the same columns and sectors.

        Args:
            tensors: the other market, with a sector table.

        Returns:
            A copy with the same networks.
        """
        return set_networks(MacroAgent(tensors, self.config, self.seed), networks_of(self))

    def learn(
        self, env: PortfolioVecEnv, total_timesteps: int, callback: Any = None
    ) -> "MacroAgent":
        """Train with PPO on `env` for a number of weekly steps.

        Args:
            env: batch of weekly environments.
            total_timesteps: steps over all environments.
            callback: of Stable-Baselines3.

        Returns:
            This agent, trained.
        """
        algorithm = self.algorithm(env, self.config.macro_agent.ppo)
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
    def load(cls, path: Path, tensors: MarketTensors, config: RunConfig) -> "MacroAgent":
        """Read an agent for this market.

        Args:
            path: of the file.
            tensors: the market it is to act on, with a sector table.
            config: of the run, with the same network sizes.

        Returns:
            The agent.

        Raises:
            CheckpointError: if the file is damaged or belongs to other shapes or another market.
        """
        return load_agent(path, cls(tensors, config, seed=0))
