"""Relativity features on disk: computed once per file of bars, configuration and code.

The file is a plain .npy whose name holds the hash of what it was computed from and the checksum of
what it holds, so that neither other bars nor a damaged file can pass for it.
"""

import hashlib
import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from hrl_sarp.config.encoder_schema import RelativityConfig
from hrl_sarp.data.bars import Bars
from hrl_sarp.run.files import atomic_path, remove_unfinished

CODE_FILES = ("relativity.py", "zigzag.py", "../data/bars.py")
"""Sources that shape the table, beside this one."""


def load_relativity(
    bars: Bars, config: RelativityConfig, window_length: int, folder: Path
) -> Float32[np.ndarray, "N 12"]:
    """Return `relativity_features`, from the file that an earlier call left in the folder.

    The file is mapped into memory, not read; what is written to the array stays out of the file.

    Args:
        bars: as `read_bars` returned them.
        config: as for `relativity_features`.
        window_length: as for `relativity_features`.
        folder: for example `data/features`; made when it is missing.

    Raises:
        StorageError: if the folder cannot be written to.
    """
    key = _key(bars, config, window_length)
    for path in folder.glob(f"relativity-{key}-*.npy"):
        table = _mapped(path)
        if table is not None:
            return table
        path.unlink(missing_ok=True)
    # a second to import and compile: not needed where the table is at hand
    from hrl_sarp.features.relativity import relativity_features

    table = relativity_features(bars, config, window_length)
    remove_unfinished(folder)
    with atomic_path(folder / _name(key, table)) as temporary:
        np.save(temporary, table, allow_pickle=False)
    return table


def _key(bars: Bars, config: RelativityConfig, window_length: int) -> str:
    """Hash what the table depends on; a file may be read whole or one symbol at a time."""
    parts = {
        "bars": bars.content_hash,
        "instruments": bars.instruments,
        "n_bars": len(bars),
        "config": config.model_dump(mode="json"),
        "window_length": window_length,
        "code": _code_version(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@cache
def _code_version() -> str:
    sources = (Path(__file__).parent / name for name in CODE_FILES)
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def _name(key: str, table: np.ndarray) -> str:
    return f"relativity-{key}-{zlib.crc32(table.data):08x}.npy"


def _mapped(path: Path) -> np.ndarray | None:
    """Return the array of a file, or None if it does not hold what its name says."""
    try:
        table = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = table.ndim > 0 and table.flags.c_contiguous
    key = path.stem.split("-")[1]
    return table if whole and _name(key, table) == path.name else None
