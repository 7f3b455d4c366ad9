"""The tokenizer of Kronos: a normalised bar becomes two numbers, s1 and s2, and back.

An encoder maps each bar, seen with the bars before it, to a point on a sphere. The signs of the
point's coordinates are the token: the first half of them is s1 (coarse), the second half s2 (fine).
This is binary spherical quantisation (Zhao, Xiong and Kraehenbuehl 2024, arXiv:2406.07548).
"""

import math
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from hrl_sarp.forecasters.kronos.layers import Block, Stack
from hrl_sarp.forecasters.kronos.sizes import TokenizerSize

LOG_FLOOR = 1e-8
"""Keeps logarithms of probabilities finite."""
SIGN_SLOPE = 4.0
"""Steepness of the probability that a coordinate is negative."""


class TokenizerLoss(NamedTuple):
    """The loss of a tokenizer and its parts.

    Examples:
        >>> TokenizerLoss(*(torch.tensor(float(i)) for i in range(7))).total
        tensor(0.)
    """

    total: Tensor
    """Half the sum of both errors and `quantisation`."""
    coarse_error: Tensor
    """Mean squared error of what the decoder makes of s1 alone."""
    full_error: Tensor
    """Mean squared error of what the decoder makes of both halves."""
    quantisation: Tensor
    """`commitment` and both entropies, weighted."""
    commitment: Tensor
    """Mean squared distance between points and their codes, times beta."""
    sample_entropy: Tensor
    """Mean entropy of each bar's bits, in nats."""
    codebook_entropy: Tensor
    """Entropy of the mean bits, in nats."""


class BinarySphere(nn.Module):
    """Rounds points of a sphere to the nearest code, all coordinates of which are alike in size.

    Args:
        n_bits: coordinates of a point.
        group_size: length of a buffer that published files have and nothing reads.
    """

    def __init__(self, n_bits: int, group_size: int) -> None:
        super().__init__()
        self.register_buffer("basis", 2 ** torch.arange(n_bits - 1, -1, -1))
        self.register_buffer("group_basis", 2 ** torch.arange(group_size - 1, -1, -1))

    def forward(self, points: Float[Tensor, "*axes bits"]) -> Float[Tensor, "*axes bits"]:
        """Return codes; a gradient passes as if only the scale had been applied."""
        signs = torch.where(points > 0, 1.0, -1.0).to(points.dtype)
        return (points + (signs - points).detach()) / math.sqrt(points.shape[-1])


