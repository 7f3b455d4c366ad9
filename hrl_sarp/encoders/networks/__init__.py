"""Builds encoders and autoencoders by name; `embed` turns a window of bars into one vector."""

from typing import Literal

from hrl_sarp.config.encoder_schema import EncodersConfig
from hrl_sarp.encoders.networks.jade import JadeEncoder, JadeMaskedAutoencoder
from hrl_sarp.encoders.networks.transformer import CandleEncoder, TransformerMaskedAutoencoder

EncoderKind = Literal["jade", "transformer"]
PanelEncoder = JadeEncoder | CandleEncoder
PanelAutoencoder = JadeMaskedAutoencoder | TransformerMaskedAutoencoder


def build_encoder(kind: EncoderKind, n_features: int, config: EncodersConfig) -> PanelEncoder:
    """Return an encoder of the configured size with fresh weights, on the CPU."""
    if kind == "jade":
        return JadeEncoder(n_features, config.jade)
    return CandleEncoder(n_features, config.transformer)


def build_autoencoder(
    kind: EncoderKind, n_features: int, n_rebuilt: int, config: EncodersConfig
) -> PanelAutoencoder:
    """Return the autoencoder that pretrains its attribute `encoder`, on the CPU.

    It gives `n_rebuilt` values for each bar.
    """
    if kind == "jade":
        return JadeMaskedAutoencoder(n_features, config.jade, n_rebuilt)
    return TransformerMaskedAutoencoder(n_features, config.transformer, n_rebuilt)
