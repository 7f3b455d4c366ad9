"""Mixtures of Student's t: what Toto 1.0 says about a step, in closed form."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float
from numba import njit
from scipy import special
from torch import Tensor, nn
from torch.nn import functional

TINY = torch.finfo(torch.float32).eps
_MOST_ROUNDS = 200
_ROUGHLY, _CLOSE_ENOUGH = 1e-2, 1e-13
"""Probabilities: where the search for a quantile becomes exact, and where it ends."""
_MOST_TERMS, _ROUNDING = 1000, 4e-16


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
            NaN where a step has a value that is not finite.
        """
        df, loc, scale, weights = (part.reshape(-1, part.shape[-1]) for part in self._arrays())
        asked = np.asarray(levels, dtype=float)
        normal, wide = special.ndtri(asked), (asked - 0.5) / np.sqrt(asked * (1 - asked) / 2)
        # df lies between 2 and infinity, so each component's quantile lies between these two, and
        # the quantile of the mixture lies between those of its components
        ends = np.sort([normal, wide], axis=0)[..., None]
        with np.errstate(invalid="ignore"):
            low = (loc[:, None] + scale[:, None] * ends[0]).min(axis=-1)
            high = (loc[:, None] + scale[:, None] * ends[1]).max(axis=-1)
        log_beta = special.betaln(df / 2, 0.5)
        found = _invert(df, loc, scale, weights, log_beta, asked, low, high)
        found[~np.isfinite(df + loc + scale + weights).all(axis=-1)] = np.nan
        ascending = np.maximum.accumulate(found, axis=-1)
        return torch.from_numpy(ascending.reshape(*self.df.shape[:-1], len(asked)))

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
        return [part.detach().double().cpu().contiguous().numpy() for part in self.parts]


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


# Numba compiles what follows; it cannot read annotations of shapes.


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _invert(df, loc, scale, weights, log_beta, levels, low, high):
    found = np.empty_like(low)
    for n in range(len(df)):
        step = df[n], loc[n], scale[n], weights[n], log_beta[n]
        for q in range(len(levels)):
            found[n, q] = _quantile(*step, levels[q], low[n, q], high[n, q])
    return found


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _quantile(df, loc, scale, weights, log_beta, level, first, last):
    """Newton inside a bracket: near the goal by a cheap approximation, then exactly."""
    low, high, step, exact = first, last, last - first, False
    x = (low + high) / 2
    for _ in range(_MOST_ROUNDS):
        below = density = slope = 0.0
        for k in range(len(df)):
            z = (x - loc[k]) / scale[k]
            beyond = _beyond(z, df[k], log_beta[k]) if exact else _roughly_beyond(z, df[k])
            below += weights[k] * (beyond if z < 0 else 1.0 - beyond)
            tail = -(df[k] + 1) / 2 * math.log1p(z * z / df[k]) - log_beta[k]
            own = weights[k] * math.exp(tail) / (scale[k] * math.sqrt(df[k]))
            density += own
            slope -= own * (df[k] + 1) * z / ((df[k] + z * z) * scale[k])
        excess = below - level
        low, high = (x, high) if excess < 0 else (low, x)
        newton = x - excess / density
        # halving whenever Newton leaves the bracket or no longer halves its own step
        is_good = low <= newton <= high and abs(newton - x) < abs(step) / 2
        following = newton if is_good else (low + high) / 2
        step = following - x
        x = following
        # what Newton's step leaves is of second order
        left = abs(slope) / 2 * step * step if is_good else 1.0
        is_stuck = abs(step) <= _ROUNDING * abs(x)
        if exact and (left <= _CLOSE_ENOUGH or excess == 0.0 or is_stuck):
            break
        if not exact and (abs(excess) < _ROUGHLY or is_stuck):
            low, high, step, exact = first, last, last - first, True
    return x


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _roughly_beyond(z, df):
    """Return P(T > |z|) to about three digits. Source: Hill (1970), algorithm 395 of the CACM."""
    a = df - 0.5
    b = 48.0 * a * a
    y = a * math.log1p(z * z / df)
    series = (((-0.4 * y - 3.3) * y - 24.0) * y - 85.5) / (0.8 * y * y + 100.0 + b)
    normal = ((series + y + 3.0) / b + 1.0) * math.sqrt(y)
    return 0.5 * math.erfc(normal / math.sqrt(2.0))


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _beyond(z, df, log_beta):
    """Return P(T > |z|), the incomplete beta function of df / (df + z^2)."""
    a, square = df / 2, z * z
    share = square / (df + square)
    if share == 0.0:
        return 0.5
    front = math.exp(0.5 * math.log(share) - a * math.log1p(square / df) - log_beta)
    # on either side of the mode another fraction converges fast
    if share > 1.5 / (a + 2.5):
        return front * _continued_fraction(a, 0.5, 1.0 - share) / a / 2
    return 0.5 - front * _continued_fraction(0.5, a, share)


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _continued_fraction(a, b, x):
    """Lentz's method. Source: Press et al. (2007), Numerical Recipes, 6.4."""
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0))
    found = d
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        d, c = 1.0 / (1.0 + even * d), 1.0 + even / c
        found *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        d, c = 1.0 / (1.0 + odd * d), 1.0 + odd / c
        found *= d * c
        if abs(d * c - 1.0) < _ROUNDING:
            break
    return found
