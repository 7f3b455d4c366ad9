"""The blocks that tokenizer and predictor are made of, over whole series or continuing them.

Everything is causal. A whole series goes through `forward`. To continue it, `begin` does the same
and keeps the keys and values of each block in a `Memory`; `follow` then adds rows to each path. The
paths of a series share the memory of its context, so the context is read once, not once a path.
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
FEW_ROWS = 3
"""Up to so many rows are multiplied as columns."""


class FewRowsLinear(nn.Linear):
    """A linear layer that is fast for very few rows, too.

    With few rows, reading the weights takes all the time. CPU libraries read them two to three
    times faster for the product of the weights with two or three columns than for that of as many
    rows with the weights, or for that with a single column.
    """

    def forward(self, input: Float[Tensor, "*axes n"]) -> Float[Tensor, "*axes m"]:  # noqa: A002 -- the name of nn.Linear
        """Map rows of n columns to rows of m."""
        n_rows = input.numel() // self.in_features
        if n_rows > FEW_ROWS or torch.is_grad_enabled() or not input.is_cpu:
            return super().forward(input)
        rows = input.reshape(n_rows, -1)
        if n_rows == 1:
            rows = torch.cat([rows, rows])
        columns = torch.mm(self.weight, rows.T)
        if self.bias is not None:
            columns += self.bias[:, None]
        return columns[:, :n_rows].T.reshape(*input.shape[:-1], -1)


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

    def forward(
        self, heads: Float[Tensor, "*axes T W"], first: int = 0
    ) -> Float[Tensor, "*axes T W"]:
        """Turn rows at positions that follow each other, the first one at `first`."""
        positions = torch.arange(first, first + heads.shape[-2], device=heads.device)
        angles = torch.outer(positions, self.inv_freq)
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

    def append(self, keys: Float[Tensor, "B H S n W"], values: Float[Tensor, "B H S n W"]) -> None:
        """Add n rows to each path."""
        rows = slice(self._n_own, self._n_own + keys.shape[-2])
        self._own_keys[..., rows, :], self._own_values[..., rows, :] = keys, values
        self._n_own = rows.stop

    def read(self, query: Float[Tensor, "B H S n W"]) -> Float[Tensor, "B H S n W"]:
        """Let queries of the n newest rows attend to the context and to their own path."""
        n_new, width = query.shape[-2:]
        query = query / math.sqrt(width)
        own_keys, own_values = (
            own[..., : self._n_own, :] for own in (self._own_keys, self._own_values)
        )
        # queries of all paths are rows of one product with the context
        scores = query.flatten(2, 3) @ self._keys.mT
        scores = scores.view(*query.shape[:4], self._n_context)
        if self._is_padding is not None:
            scores = scores.masked_fill(self._is_padding[:, None, None, None], -torch.inf)
        own_scores = query @ own_keys.mT
        if n_new > 1:
            later = torch.ones_like(own_scores[0, 0, 0], dtype=torch.bool)
            own_scores = own_scores.masked_fill(later.triu(1 + self._n_own - n_new), -torch.inf)
        weights = torch.cat([scores, own_scores], dim=-1).softmax(dim=-1)
        shared, own = weights.split([self._n_context, self._n_own], dim=-1)
        context_part = (shared.flatten(2, 3) @ self._values).view_as(query)
        return context_part + own @ own_values


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
        self.q_proj = FewRowsLinear(d_model, d_model)
        self.k_proj = FewRowsLinear(d_model, d_model)
        self.v_proj = FewRowsLinear(d_model, d_model)
        self.out_proj = FewRowsLinear(d_model, d_model)
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

    def append(self, x: Float[Tensor, "B S n D"], memory: Memory) -> None:
        """Add n rows to each path."""
        keys = self._heads(self.k_proj(x))
        if memory.is_turned:
            keys = self.rotary(keys, memory.length)
        memory.append(keys, self._heads(self.v_proj(x)))

    def recall(self, query: Float[Tensor, "B S n D"], memory: Memory) -> Float[Tensor, "B S n D"]:
        """Let one query for each of the n newest rows attend to its path up to that row."""
        heads = self._heads(self.q_proj(query))
        if memory.is_turned:
            heads = self.rotary(heads, memory.length - query.shape[2])
        return self._output(memory.read(heads))

    def keys_and_values(
        self, source: Float[Tensor, "B T D"], *, is_turned: bool = True
    ) -> tuple[Float[Tensor, "B H T W"], Float[Tensor, "B H T W"]]:
        """Return keys and values of a series whose first row has position 0."""
        keys = self._heads(self.k_proj(source))
        return self.rotary(keys) if is_turned else keys, self._heads(self.v_proj(source))

    def _output(self, heads: Float[Tensor, "B H *axes W"]) -> Float[Tensor, "B *axes D"]:
        joined = heads.movedim(1, -2).flatten(start_dim=-2)
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

    def _heads(self, rows: Float[Tensor, "B *axes D"]) -> Float[Tensor, "B H *axes W"]:
        return rows.view(*rows.shape[:-1], self.n_heads, -1).movedim(-2, 1)


class FeedForward(nn.Module):
    """Two linear layers with a gate between them (SwiGLU, Shazeer 2020)."""

    def __init__(self, d_model: int, ff_dim: int, dropout: float) -> None:
        super().__init__()
        self.w1 = FewRowsLinear(d_model, ff_dim, bias=False)
        self.w3 = FewRowsLinear(d_model, ff_dim, bias=False)
        self.w2 = FewRowsLinear(ff_dim, d_model, bias=False)
        self.ffn_dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "*axes D"]) -> Float[Tensor, "*axes D"]:
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

    def follow(self, x: Float[Tensor, "B S n D"], memory: Memory) -> Float[Tensor, "B S n D"]:
        """Transform the next rows of each path."""
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
        """Transform contexts, and keep what `follow` needs to continue them.

        Args:
            x: rows of the contexts.
            is_padding: as in `forward`.
            n_paths: paths that continue each context.
            n_steps: rows that each path will add at most.

        Returns:
            One row for each row, and one memory for each block.
        """
        mask, memories = causal_mask(is_padding), []
        for block in self.blocks():
            x, memory = block.begin(x, mask, is_padding, n_paths, n_steps)
            memories.append(memory)
        return x, memories

    def follow(
        self, x: Float[Tensor, "B S n D"], memories: list[Memory]
    ) -> Float[Tensor, "B S n D"]:
        """Transform the next rows of each path, which the memories then keep.

        Args:
            x: n rows for each path.
            memories: of `begin`.

        Returns:
            One row for each row.
        """
        for block, memory in zip(self.blocks(), memories, strict=True):
            x = block.follow(x, memory)
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
