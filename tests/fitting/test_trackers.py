"""Trackers: the same names, values and steps as TensorBoard, in files, each point once."""

import importlib.util
import math
import os
import shutil
import sqlite3
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from hrl_sarp.config.loading import config_hash, load_config
from hrl_sarp.errors import HrlSarpError, StoppedEarly, TrainingDivergedError
from hrl_sarp.fitting.history import Axis, History
from hrl_sarp.fitting.trackers import MLFLOW, STEPS, require_trackers
from hrl_sarp.run.phases import PHASES
from hrl_sarp.training import run_phase
from tests.fitting.test_history import events
from tests.tiny_runs import context_of, tiny_config, tiny_market

Points = dict[str, list[tuple[int, float]]]
ROWS = [{"loss": 0.5, "val_loss": 0.25}, {"loss": 0.125}, {"loss": 2.0, "val_loss": 4.0}]
EXPECTED: Points = {
    "pretrain/loss": [(1052, 0.5), (1104, 0.125), (1156, 2.0)],
    "pretrain/val_loss": [(1052, 0.25), (1156, 4.0)],
}


def noted(points: Points, step: int, values: Mapping[str, float]) -> None:
    for name, value in values.items():
        points.setdefault(name, []).append((step, value))


@dataclass
class FakeWandb(ModuleType):
    """Stands for the package: notes what its runs are given."""

    runs: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__("wandb")

    @staticmethod
    def Settings(**options: Any) -> dict[str, Any]:  # noqa: N802 -- a name of the package
        return options

    def init(self, **options: Any) -> Any:
        points: Points = {}
        run = {"options": options, "points": points, "exit_code": None}
        folder = Path(options["dir"]) / "wandb"
        (folder / f"offline-run-{len(self.runs):02}-{options['id'] or 'drawn'}").mkdir(parents=True)
        self.runs.append(run)

        def log(values: dict[str, float]) -> None:
            step = int(values[STEPS])
            noted(points, step, {k: v for k, v in values.items() if k != STEPS})

        return SimpleNamespace(
            define_metric=lambda name, step_metric: run.update(axis=(name, step_metric)),
            log=log,
            finish=lambda exit_code: run.update(exit_code=exit_code),
        )


class FakeMlflow:
    """Stands for the client: experiments, runs and metrics by name."""

    runs: dict[str, Any]
    uris: set[str]

    def __init__(self, tracking_uri: str) -> None:
        self.uris.add(tracking_uri)

    def get_experiment_by_name(self, _name: str) -> Any:
        return None

    def create_experiment(self, name: str) -> str:
        return name

    def search_runs(self, _experiments: list[str]) -> list[Any]:
        return [run for run in self.runs.values() if not run.is_deleted]

    def delete_run(self, run_id: str) -> None:
        self.runs[run_id].is_deleted = True

    def create_run(self, _experiment: str, run_name: str) -> Any:
        run_id = str(len(self.runs))
        info = SimpleNamespace(run_id=run_id, run_name=run_name)
        points: Points = {}
        self.runs[run_id] = SimpleNamespace(
            info=info,
            points=points,
            data=SimpleNamespace(metrics=points),
            is_deleted=False,
            status="RUNNING",
        )
        return self.runs[run_id]

    def get_metric_history(self, run_id: str, name: str) -> list[Any]:
        points = self.runs[run_id].points[name]
        return [SimpleNamespace(key=name, step=step, value=value) for step, value in points]

    def update_run(self, run_id: str, status: str) -> None:
        self.runs[run_id].status = status

    def log_batch(self, run_id: str, metrics: list[Any]) -> None:
        for name, value, _, step in metrics:
            noted(self.runs[run_id].points, step, {name: value})

    def set_terminated(self, run_id: str, status: str) -> None:
        self.runs[run_id].status = status


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> type[FakeMlflow]:
    client = type("Client", (FakeMlflow,), {"runs": {}, "uris": set()})
    package, tracking, entities = (ModuleType(f"mlflow{part}") for part in PARTS)
    tracking.MlflowClient = client  # type: ignore[attr-defined]  # a module made here
    entities.Metric = lambda *values: values  # type: ignore[attr-defined]  # a module made here
    for module in (package, tracking, entities):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return client


PARTS = ("", ".tracking", ".entities")


def write(folder: Path, *names: str) -> History:
    """Write the rows of a phase, with a stop and a resumed run in between."""
    axis = Axis.of_epochs(1000, decisions=52)
    first = History(folder, prefix="pretrain", axis=axis, trackers=names)
    first.add(0, ROWS[0])
    kept = list(first.rows)  # the checkpoint
    first.add(1, {"loss": 99.0})  # lost by the stop
    first.close()
    second = History(folder, kept, prefix="pretrain", axis=axis, trackers=names)
    second.add(1, ROWS[1])
    second.add(2, ROWS[2])
    second.write(folder / "metrics.json", {})
    second.close()
    return second


