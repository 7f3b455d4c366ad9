"""The backtest: rolls out policies and baselines as one batch, under several cost assumptions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from hrl_sarp.config.market_schema import CostConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, Market, Trajectory
from hrl_sarp.envs.rollout import Policy, Variant, rollout
from hrl_sarp.evaluation.baselines import make_baselines, make_random_portfolios
from hrl_sarp.evaluation.own_policy import configured_policies
from hrl_sarp.evaluation.statistics import Trials
from hrl_sarp.evaluation.trials import SpanHistory, record_backtest
from hrl_sarp.market.own.profile import cuts_of
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.run.trials import Span, TrialLog

ROUNDED = 12
"""Digits in which two series of returns are equal."""
ACCOUNTING_DTYPE = torch.float64
"""Precision of a backtest's accounting, whatever the agents were trained in."""


@dataclass(frozen=True)
class BacktestResult:
    """The rollouts of a backtest, from which the report is computed.

    Examples:
        >>> import numpy as np
        >>> from hrl_sarp.config.loading import load_config
        >>> from hrl_sarp.contracts import DayRange, Split
        >>> from hrl_sarp.known_markets.small_market import market_of_returns
        >>> split = Split(DayRange(0, 60), DayRange(60, 60), DayRange(60, 99))
        >>> market = market_of_returns("two stocks", np.full((99, 2), 0.01), np.arange(2), split)
        >>> none = {"evaluation": {"baselines": [], "random_portfolios": 0}}
        >>> config = load_config(market="sample", overrides=none)
        >>> result = run_backtest(market, [], "test", config)
        >>> result.main.names
        ('index', '1/N')
    """

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
    """Names of the given policies, without baselines."""
    descriptions: dict[str, str]
    """Name of a row -> what it is, in a phrase; without rows whose policy does not say it in an
    attribute `description`."""
    trials: Trials
    """Configurations evaluated on the span, the given policies included; baselines are none."""
    history: SpanHistory | None
    """Earlier looks at the span; None where no trial log was kept."""


def backtest(
    market: Market, policies: Sequence[Policy], span: DayRange, config: RunConfig
) -> Trajectory:
    """Roll out the policies over the span at the market's costs; the index is the first row.

    Args:
        market: with its universe, features and returns.
        policies: agents and baselines. All run as one batch in float64 on the CPU.
        span: starts in cash at the close of its first session, ends with its last.
        config: costs, risk limits.

    Returns:
        One row per session after the first.
    """
    tensors = MarketTensors(market, ACCOUNTING_DTYPE, "cpu")
    (found,) = rollout(
        policies, tensors, [span], [Variant(config.market_profile.costs, config.risk)]
    )
    return found


def run_backtest(
    market: Market,
    policies: Sequence[Policy],
    span_name: str,
    config: RunConfig,
    n_trials: int = 0,
    log: TrialLog | None = None,
) -> BacktestResult:
    """Backtest the policies beside the configured baselines, random portfolios and variants.

    Args:
        market: with a split that has `span_name`.
        policies: agents; may be empty.
        span_name: "train", "validation" or "test".
        config: everything else.
        n_trials: further configurations that were evaluated on the span and that the log does not
            hold. They are added to those that it holds and to the policies shown.
        log: gets a line for each row, and tells what was evaluated on the span before. None keeps
            no log.

    Returns:
        The rollouts.
    """
    span: DayRange = getattr(market.split, span_name)
    tensors = MarketTensors(market, ACCOUNTING_DTYPE, "cpu")
    section = config.evaluation
    own = configured_policies(section.extra_baselines, "evaluation.extra_baselines")
    policies = [
        *policies,
        *configured_policies(section.extra_policies, "evaluation.extra_policies"),
    ]
    rows = [*make_baselines(market, config), *own, *policies]
    costs, risk = config.market_profile.costs, config.risk
    quiet = Variant(costs, risk, keeps_weights=False)
    stressed = config.evaluation.stressed_delisting_return
    delisting = costs.model_copy(update={"delisting_return": stressed})
    gated = risk.model_copy(update={"drawdown_gate": True})
    frictions = {
        "zero costs": replace(quiet, costs=scaled_costs(costs, 0.0)),
        "double costs": replace(quiet, costs=scaled_costs(costs, 2.0)),
        "one session late": replace(quiet, lag_days=1),
        f"delisted at {stressed:+.0%}": replace(quiet, costs=delisting),
        "drawdown gate": replace(quiet, risk=gated),
    }
    main, *others = rollout(rows, tensors, [span], [Variant(costs, risk), *frictions.values()])
    draws = make_random_portfolios(config)
    names = tuple(policy.name for policy in policies)
    looked = record_backtest(main, market, Span.of(market, span_name), config, names, log)
    trials = replace(looked.trials, count=looked.trials.count + n_trials)
    return BacktestResult(
        market=market,
        config=config,
        span_name=span_name,
        main=main,
        random=rollout(draws, tensors, [span], [quiet])[0] if draws else None,
        variants=dict(zip(frictions, others, strict=True)),
        policy_names=names,
        descriptions={
            policy.name: told for policy in rows if (told := getattr(policy, "description", ""))
        },
        trials=trials,
        history=looked.history,
    )


def cut_sentences(result: BacktestResult) -> list[str]:
    """Say what the backtest did not get of what was asked for: rows, days, sectors, an index.

    Args:
        result: the rollouts.

    Returns:
        A sentence for policies that are one portfolio, and for each cut of the market.
    """
    main, same = result.main, dict[bytes, list[str]]()
    for column, name in enumerate(main.names):
        earned = main.net_return[:, column].round(ROUNDED) + 0.0  # no zero with a minus sign
        same.setdefault(earned.tobytes(), []).append(name)
    sentences = [
        f"{', '.join(names[:-1])} and {names[-1]} are one portfolio here: they earned the same in "
        "every session."
        for names in same.values()
        if len(names) > 1
    ]
    return [*sentences, *(f"{cut[0].upper()}{cut[1:]}." for cut in cuts_of(result.market))]


def scaled_costs(costs: CostConfig, factor: float) -> CostConfig:
    """Multiply what a trade costs; what a delisting leaves stays as it is."""
    rates = ("buy_bps", "sell_bps", "slippage_bps", "impact_coefficient")
    return costs.model_copy(update={name: factor * getattr(costs, name) for name in rates})
