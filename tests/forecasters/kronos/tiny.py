"""Tiny networks of several shapes, and series to forecast with them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from hrl_sarp.forecasters.contract import History
from hrl_sarp.forecasters.kronos import (
    PREDICTORS,
    TOKENIZER_BASE,
    KronosPredictor,
    KronosTokenizer,
    PredictorSize,
    TokenizerSize,
)

SHAPES = {
    "even bits, learned times": {"bits": (4, 4), "heads": 2, "layers": 2, "learn_te": True},
    "coarse bits rule, fixed times": {"bits": (5, 2), "heads": 1, "layers": 1, "learn_te": False},
    "fine bits rule, four heads": {"bits": (1, 6), "heads": 4, "layers": 3, "learn_te": False},
}
STEP = 1e-6
every_shape = pytest.mark.parametrize("shape", SHAPES)


def tokenizer_size(shape: str) -> TokenizerSize:
    (s1_bits, s2_bits), heads, layers, _ = SHAPES[shape].values()
    changes = {"d_model": 16, "n_heads": heads, "ff_dim": 24, "group_size": 3}
    changes |= {"n_enc_layers": layers + 1, "n_dec_layers": 4 - layers}
    return TOKENIZER_BASE.model_copy(update=changes | {"s1_bits": s1_bits, "s2_bits": s2_bits})


def predictor_size(shape: str) -> PredictorSize:
    (s1_bits, s2_bits), heads, layers, learn_te = SHAPES[shape].values()
    dropouts = ("ffn_dropout_p", "attn_dropout_p", "resid_dropout_p", "token_dropout_p")
    changes = {"d_model": 24 if heads < 3 else 32, "n_heads": heads, "ff_dim": 20}
    changes |= {"n_layers": layers, "learn_te": learn_te, **dict.fromkeys(dropouts, 0.0)}
    return PREDICTORS["mini"].model_copy(update=changes | {"s1_bits": s1_bits, "s2_bits": s2_bits})


def networks(shape: str, seed: int = 0) -> tuple[KronosTokenizer, KronosPredictor]:
    """Return networks whose logits differ a lot, so that rounding moves no draw."""
    torch.manual_seed(seed)
    tokenizer = KronosTokenizer(tokenizer_size(shape)).eval()
    predictor = KronosPredictor(predictor_size(shape)).eval()
    with torch.no_grad():
        for head in (predictor.head.proj_s1, predictor.head.proj_s2, tokenizer.quant_embed):
            head.weight.mul_(4)
    return tokenizer, predictor


def history(n_rows: int, n_steps: int, seed: int = 0, symbol: str = "A") -> History:
    """Return a random walk of daily bars on a scale where the floor of deviations is nothing."""
    rng = np.random.default_rng(seed)
    days = np.datetime64("2023-05-01") + np.arange(n_rows + n_steps)
    close = 1e4 * np.exp(np.cumsum(0.02 * rng.normal(size=n_rows)))
    opened = close * np.exp(0.01 * rng.normal(size=n_rows))
    spread = 1 + 0.01 * rng.random((2, n_rows))
    high, low = np.maximum(opened, close) * spread[0], np.minimum(opened, close) / spread[1]
    volume = 1e6 * np.exp(rng.normal(size=n_rows))
    prices = [opened, high, low, close]
    bars = np.stack([*prices, volume, volume * np.mean(prices, axis=0)], axis=1)
    return History(symbol, days[:n_rows], close, days[n_rows:], bars)


def tokens(shape: str, *size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    s1_bits, s2_bits = SHAPES[shape]["bits"]
    return (
        torch.randint(2**s1_bits, size, generator=generator),
        torch.randint(2**s2_bits, size, generator=generator),
    )


def stamps(*size: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    parts = rng.integers((0, 0, 0, 1, 1), (60, 24, 7, 32, 13), (*size, 5))
    return torch.from_numpy(parts)


def slope_error(loss: Callable[[], torch.Tensor], weights: torch.Tensor, seed: int) -> float:
    """Return the slope of a loss along a random direction, less the slope that the gradient says.

    The slope is that of central differences.
    """
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(weights.shape, generator=generator, dtype=weights.dtype)
    found = []
    with torch.no_grad():
        for sign in (1, -1):
            weights.add_(sign * STEP * direction)
            found.append(loss().item())
            weights.sub_(sign * STEP * direction)
    assert weights.grad is not None
    return (found[0] - found[1]) / (2 * STEP) - (weights.grad * direction).sum().item()
