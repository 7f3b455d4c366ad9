import pytest
import torch

from hrl_sarp.encoders.pretrain.reconstruction import (
    BASELINES,
    Errors,
    ErrorSums,
    as_plain,
    baseline_rebuilds,
    best_baseline,
    huber_sum,
)

CPU = torch.device("cpu")


def column(*values: float) -> torch.Tensor:
    """One window of one column."""
    return torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1)


def hidden(*places: int, length: int = 6) -> torch.Tensor:
    masks = torch.zeros(1, length, dtype=torch.bool)
    masks[0, list(places)] = True
    return masks


def rebuilt(bars: torch.Tensor, masks: torch.Tensor) -> dict[str, list[float]]:
    found = baseline_rebuilds(bars, masks)
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
    between = baseline_rebuilds(bars, masks)[2]
    assert torch.allclose(between, bars)


def test_huber_counts_hidden_values_only() -> None:
    bars, guess = column(0, 0, 0, 0, 0, 0), column(0.5, 3, 9, 9, 9, 9)
    # 0.5 is below delta: 0.5^2 / 2; 3 is above: 1 x (3 - 0.5)
    assert float(huber_sum(guess, bars, hidden(0, 1), 1.0)) == pytest.approx(0.125 + 2.5)


def test_error_sums_are_means_over_all_batches() -> None:
    sums = ErrorSums(1, 1.0, CPU)
    sums.add(column(0.5, 9, 9, 9, 9, 9), column(0, 0, 0, 0, 0, 0), hidden(0))
    sums.add(column(9, -3, 1, 9, 9, 9), column(0, 0, 0, 0, 0, 0), hidden(1, 2))
    found = as_plain({"model": sums.means()}, ["a"])["model"]
    means = [found[name] for name in ("loss", "mae", "mse")]
    assert means == pytest.approx([(0.125 + 2.5 + 0.5) / 3, 4.5 / 3, 10.25 / 3])


def test_errors_keep_columns_apart() -> None:
    sums = ErrorSums(2, 1.0, CPU)
    bars = torch.zeros(1, 6, 2)
    sums.add(bars + torch.tensor([1.0, 3.0]), bars, hidden(2))
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
