"""The planted two-level market as long arrays, with what its oracles know.

One stationary path is cut into a training span, a validation span and fresh test paths, so that
everything fitted on the training rows (scalers, HMM, graph) serves the test paths as it would in
use. The paths are windows of one process that forgets its state within weeks.

Source:
    spec/evaluation.md 4, "Two-level market".
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from hrl_sarp.config.market_schema import SyntheticConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, Market, Split
from hrl_sarp.data.sources.synthetic import SIGNAL_NAME, SyntheticTruth, draw_truth
from hrl_sarp.features.macro import MacroSources, compute_macro_features, split_names
from hrl_sarp.features.prices import PricePanel
from hrl_sarp.features.regime import filter_regimes, fit_regime_model, weekly_observations
from hrl_sarp.features.stock import compute_stock_features
from hrl_sarp.known_markets.bayes_filter import filter_beliefs

DAYS_PER_WEEK = 5
BURN_IN_WEEKS = 104
"""Rows before the training span: the longest look-back of a feature is a year."""
FIRST_MONDAY = np.datetime64("1601-01-01")
"""Early enough for thousands of years of weekdays within the range of the date type."""


@dataclass(frozen=True)
class PathPlan:
    """How many weeks are learned from, selected on and judged on."""

    train_weeks: int = 10_400
    validation_weeks: int = 260
    n_paths: int = 20
    path_weeks: int = 522
    """Ten years."""

    @property
    def n_days(self) -> int:
        """Sessions of the whole market; a last week closes the last path."""
        weeks = self.train_weeks + self.validation_weeks + self.n_paths * self.path_weeks
        return DAYS_PER_WEEK * (BURN_IN_WEEKS + weeks + 1)

    def split(self) -> Split:
        """Spans of the market; the test span holds all paths."""
        train = DAYS_PER_WEEK * BURN_IN_WEEKS
        validation = train + DAYS_PER_WEEK * self.train_weeks
        test = validation + DAYS_PER_WEEK * self.validation_weeks
        gap = DAYS_PER_WEEK * DAYS_PER_WEEK  # five weeks: the longest label is 21 sessions
        return Split(
            DayRange(train, validation - gap),
            DayRange(validation, test - gap),
            DayRange(test, self.n_days),
        )

    def path_starts(self) -> Int[np.ndarray, " P"]:
        """Row at which each test path begins: the last session of a week."""
        first = self.split().test.start + DAYS_PER_WEEK - 1
        return first + DAYS_PER_WEEK * self.path_weeks * np.arange(self.n_paths)

    @property
    def path_days(self) -> int:
        """Sessions that are earned on a test path."""
        return DAYS_PER_WEEK * self.path_weeks


@dataclass(frozen=True)
class PlantedMarket:
    """A market and the truth that only oracles may read."""

    market: Market
    truth: SyntheticTruth
    beliefs: Float[np.ndarray, "T R"]
    """P(regime of the next week | everything known at the close of t), of the Bayes filter."""
    synthetic: SyntheticConfig
    plan: PathPlan


def planted_market(config: RunConfig, plan: PathPlan, seed: int) -> PlantedMarket:
    """Generate the market of `config.data.synthetic` with the features of the market profile.

    Stock features are the signal and independent noise where the profile names planted features,
    and are computed from the prices where it names return features.

    Args:
        config: profile, synthetic section and feature windows are read.
        plan: spans and paths.
        seed: of everything random; replaces the section's own.
    """
    synthetic = config.data.synthetic.model_copy(update={"n_days": plan.n_days, "seed": seed})
    rng = np.random.default_rng(seed)
    dates = np.busday_offset(FIRST_MONDAY, np.arange(plan.n_days))
    truth = draw_truth(synthetic, dates, rng)
    market = _to_market(config, plan, truth, rng)
    return PlantedMarket(market, truth, filter_beliefs(truth, synthetic), synthetic, plan)


def _to_market(
    config: RunConfig, plan: PathPlan, truth: SyntheticTruth, rng: np.random.Generator
) -> Market:
    panel = _price_panel(config, truth)
    profile, data = config.market_profile, config.data
    week_end = np.arange(plan.n_days) % DAYS_PER_WEEK == DAYS_PER_WEEK - 1
    benchmark = np.expm1(truth.market_log_return)
    regime = _filtered_regime(config, plan, benchmark, week_end)
    macro_names, portfolio_names = split_names(profile.macro_features)
    return panel.to_market(
        slice(None),
        np.arange(len(panel.symbols)),
        _planted_features(config, truth, rng)
        if SIGNAL_NAME in profile.stock_features
        else compute_stock_features(panel, profile.stock_features, data.feature_clip),
        name=config.market,
        sector_names=tuple(profile.sectors),
        eligible=panel.tradable,
        slots=np.tile(np.arange(len(panel.symbols)), (plan.n_days, 1)),
        risk_free=np.zeros(plan.n_days),
        benchmark_return=benchmark,
        benchmark_name=profile.benchmark_name,
        feature_names=tuple(profile.stock_features),
        macro_features=compute_macro_features(
            MacroSources(panel, benchmark, regime, {}),
            macro_names,
            data.macro_window_days,
            data.feature_clip,
        ),
        macro_names=macro_names,
        portfolio_names=portfolio_names,
        filtered_regime=regime.astype(np.float32),
        is_week_end=week_end,
        split=plan.split(),
    )


def _price_panel(config: RunConfig, truth: SyntheticTruth) -> PricePanel:
    night = config.data.synthetic.overnight_share
    shape = truth.log_return.shape
    always = np.ones(shape, dtype=bool)
    unknown = np.full(shape, np.nan, dtype=np.float32)
    per_sector = config.data.synthetic.stocks_per_sector
    return PricePanel(
        dates=truth.dates,
        symbols=truth.symbols,
        sector_of=np.arange(shape[1]) // per_sector,
        n_sectors=len(config.market_profile.sectors),
        overnight_return=np.expm1(night * truth.log_return),
        intraday_return=np.expm1((1 - night) * truth.log_return),
        printed=always,
        tradable=always,
        listed=always,
        high_to_close=unknown,
        low_to_close=unknown,
        dollar_volume=np.zeros(shape, dtype=np.float32),
        columns=frozenset({"open", "close"}),
    )


def _planted_features(
    config: RunConfig, truth: SyntheticTruth, rng: np.random.Generator
) -> Float[np.ndarray, "T A F"]:
    """Stack the signal and noise, both of unit variance already, inside the clip."""
    names, clip = config.market_profile.stock_features, config.data.feature_clip
    features = rng.standard_normal((*truth.signal.shape, len(names)), dtype=np.float32)
    features[..., names.index(SIGNAL_NAME)] = truth.signal
    return np.clip(features, -clip, clip, out=features)


def _filtered_regime(
    config: RunConfig, plan: PathPlan, benchmark: np.ndarray, week_end: np.ndarray
) -> Float[np.ndarray, "T R"]:
    """Fit the HMM on the training weeks and filter all rows, as the assembly of a market does."""
    observations, rows = weekly_observations(benchmark, week_end)
    train = plan.split().train
    inside = (rows >= train.start + DAYS_PER_WEEK) & (rows < train.stop)
    model = fit_regime_model(observations[inside], config.data.regime.hmm_iterations)
    return filter_regimes(model, observations, rows, plan.n_days)


def sector_drift(planted: PlantedMarket) -> Float[np.ndarray, "T S"]:
    """Expected daily drift of each sector over the market factor, under the Bayes belief."""
    delta = planted.synthetic.sector_drift_bps * 1e-4
    return delta * planted.beliefs @ planted.truth.sector_tilt
