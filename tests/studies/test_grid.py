"""The runner of studies: cells run once, failures are recorded, other settings are refused."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loguru import logger

from hrl_sarp.errors import CheckpointError
from hrl_sarp.studies import Cell, run_grid
from hrl_sarp.studies.grid import _Pace
from tests.studies.small_study import Squares

PATIENCE_SECONDS = 120.0
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


def first_of(cell: Cell) -> Sequence[Cell]:
    """Every other cell reads the one that is refused or, with seed 9, the one that is plain."""
    if cell.setting != "other":
        return ()
    return (Cell("plain", 2),) if cell.seed == 9 else (Cell("refused", 1), Cell("plain", 2))


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_cell_that_reads_a_failed_one_does_not_run_and_says_so(tmp_path: Path, jobs: int) -> None:
    study, lost, reads = Squares(tmp_path / "study"), Cell("other", 2), Cell("other", 9)
    cells = [Cell("refused", 1), Cell("plain", 2), lost, reads]
    results = run_grid(study, cells, jobs, needs=first_of, in_process=True)
    assert set(results.found) == {Cell("plain", 2), reads}
    assert results.failed[lost] == "it needs refused-1, which failed"
    assert not (study.folder / lost.name / "visits.txt").exists()


def test_a_line_for_each_cell_tells_what_is_left(tmp_path: Path) -> None:
    study, lines = Squares(tmp_path / "study"), []
    cells = [Cell("plain", 2), Cell("refused", 1), Cell("plain", 3), Cell("other", 9)]
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="INFO")
    try:
        run_grid(study, cells, needs=first_of, in_process=True)
    finally:
        logger.remove(sink)
    assert lines[0] == "squares: 0 of 4 cells are there"
    # how long a cell takes that reads another one is not known before the first of them has ended
    assert lines[1] == "squares: plain-2 took 0 s; 1 of 4 cells, more than 0 s left"
    assert lines[2].startswith("squares: refused-1 failed: DataError: prices.csv, row 3: no close;")
    assert lines[4] == "squares: other-9 took 0 s; 4 of 4 cells"


def test_time_left_is_that_of_cells_like_those_that_have_finished(tmp_path: Path) -> None:
    study = Squares(tmp_path / "study")
    cells = [*(Cell("plain", seed) for seed in range(4)), Cell("other", 9)]
    run_grid(study, [cells[0], cells[2], cells[4]], needs=first_of, in_process=True)
    for name, seconds in (("plain-0", 100.0), ("plain-2", 300.0), ("other-9", 1000.0)):
        path = study.folder / name / "cell.json"
        content = json.loads(path.read_text())
        content.pop("checksum")
        path.write_text(json.dumps({**content, "seconds": seconds}))
    pace = _Pace(study, cells, first_of, jobs=2)
    # two cells are left, of 200 seconds each, on two processes
    assert pace.left == [Cell("plain", 1), Cell("plain", 3)]
    assert pace._outlook() == ", about 3 min left"


RUNNER = """
import sys
from pathlib import Path
from hrl_sarp.studies import Cell, run_grid
from tests.studies.small_study import Squares

if __name__ == "__main__":
    cells = [Cell("plain", 2), Cell("slow", 3)]
    run_grid(Squares(Path(sys.argv[1]), seconds=120.0), cells, jobs=2)
"""


def test_a_killed_runner_takes_its_cells_with_it_and_the_rest_is_done_once(
    tmp_path: Path, repository: Path
) -> None:
    script, folder = tmp_path / "runner.py", tmp_path / "study"
    script.write_text(RUNNER)
    command, told = [sys.executable, str(script), str(folder)], folder / "slow-3" / "process.txt"
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    runner = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)  # noqa: S603 -- our own script
    try:
        until(lambda: told.is_file() and told.read_text() != "")
        time.sleep(np.random.default_rng().uniform(0.0, 0.5))
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait(PATIENCE_SECONDS)
    orphan = Path(f"/proc/{told.read_text()}")
    until(lambda: not orphan.exists())
    cells = [Cell("plain", 2), Cell("slow", 3)]
    again = run_grid(Squares(folder), cells, in_process=True)
    whole = run_grid(Squares(tmp_path / "undisturbed"), cells, in_process=True)
    assert dict(again.found) == dict(whole.found)
    assert (folder / "slow-3" / "visits.txt").read_text() == "here\n" * 2


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


@dataclass(frozen=True)
class Edited(Squares):
    """Its configuration is a file, which somebody edits while the cell runs."""

    def identity(self, cell: Cell) -> dict[str, Any]:
        return {"config": (self.folder / "config.txt").read_text()}

    def run(self, cell: Cell, folder: Path) -> dict[str, Any]:
        (self.folder / "config.txt").write_text("new")
        return {}


def test_a_result_belongs_to_what_was_there_when_its_cell_began(tmp_path: Path) -> None:
    (tmp_path / "config.txt").write_text("old")
    run_grid(Edited(tmp_path), CELLS[:1], in_process=True)
    with pytest.raises(CheckpointError, match="another config"):
        run_grid(Edited(tmp_path), CELLS[:1], in_process=True)
