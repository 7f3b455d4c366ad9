"""One rollout of many policies, spans and variants on the two clocks: decisions in, ledgers out.

The backtest, the validation score and the markets with known answers all run here. Policies that
share a network decide in one batch, and the variants of a policy run side by side.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hrl_sarp.config.market_schema import CostConfig
from hrl_sarp.config.schema import RiskConfig
from hrl_sarp.contracts import DayRange, PortfolioState, StepResult, Trajectory, goal_size
from hrl_sarp.envs.policies import MacroPolicy, MicroPolicy
from hrl_sarp.envs.two_clocks import Rows, TwoClocks
from hrl_sarp.errors import SimulatorError
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.run.session import one_thread
from hrl_sarp.run.terminal import phase_progress
from hrl_sarp.simulator.limits import exposure_limit, moved_by_limits

Orders = tuple[Tensor, None, Tensor | None, Tensor]
"""Arguments of `TwoClocks.trade_day`."""
INDEX = "index"
"""Name of the first column of every ledger: the market's index, without costs or holdings."""


@dataclass(frozen=True)
class Variant:
    """Frictions under which policies are rolled out; those of one rollout run side by side."""

    costs: CostConfig
    risk: RiskConfig
    """All variants of a rollout share it, the drawdown gate apart."""
    lag_days: int = 0
    """Sessions by which every order is late, on top of the fill at the next open."""
    keeps_weights: bool = True
    """False leaves the weights of the trajectory without assets: shape (D, P, 0)."""


@dataclass(frozen=True)
class Decision:
    """Orders of a policy's B portfolios for the next open.

    Examples:
        >>> decision = Decision(np.full(4, 0.2))  # a fifth of wealth in each of four slots
        >>> round(1 - float(decision.slot_weights.sum()), 2)  # the rest is cash
        0.2
    """

    slot_weights: Float[Tensor, "*B N"] | Float[np.ndarray, "*B N"] | None
    """Finite target weights of the day's slots, before the limits; values below 0 count as 0. (N,)
    serves all portfolios. None sends no orders: the portfolios drift."""
    cash: float | Float[Tensor, " B"] = 0.0
    """Share of wealth to leave in cash at least, beside the cash floor of all policies."""
    goal: Float[Tensor, "*B G"] | None = None
    """In force today, for the ledger; None for a policy without goals."""
    hold: Bool[Tensor, " B"] | None = None
    """Portfolios that send no orders although others of the policy do."""


HOLD = Decision(slot_weights=None)


@dataclass
class DecisionView:
    """What a policy may look at after a close: its own B portfolios and the market up to that day.

    A policy has one portfolio for each span and each variant of the rollout; all of them stand at
    the same step. The view is the same object at every step.

    Examples:
        >>> from hrl_sarp.config.loading import load_config
        >>> from hrl_sarp.contracts import DayRange, Split
        >>> from hrl_sarp.known_markets.small_market import market_of_returns
        >>> split = Split(DayRange(0, 3), DayRange(3, 3), DayRange(3, 6))
        >>> market = market_of_returns("two stocks", np.full((6, 2), 0.01), np.arange(2), split)
        >>> config = load_config(market="sample")
        >>> tensors = MarketTensors(market, torch.float64, "cpu")
        >>> clocks = TwoClocks(tensors, config.market_profile.costs, config.risk, n_envs=1)
        >>> view = DecisionView(clocks, rows=slice(0, 1))
        >>> view.is_first, view.feature("is_asset_0").tolist()
        (True, [[1.0, 0.0]])
    """

    clocks: TwoClocks
    rows: slice
    """The policy's own rows of the clocks."""
    step: int = 0
    """Decisions made before in this rollout."""

    @property
    def tensors(self) -> MarketTensors:
        """The market; only rows up to the day of a portfolio may be read for it."""
        return self.clocks.tensors

    @property
    def state(self) -> PortfolioState:
        """The policy's own portfolios."""
        state = self.clocks.simulator.state
        return PortfolioState(**{name: value[self.rows] for name, value in vars(state).items()})

    @property
    def days(self) -> Int[Tensor, " B"]:
        """Row of the market at whose close each portfolio stands."""
        return self.clocks.day[self.rows]

    @property
    def is_first(self) -> bool:
        """First decision of the rollout: the portfolios are all cash."""
        return self.step == 0

    @property
    def is_week_end(self) -> Bool[Tensor, " B"]:
        """Last session of its exchange week: the macro agent decides."""
        return self.tensors.week_end[self.days]

    @property
    def weights(self) -> Float[Tensor, "B N"]:
        """Holdings of the day's slots, as shares of wealth."""
        return self.tensors.to_slots(self.clocks.simulator.state.weights[self.rows], self.days)

    @property
    def tradable(self) -> Bool[Tensor, "B N"]:
        """Slots whose stock printed a bar on the day; orders for others are cancelled."""
        return self.tensors.slot_tradable[self.days]

    def feature(self, name: str) -> Float[Tensor, "B N"]:
        """Return a stock feature of the day's slots.

        Args:
            name: one of the market's `feature_names`.

        Returns:
            Standardised across the stocks of the day; 0 in empty slots.

        Raises:
            MarketError: for a name that is not there.
        """
        column = self.tensors.market.feature_column(name)
        return self.tensors.slot_features[self.days, :, column]


