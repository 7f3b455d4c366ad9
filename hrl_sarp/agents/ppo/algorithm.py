"""PPO over sector shares, with a Dirichlet policy and advantages compared within a day."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

from hrl_sarp.agents.files import (
    require_finite,
)
from hrl_sarp.agents.layers import set_dropout
from hrl_sarp.agents.measures import (
    GradientNorms,
    as_numbers,
    goal_measures,
    spread,
)
from hrl_sarp.agents.ppo.networks import MacroDecision, macro_networks
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Goal
from hrl_sarp.envs.observations import MacroInputs, macro_inputs, macro_sizes
from hrl_sarp.market.tensors import MarketTensors

MEASURED_ROWS = 64
"""About this many decisions of a rollout are used to measure the policy."""
MEASURE_EVERY = 4
"""Rollouts between two measurements of gradients and policy, which cost time."""


class DirichletActorCritic(ActorCriticPolicy):
    """Actor and critic over sectors; an action is a goal: sector shares, cash, regimes.

    The regime entries come from a head that phase 1 trains and PPO leaves unchanged. They are part
    of the action because the goal is a single vector.
    """

    def __init__(self, *args: Any, tensors: MarketTensors, config: RunConfig, **kw: Any):
        self.tensors, self._config = tensors, config  # plain attributes are not saved
        super().__init__(*args, **kw)

    def _build(self, lr_schedule: Any) -> None:
        self.actor, self.critic = macro_networks(self.tensors, self._config)
        set_dropout(self, 0.0)  # else log-probabilities would differ between rollout and update
        self.actor.regime.requires_grad_(requires_grad=False)
        trained = [p for p in self.parameters() if p.requires_grad]
        make_optimizer: Any = self.optimizer_class
        self.optimizer = make_optimizer(trained, lr=lr_schedule(1), **self.optimizer_kwargs)

    def inputs(self, observation: Any) -> MacroInputs:
        """Read an index observation (a mapping) or flat rows (B, D)."""
        tensors = self.tensors
        if isinstance(observation, Mapping):
            return macro_inputs(tensors, observation)
        width, _ = macro_sizes(tensors)
        return MacroInputs.unflatten(observation.float(), tensors.n_sectors, width)

    def forward(self, obs: Any, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:  # noqa: FBT001, FBT002
        """Return goals (B, G), values (B, 1) and log densities of the shares (B,)."""
        inputs = self.inputs(obs)
        decision: MacroDecision = self.actor(inputs)
        shares = decision.shares
        chosen = shares.centre if deterministic else shares.sample()
        return decision.goal(chosen).to_vector(), self.critic(inputs), shares.log_prob(chosen)

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values (B, 1), log densities (B,) and entropies (B,) of sampled goals."""
        inputs = self.inputs(obs)
        decision: MacroDecision = self.actor(inputs)
        chosen = decision.shares_of(Goal.from_vector(actions))
        return self.critic(inputs), decision.shares.log_prob(chosen), decision.shares.entropy()

    def predict_values(self, obs: Any) -> Tensor:
        """Return values (B, 1)."""
        value: Tensor = self.critic(self.inputs(obs))
        return value

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:  # noqa: FBT001, FBT002
        return self.forward(observation, deterministic)[0]


class MacroPPO(PPO):
    """PPO whose critic warms up before the actor moves. A loss that is not finite stops it."""

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
            parameter.grad = None  # Adam would apply an old gradient again
        parts = {"actor": self.policy.actor, "critic": self.policy.critic}
        is_measured = self._n_updates // self.n_epochs % MEASURE_EVERY == 0
        watched = parts.items() if is_measured else ()
        with GradientNorms({name: part.parameters() for name, part in watched}) as norms:
            super().train()
        for parameter in frozen:
            parameter.requires_grad = True
        self._log_rollout(norms, is_measured=is_measured)
        loss = self.logger.name_to_value["train/loss"]
        span, tensors = (int(days.min()), int(days.max())), self.policy.tensors
        require_finite("macro/loss", loss, self.num_timesteps, span, tensors)

    def _log_rollout(self, norms: GradientNorms, *, is_measured: bool) -> None:
        """Log the rollout of this update, and the updated policy on it."""
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
        # an odd stride samples all envs and weeks in turn
        stride = len(rows["day"]) // MEASURED_ROWS | 1
        index = {n: torch.as_tensor(v[::stride], device=self.device) for n, v in rows.items()}
        decision: MacroDecision = self.policy.actor(self.policy.inputs(index))
        goal = decision.goal(decision.shares.centre)
        return {**decision.shares.measures(), **goal_measures(goal)}


def compare_on_same_day(
    advantages: Float[np.ndarray, "T B"], days: Shaped[np.ndarray, "T B"]
) -> Float[np.ndarray, "T B"]:
    """Subtract from each advantage the mean of the other rows of the same day.

    Rows of one day meet the same returns, whatever they decide. The part that they have in common
    is noise in the gradient. The mean of the other rows does not depend on the row's own action,
    so the gradient stays unbiased. A row alone on its day keeps its advantage.

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
