"""Attention over time and across series, with rotated positions, for both generations of Toto."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

_ROTARY_BASE = 10_000.0
_NORM_EPS = 1e-8
_XPOS_GAMMA = 0.4
"""Source: Sun et al. (2022), "A length-extrapolatable transformer"."""
XPOS_BASE = 512.0
"""Steps over which the slowest wave of Toto 1.0 fades by its factor."""


@dataclass(frozen=True)
class Rotation:
    """Angles and growth of some positions; what is done to queries and keys before they meet."""

    cosine: Float[Tensor, "*axes d"]
    sine: Float[Tensor, "*axes d"]
    growth: Float[Tensor, "*axes d"]
    """Queries are multiplied by it and keys divided, so that far keys fade (xPos)."""

    def of_queries(self, x: Float[Tensor, "*axes d"]) -> Float[Tensor, "*axes d"]:
        """Rotate queries and let them grow."""
        return self._turn(x) * self.growth

    def of_keys(self, x: Float[Tensor, "*axes d"]) -> Float[Tensor, "*axes d"]:
        """Rotate keys and let them shrink."""
        return self._turn(x) / self.growth

    def _turn(self, x: Float[Tensor, "*axes d"]) -> Float[Tensor, "*axes d"]:
        """Rotate neighbouring pairs of channels."""
        partner = torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)
        return x * self.cosine + partner * self.sine


def rotate(
    positions: Tensor, width: int, centre: float, *, xpos_base: float, interleaved: bool
) -> Rotation:
    """Compute the rotation of positions.

    Args:
        positions: of any shape.
        width: d, channels that are rotated; even.
        centre: position where growth is 1. It has no effect on a product of a query and a key as
            long as both have the same centre.
        xpos_base: positions over which a wave grows by its factor.
        interleaved: whether both channels of a pair have the same growth. In Toto 1.0 they have
            not, so its attention depends on absolute positions, too.

    Returns:
        Rotation with axes of `positions` and d.
    """
    pairs = torch.arange(0, width, 2, dtype=positions.dtype, device=positions.device)
    angles = positions.unsqueeze(-1) * _ROTARY_BASE ** (-pairs / width)
    angles = angles.repeat_interleave(2, dim=-1)
    factors = (pairs + _XPOS_GAMMA * width) / ((1.0 + _XPOS_GAMMA) * width)
    exponents = (positions.unsqueeze(-1) - centre) / xpos_base
    growth = factors**exponents
    growth = growth.repeat_interleave(2, dim=-1) if interleaved else torch.cat([growth, growth], -1)
    return Rotation(angles.cos(), angles.sin(), growth)


@dataclass
class Cache:
    """Keys and values of patches that were read before, so that only new ones are computed.

    The centre of the rotation stays where it is. If it moved with the newest patch, old keys would
    be scaled for another centre than new queries, and decoding would differ from one full pass.
    """

    centre: float
    n_tokens: int = 0
    """Tokens that all layers have seen."""
    seen: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Number of the layer -> keys and values, (B, V, H, tokens, d)."""

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append new keys and values of a layer and return all of them."""
        if layer in self.seen:
            old_keys, old_values = self.seen[layer]
            keys = torch.cat([old_keys, keys], dim=-2)
            values = torch.cat([old_values, values], dim=-2)
        self.seen[layer] = keys, values
        return keys, values

    def repeat(self, n: int) -> "Cache":
        """Return the cache of a batch that is repeated n times."""
        seen = {
            layer: (keys.repeat(n, 1, 1, 1, 1), values.repeat(n, 1, 1, 1, 1))
            for layer, (keys, values) in self.seen.items()
        }
        return Cache(self.centre, self.n_tokens, seen)


@dataclass(frozen=True)
class Surroundings:
    """What all layers of one pass need to know besides the tokens."""

    rotation: Rotation
    time_mask: Bool[Tensor, "B V 1 Q N"] | None
    """Which tokens of its series a token sees; None means all up to itself."""
    space_mask: Bool[Tensor, "B Q 1 V V"]
    """Which series a token sees at its own time."""
    cache: Cache | None = None


def visible(
    first_tokens: Int[Tensor, "B V"], n_before: int, n_new: int, n_labels: int
) -> Bool[Tensor, "B V 1 Q N"]:
    """Say which tokens of its series a token sees: those up to itself, and no padding.

    Args:
        first_tokens: tokens of padding at the beginning of each series, behind its labels.
        n_before: tokens in the cache.
        n_new: Q, tokens to compute.
        n_labels: tokens at the very beginning that are no patches and are always seen.

    Returns:
        True = seen. A token always sees itself.
    """
    tokens = torch.arange(n_before + n_new, device=first_tokens.device)
    queries, keys = tokens[n_before:, None], tokens
    real = (keys < n_labels) | (keys >= first_tokens[..., None] + n_labels)
    seen = (keys <= queries) & real[..., None, :] | (keys == queries)
    return seen.unsqueeze(2)


def same_group(
    groups: Int[Tensor, "B V"], first_tokens: Int[Tensor, "B V"], tokens: Int[Tensor, " Q"]
) -> Bool[Tensor, "B Q 1 V V"]:
    """Say which series see each other at each token: those of one group that have begun.

    Args:
        groups: series with the same number belong together.
        first_tokens: first token of each series that is no padding.
        tokens: numbers of the tokens; labels have negative ones and are seen always.

    Returns:
        True = the last axis is seen by the one before it. A series always sees itself.
    """
    together = groups[:, :, None] == groups[:, None, :]
    begun = (tokens[:, None] < 0) | (tokens[:, None] >= first_tokens[:, None, :])
    itself = torch.eye(groups.shape[1], dtype=torch.bool, device=groups.device)
    seen = together[:, None] & begun[:, :, None, :] | itself
    return seen.unsqueeze(2)


class RmsNorm(nn.Module):
    """Divides by the root mean square of the channels and multiplies by weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*axes D"]) -> Float[Tensor, "*axes D"]:
        """Normalise the last axis."""
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + _NORM_EPS) * self.scale


