"""The card of the agents that decide: what they were trained on, and what a study said of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from hrl_sarp.daily.market import Today
from hrl_sarp.reporting.table import percent
from hrl_sarp.run.files import read_json
from hrl_sarp.studies.evaluate import STUDY
from hrl_sarp.studies.walk_forward.report import FIGURES
from hrl_sarp.training.certify import read_certification

NO_STUDY = "no study of this market was found; `hrl-sarp evaluate` makes one"


@dataclass(frozen=True)
class AgentCard:
    """What a reader should know of the agents before trusting a decision.

    Examples:
        >>> AgentCard("us", (0,), "2014-12-31", "2018-12-31", 10, "", {}, NO_STUDY).age_days
        10
    """

    market: str
    seeds: tuple[int, ...]
    trained_until: str
    """Last day of the training span."""
    data_until: str
    """Last day of the data that the run had, validation and test included."""
    age_days: int
    """Calendar days from the end of the training span to the decision."""
    data_hash: str
    """Of the raw files of the training."""
    granted: dict[str, str]
    """Run -> what certification granted."""
    study: str
    """Verdict of the newest study of the market."""

    def pairs(self) -> list[tuple[str, str]]:
        """Return names and values for the page."""
        return [
            ("market", self.market),
            ("seeds", ", ".join(map(str, self.seeds))),
            ("training span ends", f"{self.trained_until}, {self.age_days:,} days before"),
            ("data of the run end", self.data_until),
            ("hash of these data", self.data_hash[:16] or "none"),
            *((f"certified, {run}", told) for run, told in self.granted.items()),
            ("last study", self.study),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dict(vars(self))


def card_of(todays: Sequence[Today], studies: Path) -> AgentCard:
    """Make the card of the agents of some runs.

    Args:
        todays: the market of each run at the close of the decision.
        studies: folder whose newest study of the market is quoted.

    Returns:
        The card.
    """
    first = todays[0]
    run = first.run
    last = run.origin.spans["train"][1]
    return AgentCard(
        market=first.market.name,
        seeds=tuple(seed for today in todays for seed in today.run.seeds),
        trained_until=last,
        data_until=run.origin.last_day.isoformat(),
        age_days=(first.day - date.fromisoformat(last)).days,
        data_hash=run.origin.data_hash,
        granted={str(today.run.log_dir): _granted(today.run.log_dir) for today in todays},
        study=last_study(studies, first.market.name),
    )


def last_study(studies: Path, market: str) -> str:
    """Quote the verdict of the study of a market that was written last.

    Args:
        studies: folder of studies; need not exist.
        market: name of the profile.

    Returns:
        A sentence with the name of the study; `NO_STUDY` where there is none.
    """
    found = sorted(studies.glob(f"*/{FIGURES}"), key=lambda path: (path.stat().st_mtime, path))
    for path in reversed(found):
        plan = path.parent / STUDY
        if not plan.is_file() or market not in read_json(plan, "hrl-sarp evaluate")["markets"]:
            continue
        told = [
            f"{variant}: {sum(line['is_met'] for line in each['lines'])} of "
            f"{len(each['lines'])} lines met"
            for variant, each in read_json(path, "hrl-sarp evaluate --summary-only").items()
        ]
        return f"{path.parent.name}: {'; '.join(told)}"
    return NO_STUDY


def _granted(log_dir: Path) -> str:
    found = read_certification(log_dir)
    if found is None:
        return "nothing was certified; the last pair decides as it was trained"
    macro, micro = (percent(share.granted, 0) for share in (found.macro, found.micro))
    return f"{macro} of the macro agent, {micro} of the micro agent"
