"""Targets and losses by hand; the task learns what can be learned and keeps what is frozen."""

import math

import numpy as np
import pytest
import torch

from hrl_sarp.errors import TrainingDivergedError
from hrl_sarp.fitting import Epoch, Fit, Schedule, World
from hrl_sarp.price_action.expansions import task as task_module
from hrl_sarp.price_action.expansions.measures import span_scores
from hrl_sarp.price_action.expansions.model import TASKS, JadeMultiTask, MultiTaskOutput
from hrl_sarp.price_action.expansions.task import (
    ExpansionTask,
    Targets,
    balanced_weight,
    constant_losses,
    make_targets,
    task_losses,
    weighted_total,
)
from hrl_sarp.price_action.expansions.windows import GroupSplit, LabelledWindows, window_features
from hrl_sarp.run.session import StopFlag, cpu_has_bfloat16
from tests.price_action.expansions.labelled_factories import labelled, small_config

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


@pytest.fixture(scope="module")
def some_windows() -> LabelledWindows:
    return labelled(16)


def taught(
    windows: LabelledWindows,
    hidden: int = 4,
    layers: int = 1,
    *,
    is_frozen: bool = False,
    dropout: float = 0.3,
    **finetuning: object,
) -> ExpansionTask:
    """Return a task whose training and validation windows are the same."""
    config = small_config(dropout=dropout, **finetuning)
    settings = config.encoders.finetuning
    columns = settings.variants["position"].features
    inputs = window_features(windows.ohlc, columns, config.windowed.feature_config)
    inputs = (inputs - inputs.mean(axis=(0, 1))) / (inputs.std(axis=(0, 1)) + 1e-6)
    targets = make_targets(windows, settings.countdown_bars)
    rows = np.arange(len(windows))
    torch.manual_seed(1)
    jade = config.encoders.jade.model_copy(update={"hidden": hidden, "layers": layers})
    model = JadeMultiTask(len(columns), jade, TASKS, dropout)
    return ExpansionTask(
        model,
        torch.from_numpy(inputs),
        targets,
        GroupSplit(rows, rows, rows[:0]),
        settings,
        balanced_weight(targets.inside),
        is_frozen=is_frozen,
    )


def fit(task: ExpansionTask, epochs: int, learning_rate: float = 0.005) -> list[Epoch]:
    schedule = Schedule(
        epochs=epochs,
        patience=epochs,
        batch_size=16,
        learning_rate=learning_rate,
        weight_decay=0.01,
        max_grad_norm=1.0,
        checkpoint_seconds=60.0,
    )
    seen: list[Epoch] = []
    world = World.alone(torch.device("cpu"))
    Fit(task, schedule, None, 5, StopFlag(), world, on_epoch=seen.append).run()
    return seen


def test_model_that_is_large_enough_learns_sixteen_windows_by_heart(
    some_windows: LabelledWindows,
) -> None:
    task = taught(some_windows, 24, dropout=0.0)
    epochs = fit(task, 90, 0.02)
    last, found = task.look_at(task.train_rows)
    chance = constant_losses(task.targets, task.config, task.pos_weight)
    assert set(last) == set(TASKS)
    for name, loss in last.items():
        first = epochs[0].measures[f"val_{name}"]
        assert loss < 0.5 * min(first, chance[name]), (name, loss, first)
    assert found.inside is not None
    assert span_scores(found.inside, task.targets.inside.numpy() > 0)["span_f1"] > 0.9


def test_the_plain_sum_of_losses_chooses_the_epoch(some_windows: LabelledWindows) -> None:
    task = taught(some_windows)
    loss, measures = task.validate()
    assert set(measures) == {f"val_{name}" for name in TASKS}
    assert loss == pytest.approx(sum(measures.values()))
    assert task.found.inside is not None
    assert task.found.inside.shape == some_windows.ohlc.shape[:2]


def test_frozen_encoder_keeps_its_weights_and_heads_learn(some_windows: LabelledWindows) -> None:
    task = taught(some_windows, is_frozen=True)
    before = {name: weights.clone() for name, weights in task.module.state_dict().items()}
    fit(task, 2)
    for name, weights in task.module.state_dict().items():
        assert torch.equal(before[name], weights) == name.startswith("encoder."), name


