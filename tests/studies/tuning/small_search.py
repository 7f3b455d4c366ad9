"""A search over a market in memory whose trials are as quick as a test says."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.config.study_schema import TuningConfig
from hrl_sarp.contracts import Market
from hrl_sarp.risk import risk_tables
from hrl_sarp.studies.tuning.cells import Tuning
from hrl_sarp.studies.tuning.inner import InnerTrainings
from tests import tiny_runs

RATE, LAYER, WIDTH = (
    *("macro_agent.gradient.learning_rate", "macro_agent.graph.layer"),
    "macro_agent.network.hidden",
)
PLAIN: dict[str, Any] = {
    "inner": {
        "folds": 2,
        "seeds": 2,
        "phases": 2,
        "length": 0.5,
        "first_share": 0.4,
        "validation_share": 0.4,
    },
    "startup_trials": 2,
    "floats": {RATE: {"low": 1e-3, "high": 1e-1, "log": True}},
    "ints": {WIDTH: {"low": 4, "high": 8, "log": False}},
    "choices": {LAYER: ["gcn", "none"]},
}
Scores = Callable[[RunConfig, int], list[float]]
"""Configuration of a trial and number of a phase -> the scores of its trainings."""


def space(**changes: Any) -> TuningConfig:
    """Return the search space with some of its values replaced."""
    return TuningConfig.model_validate({**PLAIN, **changes})


def small_market() -> tuple[Market, RunConfig]:
    """Draw a market with risk tables, and the configuration of its agents."""
    config = tiny_runs.tiny_config(
        objective={"kind": "risk"},
        data={"purge_days": 6},
        evaluation={"ridge_label_days": 5},
        macro_agent={"gradient": {"epochs": 2}},
        micro_agent={"gradient": {"epochs": 2}},
        curriculum={
            "acceptance": {"shares": [0.0, 1.0], "samples": 200},
            "temperature_grid": [0.0, 4.0],
        },
    )
    market = tiny_runs.tiny_market(n_days=400)
    return replace(market, risk=risk_tables(market, config)), config


def search(root: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Tuning:
    """Return a search whose market lies in memory."""
    market, config = small_market()
    monkeypatch.setattr(Tuning, "market", lambda _self: market)
    plain: dict[str, Any] = {
        "name": "small",
        "config": config,
        "space": space(),
        "data_dir": root / "raw",
        "root": root,
        "storage": f"sqlite:///{root / 'study.db'}",
        "trial_log": root / "trials.jsonl",
    }
    return Tuning(**{**plain, **changes})


def script(monkeypatch: pytest.MonkeyPatch, scores: Scores) -> None:
    """Let trials take these scores instead of training."""

    def scores_by_phase(self: InnerTrainings) -> Iterator[tuple[int, list[float]]]:
        for number in range(1, self.settings.phases + 1):
            yield number, scores(self.config, number)

    monkeypatch.setattr(InnerTrainings, "scores_by_phase", scores_by_phase)
