"""The command `tune`: what it refuses before it begins, and what it says."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

from hrl_sarp.config.loading import DEFAULT_CONFIG_DIR
from hrl_sarp.run.files import write_json
from hrl_sarp.studies.overview import STUDY_HEADER, look_through
from hrl_sarp.studies.tuning import PAGE, SEARCH, TRIALS
from tests.command_line import Command, assert_refused, make_command
from tests.end_to_end import tiny_site
from tests.studies.tuning.small_search import PLAIN


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return make_command(monkeypatch, capfd)


def write_space(folder: Path, **changes: Any) -> Path:
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump({**PLAIN, **changes}))
    return path


def test_without_the_extra_it_says_what_to_install(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "optuna" else find(name, *rest),
    )
    result = command("tune", "--experiment", "smoke", "--trials", 1)
    assert_refused(result, "optuna is not installed", "pip install 'hrl-sarp[tune]'")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--trials", "0"), 2, ("--trials",)),
        (("--trials", "1", "--jobs", "0"), 2, ("--jobs",)),
        (("--trials", "1", "--experiment", "smoek"), 1, ("did you mean 'smoke'?",)),
        (("--trials", "1", "--space", "nowhere.yaml"), 1, ("nowhere.yaml",)),
        (("--trials", "1", "--experiment", "smoke"), 1, ("manifest.json", "collect-data")),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: tuple[str, ...],
    code: int,
    words: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    found, out, err = command("tune", *options)
    assert (found, out) == (code, "")
    assert "Traceback" not in err
    for word in words:
        assert word in err
    assert not any(tmp_path.rglob("*.*"))


def test_a_space_that_does_not_fit_is_refused_with_the_near_name(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    near = {"macro_agent.gradient.learning_rte": {"low": 0.1, "high": 0.2, "log": False}}
    path = write_space(tmp_path, floats=near)
    result = command("tune", "--experiment", "smoke", "--trials", 1, "--space", path)
    assert_refused(result, "did you mean 'macro_agent.gradient.learning_rate'?", "space.yaml")


def test_too_few_sessions_for_the_folds_are_refused_before_anything_is_written(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site = tiny_site.collected(tmp_path / "site", DEFAULT_CONFIG_DIR)
    values = {"evaluation": {"ridge_label_days": 5}, "data": {"purge_days": 6}}
    site.experiment("tuned", values)
    # more folds than the sessions hold
    path = write_space(tmp_path, inner={**PLAIN["inner"], "folds": 40})
    result = command(
        *("tune", "--experiment", "tuned", "--config", site.config_dir, "--data-dir", site.raw),
        *("--trials", 1, "--space", path, "--output", tmp_path / "out"),
    )
    assert_refused(result, "inner folds of tuning: 40 folds")
    assert not (tmp_path / "out").exists()


def test_searches_are_listed_and_their_trainings_are_not(tmp_path: Path) -> None:
    about = {"study": "small", "storage": "sqlite:///x", "market": "us"}
    for name in ("begun", "ended"):
        write_json(tmp_path / name / SEARCH, about)
        (tmp_path / name / "trainings" / "0a" / "fold_0_seed_0" / "pretrain_macro").mkdir(
            parents=True
        )
    trials = [{"state": "complete"}, {"state": "fail"}, {"state": "pruned"}]
    write_json(tmp_path / "ended" / TRIALS, {"study": "small", "trials": trials})
    (tmp_path / "ended" / PAGE).touch()
    found = look_through(tmp_path)
    assert not found.runs.rows
    rows = {row[0]: dict(zip(STUDY_HEADER, row, strict=True)) for row in found.studies.rows}
    assert (rows["ended"]["cells"], rows["ended"]["failed"]) == ("3", "1")
    assert (rows["begun"]["cells"], rows["begun"]["markets"]) == ("0", "us")
    assert found.studies.links["ended"] == "ended/tune.html"
