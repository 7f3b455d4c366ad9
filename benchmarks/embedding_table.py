"""Windows per second while a table of embeddings is written, beside the encoder's bare forward.

Both take the configured sizes; the bare forward gets batches that lie ready in memory, as large as
the table's blocks. A table also gathers windows, projects, and writes to disk. Run:
`python -m benchmarks.embedding_table`. Writes `logs/benchmarks/embedding_table.json`.
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks import cases, timing
from hrl_sarp.encoders.embedding_table import EmbeddingJob, write_table
from hrl_sarp.encoders.networks import EncoderKind, PanelEncoder, build_encoder
from hrl_sarp.encoders.networks.projection import Projection
from hrl_sarp.encoders.windows.panel import panel_columns

N_DAYS, N_STOCKS, REPEATS = 16, 99, 5
TARGET_RATIO = 0.9
KINDS: tuple[EncoderKind, ...] = ("jade", "transformer")


def make_job(kind: EncoderKind) -> EmbeddingJob:
    """Draw bars of 99 stocks with a window each on every one of 16 days."""
    whole = cases.configuration()
    config, panel = whole.encoders, whole.encoders.panel
    n_features = len(panel_columns(kind, whole.windowed.feature_config))
    rows = N_DAYS + panel.window_length - 1
    torch.manual_seed(0)
    encoder = build_encoder(kind, n_features, config).eval()
    return EmbeddingJob(
        encoder=encoder,
        projection=Projection(
            torch.zeros(encoder.width), torch.randn(encoder.width, panel.embedding_size), 1.0
        ),
        features=torch.randn(N_STOCKS * rows, n_features),
        starts=np.arange(N_DAYS)[:, None] + rows * np.arange(N_STOCKS),
        length=panel.window_length,
        block_windows=panel.block_windows,
        dtype=panel.dtype,
    )


def embed_all(job: EmbeddingJob) -> None:
    """Write the whole table into a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        write_table(job, Path(folder) / "table.npy", "benchmark")


def forward_all(encoder: PanelEncoder, windows: torch.Tensor, n_batches: int) -> None:
    """Embed the same batch again and again."""
    with torch.inference_mode():
        for _ in range(n_batches):
            encoder.embed(windows)


def measure(kind: EncoderKind) -> tuple[dict[str, timing.Rate], dict[str, float]]:
    """Return the rates of both ways, and the ratio of the table's to the bare one."""
    job = make_job(kind)
    batch, n_batches = job.days_per_block * N_STOCKS, N_DAYS // job.days_per_block
    windows = torch.randn(batch, job.length, job.features.shape[1])
    table, bare = f"{kind}: table", f"{kind}: bare forward"
    rates = timing.alternate(
        {
            table: (partial(embed_all, job), N_DAYS * N_STOCKS),
            bare: (partial(forward_all, job.encoder, windows, n_batches), n_batches * batch),
        },
        REPEATS,
    )
    return rates, timing.ratio(rates[table], rates[bare])


def main() -> None:
    """Measure and print."""
    rates: dict[str, timing.Rate] = {}
    ratios: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        found, ratios[kind] = measure(kind)
        rates |= found
    timing.publish("embedding_table", rates, "windows", ratios=ratios, target_ratio=TARGET_RATIO)


if __name__ == "__main__":
    main()
