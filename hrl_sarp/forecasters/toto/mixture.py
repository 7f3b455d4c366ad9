"""Mixtures of Student's t: what Toto 1.0 says about a step, in closed form."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import special
from torch import Tensor, nn
from torch.nn import functional

TINY = torch.finfo(torch.float32).eps
_MOST_ROUNDS = 200
_CLOSE_ENOUGH = 1e-13
"""Of the first bracket: where the search for a quantile ends."""


@dataclass(frozen=True)
class StudentTMixture:
    """A mixture of K components of Student's t for each of some steps.

    Examples:
        >>> one = torch.ones(1, 1)
        >>> normal = StudentTMixture(1e6 * one, 0 * one, one, one)
        >>> [round(q, 2) for q in normal.quantiles([0.025, 0.5, 0.975])[0].tolist()]
        [-1.96, 0.0, 1.96]
    """

    df: Float[Tensor, "*steps K"]
    """Degrees of freedom, above 2."""
    loc: Float[Tensor, "*steps K"]
    scale: Float[Tensor, "*steps K"]
    weights: Float[Tensor, "*steps K"]
    """They sum to 1 over the components."""

    @property
    def mean(self) -> Float[Tensor, "*steps"]:
        """Mean of each step."""
        return (self.weights * self.loc).sum(dim=-1)

    @property
    def variance(self) -> Float[Tensor, "*steps"]:
        """Variance of each step, in float64; very large where a component's df is near 2."""
        df, loc, scale, weights = (part.double() for part in self.parts)
        own = scale.square() * df / (df - 2.0).clamp(min=TINY)
        apart = (loc - (weights * loc).sum(dim=-1, keepdim=True)).square()
        return (weights * (own + apart)).sum(dim=-1)

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """df, loc, scale and weights."""
        return self.df, self.loc, self.scale, self.weights

    def log_prob(self, values: Float[Tensor, "*steps"]) -> Float[Tensor, "*steps"]:
        """Return the log density at one value of each step.

        Args:
            values: one for each step.

        Returns:
            Log densities. Weights count as at least the epsilon of float32.
        """
        df, z = self.df, (values.unsqueeze(-1) - self.loc) / self.scale
        constant = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - (math.pi * df).log() / 2
        densities = constant - self.scale.log() - (df + 1) / 2 * torch.log1p(z.square() / df)
        log_weights = torch.log_softmax(self.weights.clamp(TINY, 1.0 - TINY).log(), dim=-1)
        return torch.logsumexp(densities + log_weights, dim=-1)

    def cdf(self, values: Float[Tensor, "*steps"]) -> Float[Tensor, "*steps"]:
        """Return the probability of at most `values`.

        Args:
            values: one for each step.

        Returns:
            Probabilities in float64, on the CPU, without a gradient.
        """
        df, loc, scale, weights = self._arrays()
        z = (values.detach().double().cpu().numpy()[..., None] - loc) / scale
        return torch.from_numpy(np.asarray((weights * special.stdtr(df, z)).sum(axis=-1)))

    def quantiles(self, levels: Sequence[float]) -> Float[Tensor, "*steps Q"]:
        """Invert the distribution function of each step.

        Args:
            levels: ascending, each in (0, 1).

        Returns:
            Quantiles in float64, on the CPU, without a gradient; they ascend along the last axis.
        """
        # one row for each pair of step and level
        shape = (*self.df.shape[:-1], len(levels))
        rows = [
            np.broadcast_to(part[..., None, :], (*shape, part.shape[-1])).reshape(
                -1, part.shape[-1]
            )
            for part in self._arrays()
        ]
        targets = np.broadcast_to(np.asarray(levels, dtype=float), shape).reshape(-1)
        found = np.maximum.accumulate(_invert(rows, targets).reshape(shape), axis=-1)
        return torch.from_numpy(found)

    def draw(self, uniforms: Float[Tensor, "*steps 3"]) -> Float[Tensor, "*steps"]:
        """Turn uniform numbers into draws; the same numbers give the same draws.

        Args:
            uniforms: three numbers in (0, 1) for each draw.

        Returns:
            One draw for each step.

        Source:
            Bailey (1994), "Polar generation of random variates with the t-distribution".
        """
        which, radius, angle = uniforms.unbind(-1)
        reached = self.weights.double().cumsum(dim=-1) < which.unsqueeze(-1)
        chosen = reached.sum(dim=-1, keepdim=True).clamp(max=self.df.shape[-1] - 1)
        df, loc, scale = (
            part.gather(-1, chosen).squeeze(-1).double() for part in (self.df, self.loc, self.scale)
        )
        t = (df * torch.expm1(-2.0 / df * radius.log())).sqrt() * torch.cos(2.0 * math.pi * angle)
        return (loc + scale * t).to(self.loc.dtype)

    def moved(
        self, shift: Float[Tensor, "*steps"], factor: Float[Tensor, "*steps"]
    ) -> "StudentTMixture":
        """Return the distribution of shift + factor times the value.

        Args:
            shift: one for each step.
            factor: one for each step, positive.

        Returns:
            A mixture with the same degrees of freedom and weights.
        """
        shift, factor = shift.unsqueeze(-1), factor.unsqueeze(-1)
        return StudentTMixture(
            self.df, shift + factor * self.loc, factor * self.scale, self.weights
        )

    def repeat(self, n: int) -> "StudentTMixture":
        """Repeat the first axis.

        Args:
            n: how often.

        Returns:
            Mixtures in the order of all, n times.
        """
        return StudentTMixture(
            *(part.repeat(n, *(1 for _ in part.shape[1:])) for part in self.parts)
        )

    def _arrays(self) -> list[Float[np.ndarray, "*steps K"]]:
        return [part.detach().double().cpu().numpy() for part in self.parts]


