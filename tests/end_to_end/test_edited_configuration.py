"""A command that takes a run's configuration says in one line what was edited since.

Its files are read again with the options of the training. Where they say what the run has, and
where it is not known which they are, nothing is said.
"""

import ast
import inspect
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import typer
import yaml

from hrl_sarp.cli import app as cli
from hrl_sarp.cli.options import (
    OPTIONS,
    Given,
    keep_options,
    keeping_options,
    read_config,
    tell_edits,
)
from hrl_sarp.config.loading import load_config
from hrl_sarp.errors import DataError, StoppedEarly
from tests.command_line import Command, assert_refused
from tests.end_to_end.tiny_site import EXPERIMENT, Site, merged

NOTE = "keeps the configuration that it was trained with"
QUICK = ("backtest", "--baselines", "none")
EDITS = {
    "a limit": ({"risk": {"stock_cap": 0.5}}, "risk.stock_cap"),
    "costs": ({"market_profile": {"costs": {"buy_bps": 77.0}}}, "market_profile.costs.buy_bps"),
    "an agent": ({"macro_agent": {"ppo": {"gamma": 0.5}}}, "macro_agent.ppo.gamma"),
    "statistics": ({"evaluation": {"random_portfolios": 3}}, "evaluation.random_portfolios"),
    "a seed": ({"seed": 5}, "seed 0 there, 5 here"),
}
"""What the user edits, and what the line names."""


@pytest.fixture
def trained(site: Site) -> Site:
    """A run that says with which options it was configured."""
    keep_options(site.log_dir, site.config(), Given(experiment=EXPERIMENT))
    return site


def edit(site: Site, values: dict[str, object]) -> None:
    """Lay values over the experiment with which the run was trained."""
    path = site.config_dir / "experiments" / f"{EXPERIMENT}.yaml"
    path.write_text(yaml.safe_dump(merged(yaml.safe_load(path.read_text()), values)))


