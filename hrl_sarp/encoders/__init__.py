"""Price-action encoders: a window of causal bar features in, embeddings out."""

from hrl_sarp.encoders.jade import JadeEncoder, JadeMaskedAutoencoder
from hrl_sarp.encoders.multitask import JadeMultiTask
from hrl_sarp.encoders.transfer import LoadReport, export_encoder, load_encoder, read_description
from hrl_sarp.encoders.transformer import (
    CandleEncoder,
    PriceActionTransformer,
    TransformerMaskedAutoencoder,
)

__all__ = [
    "CandleEncoder",
    "JadeEncoder",
    "JadeMaskedAutoencoder",
    "JadeMultiTask",
    "LoadReport",
    "PriceActionTransformer",
    "TransformerMaskedAutoencoder",
    "export_encoder",
    "load_encoder",
    "read_description",
]
