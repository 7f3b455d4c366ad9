"""Who runs the cells: limits of memory, backends that are not there, a Ray cluster of two machines.

The tests of the cluster are slow: two machines of Ray take half a minute to begin.
"""

import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from hrl_sarp.errors import HrlSarpError
from hrl_sarp.run.files import read_json
from hrl_sarp.run.trials import Span, Trial, TrialLog
from hrl_sarp.studies import Cell, Results, ray_workers, run_grid
from hrl_sarp.studies.ray_workers import RayWorkers, _files_in, _take_back
from hrl_sarp.studies.workers import LocalProcesses
from tests.command_line import Command, assert_refused, make_command
from tests.studies.small_study import Squares

CELLS = [Cell("plain", 2), Cell("refused", 1), Cell("plain", 4), Cell("plain", 5)]
PATIENCE_SECONDS = 120


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return make_command(monkeypatch, capfd)


def after_the_first(cell: Cell) -> list[Cell]:
    return [] if cell == CELLS[0] else [CELLS[0]]


@pytest.mark.skipif(sys.platform == "win32", reason="this system cannot limit a process")
def test_a_cell_beyond_its_memory_fails_and_the_others_go_on(tmp_path: Path) -> None:
    cells = [Cell("greedy", 1), Cell("plain", 2)]
    found = run_grid(Squares(tmp_path), cells, workers=LocalProcesses(memory_gib=3.0))
    assert found.found == {Cell("plain", 2): {"square": 4.0}}
    assert "exit code 1" in found.failed[Cell("greedy", 1)]
    assert "MemoryError" in (tmp_path / "greedy-1" / "screen.log").read_text()


def test_ray_is_asked_for_where_it_is_not_installed(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(tmp_path)
    found = command("known-markets", "--markets", "kelly", "--backend", "ray")
    assert_refused(found, "pip install 'hrl-sarp[ray]'")
    assert_refused(command("known-markets", "--backend", "rya"), "expected local or ray")
    found = command("known-markets", "--address", "auto")
    assert_refused(found, "give --backend ray, too")


def test_what_comes_back_from_another_machine_replaces_a_former_failure(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    run_grid(Squares(there), [CELLS[0]], in_process=True)
    here.mkdir()
    (here / "failed.json").write_text("{}")
    _take_back(here, _files_in(there / CELLS[0].name))
    assert _files_in(here) == _files_in(there / CELLS[0].name)
    assert read_json(here / "cell.json", "this test")["measures"] == {"square": 4.0}


def test_trials_of_another_machine_come_into_our_log_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HRL_SARP_TRIAL_LOG", str(tmp_path / "ours.jsonl"))
    there, here = tmp_path / "there", tmp_path / "here"
    span = Span("fold", "2019-01-02", "2019-12-31")
    trial = Trial("study", "mine", "c0ffee", "da7a", span, "growth", 0.02, seed=0)
    TrialLog(there / "trials.jsonl").add(trial)
    (there / "cell.json").write_text("{}")
    _take_back(here, _files_in(there))
    assert [found.key for found in TrialLog().trials()] == [trial.key]
    assert [path.name for path in here.iterdir()] == ["cell.json"]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Begin two machines of one core each."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80_000_000}
    made = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    made.second = made.add_node(**small)
    yield made
    made.shutdown()


def as_local(study: Squares, folder: Path) -> Results:
    return run_grid(Squares(folder, seconds=study.seconds), CELLS, in_process=True)


@pytest.mark.slow
@pytest.mark.parametrize("disk", ["shared", "apart"])
def test_a_cluster_gives_the_files_of_one_machine(
    disk: str, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if disk == "apart":
        monkeypatch.setattr(ray_workers, "_token_of", lambda _folder: "a word that is nowhere")
    study = Squares(tmp_path / "study")
    found = run_grid(
        study, CELLS, jobs=2, needs=after_the_first, workers=RayWorkers(cluster.address)
    )
    assert found == as_local(study, tmp_path / "alone")
    for cell in CELLS:
        (one, many) = (_files_in(tmp_path / name / cell.name) for name in ("alone", "study"))
        assert "cell plain" in many.pop("screen.log", b"").decode() or cell.setting != "plain"
        assert set(one) == set(many)
        assert one["visits.txt"] == many["visits.txt"]


@pytest.mark.slow
def test_cells_of_a_lost_machine_run_again_elsewhere(cluster: Any, tmp_path: Path) -> None:
    study = Squares(tmp_path / "study", seconds=6.0)
    cells = [Cell("slow", seed) for seed in range(4)]
    workers = RayWorkers(cluster.address)
    begin, lost = workers.begin, []

    def begin_and_lose(study: Squares, cell: Cell, needs: list[Cell]) -> None:
        begin(study, cell, needs)
        if cell == cells[1]:  # both machines are at work
            end = time.monotonic() + PATIENCE_SECONDS
            while sum((study.folder / c.name / "process.txt").is_file() for c in cells) < 2:
                assert time.monotonic() < end, "no cell begins"
                time.sleep(0.2)
            cluster.remove_node(cluster.second, allow_graceful=False)
            lost.append(cell)

    workers.begin = begin_and_lose  # type: ignore[method-assign, assignment]  # loses a machine
    found = run_grid(study, cells, jobs=2, workers=workers)
    assert lost
    assert found.failed == {}
    assert found.found == {cell: {"square": float(cell.seed**2)} for cell in cells}
    visits = [(study.folder / c.name / "visits.txt").read_text().count("here") for c in cells]
    assert sorted(visits) == [1, 1, 1, 2]


@pytest.mark.slow
def test_no_cluster_at_an_address_is_one_line() -> None:
    if find_spec("ray") is None:  # not imported here: how long it asks is read when it is
        pytest.skip("the extra ray is not installed")
    with pytest.raises(HrlSarpError, match="no Ray cluster there"):
        RayWorkers("127.0.0.1:1")
