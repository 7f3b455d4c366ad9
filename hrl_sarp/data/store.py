"""Raw data in memory (`RawData`) and on disk (`data/raw`): Parquet files and a manifest of hashes.

The data are stored as collected. `quality/` checks them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from hrl_sarp.errors import DataError, HrlSarpError, MissingArtifactError
from hrl_sarp.run.damage import UNREADABLE_TABLE
from hrl_sarp.run.files import (
    read_json,
    remove_unfinished,
    sha256_file,
    sha256_plain,
    write_json,
    write_table,
)

COLLECT_COMMAND = "hrl-sarp collect-data"
MANIFEST_NAME = "manifest.json"

PRICE_COLUMNS = ("open", "high", "low", "close")
BARS_SCHEMA = pl.Schema(
    {
        "date": pl.Date(),
        "symbol": pl.String(),
        "open": pl.Float64(),
        "high": pl.Float64(),
        "low": pl.Float64(),
        "close": pl.Float64(),
        "volume": pl.Float64(),
        "adj_close": pl.Float64(),
        "dividend": pl.Float64(),
        "split": pl.Float64(),
    }
)
SECTORS_SCHEMA = pl.Schema({"symbol": pl.String(), "sector": pl.String()})
MACRO_SCHEMA = pl.Schema({"date": pl.Date(), "series": pl.String(), "value": pl.Float64()})
INDEX_SCHEMA = pl.Schema({"date": pl.Date(), "close": pl.Float64()})
FEATURES_SCHEMA = pl.Schema(
    {"date": pl.Date(), "symbol": pl.String(), "name": pl.String(), "value": pl.Float64()}
)
OWN_FEATURES_SCHEMA = pl.Schema(
    {
        "date": pl.Date(),
        "known_at": pl.Date(),
        "symbol": pl.String(),
        "name": pl.String(),
        "value": pl.Float64(),
    }
)
MEMBERSHIP_SCHEMA = pl.Schema({"symbol": pl.String(), "start": pl.Date(), "end": pl.Date()})
FINDINGS_SCHEMA = pl.Schema(
    {
        "symbol": pl.String(),
        "date": pl.Date(),
        "value": pl.Float64(),
        "rule": pl.String(),
        "count": pl.Int64(),
        "detail": pl.String(),
    }
)


class FileReading(NamedTuple):
    """What of one file was read as what."""

    file: str
    """Its name."""
    layout: str
    """Its separator and header in words."""
    columns: tuple[tuple[str, str], ...]
    """Each heading that is read, and our name of the column."""
    n_rows: int
    first: str
    """First day; empty if it has none."""
    last: str
    symbols: tuple[str, ...]
    """Symbols in it, sorted; empty for a table without symbols."""


@dataclass(frozen=True)
class RawData:
    """The data of one source; frames are sorted by symbol or series, then date."""

    bars: pl.DataFrame
    """`BARS_SCHEMA`. Prices and volume are as traded. A dividend is cash per share on the ex-date.
    A split is new shares for an old one on its date, else 1. Unknown open, high, low, volume and
    adj_close are null."""
    sectors: pl.DataFrame
    """`SECTORS_SCHEMA`, one row per symbol."""
    macro: pl.DataFrame
    """`MACRO_SCHEMA`, by reference date: the market adds release delays. May be empty."""
    index: pl.DataFrame
    """`INDEX_SCHEMA`, the benchmark's level; may be empty."""
    source: str
    """Name of the source: sample, synthetic, files or yahoo."""
    adjustment: str
    """Sentence that says how closes and adj_close relate."""
    survivorship: str
    """Sentence that says whether delisted stocks are missing."""
    features: pl.DataFrame | None = None
    """`FEATURES_SCHEMA`: planted features of a synthetic market."""
    own_features: pl.DataFrame | None = None
    """`OWN_FEATURES_SCHEMA`: features of the user's, public on `known_at`; null symbols are of the
    market."""
    membership: pl.DataFrame | None = None
    """`MEMBERSHIP_SCHEMA`: when a symbol belonged to the universe."""
    notes: tuple[str, ...] = ()
    """Remarks of the source: what it left out, and which defaults it took."""
    import_findings: pl.DataFrame | None = None
    """`FINDINGS_SCHEMA`: rows that the source could not read. Validation repeats them. None if it
    read everything."""
    readings: tuple[FileReading, ...] = ()
    """What the source `files` read as what, a file each. Not written with the data."""


class _Table(NamedTuple):
    """One frame of `RawData` and its file."""

    field: str
    path: str
    schema: Mapping[str, Any]  # a pl.Schema; its own name trips the run-time checks of tests
    is_optional: bool = False


_TABLES = (
    _Table("bars", "market/bars.parquet", BARS_SCHEMA),
    _Table("index", "market/index.parquet", INDEX_SCHEMA),
    _Table("macro", "macro/macro.parquet", MACRO_SCHEMA),
    _Table("sectors", "sectors.parquet", SECTORS_SCHEMA),
    _Table("features", "planted_features.parquet", FEATURES_SCHEMA, is_optional=True),
    _Table("own_features", "own_features.parquet", OWN_FEATURES_SCHEMA, is_optional=True),
    _Table("membership", "membership.parquet", MEMBERSHIP_SCHEMA, is_optional=True),
    _Table("import_findings", "import_findings.parquet", FINDINGS_SCHEMA, is_optional=True),
)
_TEXT_KEYS = ("source", "adjustment", "survivorship")


