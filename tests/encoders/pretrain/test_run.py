"""Files of a pretraining run: epochs that stay, what a fresh start forgets, what is refused."""

from pathlib import Path
from typing import Any

import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.encoders.pretrain.prepare import prepare_bars
from hrl_sarp.encoders.pretrain.run import keep_epoch, loss_panel, pretrain_encoder
from hrl_sarp.encoders.pretrain.task import pretrain
from hrl_sarp.errors import CheckpointError
from hrl_sarp.fitting import World
from hrl_sarp.run.checkpoints import load_payload, save_payload
from hrl_sarp.run.files import read_json
from hrl_sarp.run.session import StopFlag
from tests.encoders.bar_files import write_bars, write_config
from tests.encoders.masked_windows import CPU, autoregressive, run, settings, small_jade, table
from tests.fitting.kills import assert_kills_change_nothing

LATEST = "checkpoint_latest.pt"


def payload(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "model_state_dict": {}, "optimizer_state_dict": {}, "metrics": {}}


def epochs_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint_epoch*"))


def pretrain_in(folder: Path, *, resume: bool, **changes: Any) -> None:
    """Pretrain Jade on a small file of bars; a state is written at every batch."""
    given = {"curriculum": {"checkpoint_seconds": 0.0}, **changes}
    config = load_config(own_file=write_config(folder.parent), overrides=given)
    data = write_bars(folder.parent)
    prepared = prepare_bars(data, None, folder, config, resume=resume)
    pretrain_encoder(prepared, World.alone(CPU), StopFlag())


def outcome(folder: Path) -> dict[str, Any]:
    """Read weights, measures and the names of the epochs that were kept."""
    results = read_json(folder / "training_results.json", "-")
    names = ("test_metrics", "best_epoch_val_metrics", "best_epoch", "best_val_loss")
    best = load_payload(folder / "checkpoint_best.pt")
    return {
        "weights": best["model_state_dict"],
        "results": {name: results[name] for name in names},
        "export": (folder / "encoder.safetensors").read_bytes(),
        "epochs": epochs_of(folder),
    }


def test_best_epochs_are_kept_and_others_removed(tmp_path: Path) -> None:
    losses = [0.5, 0.3, 0.4, 0.45]
    for epoch in range(4):
        said, is_best = {"kind": "a run"}, epoch in (0, 1)
        keep_epoch(tmp_path, said, 2, payload(epoch), losses[: epoch + 1], is_best)
    assert epochs_of(tmp_path) == [
        "checkpoint_epoch_1_loss_0.300000.pt",
        "checkpoint_epoch_2_loss_0.400000.pt",
    ]
    assert load_payload(tmp_path / "checkpoint_best.pt")["epoch"] == 1


def test_run_that_is_killed_at_random_batches_leaves_the_same_files(tmp_path: Path) -> None:
    assert_kills_change_nothing(pretrain_in, outcome, tmp_path, seed=3)


def test_fresh_start_forgets_the_run_before(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for name in (LATEST, "checkpoint_best.pt", "checkpoint_epoch_7_loss_0.1.pt"):
        save_payload(folder / name, {"kind": "an older run"})
    (folder / "notes.txt").write_text("mine")
    pretrain_in(folder, resume=False)
    assert load_payload(folder / LATEST)["kind"] == "encoder pretraining"
    assert "checkpoint_epoch_7_loss_0.1.pt" not in epochs_of(folder)
    assert (folder / "notes.txt").is_file()


@pytest.mark.parametrize(
    ("changes", "mentioned"),
    [
        ({"seed": 3}, "seed: 0 there, 3 here"),
        ({"encoders": {"jade": {"hidden": 16}}}, "sizes: hidden 8 there, 16 here"),
        ({"encoders": {"pretraining": {"epochs": 2}}}, "pretraining: epochs 3 there, 2 here"),
    ],
)
def test_state_of_another_run_is_refused(
    tmp_path: Path, changes: dict[str, Any], mentioned: str
) -> None:
    folder = tmp_path / "run"
    pretrain_in(folder, resume=False)
    with pytest.raises(CheckpointError, match=mentioned):
        pretrain_in(folder, resume=True, **changes)
    assert (folder / LATEST).is_file()


def test_truncated_state_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    pretrain_in(folder, resume=False)
    (folder / LATEST).write_bytes((folder / LATEST).read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="truncated"):
        pretrain_in(folder, resume=True)


def test_figure_shows_both_losses_and_every_baseline() -> None:
    data = table(autoregressive, train=16, validation=8, test=0)
    result = pretrain(small_jade(), data, run(settings(epochs=3, batch_size=8)))
    panel = loss_panel(result)
    assert panel.curves["validation"][1] == [row["val_loss"] for row in result.val_metrics]
    assert panel.curves["training"][1] == [row["train_loss"] for row in result.train_metrics]
    assert panel.levels == {
        name: result.validation[name].loss
        for name in ("mean", "previous bar", "linear interpolation")
    }
    assert panel.best == result.best_epoch
    assert "Huber loss" in panel.y_label
