"""The command `runs`: every run, report and study below a folder, on one page with its verdict."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hrl_sarp.errors import HrlSarpError
from hrl_sarp.evaluation.baselines import EQUAL_WEIGHT
from hrl_sarp.evaluation.report.files import METRICS_NAME, REPORT_NAME
from hrl_sarp.evaluation.statistics import Interval, verdict
from hrl_sarp.reporting.page import Section, page
from hrl_sarp.reporting.table import NONE, Table, number, percent
from hrl_sarp.run.files import read_json, write_text
from hrl_sarp.run.phases import BACKTESTS, PHASES, SEEDS
from hrl_sarp.studies.cell import FAILURE, RESULT, SCREEN
from hrl_sarp.studies.evaluate import STUDY
from hrl_sarp.studies.tuning import PAGE as SEARCH_PAGE
from hrl_sarp.studies.tuning import SEARCH, TRIALS
from hrl_sarp.studies.walk_forward.evidence import MARGIN
from hrl_sarp.studies.walk_forward.report import FIGURES, PAGE, TABLE

INDEX, KNOWN_MARKETS = "index.html", "known_markets.json"
"""The page; and what the command `known-markets` writes first: markets and number of seeds."""
RUN_HEADER = (
    "run", "phases", "seeds", "market", "span", "policy", "volatility", "1/N's",
    "growth over 1/N, % a year", "verdict", "changed",
)  # fmt: skip
STUDY_HEADER = (
    "study", "markets", "cells", "failed", "variant", "lines met", "growth over 1/N, % a year",
    "verdict", "changed",
)  # fmt: skip
RUNS, STUDIES = "Runs and reports", "Studies"
TELLING = {
    RUNS: ("run", "verdict", "volatility", "1/N's", "market", "phases", "changed",
           "growth over 1/N, % a year", "policy", "seeds", "span"),
    STUDIES: ("study", "lines met", "variant", "verdict", "cells", "failed", "changed",
              "growth over 1/N, % a year", "markets"),
}  # fmt: skip
"""Columns in the order in which a narrow terminal keeps them."""
NO_TABLE = (NONE, NONE, "not finished")
"""Lines met, growth and verdict of a study that has cells at most: its command goes on."""
NUMBERS = ("seeds", "volatility", "1/N's", "cells", "failed", "lines met")
"""Columns that are aligned to the right."""


@dataclass(frozen=True)
class Overview:
    """What lies below a folder of logs.

    Examples:
        >>> Overview(Table("Runs", RUN_HEADER, []), Table("Studies", STUDY_HEADER, [])).is_empty
        True
    """

    runs: Table
    """A row for each run without a report, and for each report."""
    studies: Table
    """A row for each variant of each study."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing was found."""
        return not self.runs.rows and not self.studies.rows


def look_through(root: Path) -> Overview:
    """Find every run, report and study below a folder; the newest come first.

    Args:
        root: folder of logs. Cells of studies and inner trainings of runs and searches are not
            listed.

    Returns:
        Two tables whose first columns are links, relative to `root`. What cannot be read is a row
        that says why.

    Raises:
        HrlSarpError: if there is no such folder.
    """
    if not root.is_dir():
        raise HrlSarpError(f"{root}: expected a folder of logs, found none; --logs names another")
    runs, studies, links = list[tuple[str, ...]](), list[tuple[str, ...]](), dict[str, str]()
    for folder in _with_content(root):
        name = folder.relative_to(root).as_posix() if folder != root else "."
        if (folder / STUDY).is_file():
            studies += _readable(_study_rows, folder, name, len(STUDY_HEADER))
            links[name] = _first_of(folder, root, (PAGE, TABLE))
        elif (folder / KNOWN_MARKETS).is_file():
            studies += _readable(_known_rows, folder, name, len(STUDY_HEADER))
            links[name] = _first_of(folder, root, (TABLE,))
        elif (folder / SEARCH).is_file():
            studies += _readable(_search_row, folder, name, len(STUDY_HEADER))
            links[name] = _first_of(folder, root, (SEARCH_PAGE,))
        elif (folder / METRICS_NAME).is_file():
            runs += _readable(_report_row, folder, name, len(RUN_HEADER))
            links[name] = _first_of(folder, root, (REPORT_NAME,))
        elif not any(folder.glob(f"{BACKTESTS}*/{METRICS_NAME}")):  # else its reports are rows
            runs += _readable(_run_row, folder, name, len(RUN_HEADER))
            links[name] = _first_of(folder, root, ())
    return Overview(
        _newest_first(RUNS, RUN_HEADER, runs, links),
        _newest_first(STUDIES, STUDY_HEADER, studies, links),
    )


