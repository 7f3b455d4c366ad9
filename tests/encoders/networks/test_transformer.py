"""The transformer: its size, what each output sees, and how it starts."""

import math

import pytest
import torch

from hrl_sarp.config.encoder_schema import TransformerConfig
from hrl_sarp.config.loading import load_config
from hrl_sarp.encoders.networks.transformer import (
    CandleEncoder,
    PriceActionTransformer,
    TransformerMaskedAutoencoder,
    sinusoidal_positions,
)
from hrl_sarp.errors import ConfigError
from tests.price_action.buys.candle_factories import small_config


@pytest.fixture
def small() -> TransformerConfig:
    return small_config().encoders.transformer


def test_default_classifier_has_the_described_parameters() -> None:
    network = PriceActionTransformer(14, load_config().encoders.transformer)
    # 14 x 128 + 128; per layer 49,536 + 16,512 + 66,048 + 65,664 + 512; 128 x 64 + 64; 64 + 1
    expected = 1_920 + 2 * 198_272 + 8_256 + 65
    assert expected == 406_785
    assert sum(weight.numel() for weight in network.parameters()) == expected


def test_shapes_and_pooling(small: TransformerConfig) -> None:
    network = PriceActionTransformer(5, small).eval()
    x = torch.randn(3, 16, 5)
    per_candle = network.encode(x)
    assert per_candle.shape == (3, 16, network.width)
    torch.testing.assert_close(network.embed(x), per_candle.mean(dim=1))
    assert network(x).shape == (3,)


def test_window_is_encoded_alike_alone_and_in_a_batch(small: TransformerConfig) -> None:
    encoder = CandleEncoder(5, small).eval()
    x = torch.randn(7, 16, 5)
    torch.testing.assert_close(encoder.embed(x)[4:5], encoder.embed(x[4:5]), rtol=1e-5, atol=1e-6)


def test_order_of_candles_matters(small: TransformerConfig) -> None:
    # without positions the mean over candles would be the same in any order
    encoder = CandleEncoder(5, small).eval()
    x = torch.randn(1, 16, 5)
    difference = encoder.embed(x) - encoder.embed(x.flip(1))
    assert float(difference.detach().abs().max()) > 1e-3


def test_positions_are_sines_and_cosines() -> None:
    positions = sinusoidal_positions(3, 4)
    # wave lengths 1 and 10000^(2/4) = 100
    expected = [[math.sin(t), math.cos(t), math.sin(t / 100), math.cos(t / 100)] for t in range(3)]
    torch.testing.assert_close(positions, torch.tensor(expected))


def test_layers_normalise_after_the_residual(small: TransformerConfig) -> None:
    # post-norm with fresh gains: every vector leaves with mean 0 and variance 1
    vectors = CandleEncoder(5, small).eval()(torch.randn(2, 16, 5))
    torch.testing.assert_close(vectors.mean(-1), torch.zeros(2, 16), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        vectors.var(-1, unbiased=False), torch.ones(2, 16), rtol=0, atol=1e-3
    )


def test_weights_start_within_the_bounds_of_xavier(small: TransformerConfig) -> None:
    for name, weight in PriceActionTransformer(14, small).named_parameters():
        if weight.dim() > 1:
            bound = math.sqrt(6 / sum(weight.shape))
            assert float(weight.detach().abs().max()) <= bound, name
            # a uniform draw of this many entries comes near its bound
            assert float(weight.detach().abs().max()) > 0.7 * bound, name


def test_positions_are_no_weights(small: TransformerConfig) -> None:
    names = PriceActionTransformer(14, small).state_dict()
    assert [name for name in names if "position" in name] == []


def test_longer_window_than_configured_is_refused(small: TransformerConfig) -> None:
    with pytest.raises(ConfigError, match="windows of 16 candles, found 17"):
        CandleEncoder(5, small)(torch.randn(1, 17, 5))


def test_autoencoder_does_not_see_masked_candles(small: TransformerConfig) -> None:
    autoencoder = TransformerMaskedAutoencoder(5, small).eval()
    x = torch.randn(2, 16, 5)
    masked = torch.zeros(2, 16, dtype=torch.bool)
    masked[:, 4:8] = True
    changed = torch.where(masked.unsqueeze(-1), 99.0, x)
    torch.testing.assert_close(autoencoder(changed, masked), autoencoder(x, masked))
    difference = autoencoder(changed, ~masked) - autoencoder(x, ~masked)
    assert float(difference.detach().abs().max()) > 1e-3


def test_mask_vector_learns_from_masked_candles_only(small: TransformerConfig) -> None:
    autoencoder = TransformerMaskedAutoencoder(5, small)
    x = torch.randn(2, 16, 5)
    nothing = torch.zeros(2, 16, dtype=torch.bool)
    autoencoder(x, nothing).square().sum().backward()
    assert autoencoder.mask_token.grad is not None
    assert not autoencoder.mask_token.grad.any()
    autoencoder(x, ~nothing).square().sum().backward()
    assert autoencoder.mask_token.grad.any()


def test_autoencoder_starts_from_a_loaded_encoder(small: TransformerConfig) -> None:
    trained, fresh = CandleEncoder(5, small).eval(), TransformerMaskedAutoencoder(5, small).eval()
    fresh.encoder.load_state_dict(trained.state_dict())
    x = torch.randn(2, 16, 5)
    torch.testing.assert_close(fresh.encoder.embed(x), trained.embed(x))
