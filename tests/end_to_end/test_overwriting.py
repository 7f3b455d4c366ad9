"""No command overwrites what an earlier one wrote unless it is told to: one line, exit code 2."""

import itertools
import json
import re
from pathlib import Path

import pytest

import hrl_sarp
from hrl_sarp.cli import app
from hrl_sarp.cli.app import LONGEST_NAME, SOURCE, SPANS, Selection, load_context, report_folder
from hrl_sarp.config.loading import load_config
from hrl_sarp.data.collect import collect
from hrl_sarp.data.store import read_raw
from hrl_sarp.errors import HrlSarpError, OverwriteError
from hrl_sarp.run.phases import PHASES, remove_from, remove_run, require_no_run
from tests.command_line import Command, assert_refused
from tests.end_to_end.tiny_site import EXPERIMENT, Site
from tests.tiny_runs import tiny_market

REFUSED = 2
CURES = ("--overwrite", "--resume", "another --log-dir")


def options(site: Site, experiment: str = EXPERIMENT) -> list[str]:
    return [*site.folders, "--experiment", experiment]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], ("phase 1 finished", "phase 2 finished", "phase 3 stopped", "market us", "seed")),
        (["--phase", "1"], ("phase 1 finished",)),
        (["--phase", "3"], ("phase 3 stopped",)),
        (["--seeds", "0,1"], ("phase 1 finished",)),
        (["--market", "nse"], ("of market us",)),
    ],
)
def test_training_over_a_run_is_refused_and_leaves_it(
    arguments: list[str], told: tuple[str, ...], site: Site, command: Command
) -> None:
    before = site.content()
    assert_refused(
        command("train", *arguments, *options(site)), *CURES, *told, str(site.log_dir), code=REFUSED
    )
    assert site.content() == before


def test_a_phase_that_has_not_begun_is_nothing_to_overwrite(site: Site) -> None:
    require_no_run(site.log_dir, 4)
    require_no_run(site.root / "nowhere", None)
    for number in (1, 2, 3, None):
        with pytest.raises(OverwriteError):
            require_no_run(site.log_dir, number)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_phase_that_begins_anew_leaves_nothing_that_started_from_it(
    number: int, tmp_path: Path
) -> None:
    reports, others = ("backtest", "backtest-validation", "stress"), ("mine", "train.log")
    for files in PHASES:
        (tmp_path / files.folder).mkdir()
        for name in (*files.best, files.metrics):
            (tmp_path / files.folder / name).touch()
    for name in ("certification", *reports, *others):
        (tmp_path / name).mkdir()
    for lacking in range(number, 6):  # later phases are refused as well, even without this one
        with pytest.raises(OverwriteError, match=f"phase {lacking} finished.*--overwrite"):
            require_no_run(tmp_path, number)
        (tmp_path / PHASES[lacking - 1].folder / PHASES[lacking - 1].metrics).unlink()
        for name in PHASES[lacking - 1].best:
            (tmp_path / PHASES[lacking - 1].folder / name).unlink()
    require_no_run(tmp_path, number)
    assert remove_from(number, tmp_path) == list(range(number, 6))
    kept = {files.folder for files in PHASES[: number - 1]}
    assert {path.name for path in tmp_path.iterdir()} == {*kept, *others}
    (tmp_path / "backtest").mkdir()
    assert remove_from(number, tmp_path) == []
    assert (tmp_path / "backtest").is_dir()  # there was no phase that it could be about


def test_to_resume_and_to_overwrite_contradict_each_other(site: Site, command: Command) -> None:
    before = site.content()
    result = command("train", "--resume", "--overwrite", *options(site))
    assert_refused(result, "--resume", "--overwrite", "give one")
    assert site.content() == before


@pytest.mark.parametrize(
    ("text", "told"), [('{"seeds": [4, 7]}', "seeds 4, 7"), ("{", "several seeds")]
)
def test_a_run_of_several_seeds_is_one_as_well(
    text: str, told: str, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "seeds.json").write_text(text)
    assert_refused(command("train", "--log-dir", tmp_path), *CURES, told, code=REFUSED)


def test_beginning_anew_removes_the_agents_and_what_was_said_about_them(site: Site) -> None:
    kept = site.log_dir / "notes.txt"
    for name in (
        "backtest/report.html",
        "backtest-validation/report.html",
        "seed_1/x",
        "notes.txt",
    ):
        path = site.log_dir / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    remove_run(site.log_dir)
    folders = {files.folder for files in PHASES}
    left = {path.name for path in site.log_dir.iterdir()}
    assert kept.name in left
    assert left & {*folders, "backtest", "backtest-validation", "seed_1", "certification"} == set()


def test_the_library_refuses_as_the_command_does(site: Site) -> None:
    market, config = tiny_market(n_days=40), site.config()
    with pytest.raises(OverwriteError, match=r"phase 1 finished.*--overwrite"):
        hrl_sarp.train(market, config, site.log_dir)
    with pytest.raises(HrlSarpError, match="give one"):
        hrl_sarp.train(market, config, site.log_dir, resume=True, overwrite=True)


