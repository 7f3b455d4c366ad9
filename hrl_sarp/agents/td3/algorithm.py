"""TD3 over executed weights, with exploration noise on the scores and hindsight goals."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from stable_baselines3 import TD3
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hrl_sarp.agents.files import require_finite
from hrl_sarp.agents.measures import as_numbers, critic_measures, score_measures
from hrl_sarp.agents.td3.credit import carried, stock_rewards
from hrl_sarp.agents.td3.hindsight import HindsightBuffer, MicroBatch
from hrl_sarp.agents.td3.networks import MicroSettings, TwinCritic, WeightActor
from hrl_sarp.config.schema import TD3Config
from hrl_sarp.envs.observations import MicroInputs, SlotRequest
from hrl_sarp.run.session import derive_seed

NOISE_STREAM, REPLAY_STREAM = 1, 2
"""Roles of derived seeds."""
MEASURE_EVERY = 8
"""Updates between two measurements of values, scores and the actor's gain by the critic."""


class WeightActorCritic(TD3Policy):
    """Actor, twin critic and their targets over the slots of a day."""

    def __init__(self, *args: Any, settings: MicroSettings, **kwargs: Any) -> None:
        self._settings = settings
        super().__init__(*args, **kwargs)
        self._squash_output = False  # `predict` would rescale the weights as if from [-1, 1]

    def make_actor(self, features_extractor: Any = None) -> Any:
        """Build the actor on the market's device; it needs no feature extractor."""
        return WeightActor(self._settings).to(self._settings.tensors.device)

    def make_critic(self, features_extractor: Any = None) -> Any:
        """Build the critic on the market's device; it needs no feature extractor."""
        return TwinCritic(self._settings).to(self._settings.tensors.device)

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:  # noqa: FBT001, FBT002
        weights: Tensor = self.actor(observation)
        return weights


