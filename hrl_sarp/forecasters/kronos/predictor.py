"""The predictor of Kronos: from tokens and their times to the probabilities of the next token.

A causal transformer reads the tokens. One head gives the probabilities of the next s1. A layer then
attends from an s1 to all that was read, and a second head gives the probabilities of s2.
"""

import math
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from hrl_sarp.forecasters.kronos.layers import (
    NORM_EPS,
    ROTARY_BASE,
    Attention,
    Block,
    FewRowsLinear,
    Memory,
    Stack,
)
from hrl_sarp.forecasters.kronos.sizes import DEPENDENCY_HEADS, PredictorSize

TIME_TABLES = {"minute": 60, "hour": 24, "weekday": 7, "day": 32, "month": 13}
"""Parts of a time, in the order of the columns of stamps, and the rows of their tables."""


class PredictorLoss(NamedTuple):
    """The loss of a predictor and its parts, in nats.

    Examples:
        >>> PredictorLoss(*(torch.tensor(float(i)) for i in range(3))).total
        tensor(0.)
    """

    total: Tensor
    """Mean of both."""
    s1: Tensor
    """Mean cross-entropy of the next s1."""
    s2: Tensor
    """Mean cross-entropy of the next s2 given an s1."""


class TokenEmbedding(nn.Module):
    """One vector for each pair of s1 and s2."""

    def __init__(self, s1_bits: int, s2_bits: int, d_model: int) -> None:
        super().__init__()
        self.emb_s1 = nn.Embedding(2**s1_bits, d_model)
        self.emb_s2 = nn.Embedding(2**s2_bits, d_model)
        self.fusion_proj = FewRowsLinear(2 * d_model, d_model)

    def forward(
        self, s1: Int[Tensor, "*axes"], s2: Int[Tensor, "*axes"]
    ) -> Float[Tensor, "*axes D"]:
        """Look both halves up and join them."""
        both = torch.cat([self.emb_s1(s1), self.emb_s2(s2)], dim=-1)
        return cast("Tensor", self.fusion_proj(both * math.sqrt(both.shape[-1] // 2)))


class FixedTable(nn.Module):
    """Sines and cosines of the row number, which training does not change."""

    def __init__(self, n_rows: int, d_model: int) -> None:
        super().__init__()
        frequencies = ROTARY_BASE ** -(torch.arange(0, d_model, 2).float() / d_model)
        angles = torch.outer(torch.arange(n_rows).float(), frequencies)
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(start_dim=1)
        self.emb = nn.Embedding.from_pretrained(waves, freeze=True)

    def forward(self, rows: Int[Tensor, "*axes"]) -> Float[Tensor, "*axes D"]:
        """Return rows of the table."""
        return cast("Tensor", self.emb(rows))


class TimeEmbedding(nn.Module):
    """The sum of one vector for each part of a time."""

    def __init__(self, d_model: int, *, is_learned: bool) -> None:
        super().__init__()
        table = nn.Embedding if is_learned else FixedTable
        for part, n_rows in TIME_TABLES.items():
            self.add_module(f"{part}_embed", table(n_rows, d_model))

    def forward(self, stamps: Int[Tensor, "*axes 5"]) -> Float[Tensor, "*axes D"]:
        """Add up the vectors of minute, hour, weekday, day and month."""
        tables = zip(self.children(), stamps.unbind(dim=-1), strict=True)
        return cast("Tensor", sum(table(column) for table, column in tables))


class DependencyLayer(nn.Module):
    """Leads from what was read, and an s1 that follows, to what predicts s2."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.cross_attn = Attention(d_model, DEPENDENCY_HEADS)
        self.norm = nn.RMSNorm(d_model, eps=NORM_EPS)

    def forward(
        self,
        hidden: Float[Tensor, "B T D"],
        s1_embedded: Float[Tensor, "B T D"],
    ) -> Float[Tensor, "B T D"]:
        """Let the s1 of every row attend to the rows up to it, in training and afterwards."""
        return cast("Tensor", self.norm(hidden + self.cross_attn(s1_embedded, hidden)))

    def begin(
        self,
        hidden: Float[Tensor, "B C D"],
        is_padding: Bool[Tensor, "B C"] | None,
        n_paths: int,
        n_steps: int,
        *,
        is_turned: bool,
    ) -> Memory:
        """Keep the rows of contexts for the paths that continue them.

        Args:
            hidden: what was read.
            is_padding: rows that nobody may read; None if there are none.
            n_paths: paths that continue each context.
            n_steps: rows that each path will add at most.
            is_turned: whether keys and queries have positions, as in training.

        Returns:
            The memory that `follow` reads and `cross_attn.append` extends.
        """
        pair = self.cross_attn.keys_and_values(hidden, is_turned=is_turned)
        return Memory(*pair, is_padding, n_paths, n_steps, is_turned=is_turned)

    def follow(
        self,
        newest: Float[Tensor, "B S 1 D"],
        s1_embedded: Float[Tensor, "B S 1 D"],
        memory: Memory,
    ) -> Float[Tensor, "B S 1 D"]:
        """Let the next s1 of each path attend to all rows of its path."""
        return cast("Tensor", self.norm(newest + self.cross_attn.recall(s1_embedded, memory)))


class Head(nn.Module):
    """Logits of both halves of a token."""

    def __init__(self, s1_bits: int, s2_bits: int, d_model: int) -> None:
        super().__init__()
        self.proj_s1 = FewRowsLinear(d_model, 2**s1_bits)
        self.proj_s2 = FewRowsLinear(d_model, 2**s2_bits)


class KronosPredictor(nn.Module):
    """Gives the probabilities of the next token.

    Args:
        size: of the network.

    Examples:
        >>> from hrl_sarp.forecasters.kronos.sizes import PREDICTORS
        >>> predictor = KronosPredictor(PREDICTORS["mini"]).eval()
        >>> tokens, stamps = torch.zeros(2, 5, dtype=torch.long), torch.zeros(2, 5, 5).long()
        >>> tuple(predictor.s1_logits(predictor.read(tokens, tokens, stamps)).shape)
        (2, 5, 1024)
    """

    def __init__(self, size: PredictorSize) -> None:
        super().__init__()
        self.size = size
        bits, width = (size.s1_bits, size.s2_bits), size.d_model
        dropouts = size.ffn_dropout_p, size.attn_dropout_p, size.resid_dropout_p
        self.embedding = TokenEmbedding(*bits, width)
        self.time_emb = TimeEmbedding(width, is_learned=size.learn_te)
        self.token_drop = nn.Dropout(size.token_dropout_p)
        self.transformer = Stack(
            Block(width, size.n_heads, size.ff_dim, dropouts) for _ in range(size.n_layers)
        )
        self.norm = nn.RMSNorm(width, eps=NORM_EPS)
        self.dep_layer = DependencyLayer(width)
        self.head = Head(*bits, width)
        self.apply(self._initialise)

    def embed(
        self,
        s1: Int[Tensor, "*axes"],
        s2: Int[Tensor, "*axes"],
        stamps: Int[Tensor, "*axes 5"] | None,
    ) -> Float[Tensor, "*axes D"]:
        """Return what the transformer reads.

        Args:
            s1: coarse halves.
            s2: fine halves.
            stamps: minute, hour, weekday (Monday is 0), day and month of each token; None leaves
                times out.

        Returns:
            One vector for each token.
        """
        embedded = self.embedding(s1, s2)
        if stamps is not None:
            embedded = embedded + self.time_emb(stamps)
        return cast("Tensor", self.token_drop(embedded))

    def read(
        self,
        s1: Int[Tensor, "B T"],
        s2: Int[Tensor, "B T"],
        stamps: Int[Tensor, "B T 5"] | None,
        is_padding: Bool[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Read tokens.

        Args:
            s1: coarse halves.
            s2: fine halves.
            stamps: as in `embed`.
            is_padding: tokens that others do not read; None if there are none.

        Returns:
            What is known after each token.
        """
        return cast("Tensor", self.norm(self.transformer(self.embed(s1, s2, stamps), is_padding)))

    def s1_logits(self, hidden: Float[Tensor, "*axes D"]) -> Float[Tensor, "*axes vocabulary"]:
        """Return the logits of the next s1.

        Args:
            hidden: of `read`.

        Returns:
            One logit for each s1.
        """
        return cast("Tensor", self.head.proj_s1(hidden))

    def s2_logits(
        self, hidden: Float[Tensor, "B T D"], s1: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T vocabulary"]:
        """Return the logits of the next s2, for the next s1 of every row.

        Args:
            hidden: of `read`.
            s1: that follows each row.

        Returns:
            One logit for each s2. Those of a row depend on rows up to it, outside training, too.
        """
        return cast("Tensor", self.head.proj_s2(self.dep_layer(hidden, self.embedding.emb_s1(s1))))

    def next_s2_logits(
        self, newest: Float[Tensor, "B S 1 D"], s1: Int[Tensor, "B S 1"], memory: Memory
    ) -> Float[Tensor, "B S 1 vocabulary"]:
        """Return the logits of the next s2 of each path.

        Args:
            newest: what is known after the last token of each path.
            s1: that follows.
            memory: of `dep_layer.begin`.

        Returns:
            One logit for each s2.
        """
        embedded = self.embedding.emb_s1(s1)
        return cast("Tensor", self.head.proj_s2(self.dep_layer.follow(newest, embedded, memory)))

    def loss(
        self,
        s1: Int[Tensor, "B T"],
        s2: Int[Tensor, "B T"],
        stamps: Int[Tensor, "B T 5"] | None,
        generator: torch.Generator | None = None,
    ) -> PredictorLoss:
        """Compare each token but the first with its probability after the tokens before it.

        Args:
            s1: coarse halves.
            s2: fine halves.
            stamps: as in `embed`.
            generator: draws the s1 that s2 is predicted for from the model, as in the published
                training and as in forecasts. None takes the true s1.

        Returns:
            The loss and its parts.
        """
        hidden = self.read(s1[:, :-1], s2[:, :-1], None if stamps is None else stamps[:, :-1])
        s1_logits, given = self.s1_logits(hidden), s1[:, 1:]
        if generator is not None:
            probabilities = s1_logits.detach().softmax(dim=-1).flatten(end_dim=1)
            given = torch.multinomial(probabilities, 1, generator=generator).view_as(given)
        s1_loss = _cross_entropy(s1_logits, s1[:, 1:])
        s2_loss = _cross_entropy(self.s2_logits(hidden, given), s2[:, 1:])
        return PredictorLoss((s1_loss + s2_loss) / 2, s1_loss, s2_loss)

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding) and module.weight.requires_grad:
            nn.init.normal_(module.weight, std=self.size.d_model**-0.5)


def _cross_entropy(logits: Float[Tensor, "B T V"], tokens: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
    return functional.cross_entropy(logits.flatten(end_dim=1), tokens.flatten())
