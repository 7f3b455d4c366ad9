"""The transformer over candles: encoder, classifier of buys, and masked autoencoder."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hrl_sarp.config.encoder_schema import TransformerConfig
from hrl_sarp.errors import ConfigError

_LONGEST_WAVE = 10_000.0
"""Base of the wave lengths of the position encoding (Vaswani et al. 2017)."""
_MASK_SCALE = 0.02
"""Deviation of the mask vector before training."""


class CandleEncoder(nn.Module):
    """Transformer encoder: one vector per candle, which depends on all candles of the window.

    It has a linear projection, sinusoidal positions and post-norm encoder layers.

    Args:
        n_features: F, columns of a candle.
        config: widths, layers, longest window.

    Examples:
        >>> config = TransformerConfig(
        ...     window_length=8, width=4, heads=2, layers=1, feedforward=8, head=4, dropout=0.0
        ... )
        >>> encoder, windows = CandleEncoder(3, config), torch.zeros(2, 5, 3)
        >>> tuple(encoder(windows).shape), tuple(encoder.embed(windows).shape)
        ((2, 5, 4), (2, 4))

    Source: Vaswani et al. (2017), "Attention is all you need".
    """

    def __init__(self, n_features: int, config: TransformerConfig) -> None:
        super().__init__()
        self.n_features, self.width = n_features, config.width
        self.projection = nn.Linear(n_features, config.width)
        self.dropout = nn.Dropout(config.dropout)
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, config.feedforward, config.dropout, batch_first=True
        )
        # nested tensors serve padding, which windows do not have
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        positions = sinusoidal_positions(config.window_length, config.width)
        self.register_buffer("positions", positions, persistent=False)
        start_with_xavier(self)

    def forward(self, x: Float[Tensor, "B L F"]) -> Float[Tensor, "B L width"]:
        """Encode every candle.

        Args:
            x: windows of L candles, scaled.

        Returns:
            One vector per candle.

        Raises:
            ConfigError: if a window is longer than `encoders.transformer.window_length`.
        """
        positions: Tensor = self.get_buffer("positions")
        if x.shape[1] > len(positions):
            raise ConfigError(
                f"the transformer has positions for windows of {len(positions)} candles, found "
                f"{x.shape[1]}; set encoders.transformer.window_length"
            )
        vectors: Tensor = self.layers(self.dropout(self.projection(x) + positions[: x.shape[1]]))
        return vectors

    def embed(self, x: Float[Tensor, "B L F"]) -> Float[Tensor, "B width"]:
        """Average the candles' vectors.

        Args:
            x: windows of L candles, scaled.

        Returns:
            One row per window.
        """
        return self(x).mean(dim=1)


class PriceActionTransformer(nn.Module):
    """Classifies whether a buy after the last candle of a window pays.

    Args:
        n_features: F, columns of a candle.
        config: size of encoder and head.

    Examples:
        >>> config = TransformerConfig(
        ...     window_length=8, width=4, heads=2, layers=1, feedforward=8, head=4, dropout=0.0
        ... )
        >>> tuple(PriceActionTransformer(3, config)(torch.zeros(2, 5, 3)).shape)
        (2,)
    """

    def __init__(self, n_features: int, config: TransformerConfig) -> None:
        super().__init__()
        self.encoder = CandleEncoder(n_features, config)
        self.head = nn.Sequential(
            nn.Linear(config.width, config.head),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.head, 1),
        )
        start_with_xavier(self.head)

    @property
    def width(self) -> int:
        """Columns of `encode` and `embed`."""
        return self.encoder.width

    def encode(self, x: Float[Tensor, "B L F"]) -> Float[Tensor, "B L width"]:
        """Return one vector per candle.

        Args:
            x: windows of L candles, scaled.

        Returns:
            As `CandleEncoder.forward`.
        """
        vectors: Tensor = self.encoder(x)
        return vectors

    def embed(self, x: Float[Tensor, "B L F"]) -> Float[Tensor, "B width"]:
        """Return one vector per window: the mean over its candles.

        Args:
            x: windows of L candles, scaled.

        Returns:
            One row per window.
        """
        return self.encoder.embed(x)

    def forward(self, x: Float[Tensor, "B L F"]) -> Float[Tensor, " B"]:
        """Return the logit of a buy.

        Args:
            x: windows of L candles, scaled.

        Returns:
            One logit per window; higher if a buy is more likely to pay.
        """
        logits: Tensor = self.head(self.embed(x))
        return logits.squeeze(-1)


class TransformerMaskedAutoencoder(nn.Module):
    """Reconstructs candles that are hidden from the encoder.

    Attention reads both neighbours of a single masked candle, which nearly reveal it. So mask whole
    patches (`mask_strategy: patch`).

    Args:
        n_features: F, columns of a candle.
        config: size of the encoder.
        n_rebuilt: R, values that are rebuilt for each candle; its columns if left out.

    Examples:
        >>> config = TransformerConfig(
        ...     window_length=8, width=4, heads=2, layers=1, feedforward=8, head=4, dropout=0.0
        ... )
        >>> bars, hidden = torch.randn(2, 5, 3), torch.zeros(2, 5, dtype=torch.bool)
        >>> tuple(TransformerMaskedAutoencoder(3, config)(bars, hidden).shape)
        (2, 5, 3)
    """

    def __init__(
        self, n_features: int, config: TransformerConfig, n_rebuilt: int | None = None
    ) -> None:
        super().__init__()
        self.encoder = CandleEncoder(n_features, config)
        self.decoder = nn.Linear(config.width, n_rebuilt or n_features)
        start_with_xavier(self.decoder)
        self.mask_token = nn.Parameter(_MASK_SCALE * torch.randn(n_features))

    def forward(
        self, x: Float[Tensor, "B L F"], masked: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B L R"]:
        """Reconstruct all candles; a learned vector replaces the masked ones in the input.

        Args:
            x: windows of L candles, scaled.
            masked: True where a candle is hidden from the encoder.

        Returns:
            The values of all candles; the loss chooses which of them count.
        """
        seen = torch.where(masked.unsqueeze(-1), self.mask_token, x)
        rebuilt: Tensor = self.decoder(self.encoder(seen))
        return rebuilt


def sinusoidal_positions(length: int, width: int) -> Float[Tensor, "L width"]:
    """Compute sines (even columns) and cosines (odd) of geometrically growing wave lengths."""
    steps = torch.arange(length, dtype=torch.float32).unsqueeze(1)
    pairs = torch.arange(0, width, 2, dtype=torch.float32)
    angles = steps * torch.exp(-math.log(_LONGEST_WAVE) / width * pairs)
    return torch.stack([torch.sin(angles), torch.cos(angles)], dim=2).flatten(1)


def start_with_xavier(module: nn.Module) -> None:
    """Draw every weight of more than one dimension from Xavier's uniform distribution.

    Source: Glorot and Bengio (2010).
    """
    for weight in module.parameters():
        if weight.dim() > 1:
            nn.init.xavier_uniform_(weight)