class KronosTokenizer(nn.Module):
    """Turns normalised bars into tokens and tokens into normalised bars.

    Both directions are causal: a token depends on its bar and those before it, and so does a
    decoded bar.

    Args:
        size: of the network.

    Examples:
        >>> from hrl_sarp.forecasters.kronos.sizes import TOKENIZER_BASE
        >>> tokenizer = KronosTokenizer(TOKENIZER_BASE)
        >>> s1, s2 = tokenizer.encode(torch.randn(2, 5, 6))
        >>> tuple(s1.shape), tuple(tokenizer.decode(s1, s2).shape)
        ((2, 5), (2, 5, 6))
    """

    def __init__(self, size: TokenizerSize) -> None:
        super().__init__()
        self.size = size
        n_bits, width = size.s1_bits + size.s2_bits, size.d_model
        dropouts = size.ffn_dropout_p, size.attn_dropout_p, size.resid_dropout_p
        shape = width, size.n_heads, size.ff_dim, dropouts
        self.embed = nn.Linear(size.d_in, width)
        self.encoder = Stack(Block(*shape) for _ in range(size.n_enc_layers - 1))
        self.quant_embed = nn.Linear(width, n_bits)
        self.tokenizer = nn.ModuleDict({"bsq": BinarySphere(n_bits, size.group_size)})
        self.post_quant_embed_pre = nn.Linear(size.s1_bits, width)
        self.post_quant_embed = nn.Linear(n_bits, width)
        self.decoder = Stack(Block(*shape) for _ in range(size.n_dec_layers - 1))
        self.head = nn.Linear(width, size.d_in)

    def points(
        self, bars: Float[Tensor, "B T F"], is_padding: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T bits"]:
        """Map bars to the sphere.

        Args:
            bars: normalised; finite.
            is_padding: bars that others do not read; None if there are none.

        Returns:
            Points of length 1.
        """
        encoded = self.encoder(self.embed(bars), is_padding)
        return functional.normalize(self.quant_embed(encoded), dim=-1)

    def encode(
        self, bars: Float[Tensor, "B T F"], is_padding: Bool[Tensor, "B T"] | None = None
    ) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
        """Return the tokens of bars.

        Args:
            bars: normalised; finite.
            is_padding: bars that others do not read; None if there are none.

        Returns:
            s1 in [0, 2**s1_bits) and s2 in [0, 2**s2_bits). Bit 0 is the first coordinate.
        """
        bits = self.points(bars, is_padding) > 0
        s1_bits, s2_bits = bits.split([self.size.s1_bits, self.size.s2_bits], dim=-1)
        return _to_numbers(s1_bits), _to_numbers(s2_bits)

    def decode(
        self,
        s1: Int[Tensor, "B T"],
        s2: Int[Tensor, "B T"],
        is_padding: Bool[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T F"]:
        """Return the bars of tokens.

        Args:
            s1: coarse halves.
            s2: fine halves.
            is_padding: tokens that others do not read; None if there are none.

        Returns:
            Normalised bars.
        """
        return cast("Tensor", self.head(self.decoder(self._embed_tokens(s1, s2), is_padding)))

    def decode_paths(
        self,
        context: tuple[Int[Tensor, "B C"], Int[Tensor, "B C"]],
        paths: tuple[Int[Tensor, "B S h"], Int[Tensor, "B S h"]],
        is_padding: Bool[Tensor, "B C"] | None = None,
    ) -> Float[Tensor, "B S h F"]:
        """Return the bars of paths, each decoded after the context that they share.

        Args:
            context: s1 and s2 before the paths.
            paths: s1 and s2 of S paths.
            is_padding: context tokens that others do not read; None if there are none.

        Returns:
            Normalised bars of the paths.
        """
        embedded = self._embed_tokens(*paths)
        _, n_paths, n_steps, _ = embedded.shape
        start = self._embed_tokens(*context)
        _, memories = self.decoder.begin(start, is_padding, n_paths, n_steps)
        return cast("Tensor", self.head(self.decoder.follow(embedded, memories)))

    def loss(self, bars: Float[Tensor, "B T F"]) -> TokenizerLoss:
        """Compare bars with what the decoder makes of s1 alone and of both halves.

        Args:
            bars: normalised; finite.

        Returns:
            The loss and its parts.
        """
        points = self.points(bars)
        codes = self.tokenizer["bsq"](points)
        coarse = self.head(self.decoder(self.post_quant_embed_pre(codes[..., : self.size.s1_bits])))
        full = self.head(self.decoder(self.post_quant_embed(codes)))
        coarse_error, full_error = (
            functional.mse_loss(coarse, bars),
            functional.mse_loss(full, bars),
        )
        commitment = self.size.beta * (codes.detach() - points).square().sum(dim=-1).mean()
        is_negative = torch.sigmoid(-SIGN_SLOPE * points / math.sqrt(points.shape[-1]))
        sample = _entropy(is_negative).sum(dim=-1).mean()
        codebook = _entropy(is_negative.mean(dim=(0, 1))).sum()
        entropies = self.size.gamma0 * sample - self.size.gamma * codebook
        quantisation = commitment + self.size.zeta * entropies
        total = (coarse_error + full_error + quantisation) / 2
        parts = coarse_error, full_error, quantisation, commitment, sample, codebook
        return TokenizerLoss(total, *parts)

    def _embed_tokens(
        self, s1: Int[Tensor, "*axes"], s2: Int[Tensor, "*axes"]
    ) -> Float[Tensor, "*axes D"]:
        signs = torch.cat(
            [_to_signs(s1, self.size.s1_bits), _to_signs(s2, self.size.s2_bits)], dim=-1
        )
        codes = signs.to(self.post_quant_embed.weight.dtype) / math.sqrt(signs.shape[-1])
        return cast("Tensor", self.post_quant_embed(codes))


def _to_numbers(bits: Bool[Tensor, "*axes bits"]) -> Int[Tensor, "*axes"]:
    return (bits.long() << torch.arange(bits.shape[-1], device=bits.device)).sum(dim=-1)


def _to_signs(numbers: Int[Tensor, "*axes"], n_bits: int) -> Int[Tensor, "*axes bits"]:
    bits = numbers[..., None] >> torch.arange(n_bits, device=numbers.device) & 1
    return 2 * bits - 1


def _entropy(probability: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """Return the entropy of an event that happens or not."""
    both = torch.stack([probability, 1 - probability])
    return -(both * (both + LOG_FLOOR).log()).sum(dim=0)
