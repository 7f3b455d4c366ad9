"""Kronos: a transformer over tokens of bars, by the weights of its makers or by our own.

The network is the one of https://github.com/shiyu-coder/Kronos (MIT; Shi et al. 2025,
arXiv:2508.02739), written anew. Files of one are read by the other.
"""

from hrl_sarp.forecasters.kronos.files import (
    load_kronos,
    load_predictor,
    load_tokenizer,
    save_kronos,
)
from hrl_sarp.forecasters.kronos.forecaster import KronosForecaster
from hrl_sarp.forecasters.kronos.predictor import KronosPredictor
from hrl_sarp.forecasters.kronos.sampling import Sampling
from hrl_sarp.forecasters.kronos.sizes import (
    PREDICTORS,
    TOKENIZER_2K,
    TOKENIZER_BASE,
    PredictorSize,
    TokenizerSize,
)
from hrl_sarp.forecasters.kronos.tokenizer import KronosTokenizer

__all__ = [
    "PREDICTORS",
    "TOKENIZER_2K",
    "TOKENIZER_BASE",
    "KronosForecaster",
    "KronosPredictor",
    "KronosTokenizer",
    "PredictorSize",
    "Sampling",
    "TokenizerSize",
    "load_kronos",
    "load_predictor",
    "load_tokenizer",
    "save_kronos",
]
