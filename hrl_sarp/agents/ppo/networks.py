"""The networks of the weekly agent: sector shares, their distribution and the value of a week."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hrl_sarp.agents.layers import masked_mean, scale_layers
from hrl_sarp.config.schema import MacroNetworkConfig
from hrl_sarp.contracts import Regime
from hrl_sarp.envs.observations import macro_sizes
from hrl_sarp.market.tensors import MarketTensors

INITIAL_CONCENTRATION_LOGIT = -1.0
SMALLEST_SHARE = 1e-6
"""Smallest share of a sample. It keeps log-probabilities finite."""


class SectorDirichlet:
    """Dirichlet with alpha = 1 + kappa x softmax(z) over the listed sectors.

    As alpha > 1, the density is bounded and its mode is exactly softmax(z). The mode is what
    supervised training fits, and the deterministic action. Unlisted sectors have share 0.
    """

    def __init__(
        self,
        logits: Float[Tensor, "B S"],
        concentration: Float[Tensor, " B"],
        listed: Bool[Tensor, "B S"],
    ) -> None:
        self.listed = listed
        self.mode: Float[Tensor, "B S"] = torch.softmax(
            logits.masked_fill(~listed, -torch.inf), dim=1
        )
        self.alpha: Float[Tensor, "B S"] = 1 + concentration[:, None] * self.mode

    def sample(self) -> Float[Tensor, "B S"]:
        """Draw shares with the global generator, clamped and renormalised; 0 where unlisted."""
        gamma = torch._standard_gamma(self.alpha.detach()) * self.listed
        shares = gamma / gamma.sum(dim=1, keepdim=True)
        shares = shares.clamp(min=SMALLEST_SHARE) * self.listed
        return shares / shares.sum(dim=1, keepdim=True)

    def log_prob(self, shares: Float[Tensor, "B S"]) -> Float[Tensor, " B"]:
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
    """One hidden vector per sector from its own columns, its identity and the context."""

    def __init__(self, sizes: tuple[int, int, int], config: MacroNetworkConfig) -> None:
        super().__init__()
        n_sectors, width, context = sizes
        self.identity = nn.Embedding(n_sectors, config.hidden)
        self.sector = nn.Linear(width, config.hidden)
        self.context = nn.Linear(context, config.hidden)
        self.mix = nn.Linear(config.hidden, config.hidden)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, sectors: Float[Tensor, "B S D"], context: Float[Tensor, "B C"]
    ) -> Float[Tensor, "B S H"]:
        """Return one hidden vector a sector; `context` is what all sectors share."""
        hidden = self.sector(sectors) + self.context(context)[:, None] + self.identity.weight
        hidden = self.dropout(torch.tanh(hidden))
        mixed: Tensor = torch.tanh(self.mix(hidden))
        return mixed


class MacroActor(nn.Module):
    """Sector logits, concentration and regime logits.

    Each sector also has linear coefficients of its own on the context. A regime moves different
    sectors differently, and shared weights alone express that poorly.
    """

    def __init__(self, sizes: tuple[int, int, int], config: MacroNetworkConfig) -> None:
        super().__init__()
        n_sectors, _, context = sizes
        self.trunk = SectorTrunk(sizes, config)
        self.logit = nn.Linear(config.hidden, 1)
        self.by_context = nn.Linear(context, n_sectors)
        self.concentration = nn.Linear(config.hidden, 1)
        self.regime = nn.Linear(context, len(Regime))
        self.concentration_min = config.concentration_min
        self.concentration_range = config.concentration_range
        for layer in (self.logit, self.by_context, self.concentration, self.regime):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.concentration.bias, INITIAL_CONCENTRATION_LOGIT)

    def forward(
        self,
        sectors: Float[Tensor, "B S D"],
        context: Float[Tensor, "B C"],
        listed: Bool[Tensor, "B S"],
    ) -> tuple[SectorDirichlet, Float[Tensor, "B R"]]:
        """Return the distribution of sector shares and the regime logits.

        At least one sector of each row is listed.
        """
        hidden = self.trunk(sectors, context)
        logits = self.logit(hidden).squeeze(2) + self.by_context(context)
        pooled = masked_mean(hidden, listed)
        share = torch.sigmoid(self.concentration(pooled)).squeeze(1)
        concentration = self.concentration_min + self.concentration_range * share
        return SectorDirichlet(logits, concentration, listed), self.regime(context)

    def calibrate(self, temperature: float) -> None:
        """Multiply the sector logits by scaling the last layers, which keep learning."""
        scale_layers((self.logit, self.by_context), temperature)


class MacroCritic(nn.Module):
    """Value of a weekly decision."""

    def __init__(self, sizes: tuple[int, int, int], config: MacroNetworkConfig) -> None:
        super().__init__()
        self.trunk = SectorTrunk(sizes, config)
        self.value = nn.Linear(config.hidden, 1)

    def forward(
        self,
        sectors: Float[Tensor, "B S D"],
        context: Float[Tensor, "B C"],
        listed: Bool[Tensor, "B S"],
    ) -> Float[Tensor, "B 1"]:
        """Return the discounted reward still to come."""
        value: Tensor = self.value(masked_mean(self.trunk(sectors, context), listed))
        return value


def macro_network_sizes(tensors: MarketTensors) -> tuple[int, int, int]:
    """Return (sectors, columns per sector, columns of context)."""
    return (tensors.n_sectors, *macro_sizes(tensors))
