import pytest
import torch

from hrl_sarp.config.encoder_schema import MaskStrategy
from hrl_sarp.encoders.pretrain.masking import MaskRule, draw_masks
from hrl_sarp.errors import ConfigError

L, WARMUP, N = 105, 20, 400
STRATEGIES: tuple[MaskStrategy, ...] = ("random", "block", "patch")


def rule(strategy: MaskStrategy = "random", ratio: float = 0.15, patch_bars: int = 7) -> MaskRule:
    return MaskRule(strategy, ratio, WARMUP, patch_bars)


def masks(how: MaskRule, seed: int = 0, n: int = N) -> torch.Tensor:
    return draw_masks(how, n, L, torch.Generator().manual_seed(seed))


def runs_of(row: torch.Tensor) -> list[int]:
    """Lengths of the runs of hidden bars."""
    edges = torch.diff(row.int(), prepend=torch.zeros(1), append=torch.zeros(1))
    return ((edges == -1).nonzero() - (edges == 1).nonzero()).flatten().tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_window_hides_15_percent_of_its_85_bars_and_no_warm_up(
    strategy: MaskStrategy,
) -> None:
    drawn = masks(rule(strategy))
    assert drawn.shape == (N, L)
    assert set(drawn.sum(dim=1).tolist()) == {12}  # int(0.15 x 85)
    assert not drawn[:, :WARMUP].any()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_masks_follow_from_the_generator(strategy: MaskStrategy) -> None:
    assert torch.equal(masks(rule(strategy), seed=3), masks(rule(strategy), seed=3))
    assert not torch.equal(masks(rule(strategy), seed=3), masks(rule(strategy), seed=4))


def test_random_hides_every_bar_equally_often() -> None:
    share = masks(rule(), n=5000)[:, WARMUP:].float().mean(dim=0)
    # 12 of 85 bars: 0.141; four standard errors of 5,000 windows: 0.02
    assert (share - 12 / 85).abs().max() < 0.02


def test_block_hides_one_run_anywhere_after_the_warm_up() -> None:
    drawn = masks(rule("block"), n=2000)
    assert all(runs_of(row) == [12] for row in drawn[:100])
    firsts = set(drawn.int().argmax(dim=1).tolist())
    assert (min(firsts), max(firsts)) == (WARMUP, L - 12)


def test_patch_hides_whole_patches_of_the_grid_and_part_of_the_last_one() -> None:
    drawn = masks(rule("patch"))[:, WARMUP:]
    # 85 bars make 12 patches of 7 and one of 1; 12 hidden bars are one patch and 5 of the next, or
    # with the short patch 7 + 1 + 4
    per_patch = torch.nn.functional.pad(drawn.int(), (0, 6)).reshape(N, 13, 7).sum(dim=2)
    counts = {tuple(sorted(row[row > 0].tolist())) for row in per_patch}
    assert counts == {(5, 7), (1, 4, 7)}
    assert len({int(row.argmax()) for row in per_patch}) >= 12


def test_patches_of_one_bar_are_single_bars() -> None:
    drawn = masks(rule("patch", patch_bars=1))
    assert set(drawn.sum(dim=1).tolist()) == {12}
    assert max(max(runs_of(row)) for row in drawn[:50]) < 12


@pytest.mark.parametrize(("ratio", "length"), [(0.001, L), (0.15, WARMUP), (0.15, 5)])
def test_rule_that_hides_nothing_is_refused(ratio: float, length: int) -> None:
    with pytest.raises(ConfigError, match=r"mask_ratio.*hides 0; expected from 1"):
        rule(ratio=ratio).count(length)


def test_rule_that_hides_everything_is_refused() -> None:
    with pytest.raises(ConfigError, match="hides 10"):
        MaskRule("random", 1.0, 0, 7).count(10)
