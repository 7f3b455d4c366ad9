"""Writes the embeddings of all windows of a panel to disk, as a table of days and stocks.

The file is written front to back, some days at a time. So its length tells how many days a killed
process wrote, and the next process continues there with the same bytes. Only one block of windows
is in memory.
"""

import io
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import lock_descriptor
from jaxtyping import Float, Int
from loguru import logger
from torch import Tensor

from hrl_sarp.encoders.networks import PanelEncoder
from hrl_sarp.encoders.networks.projection import Projection
from hrl_sarp.encoders.windows.cut import gather
from hrl_sarp.encoders.windows.panel import NONE
from hrl_sarp.errors import DataError, HrlSarpError
from hrl_sarp.run.damage import UNREADABLE
from hrl_sarp.run.files import read_json, sha256_file, unwritable, write_json
from hrl_sarp.run.terminal import phase_progress

UNFINISHED = ".unfinished"
"""Suffix of a table that is being written."""
STORED_AS: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "bfloat16": np.dtype("<u2")}
"""NumPy has no bfloat16, so its bits (the upper half of a float32) are stored as integers."""
HALF_BITS = 16


@dataclass(frozen=True)
class EmbeddingJob:
    """The windows to embed, the networks that embed them, and the format of the table."""

    encoder: PanelEncoder
    """In evaluation mode."""
    projection: Projection
    features: Float[Tensor, "N F"]
    """One row per bar, on the device of the encoder."""
    starts: Int[np.ndarray, "T A"]
    """First row of the window that ends on a day; -1 without a window, whose embedding is 0."""
    length: int
    """Rows of a window."""
    block_windows: int
    """Windows to embed at once; rounded so that a block holds whole days."""
    dtype: str
    """`float32` or `bfloat16`."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """T, A, E of the table."""
        n_days, n_assets = self.starts.shape
        return n_days, n_assets, int(self.projection.components.shape[1])

    @property
    def days_per_block(self) -> int:
        """Days whose windows are embedded at once."""
        busiest = int((self.starts != NONE).sum(axis=1).max(initial=0))
        return max(1, self.block_windows // max(1, busiest))


def write_table(job: EmbeddingJob, path: Path, title: str) -> str:
    """Write the table of a job and return the hash of its content.

    If an earlier process wrote a part, only the rest is written. If another process is writing the
    table, this one waits for it. The `.npy` file holds (T, A, E), float32 or the bits of bfloat16.
    A JSON beside it holds the hash. Each job needs its own path.

    Raises:
        StorageError: if the disk is full or the folder cannot be written to.
    """

    def embedded(days: slice) -> np.ndarray:
        starts = job.starts[days]
        block = torch.zeros(*starts.shape, job.shape[2])
        here = torch.from_numpy(starts != NONE)
        if bool(here.any()):
            block[here] = embed_windows(job, starts[starts != NONE]).float().cpu()
        if job.dtype == "bfloat16":
            return block.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
        return block.numpy()

    return write_blocks(path, job.shape, STORED_AS[job.dtype], job.days_per_block, embedded, title)


def write_blocks(
    path: Path,
    shape: tuple[int, int, int],
    stored: np.dtype[Any],
    days_per_block: int,
    block: Callable[[slice], np.ndarray],
    title: str,
    facts: Mapping[str, Any] | None = None,
) -> str:
    """Write a table front to back, some days at a time, and return the hash of its content.

    One process writes it under a temporary name, while others wait for it. If an earlier process
    wrote a part, only the rest is written.

    Args:
        path: of the `.npy` file; a JSON beside it holds the hash.
        shape: days, stocks and columns.
        stored: type of the numbers on disk.
        days_per_block: first axis of a block, which is written at once.
        block: makes the days of a slice, whose stop may lie past the last day.
        title: of the progress.
        facts: plain values that are kept beside the hash.

    Returns:
        The hash of the file.

    Raises:
        StorageError: if the disk is full or the folder cannot be written to.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("a+b") as lock:
            if not lock_descriptor(lock.fileno(), blocking=False):
                logger.info(f"waiting for another process that writes {unfinished.name}")
                lock_descriptor(lock.fileno())
            found = finished_hash(path)
            if found is not None:  # another process finished it; a file of this name is new
                unfinished.unlink(missing_ok=True)
                return found
            _append_blocks(unfinished, shape, stored, days_per_block, block, title)
            found = sha256_file(unfinished)
            write_json(
                path.with_suffix(".json"), {**(facts or {}), "content": found, "shape": shape}
            )
            unfinished.replace(path)
            return found
    except OSError as error:
        raise unwritable(path, error.strerror or str(error)) from error


