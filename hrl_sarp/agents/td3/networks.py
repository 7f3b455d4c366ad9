"""The networks of the daily agent. All stocks share their parameters."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hrl_sarp.agents.layers import ignore_columns, masked_mean, scale_layers
from hrl_sarp.agents.td3.stock_head import stock_head
from hrl_sarp.agents.td3.stock_risk import StockRisk
from hrl_sarp.config.schema import MicroNetworkConfig, RunConfig
from hrl_sarp.contracts import Regime
from hrl_sarp.envs.observations import (
    MICRO_SCALARS,
    MicroInputs,
    SlotRequest,
    micro_inputs,
    slot_request,
)
from hrl_sarp.envs.policies import decode_free, decode_within_sector
from hrl_sarp.envs.rewards import PERCENT
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.simulator.trades import TradeCosts

WEIGHT_SCALE = 10.0
"""Factor that brings stock weights of about 0.01-0.1 to order one for the first layers."""


class StockTower(nn.Module):
    """Hidden vector of each stock from market data alone, computed once a day for all rows."""

    def __init__(self, n_features: int, width: int) -> None:
        super().__init__()
        self.stock = nn.Linear(n_features, width)
        self.market = nn.Linear(n_features, width)
        self.mix = nn.Linear(width, width)

    def forward(
        self, features: Float[Tensor, "D N F"], tradable: Bool[Tensor, "D N"]
    ) -> Float[Tensor, "D N H"]:
        """Return one hidden vector a slot, equivariant to the order of stocks."""
        pooled = self.market(masked_mean(features, tradable))
        hidden = self.stock(features).add_(pooled[:, None]).relu_()
        mixed: Tensor = self.mix(hidden).relu_()
        return mixed


class MicroActor(nn.Module):
    """One score in [-1, 1] per stock. A fresh network scores 0, which follows the goal."""

    N_PORTFOLIO = 3  # weight, prior, their difference
    HELD = (0, 2)
    """Of these, what follows the portfolio."""

    def __init__(self, n_features: int, n_context: int, config: MicroNetworkConfig) -> None:
        super().__init__()
        self.tower = StockTower(n_features, config.tower)
        self.direct = nn.Linear(n_features, 1)
        self.stock = nn.Linear(config.tower, config.head)
        self.portfolio = nn.Linear(self.N_PORTFOLIO, config.head)
        self.context = nn.Linear(n_context, config.head)
        self.out = nn.Linear(config.head, 1)
        self.competes_in_sector = config.decode == "within_sector"
        for layer in (self.out, self.direct):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def logits(self, inputs: MicroInputs, request: SlotRequest) -> Float[Tensor, "B N"]:
        """Return scores before the squashing, 0 in untradable slots.

        They are centred among the stocks that compete with each other. The decode ignores a common
        shift, so training could otherwise drift to one that saturates the scores.
        """
        view = inputs.view
        market = self.tower(inputs.features, inputs.tradable)
        own = [view.weights, request.prior, view.weights - request.prior]
        direct = single_output(self.direct, inputs.features).index_select(0, inputs.row_of)
        scores = portfolio_output(self, market, own, inputs) + direct
        n_groups = request.budgets.shape[1] if self.competes_in_sector else 1
        return centred(scores, view.tradable, n_groups)

    def ignore_holdings(self) -> None:
        """Give no weight to what is held, and let this network learn none."""
        n_context = self.context.in_features
        ignore_columns(self.portfolio, self.HELD)
        ignore_columns(self.context, range(n_context - len(MICRO_SCALARS), n_context))

    def calibrate(self, temperature: float) -> None:
        """Multiply the scores before the squashing by scaling the last layers."""
        scale_layers((self.out, self.direct), temperature)

    def forward(self, inputs: MicroInputs, request: SlotRequest) -> Float[Tensor, "B N"]:
        """Return a score in [-1, 1] for each slot, 0 where nothing can be traded."""
        return torch.tanh(self.logits(inputs, request))


class MicroCritic(nn.Module):
    """Q of executed weights. It is a sum over stocks, so their number may vary.

    A stock adds weight x slope(market), because gains are linear in the weight. It also adds a
    network of its market vector, weight, prior and previous weight, for costs and alignment. The
    slope is a linear function of the features plus one of the tower's vector. Today's trading cost
    is known, so it is not learned but subtracted, in the reward's unit. With `credit: stock`
    each stock also takes off its part in the variance, see `StockRisk`.
    """

    N_PORTFOLIO = 4  # weight, trade, weight - prior, previous weight

    def __init__(
        self,
        sizes: tuple[int, int],
        config: MicroNetworkConfig,
        costs: TradeCosts,
        *,
        is_by_stock: bool,
    ) -> None:
        super().__init__()
        n_features, n_context = sizes
        self.costs = costs
        self.tower = StockTower(n_features, config.tower)
        self.slope = nn.Linear(config.tower, 1)
        self.direct = nn.Linear(n_features, 1)
        self.stock = nn.Linear(config.tower, config.head)
        self.portfolio = nn.Linear(self.N_PORTFOLIO, config.head)
        self.context = nn.Linear(n_context, config.head)
        self.out = nn.Linear(config.head, 1)
        self.base = nn.Linear(n_context, 1)
        for layer in (self.slope, self.direct, self.out, self.base):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.risk = StockRisk(config.tower) if is_by_stock else None

    def forward(
        self, inputs: MicroInputs, request: SlotRequest, executed: Float[Tensor, "B N"]
    ) -> Float[Tensor, " B"]:
        """Return the value of holding `executed` after the trade.

        It is the discounted reward still to come, in percent.
        """
        return self.columns(inputs, request, executed).sum(dim=1)

    def columns(
        self, inputs: MicroInputs, request: SlotRequest, executed: Float[Tensor, "B N"]
    ) -> Float[Tensor, "B C"]:
        """Return the value in the columns that are taught.

        With `credit: stock` these are the variance by stock (N), and the rest. Else C is 1.
        """
        view = inputs.view
        market = self.tower(inputs.features, inputs.tradable)
        trade = executed - view.weights
        own = [executed, trade, executed - request.prior, view.weights]
        slope = single_output(self.slope, market) + single_output(self.direct, inputs.features)
        slope = slope.index_select(0, inputs.row_of)
        per_stock = WEIGHT_SCALE * executed * slope + portfolio_output(self, market, own, inputs)
        base = self.base(micro_context(inputs)).squeeze(1)
        total: Tensor = (per_stock * view.tradable).sum(dim=1) + base
        trade = trade * view.tradable
        known_cost = self.costs.cost(trade, torch.ones_like(total), None)
        rest = (total - PERCENT * known_cost)[:, None]
        if self.risk is None:
            return rest
        return torch.cat([self.risk(market, inputs, request, executed), rest], dim=1)


def portfolio_output(
    network: "MicroActor | MicroCritic",
    market: Float[Tensor, "D N H"],
    own: list[Float[Tensor, "B N"]],
    inputs: MicroInputs,
) -> Float[Tensor, "B N"]:
    """Return out(relu(stock(market) + portfolio(WEIGHT_SCALE x own) + context)) of each stock."""
    context = network.context(micro_context(inputs)) + network.portfolio.bias
    weight = WEIGHT_SCALE * network.portfolio.weight.t()
    stock, out = network.stock(market), network.out.weight[0]
    return stock_head(stock, own, weight, context, out, inputs.row_of) + network.out.bias


def single_output(layer: nn.Linear, values: Float[Tensor, "X N H"]) -> Float[Tensor, "X N"]:
    """Apply a layer with one output as a product with a vector, whose gradient is cheaper."""
    return values @ layer.weight[0] + layer.bias


def micro_context(inputs: MicroInputs) -> Float[Tensor, "B C"]:
    """Return R + 4 columns that all stocks of a decision share: regime and portfolio scalars."""
    return torch.cat([inputs.view.goal.regime_probabilities, inputs.view.scalars], dim=1)


def centred(
    scores: Float[Tensor, "B N"], mask: Bool[Tensor, "B N"], n_groups: int
) -> Float[Tensor, "B N"]:
    """Subtract the mean over the masked entries of each of `n_groups` runs; 0 elsewhere."""
    weight = mask.to(scores.dtype).unflatten(1, (n_groups, -1))
    grouped = scores.unflatten(1, (n_groups, -1))
    total = (grouped * weight).sum(dim=2, keepdim=True)
    mean = total / weight.sum(dim=2, keepdim=True).clamp(min=1)
    return ((grouped - mean) * weight).flatten(1)


class MicroSettings:
    """What the micro networks depend on: market, network sizes, risk limits and costs.

    Args:
        tensors: the market.
        config: of the run.

    Examples:
        >>> from hrl_sarp.config.loading import load_config
        >>> from hrl_sarp.known_markets.reachable_goals import goal_market
        >>> from hrl_sarp.known_markets.small_market import on_cpu
        >>> tensors, config = on_cpu(goal_market(20)), load_config(market="synthetic")
        >>> MicroSettings(tensors, config).n_features  # stock features of a slot
        1
    """

    def __init__(self, tensors: MarketTensors, config: RunConfig) -> None:
        self.tensors, self.config, self.risk = tensors, config.micro_agent, config.risk
        self.is_risk = config.objective.kind == "risk"
        self.is_by_stock = self.is_risk and config.micro_agent.td3.credit == "stock"
        self.risk_aversion = config.objective.risk_aversion
        linear = config.market_profile.costs.model_copy(update={"impact_coefficient": 0.0})
        self.costs = TradeCosts(linear)
        self.n_features = int(tensors.slot_features.shape[2])
        self.n_context = len(Regime) + len(MICRO_SCALARS)

    def __deepcopy__(self, memo: dict[int, Any]) -> "MicroSettings":
        """Return itself: settings never change."""
        return self

    def read(self, observation: Any) -> tuple[MicroInputs, SlotRequest]:
        """Read an observation of either form.

        Args:
            observation: index observation or flat arrays, as the micro level gives them.

        Returns:
            Inputs of the networks, and limits for the decode.
        """
        if "day" in observation:
            inputs = micro_inputs(self.tensors, observation)
        else:
            flat, goal = observation["observation"], observation["desired_goal"]
            inputs = MicroInputs.unflatten(flat.float(), goal.float(), self.tensors.n_slots)
        return inputs, slot_request(inputs.view, self.risk)

    def decode(self, scores: Tensor, request: SlotRequest) -> Tensor:
        """Turn scores into target weights by the configured decode.

        Args:
            scores: (B, N), from -1 to 1.
            request: goal and limits of each decision.

        Returns:
            Weights (B, N) within the limits.
        """
        network = self.config.network
        if network.decode == "free":
            return decode_free(scores, request, network.free_temperature)
        speed = network.trade_speed
        return decode_within_sector(scores, request, network.score_temperature, speed)


class WeightActor(nn.Module):
    """The score network and its decode: maps observations to target weights."""

    optimizer: torch.optim.Optimizer

    def __init__(self, settings: MicroSettings) -> None:
        super().__init__()
        self.settings = settings
        network = settings.config.network
        self.network = MicroActor(settings.n_features, settings.n_context, network)

    def forward(self, observation: Any) -> Tensor:
        """Return deterministic target weights (B, N)."""
        inputs, request = self.settings.read(observation)
        return self.settings.decode(self.network(inputs, request), request)

    def with_noise(self, observation: Any, noise: Tensor) -> Tensor:
        """Return target weights (B, N) after noise was added to the scores."""
        return self.noisy_weights(*self.settings.read(observation), noise)

    def calibrate(self, temperature: float) -> None:
        """Multiply the scores before the squashing."""
        self.network.calibrate(temperature)

    def noisy_weights(self, inputs: MicroInputs, request: SlotRequest, noise: Tensor) -> Tensor:
        """Return `with_noise` for an observation that was read already."""
        scores = (self.network(inputs, request) + noise).clamp(-1, 1)
        return self.settings.decode(scores, request)

    def set_training_mode(self, mode: bool) -> None:  # noqa: FBT001
        """Stable-Baselines3's name for `train`."""
        self.train(mode)


