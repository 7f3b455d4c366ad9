"""The backtest: policies and baselines as one batch, and again under other frictions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hrl_sarp.config.schema import CostConfig, RunConfig
from hrl_sarp.contracts import DayRange, Market, Trajectory
from hrl_sarp.evaluation.baselines import make_baselines, make_random_portfolios
from hrl_sarp.evaluation.policies import Policy
from hrl_sarp.evaluation.rollout import RolloutOptions, rollout
from hrl_sarp.market.tensors import MarketTensors

ACCOUNTING_DTYPE = torch.float64
"""Accounting of a backtest is exact to rounding, whatever the agents were trained in."""


@dataclass(frozen=True)
class BacktestResult:
    """Everything a report is computed from."""

    market: Market
    config: RunConfig
    span_name: str
    """"test", "validation" or "train"."""
    main: Trajectory
    """Index, baselines and policies at the market's costs."""
    random: Trajectory | None
    """The index and portfolios of random stocks, without weights; None if none are configured."""
    variants: dict[str, Trajectory]
    """The main rows under other frictions, without weights."""
    policy_names: tuple[str, ...]
    """The policies that were handed in, not baselines."""
    n_trials: int
    """Policies and checkpoints looked at, as far as the caller knows; at least the rows shown."""


def backtest(
    market: Market, policies: Sequence[Policy], span: DayRange, config: RunConfig
) -> Trajectory:
    """Roll out the policies over the span at the market's costs, the index in front.

    Args:
        market: with its universe, features and returns.
        policies: agents and baselines; all run as one batch in float64 on the CPU.
        span: starts in cash at the close of its first session, ends with its last.
        config: costs, risk limits.

    Returns:
        One row per session after the first.
    """
    tensors = MarketTensors(market, ACCOUNTING_DTYPE, "cpu")
    options = RolloutOptions(config.market_profile.costs, config.risk)
    return _run(tensors, policies, span, options)


def run_backtest(
    market: Market,
    policies: Sequence[Policy],
    span_name: str,
    config: RunConfig,
    n_trials: int = 1,
) -> BacktestResult:
    """Backtest the policies beside the configured baselines, random portfolios and variants.

    Args:
        market: with a split that has `span_name`.
        policies: agents; may be empty.
        span_name: "train", "validation" or "test".
        config: everything else.
        n_trials: policies and checkpoints looked at for this question: validation evaluations
            and temperatures chosen from, plus the policies shown. Rows shown count in any case.
    """
    span: DayRange = getattr(market.split, span_name)
    tensors = MarketTensors(market, ACCOUNTING_DTYPE, "cpu")
    costs = config.market_profile.costs
    rows = [*make_baselines(market, config), *policies]
    main = _run(tensors, rows, span, RolloutOptions(costs, config.risk))
    # without a delisting a stressed delisting return is the main rollout: no need to repeat it
    has_delistings = bool(main.delisted_value.any())
    variants = {
        name: main
        if options.costs.delisting_return != costs.delisting_return and not has_delistings
        else _run(tensors, rows, span, options)
        for name, options in _variant_options(config).items()
    }
    random_rows = make_random_portfolios(config)
    quiet = RolloutOptions(costs, config.risk, keeps_weights=False)
    return BacktestResult(
        market=market,
        config=config,
        span_name=span_name,
        main=main,
        random=_run(tensors, random_rows, span, quiet) if random_rows else None,
        variants=variants,
        policy_names=tuple(policy.name for policy in policies),
        n_trials=max(n_trials, len(rows)),
    )


def _run(
    tensors: MarketTensors, policies: Sequence[Policy], span: DayRange, options: RolloutOptions
) -> Trajectory:
    with torch.no_grad():
        return rollout(tensors, policies, span, options)


def _variant_options(config: RunConfig) -> dict[str, RolloutOptions]:
    costs, risk = config.market_profile.costs, config.risk
    stressed = config.evaluation.stressed_delisting_return
    delisting = costs.model_copy(update={"delisting_return": stressed})
    gated = risk.model_copy(update={"drawdown_gate": True})
    return {
        "zero costs": RolloutOptions(_scaled(costs, 0.0), risk, keeps_weights=False),
        "double costs": RolloutOptions(_scaled(costs, 2.0), risk, keeps_weights=False),
        "one session late": RolloutOptions(costs, risk, lag_days=1, keeps_weights=False),
        f"delisted at {stressed:+.0%}": RolloutOptions(delisting, risk, keeps_weights=False),
        "drawdown gate": RolloutOptions(costs, gated, keeps_weights=False),
    }


def _scaled(costs: CostConfig, factor: float) -> CostConfig:
    rates = ("buy_bps", "sell_bps", "slippage_bps", "impact_coefficient")
    return costs.model_copy(update={name: factor * getattr(costs, name) for name in rates})