def shown_by_tensorboard(folder: Path) -> Points:
    return {name: events(folder, name) for name in EXPECTED}


def test_trackers_get_what_tensorboard_gets(
    tmp_path: Path, wandb: FakeWandb, mlflow: type[FakeMlflow]
) -> None:
    folder = tmp_path / "logs" / "pretrain_macro"
    write(folder, "mlflow", "wandb")
    assert shown_by_tensorboard(folder) == EXPECTED
    *_, last = wandb.runs
    assert last["points"] == EXPECTED
    assert last["exit_code"] == 0
    assert last["axis"] == ("*", STEPS)
    assert last["options"]["mode"] == "offline"
    assert last["options"]["dir"] == str(folder)
    (run,) = [run for run in mlflow.runs.values() if not run.is_deleted]
    assert run.points == EXPECTED
    assert run.status == "FINISHED"
    assert run.info.run_name == "pretrain_macro"
    assert mlflow.uris == {f"sqlite:///{tmp_path / 'logs' / MLFLOW}"}
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_nothing_but_tensorboard_is_written_where_none_is_asked_for(
    tmp_path: Path, wandb: FakeWandb, mlflow: type[FakeMlflow]
) -> None:
    assert load_config(market="us").trackers == []
    write(tmp_path / "logs" / "phase")
    assert not wandb.runs
    assert not mlflow.uris
    assert {path.name for path in (tmp_path / "logs" / "phase").iterdir()} == {
        "tensorboard",
        "metrics.json",
    }