def write_overview(found: Overview, root: Path) -> Path:
    """Write the page; a click on a heading sorts its table.

    Args:
        found: of `look_through`.
        root: gets `index.html`.

    Returns:
        The page.
    """
    lead = [
        f"Runs and reports: {len(found.runs.rows)}. Studies: "
        f"{len({row[0] for row in found.studies.rows})}. The verdict on growth is by the interval "
        f"alone: better or worse than 1/N, not worse (a loss below {MARGIN} % a year at most), or "
        "no difference shown."
    ]
    tables = [table for table in (found.studies, found.runs) if table.rows]
    sections = [Section(table.title, [table]) for table in tables]
    write_text(root / INDEX, page("Runs and studies", str(root), lead, sections))
    return root / INDEX


def _with_content(folder: Path) -> Iterator[Path]:
    """Walk to every study, search, run and report; nothing below the first two is looked at.

    Cells of studies that have no file of their own are known by what a cell writes.
    """
    if any((folder / name).is_file() for name in (RESULT, FAILURE, SCREEN)):
        return
    is_study = any((folder / name).is_file() for name in (STUDY, SEARCH, KNOWN_MARKETS))
    if is_study or _phases_of(folder) is not None or (folder / METRICS_NAME).is_file():
        yield folder
    if is_study:
        return
    inner = {files.folder for files in PHASES} | {"certification"}
    for child in sorted(folder.iterdir()):
        is_seed = (folder / SEEDS).is_file() and child.name.startswith("seed_")
        if child.is_dir() and not child.is_symlink() and child.name not in inner and not is_seed:
            yield from _with_content(child)


def _readable(
    read: Callable[[Path, str], list[tuple[str, ...]]], folder: Path, name: str, width: int
) -> list[tuple[str, ...]]:
    """Return the rows of a folder, or one that says why it cannot be read."""
    try:
        return read(folder, name)
    except (HrlSarpError, AttributeError, LookupError, TypeError, ValueError) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        return [(name, why, *[NONE] * (width - 3), _changed(folder))]


def _phases_of(folder: Path) -> str | None:
    """Say which phases of a run have finished; None where no run is."""
    if (folder / SEEDS).is_file():
        members = sorted(folder.glob("seed_*"))
        return _phases_of(members[0]) if members else "none"
    if not any((folder / files.folder).is_dir() for files in PHASES):
        return None
    done = [files.number for files in PHASES if (folder / files.folder / files.best[0]).is_file()]
    return ", ".join(map(str, done)) or "none"


def _seeds_of(folder: Path) -> str:
    several = len(list(folder.glob("seed_*"))) if (folder / SEEDS).is_file() else 1
    return str(several)


def _run_row(folder: Path, name: str) -> list[tuple[str, ...]]:
    phases = _phases_of(folder) or NONE
    left = len(RUN_HEADER) - 4
    return [(name, phases, _seeds_of(folder), *[NONE] * left, _changed(folder))]


def _report_row(folder: Path, name: str) -> list[tuple[str, ...]]:
    document = read_json(folder / METRICS_NAME, "hrl-sarp backtest")
    facts, performances = document["provenance"], document["performances"]
    policy = document["headline_policy"]
    own, base = performances[policy], performances[EQUAL_WEIGHT]
    run = folder if _phases_of(folder) else folder.parent
    growth, told = NONE, NONE
    if own["growth_excess"] is not None and policy != EQUAL_WEIGHT:
        excess = Interval(**own["growth_excess"])
        growth, told = _growth(excess, 100.0), verdict(excess, MARGIN / 100)
    return [
        (
            name, _phases_of(run) or NONE, _seeds_of(run), facts["market"],
            f"{facts['span']}, {facts['first_session']} to {facts['last_session']}", policy,
            percent(own["volatility"]), percent(base["volatility"]), growth, told,
            _changed(folder / METRICS_NAME),
        )
    ]  # fmt: skip