@runtime_checkable
class Policy(Protocol):
    """Anything that can be backtested; agents, baselines and your own alike.

    Examples:
        >>> import torch
        >>> class Cheapest:
        ...     '''Holds the stocks that fell most over a month, renewed at week ends.'''
        ...
        ...     name = "fallen most"
        ...
        ...     def decide(self, view: DecisionView) -> Decision:
        ...         fell = (view.feature("return_20d") < -1) & view.tradable
        ...         weights = fell / fell.sum(dim=1, keepdim=True).clamp(min=1)
        ...         return Decision(weights, hold=~view.is_week_end)
    """

    @property
    def name(self) -> str:
        """What tables and legends call it; unique in a rollout."""

    def decide(self, view: DecisionView) -> Decision:
        """Decide for all of the policy's portfolios; called once for each session of a rollout.

        Args:
            view: portfolios and market at the close of the day.

        Returns:
            What to hold from the next open on.
        """


@runtime_checkable
class PreparedPolicy(Policy, Protocol):
    """A policy that gets ready before a rollout."""

    def prepare(self, tensors: MarketTensors, spans: Sequence[DayRange]) -> None:
        """Forget the last rollout and get ready for the next one.

        Work that needs no portfolio may be done here for all days at once, as long as the row of
        each day uses rows up to that day. The policy's portfolios are (variant, span), spans
        innermost.
        """


class HierarchicalPolicy:
    """A macro and a micro policy: a goal at the first close and at week ends, orders every day."""

    def __init__(
        self, name: str, macro: MacroPolicy, micro: MicroPolicy, description: str = ""
    ) -> None:
        self.name, self.macro, self.micro = name, macro, micro
        self.description = description

    def decide(self, view: DecisionView) -> Decision:
        """Renew the goals where due and choose the day's weights."""
        clocks = view.clocks
        rows = torch.arange(clocks.n_envs, device=view.tensors.device)[view.rows]
        weights = clocks.goal_cash().new_zeros(clocks.n_envs, view.tensors.n_slots)
        _Pairs([(self, rows)]).decide(clocks, weights)
        return Decision(weights[rows], clocks.goal_cash()[rows], clocks.episode.goal[rows])


class _Pairs:
    """Decides for the rows of several pairs; those that share a network are one batch."""

    def __init__(self, pairs: Sequence[tuple[HierarchicalPolicy, Int[Tensor, " n"]]]) -> None:
        self.rows: Rows = _as_slice(torch.cat([rows for _, rows in pairs]))
        self._macros = _by_network([(pair.macro, rows) for pair, rows in pairs])
        self._micros = _by_network([(pair.micro, rows) for pair, rows in pairs])

    def decide(self, clocks: TwoClocks, slot_weights: Float[Tensor, "B N"]) -> None:
        """Renew goals where they are due and write the weights of the pairs' rows."""
        due = clocks.goal_is_due()
        if bool(due[self.rows].any()):
            seen = clocks.macro_observation()
            for macro, rows in self._macros:
                clocks.set_goal(macro.goal(_only(seen, rows)), due, rows)
        seen = {**clocks.micro_observation(), "achieved_goal": clocks.achieved_goal().float()}
        for micro, rows in self._micros:
            slot_weights[rows] = micro.target(_only(seen, rows)).to(slot_weights.dtype)