class MicroTD3(TD3):
    """TD3 with noise on the scores, critic warm-up, clipped gradients and hindsight batches."""

    replay_buffer: HindsightBuffer  # type: ignore[assignment]
    actor: WeightActor  # type: ignore[assignment]
    actor_target: WeightActor  # type: ignore[assignment]
    critic: TwinCritic  # type: ignore[assignment]
    critic_target: TwinCritic  # type: ignore[assignment]
    _last_obs: Any

    def configure(self, td3: TD3Config, seed: int) -> "MicroTD3":
        """Set the options that Stable-Baselines3's constructor does not take."""
        self.td3 = td3
        (n_slots,) = self.action_space.shape or (0,)
        self.noise = torch.zeros(self.n_envs, n_slots)
        self.generator = torch.Generator().manual_seed(derive_seed(seed, NOISE_STREAM))
        self.replay_buffer.rng = np.random.default_rng(derive_seed(seed, REPLAY_STREAM))
        return self

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decode scores plus AR(1) noise. Independent noise would mainly cause turnover."""
        done = min(1.0, self.num_timesteps / max(self._total_timesteps, 1))
        start, end = self.td3.exploration_start, self.td3.exploration_end
        scale, rho = start + (end - start) * done, self.td3.noise_correlation
        fresh = torch.randn(self.noise.shape, generator=self.generator)
        self.noise = rho * self.noise + (1 - rho**2) ** 0.5 * fresh
        with torch.no_grad():
            observation, _ = self.policy.obs_to_tensor(self._last_obs)
            action = self.actor.with_noise(observation, scale * self.noise.to(self.device))
        self.logger.record("micro/exploration", scale)
        weights = action.cpu().numpy()
        return weights, weights

    def _store_transition(
        self,
        replay_buffer: Any,
        buffer_action: np.ndarray,
        new_obs: Any,
        reward: np.ndarray,
        dones: np.ndarray,
        infos: Any,
    ) -> None:
        """Store the executed weights; a row that ended stores its portfolio before the reset."""
        reply = infos.reply
        next_portfolio = new_obs["portfolio"]
        if dones.any():
            next_portfolio = next_portfolio.copy()
            for row in np.flatnonzero(dones):
                next_portfolio[row] = infos[row]["terminal_observation"]["portfolio"]
        terminated = reply.terminated.cpu().numpy()
        replay_buffer.add(self._last_obs, next_portfolio, reply.transition, terminated)
        self._last_obs = new_obs

    def train(self, gradient_steps: int, batch_size: int = 0) -> None:
        """Update the critics, and after their warm-up, every few steps, the actor.

        `batch_size` is not used, because the buffer sets the size.
        """
        self.policy.set_training_mode(True)
        self._update_learning_rate([self.actor.optimizer, self.critic.optimizer])
        warmup = self.td3.critic_warmup_updates
        for _ in range(gradient_steps):
            self._n_updates += 1
            batch = self.replay_buffer.sample_batch()
            self._update_critic(batch)
            if self._n_updates % self.policy_delay == 0:
                if self._n_updates > warmup:
                    self._update_actor(batch)
                self._follow(self.critic, self.critic_target)
                self._follow(self.actor, self.actor_target)
        self.logger.record("micro/n_updates", self._n_updates, exclude="tensorboard")

    def _follow(self, network: WeightActor | TwinCritic, target: nn.Module) -> None:
        """Move the target networks a share `tau` of the way to the trained ones."""
        move = get_ema_multi_avg_fn(1 - self.tau)
        move(tuple(target.parameters()), _trained(network), 0)

    def compute_target(self, batch: MicroBatch) -> Float[Tensor, "B C"]:
        """Return reward + gamma x the smaller target value. Time limits are bootstrapped.

        In the columns of `MicroCritic.columns`.
        """
        settings = self.actor.settings
        with torch.no_grad():
            shape = batch.executed.shape
            noise = torch.randn(shape, generator=self.generator).to(batch.executed)
            clip = self.target_noise_clip
            noise = (noise * self.target_policy_noise).clamp(-clip, clip)
            seen = settings.read(batch.next_observation)
            action = self.actor_target.noisy_weights(*seen, noise)
            first, second = self.critic_target.columns(*seen, action)
            is_first = first.sum(dim=1, keepdim=True) <= second.sum(dim=1, keepdim=True)
            future = torch.where(is_first, first, second) * (1 - batch.terminated)[:, None]
            if not settings.is_by_stock:
                return batch.reward[:, None] + self.gamma * future
            future = carried(future, batch.observation["day"].flatten(), settings.tensors)
            return stock_rewards(batch, settings) + self.gamma * future

    def _update_critic(self, batch: MicroBatch) -> None:
        target = self.compute_target(batch)
        seen = self.actor.settings.read(batch.observation)
        first, second = self.critic.columns(*seen, batch.executed)
        n_columns = target.shape[1]  # times the mean: the sum over columns
        losses = [nn.functional.mse_loss(found, target) for found in (first, second)]
        loss = n_columns * (losses[0] + losses[1])
        days = batch.observation["day"]
        value = float(loss.detach())
        span, tensors = (int(days.min()), int(days.max())), self.actor.settings.tensors
        require_finite("micro/critic_loss", value, self._n_updates, span, tensors)
        norm = self._descend(loss, self.critic)
        self._note({"critic_loss": value, **self._step_measures("critic", norm)})
        if self._n_updates % MEASURE_EVERY == 0:
            values = first.sum(dim=1), second.sum(dim=1)
            measures = critic_measures(values, target.sum(dim=1))
            self._note(as_numbers({**measures, "replay_reward": batch.reward.mean()}))

    def _update_actor(self, batch: MicroBatch) -> None:
        for parameter in _trained(self.critic):
            parameter.requires_grad = False
        inputs, request = self.actor.settings.read(batch.observation)
        scores = self.actor.network(inputs, request)
        weights = self.actor.settings.decode(scores, request)
        values = self.critic.first(inputs, request, weights)
        loss = -values.mean()
        if self._n_updates % MEASURE_EVERY == 0:
            gain = self._gain_over_goal(inputs, request, values)
            tradable = inputs.view.tradable
            self._note(as_numbers({**score_measures(scores.detach(), tradable), **gain}))
        norm = self._descend(loss, self.actor)
        for parameter in _trained(self.critic):
            parameter.requires_grad = True
        self._note({"actor_loss": float(loss.detach()), **self._step_measures("actor", norm)})

    @torch.no_grad()
    def _gain_over_goal(
        self, inputs: MicroInputs, request: SlotRequest, values: Tensor
    ) -> dict[str, Tensor]:
        """Compare the critic's value of the actor with that of following the goal (scores of 0)."""
        follow = self.actor.settings.decode(torch.zeros_like(request.prior), request)
        gain = values - self.critic.first(inputs, request, follow)
        return {"q_gain": gain.mean(), "q_gain_share": (gain > 0).to(gain.dtype).mean()}

    def _step_measures(self, part: str, norm: float) -> dict[str, float]:
        clipped = float(norm > self.td3.max_grad_norm)
        return {f"{part}_grad_norm": norm, f"{part}_clipped": clipped}

    def _note(self, measures: dict[str, float]) -> None:
        for name, value in measures.items():
            self.logger.record_mean(f"micro/{name}", value)

    def _descend(self, loss: Tensor, network: Any) -> float:
        network.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(_trained(network), self.td3.max_grad_norm)
        network.optimizer.step()
        return float(norm)


def _trained(network: WeightActor | TwinCritic) -> tuple[nn.Parameter, ...]:
    """Return the parameters as the optimiser lists them: walking the modules takes longer."""
    (group,) = network.optimizer.param_groups
    return tuple(group["params"])
