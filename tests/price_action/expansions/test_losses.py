"""Targets and losses by hand."""

import math

import numpy as np
import pytest
import torch

from hrl_sarp.price_action.expansions.losses import (
    Targets,
    balanced_weight,
    constant_losses,
    make_targets,
    task_losses,
    task_weights,
    weighted_total,
)
from hrl_sarp.price_action.expansions.model import MultiTaskOutput
from hrl_sarp.price_action.expansions.windows import LabelledWindows
from tests.price_action.expansions.labelled_factories import small_config

CONFIG = small_config(pointer_huber_delta=0.1, countdown_huber_delta=1.0).encoders.finetuning
BARS = 11


def windows(*spans: tuple[int, int]) -> LabelledWindows:
    n_windows = len(spans)
    return LabelledWindows(
        tuple(map(str, range(n_windows))),
        np.ones((n_windows, BARS, 4)),
        np.arange(n_windows) % 2,
        np.array([start for start, _ in spans]),
        np.array([end for _, end in spans]),
        np.arange(n_windows),
        "",
    )


def test_pointers_are_center_and_length_of_the_inclusive_span() -> None:
    pointers = make_targets(windows((4, 7), (0, 0), (0, 10)), 20).pointers
    # (4 + 7) / 2 / 10 and 4 / 11; the first bar; all bars
    expected = [[0.55, 4 / 11], [0.0, 1 / 11], [0.5, 1.0]]
    torch.testing.assert_close(pointers, torch.tensor(expected))


def test_inside_marks_first_and_last_bar() -> None:
    (inside,) = make_targets(windows((4, 7)), 20).inside.tolist()
    assert [bar for bar, mark in enumerate(inside) if mark] == [4, 5, 6, 7]


def test_countdown_falls_from_one_to_zero_at_the_first_bar() -> None:
    (countdown,) = make_targets(windows((8, 9)), 4).countdown.tolist()
    assert countdown == [1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0, 0.0]


def test_all_targets_lie_between_zero_and_one() -> None:
    targets = make_targets(windows((0, 0), (10, 10), (3, 9)), 20)
    for part in (targets.pointers, targets.inside, targets.countdown):
        assert 0.0 <= float(part.min()) <= float(part.max()) <= 1.0


def test_balanced_weight_is_outside_over_inside() -> None:
    assert balanced_weight(make_targets(windows((0, 0), (2, 4)), 20).inside) == pytest.approx(
        (22 - 4) / 4
    )


def output(**changes: torch.Tensor | None) -> MultiTaskOutput:
    silent: dict[str, torch.Tensor | None] = {
        "type_logits": None,
        "pointers": None,
        "span_logits": None,
        "countdown": None,
    }
    return MultiTaskOutput(**{**silent, **changes})


def test_losses_by_hand() -> None:
    targets = make_targets(windows((0, 1)), 20)  # center 0.05, length 2 / 11
    said = output(
        type_logits=torch.tensor([[math.log(3.0), 0.0]]),
        pointers=torch.tensor([[0.05 + 0.06, 2 / 11 + 0.5]]),
        span_logits=torch.zeros(1, BARS),
        countdown=targets.countdown + 2.0,
    )
    losses = task_losses(said, targets, CONFIG, pos_weight=3.0)
    assert float(losses["type"]) == pytest.approx(-math.log(0.75))
    # Huber of delta 0.1: 0.06^2 / 2, and 0.1 (0.5 - 0.05)
    assert float(losses["pointers"]) == pytest.approx((0.0018 + 0.045) / 2)
    # every bar costs log 2, the two inside three times that
    assert float(losses["span"]) == pytest.approx(math.log(2.0) * (9 + 2 * 3) / 11)
    assert float(losses["countdown"]) == pytest.approx(2.0 - 0.5)


def test_tasks_without_a_head_have_no_loss() -> None:
    targets = make_targets(windows((0, 1)), 20)
    losses = task_losses(output(span_logits=torch.zeros(1, BARS)), targets, CONFIG, 1.0)
    assert list(losses) == ["span"]


def test_total_weighs_by_sigma() -> None:
    losses = {"type": torch.tensor(0.5), "span": torch.tensor(2.0)}
    log_sigma = {"type": torch.tensor(0.0), "span": torch.tensor(math.log(2.0))}
    # 0.5 / 2 + 0, and 2 / 8 + log 2
    assert float(weighted_total(losses, log_sigma)) == pytest.approx(0.5 + math.log(2.0))


def test_best_sigma_of_a_constant_loss_is_its_square_root() -> None:
    log_sigma = torch.tensor(0.3, requires_grad=True)
    optimizer = torch.optim.SGD([log_sigma], lr=0.2)
    for _ in range(200):
        optimizer.zero_grad()
        weighted_total({"span": torch.tensor(0.09)}, {"span": log_sigma}).backward()
        optimizer.step()
    assert float(log_sigma.exp().detach()) == pytest.approx(0.3, rel=1e-3)


def test_weights_are_shares_of_the_precisions() -> None:
    weights = task_weights({"type": 0.0, "span": math.log(0.5)})
    assert weights == pytest.approx({"type": 0.2, "span": 0.8})


def test_constant_losses_are_the_least_that_one_answer_can_reach() -> None:
    some = [(3, 5), (6, 6), (1, 4), (8, 9)]
    targets = make_targets(windows(*some), 5)
    losses = constant_losses(targets, CONFIG, pos_weight=4.0)
    assert losses["type"] == pytest.approx(math.log(2.0))  # half of each class
    for shift in (-0.3, 0.3):
        span, countdown = _shifted(targets, shift)
        assert losses["span"] < span
        assert losses["countdown"] < countdown


def _shifted(targets: Targets, shift: float) -> tuple[float, float]:
    share = targets.inside.mean()
    logit = (4.0 * share / (1 - share)).log() + shift
    said = output(
        span_logits=logit.expand(4, BARS),
        countdown=(targets.countdown.mean() + shift).expand(4, BARS),
    )
    losses = task_losses(said, targets, CONFIG, pos_weight=4.0)
    return float(losses["span"]), float(losses["countdown"])
