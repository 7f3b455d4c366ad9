"""The networks of the weekly agent: shares of sectors and cash, their distribution, a value."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hrl_sarp.agents.layers import ignore_columns, masked_mean, scale_layers
from hrl_sarp.config.schema import MacroNetworkConfig, RunConfig
from hrl_sarp.contracts import Goal, Regime
from hrl_sarp.envs.observations import HELD, MacroInputs, macro_sizes
from hrl_sarp.market.tensors import MarketTensors

INITIAL_CONCENTRATION_LOGIT = -1.0
SMALLEST_SHARE = 1e-6
"""Smallest share of a sample. It keeps log-probabilities finite."""
SMALLEST_PRIOR = 1e-3
"""A smaller share of the classical portfolio counts as this, so that a tilt can move it."""


class SectorDirichlet:
    """Dirichlet over the listed sectors, and over cash where the agent decides on it.

    Its centre is softmax(z): what supervised training fits, and the deterministic action. As the
    mode, alpha = 1 + kappa x centre. As the mean, alpha = (n + kappa) x centre for n listed
    entries, but at least 1. Either way the density is bounded. Unlisted sectors have share 0.
    """

    def __init__(
        self,
        logits: Float[Tensor, "B X"],
        concentration: Float[Tensor, " B"],
        listed: Bool[Tensor, "B X"],
        centre: Literal["mode", "mean"] = "mode",
    ) -> None:
        self.listed = listed
        self.centre: Float[Tensor, "B X"] = torch.softmax(
            logits.masked_fill(~listed, -torch.inf), dim=1
        )
        if centre == "mode":
            self.alpha: Float[Tensor, "B X"] = 1 + concentration[:, None] * self.centre
        else:
            total = listed.sum(dim=1) + concentration
            self.alpha = (total[:, None] * self.centre).clamp(min=1.0)

    def sample(self) -> Float[Tensor, "B X"]:
        """Draw shares with the global generator, clamped and renormalised; 0 where unlisted."""
        gamma = torch._standard_gamma(self.alpha.detach()) * self.listed
        shares = gamma / gamma.sum(dim=1, keepdim=True)
        shares = shares.clamp(min=SMALLEST_SHARE) * self.listed
        return shares / shares.sum(dim=1, keepdim=True)

    def log_prob(self, shares: Float[Tensor, "B X"]) -> Float[Tensor, " B"]:
        """Return the log density of shares that `sample` made, over the listed sectors."""
        safe = torch.where(self.listed, shares, 1.0).clamp(min=SMALLEST_SHARE / 2)
        kernel = (self.alpha - 1) * safe.log() * self.listed
        return kernel.sum(dim=1) - self._log_normaliser()

    def entropy(self) -> Float[Tensor, " B"]:
        """Return the differential entropy in nats; it may be negative."""
        alpha, listed = self.alpha, self.listed
        total = (alpha * listed).sum(dim=1)
        count = listed.sum(dim=1)
        terms = ((alpha - 1) * torch.digamma(alpha) * listed).sum(dim=1)
        return self._log_normaliser() + (total - count) * torch.digamma(total) - terms

    def _log_normaliser(self) -> Tensor:
        total = (self.alpha * self.listed).sum(dim=1)
        return (torch.lgamma(self.alpha) * self.listed).sum(dim=1) - torch.lgamma(total)

    def measures(self) -> dict[str, Float[Tensor, ""]]:
        """Measure how much the policy explores: mean `entropy` (nats) and concentration `kappa`."""
        kappa = (self.alpha - 1).sum(dim=1)
        return {"entropy": self.entropy().mean(), "kappa": kappa.mean()}


class SectorTrunk(nn.Module):
    """One hidden vector per sector from its own columns and the context, and from its identity.

    Exchangeable sectors have no identity, so that the network cannot remember which one won.
    """

    def __init__(self, sizes: tuple[int, int, int], config: MacroNetworkConfig) -> None:
        super().__init__()
        n_sectors, width, context = sizes
        self.identity = None if config.exchangeable else nn.Embedding(n_sectors, config.hidden)
        self.sector = nn.Linear(width, config.hidden)
        self.context = nn.Linear(context, config.hidden)
        self.mix = nn.Linear(config.hidden, config.hidden)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, sectors: Float[Tensor, "B S D"], context: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B S H"]:
        """Return one hidden vector a sector; `context` is what all sectors share."""
        hidden = self.sector(sectors) + self.context(context)[:, None]
        if self.identity is not None:
            hidden = hidden + self.identity.weight
        hidden = self.dropout(torch.tanh(hidden))
        mixed: Tensor = torch.tanh(self.mix(hidden))
        return mixed


@dataclass(frozen=True)
class MacroDecision:
    """What the actor says of B weeks."""

    shares: SectorDirichlet
    """Of the invested part; with cash as the last entry where the agent decides on it."""
    regime: Float[Tensor, "B R"]
    """Logits."""
    n_sectors: int

    def goal(self, shares: Float[Tensor, "B X"]) -> Goal:
        """Read shares of the distribution as a goal with the regime head's probabilities."""
        probabilities = torch.softmax(self.regime, dim=1)
        if shares.shape[1] == self.n_sectors:
            return Goal(shares, torch.zeros_like(shares[:, 0]), probabilities)
        sectors, cash = shares[:, :-1], shares[:, -1]
        return Goal(sectors / (1 - cash).clamp(min=SMALLEST_SHARE)[:, None], cash, probabilities)

    def shares_of(self, goal: Goal) -> Float[Tensor, "B X"]:
        """Return the shares that a goal was made of; the inverse of `goal`."""
        if self.shares.listed.shape[1] == self.n_sectors:
            return goal.sector_weights
        invested = (1 - goal.cash)[:, None] * goal.sector_weights
        return torch.cat([invested, goal.cash[:, None]], dim=1)


