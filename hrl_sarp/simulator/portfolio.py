"""Accounting of B portfolios at once: exact, differentiable, on any device.

In a session the old holdings earn the night, trade at the open with costs, and the new holdings
earn the day until the close. All amounts are shares of wealth.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hrl_sarp.config.market_schema import CostConfig
from hrl_sarp.config.schema import RiskConfig
from hrl_sarp.contracts import Market, PortfolioState, StepResult
from hrl_sarp.errors import SimulatorError
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.simulator.fused import SessionTables, fused_session
from hrl_sarp.simulator.kernels import GROWTH_ROUNDING, WEIGHT_TOLERANCE
from hrl_sarp.simulator.limits import next_gate_state
from hrl_sarp.simulator.trades import Fill, Frozen, Orders, TradeCosts, fill_orders

Rows = TypeVar("Rows", PortfolioState, StepResult)


class PortfolioSimulator:
    """State of B portfolios on one market, and its steps by sessions.

    Cost: charged at the open on the trade from drifted holdings to targets, entry and exit
    included. Target weights are shares of the wealth after costs.
    Timing: targets decided at the close of `day` fill at the open of `day + 1`. Orders for stocks
    without a bar there are cancelled. A stock that is halted at the close of `day` gets no order
    for the next open, whatever its target says: its shares stay through the gap of a reopening. If
    holdings that cannot trade would lift a sector or the whole above its target, the other orders
    are scaled down.
    Delisting: a stock without further bars becomes cash at its last close, less the sell cost.

    Args:
        market: returns, masks and volumes.
        costs: one section for all rows, or one for each row.
        risk: the sector cap that fills respect, and the drawdown gate.
        n_envs: B.
        dtype: of the accounting.
        device: of the accounting.
        gated: rows that have the drawdown gate; None is all of them, if `risk` has it.

    Examples:
        >>> import numpy as np
        >>> from hrl_sarp.config.loading import load_config
        >>> from hrl_sarp.contracts import DayRange, Split
        >>> from hrl_sarp.known_markets.small_market import market_of_returns
        >>> split = Split(DayRange(0, 3), DayRange(3, 3), DayRange(3, 6))
        >>> market = market_of_returns("two stocks", np.full((6, 2), 0.01), np.arange(2), split)
        >>> config = load_config(market="sample")
        >>> costs = config.market_profile.costs
        >>> simulator = PortfolioSimulator(market, costs, config.risk, n_envs=1)
        >>> start = simulator.reset(torch.tensor([0]))
        >>> result = simulator.step(torch.tensor([[0.5, 0.5]]))
        >>> round(float(result.gross_return), 4)
        0.01
    """

    def __init__(
        self,
        market: Market | MarketTensors,
        costs: CostConfig | Sequence[CostConfig],
        risk: RiskConfig,
        n_envs: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        gated: Bool[Tensor, " B"] | None = None,
    ) -> None:
        if isinstance(market, Market):
            market = MarketTensors(market, dtype, device)
        if market.dtype != dtype or market.device.type != torch.device(device).type:
            raise SimulatorError(
                f"simulator: market tensors are {market.dtype} on {market.device}, expected "
                f"{dtype} on {device}; build MarketTensors with the simulator's dtype and device"
            )
        self.tensors = market
        self.costs = TradeCosts(costs, dtype, market.device)
        self.risk, self.n_envs, self.gated = risk, n_envs, gated
        self._state: PortfolioState | None = None
        gone = torch.zeros_like(market.listed)
        gone[1:] = market.listed[:-1] & ~market.listed[1:]
        fillable = market.tradable.clone()
        fillable[1:] &= market.halted[:-1] == 0
        self._tables = SessionTables(
            fillable=fillable.to(dtype),
            stuck=(market.listed & ~fillable).to(dtype),
            listed=market.listed.to(dtype),
            delisted=gone,
            costs=self.costs.table(dtype),
            has_impact=self.costs.has_impact,
            sector_cap=risk.sector_cap,
        )
        self._has_delisted: Bool[Tensor, " T"] = gone.any(dim=1)
        self._has_stuck: Bool[Tensor, " T"] = (self._tables.stuck > 0).any(dim=1)
        self._spread: Float[Tensor, "S A"] = market.sector_member.t().contiguous()

    @property
    def state(self) -> PortfolioState:
        """The portfolios at the close of their day."""
        if self._state is None:
            raise SimulatorError("simulator: no state yet; call reset(days) before step or state")
        return self._state

    @state.setter
    def state(self, state: PortfolioState) -> None:
        self._state = state

    def fillable(self, days: Int[Tensor, " B"]) -> Bool[Tensor, "B A"]:
        """Mark the stocks whose orders can be filled at the open of these days.

        Args:
            days: rows of the market.

        Returns:
            False for a stock without a bar there, and for one that was halted at the close before.
        """
        return _on(self._tables.fillable, days) > 0

    def detach_state(self) -> None:
        """Cut the graph, so that gradients of later sessions do not reach earlier ones."""
        self._state = PortfolioState(
            **{f.name: getattr(self.state, f.name).detach() for f in fields(PortfolioState)}
        )

    def reset(
        self, days: Int[Tensor, " B"], rows: Bool[Tensor, " B"] | None = None
    ) -> PortfolioState:
        """Start rows (all if None) in cash, with wealth 1, at the close of `days`.

        Args:
            days: rows of the market.
            rows: portfolios that start; all if None.

        Returns:
            All portfolios after the reset.

        Raises:
            SimulatorError: if a day is outside the market, or the number of rows is not n_envs.
        """
        if len(days) != self.n_envs:
            raise SimulatorError(
                f"simulator reset: expected {self.n_envs} days, found {len(days)}; pass one per env"
            )
        days = days.to(device=self.tensors.device, dtype=torch.int64)
        chosen = torch.ones_like(days, dtype=torch.bool) if rows is None else rows.to(days.device)
        outside = chosen & ((days < 0) | (days >= self.tensors.n_days))
        if bool(outside.any()):
            raise SimulatorError(
                f"simulator reset: day {int(days[outside][0])} is outside the market, expected "
                f"0 to {self.tensors.n_days - 1}; choose a day of the market"
            )
        one = torch.ones(self.n_envs, dtype=self.tensors.dtype, device=days.device)
        fresh = PortfolioState(
            day=days.clone(),
            weights=one.new_zeros(self.n_envs, self.tensors.n_assets),
            cash=one,
            wealth=one.clone(),
            peak=one.clone(),
            gate_days=torch.zeros_like(days),
        )
        self._state = fresh if rows is None else _pick_rows(chosen, fresh, self.state)
        return self._state

    def step(
        self,
        target_weights: Float[Tensor, "B A"],
        active: Bool[Tensor, " B"] | None = None,
        hold: Bool[Tensor, " B"] | None = None,
    ) -> StepResult:
        """Earn one session: from the close of `day` to the close of `day + 1`.

        Args:
            target_weights: nonnegative shares of wealth after costs, sum at most 1; no limits of
                risk are applied here. See `limits.target_weights`.
            active: rows that move (None is all); the others keep their state and get zeros.
            hold: rows without orders: drifted holdings are kept, delistings still become cash.

        Returns:
            What the session earned; zeros in rows that did not move.

        Raises:
            SimulatorError: past the last day, or for targets that are no long-only weights.
        """
        found = fused_session(self.tensors, self._tables, self.state, target_weights, active, hold)
        if found is None:
            found = self._earn_session(target_weights, active, hold)
        return self._commit(*found, active)

    def _earn_session(
        self,
        target_weights: Float[Tensor, "B A"],
        active: Bool[Tensor, " B"] | None,
        hold: Bool[Tensor, " B"] | None,
    ) -> tuple[StepResult, Float[Tensor, " B"]]:
        """Earn one session in PyTorch; returns it with the cash after it."""
        before = self.state
        _check_targets(target_weights)
        day = self._next_day(before.day, active)
        gone = _on(self._tables.delisted, day) if bool(_on(self._has_delisted, day).any()) else None
        night, values = self._run_night(before, day, gone)
        # of an almost total loss 1 + night keeps no digit, while the values that are left do
        least = (1.0 - GROWTH_ROUNDING * torch.finfo(values.dtype).eps) * values.sum(dim=1)
        growth = _positive(torch.maximum(1.0 + night, least))
        holdings = values / growth[:, None]
        fill = self._trade(target_weights.to(holdings.dtype), holdings, growth, day, hold, gone)
        gained = fill.weights * _on(self.tensors.intraday, day)
        intraday = gained.sum(dim=1)
        closing = _positive(1.0 + intraday)
        result = StepResult(
            day=day,
            net_return=_compound(_compound(night, -fill.cost), intraday),
            gross_return=_compound(night, intraday),
            cost=fill.cost,
            turnover=fill.turnover,
            target_weights=target_weights,
            weights_start=before.weights,
            weights_before=holdings,
            weights_after=fill.weights,
            weights_end=(fill.weights + gained) / closing[:, None],
            delisted_value=torch.zeros_like(night) if gone is None else (holdings * gone).sum(1),
        )
        return result, (1.0 - fill.weights.sum(dim=1)) / closing

    def _next_day(
        self, day: Int[Tensor, " B"], active: Bool[Tensor, " B"] | None
    ) -> Int[Tensor, " B"]:
        last = self.tensors.n_days - 1
        ended = day >= last if active is None else (day >= last) & active
        if bool(ended.any()):
            raise SimulatorError(
                f"simulator step: {int(ended.sum())} rows are at the last day of the market "
                f"({self.tensors.market.dates[last]}), expected an earlier day; reset them first"
            )
        return (day + 1).clamp_max(last)

    def _run_night(
        self, before: PortfolioState, day: Int[Tensor, " B"], gone: Bool[Tensor, "B A"] | None
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, "B A"]]:
        """Return the night's gain, with interest, and the values at the open per wealth before."""
        overnight = _on(self.tensors.overnight, day)
        if gone is not None:
            lost = torch.as_tensor(self.costs.delisting_return, dtype=overnight.dtype)
            overnight = torch.where(gone, lost.to(overnight.device).view(-1, 1), overnight)
        gained = before.weights * overnight
        interest = before.cash * _on(self.tensors.risk_free, day)
        return gained.sum(dim=1) + interest, before.weights + gained

    def _trade(
        self,
        target: Float[Tensor, "B A"],
        holdings: Float[Tensor, "B A"],
        growth: Float[Tensor, " B"],
        day: Int[Tensor, " B"],
        hold: Bool[Tensor, " B"] | None,
        gone: Bool[Tensor, "B A"] | None,
    ) -> Fill:
        """Fill the orders. A row that holds has none, unless one of its stocks was delisted."""
        wealth = self.state.wealth * growth
        if hold is None:
            orders = self._place_orders(target, holdings, wealth, day, None)
            return fill_orders(orders, self.costs)
        trades = ~hold if gone is None else ~hold | (holdings * gone).any(dim=1)
        rows = trades.nonzero().flatten()
        cost = torch.zeros_like(growth)
        if len(rows) == 0:
            return Fill(cost, holdings, cost)
        orders = self._place_orders(
            *(values.index_select(0, rows) for values in (target, holdings, wealth, day, hold))
        )
        fill = fill_orders(orders, self.costs.of_rows(rows))
        return Fill(
            cost.index_copy(0, rows, fill.cost),
            holdings.index_copy(0, rows, fill.weights),
            cost.index_copy(0, rows, fill.turnover),
        )

    def _place_orders(
        self,
        target: Float[Tensor, "B A"],
        holdings: Float[Tensor, "B A"],
        wealth: Float[Tensor, " B"],
        day: Int[Tensor, " B"],
        hold: Bool[Tensor, " B"] | None,
    ) -> Orders:
        """Sort targets and holdings into what can trade at the open and what stays."""
        fillable, stays = target * _on(self._tables.fillable, day), None
        if hold is not None and bool(hold.any()):
            fillable = fillable.masked_fill(hold[:, None], 0.0)
            stays = torch.where(
                hold[:, None], _on(self._tables.listed, day), _on(self._tables.stuck, day)
            )
        elif bool(_on(self._has_stuck, day).any()):
            stays = _on(self._tables.stuck, day)
        frozen = None
        if stays is not None:
            values = holdings * stays
            frozen = Frozen(
                values=values,
                invested_limit=target.sum(dim=1),
                sector_limits=(target @ self._spread.T).clamp_min(self.risk.sector_cap),
                sector_targets=fillable @ self._spread.T,
                sector_values=values @ self._spread.T,
                spread=self._spread,
            )
        return Orders(
            holdings=holdings,
            targets=fillable,
            frozen=frozen,
            wealth=wealth,
            dollar_volume=_on(self.tensors.dollar_volume, day) if self.costs.has_impact else None,
        )

    def _commit(
        self, result: StepResult, cash: Float[Tensor, " B"], active: Bool[Tensor, " B"] | None
    ) -> StepResult:
        """Move the state of the active rows and blank the results of the others."""
        before = self.state
        wealth = before.wealth * (1.0 + result.net_return)
        peak, gate_days = next_gate_state(
            wealth, before.peak, before.gate_days, self.risk, self.gated
        )
        after = PortfolioState(result.day, result.weights_end, cash, wealth, peak, gate_days)
        if active is None or bool(active.all()):
            self._state = after
            return result
        self._state = _pick_rows(active, after, before)
        return _pick_rows(active, result, _no_step(before))


