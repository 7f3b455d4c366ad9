"""What each stock adds to a reward of the objective `risk`, and to the value of holding it.

A reward is one number for a hundred weights. If the critic learned from it alone, nearly all that a
session says about single stocks would be lost. The part of each stock in the squared return is
known, because prices do not depend on the agent: weight x return x return of the portfolio.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hrl_sarp.agents.td3.hindsight import MicroBatch
from hrl_sarp.agents.td3.networks import MicroSettings
from hrl_sarp.envs.rewards import PERCENT
from hrl_sarp.market.tensors import MarketTensors


def stock_rewards(batch: MicroBatch, settings: MicroSettings) -> Float[Tensor, "B C"]:
    """Split the rewards of a batch among the N slots of the decision; the last column is the rest.

    A stock gets its part of gamma / 2 x (squared return of following the goal - squared return).
    The rest holds costs, terms of the user, and what returns that multiply add. The columns of a
    row sum to its reward.

    Args:
        batch: B transitions under the objective `risk`.
        settings: market and risk aversion.
    """
    tensors = settings.tensors
    inputs, request = settings.read(batch.observation)
    decided = batch.observation["day"].flatten()
    earned = decided + 1
    night, day = (
        tensors.to_slots(table.index_select(0, earned).to(batch.reward.dtype), decided)
        for table in (tensors.overnight, tensors.intraday)
    )
    held = inputs.view.weights
    own = held * night + batch.executed * day
    followed = request.prior * (night + day)
    variance = followed * _total(followed) - own * _total(own)
    stocks = PERCENT * settings.risk_aversion / 2 * variance
    return torch.cat([stocks, (batch.reward - stocks.sum(dim=1))[:, None]], dim=1)


def carried(
    future: Float[Tensor, "B C"], decided: Int[Tensor, " B"], tensors: MarketTensors
) -> Float[Tensor, "B C"]:
    """Hand the values of the next day's slots to the slots of the decision; C is N + 1.

    Where a slot holds another stock the next day, its value goes to the rest.
    """
    stays = tensors.slots[decided] == tensors.slots[decided + 1]
    stays &= tensors.slot_filled[decided] & tensors.slot_filled[decided + 1]
    stocks, rest = future[:, :-1], future[:, -1:]
    return torch.cat([stocks * stays, rest + _total(stocks * ~stays)], dim=1)


def _total(stocks: Float[Tensor, "B N"]) -> Float[Tensor, "B 1"]:
    return stocks.sum(dim=1, keepdim=True)
