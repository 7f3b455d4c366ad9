"""The Dirichlet over listed sectors that the macro policy samples from."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SMALLEST_SHARE = 1e-6
"""Samples are clamped to it and renormalised before storage: log-probabilities stay finite."""


class SectorDirichlet:
    """Dirichlet with alpha = 1 + kappa x softmax(z) over the listed sectors.

    alpha > 1, so the density is bounded and its mode is exactly softmax(z): what supervised
    training fits and what the deterministic action is. Unlisted sectors have share 0.
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
        """Draw shares with the global generator, clamped and renormalised."""
        gamma = torch._standard_gamma(self.alpha.detach()) * self.listed
        shares = gamma / gamma.sum(dim=1, keepdim=True)
        shares = shares.clamp(min=SMALLEST_SHARE) * self.listed
        return shares / shares.sum(dim=1, keepdim=True)

    def log_prob(self, shares: Float[Tensor, "B S"]) -> Float[Tensor, " B"]:
        """Return the log density of shares that `sample` made."""
        safe = torch.where(self.listed, shares, 1.0).clamp(min=SMALLEST_SHARE / 2)
        kernel = (self.alpha - 1) * safe.log() * self.listed
        return kernel.sum(dim=1) - self._log_normaliser()

    def entropy(self) -> Float[Tensor, " B"]:
        """Return the differential entropy."""
        alpha, listed = self.alpha, self.listed
        total = (alpha * listed).sum(dim=1)
        count = listed.sum(dim=1)
        terms = ((alpha - 1) * torch.digamma(alpha) * listed).sum(dim=1)
        return self._log_normaliser() + (total - count) * torch.digamma(total) - terms

    def _log_normaliser(self) -> Tensor:
        total = (self.alpha * self.listed).sum(dim=1)
        return (torch.lgamma(self.alpha) * self.listed).sum(dim=1) - torch.lgamma(total)
