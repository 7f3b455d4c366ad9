"""The weekly agent: Stable-Baselines3's PPO, a Dirichlet policy, a supervised regime head."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

from hrl_sarp.agents.files import (
    load_agent,
    networks_of,
    require_finite,
    save_agent,
    set_networks,
)
from hrl_sarp.agents.layers import set_dropout
from hrl_sarp.agents.measures import (
    GradientNorms,
    as_numbers,
    dirichlet_measures,
    goal_measures,
    spread,
)
from hrl_sarp.agents.ppo.networks import MacroActor, MacroCritic, SectorDirichlet
from hrl_sarp.config.schema import MacroAgentConfig, PPOConfig
from hrl_sarp.contracts import Goal
from hrl_sarp.envs.observations import MacroInputs, macro_inputs, macro_sizes
from hrl_sarp.envs.vectorized import PortfolioVecEnv
from hrl_sarp.market.tensors import MarketTensors

MacroSizes = tuple[int, int, int]
MEASURED_ROWS = 64
"""About as many decisions of a rollout say what the policy does."""
MEASURE_EVERY = 4
"""Rollouts between two looks at gradients and policy: at every one they cost a few percent."""


class DirichletActorCritic(ActorCriticPolicy):
    """Actor and critic over sectors; an action is sector shares, then regime probabilities.

    The regime entries come from a head that phase 1 trains and PPO never moves: they are part of
    the action only so that the goal has one vector.
    """

    def __init__(self, *args: Any, tensors: MarketTensors, config: MacroAgentConfig, **kw: Any):
        self.tensors, self._config = tensors, config  # plain attributes: never copied or saved
        super().__init__(*args, **kw)

    def _build(self, lr_schedule: Any) -> None:
        sizes = macro_network_sizes(self.tensors)
        self.actor = MacroActor(sizes, self._config.network)
        self.critic = MacroCritic(sizes, self._config.network)
        set_dropout(self, 0.0)  # else log-probabilities would differ between rollout and update
        self.actor.regime.requires_grad_(requires_grad=False)
        trained = [p for p in self.parameters() if p.requires_grad]
        make_optimizer: Any = self.optimizer_class
        self.optimizer = make_optimizer(trained, lr=lr_schedule(1), **self.optimizer_kwargs)

    def inputs(self, observation: Any) -> MacroInputs:
        """Read an observation of either form."""
        tensors = self.tensors
        if isinstance(observation, Mapping):
            return macro_inputs(tensors, observation)
        width, _ = macro_sizes(tensors)
        return MacroInputs.unflatten(observation.float(), tensors.n_sectors, width)

    def distribution(self, inputs: MacroInputs) -> tuple[SectorDirichlet, Tensor]:
        """Return the distribution of sector shares and the regime probabilities."""
        shares, regime = self.actor(inputs.sectors, inputs.context, inputs.listed)
        return shares, torch.softmax(regime, dim=1)

    def forward(self, obs: Any, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:  # noqa: FBT001, FBT002
        """Return actions, values and log-probabilities."""
        inputs = self.inputs(obs)
        shares, regime = self.distribution(inputs)
        chosen = shares.mode if deterministic else shares.sample()
        value = self.critic(inputs.sectors, inputs.context, inputs.listed)
        return torch.cat([chosen, regime], dim=1), value, shares.log_prob(chosen)

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values, log-probabilities of the sector shares and entropies."""
        inputs = self.inputs(obs)
        shares, _ = self.distribution(inputs)
        value = self.critic(inputs.sectors, inputs.context, inputs.listed)
        chosen = Goal.from_vector(actions).sector_weights
        return value, shares.log_prob(chosen), shares.entropy()

    def predict_values(self, obs: Any) -> Tensor:
        """Return values."""
        inputs = self.inputs(obs)
        value: Tensor = self.critic(inputs.sectors, inputs.context, inputs.listed)
        return value

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:  # noqa: FBT001, FBT002
        return self.forward(observation, deterministic)[0]


class MacroPPO(PPO):
    """PPO whose critic warms up before the actor moves; a loss that is not finite stops it."""

    policy: DirichletActorCritic
    critic_warmup_steps: int = 0

    def train(self) -> None:
        """Update from the current rollout."""
        rollout: Any = self.rollout_buffer
        days = rollout.observations["day"][..., 0]
        rollout.advantages = compare_on_same_day(rollout.advantages, days)
        warming = self.num_timesteps <= self.critic_warmup_steps
        frozen = [p for p in self.policy.actor.parameters() if p.requires_grad] if warming else []
        for parameter in frozen:
            parameter.requires_grad = False
            parameter.grad = None  # else Adam would apply the last one again
        parts = {"actor": self.policy.actor, "critic": self.policy.critic}
        is_measured = self._n_updates // self.n_epochs % MEASURE_EVERY == 0
        watched = parts.items() if is_measured else ()
        with GradientNorms({name: part.parameters() for name, part in watched}) as norms:
            super().train()
        for parameter in frozen:
            parameter.requires_grad = True
        self._log_rollout(norms, is_measured=is_measured)
        loss = self.logger.name_to_value["train/loss"]
        tensors = self.policy.tensors
        require_finite("macro/loss", loss, self.num_timesteps, self._rollout_days(), tensors)

    def _log_rollout(self, norms: GradientNorms, *, is_measured: bool) -> None:
        """Log what this update was made from and what the policy now says about its rollout."""
        buffer = self.rollout_buffer
        values = {
            **norms.summary(self.max_grad_norm),
            **spread("advantage", buffer.advantages),
            "value_mean": float(buffer.values.mean()),
            "return_mean": float(buffer.returns.mean()),
            "return_std": float(buffer.returns.std()),
            **(as_numbers(self._measure_policy()) if is_measured else {}),
        }
        for name, value in values.items():
            self.logger.record(f"macro/{name}", value)

    @torch.no_grad()
    def _measure_policy(self) -> dict[str, Tensor]:
        seen: Any = self.rollout_buffer.observations
        rows = {name: values.reshape(-1, values.shape[-1]) for name, values in seen.items()}
        # an odd stride meets other envs and other weeks in turn
        stride = len(rows["day"]) // MEASURED_ROWS | 1
        index = {n: torch.as_tensor(v[::stride], device=self.device) for n, v in rows.items()}
        shares, regime = self.policy.distribution(self.policy.inputs(index))
        return {**dirichlet_measures(shares), **goal_measures(shares.mode, regime)}

    def _rollout_days(self) -> tuple[int, int]:
        days = self.rollout_buffer.observations["day"]
        return int(days.min()), int(days.max())


