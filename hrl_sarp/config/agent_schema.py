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
    """Active drawdown, a fraction, up to which there is no penalty."""


class MicroRewardConfig(Section):
    """Daily reward in % of a gain, less a penalty for leaving the goal."""

    gain: Literal["selection", "growth", "reached"]
    """selection: return over the own sector's mean; growth: log growth over the 1/N benchmark, for
    a micro agent without a macro agent's sectors; reached: 0 at the goal, else -1, no market."""
    alignment_weight: float = Field(ge=0)
    """Times (1 - alignment of achieved and desired sector weights); not of `reached`."""
    reached_distance: Fraction
    """`reached`: largest half L1 distance of achieved and desired sector weights that counts."""


class SupervisedConfig(Section):
    """Phases 1 and 2."""

    epochs: Count
    """Passes over the training days, at most."""
    batch_size: Count
    """Days in one gradient step."""
    learning_rate: Positive
    """Of AdamW."""
    weight_decay: float = Field(ge=0)
    """Of AdamW."""
    patience: Count
    """Epochs without a better validation loss after which the phase ends."""
    max_grad_norm: Positive
    """Longer gradients are scaled down to this norm."""
    oracle_temperature: Positive
    """Oracle = softmax(temperature x cross-sectionally standardised label)."""


class GraphConfig(Section):
    """Sector graph and its network."""

    correlation_days: Count
    """Trailing sessions over which the edges' correlations are measured."""
    min_correlation: Fraction
    """Weaker pairs of sectors get no edge."""
    update_days: Count
    """Sessions between two rebuilds of the edges."""
    layer: Literal["gcn", "gat", "none"]
    """Kind of graph layer; "none" leaves sectors apart."""
    heads: Count
    """Attention heads of a GAT layer."""
    hidden: Count
    """Width of the two graph layers."""
    embedding: Count
    """E: length of a sector's embedding."""


class MacroNetworkConfig(Section):
    """Networks shared over sectors."""

    hidden: Count
    """Width of the layers that all sectors share."""
    dropout: Fraction
    """Share of units dropped while phase 1 trains."""
    concentration_min: Positive
    """Smallest kappa of the Dirichlet policy: the most exploration."""
    concentration_range: Positive
    """kappa = min + range x sigmoid(k)."""


class PPOConfig(Section):
    """Stable-Baselines3 PPO."""

    total_timesteps: Count
    """Env steps (weeks, summed over the envs) of phase 3."""
    n_envs: Count
    """Environments in one batch."""
    envs_per_group: Count
    """Environments that start on one day: advantages are compared among them, 1 is off."""
    n_steps: Count
    """Weeks of each env in one rollout."""
    batch_size: Count
    """Transitions in one gradient step."""
    n_epochs: Count
    """Passes over each rollout."""
    learning_rate: Positive
    """Of Adam."""
    gamma: Fraction
    """Discount per week."""
    gae_lambda: Fraction
    """Bias against variance of the advantages."""
    clip_range: Positive
    """Largest change of the probability ratio that is rewarded."""
    ent_coef: float = Field(ge=0)
    """Weight of the entropy bonus."""
    vf_coef: float = Field(ge=0)
    """Weight of the value loss."""
    max_grad_norm: Positive
    """Longer gradients are scaled down to this norm."""
    horizon_weeks: Count
    """Length of an episode."""
    critic_warmup_steps: int = Field(ge=0)
    """Env steps during which only the critic moves."""
    eval_every_steps: Count
    """Env steps between two evaluations on validation."""


class MacroAgentConfig(Section):
    """Phases 1, 3 and 5 of the macro agent."""

    regime_loss_weight: Fraction
    """Share of the regime loss in phase 1; the rest is the allocation's."""
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
    """How scores become weights: inside the goal's sectors, or over all stocks."""
    free_temperature: Positive
    """Decode `free`: preference = softmax(temperature x score)."""


class TD3Config(Section):
    """Stable-Baselines3 TD3 with hindsight."""

    total_timesteps: Count
    """Env steps (sessions, summed over the envs) of phase 4."""
    n_envs: Count
    """Environments in one batch."""
    envs_per_group: Count
    """Environments that share their day and differ in portfolio, goal and noise."""
    env_steps_per_update: Count
    """Env steps between two gradient steps."""
    batch_days: Count
    """Different days in one batch: their market towers are computed once."""
    batch_per_day: Count
    """Transitions of each of these days."""
    buffer_size: Count
    """Transitions that the replay buffer holds."""
    learning_starts: Count
    """Env steps before the first gradient step."""
    learning_rate: Positive
    """Of Adam, actor and critics."""
    gamma: Fraction
    """Discount per session."""
    tau: Fraction
    """Share by which the targets move to the networks at each update."""
    policy_delay: Count
    """Critic updates per actor update."""
    target_noise: float = Field(ge=0)
    """Deviation of the noise on the target action (scores)."""
    target_noise_clip: float = Field(ge=0)
    """Bound of that noise."""
    exploration_start: float = Field(ge=0)
    """Deviation of the exploration noise (scores) at the first step."""
    exploration_end: float = Field(ge=0)
    """Deviation of the exploration noise at the last step; linear between."""
    noise_correlation: Fraction
    """Autocorrelation of the exploration noise from day to day."""
    hindsight_share: Fraction
    """Share of each batch whose goal is relabelled (k = 4 is 0.8)."""
    current_goal_share: Fraction
    """Part of the relabelled goals that the transition itself achieved; others by any other one."""
    dirichlet_goal_share: Fraction
    """Share of training goals drawn from Dirichlet(1) instead of the macro agent."""
    max_grad_norm: Positive
    """Longer gradients are scaled down to this norm."""
    horizon_days: Count
    """Length of an episode."""
    critic_warmup_updates: int = Field(ge=0)
    """Gradient steps during which only the critics move."""
    eval_every_steps: Count
    """Env steps between two evaluations on validation."""


class MicroAgentConfig(Section):
    """Phases 2, 4 and 5 of the micro agent."""

    network: MicroNetworkConfig
    pretrain: SupervisedConfig
    td3: TD3Config
    reward: MicroRewardConfig