def _by_network(asked: Sequence[tuple[Any, Int[Tensor, " n"]]]) -> list[tuple[Any, Rows]]:
    """Join the rows of policies that are one object."""
    networks = {id(network): network for network, _ in asked}
    return [
        (network, _as_slice(torch.cat([rows for other, rows in asked if other is network])))
        for network in networks.values()
    ]


def _as_slice(rows: Int[Tensor, " n"]) -> Rows:
    """Return the same rows as a slice, if they are evenly spaced."""
    steps = rows.diff().unique().tolist() or [1]
    if len(steps) > 1 or steps[0] < 1:
        return rows
    return slice(int(rows[0]), int(rows[-1]) + 1, steps[0])


def _only(observation: Mapping[str, Tensor], rows: Rows) -> dict[str, Tensor]:
    return {name: value[rows] for name, value in observation.items()}


@dataclass(frozen=True)
class Session:
    """One session of a rollout of P policies in S spans under V variants; B = V S P rows.

    Policies are innermost, variants outermost.
    """

    result: StepResult
    goal: Float[Tensor, "B G"]
    """In force when the session was decided; NaN for a policy without goals."""
    moved_by_limits: Callable[[], Float[Tensor, " B"]]
    """Measures the share of wealth that limits put elsewhere than asked; NaN without orders."""


@torch.inference_mode()
def sessions(
    policies: Sequence[Policy],
    tensors: MarketTensors,
    spans: Sequence[DayRange],
    variants: Sequence[Variant],
) -> Iterator[Session]:
    """Step all policies together, each span from cash at the close of its start.

    The first session is earned the day after the start, the last on row `span.stop` - 1. All
    targets go through the same limits. See `rollout` for what the arguments must be.
    """
    _check(policies, tensors, spans, variants)
    for policy in policies:
        if isinstance(policy, PreparedPolicy):
            policy.prepare(tensors, spans)
    per_variant = len(policies) * len(spans)
    starts = torch.tensor([span.start for span in spans]).repeat_interleave(len(policies))
    gates = [variant.risk.drawdown_gate for variant in variants]
    gated = torch.tensor(gates, device=tensors.device).repeat_interleave(per_variant)
    clocks = TwoClocks(
        tensors,
        [variant.costs for variant in variants for _ in range(per_variant)],
        variants[0].risk.model_copy(update={"drawdown_gate": any(gates)}),
        per_variant * len(variants),
        None if all(gates) == any(gates) else gated,
    )
    clocks.reset(starts.repeat(len(variants)), torch.ones(clocks.n_envs, dtype=torch.bool))
    orders = _Orders(clocks, policies, variants)
    for step in range(len(spans[0]) - 1):
        goal, asked = orders.ask(step)
        before = clocks.simulator.state
        result = clocks.trade_day(*asked)
        yield Session(result, goal, partial(_moved, clocks, before, asked, result.target_weights))


def _moved(
    clocks: TwoClocks, before: PortfolioState, orders: Orders, target: Tensor
) -> Float[Tensor, " B"]:
    asked, _, hold, cash = orders
    exposure = exposure_limit(cash, clocks.risk, before.gate_days)
    moved = moved_by_limits(clocks.tensors, before.day, before.weights, asked, exposure, target)
    return moved if hold is None else moved.masked_fill(hold, torch.nan)


