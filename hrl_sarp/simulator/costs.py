"""What a trade costs: proportional rates for either side and an optional square-root impact."""

import torch
from jaxtyping import Float
from torch import Tensor

from hrl_sarp.config.schema import CostConfig

BPS = 1e-4


class TradeCosts:
    """Costs of trades that are given as signed shares of wealth, buys above 0.

    Impact costs coefficient x trade x sqrt(trade / dollar volume) and is 0 where the volume of
    the day is unknown (0).
    """

    def __init__(self, config: CostConfig) -> None:
        self.buy_rate = (config.buy_bps + config.slippage_bps) * BPS
        self.sell_rate = (config.sell_bps + config.slippage_bps) * BPS
        self.impact_coefficient = config.impact_coefficient
        self.capital = config.capital
        # buy x max(v, 0) + sell x max(-v, 0) = even |v| + odd v
        self._even = 0.5 * (self.buy_rate + self.sell_rate)
        self._odd = 0.5 * (self.buy_rate - self.sell_rate)

    @property
    def has_impact(self) -> bool:
        """Whether costs depend on wealth and dollar volume."""
        return self.impact_coefficient > 0

    def cost(
        self,
        trade_values: Float[Tensor, "B A"],
        wealth: Float[Tensor, " B"],
        dollar_volume: Float[Tensor, "B A"] | None,
    ) -> Float[Tensor, " B"]:
        """Return what all trades of a row cost, as a share of wealth; convex in the trades.

        Args:
            trade_values: signed trades as shares of wealth.
            wealth: in units of the wealth at reset (which is `capital`).
            dollar_volume: of the day, in currency; only the impact needs it.
        """
        total = self._even * trade_values.abs().sum(dim=1)
        if self._odd:
            total = total + self._odd * trade_values.sum(dim=1)
        if self.has_impact:
            root = self._impact_scale(wealth, dollar_volume)
            # pow(1.5) and not size x sqrt(size): its gradient at 0 is 0, not NaN
            total = total + (root * trade_values.abs().pow(1.5)).sum(dim=1)
        return total

    def slopes(
        self,
        trade_values: Float[Tensor, "B A"],
        wealth: Float[Tensor, " B"],
        dollar_volume: Float[Tensor, "B A"] | None,
    ) -> Float[Tensor, "B A"]:
        """Return the derivative of `cost` in each trade; at 0 the mean of both sides."""
        side = trade_values.sign()
        marginal = side * self._even
        if self._odd:
            marginal += self._odd
        if self.has_impact:
            root = self._impact_scale(wealth, dollar_volume)
            marginal += 1.5 * root * trade_values.abs().sqrt() * side
        return marginal

    def _impact_scale(
        self, wealth: Float[Tensor, " B"], dollar_volume: Float[Tensor, "B A"] | None
    ) -> Float[Tensor, "B A"]:
        """Return r with impact = r |v|^1.5, where v is a share of wealth."""
        if dollar_volume is None:
            raise ValueError("square-root impact needs the dollar volume of the day; found None")
        known = dollar_volume > 0
        safe = torch.where(known, dollar_volume, 1.0)
        root = (wealth.clamp_min(0.0)[:, None] * self.capital / safe).sqrt()
        return torch.where(known, self.impact_coefficient * root, 0.0)
