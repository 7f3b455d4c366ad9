"""Decides for one account at the close of a day, on the clocks of training and backtest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.daily.market import Today
from hrl_sarp.daily.portfolio import Memory, Standing, by_symbol
from hrl_sarp.envs.policies import mixed_pair
from hrl_sarp.envs.rollout import DecisionView, HierarchicalPolicy
from hrl_sarp.envs.two_clocks import TwoClocks
from hrl_sarp.errors import SimulatorError
from hrl_sarp.evaluation.backtest import ACCOUNTING_DTYPE
from hrl_sarp.evaluation.policies import select_policies
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.run.session import one_thread
from hrl_sarp.simulator.limits import exposure_limit, moved_by_limits


@dataclass(frozen=True)
class Decided:
    """What a policy wants an account to hold from the next open on.

    Examples:
        >>> [field for field in Decided.__dataclass_fields__][:3]
        ['policy', 'standing', 'targets']
    """

    policy: str
    standing: Standing
    """At the close of the decision, before it."""
    targets: dict[str, float]
    """Symbol -> share of wealth after costs, within the limits."""
    exposure: float
    """Largest share of wealth in stocks: by the goal, the cash floor and the drawdown gate."""
    moved: float
    """Share of wealth that limits put elsewhere than asked."""
    memory: Memory
    """After the decision, with the goal in force."""
    is_new_goal: bool
    """The goal was set at this close."""
    has_view: bool
    """The goal forecasts the regime."""


def account_clocks(
    market: Market | MarketTensors, config: RunConfig, standing: Standing
) -> TwoClocks:
    """Open the clocks of one account at its day, in the precision of a backtest.

    Args:
        market: has the day of the standing; as tensors they have the precision of a backtest.
        config: costs and limits.
        standing: of the account; its wealth is what market impact is measured against.

    Returns:
        Clocks of one portfolio with wealth 1.
    """
    tensors = market
    if isinstance(tensors, Market):
        tensors = MarketTensors(tensors, ACCOUNTING_DTYPE, "cpu")
    costs = config.market_profile.costs.model_copy(update={"capital": standing.wealth})
    return standing.clocks(TwoClocks(tensors, costs, config.risk, n_envs=1))


@torch.inference_mode()
@one_thread()
def decide(policy: HierarchicalPolicy, clocks: TwoClocks, standing: Standing) -> Decided:
    """Let a policy decide for an account.

    A goal that was set before the last week end is out of date and is renewed at once, because the
    agents renew it at every week end.

    Args:
        policy: reads the market of the clocks.
        clocks: of the account, at the day of the standing.
        standing: of the account.

    Returns:
        Targets and the goal in force; the clocks have it, too.
    """
    memory = standing.memory
    if is_out_of_date(clocks.tensors.market, standing):
        clocks.episode = replace(clocks.episode, goal=torch.zeros_like(clocks.episode.goal))
    is_new = bool(clocks.goal_is_due())
    asked = policy.decide(DecisionView(clocks, rows=slice(0, 1)))
    if asked.slot_weights is None:
        raise SimulatorError(f"policy '{policy.name}' decided nothing on {standing.day}")
    slots, cash = torch.as_tensor(asked.slot_weights), torch.as_tensor(asked.cash)
    target = clocks.targets(slots, cash=cash)
    state = clocks.simulator.state
    exposure = exposure_limit(cash, clocks.risk, state.gate_days)
    moved = moved_by_limits(clocks.tensors, state.day, state.weights, slots, exposure, target)
    goal_day = standing.day if is_new else memory.goal_day
    return Decided(
        policy=policy.name,
        standing=standing,
        targets=by_symbol(clocks.tensors, target),
        exposure=float(exposure),
        moved=float(moved),
        memory=replace(memory, goal=tuple(clocks.episode.goal[0].tolist()), goal_day=goal_day),
        is_new_goal=is_new,
        has_view=getattr(policy.macro, "has_view", True),
    )


def is_out_of_date(market: Market, standing: Standing) -> bool:
    """Say whether a week has ended since the goal of an account was set."""
    goal_day = standing.memory.goal_day
    if goal_day is None:
        return False
    between = (market.dates > np.datetime64(goal_day)) & (
        market.dates < np.datetime64(standing.day)
    )
    return bool(market.is_week_end[between].any()) or goal_day > standing.day


def deployed(
    todays: Sequence[Today],
    change: Callable[[Market], Market] = lambda market: market,
    name: str | None = None,
) -> HierarchicalPolicy:
    """Return what is deployed of one run or more: the mean of their decisions.

    Args:
        todays: the same day for each run; at least one.
        change: makes the market that the agents read from theirs.
        name: of a row of the runs' backtests; None is what is deployed.

    Returns:
        The policy; of one run it is that of its backtest.
    """
    return mean_policy([today.agents.policies(change)[0] for today in todays], name)


def mean_policy(
    tables: Sequence[list[HierarchicalPolicy]], name: str | None = None
) -> HierarchicalPolicy:
    """Return the policy that decides as the mean of several runs does.

    Args:
        tables: what the backtest of each run shows, what is deployed first; at least one.
        name: of a row of the runs' backtests; None is what is deployed.

    Returns:
        The policy; of one run it is that of its backtest.

    Raises:
        HrlSarpError: if a run has no such row.
    """
    chosen = [rows[0] if name is None else select_policies(rows, [name])[0] for rows in tables]
    if len(chosen) == 1:
        return chosen[0]
    macro, micro = mixed_pair([(policy.macro, policy.micro) for policy in chosen])
    return HierarchicalPolicy(f"mean of {len(chosen)} runs", macro, micro)