class TwinCritic(nn.Module):
    """Two independent critics; TD3's target takes the smaller value."""

    optimizer: torch.optim.Optimizer

    def __init__(self, settings: MicroSettings) -> None:
        super().__init__()
        self.settings = settings
        sizes = (settings.n_features, settings.n_context)
        network, costs = settings.config.network, settings.costs
        self.first = MicroCritic(sizes, network, costs, is_by_stock=settings.is_by_stock)
        self.second = MicroCritic(sizes, network, costs, is_by_stock=settings.is_by_stock)

    def forward(self, observation: Any, executed: Tensor) -> tuple[Tensor, Tensor]:
        """Return both values (B,)."""
        return self.values(*self.settings.read(observation), executed)

    def values(
        self, inputs: MicroInputs, request: SlotRequest, executed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return both values for an observation that was read already."""
        return self.first(inputs, request, executed), self.second(inputs, request, executed)

    def columns(
        self, inputs: MicroInputs, request: SlotRequest, executed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return both values in the columns that are taught, (B, C)."""
        seen = inputs, request, executed
        return self.first.columns(*seen), self.second.columns(*seen)

    def set_training_mode(self, mode: bool) -> None:  # noqa: FBT001
        """Stable-Baselines3's name for `train`."""
        self.train(mode)
