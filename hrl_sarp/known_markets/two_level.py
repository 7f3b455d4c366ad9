"""The planted two-level market, its best policies (oracles), and the score of others.

One stationary path is cut into a training span, a validation span and fresh test paths. Scalers,
HMM and graph are fitted on the training rows and applied to the test paths. The process forgets
its state within weeks, so the paths are independent. The oracles know every parameter of the
process, the market factor and the signal. They do not know the regimes.

Source:
    spec/evaluation.md 4, "Two-level market".
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import logsumexp
from scipy.stats import norm
from torch import Tensor

from hrl_sarp.config.market_schema import RegimeConfig, SyntheticConfig
from hrl_sarp.config.schema import RiskConfig, RunConfig
from hrl_sarp.contracts import DayRange, Goal, Market, Regime, Split
from hrl_sarp.data.sources.synthetic import SIGNAL_NAME, SyntheticTruth, draw_truth
from hrl_sarp.envs.observations import micro_view, slot_request
from hrl_sarp.envs.policies import (
    FollowGoal,
    MacroPolicy,
    MicroPolicy,
    Observation,
    ProportionalGoal,
    decode_within_sector,
)
from hrl_sarp.envs.rollout import HierarchicalPolicy, Variant, rollout
from hrl_sarp.features.labels import regime_band
from hrl_sarp.features.macro import MacroSources, compute_macro_features, split_names
from hrl_sarp.features.prices import PricePanel
from hrl_sarp.features.regime import filter_regimes, fit_regime_model, weekly_observations
from hrl_sarp.features.stock import compute_stock_features
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.metrics import SESSIONS_PER_YEAR

BPS, PERCENT = 1e-4, 1e-2
DAYS_PER_WEEK = 5
BURN_IN_WEEKS = 104
"""Rows before the training span: the longest look-back of a feature is a year."""
FIRST_MONDAY = np.datetime64("1601-01-01")
"""First day; early enough for thousands of years within the range of the date type."""
SIGNAL_STRENGTH = 4.0
"""The micro oracle holds a stock in proportion to exp(4 x signal) inside its sector."""
BISECTIONS = 60


@dataclass(frozen=True)
class PathPlan:
    """Weeks of training and validation, and the number and weeks of the test paths."""

    train_weeks: int = 10_400
    validation_weeks: int = 260
    n_paths: int = 20
    path_weeks: int = 522
    """Ten years."""

    @property
    def n_days(self) -> int:
        """Count the sessions of the whole market; a last week completes the last path."""
        weeks = self.train_weeks + self.validation_weeks + self.n_paths * self.path_weeks
        return DAYS_PER_WEEK * (BURN_IN_WEEKS + weeks + 1)

    def split(self) -> Split:
        """Cut the spans of the market; the test span holds all paths."""
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
    """A market, with the hidden truth that only oracles read."""

    market: Market
    truth: SyntheticTruth
    beliefs: Float[np.ndarray, "T R"]
    """P(regime of the next week | everything known at the close of t), of the Bayes filter."""
    synthetic: SyntheticConfig
    plan: PathPlan


def planted_market(config: RunConfig, plan: PathPlan, seed: int) -> PlantedMarket:
    """Generate the market of `config.data.synthetic` with the features of the market profile.

    Stock features are the signal and independent noise where the profile names planted features,
    and are computed from the prices where it names return features. The seed draws everything
    random and replaces that of the section.
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


