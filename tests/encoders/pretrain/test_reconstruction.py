import pytest
import torch

from hrl_sarp.config.encoder_schema import MaskStrategy
from hrl_sarp.encoders.pretrain.reconstruction import (
    BASELINES,
    Errors,
    ErrorSums,
    MaskRule,
    as_plain,
    baseline_rebuilds,
    best_baseline,
    draw_masks,
    huber_sum,
)
from hrl_sarp.errors import ConfigError

CPU = torch.device("cpu")
L, WARMUP, N = 105, 20, 400
STRATEGIES: tuple[MaskStrategy, ...] = ("random", "block", "patch")


def column(*values: float) -> torch.Tensor:
    """One window of one column."""
    return torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1)


def hidden(*places: int, length: int = 6) -> torch.Tensor:
    masks = torch.zeros(1, length, dtype=torch.bool)
    masks[0, list(places)] = True
    return masks


def rebuilt(bars: torch.Tensor, masks: torch.Tensor) -> dict[str, list[float]]:
    found = baseline_rebuilds(bars, masks[..., None])
    return {
        name: part[masks].flatten().tolist() for name, part in zip(BASELINES, found, strict=True)
    }


def test_baselines_between_visible_bars() -> None:
    bars = column(1, 2, -7, -7, 8, 3)
    # hidden 2 and 3 lie a third and two thirds between bar 1 (2) and bar 4 (8)
    assert rebuilt(bars, hidden(2, 3)) == {
        "mean": [0, 0],
        "previous bar": [2, 2],
        "linear interpolation": pytest.approx([4, 6]),
    }


def test_baselines_copy_the_nearest_bar_at_the_ends_of_a_window() -> None:
    bars = column(-7, 2, 3, 4, 5, -7)
    found = rebuilt(bars, hidden(0, 5))
    assert found["previous bar"] == found["linear interpolation"] == [2, 5]


def test_interpolation_rebuilds_a_line_exactly() -> None:
    bars = torch.arange(24.0).reshape(2, 12, 1)
    masks = torch.zeros(2, 12, dtype=torch.bool)
    masks[0, [1, 5, 6, 7, 10]] = True
    masks[1, 2:9] = True
    between = baseline_rebuilds(bars, masks[..., None])[2]
    assert torch.allclose(between, bars)


def test_huber_counts_hidden_values_only() -> None:
    bars, guess = column(0, 0, 0, 0, 0, 0), column(0.5, 3, 9, 9, 9, 9)
    # 0.5 is below delta: 0.5^2 / 2; 3 is above: 1 x (3 - 0.5)
    assert float(huber_sum(guess, bars, hidden(0, 1)[..., None], 1.0)) == pytest.approx(0.125 + 2.5)


def test_error_sums_are_means_over_all_batches() -> None:
    sums = ErrorSums(1, 1.0, CPU)
    sums.add(column(0.5, 9, 9, 9, 9, 9), column(0, 0, 0, 0, 0, 0), hidden(0)[..., None])
    sums.add(column(9, -3, 1, 9, 9, 9), column(0, 0, 0, 0, 0, 0), hidden(1, 2)[..., None])
    found = as_plain({"model": sums.means()}, ["a"])["model"]
    means = [found[name] for name in ("loss", "mae", "mse")]
    assert means == pytest.approx([(0.125 + 2.5 + 0.5) / 3, 4.5 / 3, 10.25 / 3])


def test_errors_keep_columns_apart() -> None:
    sums = ErrorSums(2, 1.0, CPU)
    bars = torch.zeros(1, 6, 2)
    sums.add(bars + torch.tensor([1.0, 3.0]), bars, hidden(2)[..., None])
    errors = sums.means()
    by_column = as_plain({"model": errors}, ["a", "b"])["model"]["loss_by_column"]
    assert by_column == pytest.approx({"a": 0.5, "b": 2.5})
    assert errors.loss == pytest.approx(1.5)


def test_best_baseline_has_the_least_loss_whatever_the_model_has() -> None:
    def errors(loss: float) -> Errors:
        return Errors(*(torch.tensor([loss]) for _ in range(3)))

    found = {name: errors(loss) for name, loss in zip(BASELINES, (0.4, 0.2, 0.3), strict=True)}
    assert best_baseline({"model": errors(0.1), **found}) == "previous bar"
    plain = as_plain(found, ["a"])["mean"]
    assert plain["loss"] == pytest.approx(0.4)
    assert plain["loss_by_column"] == pytest.approx({"a": 0.4})


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
