"""What the published implementation computed from small random weights, as files."""

from dataclasses import dataclass
from functools import cache
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
from tests.forecasters.published import FOLDER, PublishedSet

KRONOS = FOLDER / "kronos"
NAMES = sorted(path.stem for path in KRONOS.glob("*.json"))
every_set = pytest.mark.parametrize(
    "name",
    NAMES or [pytest.param("none", marks=pytest.mark.skip(f"no sets of arrays in {KRONOS}"))],
)


@dataclass(frozen=True)
class ParitySet:
    """One set, and networks of the weights in its files."""

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
def parity_set(name: str) -> ParitySet:
    """Read a set; its networks have no config.json, so their sizes come from the tensors."""
    return ParitySet(
        PublishedSet.read(KRONOS / f"{name}.json"),
        load_tokenizer(KRONOS / f"{name}_tokenizer.safetensors"),
        load_predictor(KRONOS / f"{name}_model.safetensors"),
    )
