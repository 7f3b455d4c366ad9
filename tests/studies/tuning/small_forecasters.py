"""Searches of forecasters whose trainings take a second: tiny models on drawn bars."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import torch

from hrl_sarp.config.encoder_schema import ForecastersConfig
from hrl_sarp.forecasters.series import Series
from hrl_sarp.forecasters.training.run import Pretrained, TrainingRequest
from hrl_sarp.forecasters.training.sources import SplitSeries
from hrl_sarp.forecasters.training.windows import Split, split_by_time
from hrl_sarp.studies.tuning.forecasters import ForecasterSearch
from tests.forecasters.training.test_run import bars_series, tiny_settings

SPACES: dict[str, Any] = {
    "toto": {
        "scratch": {
            "floats": {
                "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
                "nll_weight": {"low": 0.2, "high": 0.9, "log": False},
            },
            "ints": {"context_patches": {"low": 2, "high": 4, "log": False}},
            "choices": {"sizes.patch_size": [2, 4], "sizes.embed_dim": [4, 8]},
        },
        "weights": {
            "floats": {"fine_tuning_rate": {"low": 1e-4, "high": 1e-1, "log": True}},
            "ints": {},
            "choices": {"way": ["all", "freeze", 2]},
        },
    },
    "kronos": {
        "scratch": {
            "floats": {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}},
            "ints": {"context": {"low": 8, "high": 16, "log": False}},
            "choices": {"clip": [1.0, 5.0], "sizes.d_model": [8, 16]},
        },
        "weights": {
            "floats": {"clip": {"low": 1.0, "high": 5.0, "log": False}},
            "ints": {},
            "choices": {"way": ["all", "freeze"]},
        },
    },
}
TUNING: dict[str, Any] = {
    "horizon": 3,
    "origins": 20,
    "paths": 8,
    "startup_trials": 2,
    "reduction": 2,
    "temperatures": [0.5, 1.0],
    "top_ps": [0.9, 1.0],
    "spaces": SPACES,
}


def settings(**changes: Any) -> ForecastersConfig:
    """Return tiny settings, with some values of all models replaced."""
    return ForecastersConfig(**tiny_settings(**changes).model_dump() | {"tuning": TUNING})


def series_of(names: str = "ABC") -> list[Series]:
    """Draw a series for each name."""
    return [bars_series(name, seed) for seed, name in enumerate(names)]


def split_of(series: list[Series]) -> Split:
    """Split series by time, and leave C out."""
    return split_by_time(series, (0.5, 0.3), frozenset("C"))


def search(model: str, folder: Path, **changes: Any) -> ForecasterSearch:
    """Return a search; `changes` are those of its training request."""
    series = series_of()
    usual: dict[str, Any] = {
        "model": model,
        "source": SplitSeries(series, split_of(series), {}),
        "settings": settings(epochs=3, patience=3),
        "output": folder,
        "seed": 5,
        "device": torch.device("cpu"),
        "checkpoint_seconds": 1e9,
        "start": Pretrained(),
    }
    request = TrainingRequest(**{**usual, **changes})
    return ForecasterSearch(
        request, f"sqlite:///{folder / 'study.db'}", folder.parent / "trials.jsonl"
    )


def trials_of(found: ForecasterSearch) -> list[optuna.trial.FrozenTrial]:
    """Read the trials of a search."""
    with found.study() as study:
        return study.get_trials()


def plain_trials(found: ForecasterSearch) -> list[tuple[Any, ...]]:
    """Read what must be the same in a search that goes on after a stop."""
    return [
        (trial.number, trial.state.name, trial.params, trial.intermediate_values, trial.value)
        for trial in trials_of(found)
    ]


def with_source(found: ForecasterSearch, source: SplitSeries) -> ForecasterSearch:
    """Return the same search on other bars."""
    return replace(found, whole=replace(found.whole, source=source))