@one_thread()
def rollout(
    policies: Sequence[Policy],
    tensors: MarketTensors,
    spans: Sequence[DayRange],
    variants: Sequence[Variant],
) -> list[Trajectory]:
    """Roll out all policies over all spans under all variants, as one batch.

    Args:
        policies: agents, rules and baselines with unique names.
        tensors: the market, in the dtype of the accounting.
        spans: of one length, at least two sessions; each starts in cash at its first close.
        variants: frictions; the same limits for all.

    Returns:
        One ledger for each variant and span, spans innermost, with the index in front.
    """
    names, market = (INDEX, *(policy.name for policy in policies)), tensors.market
    has_view = [getattr(getattr(policy, "macro", None), "has_view", True) for policy in policies]
    n_steps, n_spans = max((len(span) - 1 for span in spans), default=0), len(spans)
    shape = (n_steps, len(variants), n_spans, len(names))
    numbers = {name: np.zeros(shape) for name in (*LEDGER, MOVED)}
    goals = np.full((*shape, goal_size(market.n_sectors)), np.nan)
    kept = [v for v, variant in enumerate(variants) if variant.keeps_weights]
    weights = {
        name: np.zeros((n_steps, len(kept), *shape[2:], market.n_assets)) for name in HOLDINGS
    }
    by_row = (len(variants), n_spans, len(policies))
    with phase_progress("rollout", n_steps, unit="sessions") as bar:
        for step, session in enumerate(sessions(policies, tensors, spans, variants)):
            for name, values in numbers.items():
                found = (
                    session.moved_by_limits() if name == MOVED else getattr(session.result, name)
                )
                values[step, ..., 1:] = found.cpu().view(by_row)
            goals[step, ..., 1:, :] = session.goal.cpu().view(*by_row, -1)
            for name, table in weights.items():
                table[step, :, :, 1:] = getattr(session.result, name).cpu().view(*by_row, -1)[kept]
            bar.update(step + 1)
    goals[..., 1:, :][..., ~np.array(has_view), :] = np.nan
    for s, span in enumerate(spans):
        for name in ("net_return", "gross_return"):
            numbers[name][:, :, s, 0] = market.benchmark_return[span.start + 1 : span.stop, None]
    nothing = np.zeros((n_steps, len(names), 0))
    return [
        Trajectory(
            names=names,
            dates=market.dates[span.start + 1 : span.stop],
            wealth=np.cumprod(1.0 + numbers["net_return"][:, v, s], axis=0),
            goal=goals[:, v, s],
            **{name: values[:, v, s] for name, values in numbers.items()},
            **{
                name: table[:, kept.index(v), s] if variant.keeps_weights else nothing
                for name, table in weights.items()
            },
        )
        for v, variant in enumerate(variants)
        for s, span in enumerate(spans)
    ]


LEDGER = ("net_return", "gross_return", "cost", "turnover", "delisted_value")
MOVED = "moved_by_limits"
HOLDINGS = ("target_weights", "weights_before", "weights_after")


def _check(
    policies: Sequence[Policy],
    tensors: MarketTensors,
    spans: Sequence[DayRange],
    variants: Sequence[Variant],
) -> None:
    for span in spans:
        if span.start < 0 or span.stop > tensors.n_days or len(span) < 2:
            raise SimulatorError(
                f"rollout of rows [{span.start}, {span.stop}): expected at least 2 sessions inside "
                f"the market's {tensors.n_days}; choose another span"
            )
    if len({len(span) for span in spans}) != 1:
        raise SimulatorError(
            f"rollout: expected spans of one length, found {[len(span) for span in spans]}; "
            "run spans of unlike length one after the other"
        )
    names = [INDEX, *(policy.name for policy in policies)]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if not policies or duplicates:
        found = f"duplicates: {', '.join(duplicates)}" if duplicates else "none"
        raise SimulatorError(
            f"rollout: expected policies with unique names, found {found}; rename or add them"
        )
    limits = [variant.risk.model_copy(update={"drawdown_gate": False}) for variant in variants]
    if not limits or any(each != limits[0] for each in limits):
        raise SimulatorError(
            "rollout: expected variants that share their limits; only costs, lag and drawdown "
            "gate may differ; run others one after the other"
        )


