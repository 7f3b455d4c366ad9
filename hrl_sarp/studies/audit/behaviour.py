"""Lets the future of a market differ, and compares what is seen, decided, earned and rewarded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, Market, RiskTables, StepResult, Trajectory
from hrl_sarp.envs.gym_env import make_level
from hrl_sarp.envs.policies import ClassicalGoal, FollowGoal
from hrl_sarp.envs.rollout import HierarchicalPolicy, Policy, Variant, rollout
from hrl_sarp.evaluation.attribution import CLASSICAL_PRIOR
from hrl_sarp.evaluation.baselines import make_baselines
from hrl_sarp.evaluation.own_policy import configured_policies
from hrl_sarp.graph import adjacency, with_node_features
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.studies.audit.checks import Check

LevelName = Literal["macro", "micro"]
Change = Callable[[Market], Market]
Trained = Callable[[Change], Sequence[Policy]]
"""Loads the trained pairs of a run on the market that a change makes of the run's own."""

UNMOVED = "nothing moved"
CALENDAR = ("dates", "is_week_end", "sector_of")
"""Fields that stay: the calendar is published ahead, and the last one has no days."""
SESSIONS = 40
"""Sessions up to t that policies trade."""
N_ENVS = 3
"""Portfolios that are traded at random at a time."""
NEAR = 1e-9
"""Largest error of a session's return in float64."""
EARNED = ("net_return", "gross_return", "cost", "turnover", "weights_before", "weights_after")
"""Columns of a ledger that are known at the close of their session."""


def with_shuffled_future(market: Market, row: int) -> Market:
    """Shuffle the days after a row; the rows of all tables move together.

    Args:
        market: assembled.
        row: of the last day that stays.

    Returns:
        A market with the same calendar that agrees with it up to the row.
    """
    order = np.arange(market.n_days)
    np.random.default_rng(row).shuffle(order[row + 1 :])
    risk = None if market.risk is None else replace(market.risk, **_reordered(market.risk, order))
    return replace(market, **_reordered(market, order), risk=risk)


def _reordered(holder: Market | RiskTables, order: np.ndarray) -> dict[str, Any]:
    tables = {f.name: getattr(holder, f.name) for f in fields(holder) if f.name not in CALENDAR}
    return {name: table[order] for name, table in tables.items() if isinstance(table, np.ndarray)}


def check_graph(market: Market, config: RunConfig, rows: Sequence[int]) -> Check:
    """Compare nodes and edges of the sector graph up to each t."""
    settings, leaks = config.macro_agent.graph, dict[str, str]()

    def made(which: Market) -> Mapping[str, Any]:
        nodes = with_node_features(which, settings).sector_embeddings
        return {"sector nodes": nodes, "sector edges": adjacency(which, settings)}

    expected = made(market)
    for row in rows:
        found = made(with_shuffled_future(market, row))
        for name, table in expected.items():
            same = (table[: row + 1] == found[name][: row + 1]).reshape(row + 1, -1).all(axis=1)
            if not same.all():
                first = market.dates[int(np.argmin(same))]
                leaks.setdefault(name, f"{name} of {first} (t = {market.dates[row]})")
    tried = "shuffled the market after t; nodes and edges of the sector graph"
    return Check.of("sector graph", tried, list(leaks.values()), UNMOVED)


@dataclass(frozen=True)
class Walk:
    """What a level showed and gave while it was traded at random up to a day."""

    seen: dict[str, list[Tensor]]
    """Observations of each close."""
    rewards: dict[str, list[Tensor]]
    """Reward and terms of each step."""
    trades: list[StepResult]


def walk(market: Market, config: RunConfig, level: LevelName, row: int) -> Walk:
    """Trade a level at random from `SESSIONS` before a row to it, and keep all that it shows.

    Args:
        market: with the sector table that the macro agent reads, if it has one.
        config: of the run.
        level: whose actions are drawn.
        row: at whose close the walk ends; a week end for the macro level.

    Returns:
        Equal for markets that agree up to the row, unless something looks ahead.
    """
    made = make_level(MarketTensors(market, torch.float64, "cpu"), config, level, N_ENVS)
    start = max(0, row - SESSIONS)
    made.reset(torch.full((N_ENVS,), start), torch.ones(N_ENVS, dtype=torch.bool))
    found = Walk({}, {}, [])
    trade_day = made.clocks.trade_day

    def kept(*orders: Any) -> StepResult:
        found.trades.append(trade_day(*orders))
        return found.trades[-1]

    made.clocks.trade_day = kept  # type: ignore[method-assign, assignment]
    rng = np.random.default_rng(row)
    size = made.action_space.shape[0]
    while int(made.clocks.day[0]) < row:
        for name, value in _named(made.observe("index")) + _named(made.observe("full")):
            found.seen.setdefault(name, []).append(value)
        step = made.step(torch.as_tensor(rng.random((N_ENVS, size))))
        for name, value in {"reward": step.reward, **step.terms}.items():
            found.rewards.setdefault(name, []).append(value)
    for name, value in _named(made.observe("index")) + _named(made.observe("full")):
        found.seen.setdefault(name, []).append(value)
    return found


def _named(observation: Any) -> list[tuple[str, Tensor]]:
    if not isinstance(observation, Mapping):
        return [("observation", observation)]
    return [(str(name), value) for name, value in observation.items()]


