"""The blocks that tokenizer and predictor are made of, over whole series or step by step.

Everything is causal. A whole series goes through `forward`. To continue it, `begin` does the same
and keeps the keys and values of each block in a `Memory`; `step` then adds one bar to each path.
The paths of a series share the memory of its context, so the context is read once, not once a path.
"""

import math
from collections.abc import Iterator
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

NORM_EPS = 1e-5
ROTARY_BASE = 10_000.0


class Rotary(nn.Module):
    """Turns the two halves of a head against each other by an angle that grows with the position.

    Products of queries and keys then depend on how far apart they are, not on where they are.

    Args:
        head_width: W, columns of a head; even.
    """

    inv_freq: Tensor

    def __init__(self, head_width: int) -> None:
        super().__init__()
        exponents = torch.arange(0, head_width, 2).float() / head_width
        self.register_buffer("inv_freq", 1.0 / ROTARY_BASE**exponents)

    def forward(self, heads: Float[Tensor, "B H T W"], first: int = 0) -> Float[Tensor, "B H T W"]:
        """Turn rows at positions that follow each other, the first one at `first`."""
        positions = torch.arange(first, first + heads.shape[2], device=heads.device)
        return self._turned(heads, torch.outer(positions, self.inv_freq))

    def at(self, heads: Float[Tensor, "B H S W"], position: int) -> Float[Tensor, "B H S W"]:
        """Turn rows that are all at one position."""
        return self._turned(heads, self.inv_freq * position)

    def _turned(self, heads: Tensor, angles: Tensor) -> Tensor:
        cos, sin = angles.cos(), angles.sin()
        left, right = heads.chunk(2, dim=-1)
        return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


class Memory:
    """Keys and values of one attention: those of the context, and those of S paths after it.

    Args:
        keys: of the context, (B, H, C, W).
        values: of the context.
        is_padding: context rows that nobody may read; None if there are none.
        n_paths: S, paths that continue each series.
        n_steps: rows that each path will add at most.
        is_turned: whether keys and queries have positions.
    """

    def __init__(
        self,
        keys: Float[Tensor, "B H C W"],
        values: Float[Tensor, "B H C W"],
        is_padding: Bool[Tensor, "B C"] | None,
        n_paths: int,
        n_steps: int,
        *,
        is_turned: bool = True,
    ) -> None:
        self.is_turned = is_turned
        batch, heads, context, width = keys.shape
        self._keys, self._values, self._is_padding = keys, values, is_padding
        self._own_keys = keys.new_empty(batch, heads, n_paths, n_steps, width)
        self._own_values = torch.empty_like(self._own_keys)
        self._n_context, self._n_own = context, 0

    @property
    def length(self) -> int:
        """Rows that a path can read: the next one has this position."""
        return self._n_context + self._n_own

    def append(self, keys: Float[Tensor, "B H S W"], values: Float[Tensor, "B H S W"]) -> None:
        """Add one row to each path."""
        self._own_keys[:, :, :, self._n_own] = keys
        self._own_values[:, :, :, self._n_own] = values
        self._n_own += 1

    def read(self, query: Float[Tensor, "B H S W"]) -> Float[Tensor, "B H S W"]:
        """Attend to the context and to the path's own rows, with one query for each path."""
        query = query / math.sqrt(query.shape[-1])
        own_keys, own_values = self._own_keys[..., : self._n_own, :], self._own_values
        scores = query @ self._keys.mT
        if self._is_padding is not None:
            scores = scores.masked_fill(self._is_padding[:, None, None], -torch.inf)
        own_scores = (own_keys @ query[..., None]).squeeze(-1)
        weights = torch.cat([scores, own_scores], dim=-1).softmax(dim=-1)
        shared, own = weights.split([self._n_context, self._n_own], dim=-1)
        own_part = own[..., None, :] @ own_values[..., : self._n_own, :]
        return shared @ self._values + own_part.squeeze(-2)


