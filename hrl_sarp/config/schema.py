"""Schema of the values of a run: types, ranges and meaning. The values are in config/*.yaml.

`market_schema` holds the sections on markets and data, `encoder_schema` those on encoders,
`study_schema` those on walk-forward studies and on trainings inside the training span.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from hrl_sarp.config.encoder_schema import (
    EncodersConfig,
    ObservedForecastsConfig,
    WindowedConfig,
)
from hrl_sarp.config.market_schema import (
    Count,
    DataConfig,
    Fraction,
    MarketProfile,
    Positive,
    Section,
)
from hrl_sarp.config.objective_schema import (
    MacroRewardConfig,
    MicroRewardConfig,
    ObjectiveConfig,
    RewardsConfig,
    RiskBaselineName,
    RiskModelConfig,
)
from hrl_sarp.config.own_code import DottedName
from hrl_sarp.config.study_schema import CertificationConfig, WalkForwardConfig


class RiskConfig(Section):
    """Limits of every portfolio, the same for agents and baselines."""

    stock_cap: Fraction
    """Largest weight of one stock, as a share of wealth."""
    sector_cap: Fraction
    """Largest weight of one sector, as a share of wealth."""
    min_cash: Fraction
    """Smallest share of wealth in cash."""
    turnover_cap: Positive
    """Largest half L1 trade a day, as a share of wealth; 1 is off."""
    max_positions: int = Field(ge=0)
    """Largest number of stocks held at a time, over all sectors; 0 is off."""
    drawdown_gate: bool
    """Halve the exposure for a while after a drawdown."""
    gate_drawdown: Fraction
    """Loss from the running peak that closes the gate."""
    gate_exposure: Fraction
    """Factor on the exposure while the gate is closed."""
    gate_days: Count
    """Sessions that the gate stays closed. Then the peak restarts at the current wealth."""


class SupervisedConfig(Section):
    """Phases 1 and 2."""

    epochs: Count
    """Passes over the training days, at most."""
    batch_size: Count
    """Days in one gradient step."""
    learning_rate: Positive
    """Learning rate of AdamW."""
    weight_decay: float = Field(ge=0)
    """Weight decay of AdamW."""
    patience: Count
    """Epochs without a better validation loss after which the phase ends."""
    max_grad_norm: Positive
    """Longer gradients are scaled down to this norm."""
    oracle_temperature: Positive
    """Oracle = softmax(temperature x cross-sectionally standardised label)."""


class GradientConfig(Section):
    """Phases 1 and 2 under the objective `risk`: its gradient through the simulator."""

    epochs: Count
    """Passes over the training decisions, at most."""
    batch_size: Count
    """Decisions in one gradient step."""
    learning_rate: Positive
    """Learning rate of AdamW."""
    weight_decay: float = Field(ge=0)
    """Weight decay of AdamW."""
    patience: Count
    """Epochs without a better validation objective after which the phase ends."""
    max_grad_norm: Positive
    """Longer gradients are scaled down to this norm."""
    prior_weight: float = Field(ge=0)
    """Times the divergence from the classical portfolio (macro) or the squared scores (micro)."""
    exposure_weight: float = Field(ge=0)
    """Times the squared distance to the exposure of the classical portfolio; of the macro agent."""
    goal_noise: float = Field(ge=0)
    """Deviation of the noise on the logs of goals that the micro agent meets."""
    regime_strength: Positive
    """Inverse of the penalty on the regime head of the macro agent (scikit-learn's C)."""


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
    centre: Literal["mode", "mean"]
    """What of the Dirichlet policy is deployed; PPO climbs the return around its mean."""
    exchangeable: bool
    """Sectors share all weights, so that no network can remember which sector won."""
    largest_tilt: Positive
    """Bound of a tilt on the classical portfolio's sectors, in logs."""
    largest_cash_tilt: float = Field(ge=0)
    """Bound of the tilt on the odds of its cash, in logs. It is narrow, because a network does not
    know volatilities above those of its training span, where cash matters most."""


class PPOConfig(Section):
    """Stable-Baselines3 PPO."""

    total_timesteps: Count
    """Env steps of phase 3: weeks, summed over the envs."""
    n_envs: Count
    """Environments in one batch."""
    envs_per_group: Count
    """Environments that start on one day. Advantages are compared among them; 1 is off."""
    n_steps: Count
    """Weeks of each env in one rollout."""
    batch_size: Count
    """Transitions in one gradient step."""
    n_epochs: Count
    """Passes over each rollout."""
    learning_rate: Positive
    """Learning rate of Adam."""
    gamma: Fraction
    """Discount per week."""
    gae_lambda: Fraction
    """Lambda of generalised advantage estimation: lower has more bias and less variance."""
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
    gradient: GradientConfig
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
    trade_speed: float = Field(gt=0, le=1)
    """Decode `within_sector`: share of the way from the holdings' shares of their sector to the
    target's that a session trades. Less saves costs; sectors follow the goal at any speed."""
    free_temperature: Positive
    """Decode `free`: preference = softmax(temperature x score)."""


class TD3Config(Section):
    """Stable-Baselines3 TD3 with hindsight."""

    total_timesteps: Count
    """Env steps of phase 4: sessions, summed over the envs."""
    n_envs: Count
    """Environments in one batch."""
    envs_per_group: Count
    """Environments that share their day and differ in portfolio, goal and noise."""
    env_steps_per_update: Count
    """Env steps between two gradient steps."""
    batch_days: Count
    """Different days in one batch. The market tower runs once for each."""
    batch_per_day: Count
    """Transitions of each of these days."""
    buffer_size: Count
    """Transitions that the replay buffer holds."""
    learning_starts: Count
    """Env steps before the first gradient step."""
    learning_rate: Positive
    """Learning rate of Adam, for actor and critics."""
    gamma: Fraction
    """Discount per session."""
    tau: Fraction
    """Share by which the targets move to the networks at each update."""
    policy_delay: Count
    """Critic updates per actor update."""
    target_noise: float = Field(ge=0)
    """Deviation of the noise on the target action (scores)."""
    target_noise_clip: float = Field(ge=0)
    """Bound of the noise on the target action."""
    exploration_start: float = Field(ge=0)
    """Deviation of the exploration noise (scores) at the first step."""
    exploration_end: float = Field(ge=0)
    """Deviation of the exploration noise at the last step; linear between."""
    noise_correlation: Fraction
    """Autocorrelation of the exploration noise from day to day."""
    credit: Literal["portfolio", "stock"]
    """What the critic learns a reward as: one number of the portfolio, or, under the objective
    `risk`, the parts of the stocks in the variance and a rest. `growth` refuses them."""
    hindsight_share: Fraction
    """Share of each batch whose goal is relabelled (k = 4 is 0.8)."""
    current_goal_share: Fraction
    """Share of relabelled goals that this transition achieved; another one achieved the rest."""
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
    gradient: GradientConfig
    td3: TD3Config
    reward: MicroRewardConfig


class StageConfig(Section):
    """One curriculum stage: where episodes start."""

    name: str
    """What logs and tables call the stage."""
    regime_mix: Annotated[list[Fraction], Field(min_length=3, max_length=3)] | None
    """Shares of episodes that start in bear, bull, sideways. null takes all weeks alike, as the
    agent will meet them."""
    max_share: Fraction
    """Part of the phase's steps after which the stage ends in any case."""
    promote_above: float
    """The stage ends above this mean score of the last evaluations on validation, % a year over the
    1/N rule."""


class JointConfig(Section):
    """Phase 5."""

    max_rounds: Count
    """Rounds of macro, then micro training, at most."""
    macro_steps: Count
    """Env steps of the macro agent in a round."""
    micro_steps: Count
    """Env steps of the micro agent in a round. It fills an empty replay buffer first, so that only
    the steps above `td3.learning_starts` train."""
    learning_rate_factor: Positive
    """Factor on the learning rates of phases 3 and 4."""
    patience_rounds: Count
    """Rounds without a better accepted validation score after which the phase ends."""


def _with_prior(values: list[float]) -> list[float]:
    return values if 0 in values else [0.0, *values]


class AcceptanceConfig(Section):
    """The rule that decides how far something learned is deployed, in all phases."""

    shares: Annotated[list[Fraction], AfterValidator(_with_prior)] = Field(min_length=1)
    """Shares of the learned policy in a mixture with its prior that are tried. 0, the prior, always
    is one of them."""
    confidence: float = Field(gt=0.5, lt=1)
    """Confidence of the lower bound of the gain over the prior that must be above 0."""
    block_days: Count
    """Mean block of the stationary bootstrap behind the bounds."""
    samples: Count
    """Resampled histories behind the bounds."""


class CurriculumConfig(Section):
    """Order and stages of phases 3 to 5, checkpoints and selection."""

    stages: list[StageConfig] = Field(min_length=1)
    """The stages, in their order."""
    checkpoint_seconds: float = Field(ge=0)
    """Wall time between two checkpoints; 0 saves at every boundary."""
    selection_window: Count
    """Evaluations whose networks are averaged. The mean network is evaluated and kept."""
    acceptance: AcceptanceConfig
    certification: CertificationConfig
    temperature_grid: Annotated[
        list[Annotated[float, Field(ge=0)]], AfterValidator(_with_prior)
    ] = Field(min_length=1)
    """Temperatures tried on validation at the end of phases 1 and 2, to calibrate the agent. At 0,
    which always is one of them, it does not use what it learned."""
    joint: JointConfig


class EvaluationConfig(Section):
    """Backtest, baselines and statistics."""

    rebalance: Literal["weekly", "monthly"]
    """When baselines trade: after the first session of each month, or the last of each week."""
    baselines: list[
        Literal[
            "equal_weight",
            "inverse_volatility",
            "momentum",
            "sector_momentum",
            "ridge",
            "ridge_shuffled",
            "ridge_in_sectors",
            "random_policy",
            "least_traded",
            "minimum_variance",
            "mean_variance",
            "risk_budgeting",
            "hierarchical_risk_parity",
            RiskBaselineName,
        ]
    ]
    """Which baselines a backtest runs beside the index and the random portfolios."""
    extra_baselines: list[DottedName]
    """Functions of the user's, from a `PastView` to weights, that count as baselines."""
    extra_policies: list[DottedName]
    """The same, shown as policies: they are counted as trials."""
    volatility_targets: list[Positive]
    """Annual volatilities at which the `volatility_target` baselines hold 1/N, one policy each."""
    momentum_positions: Count
    """Stocks that momentum holds."""
    momentum_days: Count
    """Formation period of 12-1 momentum, the skipped sessions included."""
    momentum_skip_days: int = Field(ge=0)
    """Latest sessions that momentum leaves out."""
    momentum_sectors: Count
    """Sectors that sector momentum holds."""
    ridge_positions: Count
    """Stocks that the ridge regression holds."""
    ridge_label_days: Count
    """Horizon of the returns that the ridge regression predicts."""
    ridge_penalty: Positive
    """Penalty of the ridge regression, in units of rows x mean feature variance."""
    random_positions: Count
    """Stocks of each random portfolio and of the inclusion canary (least traded)."""
    max_universe_share: Fraction
    """Largest share of the universe that a selecting baseline holds; all of it would be 1/N."""
    volatility_days: Count
    """Look-back of inverse volatility."""
    covariance_days: Count
    """Look-back of the optimised baselines."""
    optimised_max_slots: int = Field(ge=0)
    """Largest universe with optimised baselines, because a fit of 500 stocks takes 0.5 s."""
    bootstrap_block_days: Count
    """Mean block of the stationary bootstrap."""
    bootstrap_samples: Count
    """Resampled series behind each interval."""
    confidence: Fraction
    """Confidence of the intervals in the tables."""
    random_portfolios: int = Field(ge=0)
    """Random portfolios that every policy is ranked against."""
    same_rule_distance: Fraction
    """Mean share of wealth that may lie elsewhere in a policy that is called by a rule's name."""
    growth_margin: Fraction
    """Log growth a year that may be lost to 1/N and still counts as its growth kept."""
    rolling_days: Count
    """Window of the rolling Sharpe ratio."""
    permuted_block_days: Count
    """Sessions that stay together when the control of `diagnose` permutes the training returns."""
    permuted_runs: int = Field(ge=2)
    """Trainings of that control on permuted returns."""
    stressed_delisting_return: float = Field(ge=-1, le=0)
    """Return of a delisted holding in the variant that tests delistings."""


class ShockConfig(Section):
    """One hypothetical shock, as returns of sectors."""

    name: str
    """What tables and figures call it."""
    sector_returns: list[Annotated[float, Field(gt=-1)]]
    """Total simple return of each sector over the shock, in the order of `StressConfig.sectors`."""
    days: Count
    """Sessions over which the returns spread, evenly in logarithms."""
    recovery_days: Count
    """Sessions in which every sector returns to where it was, evenly in logarithms."""
    probability: Fraction
    """Probability per year by the scenario's source. It is shown but not used."""


class StressConfig(Section):
    """The command stress-test. The dated windows are in the market profile."""

    sectors: list[str] = Field(min_length=1)
    """Sectors whose returns the shocks state."""
    shocks: list[ShockConfig]
    """Hypothetical scenarios."""
    warm_up_days: Count
    """Sessions before a scenario in which policies move from cash into their own holdings."""
    overnight_share: Fraction
    """Share of each day's log return that falls over night. It is 1 for data of closes only."""
    recovery_days: int = Field(ge=0)
    """Sessions after a dated window in which recovery is watched, as far as the data go."""
    recovered_within: Fraction
    """Wealth this close to its former peak, as a fraction of it, has recovered."""


class RunConfig(Section):
    """The merged and checked configuration of one run, made by `config.loading.load_config`.

    It cannot be changed; `load_config(overrides={"risk": {"stock_cap": 0.2}})` makes one with other
    values. `config.loading.dump_config` returns it as YAML, `config_hash` as a fingerprint.
    """

    market: str
    """Name of the market profile."""
    seed: int = Field(ge=0, lt=2**32)
    """Seed of every random generator, at most 32 bits."""
    threads: Count
    """CPU threads of PyTorch; results are bit-identical for equal counts only."""
    trackers: list[Literal["mlflow", "wandb"]]
    """What the curves of training go to beside TensorBoard; files only, nothing is sent."""
    market_profile: MarketProfile
    data: DataConfig
    objective: ObjectiveConfig
    risk_model: RiskModelConfig
    rewards: RewardsConfig
    risk: RiskConfig
    macro_agent: MacroAgentConfig
    micro_agent: MicroAgentConfig
    curriculum: CurriculumConfig
    evaluation: EvaluationConfig
    walk_forward: WalkForwardConfig
    stress: StressConfig
    windowed: WindowedConfig
    encoders: EncodersConfig
    forecasters: ObservedForecastsConfig