@pytest.mark.parametrize(("values", "named"), EDITS.values(), ids=EDITS)
def test_edited_values_are_named(
    values: dict[str, object], named: str, trained: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(trained, values)
    tell_edits(trained.log_dir, can_choose=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert NOTE in line
    assert named in line
    assert line.endswith(f"; --experiment {EXPERIMENT} takes what is here")


def test_many_edits_are_one_line(trained: Site, capsys: pytest.CaptureFixture[str]) -> None:
    caps = {"stock_cap": 0.5, "sector_cap": 0.9}
    edit(trained, {"risk": caps, "seed": 3, "evaluation": {"bootstrap_samples": 30}})
    edit(trained, {"macro_agent": {"ppo": {"gamma": 0.5}}})
    tell_edits(trained.log_dir)
    (line,) = capsys.readouterr().err.splitlines()
    assert "and 1 more" in line
    assert line.endswith("; only a new training takes what is here")


def test_values_that_are_spelt_otherwise_are_no_edit(
    trained: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trained.config_dir / "experiments" / f"{EXPERIMENT}.yaml"
    path.write_text(f"# a note of the user's\n{yaml.safe_dump(yaml.safe_load(path.read_text()))}")
    edit(trained, {"trackers": []})  # where curves go is no value of a run
    tell_edits(trained.log_dir)
    assert capsys.readouterr() == ("", "")


def test_nothing_is_said_of_a_run_that_does_not_say_its_options(
    trained: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(trained, {"risk": {"stock_cap": 0.5}})
    (trained.log_dir / OPTIONS).unlink()
    tell_edits(trained.log_dir)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("risk: {stock_cap: 7}\n", "risk.stock_cap: Input should be less than or equal to 1"),
        ("risk: [\n", "not readable as YAML"),
        (None, f"no experiments/{EXPERIMENT}.yaml"),
    ],
)
def test_files_that_make_no_configuration_now_are_named(
    text: str | None, named: str, trained: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trained.config_dir / "experiments" / f"{EXPERIMENT}.yaml"
    path.unlink()
    if text is not None:
        path.write_text(text)
    tell_edits(trained.log_dir)
    (line,) = capsys.readouterr().err.splitlines()
    assert NOTE in line
    assert named in line


def test_options_that_somebody_changed_are_refused(trained: Site, command: Command) -> None:
    path = trained.log_dir / OPTIONS
    path.write_text(path.read_text().replace(f'"{EXPERIMENT}"', '"smoke"'))
    assert_refused(command(*QUICK, *trained.folders), str(path))


def test_options_are_those_of_the_configuration_that_the_run_has(
    trained: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    trained.experiment("other", {"risk": {"stock_cap": 0.5}})
    other = load_config(trained.config_dir, experiment="other")
    keep_options(trained.log_dir, other, Given(experiment="other"))  # a training that was refused
    edit(trained, {"risk": {"stock_cap": 0.4}})
    tell_edits(trained.log_dir, can_choose=True)
    assert f"0.4 here; --experiment {EXPERIMENT} takes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("ends", "is_kept"),
    [(None, True), (StoppedEarly(), True), (KeyboardInterrupt(), True), (DataError("no"), False)],
)
def test_a_training_that_is_refused_keeps_no_options(
    ends: BaseException | None, *, is_kept: bool, site: Site
) -> None:
    expected = pytest.raises(type(ends)) if ends else nullcontext()
    with expected, keeping_options(site.log_dir, site.config(), Given(experiment=EXPERIMENT)):
        if ends:
            raise ends
    assert (site.log_dir / OPTIONS).is_file() is is_kept


def test_a_file_of_the_users_is_read_again(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "my values.yaml"
    path = site.config_dir / "experiments" / f"{EXPERIMENT}.yaml"
    own.write_text(path.read_text())
    keep_options(site.log_dir, read_config(None, None, own), Given(own=own))
    tell_edits(site.log_dir)
    assert capsys.readouterr() == ("", "")
    values = yaml.safe_load(own.read_text())
    own.write_text(yaml.safe_dump(merged(values, {"risk": {"stock_cap": 0.5}})))
    tell_edits(site.log_dir, can_choose=True)
    assert f"0.5 here; --config '{own}' takes what is here" in capsys.readouterr().out
    own.unlink()  # or another working folder
    tell_edits(site.log_dir)
    assert capsys.readouterr() == ("", "")


def test_backtest_and_diagnose_say_it_once(trained: Site, command: Command) -> None:
    edit(trained, {"risk": {"stock_cap": 0.5}})
    for words in ([*QUICK, *trained.folders], ["diagnose", "--log-dir", str(trained.log_dir)]):
        code, out, err = command(*words)
        assert code == 0, err
        assert (out + err).count(NOTE) == 1
    code, out, err = command(*QUICK, *trained.folders, "--experiment", EXPERIMENT, "--overwrite")
    assert code == 0, err
    assert NOTE not in out + err  # what the files say was asked for


def test_train_keeps_its_options(site: Site, command: Command) -> None:
    before = site.content()
    chosen = ["--experiment", EXPERIMENT, "--phase", "1", "--resume"]
    code, _, err = command("train", *chosen, *site.folders)
    assert code == 0, err
    edit(site, {"risk": {"stock_cap": 0.5}})
    _, out, err = command(*QUICK, *site.folders)
    assert NOTE in out + err
    assert f"logs/{OPTIONS}" in site.content().keys() - before.keys()


def callbacks(commands: typer.Typer) -> list[Callable[..., object]]:
    """Return the function of each command, also of those in groups."""
    inner = [group.typer_instance for group in commands.registered_groups]
    found = [command.callback for command in commands.registered_commands if command.callback]
    return found + [each for group in inner if group is not None for each in callbacks(group)]


READERS = {"config_of_run", "read_config_of_run", "read_runs", "runs_of", "open_account"}
READERS |= {"markets_of", "_kept_account", "catch_up"}
"""Functions that give a command the configuration of a run."""


def test_every_command_that_takes_a_runs_configuration_says_it() -> None:
    taking = set()
    for callback in callbacks(cli.app):
        called = {
            getattr(node.func, "id", getattr(node.func, "attr", ""))
            for node in ast.walk(ast.parse(inspect.getsource(callback)))
            if isinstance(node, ast.Call)
        }
        if called & READERS:
            taking.add(callback.__name__)
            assert called & {"tell_edits", "read_config_of_run"}, callback.__name__
    daily = {"decide", "export", "paper_init", "paper_step", "paper_report"}
    assert taking == daily | {"backtest", "stress_test", "diagnose", "audit"}
