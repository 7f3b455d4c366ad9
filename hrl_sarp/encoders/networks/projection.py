"""Projects embeddings on principal components that are fitted on the training span."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hrl_sarp.errors import CheckpointError, DataError, MissingArtifactError
from hrl_sarp.run.damage import UNREADABLE_TENSORS
from hrl_sarp.run.files import atomic_path, sha256_plain

PROJECTION = "projection.safetensors"
"""File name, in the folder of the encoder."""
SMALLEST_SHARE = 1e-7
"""Share of the total variance: a component below it is rounding noise and becomes 0."""
METADATA = "facts"
"""Entry of the file's header that holds `FACTS`, as JSON."""
FACTS = ("encoder_hash", "fitted_from", "fitted_to")
DIGEST = "tensors"
"""Entry of the facts: SHA-256 of names, shapes and values."""


@dataclass(frozen=True)
class Projection:
    """Projects embeddings to E columns of mean 0 and variance 1 over the training windows.

    All columns have the scale of the other stock features. Otherwise the agents' networks would
    ignore columns that are a hundred times smaller.

    Examples:
        >>> points = np.array([[3, 1], [-3, 1], [3, -1], [-3, -1]], dtype=np.float32)
        >>> projection = fit_projection(points, size=1)  # the first column varies most
        >>> projection(torch.from_numpy(points)).flatten().round().tolist()
        [1.0, -1.0, 1.0, -1.0]
    """

    mean: Float[Tensor, " H"]
    components: Float[Tensor, "H E"]
    """Already divided by the deviation of each component."""
    explained: float
    """Share of the variance that the components explain."""

    def __call__(self, embedding: Float[Tensor, "B H"]) -> Float[Tensor, "B E"]:
        """Project embeddings: mean 0 and variance 1 over the windows it was fitted on."""
        return (embedding - self.mean) @ self.components

    def to(self, device: torch.device | str) -> "Projection":
        """Return the same projection on a device."""
        return Projection(self.mean.to(device), self.components.to(device), self.explained)


def fit_projection(embeddings: Float[np.ndarray, "W H"], size: int) -> Projection:
    """Fit principal components of variance 1; one that is only rounding becomes 0.

    The largest entry of each is positive, so that signs are stable.

    Raises:
        DataError: if there are too few windows, or they all embed alike.
    """
    n_windows, width = embeddings.shape
    if n_windows <= size or size > width:
        raise DataError(
            f"cannot fit {size} principal components: expected more windows than components and "
            f"at least as many columns, found {n_windows} windows of {width} columns; lower "
            "encoders.panel.embedding_size or stride"
        )
    total = float(embeddings.var(axis=0, dtype=np.float64).sum())
    if not np.isfinite(total) or total <= 0:
        raise DataError(
            f"cannot fit principal components: {n_windows} windows embed alike (total variance "
            f"{total}); pretrain the encoder again"
        )
    from sklearn.decomposition import PCA  # only fitting needs it

    fitted = PCA(size, svd_solver="covariance_eigh").fit(embeddings.astype(np.float64))
    axes, share = fitted.components_.T, fitted.explained_variance_ratio_
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(size)])
    deviation = np.sqrt(share * total)  # scikit-learn divides by one window less
    is_noise = share < SMALLEST_SHARE
    scale = np.where(is_noise, 0.0, 1.0 / np.where(is_noise, 1.0, deviation))
    return Projection(
        torch.from_numpy(fitted.mean_.astype(np.float32)),
        torch.from_numpy((axes * signs * scale).astype(np.float32)),
        float(share.sum()),
    )


def save_projection(path: Path, projection: Projection, facts: dict[str, str]) -> None:
    """Write a projection as safetensors, with `FACTS`: the span it was fitted on, its encoder."""
    tensors = {
        "mean": projection.mean.contiguous(),
        "components": projection.components.contiguous(),
        "explained": torch.tensor([projection.explained], dtype=torch.float64),
    }
    # one entry, because safetensors writes several in an order that changes from run to run
    kept = {name: facts[name] for name in FACTS}
    written = json.dumps({**kept, DIGEST: _digest(tensors, kept)})
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {METADATA: written})


def load_projection(path: Path, command: str) -> tuple[Projection, dict[str, str]]:
    """Read a projection and its facts; errors name the command that writes it.

    Raises:
        MissingArtifactError: if there is no such file.
        CheckpointError: if it is damaged or something else.
    """
    if not path.is_file():
        raise MissingArtifactError(f"no projection at {path}: run `{command}` first")
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[METADATA])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- no dict
        kept = {name: facts[name] for name in FACTS}
        # a file of an earlier version has no digest, and nothing else either
        if set(facts) != set(FACTS) and facts.get(DIGEST) != _digest(tensors, kept):
            raise ValueError("its checksum says that it was changed after it was written")
        whole = float(tensors["explained"])
        return Projection(tensors["mean"], tensors["components"], whole), kept
    except UNREADABLE_TENSORS as error:
        raise CheckpointError(
            f"{path} is not a projection of this package ({error}); run `{command}` again"
        ) from error


def _digest(tensors: dict[str, Tensor], facts: dict[str, str]) -> str:
    """Hash what a file says; the order of the entries does not matter."""
    said = {n: [list(t.shape), str(t.dtype), t.flatten().tolist()] for n, t in tensors.items()}
    return sha256_plain({"tensors": said, "facts": facts})
