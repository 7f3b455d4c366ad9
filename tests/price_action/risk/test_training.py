"""Forecasts of risk by the transformer: what is learned, what is not, and exact continuation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.bars import Bars
from hrl_sarp.price_action.buys.windows import cut_candle_windows
from hrl_sarp.price_action.risk.targets import BASES
from hrl_sarp.price_action.risk.training import (
    FILES,
    PEER,
    RESULTS,
    RUNNING,
    skill,
    skill_interval,
    train_risk,
    verdict,
)
from hrl_sarp.run.checkpoints import load_plain
from hrl_sarp.run.session import StopFlag
from tests.command_line import assert_refused
from tests.fitting.kills import assert_kills_change_nothing
from tests.price_action.buys.candle_factories import noise_bars, small_config
from tests.price_action.buys.test_command import Command, flat, given
from tests.price_action.risk.test_targets import clock_bars

__all__ = ["given"]
CPU = torch.device("cpu")
LONG_TEST = {"train_share": 0.5, "validation_share": 0.2}


def train(folder: Path, bars: Bars, config: RunConfig, *, resume: bool = False) -> dict[str, Any]:
    windows = cut_candle_windows(bars, config.encoders)
    return train_risk(windows, config, "volatility", folder, CPU, StopFlag(), resume=resume)


def test_risk_that_follows_the_clock_is_found_and_noise_is_not(tmp_path: Path) -> None:
    config = small_config(learning_rate=5e-3, epochs=6, **LONG_TEST)
    found = train(tmp_path / "clock", clock_bars(2500), config)
    test = found["spans"]["test"]["skill"]
    assert set(test) == {"network", *BASES}
    assert test["mean"] == pytest.approx(0.0, abs=0.05)
    assert test["network"] > 0.1
    assert {path.name for path in (tmp_path / "clock").iterdir()} == set(FILES) - {RUNNING}
    quiet = train(tmp_path / "noise", noise_bars(2500), config)["spans"]["test"]["skill"]
    assert quiet["network"] < 0.05
    assert abs(quiet[PEER]) < 0.05


def test_run_that_is_killed_ends_as_one_left_alone(tmp_path: Path) -> None:
    config = small_config(learning_rate=5e-3, epochs=2)
    curriculum = config.curriculum.model_copy(update={"checkpoint_seconds": 0.0})
    config = config.model_copy(update={"curriculum": curriculum})

    def outcome(folder: Path) -> dict[str, Any]:
        results = json.loads((folder / RESULTS).read_text())
        weights = load_plain(folder / "risk_model.pth")["model_state_dict"]
        return {"spans": results["spans"], "weights": weights}

    def run(folder: Path, *, resume: bool) -> None:
        folder.mkdir(exist_ok=True)
        train(folder, noise_bars(900), config, resume=resume)

    assert_kills_change_nothing(run, outcome, tmp_path, seed=1)


def test_finished_run_that_is_resumed_gives_its_results(tmp_path: Path) -> None:
    config = small_config(epochs=1)
    first = train(tmp_path, noise_bars(900), config)
    again = train(tmp_path, noise_bars(900), config, resume=True)
    assert again["spans"] == first["spans"]


def test_skill_by_hand() -> None:
    truth = np.array([1.0, 3.0])
    assert skill(truth, truth, 0.0) == 1.0
    assert skill(np.zeros(2), truth, 0.0) == 0.0
    # errors 1 and 1 of squares 1 and 9
    assert skill(np.array([2.0, 2.0]), truth, 0.0) == pytest.approx(1 - 2 / 10)


def test_interval_holds_the_difference_and_is_that_of_a_constant_gain() -> None:
    rng = np.random.default_rng(1)
    spread = rng.random(500) + 0.5
    better, worse = 0.2 * spread, 0.5 * spread
    low, high = skill_interval((better, worse), spread, 50, np.random.default_rng(2))
    assert (low, high) == (pytest.approx(0.3), pytest.approx(0.3))
    noisy = worse + 0.3 * rng.normal(size=500)
    low, high = skill_interval((noisy, worse), spread, 50, np.random.default_rng(2))
    assert low < 0.0 < high


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.01, 0.2, "beats"), (-0.1, 0.1, "cannot be told"), (-0.2, -0.1, "is worse")],
)
def test_verdict_follows_the_interval(low: float, high: float, words: str) -> None:
    test = {"gain_low": low, "gain_high": high, "skill": {"network": 0.3, PEER: 0.2}}
    assert words in verdict({"spans": {"test": test}})


@pytest.mark.parametrize("target", ["volatility", "range"])
def test_command_prints_every_base_rate(
    command: Command, given: dict[str, Any], target: str
) -> None:
    code, out, err = command("finetune-encoder", *flat({**given, "--target": target}))
    assert code == 0, err
    for words in (*BASES, "network", f"log of {target}", "risk_model.pth"):
        assert words in out
    assert not (given["--output"] / "best_model.pth").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--target": "skew"}, ["--target", "buys, volatility, range", "skew"]),
        ({"--target": "range", "--variant": "position"}, ["--target", "position", "leave it out"]),
    ],
)
def test_target_that_does_not_fit_is_refused(
    command: Command, given: dict[str, Any], changes: dict[str, Any], words: list[str]
) -> None:
    assert_refused(command("finetune-encoder", *flat({**given, **changes})), *words)
    assert not given["--output"].exists()