def filter_beliefs(truth: SyntheticTruth, config: SyntheticConfig) -> Float[np.ndarray, "T R"]:
    """Compute P(regime of the next week | rows <= t).

    Row t uses the whole days of its week so far; the step to the next week multiplies by the
    transition matrix.
    """
    # log density of a day under each regime: of the market factor, and of the sectors' means over
    # it less what the signal explains
    own = config.idiosyncratic_sd_pct * PERCENT
    known = truth.log_return - truth.market_log_return[:, None] + own**2 / 2
    known[1:] -= config.alpha_strength * own * truth.signal[:-1]
    by_sector = known.reshape(len(known), config.n_sectors, config.stocks_per_sector)
    drift = config.sector_drift_bps * BPS * truth.sector_tilt
    squares = ((by_sector.mean(axis=2)[:, None, :] - drift) ** 2).sum(axis=2)
    mean = np.array(config.market_mean_bps) * BPS
    deviation = np.array(config.market_sd_pct) * PERCENT
    market = norm.logpdf(truth.market_log_return[:, None], mean, deviation)
    daily = market - 0.5 * squares / sector_variance(config)

    transition = transition_matrix(config)
    beliefs = np.empty(daily.shape)
    prior = np.full(len(Regime), 1 / len(Regime))
    begins = np.flatnonzero(np.diff(truth.week_of, prepend=-1))
    for start, stop in itertools.pairwise([*begins, len(daily)]):
        joint = np.log(prior) + np.cumsum(daily[start:stop], axis=0)
        posterior = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        beliefs[start:stop] = posterior @ transition
        prior = beliefs[stop - 1]
    return beliefs


def transition_matrix(config: SyntheticConfig) -> Float[np.ndarray, "R R"]:
    """Compute weekly transition probabilities; both other regimes are equally likely."""
    stay = config.stay_probability
    moved = (1 - stay) / (len(Regime) - 1)
    return np.full((len(Regime), len(Regime)), moved) + (stay - moved) * np.eye(len(Regime))


def sector_variance(config: SyntheticConfig) -> float:
    """Compute the daily variance of an equal-weighted sector around the market factor."""
    own = (config.idiosyncratic_sd_pct * PERCENT) ** 2 / config.stocks_per_sector
    return (config.sector_sd_pct * PERCENT) ** 2 + own


def label_probabilities(
    beliefs: Float[np.ndarray, "W R"],
    rows: Int[np.ndarray, " W"],
    market: Market,
    regime: RegimeConfig,
    config: SyntheticConfig,
) -> Float[np.ndarray, "W R"]:
    """Compute P(class of the regime label) at week ends from the belief, exactly.

    The label sums the factor over `label_horizon_days` sessions from the second next one on: the
    first four of the next week and the rest of the weeks after. Given a path of regimes the sum is
    normal; the paths are enumerated.
    """
    days, left = [4], regime.label_horizon_days - 4
    while left > 0:
        days.append(min(DAYS_PER_WEEK, left))
        left -= DAYS_PER_WEEK
    mean = np.array(config.market_mean_bps) * BPS
    variance = (np.array(config.market_sd_pct) * PERCENT) ** 2
    transition = transition_matrix(config)
    band = regime_band(market, regime)[rows]
    result = np.zeros((len(rows), len(Regime)))
    for path in itertools.product(Regime, repeat=len(days)):
        steps = np.prod([transition[a, b] for a, b in itertools.pairwise(path)])
        weight = beliefs[:, path[0]] * steps
        centre = sum(n * mean[state] for n, state in zip(days, path, strict=True))
        scale = np.sqrt(sum(n * variance[state] for n, state in zip(days, path, strict=True)))
        result[:, Regime.BEAR] += weight * norm.cdf(-band, centre, scale)
        result[:, Regime.BULL] += weight * norm.sf(band, centre, scale)
    result[:, Regime.SIDEWAYS] = 1 - result.sum(axis=1)
    return result


def oracle_shares(
    drift: Float[np.ndarray, "T S"], variance: float, cap: float
) -> Float[np.ndarray, "T S"]:
    """Maximise drift'w - variance/2 w'w over 0 <= w <= cap, sum w = 1, for each row.

    Solution w = clip((drift - nu) / variance, 0, cap); nu by bisection on the monotone sum.
    """
    low = drift.min(axis=1, keepdims=True) - variance
    high = drift.max(axis=1, keepdims=True)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        is_too_much = np.clip((drift - middle) / variance, 0, cap).sum(axis=1, keepdims=True) > 1
        low, high = np.where(is_too_much, middle, low), np.where(is_too_much, high, middle)
    shares = np.clip((drift - high) / variance, 0, cap)
    return shares / shares.sum(axis=1, keepdims=True)


