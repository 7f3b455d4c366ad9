"""The runner of studies: cells run once, failures are recorded, other settings are refused."""

import json
from pathlib import Path

import pytest

from hrl_sarp.errors import CheckpointError
from hrl_sarp.studies import Cell, run_grid
from tests.studies.small_study import Squares

CELLS = [Cell(setting, seed) for setting in ("plain", "other") for seed in (2, 3)]


def visits(study: Squares, cell: Cell) -> int:
    return len((study.folder / cell.name / "visits.txt").read_text().splitlines())


def test_cells_run_in_processes_of_their_own_and_once(tmp_path: Path) -> None:
    study, cells = Squares(tmp_path / "study"), CELLS[1:3]
    first = run_grid(study, cells, jobs=2)
    again = run_grid(study, cells, jobs=2)
    assert dict(first.found) == dict(again.found)
    assert [first.found[cell]["square"] for cell in cells] == [9, 4]
    assert [visits(study, cell) for cell in cells] == [1, 1]
    assert first.by_seed("other", "square") == {2: 4}
    assert first.settings == ("plain", "other")
    screen = (study.folder / "plain-3" / "screen.log").read_text()
    assert screen == "cell plain-3 runs\n"


def test_a_cell_that_fails_is_recorded_and_the_rest_goes_on(tmp_path: Path) -> None:
    study, refused = Squares(tmp_path / "study"), Cell("refused", 1)
    results = run_grid(study, [refused, CELLS[0]], in_process=True)
    assert set(results.found) == {CELLS[0]}
    assert results.failed == {refused: "DataError: prices.csv, row 3: no close"}


def test_a_process_that_dies_is_recorded_and_the_rest_goes_on(tmp_path: Path) -> None:
    study, crashed = Squares(tmp_path / "study"), Cell("crashed", 1)
    results = run_grid(study, [crashed, CELLS[0]], jobs=1)
    assert set(results.found) == {CELLS[0]}
    assert "exit code 9" in results.failed[crashed]


def test_a_failed_cell_is_tried_again(tmp_path: Path) -> None:
    study, bad = Squares(tmp_path / "study"), Cell("refused", 1)
    for _ in range(2):
        run_grid(study, [bad], in_process=True)
    assert visits(study, bad) == 2


def test_a_stop_keeps_what_has_finished(tmp_path: Path) -> None:
    study = Squares(tmp_path / "study")
    with pytest.raises(KeyboardInterrupt):
        run_grid(study, [CELLS[0], Cell("stopped", 1), CELLS[1]], in_process=True)
    results = run_grid(study, CELLS[:2], in_process=True)
    assert set(results.found) == set(CELLS[:2])
    assert visits(study, CELLS[0]) == 1


def test_results_of_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    run_grid(Squares(tmp_path / "study"), CELLS, in_process=True)
    changed = Squares(tmp_path / "study", factor=2.0)
    with pytest.raises(CheckpointError, match=r"lengths: factor 1\.0 there, 2\.0 here"):
        run_grid(changed, CELLS, in_process=True)
    kept = json.loads((tmp_path / "study" / "plain-3" / "cell.json").read_text())
    assert kept["measures"] == {"square": 9.0}