def test_a_phase_gives_trackers_all_its_curves(
    tmp_path: Path,
    wandb: FakeWandb,
    mlflow: type[FakeMlflow],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hrl_sarp.training.curriculum.require_trackers", lambda _names: None)
    config = tiny_config(trackers=["wandb", "mlflow"])
    context = context_of(tiny_market(), config, tmp_path)
    result = run_phase(1, context)
    folder = tmp_path / PHASES[0].folder
    (run,) = (run for run in mlflow.runs.values() if not run.is_deleted)
    *_, last = wandb.runs
    assert run.points == last["points"]
    assert {name for name in run.points if name.startswith("pretrain/")}
    for name, points in run.points.items():
        assert [(s, pytest.approx(v)) for s, v in points] == events(folder, name)
    assert result.number == 1


WAYS_OUT: dict[str, tuple[BaseException | None, str, int]] = {
    "its end": (None, "FINISHED", 0),
    "a signal": (StoppedEarly(), "KILLED", 255),
    "Ctrl-C again": (KeyboardInterrupt(), "KILLED", 255),
    "a refusal": (TrainingDivergedError("loss is nan"), "FAILED", 1),
    "a bug": (ZeroDivisionError(), "FAILED", 1),
    "an exit": (SystemExit(3), "FAILED", 1),
}


@pytest.mark.parametrize(
    ("number", "way"),
    [*((3, way) for way in WAYS_OUT), *((number, "a bug") for number in (1, 2, 4, 5))],
)
def test_a_phase_ends_its_trackers_on_every_way_out(
    number: int,
    way: str,
    finished_phases: Path,
    tmp_path: Path,
    wandb: FakeWandb,
    mlflow: type[FakeMlflow],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The phase is left when it writes its metrics, after all that it trains."""
    monkeypatch.setattr("hrl_sarp.training.curriculum.require_trackers", lambda _names: None)
    shutil.copytree(finished_phases, tmp_path, dirs_exist_ok=True)
    error, status, code = WAYS_OUT[way]
    context = context_of(tiny_market(), tiny_config(trackers=["wandb", "mlflow"]), tmp_path)
    if error is None:
        run_phase(number, context)
    else:
        monkeypatch.setattr(History, "write", Mock(side_effect=error))
        with pytest.raises(type(error)):
            run_phase(number, context)
    (run,) = mlflow.runs.values()
    assert run.info.run_name == PHASES[number - 1].folder
    assert run.points
    assert run.status == status
    assert [run["exit_code"] for run in wandb.runs] == [code]


@pytest.fixture(scope="module")
def finished_phases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    for number in range(1, 5):
        run_phase(number, context_of(tiny_market(), tiny_config(), folder))
    return folder


@pytest.mark.parametrize("n_lost", range(3))
def test_a_resumed_phase_goes_on_in_its_run_unless_it_holds_a_point_too_many(
    n_lost: int, tmp_path: Path, wandb: FakeWandb, mlflow: type[FakeMlflow]
) -> None:
    """MLflow cannot take a point back. The first row has a NaN, which is equal to nothing."""
    rows = [{"loss": math.nan, "val_loss": 0.25}, *ROWS[1:]]
    axis = Axis.of_epochs(1000, decisions=52)

    def history(kept: list[dict[str, Any]] | None) -> History:
        return History(tmp_path / "logs" / "phase", kept, "pretrain", axis, ("mlflow", "wandb"))

    with pytest.raises(KeyboardInterrupt), history(None) as first:  # noqa: PT012 -- it is left
        for epoch in range(2):
            first.add(epoch, rows[epoch])
        kept = first.rows[: 2 - n_lost]
        raise KeyboardInterrupt
    with history(kept) as second:
        second.restore(list(kept))  # the loop does, from the same checkpoint
        for epoch in range(2 - n_lost, 3):
            second.add(epoch, rows[epoch])
    left = [run for run in mlflow.runs.values() if not run.is_deleted]
    assert [run.info.run_id for run in left] == ["0" if n_lost == 0 else "1"]
    expected = {
        "pretrain/loss": [(1052, math.nan), (1104, 0.125), (1156, 2.0)],
        "pretrain/val_loss": EXPECTED["pretrain/val_loss"],
    }
    assert repr(left[0].points) == repr(expected)
    assert left[0].status == "FINISHED"
    assert repr(wandb.runs[-1]["points"]) == repr(expected)
    assert len(wandb.runs) == 2
    # without a point at the checkpoint the run begins anew
    assert wandb.runs[-1]["options"]["id"] == ("drawn" if kept else None)


def test_a_run_that_was_killed_without_a_point_is_taken_up(
    tmp_path: Path, mlflow: type[FakeMlflow]
) -> None:
    folder = tmp_path / "logs" / "phase"
    History(folder, trackers=("mlflow",))  # never closed, as after SIGKILL
    with History(folder, trackers=("mlflow",)) as log:
        assert [run.status for run in mlflow.runs.values()] == ["RUNNING"]
        log.add(0, {"loss": 1.0})
    assert [run.status for run in mlflow.runs.values()] == ["FINISHED"]


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_one_line_before_training(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(HrlSarpError, match=rf"^{name} is not installed.*hrl-sarp\[{name}\]'$"):
        require_trackers([name])
    context = context_of(tiny_market(), tiny_config(trackers=[name]), tmp_path)
    with pytest.raises(HrlSarpError, match=f"{name} is not installed"):
        run_phase(1, context)
    assert not any(tmp_path.iterdir())


def test_trackers_make_no_other_run() -> None:
    plain, tracked = (load_config(market="us", overrides=o) for o in ({}, {"trackers": ["wandb"]}))
    assert config_hash(plain) == config_hash(tracked)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between mlflow and SQLAlchemy
def test_the_installed_mlflow_holds_the_same_points(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    folder = tmp_path / "logs" / "pretrain_macro"
    write(folder, "mlflow")
    with sqlite3.connect(tmp_path / "logs" / MLFLOW) as database:
        found = database.execute(
            "SELECT key, step, value FROM metrics JOIN runs USING (run_uuid) "
            "WHERE lifecycle_stage = 'active' ORDER BY key, step"
        ).fetchall()
        states = database.execute("SELECT lifecycle_stage, status FROM runs").fetchall()
    assert sorted(states) == [("active", "FINISHED"), ("deleted", "FINISHED")]
    points: Points = {}
    for name, step, value in found:
        noted(points, step, {name: value})
    assert points == EXPECTED


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # between mlflow and SQLAlchemy
def test_the_installed_mlflow_goes_on_in_the_run_of_a_phase_that_was_stopped(
    tmp_path: Path,
) -> None:
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    folder = tmp_path / "logs" / "pretrain_macro"
    statuses = []

    def look() -> list[tuple[str, int]]:
        with sqlite3.connect(tmp_path / "logs" / MLFLOW) as database:
            runs = "SELECT status FROM runs"
            statuses.append([status for (status,) in database.execute(runs)])
            metrics = "SELECT key, step FROM metrics ORDER BY key, step"
            return list(database.execute(metrics))

    with pytest.raises(StoppedEarly), History(folder, trackers=("mlflow",)) as first:  # noqa: PT012 -- it is left
        first.add(0, {"loss": math.nan, "val_loss": 0.25})
        raise StoppedEarly
    look()
    with History(folder, first.rows, trackers=("mlflow",)) as second:
        look()
        second.add(1, {"loss": 0.5})
    assert look() == [("loss", 0), ("loss", 1), ("val_loss", 0)]
    assert statuses == [["KILLED"], ["RUNNING"], ["FINISHED"]]


def test_the_installed_wandb_writes_one_offline_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    folder = tmp_path / "logs" / "pretrain_macro"
    write(folder, "wandb")
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert all(name.encode() in content for name in EXPECTED)
