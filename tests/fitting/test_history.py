"""A phase's history: plain numbers, no timings, and TensorBoard files that show each point once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hrl_sarp.fitting.history import STAGE, Axis, History
from hrl_sarp.reporting.curves import meaning
from hrl_sarp.run.files import read_json


def events(folder: Path, tag: str) -> list[tuple[int, float]]:
    """Read back what TensorBoard would draw."""
    reader = EventAccumulator(str(folder / "tensorboard"))
    reader.Reload()
    if tag not in reader.Tags()["scalars"]:
        return []
    return [(event.step, event.value) for event in reader.Scalars(tag)]


def test_rows_hold_plain_numbers_and_no_timings(tmp_path: Path) -> None:
    log = History(tmp_path)
    values: dict[str, Any] = {
        "train/loss": np.float32(0.5),
        "train/n": np.int64(3),
        "time/fps": 100,
        "note": "text",
    }
    log.add(7, values)
    log.close()
    assert log.rows == [{"step": 7, "train/loss": 0.5, "train/n": 3.0}]
    assert {type(value) for value in log.rows[0].values()} == {int, float}


def test_a_resumed_log_rewrites_tensorboard_instead_of_appending(tmp_path: Path) -> None:
    first = History(tmp_path)
    for step in range(3):
        first.add(step, {"loss": float(step)})
    kept = first.rows[:2]  # the checkpoint was written before the last row
    first.close()
    second = History(tmp_path, kept)
    second.add(2, {"loss": 20.0})
    second.close()
    assert events(tmp_path, "loss") == [(0, 0.0), (1, 1.0), (2, 20.0)]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_a_new_log_forgets_the_files_of_an_older_run(tmp_path: Path) -> None:
    first = History(tmp_path)
    first.add(0, {"old": 1.0})
    first.close()
    History(tmp_path).close()
    assert events(tmp_path, "old") == []


def test_the_given_history_is_not_written_into(tmp_path: Path) -> None:
    given: list[dict[str, Any]] = [{"step": 0, "loss": 1.0}]
    log = History(tmp_path, given)
    log.add(1, {"loss": 2.0})
    log.close()
    assert given == [{"step": 0, "loss": 1.0}]


def test_the_offset_shifts_later_steps(tmp_path: Path) -> None:
    log = History(tmp_path)
    log.offset = 100
    log.add(5, {"loss": 1.0})
    log.close()
    assert log.rows[0]["step"] == 105
    assert events(tmp_path, "loss") == [(105, 1.0)]


def test_every_row_of_a_stage_says_which(tmp_path: Path) -> None:
    log = History(tmp_path)
    for stage in (None, 0, 1):
        log.stage = stage
        log.add(0, {"loss": 1.0})
    log.close()
    assert [row.get(STAGE) for row in log.rows] == [None, 0.0, 1.0]
    assert [value for _, value in events(tmp_path, STAGE)] == [0.0, 1.0]


def test_the_file_holds_summary_and_history(tmp_path: Path) -> None:
    log = History(tmp_path)
    log.add(0, {"loss": 1.0, "odd": float("nan")})
    path = log.write(tmp_path / "metrics.json", {"phase": 3})
    log.close()
    found = read_json(path, "hrl-sarp train")
    assert found == {"phase": 3, "history": [{"step": 0, "loss": 1.0, "odd": None}]}


def test_a_prefix_stands_before_names_only(tmp_path: Path) -> None:
    log = History(prefix="pretrain")
    log.add(0, {"loss": 1.0})
    path = log.write(tmp_path / "metrics.json", {})
    assert json.loads(path.read_text())["history"] == [{"step": 0, "pretrain/loss": 1.0}]
    assert list(tmp_path.iterdir()) == [path]  # without a folder no TensorBoard files


def test_tensorboard_counts_decisions_and_says_what_a_curve_means(tmp_path: Path) -> None:
    log = History(tmp_path, prefix="pretrain", axis=Axis.of_epochs(1000, decisions=52))
    log.add(-1, {"total_loss": 1.0})
    log.add(0, {"total_loss": 0.5})
    log.close()
    assert [row["decisions"] for row in log.rows] == [1000, 1052]
    assert events(tmp_path, "pretrain/total_loss") == [(1000, 1.0), (1052, 0.5)]
    reader = EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    shown = reader.SummaryMetadata("pretrain/total_loss").summary_description
    assert shown == meaning("pretrain/total_loss") != ""
