"""Sets of arrays that published implementations computed from random weights, where there are any.

A set is weights under published names, arrays, and a JSON of sizes and tolerances.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

SHARED = Path(os.environ.get("HRL_SARP_DATA") or Path(__file__).parents[3] / "shared" / "data")
FOLDER = SHARED.parent / "fixtures" / "forecasters"
LEAST_TOLERANCE, NOISE_FACTOR = 1e-5, 30.0


@dataclass(frozen=True)
class PublishedSet:
    """One set, read."""

    path: Path
    """Beginning of the names of its files."""
    about: dict[str, Any]
    arrays: dict[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> "PublishedSet":
        with np.load(path.with_suffix(".npz")) as arrays:
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return cls(path, json.loads(path.with_suffix(".json").read_text()), tensors)

    def __getitem__(self, name: str) -> Tensor:
        return self.arrays[name]

    @property
    def shapes(self) -> dict[str, int]:
        return self.about["shapes"]

    def folder(self, place: Path) -> Path:
        """Lay the weights and their configuration out as their makers publish them."""
        shutil.copy(self.path.with_suffix(".safetensors"), place / "model.safetensors")
        (place / "config.json").write_text(json.dumps(self.about["config"]))
        return place

    def require_equal(self, name: str, ours: Tensor) -> None:
        """Compare with an array as far as float32 allows; integers exactly."""
        theirs = self.arrays[name]
        assert ours.shape == theirs.shape, f"{name}: {tuple(ours.shape)} {tuple(theirs.shape)}"
        if not theirs.is_floating_point():
            assert torch.equal(ours, theirs), name
            return
        noise = self.about["float32_noise"].get(name, 0.0)
        difference = (ours.detach().double() - theirs.double()).abs().max()
        found = float(difference / theirs.double().abs().max())
        assert found <= max(NOISE_FACTOR * noise, LEAST_TOLERANCE), f"{name}: {found:.1e}"


def sets_of(model: str) -> list[Any]:
    """Return a parameter for each set of a model; one that is skipped where there are none."""
    found = sorted((FOLDER / model).glob("*.json"))
    if not found:
        reason = f"no published arrays: set HRL_SARP_DATA to a folder beside {FOLDER.parent.name}"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason))]
    return [pytest.param(PublishedSet.read(path), id=path.stem) for path in found]