class MacroOracle:
    """Kelly weights of the sectors under the Bayes belief, within the sector cap."""

    def __init__(self, tensors: MarketTensors, planted: PlantedMarket, risk: RiskConfig) -> None:
        variance = sector_variance(planted.synthetic)
        delta = planted.synthetic.sector_drift_bps * BPS
        drift = delta * planted.beliefs @ planted.truth.sector_tilt  # over the factor, a day
        shares = oracle_shares(drift, variance, risk.sector_cap)
        self.shares = torch.as_tensor(shares, dtype=torch.float32, device=tensors.device)
        self.beliefs = torch.as_tensor(planted.beliefs, dtype=torch.float32, device=tensors.device)

    def goal(self, observation: Observation) -> Goal:
        """Return the oracle's sector shares and the Bayes belief."""
        day = observation["day"].long().flatten()
        shares = self.shares[day]
        return Goal(shares, torch.zeros_like(shares[:, 0]), self.beliefs[day])


@dataclass(frozen=True)
class MicroOracle:
    """Moves part of the way each day to weights of exp(4 x signal) inside the goal's budgets."""

    tensors: MarketTensors
    risk: RiskConfig
    speed: float
    """Part of the way per day, from 0 to 1. Less of it saves costs."""

    def target(self, observation: Observation) -> Float[Tensor, "B N"]:
        """Return the holdings moved towards the ideal ones."""
        view = micro_view(self.tensors, observation)
        column = self.tensors.market.feature_names.index(SIGNAL_NAME)
        signal = self.tensors.slot_features[observation["day"].long().flatten(), :, column]
        request = slot_request(view, self.risk)
        ideal = decode_within_sector(signal, request, SIGNAL_STRENGTH, trade_speed=1.0)
        is_new = view.weights.sum(dim=1, keepdim=True) == 0
        speed = torch.where(is_new, 1.0, self.speed)
        return view.weights + speed * (ideal - view.weights)


@dataclass(frozen=True)
class PathScore:
    """Runs pairs of policies over the same test paths, net of costs."""

    tensors: MarketTensors
    config: RunConfig
    plan: PathPlan

    def growth(self, macro: MacroPolicy, micro: MicroPolicy) -> Float[np.ndarray, " P"]:
        """Compute the net log growth a year of a pair of policies on each path, from cash."""
        n_days = self.plan.path_days
        spans = [DayRange(start, start + n_days + 1) for start in self.plan.path_starts().tolist()]
        costs, risk = self.config.market_profile.costs, self.config.risk
        frictions = Variant(costs, risk, keeps_weights=False)
        pair = HierarchicalPolicy("pair", macro, micro)
        ledgers = rollout([pair], self.tensors, spans, [frictions])
        wealth = np.array([ledger.wealth[-1, 1] for ledger in ledgers])
        return np.log(np.maximum(wealth, 1e-12)) * SESSIONS_PER_YEAR / n_days

    def equal_weight(self) -> Float[np.ndarray, " P"]:
        """Compute the growth of 1/N: what untrained networks hold."""
        rule = FollowGoal(self.tensors, self.config.risk)
        return self.growth(ProportionalGoal(self.tensors), rule)


def share_of_gap(
    policy: Float[np.ndarray, " P"],
    oracle: Float[np.ndarray, " P"],
    equal_weight: Float[np.ndarray, " P"],
) -> float:
    """Return (policy - 1/N) / (oracle - 1/N) of the mean growths over common paths."""
    return float((policy - equal_weight).mean() / (oracle - equal_weight).mean())
