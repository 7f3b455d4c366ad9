"""What weights have seen follows them: into runs that go on with them, and into every test."""

import json
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hrl_sarp.errors import CheckpointError, UsageError
from hrl_sarp.forecasters.api import load_forecaster
from hrl_sarp.forecasters.seen import end_of_day, run_of, seen_by, seen_by_all
from hrl_sarp.forecasters.training.run import hash_of_weights, train_forecaster
from hrl_sarp.run.session import StopFlag
from tests.forecasters.training.test_run import request


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs `toto` and `kronos`."""
    folder = tmp_path_factory.mktemp("runs")
    for model in ("toto", "kronos"):
        train_forecaster(request(model, folder / model), StopFlag())
    return folder


INSIDE = [
    *(".", "model", "model/model.safetensors", "checkpoints/best"),
    "checkpoints/best/model.safetensors",
]


@pytest.mark.parametrize("place", INSIDE)
def test_weights_inside_a_run_have_seen_what_the_run_has(runs: Path, place: str) -> None:
    told = json.loads((runs / "toto" / "forecaster.json").read_text())
    seen = seen_by(runs / "toto" / place, "toto")
    assert str(seen.until) == told["fitted_to"]
    assert seen.symbols == frozenset("AB")
    vintage = load_forecaster(runs / "toto" / place).vintage
    assert vintage.fitted_to == seen.until
    assert vintage.symbols == seen.symbols
    assert not vintage.is_release
    with pytest.raises(UsageError, match=r"--pretrained-until.*forecaster\.json"):
        seen_by_all([runs / "toto" / place], "toto", date(2000, 1, 1))


def test_weights_of_a_run_that_has_not_ended_are_refused(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "toto" / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "checkpoints" / "running.pt").write_bytes(b"state")
    with pytest.raises(CheckpointError, match=r"has ended.*--resume"):
        load_forecaster(tmp_path / "checkpoints" / "best")


def test_published_weights_may_have_seen_the_whole_last_day(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "toto" / "model", tmp_path / "toto")
    assert run_of(tmp_path / "toto") is None
    vintage = load_forecaster(tmp_path / "toto").vintage
    assert vintage.has_seen(np.datetime64("2025-05-31T15:59"))
    assert not vintage.has_seen(np.datetime64("2025-06-01T00:00"))
    told = load_forecaster(tmp_path / "toto", pretrained_until=date(2024, 2, 29)).vintage
    assert told.has_seen(np.datetime64("2024-02-29T23:00"))
    assert not told.has_seen(np.datetime64("2024-03-01"))


def test_a_tokenizer_counts_as_much_as_the_predictor(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "kronos" / "tokenizer" / "model", tmp_path / "tokenizer")
    own, published = runs / "kronos" / "model", tmp_path / "tokenizer"
    both = seen_by_all([own, published], "kronos", None)
    assert both.until == end_of_day("2025-08-31")
    assert both.symbols is None
    alone = seen_by_all([own, runs / "kronos" / "tokenizer"], "kronos", None)
    assert alone.symbols == frozenset("AB")
    told = seen_by_all([own, published], "kronos", date(2019, 1, 1))
    assert told.until == seen_by(own, "kronos").until  # what the run says is later


CHANGED = ["model/model.safetensors", "model/config.json", "tokenizer/model/model.safetensors"]


@pytest.mark.parametrize("name", [*CHANGED, "tokenizer/model/config.json"])
@pytest.mark.parametrize("way", ["changed", "removed"])
def test_files_that_were_changed_after_the_run_are_refused(
    runs: Path, tmp_path: Path, name: str, way: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "kronos", run)
    assert load_forecaster(run).vintage.identity
    if way == "removed":
        (run / name).unlink()
    else:
        content = (run / name).read_bytes()
        other = content.replace(b'"n_heads": 2', b'"n_heads": 1')
        other = other if other != content else content[:-1] + bytes([content[-1] ^ 1])
        (run / name).write_bytes(other)
    with pytest.raises(CheckpointError, match=r"forecaster\.json describes, found"):
        load_forecaster(run)


def test_forecasts_of_other_settings_are_told_apart(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "kronos" / "model", tmp_path / "model")
    train_forecaster(request("kronos-tokenizer", tmp_path / "other", seed=8), StopFlag())
    mine, other = runs / "kronos" / "tokenizer", tmp_path / "other"
    asked = [
        *({"tokenizer": mine}, {"tokenizer": other}, {"tokenizer": mine, "context": 9}),
        {"tokenizer": mine, "n_paths": 7},
    ]
    found = {load_forecaster(tmp_path / "model", **options).vintage.identity for options in asked}
    found |= {
        load_forecaster(runs / "kronos", **options).vintage.identity
        for options in ({}, {"context": 9}, {"n_paths": 7})
    }
    assert len(found) == 7


@pytest.mark.parametrize("asked", ["folder", "index"])
@pytest.mark.parametrize("changed", ["a.safetensors", "b.safetensors", "config.json"])
def test_every_part_of_weights_in_parts_counts_in_their_hash(
    tmp_path: Path, asked: str, changed: str
) -> None:
    index = tmp_path / "model.safetensors.index.json"
    names = {"x": "a.safetensors", "y": "b.safetensors"}
    index.write_text(json.dumps({"weight_map": names}))
    for name, file in names.items():
        save_file({name: torch.zeros(3)}, tmp_path / file)
    (tmp_path / "config.json").write_text("{}")
    save_file({"z": torch.zeros(3)}, tmp_path / "unrelated.safetensors")
    path = tmp_path if asked == "folder" else index
    before = hash_of_weights(path)
    save_file({"z": torch.ones(3)}, tmp_path / "unrelated.safetensors")
    assert hash_of_weights(path) == before
    with (tmp_path / changed).open("ab") as file:
        file.write(b" ")
    assert hash_of_weights(path) != before
