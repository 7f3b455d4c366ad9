"""The command `tune` in processes of its own: two on one study, one killed, one interrupted."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hrl_sarp.config.loading import DEFAULT_CONFIG_DIR, TUNING, load_config
from hrl_sarp.run.files import read_json
from hrl_sarp.run.trials import TrialLog
from tests.command_line import make_command
from tests.end_to_end import tiny_site
from tests.studies.tuning.small_search import PLAIN, RATE

MAIN = Path(__file__).parents[3] / "main.py"
PATIENCE = 240.0
"""Seconds until a process has done what a test waits for."""


def space(**changes: object) -> str:
    """Write a search space whose trials are short."""
    inner = {**PLAIN["inner"], "seeds": 1, "validation_share": 0.3}
    floats = {RATE: PLAIN["floats"][RATE]}
    plain = {**PLAIN, "inner": inner, "floats": floats, "ints": {}, "choices": {}}
    return yaml.safe_dump({**plain, **changes})


@pytest.fixture
def site(tmp_path: Path) -> tiny_site.Site:
    made = tiny_site.collected(tmp_path / "site", DEFAULT_CONFIG_DIR)
    made.experiment("tuned", {"evaluation": {"ridge_label_days": 5}, "data": {"purge_days": 6}})
    (made.config_dir / TUNING).write_text(space())
    return made


def options(site: tiny_site.Site, trials: int) -> list[str]:
    """Return the arguments of the command, which are the same in every process."""
    return [
        *("tune", "--experiment", "tuned", "--config", str(site.config_dir)),
        *("--data-dir", str(site.raw), "--trials", str(trials)),
        *("--trial-log", str(site.root / "trials.jsonl"), "--output", str(site.root / "out")),
    ]


def begin(site: tiny_site.Site, trials: int) -> subprocess.Popen[str]:
    """Begin the command in a process of its own."""
    return subprocess.Popen(  # noqa: S603 -- this Python, and our own script
        [sys.executable, str(MAIN), *options(site, trials)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(MAIN.parent), "OMP_NUM_THREADS": "1"},
    )


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something has happened while a process runs."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a process; return its exit code and all that it printed."""
    said, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, said


@pytest.mark.slow
def test_two_processes_share_a_study_and_one_is_killed(site: tiny_site.Site) -> None:
    out = site.root / "out"

    def running() -> list[Path]:
        begun = (path.parent for path in out.glob("place_0/trial-*/trial.json"))
        return [folder for folder in begun if not (folder / "cell.json").exists()]

    def phases() -> dict[Path, int]:
        found = out.glob("trainings/*/fold_*/pretrain_macro/pretrain_macro_metrics.json")
        return {path: path.stat().st_mtime_ns for path in found}

    first = begin(site, 4)
    wait_for(lambda: bool(running()), first)
    second = begin(site, 1)
    wait_for((out / "place_1" / "trial-0" / "trial.json").is_file, second)
    wait_for(lambda: bool(running()), first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    trained, (left,) = phases(), running()
    killed = read_json(left / "trial.json", "")["number"]
    code, said = ended(second)
    assert code == 0, said
    trials = {each["number"]: each for each in read_json(out / "trials.json", "")["trials"]}
    assert trials[killed]["state"] == "running"

    code, said = ended(begin(site, 4))  # takes the place of the killed process, and goes on
    assert code == 0, said
    trials = {each["number"]: each for each in read_json(out / "trials.json", "")["trials"]}
    assert sorted(trials) == [0, 1, 2, 3, 4]
    assert {each["state"] for each in trials.values()} <= {"complete", "pruned"}
    # phases that had finished before the kill were not trained again
    assert trained
    assert {path: when for path, when in phases().items() if path in trained} == trained
    log = TrialLog(site.root / "trials.jsonl")
    assert log.count() == 5
    assert {trial.kind for trial in log.trials()} == {"tuning"}
    best = load_config(site.config_dir, experiment=str(out / "best.yaml"))
    top = max((t for t in trials.values() if t["score"] is not None), key=lambda t: t["score"])
    assert best.macro_agent.gradient.learning_rate == top["values"][RATE]
    assert "hrl-sarp train" in said or "main.py train" in said


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_another_search_is_refused(
    site: tiny_site.Site, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    running = begin(site, 1)
    wait_for((site.root / "out" / "place_0" / "trial-0" / "trial.json").is_file, running)
    running.send_signal(signal.SIGINT)
    code, said = ended(running)
    assert code == 130, said
    assert said.splitlines()[-1] == "stopped at once; the same command continues"
    command = make_command(monkeypatch, capfd)
    (site.config_dir / TUNING).write_text(space(startup_trials=7))
    code, _, err = command(*options(site, 1))
    assert code == 2
    assert "space.startup_trials 2 there, 7 here" in err.splitlines()[-1]
    (site.config_dir / TUNING).write_text(space())
    code, said = ended(begin(site, 1))
    assert code == 0, said
    assert len(read_json(site.root / "out" / "trials.json", "")["trials"]) == 1
