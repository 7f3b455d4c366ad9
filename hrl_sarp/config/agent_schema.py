"""Types, ranges and meaning of the values about the two agents."""

from typing import Literal

from pydantic import Field

from hrl_sarp.config.section import Count, Fraction, Positive, Section


class MacroRewardConfig(Section):
    """Weekly reward in % log growth over the 1/N benchmark."""

    concentration_weight: float = Field(ge=0)
    """Times (Herfindahl index of the goal - 1 / listed sectors)."""
    drawdown_weight: float = Field(ge=0)
    """Times 100 x the increase of active drawdown beyond the threshold."""
    drawdown_threshold: Fraction


class MicroRewardConfig(Section):
    """Daily reward in % of selection gain."""

    alignment_weight: float = Field(ge=0)
    """Times (1 - alignment of achieved and desired sector weights)."""


class SupervisedConfig(Section):
    """Phases 1 and 2."""

    epochs: Count
    batch_size: Count
    learning_rate: Positive
    weight_decay: float = Field(ge=0)
    patience: Count
    max_grad_norm: Positive
    oracle_temperature: Positive
    """Oracle = softmax(temperature x cross-sectionally standardised label)."""


class GraphConfig(Section):
    """Sector graph and its network."""

    correlation_days: Count
    min_correlation: Fraction
    update_days: Count
    layer: Literal["gcn", "gat", "none"]
    heads: Count
    hidden: Count
    embedding: Count


class MacroNetworkConfig(Section):
    """Networks shared over sectors."""

    hidden: Count
    dropout: Fraction
    concentration_min: Positive
    concentration_range: Positive
    """kappa = min + range x sigmoid(k)."""


class PPOConfig(Section):
    """Stable-Baselines3 PPO."""

    total_timesteps: Count
    n_envs: Count
    n_steps: Count
    batch_size: Count
    n_epochs: Count
    learning_rate: Positive
    gamma: Fraction
    gae_lambda: Fraction
    clip_range: Positive
    ent_coef: float = Field(ge=0)
    vf_coef: float = Field(ge=0)
    max_grad_norm: Positive
    horizon_weeks: Count
    critic_warmup_steps: int = Field(ge=0)
    """Env steps during which only the critic moves."""
    eval_every_steps: Count


class MacroAgentConfig(Section):
    """Phases 1, 3 and 5 of the macro agent."""

    regime_loss_weight: Fraction
    network: MacroNetworkConfig
    graph: GraphConfig
    pretrain: SupervisedConfig
    ppo: PPOConfig
    reward: MacroRewardConfig


class MicroNetworkConfig(Section):
    """Networks shared over stocks."""

    tower: Count
    """Width of the market tower over (day, stock)."""
    head: Count
    """Width of the layer that sees the portfolio and the goal."""
    score_temperature: Positive
    """Decode: preference = prior x exp(temperature x score)."""
    decode: Literal["within_sector", "free"]
    free_temperature: Positive
    """Decode `free`: preference = softmax(temperature x score)."""


class TD3Config(Section):
    """Stable-Baselines3 TD3 with hindsight."""

    total_timesteps: Count
    n_envs: Count
    envs_per_group: Count
    """Environments that share their day and differ in portfolio, goal and noise."""
    env_steps_per_update: Count
    batch_days: Count
    batch_per_day: Count
    buffer_size: Count
    learning_starts: Count
    learning_rate: Positive
    gamma: Fraction
    tau: Fraction
    policy_delay: Count
    target_noise: float = Field(ge=0)
    target_noise_clip: float = Field(ge=0)
    exploration_start: float = Field(ge=0)
    exploration_end: float = Field(ge=0)
    noise_correlation: Fraction
    hindsight_share: Fraction
    """Share of each batch whose goal is relabelled (k = 4 is 0.8)."""
    dirichlet_goal_share: Fraction
    """Share of training goals drawn from Dirichlet(1) instead of the macro agent."""
    max_grad_norm: Positive
    horizon_days: Count
    critic_warmup_updates: int = Field(ge=0)
    eval_every_steps: Count


class MicroAgentConfig(Section):
    """Phases 2, 4 and 5 of the micro agent."""

    network: MicroNetworkConfig
    pretrain: SupervisedConfig
    td3: TD3Config
    reward: MicroRewardConfig
