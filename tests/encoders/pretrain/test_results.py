from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hrl_sarp.encoders.pretrain.results import PretrainingFolder, loss_curve
from hrl_sarp.encoders.pretrain.run import PretrainingResult
from hrl_sarp.encoders.pretrain.task import pretrain
from hrl_sarp.errors import CheckpointError
from hrl_sarp.run.checkpoints import load_payload, save_payload
from tests.encoders.masked_windows import autoregressive, run, settings, small_jade, table

IDENTITY = {"pretraining": {"epochs": 3, "batch_size": 8}, "data": "abc", "seed": 17}
FACTS: dict[str, Any] = {"config": {}, "windowed_config": {}, "seed": 17, "encoder": {}}
CONFIG = settings(epochs=3, batch_size=8)


@pytest.fixture
def folder(tmp_path: Path) -> PretrainingFolder:
    return PretrainingFolder(tmp_path, IDENTITY, FACTS, save_top_k=2, resume=True)


def payload(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "model_state_dict": {}, "optimizer_state_dict": {}, "metrics": {}}


def epochs_of(folder: PretrainingFolder) -> list[str]:
    return sorted(path.name for path in folder.path.glob("checkpoint_epoch*"))


def test_best_epochs_are_kept_and_others_removed(folder: PretrainingFolder) -> None:
    losses = [0.5, 0.3, 0.4, 0.45]
    for epoch in range(4):
        folder.save_epoch(payload(epoch), losses[: epoch + 1], is_best=epoch in (0, 1))
    assert epochs_of(folder) == [
        "checkpoint_epoch_1_loss_0.300000.pt",
        "checkpoint_epoch_2_loss_0.400000.pt",
    ]
    assert load_payload(folder.path / "checkpoint_best.pt")["epoch"] == 1


def test_fresh_start_forgets_the_run_before(folder: PretrainingFolder) -> None:
    folder.save_epoch(payload(0), [0.5], is_best=True)
    folder.save_latest(payload(0))
    (folder.path / "notes.txt").write_text("mine")
    assert replace(folder, resume=False).load() is None
    assert [path.name for path in folder.path.iterdir()] == ["notes.txt"]


def test_resume_without_a_state_begins_anew(folder: PretrainingFolder) -> None:
    assert folder.load() is None


@pytest.mark.parametrize(
    ("changes", "mentioned"),
    [
        ({"data": "xyz"}, 'data: "abc" there, "xyz" here'),
        ({"seed": 3}, "seed: 17 there, 3 here"),
        (
            {"pretraining": {"epochs": 5, "batch_size": 8}},
            "pretraining: epochs 3 there, 5 here; resume",
        ),
    ],
)
def test_state_of_another_run_is_refused(
    folder: PretrainingFolder, changes: dict[str, Any], mentioned: str
) -> None:
    folder.save_latest(payload(0))
    other = replace(folder, identity=IDENTITY | changes)
    with pytest.raises(CheckpointError, match=mentioned):
        other.load()
    assert (folder.path / "checkpoint_latest.pt").is_file()


def test_checkpoint_of_something_else_is_refused(folder: PretrainingFolder) -> None:
    save_payload(folder.path / "checkpoint_latest.pt", {"kind": "phase 3"})
    with pytest.raises(CheckpointError, match="found phase 3"):
        folder.load()


def test_truncated_state_is_refused(folder: PretrainingFolder) -> None:
    folder.save_latest(payload(0))
    path = folder.path / "checkpoint_latest.pt"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="truncated"):
        folder.load()


def test_state_of_other_shapes_is_refused_in_one_line(folder: PretrainingFolder) -> None:
    data = table(autoregressive, train=16, validation=8, test=0)
    pretrain(small_jade(), data, run(CONFIG, store=folder))
    with pytest.raises(CheckpointError, match=r"checkpoint_latest\.pt: .*") as caught:
        pretrain(small_jade(hidden=8), data, run(CONFIG, store=folder))
    assert "\n" not in str(caught.value)


class KilledError(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


@pytest.mark.parametrize("writes", range(1, 9))
def test_run_that_is_killed_between_two_writes_continues_to_the_same_weights(
    folder: PretrainingFolder, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """An epoch writes up to three files: its own, the best and the latest."""
    data = table(autoregressive, train=16, validation=8, test=0)
    expected = small_jade()
    pretrain(expected, data, run(CONFIG, store=replace(folder, path=folder.path / "whole")))
    done = 0

    def save_and_die(path: Path, content: dict[str, Any]) -> Path:
        nonlocal done
        save_payload(path, content)
        done += 1
        if done == writes:
            raise KilledError
        return path

    with monkeypatch.context() as patched:
        patched.setattr("hrl_sarp.encoders.pretrain.results.save_payload", save_and_die)
        with pytest.raises(KilledError):
            pretrain(small_jade(), data, run(CONFIG, store=folder))
    resumed = small_jade()
    pretrain(resumed, data, run(CONFIG, store=folder))
    for name, weights in expected.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weights), name
    whole = replace(folder, path=folder.path / "whole")
    assert epochs_of(folder) == epochs_of(whole)


def curve_result() -> PretrainingResult:
    data = table(autoregressive, train=16, validation=8, test=0)
    return pretrain(small_jade(), data, run(CONFIG))


def test_curve_shows_both_losses_and_every_baseline() -> None:
    result = curve_result()
    axes = loss_curve(result).axes[0]
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert list(lines["validation"]) == [row["val_loss"] for row in result.val_metrics]
    assert list(lines["training"]) == [row["train_loss"] for row in result.train_metrics]
    for name in ("mean", "previous bar", "linear interpolation"):
        assert set(lines[name]) == {result.validation[name].loss}
    assert axes.get_xlabel() == "epoch"
    assert "Huber loss" in axes.get_ylabel()