def finished_hash(path: Path) -> str | None:
    """Return the content hash of a finished table; None if it is missing, incomplete or damaged.

    Every byte is read for it.
    """
    if not path.is_file():
        return None
    try:
        content = read_json(path.with_suffix(".json"), "-")["content"]
    except (HrlSarpError, LookupError, TypeError):  # damaged or missing: the table is made again
        return None
    return str(content) if content == sha256_file(path) else None


def facts_beside(path: Path) -> dict[str, Any]:
    """Read what stands beside a finished table: its hash, its shape and the facts of its writer."""
    found: dict[str, Any] = read_json(path.with_suffix(".json"), "-")
    return found


def find_table(folder: Path, content: str) -> Path | None:
    """Find the finished table of a content hash in a folder; None if none is there whole."""
    for described in sorted(folder.glob("*.json")):
        with suppress(HrlSarpError, LookupError, TypeError):  # damaged: it describes no table
            path = described.with_suffix(".npy")
            if read_json(described, "-")["content"] == content == finished_hash(path):
                return path
    return None


def read_table(path: Path) -> Float[np.ndarray, "T A E"]:
    """Map a finished table into memory; bfloat16 is read and converted to float32.

    Raises:
        DataError: if the file is no table. `finished_hash` finds other damage.
    """
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except UNREADABLE as error:
        raise DataError(
            f"{path}: expected a table of embeddings, found something else ({error}); delete it"
        ) from error
    if table.dtype == STORED_AS["float32"]:
        return table
    widened = np.empty(table.shape, dtype=np.uint32)
    np.left_shift(table, HALF_BITS, out=widened, dtype=np.uint32)
    return widened.view(np.float32)


def embed_windows(job: EmbeddingJob, starts: Int[np.ndarray, " W"]) -> Float[Tensor, "W E"]:
    """Embed and project the windows that begin at the rows `starts`."""
    rows = torch.from_numpy(starts).to(job.features.device)
    with torch.inference_mode():
        windows = gather(job.features, rows, job.length)
        return job.projection(job.encoder.embed(windows))


def _append_blocks(
    path: Path,
    shape: tuple[int, int, int],
    stored: np.dtype[Any],
    days_per_block: int,
    block: Callable[[slice], np.ndarray],
    title: str,
) -> None:
    """Append the missing days to the file; an incomplete last block is written again."""
    n_days, day_bytes = shape[0], shape[1] * shape[2] * stored.itemsize
    buffer = io.BytesIO()
    description = np.lib.format.dtype_to_descr(stored)
    fields = {"descr": description, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, fields)
    header = buffer.getvalue()
    with path.open("r+b") as file:
        done = 0
        if file.read(len(header)) == header:
            whole_days = (os.fstat(file.fileno()).st_size - len(header)) // day_bytes
            done = whole_days // days_per_block * days_per_block
        if done:
            logger.info(f"{title}: continues after {done} of {n_days} days")
        file.seek(0)
        file.write(header)
        file.truncate(len(header) + done * day_bytes)
        file.seek(0, os.SEEK_END)
        with phase_progress(title, n_days, done, "days") as bar:
            for day in range(done, n_days, days_per_block):
                written = block(slice(day, day + days_per_block))
                file.write(written.astype(stored, copy=False).tobytes())
                file.flush()
                os.fsync(file.fileno())
                bar.update(min(day + days_per_block, n_days))
