"""Jade: a BiLSTM over the bars of a window, and the masked autoencoder that pretrains it."""

from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hrl_sarp.config.encoder_schema import JadeConfig
from hrl_sarp.encoders.networks.whole_models import accept_whole_models

MASK_TOKEN_STD = 0.02
GATES = 4
"""Each weight of an LSTM stacks those of the input, forget, cell and output gate."""


class JadeEncoder(nn.Module):
    """Bidirectional LSTM: one vector per bar, and one per window.

    Every bar's vector depends on the whole window, so a window must not hold unknown bars.

    Args:
        n_features: F, columns of a bar.
        config: hidden units, layers, dropout.

    Examples:
        >>> encoder = JadeEncoder(3, JadeConfig(hidden=4, layers=1, dropout=0.0))
        >>> windows = torch.zeros(2, 5, 3)  # two windows of five bars
        >>> tuple(encoder(windows).shape), tuple(encoder.embed(windows).shape)
        ((2, 5, 8), (2, 8))
    """

    def __init__(self, n_features: int, config: JadeConfig) -> None:
        super().__init__()
        self.n_features = n_features
        self.width = 2 * config.hidden
        """Columns of both embeddings."""
        self.lstm = nn.LSTM(
            n_features,
            config.hidden,
            config.layers,
            batch_first=True,
            bidirectional=True,
            dropout=config.dropout if config.layers > 1 else 0.0,  # it acts between layers
        )
        _initialise(self.lstm)
        accept_whole_models(self)

    def forward(self, x: Float[Tensor, "B L F"]) -> Float[Tensor, "B L W"]:
        """Return one embedding per bar.

        Args:
            x: windows of L bars, scaled.

        Returns:
            One vector of W = twice the hidden units per bar.
        """
        return cast("Tensor", self.lstm(x)[0])

    def embed(self, x: Float[Tensor, "B L F"]) -> Float[Tensor, "B W"]:
        """Return one embedding per window: the mean over its bars.

        Args:
            x: windows of L bars, scaled.

        Returns:
            One row per window.
        """
        return cast("Tensor", self(x)).mean(dim=1)


class JadeMaskedAutoencoder(nn.Module):
    """Reconstructs bars that are hidden from the encoder.

    A learned token replaces masked bars before the encoder reads the window. Otherwise the encoder
    would learn to copy them.

    Args:
        n_features: F, columns of a bar.
        config: size of the encoder.
        n_rebuilt: R, values that are rebuilt for each bar; the bar's columns if left out.

    Examples:
        >>> module = JadeMaskedAutoencoder(3, JadeConfig(hidden=4, layers=1, dropout=0.0))
        >>> bars, hidden = torch.randn(2, 5, 3), torch.zeros(2, 5, dtype=torch.bool)
        >>> hidden[:, 2] = True
        >>> tuple(module(bars, hidden).shape)
        (2, 5, 3)
    """

    def __init__(self, n_features: int, config: JadeConfig, n_rebuilt: int | None = None) -> None:
        super().__init__()
        self.encoder = JadeEncoder(n_features, config)
        self.decoder = nn.Linear(self.encoder.width, n_rebuilt or n_features)
        self.mask_token = nn.Parameter(MASK_TOKEN_STD * torch.randn(n_features))
        nn.init.xavier_uniform_(self.decoder.weight)
        nn.init.zeros_(self.decoder.bias)

    def forward(
        self, x: Float[Tensor, "B L F"], masked: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B L R"]:
        """Reconstruct all bars from those that are not masked.

        Args:
            x: windows of L bars, scaled.
            masked: True where a bar is hidden from the encoder.

        Returns:
            The values of all bars; the loss chooses which of them count.
        """
        seen = torch.where(masked.unsqueeze(-1), self.mask_token, x)
        return cast("Tensor", self.decoder(self.encoder(seen)))


def _initialise(lstm: nn.LSTM) -> None:
    """Set input weights by Xavier, recurrent weights orthogonal, gate by gate; biases to 0."""
    for name, weights in lstm.named_parameters():
        if name.startswith("bias"):
            nn.init.zeros_(weights)
            continue
        fill = nn.init.orthogonal_ if name.startswith("weight_hh") else nn.init.xavier_uniform_
        for gate in weights.detach().chunk(GATES):
            fill(gate)
