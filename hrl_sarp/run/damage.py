"""Reads files so that damage is found: what an error of a library means, archives, sealed texts.

A changed byte must end in an error that names the file, or leave the value as it was written.
"""

import hashlib
import io
import struct
import zlib
from pathlib import Path
from pickle import PickleError
from zipfile import BadZipFile, ZipFile

import numpy as np
from polars.exceptions import PanicException, PolarsError
from safetensors import SafetensorError

UNREADABLE: tuple[type[Exception], ...] = (
    *(OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(AssertionError, EOFError, MemoryError, SyntaxError),
    *(BadZipFile, PickleError, struct.error, zlib.error),
)
"""What NumPy, PyTorch, zipfile and others raise over a damaged file, depending on where it is."""
UNREADABLE_TENSORS: tuple[type[Exception], ...] = (SafetensorError, *UNREADABLE)
"""The same for safetensors."""
UNREADABLE_TABLE: tuple[type[BaseException], ...] = (PolarsError, PanicException, *UNREADABLE)
"""The same for Parquet: polars panics over some damage."""
_FOLDER = 0x10
"""Attribute of a part of an archive."""
_SEAL = "# sha256 of the lines between: "
"""Begins the first and the last line of a sealed text. YAML reads them as comments."""


def sealed(text: str) -> str:
    """Put a line with the checksum of a text before and after it, so that no cut loses both."""
    line = _seal(text.encode()).decode()
    return f"{line}{text}{line}"


def has_broken_seal(content: bytes) -> bool:
    """Say whether a text was changed after `sealed`; a text without such lines was not."""
    if _SEAL.encode() not in content:
        return False
    size = len(_seal(b""))
    text = content[size:-size]
    return content != _seal(text) + text + _seal(text)


def _seal(text: bytes) -> bytes:
    return f"{_SEAL}{hashlib.sha256(text).hexdigest()}\n".encode()


def require_intact(path: Path) -> None:
    """Check every byte of a zip archive against its checksum. PyTorch loads damaged bits silently.

    Raises:
        BadZipFile: if one differs, or another error of `UNREADABLE`.
    """
    with ZipFile(path) as archive:
        damaged = archive.testzip()
        odd = [entry.filename for entry in archive.infolist() if entry.external_attr & _FOLDER]
    if odd:  # PyTorch reads zeros from what claims to be a folder
        raise BadZipFile(f"{odd[0]} is marked as a folder")
    if damaged is not None:
        raise BadZipFile(f"{damaged} does not match its checksum")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of an npz file, each checked as a whole; code in the file never runs.

    NumPy's own reader checks a part only where a damaged header asks for fewer bytes.

    Raises:
        Exception: one of `UNREADABLE` for a damaged file.
    """
    with ZipFile(io.BytesIO(path.read_bytes())) as archive:
        parts = {name: io.BytesIO(archive.read(name)) for name in archive.namelist()}
    return {
        name.removesuffix(".npy"): np.lib.format.read_array(part, allow_pickle=False)
        for name, part in parts.items()
    }
