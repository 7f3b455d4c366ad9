import pytest
import torch

from hrl_sarp.config.loading import load_config
from hrl_sarp.encoders.networks.jade import JadeEncoder, JadeMaskedAutoencoder

B, L, F = 3, 12, 11


@pytest.fixture
def autoencoder() -> JadeMaskedAutoencoder:
    torch.manual_seed(0)
    return JadeMaskedAutoencoder(F, load_config().encoders.jade).eval()


@pytest.fixture
def bars() -> torch.Tensor:
    return torch.randn(B, L, F, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def hidden() -> torch.Tensor:
    masks = torch.zeros(B, L, dtype=torch.bool)
    masks[:, 5] = True
    masks[0, 8] = True
    return masks


def test_described_sizes_have_the_described_number_of_parameters(
    autoencoder: JadeMaskedAutoencoder,
) -> None:
    # layer 1: 2 directions x (512 x (11 + 128) + 2 x 512) = 144,384; layer 2 reads 256: 395,264;
    # decoder: 256 x 11 + 11 = 2,827
    n = sum(weights.numel() for weights in autoencoder.parameters())
    assert n == 144_384 + 395_264 + 2_827 + autoencoder.mask_token.numel() == 542_475 + 11


def test_hidden_bars_cannot_be_seen(
    autoencoder: JadeMaskedAutoencoder, bars: torch.Tensor, hidden: torch.Tensor
) -> None:
    changed = torch.where(hidden.unsqueeze(-1), 99.0, bars)
    assert torch.equal(autoencoder(bars, hidden), autoencoder(changed, hidden))


def test_visible_bars_on_both_sides_move_the_rebuilt_one(
    autoencoder: JadeMaskedAutoencoder, bars: torch.Tensor, hidden: torch.Tensor
) -> None:
    for neighbour in (4, 6):
        changed = bars.clone()
        changed[:, neighbour] += 1
        moved = (autoencoder(changed, hidden) - autoencoder(bars, hidden))[:, 5].abs()
        assert moved.max() > 1e-4


def test_mask_token_is_learned(
    autoencoder: JadeMaskedAutoencoder, bars: torch.Tensor, hidden: torch.Tensor
) -> None:
    autoencoder(bars, hidden)[hidden].square().sum().backward()
    token = autoencoder.mask_token.grad
    assert token is not None
    assert (token.abs() > 0).all()


def test_embedding_of_a_window_is_the_mean_over_its_bars(bars: torch.Tensor) -> None:
    encoder = JadeEncoder(F, load_config().encoders.jade).eval()
    per_bar = encoder(bars)
    assert per_bar.shape == (B, L, encoder.width) == (B, L, 256)
    assert torch.allclose(encoder.embed(bars), per_bar.mean(dim=1))


def test_dropout_acts_while_training_only(bars: torch.Tensor) -> None:
    config = load_config().encoders.jade.model_copy(update={"dropout": 0.5})
    encoder = JadeEncoder(F, config)
    assert not torch.equal(encoder(bars), encoder(bars))
    encoder.eval()
    assert torch.equal(encoder(bars), encoder(bars))


def test_recurrent_weights_of_each_gate_start_orthogonal() -> None:
    encoder = JadeEncoder(F, load_config().encoders.jade)
    for gate in encoder.lstm.weight_hh_l0.detach().chunk(4):
        assert torch.allclose(gate @ gate.T, torch.eye(128), atol=1e-5)