class MacroAgent:
    """The weekly agent as users meet it: act, learn, save, load.

    Args:
        tensors: the market, with a sector table.
        config: section `macro_agent`.
        seed: of the networks' initial values.
    """

    kind = "macro"

    def __init__(self, tensors: MarketTensors, config: MacroAgentConfig, seed: int) -> None:
        self.tensors, self.config, self.seed = tensors, config, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = macro_network_sizes(tensors)
            self.actor = MacroActor(sizes, config.network).to(tensors.device).eval()
            self.critic = MacroCritic(sizes, config.network).to(tensors.device).eval()

    @torch.no_grad()
    def goal(self, observation: Mapping[str, Tensor]) -> Goal:
        """Return the deterministic goal for index observations: the mode and the regime head."""
        inputs = macro_inputs(self.tensors, observation)
        shares, regime = self.actor(inputs.sectors, inputs.context, inputs.listed)
        return Goal(shares.mode, torch.softmax(regime, dim=1))

    @torch.no_grad()
    def act(self, observation: Any, deterministic: bool = True) -> np.ndarray:  # noqa: FBT001, FBT002
        """Return actions (B, G) for observations of either form, as arrays with a batch axis."""
        if isinstance(observation, Mapping):
            device = self.tensors.device
            index = {k: torch.as_tensor(v, device=device) for k, v in observation.items()}
            inputs = macro_inputs(self.tensors, index)
        else:
            width, _ = macro_sizes(self.tensors)
            flat = torch.as_tensor(observation, device=self.tensors.device)
            inputs = MacroInputs.unflatten(flat, self.tensors.n_sectors, width)
        shares, regime = self.actor(inputs.sectors, inputs.context, inputs.listed)
        chosen = shares.mode if deterministic else shares.sample()
        action = torch.cat([chosen, torch.softmax(regime, dim=1)], dim=1)
        return np.asarray(action.cpu())

    def algorithm(self, env: PortfolioVecEnv, ppo: PPOConfig) -> MacroPPO:
        """Build PPO on `env` that starts from this agent's networks."""
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
        """Take over the networks that PPO has trained."""
        self.actor.load_state_dict(algorithm.policy.actor.state_dict())
        self.critic.load_state_dict(algorithm.policy.critic.state_dict())
        return self

    def on(self, tensors: MarketTensors) -> "MacroAgent":
        """Return this agent reading another market of the same columns and sectors."""
        return set_networks(MacroAgent(tensors, self.config, self.seed), networks_of(self))

    def learn(
        self, env: PortfolioVecEnv, total_timesteps: int, callback: Any = None
    ) -> "MacroAgent":
        """Train with PPO on `env` for a number of weekly steps."""
        algorithm = self.algorithm(env, self.config.ppo)
        algorithm.learn(total_timesteps, callback)
        return self.adopt(algorithm)

    def save(self, path: Path) -> Path:
        """Write the agent; opening the file never runs code."""
        return save_agent(path, self)

    @classmethod
    def load(cls, path: Path, tensors: MarketTensors, config: MacroAgentConfig) -> "MacroAgent":
        """Read an agent for this market.

        Raises:
            CheckpointError: if the file is damaged or belongs to other shapes or another market.
        """
        return load_agent(path, cls(tensors, config, seed=0))


def macro_network_sizes(tensors: MarketTensors) -> MacroSizes:
    """Return (sectors, columns per sector, columns of context)."""
    return (tensors.n_sectors, *macro_sizes(tensors))


def compare_on_same_day(
    advantages: Float[np.ndarray, "T B"], days: Shaped[np.ndarray, "T B"]
) -> Float[np.ndarray, "T B"]:
    """Subtract from each advantage the mean of the other rows that stood on the same day.

    The market is exogenous, so rows of one day earn on the same returns whatever they decide: what
    they earn in common is noise to the gradient. The others' mean does not depend on the row's own
    action, so the gradient stays unbiased. A row alone on its day keeps its advantage.

    Args:
        advantages: of a rollout of T steps and B environments.
        days: market row of each observation.

    Source:
        Mao et al. (2019), Variance reduction for reinforcement learning in input-driven
        environments; leave-one-out as in Kool, van Hoof and Welling (2019).
    """
    result = advantages.copy()
    for step, day in enumerate(days):
        _, place, count = np.unique(day, return_inverse=True, return_counts=True)
        others = count[place] - 1
        mean = np.bincount(place, weights=advantages[step])[place] / count[place]
        own = (advantages[step] - mean) * count[place] / np.maximum(others, 1)
        result[step] = np.where(others > 0, own, advantages[step])
    return result
