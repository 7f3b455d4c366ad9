"""The phases of training: where each writes below the log folder, and what it starts from.

This module is apart from `training`, because that one takes seconds to import.
"""

from dataclasses import dataclass
from pathlib import Path

from hrl_sarp.errors import HrlSarpError, MissingArtifactError


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
