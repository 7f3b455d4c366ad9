"""The loop: it learns what can be learned, stops where asked, and freezes what is frozen."""

import numpy as np
import pytest
import torch

from hrl_sarp.errors import StoppedEarly, TrainingDivergedError
from hrl_sarp.price_action.expansions.losses import balanced_weight, constant_losses, make_targets
from hrl_sarp.price_action.expansions.measures import Found, span_scores
from hrl_sarp.price_action.expansions.model import TASKS, JadeMultiTask
from hrl_sarp.price_action.expansions.training import Epoch, MultiTaskTrainer, Taught, TrainingRun
from hrl_sarp.price_action.expansions.windows import LabelledWindows, window_features
from hrl_sarp.run.session import StopFlag
from tests.price_action.expansions.labelled_factories import labelled, small_config


@pytest.fixture(scope="module")
def windows() -> LabelledWindows:
    return labelled(16)


def trainer(
    windows: LabelledWindows, hidden: int = 4, *, is_frozen: bool = False, **settings: float
) -> MultiTaskTrainer:
    config = small_config(**settings)
    finetuning = config.encoders.finetuning
    columns = finetuning.variants["position"].features
    inputs = window_features(windows.ohlc, columns, config.windowed.feature_config)
    inputs = (inputs - inputs.mean(axis=(0, 1))) / (inputs.std(axis=(0, 1)) + 1e-6)
    targets = make_targets(windows, finetuning.countdown_bars)
    rows = torch.arange(len(windows))
    torch.manual_seed(1)
    jade = config.encoders.jade.model_copy(update={"hidden": hidden})
    model = JadeMultiTask(len(columns), jade, TASKS, finetuning.dropout)
    weight = balanced_weight(targets.inside)
    run = TrainingRun(finetuning, 16, weight, is_frozen, 5, StopFlag())
    return MultiTaskTrainer(model, Taught(torch.from_numpy(inputs), targets, rows, rows), run)


def test_model_that_is_large_enough_learns_sixteen_windows_by_heart(
    windows: LabelledWindows,
) -> None:
    learner = trainer(windows, 24, epochs=90, patience=90, dropout=0.0, learning_rate=0.02)
    epochs: list[Epoch] = []
    learner.fit(epochs.append)
    first, (last, found) = epochs[0].val, learner.look_at(learner.data.train)
    chance = constant_losses(learner.data.targets, learner.run.config, learner.run.pos_weight)
    assert set(last) == set(TASKS)
    for task, loss in last.items():
        assert loss < 0.5 * min(first[task], chance[task]), (task, loss, first[task])
    assert found.inside is not None
    inside = learner.data.targets.inside.numpy() > 0
    assert span_scores(found.inside, inside)["span_f1"] > 0.9


def test_best_epoch_is_kept_and_patience_ends_the_run(
    windows: LabelledWindows, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = trainer(windows, epochs=20, patience=2)
    losses = iter([3.0, 2.0, 2.5, 2.0, 1.0])
    states: list[torch.Tensor] = []

    def judged(_: object) -> tuple[dict[str, float], Found]:
        states.append(learner.model.heads["span_head"].weight.detach().clone())
        return {"span": next(losses)}, Found(None, None, None)

    monkeypatch.setattr(learner, "look_at", judged)
    standing = learner.fit()
    # two epochs after the second none was better: an equal loss is not
    assert (standing.epoch, standing.best_epoch, standing.best_loss) == (4, 2, 2.0)
    assert torch.equal(learner.model.heads["span_head"].weight, states[1])


def test_frozen_encoder_keeps_its_weights_and_heads_learn(windows: LabelledWindows) -> None:
    learner = trainer(windows, is_frozen=True, epochs=2)
    before = {name: weights.clone() for name, weights in learner.model.state_dict().items()}
    learner.fit()
    for name, weights in learner.model.state_dict().items():
        assert torch.equal(before[name], weights) == name.startswith("encoder."), name


def test_what_a_frozen_encoder_says_is_kept(windows: LabelledWindows) -> None:
    learner = trainer(windows, is_frozen=True, epochs=2)
    kept, _ = learner.look_at(learner.data.train)
    learner.fit()
    learned, _ = learner.look_at(learner.data.train)
    learner.encoded = None  # now it is asked anew
    asked, _ = learner.look_at(learner.data.train)
    assert learned == pytest.approx(asked, rel=1e-5)
    assert learned != pytest.approx(kept, rel=1e-3)


def test_gradients_are_measured_before_clipping(windows: LabelledWindows) -> None:
    learner = trainer(windows, epochs=1, max_grad_norm=1e-6)
    epochs: list[Epoch] = []
    learner.fit(epochs.append)
    norms = dict(epochs[0].gradients)
    total = norms.pop("total_grad_norm")
    assert set(norms) == {name for name, _ in learner.model.named_parameters()}
    assert total == pytest.approx(np.sqrt(sum(norm**2 for norm in norms.values())))
    assert total > 1e-3


def test_tasks_weigh_alike_at_first(windows: LabelledWindows) -> None:
    learner = trainer(windows)
    run = learner.run
    chance = constant_losses(learner.data.targets, run.config, run.pos_weight)
    for task, log_sigma in learner.model.log_sigmas().items():
        weighted = chance[task] * float(torch.exp(-2 * log_sigma.detach())) / 2
        assert weighted == pytest.approx(0.5), task


def test_stop_is_heard_between_batches(windows: LabelledWindows) -> None:
    learner = trainer(windows, epochs=5)
    learner.run.stop._is_set = True
    with pytest.raises(StoppedEarly):
        learner.fit()
    assert learner.standing.epoch == 0


def test_loss_that_is_no_number_ends_the_run(windows: LabelledWindows) -> None:
    learner = trainer(windows)
    learner.data.inputs[3, 40, 2] = float("nan")
    with pytest.raises(TrainingDivergedError, match="epoch 1"):
        learner.fit()
