"""Atomic writes, JSON and hashes."""

import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.artifacts import (
    atomic_path,
    read_json,
    replace_block,
    sha256_file,
    write_json,
    write_text,
)
from hrl_sarp.errors import DataError, MissingArtifactError


def test_failed_write_keeps_the_old_file_and_leaves_no_temporary(tmp_path: Path) -> None:
    target = tmp_path / "table.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError, match="stop"):
        _write_half_of(target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["table.txt"]


def _write_half_of(target: Path) -> None:
    with atomic_path(target) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError("stop")


def test_write_makes_missing_folders_and_replaces_the_content(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "table.txt"
    write_text(target, "old")
    write_text(target, "new")
    assert target.read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["table.txt"]


def test_temporary_file_keeps_the_suffix_that_writers_choose_a_format_by(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "table.npz") as temporary:
        assert temporary.suffix == ".npz"
        np.savez(temporary, x=np.arange(3))
    assert np.load(tmp_path / "table.npz")["x"].tolist() == [0, 1, 2]


def test_json_holds_plain_values_and_null_for_nan(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_json(
        path,
        {
            "count": np.int64(3),
            "loss": float("nan"),
            "rates": np.array([0.5, np.inf]),
            "day": date(2020, 1, 2),
            "file": Path("a/b"),
        },
    )
    assert read_json(path, "python main.py report") == {
        "count": 3,
        "loss": None,
        "rates": [0.5, None],
        "day": "2020-01-02",
        "file": "a/b",
    }


def test_missing_json_names_the_file_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match=r"metrics\.json.*python main\.py train"):
        read_json(tmp_path / "metrics.json", "python main.py train")


def test_broken_json_is_a_data_error_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"a": 1})[:-2])
    with pytest.raises(DataError, match=r"metrics\.json: expected JSON") as caught:
        read_json(path, "python main.py train")
    assert "\n" not in str(caught.value)


def test_sha256_of_abc_is_the_published_value(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "abc")
    # FIPS 180-4 example
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "x") == expected


def test_replace_block_changes_only_what_stands_between_the_markers(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    replace_block(path, "results", "new\n")
    expected = "before\n<!-- results -->\nnew\n<!-- /results -->\nafter\n"
    assert path.read_text() == expected


def test_replace_block_without_markers_changes_nothing_and_says_what_to_add(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("no block here\n")
    with pytest.raises(MissingArtifactError, match="add both lines"):
        replace_block(path, "results", "new")
    assert path.read_text() == "no block here\n"
