"""The part of each stock in the variance of a portfolio, as a critic learns it."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hrl_sarp.envs.observations import MicroInputs, SlotRequest

N_FACTORS = 4
"""Common factors of all stocks, and of the stocks of a sector, whose loadings are learned."""
SCALE = 0.05
"""Value, in %, of a loading of 1 on the whole portfolio. It makes loadings of order one."""


class StockRisk(nn.Module):
    """What each stock adds to the value through the variance, beyond that of following the goal.

    Two portfolios count: the weights after the trade, which earn the day, and those before it,
    which earned the night. What the agent will gain later depends little on either, and is learned
    as a share of the weight that follows the goal.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.day = FactorModel(width)
        self.night = FactorModel(width)
        self.later = nn.Linear(width, 1)
        nn.init.zeros_(self.later.weight)
        nn.init.zeros_(self.later.bias)

    def forward(
        self,
        market: Float[Tensor, "D N H"],
        inputs: MicroInputs,
        request: SlotRequest,
        executed: Float[Tensor, "B N"],
    ) -> Float[Tensor, "B N"]:
        """Return the values in percent, 0 where nothing can be traded.

        Args:
            market: hidden vector of each slot.
            inputs: of the B decisions.
            request: weights that follow the goal.
            executed: weights after the trade.
        """
        n_sectors, rows = request.budgets.shape[1], inputs.row_of
        value = request.prior * self.later(market).squeeze(2).index_select(0, rows)
        for model, held in ((self.day, executed), (self.night, inputs.view.weights)):
            loadings = model(market).index_select(0, rows)
            both = torch.stack([request.prior, held], dim=1) * inputs.view.tradable[:, None]
            parts = variance_parts(both, loadings, n_sectors)
            value = value + parts[:, 0] - parts[:, 1]
        return SCALE * value * inputs.view.tradable


class FactorModel(nn.Module):
    """Loadings on factors of all stocks, on factors of a sector, and of the stock alone.

    They are linear in the market vector of a stock.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.loadings = nn.Linear(width, 2 * N_FACTORS + 1)

    def forward(self, market: Float[Tensor, "D N H"]) -> Float[Tensor, "D N L"]:
        """Return the loadings of each slot, in this order."""
        found: Tensor = self.loadings(market)
        return found


def variance_parts(
    weights: Float[Tensor, "B P N"], loadings: Float[Tensor, "B N L"], n_sectors: int
) -> Float[Tensor, "B P N"]:
    """Return the part of each stock in the variance of a factor model; the parts sum to it.

    Args:
        weights: of P portfolios a decision; slots are ordered by sector.
        loadings: of `FactorModel`.
        n_sectors: S.
    """
    of_all, of_sector, alone = loadings.split((N_FACTORS, N_FACTORS, 1), dim=2)
    grouped = weights.unflatten(2, (n_sectors, -1)).transpose(1, 2)
    inside = _slopes(grouped, of_sector.unflatten(1, (n_sectors, -1))).transpose(1, 2).flatten(2)
    slopes = _slopes(weights, of_all) + inside + weights * alone.square().transpose(1, 2)
    return weights * slopes


def _slopes(
    weights: Float[Tensor, "*batch P N"], loadings: Float[Tensor, "*batch N K"]
) -> Float[Tensor, "*batch P N"]:
    """Return the covariance of each stock with the portfolio, by factors alone."""
    return (weights @ loadings) @ loadings.transpose(-1, -2)
