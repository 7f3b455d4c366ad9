"""Sets of arrays that published implementations computed from random weights, where there are any.

A set is weights under published names, arrays, and a JSON of sizes and tolerances.
"""

import json
import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from hrl_sarp.forecasters.contract import History
from hrl_sarp.forecasters.kronos import (
    KronosPredictor,
    KronosTokenizer,
    load_predictor,
    load_tokenizer,
)

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


KRONOS = FOLDER / "kronos"
NAMES = sorted(path.stem for path in KRONOS.glob("*.json"))
every_kronos_set = pytest.mark.parametrize(
    "name",
    NAMES or [pytest.param("none", marks=pytest.mark.skip(f"no sets of arrays in {KRONOS}"))],
)


@dataclass(frozen=True)
class KronosSet:
    """A set of Kronos, and networks of the weights in its files."""

    published: PublishedSet
    tokenizer: KronosTokenizer
    predictor: KronosPredictor

    @property
    def about(self) -> dict[str, Any]:
        return self.published.about

    @property
    def context(self) -> int:
        return self.published.shapes["context"]

    @property
    def horizon(self) -> int:
        return self.published.shapes["prediction"]

    def tensor(self, name: str) -> Tensor:
        return self.published[name]

    def array(self, name: str) -> np.ndarray:
        return self.published[name].numpy()

    def must_equal(self, name: str, found: Tensor | np.ndarray | np.generic) -> None:
        """Compare with an array within what float32 allows; integers exactly."""
        self.published.require_equal(name, torch.as_tensor(found))

    def histories(self, n_columns: int = 6) -> list[History]:
        """Return the series up to the context, with the times that the JSON names."""
        shapes, raw = self.about["shapes"], self.array("raw").copy()
        raw[:, :, n_columns:] = 0.0
        end = self.context + self.horizon
        return [
            _history(str(i), bars, start, shapes["frequency"], self.context, end)
            for i, (bars, start) in enumerate(zip(raw, shapes["first_timestamp"], strict=True))
        ]


def _history(
    symbol: str, bars: np.ndarray, start: str, frequency: str, origin: int, end: int
) -> History:
    times = pd.date_range(start, periods=len(bars), freq=frequency).to_numpy()
    known = bars[:origin]
    return History(symbol, times[:origin], known[:, 3], times[origin:end], known)


@cache
def kronos_set(name: str) -> KronosSet:
    """Read a set; its networks have no config.json, so their sizes come from the tensors."""
    return KronosSet(
        PublishedSet.read(KRONOS / f"{name}.json"),
        load_tokenizer(KRONOS / f"{name}_tokenizer.safetensors"),
        load_predictor(KRONOS / f"{name}_model.safetensors"),
    )