def check_levels(market: Market, config: RunConfig, rows: Sequence[int]) -> list[Check]:
    """Compare observations and rewards of both levels, and account for every session again.

    Args:
        market: assembled.
        config: of the run.
        rows: of the days t.

    Returns:
        The checks of observations, rewards and fills.
    """
    if market.sector_embeddings is None:
        market = with_node_features(market, config.macro_agent.graph)
    seen, rewarded, fills = dict[str, str](), dict[str, str](), dict[str, str]()
    for level, row in _walks(market, rows):
        first = walk(market, config, level, row)
        other = walk(with_shuffled_future(market, row), config, level, row)
        t = market.dates[row]
        for name in _unlike(first.seen, other.seen):
            seen.setdefault(name, f"{name} of the {level} agent (t = {t})")
        for name in _unlike(first.rewards, other.rewards):
            own = f", see {config.rewards.extra}" if config.rewards.extra else ""
            rewarded.setdefault(name, f"{name} of the {level} agent (t = {t}{own})")
        for day in wrong_sessions(market, first.trades):
            fills.setdefault("first", f"{market.dates[day]}: the return is not that of its own row")
    earned = "night on the holdings before, day on those after the fill at the open"
    return [
        Check.of(
            "observations",
            "shuffled the market after t; what both agents see at each close up to t",
            list(seen.values()),
            UNMOVED,
        ),
        Check.of(
            "rewards",
            "shuffled the market after t; rewards of the steps that end at t or before",
            list(rewarded.values()),
            UNMOVED,
        ),
        Check.of(
            "fills",
            f"computed every session again: {earned}",
            list(fills.values()),
            "every return is that of its own session",
        ),
    ]


def _walks(market: Market, rows: Sequence[int]) -> Iterator[tuple[LevelName, int]]:
    for row in rows:
        yield "micro", row
        week_ends = np.flatnonzero(market.is_week_end[: row + 1])
        if len(week_ends):
            yield "macro", int(week_ends[-1])


def _unlike(first: Mapping[str, list[Tensor]], other: Mapping[str, list[Tensor]]) -> list[str]:
    return [
        name
        for name, values in first.items()
        if len(values) != len(other[name]) or not all(map(torch.equal, values, other[name]))
    ]


def wrong_sessions(market: Market, trades: Sequence[StepResult]) -> list[int]:
    """Return the rows whose return is not the night on the old and the day on the new holdings.

    Sessions in which a holding was delisted are left out: what it pays is a cost of the profile.
    """
    wrong = []
    for trade in trades:
        day = int(trade.day[0])
        before, after = trade.weights_start.numpy(), trade.weights_after.numpy()
        interest = (1 - before.sum(axis=1)) * market.risk_free[day]
        night = before @ market.overnight_return[day] + interest
        growth = (1 + night) * (1 + after @ market.intraday_return[day])
        earned: Float[np.ndarray, " B"] = growth - 1
        error = np.abs(earned - trade.gross_return.numpy())
        kept = trade.delisted_value.numpy() == 0
        if (error[kept] > NEAR).any():
            wrong.append(day)
    return wrong


def check_decisions(
    market: Market, config: RunConfig, rows: Sequence[int], trained: Trained | None
) -> Check:
    """Compare what all policies decide and earn up to each t.

    Args:
        market: assembled.
        config: names baselines and the user's own policies.
        rows: of the days t.
        trained: loads the agents of a run; None without a run.

    Returns:
        A leak for each policy that knew what came after t.
    """
    leaks = dict[str, str]()
    n_policies = 0
    for row in rows:
        firsts = _ledgers(market, config, row, trained, _same)
        others = _ledgers(market, config, row, trained, partial(with_shuffled_future, row=row))
        n_policies = len(firsts[0].names) - 1  # the index decides nothing
        for first, other in zip(firsts, others, strict=True):
            for policy in _policies_unlike(first, other, market.dates[row]):
                leaks.setdefault(policy, f"{policy} (t = {market.dates[row]})")
    tried = f"shuffled the market after t; decisions and ledgers of {n_policies} policies"
    return Check.of("decisions", tried, list(leaks.values()), UNMOVED)


def _ledgers(
    market: Market, config: RunConfig, row: int, trained: Trained | None, change: Change
) -> list[Trajectory]:
    """Trade a changed market to the session after a row, from `SESSIONS` before it and from it.

    Some policies decide once a month, but all of them at the first close.
    """
    spans = [DayRange(start, row + 2) for start in (max(0, row - SESSIONS), row)]
    changed = change(market)
    tensors = MarketTensors(changed, torch.float64, "cpu")
    policies = trained(change) if trained else [_classical(tensors, config)]
    policies = [*_rules(changed, config), *policies]
    costs = Variant(config.market_profile.costs, config.risk)
    return [rollout(policies, tensors, [span], [costs])[0] for span in spans]


def _same(market: Market) -> Market:
    return market


def _classical(tensors: MarketTensors, config: RunConfig) -> Policy:
    """Make the policy that untrained agents are; a run has it among its own."""
    follow = FollowGoal(tensors, config.risk)
    return HierarchicalPolicy(CLASSICAL_PRIOR, ClassicalGoal(tensors), follow)


def _rules(market: Market, config: RunConfig) -> list[Policy]:
    """Make the baselines and the user's own policies."""
    section = config.evaluation
    return [
        *make_baselines(market, config),
        *configured_policies(section.extra_baselines, "evaluation.extra_baselines"),
        *configured_policies(section.extra_policies, "evaluation.extra_policies"),
    ]


def _policies_unlike(first: Trajectory, other: Trajectory, t: np.datetime64) -> list[str]:
    """Name the policies whose sessions up to t differ, or whose decision at its close does."""
    known = first.dates <= t
    decided = np.append(True, known[:-1])  # the orders of a session were given at the close before
    compared = dict.fromkeys(EARNED, known) | {"target_weights": decided}

    def differs(column: int) -> bool:
        return any(
            not np.array_equal(*(getattr(ledger, name)[rows, column] for ledger in (first, other)))
            for name, rows in compared.items()
        )

    return [name for column, name in enumerate(first.names) if differs(column)]