class MacroActor(nn.Module):
    """Sector logits, cash, concentration and regime logits.

    Where the market has risk tables, the network is a residual on their classical portfolio: its
    last layers start at 0, so that the untrained agent holds that portfolio. Sectors that are not
    exchangeable also have linear coefficients of their own on the context. A regime moves different
    sectors differently, and shared weights alone express that poorly.
    """

    def __init__(
        self,
        sizes: tuple[int, int, int],
        config: MacroNetworkConfig,
        *,
        decides_cash: bool,
        n_regime_inputs: int,
    ) -> None:
        super().__init__()
        self.n_sectors, _, context = sizes
        self.n_regime_inputs = n_regime_inputs
        self.config = config
        self.trunk = SectorTrunk(sizes, config)
        self.logit = nn.Linear(config.hidden, 1)
        self.by_context = None if config.exchangeable else nn.Linear(context, self.n_sectors)
        self.concentration = nn.Linear(config.hidden, 1)
        self.regime = nn.Linear(n_regime_inputs, len(Regime))
        self.cash = nn.Linear(config.hidden, 1) if decides_cash else None
        for layer in (*self._last_layers(), self.concentration, self.regime):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.concentration.bias, INITIAL_CONCENTRATION_LOGIT)

    def forward(self, inputs: MacroInputs) -> MacroDecision:
        """Decide on B weeks; at least one sector of each is listed."""
        listed = inputs.listed
        hidden = self.trunk(inputs.sectors, inputs.context)
        pooled = masked_mean(hidden, listed)
        share = torch.sigmoid(self.concentration(pooled)).squeeze(1)
        concentration = self.config.concentration_min + self.config.concentration_range * share
        regime = self.regime(inputs.context[:, -self.n_regime_inputs :])
        tilt = self.logit(hidden).squeeze(2)
        if self.by_context is not None:
            tilt = tilt + self.by_context(inputs.context)
        if self.cash is None:
            shares = SectorDirichlet(tilt, concentration, listed, self.config.centre)
            return MacroDecision(shares, regime, self.n_sectors)
        cash_tilt = self.cash(pooled).squeeze(1)
        logits = self._on_prior(inputs, tilt, cash_tilt)
        everything = torch.cat([listed, torch.ones_like(listed[:, :1])], dim=1)
        shares = SectorDirichlet(logits, concentration, everything, self.config.centre)
        return MacroDecision(shares, regime, self.n_sectors)

    def _on_prior(
        self, inputs: MacroInputs, tilt: Float[Tensor, "B S"], cash_tilt: Float[Tensor, " B"]
    ) -> Float[Tensor, "B X"]:
        """Add tilts to the logits of the classical portfolio, sectors and cash apart."""
        largest, largest_of_cash = self.config.largest_tilt, self.config.largest_cash_tilt
        sectors, cash = inputs.prior[:, :-1], inputs.prior[:, -1]
        sectors = sectors.clamp(min=SMALLEST_PRIOR).log() + tilt.clamp(-largest, largest)
        sectors = torch.log_softmax(sectors.masked_fill(~inputs.listed, -torch.inf), dim=1)
        cash = cash.clamp(SMALLEST_PRIOR, 1 - SMALLEST_PRIOR)
        odds = torch.logit(cash) + cash_tilt.clamp(-largest_of_cash, largest_of_cash)
        invested, kept = nn.functional.logsigmoid(-odds), nn.functional.logsigmoid(odds)
        return torch.cat([invested[:, None] + sectors, kept[:, None]], dim=1)

    def _last_layers(self) -> tuple[nn.Linear, ...]:
        return tuple(
            layer for layer in (self.logit, self.by_context, self.cash) if layer is not None
        )

    def ignore_holdings(self, own_columns: Sequence[int]) -> None:
        """Give no weight to what is held, and let this network learn none.

        `own_columns` of the context repeat what is held.
        """
        ignore_columns(self.trunk.sector, [HELD])
        ignore_columns(self.trunk.context, own_columns)

    def calibrate(self, temperature: float) -> None:
        """Multiply the tilts by scaling the last layers, which keep learning."""
        scale_layers(self._last_layers(), temperature)


class MacroCritic(nn.Module):
    """Value of a weekly decision."""

    def __init__(self, sizes: tuple[int, int, int], config: MacroNetworkConfig) -> None:
        super().__init__()
        self.trunk = SectorTrunk(sizes, config)
        self.value = nn.Linear(config.hidden, 1)

    def forward(self, inputs: MacroInputs) -> Float[Tensor, "B 1"]:
        """Return the discounted reward still to come."""
        hidden = self.trunk(inputs.sectors, inputs.context)
        value: Tensor = self.value(masked_mean(hidden, inputs.listed))
        return value


def macro_networks(tensors: MarketTensors, config: RunConfig) -> tuple[MacroActor, MacroCritic]:
    """Build actor and critic for a market; under the objective `risk` the actor decides on cash."""
    sizes, network = (tensors.n_sectors, *macro_sizes(tensors)), config.macro_agent.network
    n_risk, is_risk = tensors.risk_inputs.shape[1], config.objective.kind == "risk"
    # the classes of the objective `risk` are of volatility, which the risk inputs show
    n_seen = n_risk if is_risk and n_risk else sizes[2]
    actor = MacroActor(sizes, network, decides_cash=is_risk, n_regime_inputs=n_seen)
    return actor, MacroCritic(sizes, network)
