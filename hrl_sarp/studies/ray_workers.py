"""Runs the cells of a study on a Ray cluster, with or without a disk that its machines share.

Where the machines share the folder of the study, a cell works in it as on one machine, and a cell
whose machine was lost continues from its last checkpoint elsewhere. Where they do not, what a cell
reads travels with it, and what it wrote comes back when it has ended.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from hrl_sarp.errors import HrlSarpError
from hrl_sarp.run.files import write_bytes
from hrl_sarp.run.trials import TRIAL_LOG_VARIABLE, TrialLog
from hrl_sarp.studies.cell import FAILURE, RESULT, SCREEN, Cell, Study, record_failure, run_cell
from hrl_sarp.studies.workers import GIB, printed_to

LOST_MACHINES = 5
"""How often a cell is begun again after its machine was lost."""
TOKEN = "shared.txt"  # noqa: S105 -- the name of a file
"""In the folder of the study: a machine that reads the same word there shares the disk."""
TRIALS = "trials.jsonl"
"""Below a cell's folder on a machine without the disk: its trials, on their way to ours."""
Files = dict[str, bytes]
"""Path below a folder -> content."""


@dataclass
class RayWorkers:
    """Runs each cell as a task of a cluster, in a fresh process.

    Examples:
        >>> RayWorkers.__name__  # RayWorkers("auto") joins the cluster of this machine
        'RayWorkers'
    """

    address: str | None
    """Of the cluster: `auto`, `HOST:PORT`, or None for one that begins and ends with the study."""
    cpus: float = 1.0
    """Cores that a cell asks the cluster for."""
    gpus: float = 0.0
    """Graphics processors that a cell asks for; 0.25 lets four share one."""
    memory_gib: float | None = None
    """Memory that a cell asks for."""
    running: dict[Any, Cell] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ray = _import_ray()
        if ray.is_initialized():
            return
        try:
            ray.init(
                address=self.address,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": _environment()},
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise HrlSarpError(
                f"--address {self.address}: no Ray cluster there ({error}); begin one with "
                "`ray start --head`, or leave the option out"
            ) from error

    def __len__(self) -> int:
        """Return how many cells run or wait for a machine."""
        return len(self.running)

    @property
    def cpus_of_cluster(self) -> int:
        """Cells that the cluster can run at a time, by its cores."""
        total = _import_ray().cluster_resources().get("CPU", 1.0)
        return max(1, int(total / self.cpus))

    def begin(self, study: Study, cell: Cell, needs: Sequence[Cell]) -> None:
        """Hand a cell to the cluster."""
        ray = _import_ray()
        asked: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.gpus}
        if self.memory_gib is not None:
            asked["memory"] = round(self.memory_gib * GIB)
        # one process for each call, so that no cell inherits another's memory
        task = ray.remote(max_calls=1, max_retries=LOST_MACHINES, **asked)(_run_on_cluster)
        read = {need.name: _files_in(study.folder / need.name) for need in needs}
        job = _Job(study, cell, _token_of(study.folder), str(Path.cwd()), read)
        began = task.remote(job)
        self.running[began] = cell

    def first_to_end(self, study: Study) -> Cell:
        """Wait for a cell, and put what came back into the folder of the study."""
        ray = _import_ray()
        (ended,), _ = ray.wait(list(self.running), num_returns=1)
        cell = self.running.pop(ended)
        try:
            files: Files | None = ray.get(ended)
        except (ray.exceptions.RayError, OSError) as error:
            told = " ".join(str(error).split())[-300:]
            record_failure(study, cell, f"{type(error).__name__} on the cluster: {told}")
            return cell
        if files is not None:
            _take_back(study.folder / cell.name, files)
        return cell

    def stop(self) -> None:
        """End all cells that run, and leave the cluster."""
        ray = _import_ray()
        for task in self.running:
            ray.cancel(task, force=True)
        ray.shutdown()


def _import_ray() -> ModuleType:
    # by default Ray asks for a cluster that is not there for ten minutes; read when it is imported
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
    try:
        import ray  # optional, and slow to load
        import ray.exceptions
    except ModuleNotFoundError as error:
        raise HrlSarpError(
            "--backend ray needs the package ray: pip install 'hrl-sarp[ray]'"
        ) from error
    return ray


def _environment() -> Mapping[str, str]:
    """Return what a process of the cluster needs to find the same code and the same log."""
    names = ("PYTHONPATH", "OMP_NUM_THREADS")
    there = {name: os.environ[name] for name in names if name in os.environ}
    return {**there, TRIAL_LOG_VARIABLE: str(TrialLog().path.absolute())}


@dataclass(frozen=True)
class _Job:
    """What a machine of the cluster is sent."""

    study: Study
    cell: Cell
    token: str
    directory: str
    """From which paths of data and of the study lead on; the same on all machines."""
    read: Mapping[str, Files]
    """Folder -> its files, of the cells that this one reads."""


def _run_on_cluster(job: _Job) -> Files | None:
    """Run a cell where Ray put it; return its files, None where the disk is shared."""
    if Path(job.directory).is_dir():
        os.chdir(job.directory)
    token = job.study.folder / TOKEN
    if token.is_file() and token.read_text(encoding="utf-8") == job.token:
        _run_printing(job.study, job.cell)
        return None
    with tempfile.TemporaryDirectory(prefix="hrl_sarp_") as place:
        apart: Any = replace(job.study, folder=Path(place))  # type: ignore[type-var]  # a dataclass
        for name, files in job.read.items():
            _write_files(apart.folder / name, files)
        folder = apart.folder / job.cell.name
        os.environ[TRIAL_LOG_VARIABLE] = str(folder / TRIALS)
        _run_printing(apart, job.cell)
        return _files_in(folder)


def _run_printing(study: Study, cell: Cell) -> None:
    with printed_to(study.folder / cell.name / SCREEN):
        run_cell(study, cell)


def _token_of(folder: Path) -> str:
    """Return the word that only machines with this disk can read, written once."""
    path = folder / TOKEN
    if not path.is_file():
        write_bytes(path, os.urandom(16).hex().encode())
    return path.read_text(encoding="utf-8")


def _files_in(folder: Path) -> Files:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _take_back(folder: Path, files: Files) -> None:
    """Write what a cell brought; its own file comes last, because it says that all is there."""
    trials = files.pop(TRIALS, None)
    last = {name: files.pop(name) for name in (RESULT, FAILURE) if name in files}
    (folder / FAILURE).unlink(missing_ok=True)
    _write_files(folder, files)
    if trials is not None:
        write_bytes(folder / TRIALS, trials)
        TrialLog().add(*TrialLog(folder / TRIALS).trials())
        (folder / TRIALS).unlink()
    _write_files(folder, last)


def _write_files(folder: Path, files: Files) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / name, content)
