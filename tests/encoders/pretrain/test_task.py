import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hrl_sarp.config.encoder_schema import PretrainingConfig
from hrl_sarp.encoders.pretrain.reconstruction import MaskRule
from hrl_sarp.encoders.pretrain.task import MODEL, course, pretrain
from hrl_sarp.errors import DataError, StoppedEarly, TrainingDivergedError
from hrl_sarp.fitting import RunState
from hrl_sarp.run.checkpoints import load_payload, save_payload
from tests.encoders.masked_windows import (
    FEATURES,
    LENGTH,
    RULE,
    StopAfter,
    autoregressive,
    noise,
    run,
    settings,
    small_jade,
    table,
)
from tests.fitting.kills import assert_kills_change_nothing

QUICK = {"epochs": 6, "batch_size": 32, "learning_rate": 5e-3, "warmup_epochs": 1}


class Kept:
    """Remembers which epochs were handed over to be kept."""

    def __init__(self) -> None:
        self.epochs: list[tuple[int, bool]] = []

    def __call__(self, payload: dict[str, Any], val_losses: list[float], is_best: bool) -> None:  # noqa: FBT001 -- called by position
        assert len(val_losses) == payload["epoch"] + 1
        self.epochs.append((payload["epoch"], is_best))


def state(folder: Path, *, resume: bool = True) -> RunState:
    return RunState(folder, "pretraining", {"seed": 17}, resume)


class Seeing(nn.Module):
    """The described defect: the encoder reads the bars that it is to rebuild."""

    def __init__(self) -> None:
        super().__init__()
        self.autoencoder = small_jade(hidden=16)

    def forward(self, x: Tensor, masked: Tensor) -> Tensor:
        seen: Tensor = self.autoencoder(x, torch.zeros_like(masked))
        return seen


def test_learning_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    config = settings(epochs=9, warmup_epochs=5, learning_rate=1e-3, final_learning_rate_share=0.1)
    rates = [course(config, 0.0).rate(epoch) for epoch in range(9)]
    # half way down the cosine (epoch 6 of 5..8) is the middle of 1 and 0.1
    middle, last = 0.55e-3, 0.1e-3
    assert rates[:5] == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3])
    assert (rates[6], rates[8]) == pytest.approx((middle, last))
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_course_that_ends_within_the_rise_has_a_rate() -> None:
    assert course(settings(epochs=2, warmup_epochs=5), 0.0).rate(1) == pytest.approx(0.4e-3)


def test_on_noise_the_error_stays_at_that_of_the_mean() -> None:
    data = table(noise, train=768, validation=512, test=512)
    test = pretrain(small_jade(hidden=16), data, run(settings(**QUICK))).test
    assert test[MODEL].loss >= 0.98 * test["mean"].loss
    assert test[MODEL].loss <= 1.05 * test["mean"].loss  # it has not blown up either


def test_on_noise_a_model_that_sees_hidden_bars_is_found_out() -> None:
    data = table(noise, train=768, validation=512, test=512)
    test = pretrain(Seeing(), data, run(settings(**QUICK))).test
    assert test[MODEL].loss < 0.5 * test["mean"].loss


def test_planted_dependence_is_learned() -> None:
    data = table(autoregressive, train=768, validation=256, test=256)
    result = pretrain(small_jade(hidden=16), data, run(settings(**QUICK)))
    # neighbours on both sides leave (1 - 0.81) / (1 + 0.81) = 0.105 of the variance
    assert result.test[MODEL].loss < 0.35 * result.test["mean"].loss
    assert float(result.test[MODEL].squared.mean()) > 0.105 * 0.9
    assert result.validation[MODEL].loss == pytest.approx(result.best_val_loss)


def test_one_batch_is_fitted() -> None:
    data = table(noise, train=4, validation=4, test=0)
    rule = MaskRule("block", 0.25, 16, 3)  # usable are 4 bars: the hidden one changes each epoch
    config = settings(epochs=120, batch_size=4, learning_rate=1e-2, warmup_epochs=0, patience=200)
    result = pretrain(small_jade(hidden=24, dropout=0.0), data, run(config, rule=rule))
    first, last = (result.train_metrics[i]["train_loss"] for i in (0, -1))
    assert last < 0.1 * first
    assert result.test == {}


def test_course_without_a_rise_begins_to_fall_at_once() -> None:
    config = settings(epochs=2, warmup_epochs=0, learning_rate=1.0, final_learning_rate_share=0.0)
    assert [course(config, 0.0).rate(epoch) for epoch in range(2)] == pytest.approx([0.5, 0.0])


def test_best_epoch_is_handed_back_and_patience_ends_the_course(tmp_path: Path) -> None:
    data = table(noise, train=32, validation=32)
    kept, module = Kept(), small_jade()
    config = settings(epochs=40, batch_size=8, learning_rate=2e-2, warmup_epochs=0, patience=3)
    result = pretrain(module, data, run(config, state=state(tmp_path), keep=kept))
    losses = [row["val_loss"] for row in result.val_metrics]
    assert len(losses) == result.best_epoch + 1 + 3 < 40
    assert result.best_val_loss == min(losses) == losses[result.best_epoch]
    assert [epoch for epoch, is_best in kept.epochs if is_best][-1] == result.best_epoch
    assert result.validation[MODEL].loss == pytest.approx(result.best_val_loss)
    for name, weights in load_payload(tmp_path / "running.pt")["progress"]["best_state"].items():
        assert torch.equal(module.state_dict()[name], weights)


