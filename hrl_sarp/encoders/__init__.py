"""Price-action encoders: networks that turn a window of bar features into an embedding."""

from hrl_sarp.encoders.networks.jade import JadeEncoder, JadeMaskedAutoencoder
from hrl_sarp.encoders.networks.transformer import (
    CandleEncoder,
    PriceActionTransformer,
    TransformerMaskedAutoencoder,
)
from hrl_sarp.encoders.transfer import LoadReport, export_encoder, load_encoder, read_description

__all__ = [
    "CandleEncoder",
    "JadeEncoder",
    "JadeMaskedAutoencoder",
    "LoadReport",
    "PriceActionTransformer",
    "TransformerMaskedAutoencoder",
    "export_encoder",
    "load_encoder",
    "read_description",
]
