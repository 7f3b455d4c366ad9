"""The table on disk: the right rows, resumable at any byte, made once."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hrl_sarp.config.encoder_schema import JadeConfig
from hrl_sarp.encoders.embedding_table import (
    UNFINISHED,
    EmbeddingJob,
    facts_beside,
    finished_hash,
    read_table,
    write_blocks,
    write_table,
)
from hrl_sarp.encoders.networks.jade import JadeEncoder
from hrl_sarp.encoders.networks.projection import Projection

LENGTH, N_DAYS, N_ASSETS, WIDTH = 5, 30, 3, 4


class Watched(JadeEncoder):
    """Counts batches, and does something at one of them."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(2, JadeConfig(hidden=3, layers=1, dropout=0.0))
        self.batches = 0
        self.killed_at = -1
        self.seconds = 0.0

    def embed(self, x: Tensor) -> Tensor:
        self.batches += 1
        if self.batches == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        return super().embed(x)


def make_job(dtype: str = "float32") -> EmbeddingJob:
    """Return a job of 30 days in blocks of 2: 15 batches."""
    rng = np.random.default_rng(0)
    rows = N_DAYS + LENGTH - 1
    features = torch.from_numpy(rng.normal(size=(N_ASSETS * rows, 2)).astype(np.float32))
    starts = np.arange(N_DAYS)[:, None] + rows * np.arange(N_ASSETS)
    starts[rng.random(starts.shape) < 0.2] = -1
    return EmbeddingJob(
        encoder=Watched().eval(),
        projection=Projection(torch.full((6,), 0.1), torch.randn(6, WIDTH), 1.0),
        features=features,
        starts=starts,
        length=LENGTH,
        block_windows=2 * N_ASSETS,
        dtype=dtype,
    )


@pytest.fixture
def job() -> EmbeddingJob:
    torch.manual_seed(1)
    return make_job()


def batches(job: EmbeddingJob) -> int:
    assert isinstance(job.encoder, Watched)
    return job.encoder.batches


def test_each_row_is_its_window_on_its_own_and_0_where_there_is_none(
    job: EmbeddingJob, tmp_path: Path
) -> None:
    write_table(job, tmp_path / "table.npy", "test")
    table = read_table(tmp_path / "table.npy")
    assert isinstance(table, np.memmap)
    assert table.shape == (N_DAYS, N_ASSETS, WIDTH)
    for day, stock in np.ndindex(N_DAYS, N_ASSETS):
        first = job.starts[day, stock]
        if first < 0:
            assert not table[day, stock].any()
            continue
        window = job.features[first : first + LENGTH][None]
        with torch.no_grad():
            expected = job.projection(job.encoder.embed(window))[0]
        np.testing.assert_allclose(table[day, stock], expected, atol=1e-6)


def test_a_killed_writer_is_continued_to_the_same_bytes(job: EmbeddingJob, tmp_path: Path) -> None:
    path, whole = tmp_path / "table.npy", tmp_path / "whole.npy"
    expected = write_table(job, whole, "test")
    child = os.fork()
    if child == 0:  # pragma: no cover -- killed
        # a copy has none of PyTorch's threads: with more than one it would wait for them for ever
        torch.set_num_threads(1)
        signal.alarm(60)
        assert isinstance(job.encoder, Watched)
        job.encoder.batches, job.encoder.killed_at = 0, 7
        write_table(job, path, "test")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert not path.exists()
    before = batches(job)
    assert write_table(job, path, "test") == expected
    assert batches(job) - before == 15 - 6  # six blocks of two days were there
    assert path.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob(f"*{UNFINISHED}"))


@pytest.mark.parametrize("n_bytes", [0, 50, 1000])
def test_what_was_half_written_is_written_again(
    n_bytes: int, job: EmbeddingJob, tmp_path: Path
) -> None:
    path, whole = tmp_path / "table.npy", tmp_path / "whole.npy"
    expected = write_table(job, whole, "test")
    (tmp_path / f"table.npy{UNFINISHED}").write_bytes(whole.read_bytes()[:n_bytes])
    assert write_table(job, path, "test") == expected
    assert path.read_bytes() == whole.read_bytes()


def test_a_finished_table_is_not_made_again(job: EmbeddingJob, tmp_path: Path) -> None:
    path = tmp_path / "table.npy"
    assert finished_hash(path) is None
    first = write_table(job, path, "test")
    done = batches(job)
    assert finished_hash(path) == first
    assert write_table(job, path, "test") == first
    assert batches(job) == done


def test_a_damaged_table_is_made_again(job: EmbeddingJob, tmp_path: Path) -> None:
    path = tmp_path / "table.npy"
    first = write_table(job, path, "test")
    path.write_bytes(path.read_bytes()[:200])
    assert finished_hash(path) is None
    assert write_table(job, path, "test") == first


def test_two_writers_of_one_table_make_it_once(job: EmbeddingJob, tmp_path: Path) -> None:
    assert isinstance(job.encoder, Watched)
    job.encoder.seconds = 0.02
    found: list[str] = []
    writers = [
        threading.Thread(
            target=lambda: found.append(write_table(job, tmp_path / "table.npy", "test"))
        )
        for _ in range(2)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(set(found)) == 1
    assert len(found) == 2
    assert batches(job) == 15
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.json", "table.npy"]


def test_bfloat16_takes_half_the_space_and_keeps_8_bits(job: EmbeddingJob, tmp_path: Path) -> None:
    write_table(job, tmp_path / "full.npy", "test")
    write_table(replace(job, dtype="bfloat16"), tmp_path / "half.npy", "test")
    full, half = read_table(tmp_path / "full.npy"), read_table(tmp_path / "half.npy")
    assert half.dtype == np.float32
    # rounding to 8 significant bits is off by at most 2^-8 of the value
    np.testing.assert_allclose(half, full, rtol=2**-8)
    stored = (tmp_path / "half.npy").stat().st_size - 128
    assert stored == 2 * full.size


def test_facts_of_a_writer_stand_beside_its_table(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    path = tmp_path / "own.npy"
    given = values.shape, values.dtype, 3, lambda days: values[days], "test", {"unit": [1.5]}
    content = write_blocks(path, *given)
    np.testing.assert_array_equal(read_table(path), values)
    assert facts_beside(path) == {"content": content, "shape": [4, 3, 2], "unit": [1.5]}
