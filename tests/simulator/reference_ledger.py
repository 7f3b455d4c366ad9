"""A slow ledger of one portfolio in plain Python and money, to compare the simulator with.

It shares no line with the simulator: values are floats, orders are dictionaries, and the wealth
that costs leave is found by bisection.
"""

from dataclasses import dataclass, field

from hrl_sarp.config.market_schema import CostConfig
from hrl_sarp.contracts import Market


@dataclass
class ReferenceLedger:
    """One account that starts with `cash` at the close of `day`."""

    market: Market
    costs: CostConfig
    sector_cap: float
    day: int
    cash: float = 1.0
    values: dict[int, float] = field(default_factory=dict)

    @property
    def wealth(self) -> float:
        return self.cash + sum(self.values.values())

    def step(self, target: list[float], *, hold: bool = False) -> dict[str, float]:
        """Earn one session; returns gains over night, gains of the day, cost and turnover."""
        before = self.wealth
        self.day += 1
        gone = self._run_night()
        night = self.wealth - before
        stays = {a for a in self.values if self._stays(a) or (hold and a not in gone)}
        orders = {} if hold else self._fillable(target)
        left, opened = self._solve(orders, target, stays)
        trades = {a: opened.get(a, 0.0) - self.values.get(a, 0.0) for a in opened | self.values}
        at_open = self.wealth
        result = {
            "night": night,
            "delisted": sum(self.values[a] for a in gone),
            "turnover": 0.5 * sum(abs(v) for v in trades.values()) / at_open,
            "cost": at_open - left,
        }
        self.values = {a: v for a, v in opened.items() if v}
        self.cash = left - sum(self.values.values())
        result["day"] = self._run_day()
        result["net_return"] = self.wealth / before - 1
        return result

    def _run_night(self) -> set[int]:
        gone = {a for a in self.values if not self.market.listed[self.day, a]}
        for a in self.values:
            move = self.market.overnight_return[self.day, a]
            self.values[a] *= 1 + (self.costs.delisting_return if a in gone else float(move))
        self.cash *= 1 + float(self.market.risk_free[self.day])
        return gone

    def _run_day(self) -> float:
        gain = 0.0
        for a in self.values:
            move = float(self.market.intraday_return[self.day, a])
            gain += self.values[a] * move
            self.values[a] *= 1 + move
        return gain

    def _stays(self, asset: int) -> bool:
        return bool(self.market.listed[self.day, asset]) and not self._can_order(asset)

    def _can_order(self, asset: int) -> bool:
        """The stock has a bar today, and was not halted when the order was decided yesterday."""
        yesterday = self.day - 1
        was_halted = (
            self.market.listed[yesterday, asset] and not self.market.tradable[yesterday, asset]
        )
        return bool(self.market.tradable[self.day, asset] and not was_halted)

    def _fillable(self, target: list[float]) -> dict[int, float]:
        return {a: x for a, x in enumerate(target) if x and self._can_order(a)}

    def _solve(
        self, orders: dict[int, float], target: list[float], stays: set[int]
    ) -> tuple[float, dict[int, float]]:
        """Find the wealth that is left when the trade to (targets x what is left) is paid."""
        low, high = 0.5 * self.wealth, self.wealth
        for _ in range(200):
            middle = 0.5 * (low + high)
            values = self._values_after(middle, orders, target, stays)
            too_much_left = middle + self._cost(values) > self.wealth
            low, high = (low, middle) if too_much_left else (middle, high)
        return low, self._values_after(low, orders, target, stays)

    def _values_after(
        self, left: float, orders: dict[int, float], target: list[float], stays: set[int]
    ) -> dict[int, float]:
        """Frozen holdings first; then a sector shrinks to its limit, then all to the whole's."""
        sector_of = self.market.sector_of
        values = {a: left * x for a, x in orders.items()}
        for s in set(sector_of.tolist()):
            limit = max(self.sector_cap, sum(x for a, x in enumerate(target) if sector_of[a] == s))
            held = sum(self.values[a] for a in stays if sector_of[a] == s)
            members = [a for a in values if sector_of[a] == s]
            _shrink(values, members, limit * left - held)
        held = sum(self.values[a] for a in stays)
        _shrink(values, list(values), sum(target) * left - held)
        return values | {a: self.values[a] for a in stays}

    def _cost(self, after: dict[int, float]) -> float:
        total = 0.0
        for a in after | self.values:
            trade = after.get(a, 0.0) - self.values.get(a, 0.0)
            bps = self.costs.buy_bps if trade > 0 else self.costs.sell_bps
            rate = (bps + self.costs.slippage_bps) / 10_000
            volume = float(self.market.dollar_volume[self.day, a])
            if volume > 0:
                participation = abs(trade) * self.costs.capital / volume
                rate += self.costs.impact_coefficient * participation**0.5
            total += abs(trade) * rate
        return total


def _shrink(values: dict[int, float], members: list[int], room: float) -> None:
    total = sum(values[a] for a in members)
    if total > room:
        for a in members:
            values[a] *= max(room, 0.0) / total