def _check_targets(target: Float[Tensor, "B A"]) -> None:
    lowest, most = float(target.detach().min()), float(target.detach().sum(dim=1).max())
    if not (lowest >= -WEIGHT_TOLERANCE and most <= 1 + WEIGHT_TOLERANCE):  # NaN fails as well
        raise SimulatorError(
            f"simulator step: target weights with minimum {lowest:.6g} and largest sum {most:.6g}, "
            "expected finite weights >= 0 with sums <= 1; use limits.target_weights"
        )


def _on(table: Tensor, day: Int[Tensor, " B"]) -> Tensor:
    """Pick the rows of the days. `index_select` is several times faster than indexing."""
    return table.index_select(0, day)


def _positive(growth: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Keep divisions finite for a portfolio that lost everything."""
    return growth.clamp_min(torch.finfo(growth.dtype).tiny)


def _compound(first: Float[Tensor, " B"], second: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Compute (1 + a)(1 + b) - 1 without losing the digits of small returns."""
    return first + second + first * second


def _no_step(state: PortfolioState) -> StepResult:
    nothing = torch.zeros_like(state.wealth)
    return StepResult(
        day=state.day,
        net_return=nothing,
        gross_return=nothing,
        cost=nothing,
        turnover=nothing,
        target_weights=state.weights,
        weights_start=state.weights,
        weights_before=state.weights,
        weights_after=state.weights,
        weights_end=state.weights,
        delisted_value=nothing,
    )


def _pick_rows(chosen: Bool[Tensor, " B"], first: Rows, second: Rows) -> Rows:
    """Take the chosen rows of the first and the other rows of the second."""
    picked: dict[str, Tensor] = {}
    for item in fields(first):
        a, b = getattr(first, item.name), getattr(second, item.name)
        picked[item.name] = torch.where(chosen if a.dim() == 1 else chosen[:, None], a, b)
    return type(first)(**picked)