class Attention(nn.Module):
    """Attention of several heads with rotary positions, to the same series or to another.

    Args:
        d_model: D, columns.
        n_heads: H.
        attention_dropout: share of weights that training sets to 0.
        output_dropout: share of outputs that training sets to 0.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        attention_dropout: float = 0.0,
        output_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, attention_dropout
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        self.rotary = Rotary(d_model // n_heads)
        self.resid_dropout = nn.Dropout(output_dropout)

    def forward(
        self,
        query: Float[Tensor, "B T D"],
        source: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "B 1 T T"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Let every row of the query attend to the source up to the same row.

        Args:
            query: asks.
            source: gives keys and values.
            mask: of `causal_mask`, where rows are padding.

        Returns:
            One row for each of the query.
        """
        return self._attend(query, *self.keys_and_values(source), mask)

    def begin(
        self, x: Float[Tensor, "B T D"], mask: Tensor | None, is_padding: Tensor | None, *size: int
    ) -> tuple[Float[Tensor, "B T D"], Memory]:
        """Attend to itself and keep keys and values for `size` = (paths, steps)."""
        keys, values = self.keys_and_values(x)
        return self._attend(x, keys, values, mask), Memory(keys, values, is_padding, *size)

    def append(self, x: Float[Tensor, "B S D"], memory: Memory) -> None:
        """Add one row to each path."""
        keys = self._heads(self.k_proj(x))
        if memory.is_turned:
            keys = self.rotary.at(keys, memory.length)
        memory.append(keys, self._heads(self.v_proj(x)))

    def recall(self, query: Float[Tensor, "B S D"], memory: Memory) -> Float[Tensor, "B S D"]:
        """Let one query of each path, at the position of the newest row, attend to all its rows."""
        heads = self._heads(self.q_proj(query))
        if memory.is_turned:
            heads = self.rotary.at(heads, memory.length - 1)
        return self._output(memory.read(heads))

    def keys_and_values(
        self, source: Float[Tensor, "B T D"], *, is_turned: bool = True
    ) -> tuple[Float[Tensor, "B H T W"], Float[Tensor, "B H T W"]]:
        """Return keys and values of a series whose first row has position 0."""
        keys = self._heads(self.k_proj(source))
        return self.rotary(keys) if is_turned else keys, self._heads(self.v_proj(source))

    def _output(self, heads: Float[Tensor, "B H T W"]) -> Float[Tensor, "B T D"]:
        joined = heads.transpose(1, 2).flatten(start_dim=2)
        return cast("Tensor", self.resid_dropout(self.out_proj(joined)))

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        attended = functional.scaled_dot_product_attention(
            self.rotary(self._heads(self.q_proj(query))),
            keys,
            values,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None,
        )
        return self._output(attended)

    def _heads(self, rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers with a gate between them (SwiGLU, Shazeer 2020)."""

    def __init__(self, d_model: int, ff_dim: int, dropout: float) -> None:
        super().__init__()
        self.w1 = nn.Linear(d_model, ff_dim, bias=False)
        self.w3 = nn.Linear(d_model, ff_dim, bias=False)
        self.w2 = nn.Linear(ff_dim, d_model, bias=False)
        self.ffn_dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Transform every row by itself."""
        gated = functional.silu(self.w1(x)) * self.w3(x)
        return cast("Tensor", self.ffn_dropout(self.w2(gated)))


class Block(nn.Module):
    """Attention, then a feed-forward network; each reads normed rows and adds to them.

    Args:
        d_model: D.
        n_heads: H.
        ff_dim: width inside the feed-forward network.
        dropouts: of feed-forward network, attention weights and attention output.
    """

    def __init__(
        self, d_model: int, n_heads: int, ff_dim: int, dropouts: tuple[float, float, float]
    ) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(d_model, eps=NORM_EPS)
        self.self_attn = Attention(d_model, n_heads, *dropouts[1:])
        self.norm2 = nn.RMSNorm(d_model, eps=NORM_EPS)
        self.ffn = FeedForward(d_model, ff_dim, dropouts[0])

    def forward(
        self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B 1 T T"] | None = None
    ) -> Float[Tensor, "B T D"]:
        """Transform a whole series."""
        normed = self.norm1(x)
        return self._with_feed_forward(x + self.self_attn(normed, normed, mask))

    def begin(
        self, x: Float[Tensor, "B T D"], mask: Tensor | None, is_padding: Tensor | None, *size: int
    ) -> tuple[Float[Tensor, "B T D"], Memory]:
        """Transform a series that `size` = (paths, steps) will continue."""
        attended, memory = self.self_attn.begin(self.norm1(x), mask, is_padding, *size)
        return self._with_feed_forward(x + attended), memory

    def step(self, x: Float[Tensor, "B S D"], memory: Memory) -> Float[Tensor, "B S D"]:
        """Transform the next row of each path."""
        normed = self.norm1(x)
        self.self_attn.append(normed, memory)
        return self._with_feed_forward(x + self.self_attn.recall(normed, memory))

    def _with_feed_forward(self, x: Tensor) -> Tensor:
        return x + cast("Tensor", self.ffn(self.norm2(x)))


class Stack(nn.ModuleList):
    """Blocks that follow each other."""

    def forward(
        self, x: Float[Tensor, "B T D"], is_padding: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T D"]:
        """Transform whole series.

        Args:
            x: rows in the order of time.
            is_padding: rows that others do not read; None if there are none.

        Returns:
            One row for each row; those of padding mean nothing.
        """
        mask = causal_mask(is_padding)
        for block in self.blocks():
            x = block(x, mask)
        return x

    def begin(
        self,
        x: Float[Tensor, "B C D"],
        is_padding: Bool[Tensor, "B C"] | None,
        n_paths: int,
        n_steps: int,
    ) -> tuple[Float[Tensor, "B C D"], list[Memory]]:
        """Transform contexts, and keep what `step` needs to continue them.

        Args:
            x: rows of the contexts.
            is_padding: as in `forward`.
            n_paths: paths that continue each context.
            n_steps: steps that each path will make at most.

        Returns:
            One row for each row, and one memory for each block.
        """
        mask, memories = causal_mask(is_padding), []
        for block in self.blocks():
            x, memory = block.begin(x, mask, is_padding, n_paths, n_steps)
            memories.append(memory)
        return x, memories

    def step(self, x: Float[Tensor, "B S D"], memories: list[Memory]) -> Float[Tensor, "B S D"]:
        """Transform the next row of each path, which the memories keep.

        Args:
            x: one row for each path.
            memories: of `begin`.

        Returns:
            One row for each path.
        """
        for block, memory in zip(self.blocks(), memories, strict=True):
            x = block.step(x, memory)
        return x

    def blocks(self) -> Iterator[Block]:
        """Return the blocks in their order."""
        return (cast("Block", block) for block in self)


def causal_mask(is_padding: Bool[Tensor, "B T"] | None) -> Bool[Tensor, "B 1 T T"] | None:
    """Say which rows may be read: earlier ones that are no padding, and always the own one.

    Args:
        is_padding: rows that others do not read.

    Returns:
        True at (query, key) where the key may be read. None without padding, where attention is
        causal by itself and faster.
    """
    if is_padding is None:
        return None
    n_rows = is_padding.shape[1]
    own = torch.eye(n_rows, dtype=torch.bool, device=is_padding.device)
    earlier = torch.ones_like(own).tril()
    # a row of padding would have nothing to read, and its average would be NaN
    return ((earlier & ~is_padding[:, None, :]) | own)[:, None]