@pytest.mark.parametrize("name", ["backtest", "stress-test"])
def test_a_report_is_replaced_by_one_of_the_same_alone(
    name: str, site: Site, command: Command
) -> None:
    folder = site.log_dir / name.removesuffix("-test")
    shocks = dict.fromkeys(site.config().market_profile.sectors, "Energy")
    values = {"market_profile": {"stress": {"windows": [], "sectors": shocks}}}
    site.experiment("first", values)
    config = load_config(site.config_dir, experiment="first")
    context = load_context(site.raw, site.log_dir, config, "cpu")
    for text in ("first", "second"):  # the second says the same about the same
        with report_folder(folder, context, overwrite=False):
            folder.mkdir(exist_ok=True)
            (folder / "report.html").write_text(text)
    site.experiment("other", {**values, "risk": {"stock_cap": 0.5}})
    before = site.content()
    code, _, err = command(name, *options(site, "other"))
    line = err.splitlines()[-1]
    assert code == REFUSED, err
    assert all(word in line for word in ("risk.stock_cap", "0.5 here", "--overwrite")), line
    assert site.content() == before
    (folder / SOURCE).unlink()  # it does not say what it was made from
    with pytest.raises(OverwriteError), report_folder(folder, context, overwrite=False):
        pass
    with report_folder(folder, context, overwrite=True):
        pass


def test_every_selection_has_a_folder_of_its_own() -> None:
    some = [*itertools.product(SPANS, ("all", "joint", "phases 1+2,joint"), ("all", "none", "a,b"))]
    names = {Selection(*parts).folder_name for parts in some}
    assert len(names) == len(some)
    assert Selection("test").folder_name == "backtest"
    assert all(re.fullmatch(r"backtest[a-z0-9_-]*", name) for name in names)
    many = Selection("test", ",".join(f"a long name of a pair {i}" for i in range(40))).folder_name
    assert len(many) <= LONGEST_NAME
    assert many != Selection("test", "a long name of a pair 1").folder_name


def test_another_span_is_written_beside_the_backtest(site: Site, command: Command) -> None:
    report = site.log_dir / "backtest" / "report.html"
    report.parent.mkdir()
    report.write_text("of before")
    few = ["--span", "validation", "--agents", "phases 1+2", "--baselines", "none"]
    code, _, err = command("backtest", *few, *options(site))
    assert code == 0, err
    (metrics,) = site.log_dir.glob("backtest-*/metrics.json")
    assert json.loads(metrics.read_text())["provenance"]["span"] == "validation"
    assert report.read_text() == "of before"


@pytest.mark.parametrize("is_finished", [False, True], ids=["stopped", "finished"])
@pytest.mark.parametrize(
    ("arguments", "stopped", "finished"),
    [
        (["pretrain-encoder"], "checkpoint_latest.pt", "encoder.safetensors"),
        (["finetune-encoder", "--variant", "stones"], "running.pt", "best_model.pt"),
        (
            ["finetune-encoder", "--variant", "price-action"],
            "price_action_running.pt",
            "price_action_results.json",
        ),
    ],
)
def test_the_training_of_an_encoder_is_not_repeated_over_another(
    arguments: list[str],
    stopped: str,
    finished: str,
    is_finished: bool,  # noqa: FBT001 -- pytest passes it by name
    tmp_path: Path,
    command: Command,
) -> None:
    name = finished if is_finished else stopped
    (tmp_path / name).write_text("of before")
    # the file of data does not exist: nothing looked for it
    result = command(*arguments, "--data", tmp_path / "none.csv", "--output", tmp_path)
    assert_refused(result, "--overwrite", "--resume", "another --output", name, code=REFUSED)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [name]


SHORT = {"data": {"synthetic": {"n_days": 60}}}


def test_data_are_replaced_by_the_same_data_alone(tmp_path: Path, command: Command) -> None:
    raw = tmp_path / "raw"
    short, longer = tmp_path / "short.yaml", tmp_path / "longer.yaml"
    for path, n_days in ((short, 60), (longer, 80)):
        path.write_text(f"data: {{synthetic: {{n_days: {n_days}}}}}\n")
    made = ["collect-data", "--source", "synthetic", "--data-dir", raw, "--config"]
    for _ in range(2):
        code, _, err = command(*made, short)
        assert code == 1, err  # sixty days make no market: written all the same
        assert "would refuse these data: no universe" in err
    result = command("collect-data", "--source", "sample", "--data-dir", raw)
    told = ("holds data of the source synthetic", "asked for is sample", "--overwrite")
    assert_refused(result, *told, code=REFUSED)
    code, _, err = command(*made, longer)
    assert code == REFUSED
    line = err.splitlines()[-1]
    assert all(word in line for word in ("holds other data of", "these are", "--overwrite")), line
    command(*made, longer, "--overwrite")
    assert read_raw(raw).bars["date"].n_unique() == 80


def test_damaged_data_may_be_replaced(tmp_path: Path) -> None:
    config = load_config(market="synthetic", overrides=SHORT)
    for name in ("market/bars.parquet", "manifest.json"):
        collect("synthetic", tmp_path, config)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100])
        collect("synthetic", tmp_path, config)
        read_raw(tmp_path)


@pytest.mark.parametrize("name", ["backtest", "stress-test"])
def test_reports_without_agents_or_shocks_are_refused_before_anything_is_loaded(
    name: str, site: Site, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*_: object) -> None:
        raise AssertionError("the market was loaded")

    monkeypatch.setattr(app, "load_context", loaded)
    if name == "stress-test":
        site.experiment("open", {"market_profile": {"stress": {"windows": [], "sectors": {}}}})
        told = ("no shock sector for", site.config().market_profile.sectors[0])
        assert_refused(command(name, *options(site, "open")), *told)
    for path in (site.log_dir / "pretrain_micro").glob("*.pt"):
        path.unlink()
    assert_refused(command(name, *options(site)), "phase 2 has not finished")
    remove_run(site.log_dir)
    assert_refused(command(name, *options(site)), "phase 1 has not finished")
