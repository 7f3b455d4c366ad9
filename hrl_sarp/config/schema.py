"""Types, ranges and meaning of every configuration value; the values are in config/*.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from hrl_sarp.config.agent_schema import (
    GraphConfig,
    MacroAgentConfig,
    MacroNetworkConfig,
    MacroRewardConfig,
    MicroAgentConfig,
    MicroNetworkConfig,
    MicroRewardConfig,
    PPOConfig,
    SupervisedConfig,
    TD3Config,
)
from hrl_sarp.config.encoder_schema import EncodersConfig, WindowedConfig
from hrl_sarp.config.market_schema import (
    CostConfig,
    DataConfig,
    MarketProfile,
    MarketStressConfig,
    RegimeConfig,
    SpanConfig,
    SpansConfig,
    StressWindow,
    SyntheticConfig,
    UniverseConfig,
    ValidationConfig,
    YahooConfig,
)
from hrl_sarp.config.section import Count, Fraction, Positive, Section

__all__ = [
    "CostConfig",
    "CurriculumConfig",
    "DataConfig",
    "EncodersConfig",
    "EvaluationConfig",
    "GraphConfig",
    "JointConfig",
    "MacroAgentConfig",
    "MacroNetworkConfig",
    "MacroRewardConfig",
    "MarketProfile",
    "MarketStressConfig",
    "MicroAgentConfig",
    "MicroNetworkConfig",
    "MicroRewardConfig",
    "PPOConfig",
    "RegimeConfig",
    "RiskConfig",
    "RunConfig",
    "Section",
    "ShockConfig",
    "SpanConfig",
    "SpansConfig",
    "StageConfig",
    "StressConfig",
    "StressWindow",
    "SupervisedConfig",
    "SyntheticConfig",
    "TD3Config",
    "UniverseConfig",
    "ValidationConfig",
    "WindowedConfig",
    "YahooConfig",
]


class RiskConfig(Section):
    """Limits of every portfolio, the same for agents and baselines."""

    stock_cap: Fraction
    """Largest weight of one stock, as a share of wealth."""
    sector_cap: Fraction
    """Largest weight of one sector, as a share of wealth."""
    min_cash: Fraction
    """Smallest share of wealth in cash."""
    bear_exposure_cut: Fraction
    """Exposure = 1 - cut x P(bear), at most 1 - min_cash."""
    turnover_cap: Positive
    """Largest half L1 trade a day, as a share of wealth; 1 is off."""
    max_positions: int = Field(ge=0)
    """Seats for stocks over all sectors; 0 is off."""
    drawdown_gate: bool
    """Halve the exposure for a while after a drawdown."""
    gate_drawdown: Fraction
    """Loss from the running peak that closes the gate."""
    gate_exposure: Fraction
    """Factor on the exposure while the gate is closed."""
    gate_days: Count
    """Sessions the gate stays closed; then the peak starts anew."""


class StageConfig(Section):
    """One curriculum stage: where episodes start."""

    name: str
    """What logs and tables call the stage."""
    regime_mix: list[Fraction] = Field(min_length=3, max_length=3)
    """Shares of episodes that start in bear, bull, sideways."""
    max_share: Fraction
    """Part of the phase's steps after which the stage ends in any case."""
    promote_above: float
    """Promotion when the recent validation score exceeds this, in % log growth over 1/N a year."""


class JointConfig(Section):
    """Phase 5."""

    max_rounds: Count
    """Rounds of macro, then micro training, at most."""
    macro_steps: Count
    """Env steps of the macro agent in a round."""
    micro_steps: Count
    """Env steps of the micro agent in a round."""
    learning_rate_factor: Positive
    """Times the learning rates of phases 3 and 4."""
    selection_window: Count
    """Rounds in the moving mean that selects the best pair."""
    patience_rounds: Count
    """Rounds without a better validation score after which the phase ends."""


class CurriculumConfig(Section):
    """Order and stages of phases 3 to 5, checkpoints and selection."""

    stages: list[StageConfig] = Field(min_length=1)
    """In their order."""
    checkpoint_seconds: float = Field(ge=0)
    """Wall time between two checkpoints; 0 saves at every boundary."""
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
    """Times rows x mean feature variance."""
    random_positions: Count
    """Stocks of each random portfolio and of the inclusion canary (least traded)."""
    max_universe_share: Fraction
    """A selection takes at most this share of the universe, else it would be 1/N by name."""
    volatility_days: Count
    """Look-back of inverse volatility."""
    covariance_days: Count
    """Look-back of the optimised baselines."""
    optimised_max_slots: int = Field(ge=0)
    """Larger universes leave the optimised baselines out: a fit of 500 stocks takes 0.5 s."""
    bootstrap_block_days: Count
    """Mean block of the stationary bootstrap."""
    bootstrap_samples: Count
    """Resampled series behind each interval."""
    confidence: Fraction
    """Of the intervals in the tables."""
    random_portfolios: int = Field(ge=0)
    """Random portfolios that every policy is ranked against."""
    rolling_days: Count
    """Window of the rolling Sharpe ratio."""
    stressed_delisting_return: float = Field(ge=-1, le=0)
    """Return of a delisted holding in the variant that stresses it."""


class ShockConfig(Section):
    """One hypothetical shock, told by sectors."""

    name: str
    """What tables and figures call it."""
    sector_returns: list[Annotated[float, Field(gt=-1)]]
    """Total simple return of each sector over the shock, in the order of `StressConfig.sectors`."""
    days: Count
    """Sessions over which the returns spread, evenly in logarithms."""
    recovery_days: Count
    """Sessions in which every sector returns to where it was, evenly in logarithms."""
    probability: Fraction
    """A year, as the scenario's source has it; shown, never used."""


class StressConfig(Section):
    """The command stress-test; dated windows stand in the market profile."""

    sectors: list[str] = Field(min_length=1)
    """Sectors that the shocks are told by."""
    shocks: list[ShockConfig]
    """Hypothetical scenarios."""
    warm_up_days: Count
    """Sessions before a scenario in which policies move from cash into their own holdings."""
    overnight_share: Fraction
    """Part of each day's log return that falls over night; all of it in data of closes only."""
    recovery_days: int = Field(ge=0)
    """Sessions after a dated window in which recovery is watched, as far as the data go."""
    recovered_within: Fraction
    """Wealth this close to its former peak, as a fraction of it, has recovered."""


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
    stress: StressConfig
    windowed: WindowedConfig
    encoders: EncodersConfig