class MixtureHead(nn.Module):
    """Reads a mixture of Student's t from a vector."""

    def __init__(self, width: int, n_components: int) -> None:
        super().__init__()
        self.df = nn.Linear(width, n_components)
        self.loc_proj = nn.Linear(width, n_components)
        self.scale_proj = nn.Linear(width, n_components)
        self.mixture_weights = nn.Linear(width, n_components)

    def forward(self, x: Float[Tensor, "*steps D"]) -> StudentTMixture:
        """Return one mixture per vector."""
        return StudentTMixture(
            2.0 + functional.softplus(self.df(x)).clamp(min=TINY),
            self.loc_proj(x),
            functional.softplus(self.scale_proj(x)).clamp(min=TINY),
            self.mixture_weights(x).softmax(dim=-1),
        )


def _invert(
    rows: Sequence[Float[np.ndarray, "N K"]], levels: Float[np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
    """Find where each row's distribution function takes a level: Newton inside a bracket."""
    df, loc, scale, weights = rows
    normal, wide = special.ndtri(levels), (2 * levels - 1) / np.sqrt(2 * levels * (1 - levels))
    # df lies between 2 and infinity, so each component's quantile lies between these two, and the
    # quantile of the mixture lies between those of its components
    ends = np.sort([normal, wide], axis=0)
    low = (loc + scale * ends[0, :, None]).min(axis=1)
    high = (loc + scale * ends[1, :, None]).max(axis=1)
    constant = special.gammaln((df + 1) / 2) - special.gammaln(df / 2) - np.log(np.pi * df) / 2
    constant = weights * np.exp(constant) / scale
    enough = _CLOSE_ENOUGH * np.maximum(high - low, np.abs(high + low) / 2)
    x, step, open_rows = (low + high) / 2, high - low, np.flatnonzero(high - low > enough)
    for _ in range(_MOST_ROUNDS):
        if not len(open_rows):
            break
        at = open_rows
        z = (x[at, None] - loc[at]) / scale[at]
        excess = (weights[at] * special.stdtr(df[at], z)).sum(axis=1) - levels[at]
        density = (constant[at] * (1 + z * z / df[at]) ** (-(df[at] + 1) / 2)).sum(axis=1)
        low[at] = np.where(excess < 0, x[at], low[at])
        high[at] = np.where(excess > 0, x[at], high[at])
        middle = (low[at] + high[at]) / 2
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            newton = x[at] - excess / density
        # halving whenever Newton leaves the bracket or no longer halves its own step
        is_good = (newton >= low[at]) & (newton <= high[at])
        is_good &= np.abs(newton - x[at]) < np.abs(step[at]) / 2
        following = np.where(is_good, newton, middle)
        step[at] = following - x[at]
        x[at] = following
        is_open = (np.abs(step[at]) > enough[at]) & (excess != 0) & (high[at] - low[at] > 0)
        open_rows = at[is_open]
    return x