def test_frozen_encoder_that_does_not_fit_is_asked_anew_without_dropout(
    some_windows: LabelledWindows, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = taught(some_windows, layers=2, is_frozen=True, dropout=0.0)
    monkeypatch.setattr(task_module, "LARGEST_ENCODED_BYTES", 0)
    asked = taught(some_windows, layers=2, is_frozen=True, dropout=0.0)
    assert kept.encoded is not None
    assert asked.encoded is None
    losses = []
    for task in (kept, asked):
        task.module.train()  # the encoder has dropout between its layers
        losses.append(float(task.loss(task.train_rows, torch.Generator())[0].detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_what_a_frozen_encoder_says_is_kept(some_windows: LabelledWindows) -> None:
    task = taught(some_windows, is_frozen=True)
    kept, _ = task.look_at(task.train_rows)
    fit(task, 2)
    learned, _ = task.look_at(task.train_rows)
    task.encoded = None  # now it is asked anew
    asked, _ = task.look_at(task.train_rows)
    assert learned == pytest.approx(asked, rel=1e-5)
    assert learned != pytest.approx(kept, rel=1e-3)


def test_encoder_waits_for_its_heads_and_then_learns_more_slowly(
    some_windows: LabelledWindows,
) -> None:
    task = taught(some_windows, heads_first_epochs=2, encoder_rate_share=0.1)
    before = {name: weights.clone() for name, weights in task.module.state_dict().items()}
    fit(task, 2)
    waited = {name: weights.clone() for name, weights in task.module.state_dict().items()}
    for name, weights in waited.items():
        assert torch.equal(before[name], weights) == name.startswith("encoder."), name
    assert task.slow_share(1) == 0.0
    assert task.slow_share(2) == 0.1
    fit(task, 3)
    learned = task.module.state_dict()
    moved = [name for name in before if not torch.equal(waited[name], learned[name])]
    assert {name for name in before if name.startswith("encoder.")} <= set(moved)
    # AdamW moves a weight by at most about its rate in each of the few updates
    furthest = max(float((learned[n] - waited[n]).abs().max()) for n in moved if "encoder" in n)
    assert 0 < furthest < 3 * 0.1 * 0.005 * 1.5


def test_what_a_waiting_encoder_said_is_forgotten_once_it_learns(
    some_windows: LabelledWindows,
) -> None:
    task = taught(some_windows, heads_first_epochs=1)
    fit(task, 3)
    learned, _ = task.look_at(task.train_rows)
    task.encoded = None
    asked, _ = task.look_at(task.train_rows)
    assert learned == pytest.approx(asked, rel=1e-6)


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="this processor has no bfloat16")
def test_encoder_in_bfloat16_answers_nearly_the_same_in_float32(
    some_windows: LabelledWindows,
) -> None:
    short, long = (taught(some_windows, cpu_bfloat16=is_short) for is_short in (True, False))
    found = [task.look_at(task.train_rows) for task in (short, long)]
    assert found[0][0] == pytest.approx(found[1][0], rel=0.02)
    assert found[0][0] != found[1][0]
    fit(short, 1)
    assert {weights.dtype for weights in short.module.parameters()} == {torch.float32}


def test_every_weight_of_model_and_tasks_has_a_gradient(some_windows: LabelledWindows) -> None:
    task = taught(some_windows)
    (epoch,) = fit(task, 1)
    assert set(epoch.gradients) == {name for name, _ in task.module.named_parameters()}


def test_tasks_weigh_alike_at_first(some_windows: LabelledWindows) -> None:
    task = taught(some_windows)
    chance = constant_losses(task.targets, task.config, task.pos_weight)
    for name, log_sigma in task.module.log_sigmas().items():
        weighted = chance[name] * float(torch.exp(-2 * log_sigma.detach())) / 2
        assert weighted == pytest.approx(0.5), name


def test_loss_that_is_no_number_names_the_windows(some_windows: LabelledWindows) -> None:
    task = taught(some_windows)
    task.inputs[3, 40, 2] = float("nan")
    with pytest.raises(TrainingDivergedError, match="labelled windows 0 to 15"):
        fit(task, 1)
