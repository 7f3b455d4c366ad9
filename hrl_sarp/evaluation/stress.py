"""Stress tests: policies through dated windows of history and through hypothetical sector shocks.

The simulator, the costs and the limits are those of the backtest. Policies move from cash into
their own holdings during a warm-up and are measured from the close before the stress on.

A shock starts after the last real day. Every later row repeats the features, the universe and the
tradable stocks of that day. Cash earns nothing, and a stock earns its sector's shock. Features are
not rebuilt from shocked prices and rules do not estimate from them, so a rule rebalances to its
targets of the last real day. A shock therefore shows the losses of holdings and limits. Only the
dated windows show how an agent reacts to a crisis.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from hrl_sarp import metrics
from hrl_sarp.config.consistency import require_shock_sectors
from hrl_sarp.config.market_schema import StressWindow
from hrl_sarp.config.schema import RunConfig, ShockConfig, StressConfig
from hrl_sarp.contracts import DayRange, Market, RiskTables, Trajectory
from hrl_sarp.envs.rollout import INDEX, Policy, Variant, rollout
from hrl_sarp.errors import MarketError
from hrl_sarp.evaluation.backtest import ACCOUNTING_DTYPE
from hrl_sarp.evaluation.baselines import make_baselines
from hrl_sarp.evaluation.performance import sector_weights
from hrl_sarp.market.tensors import MarketTensors, reward_benchmark

CAP_TOLERANCE = 1e-6
"""Weights above a cap by less than this count as rounding."""
WINDOW, SHOCK = "window", "shock"
REPEATED = (
    "listed",
    "eligible",
    "slots",
    "dollar_volume",
    "stock_features",
    "macro_features",
    "filtered_regime",
    "stock_embeddings",
    "sector_embeddings",
    "range_variance",
    "implied_volatility",
)
"""Tables whose later rows repeat the last real day."""
EMPTIED = ("overnight_return", "intraday_return", "risk_free", "benchmark_return")
"""Tables whose later rows are 0."""

PoliciesOn = Callable[[Callable[[Market], Market]], Sequence[Policy]]
"""Makes policies that read what a function makes of the market that they were trained on."""


@dataclass(frozen=True)
class StressFigures:
    """Figures of one policy in one scenario."""

    loss: float
    """1 - wealth at the end of the stress / wealth before it; negative is a gain."""
    max_drawdown: float
    """During the stress, from the wealth before it on."""
    recovery_days: int | None
    """Sessions from the deepest point back to the peak before it; None without a recovery."""
    stock_cap_days: int
    """Sessions of the stress at whose open a stock had drifted above its cap."""
    sector_cap_days: int
    """The same for sectors."""
    drawdown_limit_days: int
    """Sessions of the stress that closed deeper below the peak than the drawdown limit."""
    exposure: float | None
    """Mean share of wealth in stocks during the stress; None for the index."""
    turnover: float
    """One-sided, over the stress."""


@dataclass(frozen=True)
class ScenarioResult:
    """All policies through one scenario."""

    name: str
    kind: str
    """`window` or `shock`."""
    seen: tuple[str, ...]
    """Spans that agents were fitted or chosen on and that the window overlaps."""
    n_days: int
    """Sessions of the stress itself; the paths go on to watch the recovery."""
    dates: Shaped[np.ndarray, " D"]
    names: tuple[str, ...]
    wealth: Float[np.ndarray, "D P"]
    """In units of the wealth before the stress; row 0 is that wealth, 1."""
    figures: dict[str, StressFigures]


@dataclass(frozen=True)
class StressResult:
    """Results of a stress test, from which its report is made."""

    market: Market
    config: RunConfig
    scenarios: tuple[ScenarioResult, ...]
    not_covered: dict[str, str]
    """Window -> why it was not run."""
    policy_names: tuple[str, ...]
    """Names of the given policies, without baselines. The report is about the first."""
    frozen_on: str
    """Last real day; shocks happen after its close."""


def run_stress_test(market: Market, policies_on: PoliciesOn, config: RunConfig) -> StressResult:
    """Run every covered window and every shock for the given policies and all baselines.

    `policies_on` makes the policies for what they read: the real market for windows, and one that
    stops at the end of the test span for shocks.
    """
    windows, not_covered = _covered_windows(market, config)
    policies = list(policies_on(lambda real: real))
    results = [
        _measure(market, policies, span, config, name=window.name, kind=WINDOW)
        for window, span in windows
    ]
    day = market.split.test.stop - 1
    if config.stress.shocks:
        if day < config.stress.warm_up_days:
            raise MarketError(
                f"stress test: {market.name} has {day} sessions before {market.dates[day]}, "
                f"expected the {config.stress.warm_up_days} of stress.warm_up_days; collect more "
                "data"
            )
        longest = max(shock.days + shock.recovery_days for shock in config.stress.shocks)
        frozen = frozen_market(market, day, longest)
        stopped = partial(frozen_market, day=day, n_more=longest)
        readers = list(policies_on(stopped))  # they read features and masks, equal in all shocks
        for shock in config.stress.shocks:
            last = day + shock.days
            span = _StressSpan(day, last, last + shock.recovery_days)
            shocked = shocked_market(frozen, day, shock, config)
            results.append(_measure(shocked, readers, span, config, name=shock.name, kind=SHOCK))
    return StressResult(
        market=market,
        config=config,
        scenarios=tuple(results),
        not_covered=not_covered,
        policy_names=tuple(policy.name for policy in policies),
        frozen_on=str(market.dates[day]),
    )


@dataclass(frozen=True)
class _StressSpan:
    """Rows of a scenario: losses count from the close of `before` to that of `last`."""

    before: int
    last: int
    watched: int
    """Last row on which the recovery is watched."""


def _covered_windows(
    market: Market, config: RunConfig
) -> tuple[list[tuple[StressWindow, _StressSpan]], dict[str, str]]:
    """Find the rows of each window, or say why it cannot be run."""
    covered, not_covered = [], {}
    has_universe = np.flatnonzero(market.eligible.any(axis=1))
    first = (has_universe[0] if len(has_universe) else market.n_days) + config.stress.warm_up_days
    for window in config.market_profile.stress.windows:
        before = int(np.searchsorted(market.dates, np.datetime64(window.start)))
        last = int(np.searchsorted(market.dates, np.datetime64(window.end), side="right")) - 1
        if np.datetime64(window.end) > market.dates[-1]:
            not_covered[window.name] = f"the data end on {market.dates[-1]}"
        elif before < first:
            start = f"on {market.dates[first]}" if first < market.n_days else "never"
            not_covered[window.name] = f"the universe and {config.stress.warm_up_days} sessions of "
            not_covered[window.name] += f"warm-up exist first {start}"
        elif last > before:
            watched = min(last + config.stress.recovery_days, market.n_days - 1)
            covered.append((window, _StressSpan(before, last, watched)))
        else:
            not_covered[window.name] = "the data have no two sessions in it"
    return covered, not_covered


def _measure(
    market: Market,
    policies: Sequence[Policy],
    span: _StressSpan,
    config: RunConfig,
    *,
    name: str,
    kind: str,
) -> ScenarioResult:
    """Roll all policies through one scenario and measure what follows the warm-up."""
    tensors = MarketTensors(market, ACCOUNTING_DTYPE, "cpu")
    rows = DayRange(span.before - config.stress.warm_up_days, span.watched + 1)
    frictions = Variant(config.market_profile.costs, config.risk)
    # rules do not estimate anything from shocked prices
    baselines = make_baselines(market, config, span.before if kind == SHOCK else None)
    (found,) = rollout([*baselines, *policies], tensors, [rows], [frictions])
    first, n_days = config.stress.warm_up_days, span.last - span.before
    columns = [i for i, each in enumerate(found.names) if kind == WINDOW or each != INDEX]
    # spans on which agents were fitted or chosen that share a session with the window
    seen = tuple(
        part
        for part in ("train", "validation")
        if kind == WINDOW
        and span.before + 1 < getattr(market.split, part).stop
        and span.last >= getattr(market.split, part).start
    )
    path = np.cumprod(1.0 + found.net_return[first:, columns], axis=0)
    names = tuple(found.names[i] for i in columns)
    return ScenarioResult(
        name=name,
        kind=kind,
        seen=seen,
        n_days=n_days,
        dates=market.dates[span.before : span.watched + 1],
        names=names,
        wealth=np.concatenate([np.ones((1, len(columns))), path]),
        figures={
            found.names[i]: _figures(market, found, i, slice(first, first + n_days), config)
            for i in columns
        },
    )


def _figures(
    market: Market, found: Trajectory, column: int, stress: slice, config: RunConfig
) -> StressFigures:
    net = found.net_return[stress.start :, column]
    n_days = stress.stop - stress.start
    falls = metrics.drawdowns(net[:n_days])
    before = found.weights_before[stress, column]
    sectors = sector_weights(before, market)
    risk = config.risk
    stock_days = (before > risk.stock_cap + CAP_TOLERANCE).any(axis=1)
    sector_days = (sectors > risk.sector_cap + CAP_TOLERANCE).any(axis=1)
    exposure = float(found.weights_after[stress, column].sum(axis=1).mean())
    return StressFigures(
        loss=float(1.0 - np.prod(1.0 + net[:n_days])),
        max_drawdown=float(falls.max()),
        recovery_days=recovery_days(net, n_days, config.stress),
        stock_cap_days=int(stock_days.sum()),
        sector_cap_days=int(sector_days.sum()),
        drawdown_limit_days=int((falls > risk.gate_drawdown).sum()),
        exposure=None if found.names[column] == INDEX else exposure,
        turnover=float(found.turnover[stress, column].sum()),
    )


def recovery_days(
    net_return: Float[np.ndarray, " D"], n_days: int, config: StressConfig
) -> int | None:
    """Count the sessions from the deepest point of the stress back to the peak before it.

    `net_return` covers the stress, of `n_days` sessions, and what follows it. The count is 0 if the
    stress never cost more than `recovered_within`, and None if the peak was not reached again.
    """
    wealth = np.concatenate([[1.0], np.cumprod(1.0 + net_return)])
    peak = np.maximum.accumulate(wealth[: n_days + 1])
    deepest = int(np.argmax(1.0 - wealth[: n_days + 1] / peak))
    target = (1.0 - config.recovered_within) * peak[deepest]
    back: Int[np.ndarray, " n"] = np.flatnonzero(wealth[deepest:] >= target)
    return int(back[0]) if len(back) else None


def frozen_market(market: Market, day: int, n_more: int) -> Market:
    """Cut the market after row `day` and append `n_more` sessions on which nothing happens.

    The sessions are the weekdays that follow. Stocks that were halted on the day trade again on the
    next.
    """

    def repeated(table: np.ndarray) -> np.ndarray:
        return np.concatenate([table[: day + 1], np.repeat(table[[day]], n_more, axis=0)])

    shown = {name: getattr(market, name) for name in REPEATED}
    tables: dict[str, Any] = {n: repeated(table) for n, table in shown.items() if table is not None}
    if market.risk is not None:
        parts = {field.name: getattr(market.risk, field.name) for field in fields(market.risk)}
        longer: dict[str, Any] = {
            name: repeated(part) if isinstance(part, np.ndarray) else part
            for name, part in parts.items()
        }
        tables["risk"] = RiskTables(**longer)
    for name in EMPTIED:
        real = getattr(market, name)[: day + 1]
        tables[name] = np.concatenate([real, np.zeros((n_more, *real.shape[1:]), real.dtype)])
    later = np.busday_offset(market.dates[day], np.arange(1, n_more + 1), roll="backward")
    tables["dates"] = np.concatenate([market.dates[: day + 1], later.astype(market.dates.dtype)])
    fridays = np.is_busday(later, weekmask="Fri")
    tables["is_week_end"] = np.concatenate([market.is_week_end[: day + 1], fridays])
    tables["tradable"] = np.concatenate([market.tradable[: day + 1], tables["listed"][day + 1 :]])
    return replace(market, **tables)


def shocked_market(frozen: Market, day: int, shock: ShockConfig, config: RunConfig) -> Market:
    """Let a shock and its recovery happen after `day` of a frozen market; then nothing again.

    A sector that loses s over n sessions moves by (1 + s)^(1/n) - 1 on each, split between night
    and day by `overnight_share` of the logarithm. Its recovery over m sessions undoes that by
    (1 + s)^(-1/m) - 1 a session. A portfolio that holds still loses the sum of weight x s. No
    scenario says what the index does: it earns what 1/N of the universe does.
    """
    closes_only = not frozen.intraday_return.any()
    night_share = 1.0 if closes_only else config.stress.overnight_share
    path = session_log_returns(shock, frozen.sector_names, config)[:, frozen.sector_of]
    rows = slice(day + 1, day + 1 + len(path))
    overnight, intraday = frozen.overnight_return.copy(), frozen.intraday_return.copy()
    overnight[rows] = np.expm1(night_share * path) * frozen.listed[rows]
    intraday[rows] = np.expm1((1 - night_share) * path) * frozen.listed[rows]
    market = replace(frozen, overnight_return=overnight, intraday_return=intraday)
    benchmark = frozen.benchmark_return.copy()
    benchmark[rows] = reward_benchmark(market)[rows]
    return replace(market, benchmark_return=benchmark)


def session_log_returns(
    shock: ShockConfig, sector_names: tuple[str, ...], config: RunConfig
) -> Float[np.ndarray, "D S"]:
    """Return each sector's log return on each session of the shock, then of the recovery."""
    mapped, order = config.market_profile.stress.sectors, config.stress.sectors
    require_shock_sectors(config, sector_names)
    total = np.log1p([shock.sector_returns[order.index(mapped[name])] for name in sector_names])
    falls = np.tile(total / shock.days, (shock.days, 1))
    recovers = np.tile(-total / shock.recovery_days, (shock.recovery_days, 1))
    return np.concatenate([falls, recovers])