class _Orders:
    """Asks the policies and says which orders are due: late ones, and old ones behind the gate.

    Orders in force are kept by stock, because the slots of a later day may serve other stocks.
    """

    def __init__(
        self, clocks: TwoClocks, policies: Sequence[Policy], variants: Sequence[Variant]
    ) -> None:
        self._clocks = clocks
        own = [slice(first, None, len(policies)) for first in range(len(policies))]
        every = torch.arange(clocks.n_envs, device=clocks.tensors.device)
        asked = list(zip(policies, own, strict=True))
        pairs = [(p, every[rows]) for p, rows in asked if isinstance(p, HierarchicalPolicy)]
        self._pairs = _Pairs(pairs) if pairs else None
        self._others = [
            (p, DecisionView(clocks, rows))
            for p, rows in asked
            if not isinstance(p, HierarchicalPolicy)
        ]
        lags = torch.tensor([variant.lag_days for variant in variants])
        self._lag = lags.repeat_interleave(len(every) // len(variants)).to(every.device)
        self._lags = sorted({variant.lag_days for variant in variants} - {0})
        self._late: list[tuple[Tensor, Tensor, Tensor]] = []
        self._action = torch.zeros_like(clocks.simulator.state.weights)
        self._cash = torch.zeros_like(clocks.simulator.state.cash)
        self._was_gated = torch.zeros_like(every, dtype=torch.bool)

    def ask(self, step: int) -> tuple[Tensor, Orders]:
        """Return the goals in force, and what `TwoClocks.trade_day` needs."""
        clocks = self._clocks
        weights = self._cash.new_zeros(clocks.n_envs, clocks.tensors.n_slots)
        cash, hold = torch.zeros_like(self._cash), torch.ones_like(self._was_gated)
        goal = torch.full_like(clocks.episode.goal, torch.nan)
        if self._pairs is not None:
            self._pairs.decide(clocks, weights)
            rows = self._pairs.rows
            goal[rows], cash[rows] = clocks.episode.goal[rows], clocks.goal_cash()[rows]
            hold[rows] = False
        for policy, view in self._others:
            view.step = step
            decision = policy.decide(view)
            if decision is HOLD:
                continue
            if not isinstance(decision, Decision):
                raise self._refusal(policy, view, f"{type(decision).__name__}, not a Decision")
            if decision.goal is not None:
                goal[view.rows] = decision.goal.to(goal)
            if decision.slot_weights is not None:
                asked = torch.as_tensor(decision.slot_weights).to(weights)
                if not bool(torch.isfinite(asked).all()):
                    raise self._refusal(policy, view, "slot weights that are not finite")
                weights[view.rows] = asked
                cash[view.rows] = decision.cash
                hold[view.rows] = False if decision.hold is None else decision.hold
        if self._lags or clocks.risk.drawdown_gate:
            weights, cash, hold = self._due(weights, cash, hold)
        return goal, (weights, None, hold if bool(hold.any()) else None, cash)

    @staticmethod
    def _refusal(policy: Policy, view: DecisionView, found: str) -> SimulatorError:
        day = view.tensors.market.dates[int(view.days[0])]
        return SimulatorError(f"policy '{policy.name}' at the close of {day} returned {found}")

    def _due(self, weights: Tensor, cash: Tensor, hold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        clocks, tensors = self._clocks, self._clocks.tensors
        action = tensors.to_assets(weights, clocks.day)
        self._late.append((action, cash, hold))
        for lag in self._lags:
            is_late = self._lag == lag
            if len(self._late) <= lag:
                hold = hold | is_late
                continue
            first = self._late[-1 - lag]
            action = torch.where(is_late[:, None], first[0], action)
            cash, hold = (
                torch.where(is_late, first[1], cash),
                torch.where(is_late, first[2], hold),
            )
        del self._late[: -max(self._lags, default=0) or None]
        self._action = torch.where(hold[:, None], self._action, action)
        self._cash = torch.where(hold, self._cash, cash)
        is_gated = clocks.simulator.state.gate_days > 0  # it moves exposure between decisions, too
        hold = hold & (is_gated == self._was_gated)
        self._was_gated = is_gated
        return tensors.to_slots(self._action, clocks.day), self._cash, hold
