"""Types, ranges and meaning of every configuration value; the values are in config/*.yaml."""

from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of every section: immutable, typed, no unknown keys, no defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class CostConfig(Section):
    """Trading frictions, per side, charged on the trade from drifted holdings to the target."""

    buy_bps: float = Field(ge=0, lt=1000)
    """Commission and taxes of a purchase, basis points of traded value."""
    sell_bps: float = Field(ge=0, lt=1000)
    """Commission and taxes of a sale, basis points of traded value."""
    slippage_bps: float = Field(ge=0, lt=1000)
    """Added to both sides, basis points of traded value."""
    impact_coefficient: float = Field(ge=0)
    """Square-root impact: cost = coefficient x trade x sqrt(trade / dollar volume); 0 is off."""
    capital: Positive
    """Account size in the currency of the prices; only the impact needs it."""
    delisting_return: float = Field(ge=-1, le=0)
    """Return over the last close at which a delisted holding becomes cash."""


class UniverseConfig(Section):
    """Which stocks may be bought, chosen at the first session of each year from the past only."""

    stocks_per_sector: Count
    """The most traded of each sector by median dollar volume (all where volume is unknown)."""
    lookback_days: Count
    """Sessions over which dollar volume is measured and bars are counted."""
    min_bars: Count
    """Bars a stock must have printed in the look-back."""


class SpanConfig(Section):
    """First and last day of a span, both inclusive."""

    start: date
    end: date


class SpansConfig(Section):
    """Training, validation and test spans."""

    train: SpanConfig
    validation: SpanConfig
    test: SpanConfig


class MarketProfile(Section):
    """One market: its sectors, features, calendar, costs, universe and spans."""

    sectors: list[str] = Field(min_length=1)
    """Sector order of every array; a sector without stocks is masked."""
    calendar: str
    """Name of the exchange calendar, as in `exchange_calendars`."""
    benchmark_name: str
    """What the index is called in tables."""
    stock_features: list[str] = Field(min_length=1)
    """Names from the feature registry, in the order of the arrays."""
    macro_features: list[str] = Field(min_length=1)
    """Names from the macro registry, in the order of the arrays."""
    costs: CostConfig
    universe: UniverseConfig
    spans: SpansConfig


class SyntheticConfig(Section):
    """The two-level planted market (spec/evaluation.md 4); all returns are daily log returns."""

    n_days: Count
    stocks_per_sector: Count
    n_sectors: Count
    seed: int = Field(ge=0)
    start: date
    """First session; the rest follow the exchange calendar's weekdays."""
    stay_probability: Fraction
    """Weekly probability that the hidden regime stays."""
    market_mean_bps: list[float] = Field(min_length=3, max_length=3)
    """Daily mean of the market factor in bear, bull, sideways."""
    market_sd_pct: list[float] = Field(min_length=3, max_length=3)
    """Daily deviation of the market factor in bear, bull, sideways."""
    sector_drift_bps: float = Field(ge=0)
    """delta: drift of favoured sectors, negative for the unfavoured ones."""
    sector_sd_pct: float = Field(ge=0)
    idiosyncratic_sd_pct: float = Field(gt=0)
    alpha_strength: float = Field(ge=0)
    """beta as a multiple of the idiosyncratic deviation, earned per unit of the signal."""
    signal_autocorrelation: Fraction
    n_noise_features: int = Field(ge=0)
    """Features of pure noise beside the planted signal."""
    overnight_share: Fraction
    """Share of each log return that falls between close and open."""


class ValidationConfig(Section):
    """Thresholds of validate-data."""

    max_abs_return: Positive
    """A larger one-day move without a split is a finding."""
    max_adjustment_gap: Positive
    """Allowed gap between adjusted return and (split x close + dividend) / previous close - 1."""
    stale_run_days: Count
    """Identical closes in a row that count as a stale run."""


class RegimeConfig(Section):
    """The regime label and the filtered probabilities."""

    label_horizon_days: Count
    """Sessions ahead, from the next open."""
    label_band: Positive
    """k: bull above +k, bear below -k trailing volatility x sqrt(horizon)."""
    volatility_days: Count
    """Look-back of the trailing volatility."""
    hmm_iterations: Count


