"""The phases of training: where each writes below the log folder, and what it starts from.

This module is apart from `training`, because that one takes seconds to import. What is slow to
import here, too, loads inside the functions, so that a wrong option is refused at once.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrl_sarp.errors import ConfigError, HrlSarpError, MissingArtifactError, OverwriteError
from hrl_sarp.run.earlier import CONFIG, RUNNING, require_one_way

if TYPE_CHECKING:
    from hrl_sarp.config.schema import RunConfig

CERTIFICATION = Path("certification") / "certification.json"
"""Below the log folder: what `training/certify.py` granted; its inner trainings lie beside it."""
SEEDS = "seeds.json"
"""Below the log folder of a run of several seeds: which they are."""
_UNREADABLE = (OSError, ValueError, LookupError, TypeError)
"""What reading a missing or damaged file raises; a refusal then names less."""
BACKTESTS = "backtest"
"""Beginning of the folders of backtests below the log folder."""
REPORTS = (BACKTESTS, "stress")
"""Beginnings of the folders of reports below the log folder; they are about its agents."""


@dataclass(frozen=True)
class PhaseFiles:
    """Where a phase writes below the log folder."""

    number: int
    folder: str
    best: tuple[str, ...]
    metrics: str
    title: str


PHASES = (
    PhaseFiles(
        1,
        "pretrain_macro",
        ("best_pretrain_macro.pt", "sector_graph.pt"),
        "pretrain_macro_metrics.json",
        "supervised macro",
    ),
    PhaseFiles(
        2,
        "pretrain_micro",
        ("best_pretrain_micro.pt",),
        "pretrain_micro_metrics.json",
        "supervised micro",
    ),
    PhaseFiles(3, "phase3_macro", ("best_macro.pt",), "phase3_macro_metrics.json", "PPO macro"),
    PhaseFiles(4, "phase4_micro", ("best_micro.pt",), "phase4_micro_metrics.json", "TD3 micro"),
    PhaseFiles(
        5,
        "phase5_joint",
        ("best_joint_macro.pt", "best_joint_micro.pt"),
        "phase5_joint_metrics.json",
        "joint",
    ),
)
"""In the order of the curriculum."""

MACRO_OF = {3: 1, 4: 3, 5: 3}
"""Phase -> the phase whose macro agent it starts from or trains against."""
MICRO_OF = {3: 2, 4: 2, 5: 4}
"""Phase -> the phase whose micro agent it starts from or trains against."""


def seed_folders(log_dir: Path) -> dict[int | None, Path]:
    """Return the folders that hold the phases of a run.

    Args:
        log_dir: of the run.

    Returns:
        Seed -> its folder. A run of one seed has one entry, None -> its log folder.
    """
    path = log_dir / SEEDS
    if not path.is_file():
        return {None: log_dir}
    from hrl_sarp.run.files import read_json

    return {seed: log_dir / f"seed_{seed}" for seed in read_json(path, "hrl-sarp train")["seeds"]}


def config_of_run(log_dir: Path, changes: Mapping[str, Any] | None = None) -> "RunConfig":
    """Read the configuration that a run wrote beside its first phase, and check it.

    Args:
        log_dir: of the run; of several seeds the first one is read.
        changes: values laid over it, by section.

    Returns:
        The configuration.

    Raises:
        MissingArtifactError: if there is no run.
        ConfigError: if the file was changed after the run wrote it, or a change is wrong.
    """
    from hrl_sarp.config.loading import load_config
    from hrl_sarp.run.damage import has_broken_seal

    first = next(iter(seed_folders(log_dir).values()))
    path = first / PHASES[0].folder / CONFIG
    if not path.is_file():
        raise MissingArtifactError(
            f"no run at {log_dir} ({path} does not exist): run `hrl-sarp train` first"
        )
    if has_broken_seal(path.read_bytes()):
        raise ConfigError(
            f"{path}: its checksum says that it was changed after the run wrote it; restore the "
            "file, or train again in another --log-dir"
        )
    return load_config(own_file=path, overrides=changes)


def require_kind(log_dir: Path, *, several: bool) -> None:
    """Refuse to train one seed over a run of several, and the other way round.

    Args:
        log_dir: of the run.
        several: whether several seeds are to be trained.

    Raises:
        HrlSarpError: naming the folder and what it holds.
    """
    has_several = (log_dir / SEEDS).is_file()
    has_one = any((log_dir / files.folder).is_dir() for files in PHASES)
    if several and has_one:
        raise HrlSarpError(
            f"{log_dir} holds a run of one seed: choose another --log-dir for --seeds"
        )
    if not several and has_several:
        raise HrlSarpError(
            f"{log_dir} holds a run of several seeds: give --seeds, or choose another --log-dir"
        )


def require_phase(number: int) -> None:
    """Refuse a number that is no phase; the error names the phases."""
    if not 1 <= number <= len(PHASES):
        raise HrlSarpError(
            f"--phase must be one of {[files.number for files in PHASES]}, found {number}"
        )


def best_file(log_dir: Path, number: int, which: int = 0) -> Path:
    """Return the file of a phase's best agent, given its index in `PhaseFiles`.

    Raises:
        MissingArtifactError: if there is none; names the phase to run.
    """
    files = PHASES[number - 1]
    path = log_dir / files.folder / files.best[which]
    if not path.is_file():
        raise MissingArtifactError(
            f"phase {number} has not finished ({path} does not exist): "
            f"run `hrl-sarp train --phase {number}` first"
        )
    return path


def require_earlier_phases(number: int, log_dir: Path) -> None:
    """Refuse a phase whose files of earlier phases are missing; nothing is loaded for it.

    Args:
        number: of the phase, 1 to 5.
        log_dir: log folder of the run.

    Raises:
        MissingArtifactError: naming the file and the phase that writes it.
    """
    needed = [(1, 1)] if number > 1 else []
    needed += [(table[number], 0) for table in (MACRO_OF, MICRO_OF) if number in table]
    for earlier, which in needed:
        best_file(log_dir, earlier, which)


def require_agents(log_dir: Path) -> None:
    """Refuse a log folder without trained agents; nothing is loaded for it.

    Args:
        log_dir: log folder of the run, of one seed or of several.

    Raises:
        MissingArtifactError: if no run is there, or phase 1 or 2 of one has not finished.
    """
    if not log_dir.is_dir():
        raise MissingArtifactError(f"no run at {log_dir}: run `hrl-sarp train` first")
    several = (log_dir / SEEDS).is_file()
    for folder in sorted(log_dir.glob("seed_*")) if several else [log_dir]:
        for number in (1, 2):
            best_file(folder, number)


def require_free_folder(
    log_dir: Path, number: int | None, *, resume: bool = False, overwrite: bool = False
) -> None:
    """Refuse a training that could not begin in its folder; nothing is loaded for it.

    Args:
        log_dir: log folder of the run.
        number: of the phase to train; None for all of them.
        resume: go on with what the folder holds.
        overwrite: replace what the folder holds.

    Raises:
        HrlSarpError: for a number that is no phase, and if both ways are asked for.
        MissingArtifactError: if the phase needs files of an earlier one.
        OverwriteError: if neither way is asked for, and the folder holds such a training.
    """
    if number is not None:
        require_phase(number)
        require_earlier_phases(number, log_dir)
    require_one_way(resume=resume, overwrite=overwrite)
    if not resume and not overwrite:
        require_no_run(log_dir, number)


def require_no_run(log_dir: Path, number: int | None) -> None:
    """Refuse to train anew over what an earlier run has trained or begun to train.

    A phase is also refused under later ones: they started from another training of it.

    Args:
        log_dir: log folder of the run.
        number: of the phase to train, 1 to 5; None for all of them.

    Raises:
        OverwriteError: naming the phases that are there, with market and seed of their run.
    """
    found = {n: state for n, state in _phases_of(log_dir).items() if n >= (number or 1)}
    if not found and not (number is None and (log_dir / SEEDS).is_file()):
        return
    facts = [f"phase {n} {state}" for n, state in found.items()] or [_seeds_of(log_dir)]
    raise OverwriteError(
        f"{log_dir} holds a run{_origin_of(log_dir)} ({', '.join(facts)}): --resume goes on with "
        "it, --overwrite trains anew, another --log-dir keeps it"
    )


def remove_run(log_dir: Path) -> None:
    """Remove the phases of a run, what was certified, and the reports about its agents.

    Args:
        log_dir: log folder of the run; its log files stay.
    """
    remove_from(1, log_dir)
    for folder in log_dir.glob("seed_*"):
        shutil.rmtree(folder)
    (log_dir / SEEDS).unlink(missing_ok=True)


def remove_from(number: int, log_dir: Path) -> list[int]:
    """Remove a phase and those after it, which started from it, with all that is about them.

    What was certified and the reports go with them, because their agents are gone.

    Args:
        number: of the first phase to remove, 1 to 5.
        log_dir: log folder of the run.

    Returns:
        The phases that were there.
    """
    found = [files for files in PHASES[number - 1 :] if (log_dir / files.folder).is_dir()]
    about = [log_dir / CERTIFICATION.parent]
    about += [path for name in REPORTS for path in log_dir.glob(f"{name}*")] if found else []
    for folder in (*(log_dir / files.folder for files in found), *about):
        if folder.is_dir():
            shutil.rmtree(folder)
    return [files.number for files in found]


def _phases_of(log_dir: Path) -> dict[int, str]:
    """Say of each phase that is there whether it has finished."""
    found = {}
    for files in PHASES:
        folder = log_dir / files.folder
        if all((folder / name).is_file() for name in (*files.best, files.metrics)):
            found[files.number] = "finished"
        elif any((folder / name).is_file() for name in (RUNNING, *files.best, files.metrics)):
            found[files.number] = "stopped"
    return found


def _origin_of(log_dir: Path) -> str:
    """Return market and seed of the run in words; empty where no phase tells them."""
    for files in PHASES:
        try:
            lines = (log_dir / files.folder / CONFIG).read_text(encoding="utf-8").splitlines()
            values = dict(line.split(": ", 1) for line in lines if ": " in line)
            return f" of market {values['market']} with seed {values['seed']}"
        except _UNREADABLE:
            continue
    return ""


def _seeds_of(log_dir: Path) -> str:
    try:
        seeds = json.loads((log_dir / SEEDS).read_text(encoding="utf-8"))["seeds"]
        return f"seeds {', '.join(map(str, seeds))}"
    except _UNREADABLE:
        return f"several seeds, {SEEDS}"
