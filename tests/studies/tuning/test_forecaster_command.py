"""The command `tune-forecaster`, as a user calls it: begun, stopped, grown, refused."""

import importlib.util
import json
import signal
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml

from hrl_sarp.fitting import Fit
from hrl_sarp.run.trials import TrialLog
from tests.command_line import Command, assert_refused, make_command
from tests.forecasters.test_commands import write_bars
from tests.forecasters.training.test_run import TINY
from tests.studies.tuning.small_forecasters import TUNING


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return make_command(monkeypatch, capfd)


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """Options of a search whose trainings take a second."""
    models = {name: {**values, "batch_size": 8} for name, values in TINY.items()}
    counts = {"train_windows": 30, "validation_windows": 10, "holdout_symbols": 1}
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump({"models": models, "tuning": TUNING, **counts}))
    return [
        *("tune-forecaster", "--train-root", str(write_bars(tmp_path / "bars"))),
        *("--settings", str(settings), "--output", str(tmp_path / "out"), "--epochs", "2"),
        *("--trial-log", str(tmp_path / "trials.jsonl")),
    ]


def test_a_search_is_stopped_goes_on_grows_and_trains_with_the_best(
    command: Command, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, once, steps = tmp_path / "out", Fit._step, [0]

    def stopped(fit: Fit, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        steps[0] += 1
        if steps[0] == 12:
            signal.raise_signal(signal.SIGINT)
        return once(fit, rows)

    with monkeypatch.context() as patched:
        patched.setattr(Fit, "_step", stopped)
        code, _, err = command(*options, "--trials", 1)
    assert code == 130
    assert err.splitlines()[-1] == "stopped; the same command continues exactly there"
    assert not (out / "study.json").exists()
    for trials in (1, 2):
        code, said, err = command(*options, "--trials", trials)
        assert code == 0, err
        found = json.loads((out / "study.json").read_text())
        assert found["trials"]["all"] == trials
    assert set(found["rules"]) == {"last value", "random walk, EWMA variance"}
    assert "The test has not been read." in said
    assert TrialLog(tmp_path / "trials.jsonl").count() == 3  # the untouched settings, too
    table = pl.read_csv(out / "trials.csv")
    assert table["trial"].to_list() == [0, 1]
    assert "sizes.patch_size" in table.columns
    for name in ("tune.html", "history.png"):
        assert (out / name).stat().st_size > 1000
    bars = options[options.index("--train-root") + 1]
    code, _, err = command(
        "train-forecaster", "--train-root", bars, "--settings", out / "best.yaml",
        "--output", tmp_path / "run",
    )  # fmt: skip
    assert code == 0, err
    trained = json.loads((tmp_path / "run" / "forecaster.json").read_text())
    best = found["best"]["values"]
    assert trained["horizon"] == best["sizes.patch_size"]
    assert trained["context"] == best["context_patches"] * best["sizes.patch_size"]
    # another search is not mixed with it
    code, _, err = command(*options, "--trials", 2, "--seed", 1)
    assert code == 2
    assert "(seed 0 there, 1 here): name another --output" in err.splitlines()[-1]


REFUSED: dict[str, tuple[list[str], list[str], int]] = {
    "a tokenizer": (["--model", "kronos-tokenizer"], ["--model", "toto, kronos,"], 2),
    "both sources": (["--panel"], ["tune-forecaster needs either", "both"], 2),
    "no trial": (["--trials", "0"], ["--trials"], 2),
    "no weights": (["--weights", "nowhere"], ["nowhere"], 1),
    "no bars": (["--train-root", "nowhere"], ["nowhere"], 1),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_options_are_refused_in_one_line(
    command: Command, options: list[str], tmp_path: Path, case: str
) -> None:
    given, words, code = REFUSED[case]
    assert_refused(command(*options, "--trials", 1, *given), *words, code=code)
    assert not list((tmp_path / "out").rglob("*.json"))


def test_a_database_that_does_not_open_is_refused(command: Command, options: list[str]) -> None:
    code, _, err = command(*options, "--trials", 1, "--storage", "nonsense")
    assert code == 1
    assert "--storage nonsense: expected a database such as" in err.splitlines()[-1]


def test_a_space_that_does_not_fit_is_refused_before_anything_is_written(
    command: Command, options: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "settings.yaml"
    plain = yaml.safe_load(path.read_text())
    plain["tuning"]["spaces"]["toto"]["scratch"]["ints"] = {
        "depth": {"low": 1, "high": 2, "log": False}
    }
    path.write_text(yaml.safe_dump(plain))
    refused = command(*options, "--trials", 1)
    assert_refused(refused, "tuning.spaces.toto.scratch", "depth: expected a key of models.toto")
    assert not (tmp_path / "out").exists()


def test_without_the_extra_it_says_what_to_install(
    command: Command, options: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "optuna" else find(name, *rest),
    )
    result = command(*options, "--trials", 1)
    assert_refused(result, "optuna is not installed", "pip install 'hrl-sarp[tune]'")
    assert not (tmp_path / "out").exists()
