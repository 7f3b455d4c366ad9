"""Trackers: the same names, values and steps as TensorBoard, in files, each point once."""

import importlib.util
import os
import sqlite3
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from hrl_sarp.config.loading import config_hash, load_config
from hrl_sarp.errors import HrlSarpError
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
        run = {"options": options, "points": points, "is_finished": False}
        self.runs.append(run)

        def log(values: dict[str, float]) -> None:
            step = int(values[STEPS])
            noted(points, step, {k: v for k, v in values.items() if k != STEPS})

        return SimpleNamespace(
            define_metric=lambda name, step_metric: run.update(axis=(name, step_metric)),
            log=log,
            finish=lambda: run.update(is_finished=True),
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
        self.runs[run_id] = SimpleNamespace(
            info=info, points={}, is_deleted=False, is_finished=False
        )
        return self.runs[run_id]

    def log_batch(self, run_id: str, metrics: list[Any]) -> None:
        for name, value, _, step in metrics:
            noted(self.runs[run_id].points, step, {name: value})

    def set_terminated(self, run_id: str) -> None:
        self.runs[run_id].is_finished = True


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
    assert last["is_finished"]
    assert last["axis"] == ("*", STEPS)
    assert last["options"]["mode"] == "offline"
    assert last["options"]["dir"] == str(folder)
    (run,) = [run for run in mlflow.runs.values() if not run.is_deleted]
    assert run.points == EXPECTED
    assert run.is_finished
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
    points: Points = {}
    for name, step, value in found:
        noted(points, step, {name: value})
    assert points == EXPECTED


def test_the_installed_wandb_writes_one_offline_run(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    folder = tmp_path / "logs" / "pretrain_macro"
    write(folder, "wandb")
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert all(name.encode() in content for name in EXPECTED)
