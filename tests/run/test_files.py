"""Atomic writes, JSON and hashes."""

import json
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import hrl_sarp
from hrl_sarp.errors import DataError, MissingArtifactError, StorageError
from hrl_sarp.run import files
from hrl_sarp.run.files import (
    atomic_path,
    link_beside,
    read_json,
    remove_unfinished,
    replace_block,
    sha256_file,
    sha256_plain,
    source_hash,
    write_bytes,
    write_json,
    write_table,
    write_text,
)
from tests.limits import largest_file


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
    assert read_json(path, "hrl-sarp report") == {
        "count": 3,
        "loss": None,
        "rates": [0.5, None],
        "day": "2020-01-02",
        "file": "a/b",
    }


@pytest.mark.parametrize(
    ("found", "changed"),
    [
        ('"b": 2', '"b": 3'),
        ('"a"', '"x"'),
        ('": "', '": "0'),
        ('2,\n  "checksum', '3,\n  "checjsum'),
    ],
)
def test_json_that_was_changed_is_refused(tmp_path: Path, found: str, changed: str) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"a": [1.5, None], "b": 2})
    text = path.read_text()
    assert found in text
    path.write_text(text.replace(found, changed))
    with pytest.raises(DataError, match=r"metrics\.json: .*checksum"):
        read_json(path, "hrl-sarp train")


@pytest.mark.parametrize(
    ("old", "new"),
    [('2,\n  "checksum"', '3,\n  "ch"'), ('"checksum": "', '"checkss": 60, "sha256": "')],
)
def test_a_checksum_that_lost_its_name_is_one(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"rows": 2})
    text = path.read_text()
    path.write_text(text.replace('"checksum"', '"ch"'))
    assert read_json(path, "train") == {"rows": 2}
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=r"metrics\.json: .*checksum"):
        read_json(path, "train")


def test_json_may_be_laid_out_anew_and_needs_no_checksum(tmp_path: Path) -> None:
    path, content = tmp_path / "metrics.json", {"a": [1.5, None], "b": {"c": 2}}
    write_json(path, content)
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert read_json(path, "-") == content
    path.write_text(path.read_text().replace("checksum", "chfcksum"))
    assert read_json(path, "-") == content
    for other in (
        content,
        {"weights_sha256": 64 * "a"},
        [1, 2],
        {},
        "text",
    ):  # of an earlier version, or another program
        path.write_text(json.dumps(other))
        assert read_json(path, "-") == other


def test_a_link_beside_shows_the_file_that_it_names(tmp_path: Path) -> None:
    write_text(tmp_path / "best.txt", "first")
    link_beside(tmp_path / "top.txt", "best.txt")
    write_text(tmp_path / "best.txt", "second")
    link_beside(tmp_path / "top.txt", "best.txt")
    assert (tmp_path / "top.txt").read_text() == "second"
    assert (tmp_path / "top.txt").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.txt", "top.txt"]


def test_missing_json_names_the_file_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match=r"metrics\.json.*hrl-sarp train"):
        read_json(tmp_path / "metrics.json", "hrl-sarp train")


def test_broken_json_is_a_data_error_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"a": 1})[:-2])
    with pytest.raises(DataError, match=r"metrics\.json: expected JSON") as caught:
        read_json(path, "hrl-sarp train")
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


def test_temporary_files_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    # The child dies by SIGKILL while it writes, so it cannot tidy up.
    child = (
        "import os, signal, sys, pathlib\n"
        "from hrl_sarp.run.files import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    target = tmp_path / "phase" / "running.pt"
    command = [sys.executable, "-c", child, str(target)]
    ended = subprocess.run(command, cwd=Path(hrl_sarp.__file__).parents[1], check=False)  # noqa: S603 -- our own text
    assert ended.returncode == -signal.SIGKILL
    (left,) = target.parent.iterdir()
    others = [
        target,
        target.parent / ".hidden",
        target.parent / "x.tmp.pt",
        tmp_path / ".a.abcdefgh.tmp",
    ]
    for path in others:
        path.touch()
    assert remove_unfinished(tmp_path) == [left]
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(others)


def test_a_temporary_file_in_use_is_not_removed(tmp_path: Path) -> None:
    target = tmp_path / "running.pt"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert remove_unfinished(tmp_path) == []
    assert target.read_text() == "new"


def test_a_file_too_large_for_the_disk_is_refused_and_the_old_one_kept(tmp_path: Path) -> None:
    target = tmp_path / "table.parquet"
    rows = np.random.default_rng(0).random(100_000)  # 800 kB that do not compress
    write_table(target, pl.DataFrame({"x": rows[:10]}))
    before = target.read_bytes()
    writers = [
        lambda: write_bytes(target, rows.tobytes()),
        lambda: write_table(target, pl.DataFrame({"x": rows})),
    ]
    for write in writers:
        with largest_file(100_000), pytest.raises(StorageError, match=r"cannot write .*MB free"):
            write()
        assert target.read_bytes() == before
        assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    with pytest.raises(StorageError, match="choose another folder"):
        write_text(tmp_path / "logs" / "metrics.json", "x")


def test_source_hash_changes_with_a_module_and_counts_whole_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one/a.py", "one/inner/b.py", "two.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(files, "PACKAGE", tmp_path)
    of = source_hash.__wrapped__  # what is remembered would hide a change
    before = of("one", "two.py")
    assert of("one", "two.py") == before
    for name in ("one/inner/b.py", "two.py"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_text("other")
        assert of("one", "two.py") != before
        (tmp_path / name).write_text(text)
    (tmp_path / "one/a.py").rename(tmp_path / "one/c.py")
    assert of("one", "two.py") != before


def test_hash_of_plain_values_does_not_depend_on_the_order_of_keys() -> None:
    assert sha256_plain({"a": 1, "b": [2]}) == sha256_plain({"b": [2], "a": 1})
    assert sha256_plain({"a": 1}) != sha256_plain({"a": 2})
