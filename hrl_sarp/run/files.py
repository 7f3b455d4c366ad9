"""Writes files atomically: a reader sees the old file or the new one, never a part.

A writer fills and locks a temporary file beside the target, then renames it. A temporary file
without a lock was left by a killed writer and is removed. JSON files and hashes are here too.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from filelock import lock_descriptor
from polars.exceptions import PolarsError

from hrl_sarp.errors import DataError, MissingArtifactError, StorageError
from hrl_sarp.run.damage import UNREADABLE

PACKAGE = Path(__file__).resolve().parents[1]
"""Folder of the source code."""
CHECKSUM = "checksum"
"""Last key of a JSON object that we write: SHA-256 of the object without it."""
_ALIKE = 0.5
"""Share of equal letters from which a key is taken for a damaged `CHECKSUM`."""
_HASH = re.compile("[0-9a-f]{32,}")
"""A checksum, or most of one."""
_MEGABYTE = 1 << 20
_MARK = ".hrl_sarp.tmp"
"""Part of the name of our temporary files, which tells them from other programs' files."""
_UNFINISHED = re.compile(rf"\..+{re.escape(_MARK)}(\.[^.]+)?")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder that replaces `path` if the block succeeds.

    The folder is made if needed; the temporary name keeps the suffix. If the block raises, `path`
    keeps its old content and the temporary file is removed. A full disk or a folder that cannot be
    written to becomes a StorageError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # the name keeps the suffix: numpy and polars choose or append one by it
        descriptor, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.stem}.", suffix=f"{_MARK}{path.suffix}"
        )
    except OSError as error:
        raise unwritable(path, error.strerror or str(error)) from error
    temporary = Path(name)
    try:
        lock_descriptor(descriptor)  # shows that the writer is alive; see `remove_unfinished`
        yield temporary
        _flush_to_disk(temporary)
        mask = os.umask(0)  # the only portable way to read the mask is to set it ...
        os.umask(mask)  # ... and set it back
        temporary.chmod(0o666 & ~mask)  # mkstemp makes files only the owner can read
        temporary.replace(path)
        _flush_to_disk(path.parent)
    except OSError as error:
        raise unwritable(path, error.strerror or str(error)) from error
    finally:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> list[Path]:
    """Remove and return the temporary files that killed writers left below a folder.

    Files of other names stay, and so do files whose writer is alive.
    """
    removed = []
    for path in sorted(folder.rglob(f".*{_MARK}*")):
        if not _UNFINISHED.fullmatch(path.name) or not path.is_file():
            continue
        with suppress(FileNotFoundError), path.open("rb") as file:  # finished meanwhile
            if lock_descriptor(file.fileno(), blocking=False):
                path.unlink(missing_ok=True)
                removed.append(path)
    return removed


def unwritable(path: Path, reason: str) -> StorageError:
    """Make the error for a file that cannot be written; it states the free space."""
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free / _MEGABYTE
    return StorageError(
        f"cannot write {path}: {reason} ({free:,.1f} MB free there); make room or choose another "
        "folder, then repeat the command (train: with --resume); files written before are whole"
    )


def write_table(path: Path, frame: pl.DataFrame) -> None:
    """Write a table as zstd Parquet atomically."""
    with atomic_path(path) as temporary:
        try:
            frame.write_parquet(temporary, compression="zstd")
        except PolarsError as error:  # polars wraps what the operating system says
            raise unwritable(path, str(error).splitlines()[0]) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, content.encode())


def link_beside(path: Path, name: str) -> None:
    """Make `path` a link to the file `name` beside it; a copy where links are not allowed."""
    with atomic_path(path) as temporary:
        temporary.unlink()
        try:
            temporary.symlink_to(name)
        except OSError:  # Windows asks for a right that most users lack
            shutil.copyfile(path.with_name(name), temporary)


def has_block(path: Path, name: str) -> bool:
    """Say whether a text file has a line `<!-- name -->`."""
    return path.is_file() and f"<!-- {name} -->\n" in path.read_text(encoding="utf-8")


