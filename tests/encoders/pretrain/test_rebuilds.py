"""Moves to both sides of bars: by hand, by a loop, and whether an encoder learns to tell them."""

import numpy as np
import pytest
import torch

from hrl_sarp.config.encoder_schema import JadeConfig
from hrl_sarp.encoders.networks.jade import JadeMaskedAutoencoder
from hrl_sarp.encoders.pretrain.rebuilds import HiddenBars, MovesToBothSides, rebuild_of
from hrl_sarp.encoders.pretrain.reconstruction import (
    BASELINES,
    MaskRule,
    baseline_rebuilds,
    draw_masks,
)
from hrl_sarp.encoders.pretrain.task import MODEL, pretrain
from hrl_sarp.errors import ConfigError
from hrl_sarp.run.session import cpu_has_bfloat16
from tests.encoders.masked_windows import LENGTH, run, settings, table

COLUMNS = ("range_z", "displacement_2", "displacement_5")
RULE = MaskRule("patch", ratio=0.4, warmup_bars=4, patch_bars=3)
SIZES = JadeConfig(hidden=16, layers=1, dropout=0.0)
MOVES = MovesToBothSides(COLUMNS, warmup_bars=4)


def walks(rng: np.random.Generator, n_rows: int) -> np.ndarray:
    """A walk's steps, and its moves over 2 and 5 bars."""
    steps = rng.normal(size=n_rows)
    price = np.concatenate([np.zeros(5), np.cumsum(steps)])
    return np.stack([steps, price[5:] - price[3:-2], price[5:] - price[:-5]], axis=1)


def drawn(n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, LENGTH, 3, generator=generator), draw_masks(RULE, n, LENGTH, generator)


def test_moves_equal_a_loop_over_bars() -> None:
    bars, hidden = drawn()
    wanted = MOVES.wanted(bars, hidden)
    for column, (place, k) in enumerate(((1, 2), (2, 5))):
        for t in range(LENGTH):
            assert torch.equal(wanted.values[:, t, column], bars[:, t, place])
            assert wanted.counted[:, t, column].all() == (t >= max(4, k))
            assert torch.equal(wanted.unseen[:, t, column], hidden[:, t])
            ahead = 2 + column
            assert wanted.counted[:, t, ahead].all() == (4 <= t < LENGTH - k)
            if t < LENGTH - k:
                assert torch.equal(wanted.values[:, t, ahead], bars[:, t + k, place])
                assert torch.equal(wanted.unseen[:, t, ahead], hidden[:, t + k])


@pytest.mark.parametrize("rebuild", [MOVES, HiddenBars(COLUMNS)])
def test_every_window_counts_as_many_values_as_said(
    rebuild: MovesToBothSides | HiddenBars,
) -> None:
    bars, hidden = drawn()
    wanted = rebuild.wanted(bars, hidden)
    counts = wanted.counted.expand_as(wanted.values).sum(dim=(1, 2))
    assert set(counts.tolist()) == {rebuild.count(RULE, LENGTH)}
    assert wanted.values.shape[2] == len(rebuild.names)


def test_moves_that_a_visible_bar_holds_are_copied_by_the_baselines() -> None:
    bars, hidden = drawn()
    wanted = MOVES.wanted(bars, hidden)
    rebuilds = dict(zip(BASELINES, baseline_rebuilds(wanted.values, wanted.unseen), strict=True))
    for name in ("previous bar", "linear interpolation"):
        seen = ~wanted.unseen
        assert torch.equal(rebuilds[name][seen], wanted.values[seen])
    assert not rebuilds["mean"].any()


def test_moves_of_a_walk_are_learned_on_both_sides() -> None:
    data = table(walks, train=512, validation=128, test=128)
    config = settings(epochs=12, batch_size=32, learning_rate=1e-2, warmup_epochs=1)
    torch.manual_seed(0)
    module = JadeMaskedAutoencoder(3, SIZES, len(MOVES.names))
    errors = pretrain(module, data, run(config, rule=RULE, rebuild=MOVES)).test
    by_move = errors[MODEL].huber / errors["mean"].huber
    # up to a bar and ahead of it: an encoder that read one direction only would tell one side
    assert (by_move < 0.6).all()


def test_moves_without_columns_of_displacements_are_refused() -> None:
    assert rebuild_of("bars", ("range_z",), 4).names == ("range_z",)
    with pytest.raises(ConfigError, match=r"found range_z; set .*displacement_bars"):
        rebuild_of("moves", ("range_z",), 4)


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this processor has no bfloat16")
def test_bfloat16_on_a_cpu_is_chosen_by_the_settings() -> None:
    seen: list[torch.dtype] = []

    class Noted(JadeMaskedAutoencoder):
        def forward(self, x: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
            rebuilt: torch.Tensor = super().forward(x, masked)
            seen.append(rebuilt.dtype)
            return rebuilt

    data = table(walks, train=8, validation=8, test=0)
    for is_short in (False, True):
        module = Noted(3, SIZES)
        config = settings(epochs=1, batch_size=8, cpu_bfloat16=is_short)
        result = pretrain(module, data, run(config))
        assert np.isfinite(result.best_val_loss)
        assert {weights.dtype for weights in module.parameters()} == {torch.float32}
    assert seen[0] == torch.float32
    assert seen[-1] == torch.bfloat16
