"""What the published implementation computed from small random weights, as files."""

import json
import os
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

REPOSITORY = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("HRL_SARP_DATA", REPOSITORY.parent / "shared" / "data"))
FOLDER = DATA.parent / "fixtures" / "forecasters" / "kronos"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
every_set = pytest.mark.parametrize(
    "name",
    NAMES or [pytest.param("none", marks=pytest.mark.skip(f"no sets of arrays in {FOLDER}"))],
)
LEAST_TOLERANCE, NOISES = 1e-5, 30


@dataclass(frozen=True)
class ParitySet:
    """One set: networks of the weights in the files, arrays by name, and what the JSON says."""

    about: dict[str, Any]
    arrays: dict[str, np.ndarray]
    tokenizer: KronosTokenizer
    predictor: KronosPredictor

    @property
    def context(self) -> int:
        return self.about["shapes"]["context"]

    @property
    def horizon(self) -> int:
        return self.about["shapes"]["prediction"]

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[name])

    def must_equal(self, name: str, found: Tensor | np.ndarray) -> None:
        """Compare with an array within what float32 allows; integers exactly."""
        wanted = self.arrays[name]
        values = found.detach().numpy() if isinstance(found, Tensor) else found
        assert values.shape == wanted.shape, name
        if wanted.dtype.kind == "i":
            assert np.array_equal(values, wanted), name
            return
        noise = self.about["float32_noise"].get(name, 0.0)
        error = np.abs(values - wanted).max() / np.abs(wanted).max()
        assert error <= max(NOISES * noise, LEAST_TOLERANCE), f"{name}: {error:.1e}"

    def histories(self, n_columns: int = 6) -> list[History]:
        """Return the series up to the context, with the times that the JSON names."""
        shapes, raw = self.about["shapes"], self.arrays["raw"].copy()
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
def parity_set(name: str) -> ParitySet:
    """Read a set; its networks have no config.json, so their sizes come from the tensors."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        found = dict(arrays)
    return ParitySet(
        json.loads((FOLDER / f"{name}.json").read_text()),
        found,
        load_tokenizer(FOLDER / f"{name}_tokenizer.safetensors"),
        load_predictor(FOLDER / f"{name}_model.safetensors"),
    )