class Gate(nn.Module):
    """SwiGLU: the first half of the channels, through SiLU, lets the second half pass."""

    def forward(self, x: Float[Tensor, "*axes F2"]) -> Float[Tensor, "*axes F"]:
        """Halve the last axis."""
        gate, passed = x.chunk(2, dim=-1)
        return functional.silu(gate) * passed


def attend(
    queries: Float[Tensor, "B M H Q d"],
    keys: Float[Tensor, "B M H N d"],
    values: Float[Tensor, "B M H N e"],
    mask: Bool[Tensor, "B M 1 Q N"] | None,
    *,
    dropout: float = 0.0,
    causal: bool = False,
    scale: float | None = None,
) -> Float[Tensor, "B M H Q e"]:
    """Mix values by how well their keys fit the queries.

    Args:
        queries: M is the axis that attention does not mix.
        keys: as many as values.
        values: mixed.
        mask: True = seen; None for all.
        dropout: share of the weights that is dropped.
        causal: whether each query sees the keys up to its own place only.
        scale: of products of queries and keys; None for 1 / sqrt(d).

    Returns:
        One mixture per query.
    """
    # the fast kernels know four axes
    mixed = functional.scaled_dot_product_attention(
        queries.flatten(0, 1),
        keys.flatten(0, 1),
        values.flatten(0, 1),
        None if mask is None else mask.flatten(0, 1),
        dropout,
        is_causal=causal,
        scale=scale,
    )
    return mixed.unflatten(0, queries.shape[:2])


class Attention(nn.Module):
    """Attention of Toto 1.0, over the patches of a series or over the series of a patch."""

    def __init__(self, width: int, heads: int, dropout: float, *, over_time: bool) -> None:
        super().__init__()
        self.heads, self.dropout, self.over_time = heads, dropout, over_time
        self.wQKV = nn.Linear(width, 3 * width)
        self.wO = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "B V Q D"], around: Surroundings, layer: int
    ) -> Float[Tensor, "B V Q D"]:
        """Mix tokens; `layer` is the place of the keys in the cache."""
        # heads vary fastest in the rows of wQKV: (part, channel of a head, head)
        parts = self.wQKV(x).unflatten(-1, (3, -1, self.heads)).permute(3, 0, 1, 5, 2, 4)
        queries, keys, values = parts.unbind(0)
        attend = self._over_time if self.over_time else self._over_series
        mixed = attend(queries, keys, values, around, layer)
        return self.wO(mixed.transpose(2, 3).flatten(-2))

    def _over_time(
        self, queries: Tensor, keys: Tensor, values: Tensor, around: Surroundings, layer: int
    ) -> Float[Tensor, "B V H Q d"]:
        queries, keys = around.rotation.of_queries(queries), around.rotation.of_keys(keys)
        if around.cache is not None:
            keys, values = around.cache.extend(layer, keys, values)
        # without padding, a single new token sees everything: no mask at all
        mask, is_first_pass = around.time_mask, keys.shape[-2] == queries.shape[-2]
        causal, dropout = mask is None and is_first_pass, self.dropout * self.training
        return attend(queries, keys, values, mask, dropout=dropout, causal=causal)

    def _over_series(
        self, queries: Tensor, keys: Tensor, values: Tensor, around: Surroundings, _layer: int
    ) -> Float[Tensor, "B V H Q d"]:
        queries, keys, values = (part.transpose(1, 3) for part in (queries, keys, values))
        mask, dropout = around.space_mask, self.dropout * self.training
        return attend(queries, keys, values, mask, dropout=dropout).transpose(1, 3)


class Layer(nn.Module):
    """One block of Toto 1.0: attention and gated layers, each on normalised tokens."""

    def __init__(
        self, width: int, heads: int, hidden: int, dropout: float, *, over_time: bool
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = RmsNorm(width), RmsNorm(width)
        self.attention = Attention(width, heads, dropout, over_time=over_time)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * hidden), Gate(), nn.Linear(hidden, width), nn.Dropout(dropout)
        )

    def forward(
        self, x: Float[Tensor, "B V Q D"], around: Surroundings, layer: int
    ) -> Float[Tensor, "B V Q D"]:
        """Add what attention and the gated layers say."""
        x = x + self.attention(self.norm1(x), around, layer)
        return x + self.mlp(self.norm2(x))
