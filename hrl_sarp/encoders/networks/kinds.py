"""The encoders that a panel may have, by name, with the configured sizes and fresh weights."""

from typing import Literal

from hrl_sarp.config.encoder_schema import EncodersConfig
from hrl_sarp.encoders.networks.jade import JadeEncoder, JadeMaskedAutoencoder
from hrl_sarp.encoders.networks.transformer import CandleEncoder, TransformerMaskedAutoencoder

EncoderKind = Literal["jade", "transformer"]
PanelEncoder = JadeEncoder | CandleEncoder
PanelAutoencoder = JadeMaskedAutoencoder | TransformerMaskedAutoencoder


def build_encoder(kind: EncoderKind, n_features: int, config: EncodersConfig) -> PanelEncoder:
    """Return an encoder: one vector per window by its `embed`."""
    if kind == "jade":
        return JadeEncoder(n_features, config.jade)
    return CandleEncoder(n_features, config.transformer)


def build_autoencoder(
    kind: EncoderKind, n_features: int, config: EncodersConfig
) -> PanelAutoencoder:
    """Return what pretrains that encoder, its attribute `encoder`."""
    if kind == "jade":
        return JadeMaskedAutoencoder(n_features, config.jade)
    return TransformerMaskedAutoencoder(n_features, config.transformer)