def test_gain_below_min_delta_does_not_count() -> None:
    data = table(autoregressive, train=32, validation=32)
    config = settings(**QUICK, patience=2, min_delta=10.0)
    result = pretrain(small_jade(), data, run(config))
    # the first epoch counts whatever it gives: nothing was known before
    assert (result.best_epoch, len(result.val_metrics)) == (0, 3)


def train_and_write(folder: Path, *, resume: bool) -> None:
    """Pretrain with dropout, a state at every batch, and leave weights and metrics."""
    data = table(autoregressive, train=24, validation=16)
    module = small_jade(dropout=0.3)
    torch.manual_seed(99)  # whatever was drawn before must not matter
    config = settings(epochs=3, batch_size=8, learning_rate=5e-3, warmup_epochs=1)
    result = pretrain(module, data, run(config, state=state(folder, resume=resume)))
    losses = [row["train_loss"] for row in result.train_metrics]
    losses += [row["val_loss"] for row in result.val_metrics]
    save_payload(
        folder / "end.pt", {"kind": "end", "weights": module.state_dict(), "losses": losses}
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_run_that_is_killed_at_random_batches_ends_in_the_same_weights(
    tmp_path: Path, seed: int
) -> None:
    assert_kills_change_nothing(
        train_and_write, lambda folder: load_payload(folder / "end.pt"), tmp_path, seed
    )


@pytest.mark.parametrize("reads", [1, 2, 4, 5, 9, 13])
def test_run_that_is_stopped_anywhere_continues_to_the_same_weights(
    tmp_path: Path, reads: int
) -> None:
    # 3 batches an epoch; the flag is read after each of them and after each of 2 validation blocks
    data = table(autoregressive, train=24, validation=16)
    config = settings(epochs=3, batch_size=8, learning_rate=5e-3, warmup_epochs=1)
    whole, fresh = small_jade(dropout=0.3), small_jade(dropout=0.3)
    expected = pretrain(whole, data, run(config))
    with pytest.raises(StoppedEarly):
        pretrain(
            small_jade(dropout=0.3),
            data,
            run(config, stop=StopAfter(reads), state=state(tmp_path)),
        )
    result = pretrain(fresh, data, run(config, state=state(tmp_path)))
    for name, weights in whole.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], weights), name
    for found, wanted in (
        (result.val_metrics, expected.val_metrics),
        (result.train_metrics, expected.train_metrics),
    ):
        assert without_time(found) == without_time(wanted)


def without_time(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: row[name] for name in row if name != "epoch_time"} for row in rows]


def test_finished_run_that_is_resumed_gives_its_result_again(tmp_path: Path) -> None:
    data = table(autoregressive, train=16, validation=16)
    config = settings(epochs=2, batch_size=8)
    first = pretrain(small_jade(), data, run(config, state=state(tmp_path)))
    again = pretrain(small_jade(), data, run(config, state=state(tmp_path)))
    assert again.test[MODEL].loss == first.test[MODEL].loss
    assert again.train_metrics == first.train_metrics


def test_loss_that_is_not_finite_ends_the_run_and_names_epoch_and_batch(tmp_path: Path) -> None:
    data = table(noise, train=24, validation=16)
    module = small_jade(dropout=0.0)
    config = settings(epochs=3, batch_size=8)

    class BreaksLater(nn.Module):
        """Gives NaN from the fifth training batch on: epoch 1, batch 1."""

        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = module, 0

        def forward(self, x: Tensor, masked: Tensor) -> Tensor:
            self.calls += int(self.training)
            rebuilt: Tensor = self.inner(x, masked)
            return rebuilt * math.nan if self.calls == 5 else rebuilt

    with pytest.raises(
        TrainingDivergedError, match="loss is nan at epoch 1, batch 1, of windows from row"
    ):
        pretrain(BreaksLater(), data, run(config, state=state(tmp_path)))
    latest = load_payload(tmp_path / "running.pt")
    # what came before is kept, nothing after it
    assert (latest["progress"]["epoch"], latest["progress"]["batch"]) == (1, 1)
    assert all(torch.isfinite(weights).all() for weights in latest["module"].values())


def test_validation_that_is_not_finite_ends_the_run() -> None:
    data = table(noise, train=16, validation=16)
    data.table[16 * LENGTH + 10] = math.nan
    kept = Kept()
    with pytest.raises(TrainingDivergedError, match="validation loss is nan at epoch 0"):
        pretrain(small_jade(), data, run(settings(epochs=1, batch_size=8), keep=kept))
    assert kept.epochs == []


@pytest.mark.parametrize(("split", "named"), [("train", "training"), ("validation",) * 2])
def test_split_without_windows_is_refused(split: str, named: str) -> None:
    data = table(noise, train=8, validation=8)
    data = replace(data, **{split: getattr(data, split)[:0]})
    with pytest.raises(DataError, match=f"windows in the {named} split"):
        pretrain(small_jade(), data, run(settings(epochs=1, batch_size=8)))


def test_dropout_and_masks_do_not_depend_on_what_was_drawn_before() -> None:
    data = table(autoregressive, train=16, validation=16)
    config: PretrainingConfig = settings(epochs=1, batch_size=8)
    losses = []
    for seed in (1, 2):
        module = small_jade(dropout=0.5)
        torch.manual_seed(seed)
        losses.append(pretrain(module, data, run(config)).best_val_loss)
    assert losses[0] == losses[1]


def test_small_table_is_what_the_tests_say() -> None:
    data = table(noise, train=2, validation=1, test=1)
    assert (data.n_features, data.length, RULE.count(LENGTH)) == (FEATURES, LENGTH, 4)
    assert (data.train.tolist(), data.test.tolist()) == ([0, 20], [60])