def require_block(path: Path, name: str) -> tuple[str, str]:
    """Return what stands before and after `<!-- name -->` to `<!-- /name -->` in a text file.

    Raises:
        MissingArtifactError: if there is no file, or no such block in it.
    """
    first, last = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, found, rest = text.partition(first)
    _, closed, after = rest.partition(last)
    if not found or not closed:
        raise MissingArtifactError(
            f"{path}: expected a block from {first.strip()} to {last}, found none; add both lines"
        )
    return before, after


def replace_block(path: Path, name: str, content: str) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->` in a text file."""
    before, after = require_block(path, name)
    block = f"<!-- {name} -->\n{content.strip()}\n<!-- /{name} -->"
    write_text(path, f"{before}{block}{after}")


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; NumPy scalars and arrays, dates and paths become plain values.

    JSON knows no NaN or infinity: both become null. An object gets a last key `checksum`.
    """
    plain = with_checksum(to_plain(content))
    text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: Path, command: str) -> Any:
    """Read a JSON file, without its checksum; messages name the `command` that writes it.

    Raises:
        MissingArtifactError: if there is no such file.
        DataError: if it is no JSON, or was changed after `write_json` wrote it.
    """
    if not path.is_file():
        raise MissingArtifactError(f"{path} does not exist; run `{command}` to write it")
    try:
        return read_sealed(path.read_text(encoding="utf-8"))
    except UNREADABLE as error:
        raise DataError(
            f"{path}: expected JSON, found unreadable content ({error}); run `{command}` again"
        ) from error


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_MEGABYTE):
            digest.update(block)
    return digest.hexdigest()


def sha256_plain(content: Any) -> str:
    """Return the SHA-256 of plain values as 64 hex digits; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def with_checksum(content: Any) -> Any:
    """Add the checksum to an object of plain values; anything else stays as it is."""
    if not isinstance(content, dict):
        return content
    plain = {key: value for key, value in content.items() if key != CHECKSUM}
    return {**plain, CHECKSUM: sha256_plain(plain)}


def read_sealed(text: str | bytes) -> Any:
    """Read JSON and check its checksum, see `without_checksum`.

    Raises:
        ValueError: if it is no JSON, says a key twice, or is not what was written.
    """
    return without_checksum(json.loads(text, object_pairs_hook=_once))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; a key that stands twice is of two objects that damage has joined."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in it")
    return found


def without_checksum(content: Any) -> Any:
    """Check and take out the checksum of an object; one that has none is returned as it is.

    Raises:
        ValueError: if the content is not what was written.
    """
    if not isinstance(content, dict) or not content:
        return content
    *_, last = content
    # the key may be damaged, too; an object without one is of a version or program that writes none
    is_damaged_key = SequenceMatcher(None, last, CHECKSUM).ratio() >= _ALIKE
    is_hash = _HASH.fullmatch(str(content[last])) is not None and not last.endswith("_sha256")
    if CHECKSUM not in content and not is_damaged_key and not is_hash:
        return content
    key = CHECKSUM if CHECKSUM in content else last
    kept = {name: value for name, value in content.items() if name != key}
    if content[key] != sha256_plain(kept):
        raise ValueError("its checksum says that it was changed after it was written")
    return kept


@cache
def source_hash(*parts: str) -> str:
    """Return the SHA-256 of package source, which shows whether other code wrote a file.

    The parts are modules (`data/bars.py`) and whole folders below the package.
    """
    digest = hashlib.sha256()
    for part in parts:
        path = PACKAGE / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(PACKAGE).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def sqlite_url(path: Path) -> str:
    """Return the address of a SQLite file as SQLAlchemy reads it.

    Args:
        path: of the file. Signs that mean something in an address, such as `?`, are escaped.

    Examples:
        >>> sqlite_url(Path("runs/is it?/study.db"))
        'sqlite:///runs/is it%3F/study.db'
    """
    return "sqlite:///" + re.sub("[%?#]", lambda sign: f"%{ord(sign[0]):02X}", str(path))


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def to_plain(value: Any) -> Any:
    """Return what `write_json` writes of a value."""
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return to_plain(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, date | Path):
        return str(value)
    return value