def write_raw(raw: RawData, data_dir: Path, updates: Sequence[Mapping[str, Any]] = ()) -> Path:
    """Write the frames as Parquet and their hashes as the manifest; return the manifest's path.

    New tables wait beside the old ones until the manifest names them, and take their place then.
    So `read_raw` of a folder whose writer was killed gives the old data or the new, and the next
    write finishes or removes what the killed one left.

    Args:
        raw: what is written.
        data_dir: the folder.
        updates: the manifest's list of updates, the oldest first. The last one gets `files`, the
            hash of the files that it leaves.
    """
    remove_unfinished(data_dir)
    _settle(data_dir)
    files = {}
    for table in _TABLES:
        frame: pl.DataFrame | None = getattr(raw, table.field)
        if frame is None:
            continue
        waiting = _waiting(data_dir / table.path)
        write_table(waiting, frame)
        files[table.path] = {"rows": frame.height, "sha256": sha256_file(waiting)}
    # without time and user name, the same data give the same manifest, byte for byte
    manifest: dict[str, Any] = {
        "created_by": f"{COLLECT_COMMAND} --source {raw.source}",
        "source": raw.source,
        "symbols": raw.bars["symbol"].unique().sort().to_list(),
        "spans": {
            name: None if days.is_empty() else [str(days.min()), str(days.max())]
            for name in ("bars", "index", "macro")
            for days in [getattr(raw, name)["date"]]
        },
        "adjustment": raw.adjustment,
        "survivorship": raw.survivorship,
        "notes": list(raw.notes),
        "files": files,
    }
    if updates:
        last = {**updates[-1], "files": files_hash(manifest)}
        manifest["updates"] = [*updates[:-1], last]
    write_json(data_dir / MANIFEST_NAME, manifest)
    _settle(data_dir)
    return data_dir / MANIFEST_NAME


def _waiting(path: Path) -> Path:
    """Name the file in which a table waits for the manifest."""
    return path.with_name(f"{path.stem}.next{path.suffix}")


def _settle(data_dir: Path) -> None:
    """Move waiting tables that the manifest names into their place, and remove all others."""
    try:
        files = read_manifest(data_dir)["files"]
    except HrlSarpError:  # none, or damaged: no table belongs to it
        files = {}
    for table in _TABLES:
        path = data_dir / table.path
        waiting = _waiting(path)
        if waiting.is_file() and sha256_file(waiting) == files.get(table.path, {}).get("sha256"):
            waiting.replace(path)
        waiting.unlink(missing_ok=True)
        if files and table.path not in files:
            path.unlink(missing_ok=True)  # an earlier source may have written it


def files_hash(manifest: Mapping[str, Any]) -> str:
    """Hash the hashes of a manifest's files: the same tables give the same 64 hex digits."""
    return sha256_plain(manifest["files"])


def read_manifest(data_dir: Path) -> dict[str, Any]:
    """Read the manifest that `write_raw` wrote, without touching the tables."""
    manifest = read_json(data_dir / MANIFEST_NAME, COLLECT_COMMAND)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise _broken(data_dir / MANIFEST_NAME, "a manifest with `files`", "something else")
    return manifest


def read_raw(data_dir: Path) -> RawData:
    """Read what `write_raw` wrote, after checking every hash and schema."""
    manifest = read_manifest(data_dir)
    frames: dict[str, Any] = {
        table.field: _read_table(data_dir, table, manifest["files"]) for table in _TABLES
    }
    missing = [key for key in _TEXT_KEYS if key not in manifest]
    if missing:
        raise _broken(data_dir / MANIFEST_NAME, f"the key {missing[0]}", "none")
    texts = {key: manifest[key] for key in _TEXT_KEYS}
    return RawData(**frames, **texts, notes=tuple(manifest.get("notes", ())))


def read_sector_names(data_dir: Path) -> list[str]:
    """Return the sectors of the collected data in alphabetical order; only their table is read."""
    manifest = read_manifest(data_dir)
    (table,) = (table for table in _TABLES if table.field == "sectors")
    frame = _read_table(data_dir, table, manifest["files"])
    return [] if frame is None else sorted(set(frame["sector"].drop_nulls()))


def is_same(first: RawData, second: RawData) -> bool:
    """Say whether two data sets would be written alike, apart from their remarks."""
    for table in _TABLES:
        one, other = (getattr(raw, table.field) for raw in (first, second))
        if (one is None) != (other is None) or (one is not None and not one.equals(other)):
            return False
    return all(getattr(first, key) == getattr(second, key) for key in _TEXT_KEYS)


def _read_table(
    data_dir: Path, table: _Table, files: dict[str, dict[str, Any]]
) -> pl.DataFrame | None:
    path = data_dir / table.path
    entry = files.get(table.path)
    if entry is None and table.is_optional:
        return None
    waiting = _waiting(path)
    if entry is not None and waiting.is_file() and sha256_file(waiting) == entry.get("sha256"):
        path = waiting  # its writer was killed after the manifest
    if entry is None or not path.is_file():
        raise MissingArtifactError(f"{path} does not exist; run `{COLLECT_COMMAND}` to write it")
    found = sha256_file(path)
    if found != entry.get("sha256"):
        expected = f"sha256 {entry.get('sha256')} as collected"
        raise _broken(path, expected, f"{found}: the file changed since")
    try:
        frame = pl.read_parquet(path)
    except UNREADABLE_TABLE as error:
        raise _broken(path, "a Parquet file", f"unreadable content ({error})") from error
    if frame.schema != table.schema:
        wanted, there = (
            ", ".join(f"{name} {dtype}" for name, dtype in schema.items())
            for schema in (table.schema, frame.schema)
        )
        raise _broken(path, f"columns {wanted}", there)
    return frame


def _broken(path: Path, expected: str, found: str) -> DataError:
    return DataError(f"{path}: expected {expected}, found {found}; run `{COLLECT_COMMAND}` again")
