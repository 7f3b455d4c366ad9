"""A folder that all processes share is made by one of them, also after one has failed."""

import multiprocessing
from pathlib import Path

import pytest

from tests.made_once import WORKER, made_once


class Factory:
    """Gives each process a folder of its own, side by side, as pytest-xdist does."""

    def __init__(self, base: Path) -> None:
        self.base = base

    def getbasetemp(self) -> Path:
        return self.base


def make(folder: Path) -> None:
    with (folder.parent / "makers").open("a") as makers:
        makers.write("one\n")
    assert list(folder.iterdir()) == []
    (folder / "half").touch()
    if not (folder.parent / "mended").exists():
        (folder.parent / "mended").touch()
        raise OSError("the first one fails")
    (folder / "whole").touch()


def ask(base: Path) -> bool:
    folder = made_once(Factory(base), "thing", make)  # type: ignore[arg-type]
    return (folder / "whole").exists()


def test_one_process_makes_what_all_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKER, "gw0")
    with pytest.raises(OSError, match="the first one fails"):
        ask(tmp_path / "gw0")
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(ask, [tmp_path / f"gw{number}" for number in range(6)]) == [True] * 6
    assert (tmp_path / "makers").read_text().count("one") == 2


def test_without_workers_a_run_keeps_to_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(WORKER, raising=False)
    (tmp_path / "run").mkdir()
    folder = made_once(Factory(tmp_path / "run"), "thing", Path.touch)  # type: ignore[arg-type]
    assert folder.parent == tmp_path / "run"
