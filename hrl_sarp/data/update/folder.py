"""Brings a folder of collected data up to date, and keeps account of it in the manifest."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Shaped
from loguru import logger

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.collect import check_files
from hrl_sarp.data.exchange_calendar import sessions_between
from hrl_sarp.data.sources.yahoo import download
from hrl_sarp.data.sources.yahoo.download import YahooRequest
from hrl_sarp.data.sources.yahoo.history import live_link
from hrl_sarp.data.store import (
    MANIFEST_NAME,
    RawData,
    files_hash,
    read_manifest,
    read_raw,
    write_raw,
)
from hrl_sarp.data.update import GOING_ON
from hrl_sarp.data.update.changes import Change
from hrl_sarp.data.update.merge import Update, update
from hrl_sarp.errors import DataError
from hrl_sarp.reporting.table import Table
from hrl_sarp.run.files import sha256_plain

UPDATED, UP_TO_DATE, REFUSED = "updated", "up to date", "refused"
_COLLECT_ANEW = "collect the whole history with `hrl-sarp collect-data --overwrite`"
_SHOWN, _TOLD = 20, 3
"""Changes and symbols that are listed, and changes in a sentence."""


@dataclass(frozen=True)
class Outcome:
    """What `update_folder` did."""

    status: str
    """`updated`, `up to date` or `refused`: changed history needs to be accepted."""
    source: str
    made: Update
    notes: tuple[str, ...]
    """Remarks of the source about the new data."""

    def as_plain(self) -> dict[str, Any]:
        """Return all of it as values of JSON."""
        made = self.made
        return {
            "status": self.status,
            "source": self.source,
            "added": dict(made.added),
            "first_day": None if made.first is None else str(made.first),
            "last_day": None if made.last is None else str(made.last),
            "repeated_bars": made.repeated,
            "new_symbols": list(made.new_symbols),
            "stale_symbols": list(made.stale),
            "absent_symbols": list(made.absent),
            "new_series": list(made.new_series),
            "absent_series": list(made.absent_series),
            "rescaled_symbols": list(made.rescaled),
            "changes": [asdict(change) for change in made.changes],
            "restated": [asdict(change) for change in made.restated],
            "holes": list(made.holes),
            "notes": list(self.notes),
        }

    def _of_series(self) -> list[str]:
        """Name series and own features that come or go, and an index that stands still."""
        made, told = self.made, list[str]()
        if made.new_series:
            told.append(f"new series and own features: {_listed(made.new_series)}")
        if made.absent_series:
            told.append(
                "series and own features that the new data lack, whose last values are carried "
                f"on: {_listed(made.absent_series)}"
            )
        levels = made.raw.index["close"]
        if made.added.get("index") and len(levels) > 1 and levels[-1] == levels[-2]:
            day = made.raw.index["date"][-1]
            told.append(f"the index of {day} has the level before: carried on, or dated late?")
        return told

    def sentences(self) -> list[str]:
        """Say in plain words what a user has to know beside the tables."""
        made, told = self.made, list[str]()
        if not made.repeated:
            told.append(
                "no collected bar is repeated, so a changed history cannot be seen: let the input "
                "begin with the last collected day"
            )
        if made.new_symbols:
            told.append(f"new symbols: {_listed(made.new_symbols)}")
        told += self._of_series()
        if made.rescaled:
            told.append(
                f"adj_close was rescaled by its vendor: the collected days of "
                f"{_listed(made.rescaled)} take the new scale, and their returns stay"
            )
        if made.restated:
            told.append(
                f"provisional values were restated by their vendor and taken: "
                f"{_told(made.restated)}"
            )
        if made.holes:
            told.append(
                f"no bar on a session between collected and new days: {_listed(made.holes)}. They "
                "have no adjusted closes, so that a split or dividend of that session is lost: "
                "give its bars"
            )
        if made.stale:
            told.append(
                f"no bar on {made.last}, though on the last day before: {_listed(made.stale)}"
            )
        if made.absent:
            told.append(
                f"not in the new data at all: {_listed(made.absent)}. That is no delisting: their "
                "rows stay as they are, and a later update may continue them"
            )
        return told


def update_folder(
    data_dir: Path,
    config: RunConfig,
    input_path: Path | None = None,
    macro_path: Path | None = None,
    yahoo_request: YahooRequest | None = None,
    *,
    accept_changes: bool = False,
    provisional_sessions: int = 0,
) -> Outcome:
    """Append what is new to collected data; nothing is written if history changed.

    Args:
        data_dir: what `collect` wrote. Its source is that of the new data.
        config: as at the collection.
        input_path: source files: the whole history again, or any part of it that goes on.
        macro_path: source files: macro series beside it.
        yahoo_request: source yahoo: list of symbols and days. Without a start it begins a month
            before the last collected day, so that changed history is seen.
        accept_changes: whether changed history replaces what was collected.
        provisional_sessions: last collected sessions whose volumes and macro values may be restated
            without that; they are named, too.

    Returns:
        What was added, and what changed.

    Raises:
        DataError: if the new data cannot continue the collected ones, or an option belongs to
            another source.
        MissingArtifactError: if nothing was collected.
    """
    manifest = read_manifest(data_dir)
    verify_updates(manifest, data_dir)
    source = manifest.get("source", "")
    _require_options(source, data_dir, input_path, macro_path, yahoo_request)
    there = read_raw(data_dir)
    new = _fetch(there, data_dir, config, input_path, macro_path, yahoo_request)
    made = update(there, new, _sessions(there, new, config), provisional_sessions)
    if made.refusals:
        more = len(made.refusals) - 1
        told = f" ({more} more such lines)" if more else ""
        hint = "; --start DATE fetches days from then on" if source == "yahoo" else ""
        raise DataError(f"{made.refusals[0]}{hint}{told}; nothing was written")
    status = UPDATED
    if made.is_empty:
        status = UP_TO_DATE
    elif made.changes and not accept_changes:
        status = REFUSED
    else:
        write_raw(made.raw, data_dir, [*manifest.get("updates", []), _entry(manifest, made)])
    logger.info("{}: {}", data_dir, status)
    return Outcome(status, source, made, new.notes)


def verify_updates(manifest: dict[str, Any], data_dir: Path) -> None:
    """Check that each update follows the one before, and that the last one left these files.

    Raises:
        DataError: naming the first update that does not.
    """
    updates = manifest.get("updates", [])
    if not updates:
        return
    path = data_dir / MANIFEST_NAME
    for number, (before, entry) in enumerate(pairwise(updates), start=2):
        if entry.get("parent") != sha256_plain(before):
            raise DataError(
                f"{path}: update {number} of {len(updates)} names the parent "
                f"{entry.get('parent')}, expected {sha256_plain(before)}: the list was changed; "
                f"{_COLLECT_ANEW}"
            )
    if updates[-1].get("files") != files_hash(manifest):
        raise DataError(
            f"{path}: the last update left files of the hash {updates[-1].get('files')}, found "
            f"{files_hash(manifest)}: the list does not belong to these files; {_COLLECT_ANEW}"
        )


def _entry(manifest: dict[str, Any], made: Update) -> dict[str, Any]:
    """Return the manifest's account of an update.

    Its parent is the update before, and for the first one the files as they were collected.
    """
    updates = manifest.get("updates", [])
    changed: Counter[str] = Counter()
    for change in made.changes:
        changed[change.table] += change.count
    return {
        "parent": sha256_plain(updates[-1]) if updates else files_hash(manifest),
        "added": {name: rows for name, rows in made.added.items() if rows},
        "first_day": None if made.first is None else str(made.first),
        "last_day": None if made.last is None else str(made.last),
        "new_symbols": list(made.new_symbols),
        "rescaled_symbols": list(made.rescaled),
        "changed": dict(changed),
        "accepted": [str(change) for change in made.changes],
        "restated": [str(change) for change in made.restated],
    }


def _require_options(
    source: str,
    data_dir: Path,
    input_path: Path | None,
    macro_path: Path | None,
    request: YahooRequest | None,
) -> None:
    if source not in GOING_ON:
        raise DataError(
            f"{data_dir} was collected from the source {source}, which never has new days; "
            f"update-data goes on with {' and '.join(GOING_ON)}"
        )
    if source == "files" and (input_path is None or request is not None):
        raise DataError(
            f"{data_dir} was collected from files: expected --input PATH (a file or folder with "
            "the new days), and no --symbols, --start or --end"
        )
    if source == "yahoo" and (input_path or macro_path or request is None):
        raise DataError(
            f"{data_dir} was collected from yahoo, which is asked again: --input and --macro "
            "belong to the source files"
        )


def _fetch(
    there: RawData,
    data_dir: Path,
    config: RunConfig,
    input_path: Path | None,
    macro_path: Path | None,
    request: YahooRequest | None,
) -> RawData:
    if request is None:
        return check_files(config, input_path, macro_path, there.bars)
    cache_dir = data_dir.parent / "yahoo"
    return download.load_later(request, config, cache_dir, live_link(cache_dir), there)


def _sessions(there: RawData, new: RawData, config: RunConfig) -> Shaped[np.ndarray, " T"]:
    """List the sessions from the first day of either to the last."""
    days = pl.concat([there.bars["date"], new.bars["date"]])
    first, last = days.min(), days.max()
    if not isinstance(first, date) or not isinstance(last, date):
        return np.empty(0, dtype="datetime64[D]")
    calendar, changes = config.market_profile.calendar, config.data.calendar_changes
    return sessions_between(calendar, first, last, changes)


def tables(outcome: Outcome) -> list[Table]:
    """Show what was added, and what changed."""
    made = outcome.made
    days = "" if made.first is None else f"{made.first} to {made.last}"
    rows = [
        (name.replace("_", " "), f"{count:,}", days if name == "bars" else "")
        for name, count in made.added.items()
        if count
    ]
    shown = [Table("Added", ("table", "rows", "days"), rows)] if rows else []
    if made.changes:
        cells = [
            (
                f"{change.table} {change.name}".strip(),
                change.column,
                change.first if change.first == change.last else f"{change.first} to {change.last}",
                str(change.count),
                change.before,
                change.after,
                change.guess,
            )
            for change in made.changes[:_SHOWN]
        ]
        more = len(made.changes) - len(cells)
        header = ("what", "column", "days", "rows", "collected", "now", "looks like")
        shown.append(
            Table(
                "Changed history",
                header,
                cells,
                note=f"{more} more are in the output of --json." if more else "",
                text_columns=frozenset({0, 1, 2, 4, 5, 6}),
            )
        )
    return shown


def _told(changes: Sequence[Change]) -> str:
    more = len(changes) - _TOLD
    words = "; ".join(map(str, changes[:_TOLD]))
    return words + (f"; and {more} more, which the output of --json has" if more > 0 else "")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