def _study_rows(folder: Path, name: str) -> list[tuple[str, ...]]:
    plan = read_json(folder / STUDY, "hrl-sarp evaluate")
    begun = (name, ", ".join(plan["markets"]), *_cells_of(folder))
    path = folder / FIGURES
    if not path.is_file():
        return [(*begun, ", ".join(plan["variants"]), *NO_TABLE, _changed(folder / STUDY))]
    found = read_json(path, "hrl-sarp evaluate --summary-only")
    return [(*begun, *_variant(variant, each), _changed(path)) for variant, each in found.items()]


def _cells_of(folder: Path) -> tuple[str, str]:
    """Count the cells of a study that have finished, and those that have failed."""
    done = {path.parent for path in folder.glob(f"*/{RESULT}")}
    failed = {path.parent for path in folder.glob(f"*/{FAILURE}")} - done
    return str(len(done)), str(len(failed))


def _known_rows(folder: Path, name: str) -> list[tuple[str, ...]]:
    """Return one row: agents are held against the best policy there, not against 1/N alone."""
    plan, command = read_json(folder / KNOWN_MARKETS, "hrl-sarp known-markets"), "known markets"
    begun = (name, ", ".join(plan["markets"]), *_cells_of(folder), command)
    path = folder / FIGURES
    if not path.is_file():
        return [(*begun, *NO_TABLE, _changed(folder / KNOWN_MARKETS))]
    rows = read_json(path, "hrl-sarp known-markets")["rows"]
    lines = [row for row in rows if row["threshold"] is not None]
    missed = [f"{row['market']} {row['figure']}" for row in lines if not row["met"]]
    told = f"missed: {', '.join(missed)}" if missed else "no line missed" if lines else NONE
    met = f"{len(lines) - len(missed)} of {len(lines)}"
    return [(*begun, met, NONE, told, _changed(path))]


def _search_row(folder: Path, name: str) -> list[tuple[str, ...]]:
    about = read_json(folder / SEARCH, "hrl-sarp tune")
    path = folder / TRIALS
    trials = read_json(path, "hrl-sarp tune")["trials"] if path.is_file() else []
    failed = sum(trial["state"] == "fail" for trial in trials)
    begun = (name, about["market"], str(len(trials)), str(failed), "tuning")
    left = [NONE] * 3 if trials else NO_TABLE
    return [(*begun, *left, _changed(path if trials else folder / SEARCH))]


def _variant(name: str, found: dict[str, Any]) -> tuple[str, str, str, str]:
    met = sum(line["is_met"] for line in found["lines"])
    even = {market: by_title[EQUAL_WEIGHT] for market, by_title in found["evidence"].items()}
    growth = [
        f"{market}: {_growth(Interval(**each['growth']), 1.0)}" for market, each in even.items()
    ]
    told = [f"{market}: {each['verdict']}" for market, each in even.items()]
    return name, f"{met} of {len(found['lines'])}", "; ".join(growth), "; ".join(told)


def _growth(each: Interval, scale: float) -> str:
    value, low, high = (number(scale * part, 1) for part in (each.value, each.low, each.high))
    return f"{value} [{low}, {high}]"


def _first_of(folder: Path, root: Path, names: tuple[str, ...]) -> str:
    """Return the first of these files that is there, else the folder, as a link."""
    there = [folder / name for name in names if (folder / name).is_file()]
    return (there[0] if there else folder).relative_to(root).as_posix()


def _changed(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M")


def _newest_first(
    title: str, header: tuple[str, ...], rows: list[tuple[str, ...]], links: dict[str, str]
) -> Table:
    words = frozenset(range(len(header))) - {header.index(h) for h in NUMBERS if h in header}
    ordered = sorted(rows, key=lambda row: row[-1], reverse=True)
    order = tuple(map(header.index, TELLING[title]))
    return Table(title, header, ordered, text_columns=words, links=links, telling=order)