class DataConfig(Section):
    """Features, labels, splits and validation."""

    feature_clip: Positive
    """Bound of the robust z-score of a day."""
    macro_window_days: Count
    """Trailing window of the macro features' standardisation."""
    purge_days: int = Field(ge=0)
    """Sessions dropped at the end of training and validation: the longest label horizon."""
    embargo_days: int = Field(ge=0)
    """Sessions dropped at the start of validation and test."""
    macro_label_days: Count
    """Horizon of phase 1's sector returns (4 weeks are 20 sessions)."""
    micro_label_days: Count
    """Horizon of phase 2's stock returns."""
    regime: RegimeConfig
    validation: ValidationConfig
    synthetic: SyntheticConfig


class RiskConfig(Section):
    """Limits of every portfolio, the same for agents and baselines."""

    stock_cap: Fraction
    sector_cap: Fraction
    min_cash: Fraction
    bear_exposure_cut: Fraction
    """Exposure = 1 - cut x P(bear), at most 1 - min_cash."""
    turnover_cap: Positive
    """Largest half L1 trade a day, as a share of wealth; 1 is off."""
    max_positions: int = Field(ge=0)
    """Seats for stocks over all sectors; 0 is off."""
    drawdown_gate: bool
    """Halve the exposure for a while after a drawdown."""
    gate_drawdown: Fraction
    gate_exposure: Fraction
    gate_days: Count


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


class StageConfig(Section):
    """One curriculum stage: where episodes start."""

    name: str
    regime_mix: list[Fraction] = Field(min_length=3, max_length=3)
    """Shares of episodes that start in bear, bull, sideways."""
    max_share: Fraction
    """Part of the phase's steps after which the stage ends in any case."""
    promote_above: float
    """Promotion when the recent validation score exceeds this, in % log growth over 1/N a year."""


class JointConfig(Section):
    """Phase 5."""

    max_rounds: Count
    macro_steps: Count
    micro_steps: Count
    learning_rate_factor: Positive
    patience_rounds: Count


class CurriculumConfig(Section):
    """Order and stages of phases 3 to 5, checkpoints and selection."""

    stages: list[StageConfig] = Field(min_length=1)
    checkpoint_seconds: float = Field(ge=0)
    selection_window: Count
    """Evaluations in the moving mean that selects a checkpoint."""
    temperature_grid: list[Positive] = Field(min_length=1)
    """Sharpening factors tried on validation at the end of phases 1 and 2."""
    joint: JointConfig


class EvaluationConfig(Section):
    """Backtest, baselines and statistics."""

    rebalance: Literal["weekly", "monthly"]
    """Clock of the baselines: after the first session of each month, or the last of each week."""
    baselines: list[
        Literal[
            "equal_weight",
            "inverse_volatility",
            "momentum",
            "sector_momentum",
            "ridge",
            "ridge_shuffled",
            "random_policy",
            "least_traded",
            "minimum_variance",
            "mean_variance",
            "risk_budgeting",
            "hierarchical_risk_parity",
        ]
    ]
    """Which baselines a backtest runs beside the index and the random portfolios."""
    momentum_positions: Count
    momentum_days: Count
    """Formation period of 12-1 momentum, the skipped sessions included."""
    momentum_skip_days: int = Field(ge=0)
    """Latest sessions that momentum leaves out."""
    momentum_sectors: Count
    """Sectors that sector momentum holds."""
    ridge_positions: Count
    ridge_label_days: Count
    ridge_penalty: Positive
    """Times rows x mean feature variance."""
    random_positions: Count
    """Stocks of each random portfolio and of the inclusion canary (least traded)."""
    max_universe_share: Fraction
    """A selection takes at most this share of the universe, else it would be 1/N by name."""
    volatility_days: Count
    covariance_days: Count
    """Look-back of the optimised baselines."""
    bootstrap_block_days: Count
    """Mean block of the stationary bootstrap."""
    bootstrap_samples: Count
    confidence: Fraction
    """Of the intervals in the tables."""
    random_portfolios: int = Field(ge=0)
    rolling_days: Count
    """Window of the rolling Sharpe ratio."""
    stressed_delisting_return: float = Field(ge=-1, le=0)
    """Return of a delisted holding in the variant that stresses it."""


class RunConfig(Section):
    """The merged configuration of one run."""

    market: str
    """Name of the market profile."""
    seed: int = Field(ge=0, lt=2**32)
    """Of every random generator; NumPy takes 32 bits."""
    threads: Count
    """CPU threads of PyTorch; results are bit-identical for equal counts only."""
    market_profile: MarketProfile
    data: DataConfig
    risk: RiskConfig
    macro_agent: MacroAgentConfig
    micro_agent: MicroAgentConfig
    curriculum: CurriculumConfig
    evaluation: EvaluationConfig
