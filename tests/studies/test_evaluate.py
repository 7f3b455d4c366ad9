"""The command `evaluate`: files of studies, one study a folder, cells that fail, a stop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hrl_sarp.config.loading import DEFAULT_CONFIG_DIR, list_choices, load_study
from hrl_sarp.errors import ConfigError, DataError
from hrl_sarp.run.files import read_json
from hrl_sarp.studies import Cell, Results, run_grid
from hrl_sarp.studies.evaluate import claim, planned, require_own_folder
from hrl_sarp.studies.walk_forward import WalkForward
from hrl_sarp.studies.workers import Workers
from tests.command_line import Command, assert_refused, make_command

SHIPPED = list_choices(DEFAULT_CONFIG_DIR, "study")
STUDY: dict[str, Any] = {
    "experiment": "smoke",
    "markets": {"sample": None},
    "values": {},
    "variants": {"calm": {"objective": {"risk_aversion": 8.0}}},
    "folds": {
        "first_test_year": 2005,
        "last_test_year": 2006,
        "test_years": 1,
        "validation_years": None,
        "count": None,
    },
    "seeds": [0, 1],
    "phases": [1, 2],
    "impact_coefficient": 0.02,
}
Write = Callable[..., Path]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return make_command(monkeypatch, capfd)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes the file of a study, with some of its values replaced."""
    monkeypatch.chdir(tmp_path)

    def written(**changes: Any) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
        return path

    return written


@pytest.fixture
def cells_without_work(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Let cells do nothing, in this process; what is put into this mapping makes a cell fail."""
    reasons: dict[str, str] = {}

    def run(_self: WalkForward, cell: Cell, _folder: Path) -> dict[str, Any]:
        if cell.name in reasons:
            raise DataError(reasons[cell.name])
        return {"mean_exposure": {}}

    def run_all(self: WalkForward, jobs: int, _workers: Workers | None = None) -> Results:
        return run_grid(self, self.cells(), jobs, needs=self.needs, in_process=True)

    monkeypatch.setattr(WalkForward, "run", run)
    monkeypatch.setattr(WalkForward, "run_all", run_all)

    def summarise(study: WalkForward) -> str:
        study.folder.joinpath("table.md").write_text(
            "# Walk-forward\n\n## Lines\n\n![a](b.png)\n\n| a |\n"
        )
        study.folder.joinpath("card.md").write_text("Three seeds.\n")
        return "\n".join(["the table", *study.missing()])

    monkeypatch.setattr("hrl_sarp.studies.walk_forward.report.summarise", summarise)
    return reasons


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_studies_make_folds_and_configurations(name: str, tmp_path: Path) -> None:
    study = load_study(name)
    walk = planned(study, name, tmp_path)
    assert {fold.market for fold in walk.folds.values()} == set(study.markets)
    for fold in walk.folds.values():
        for variant in walk.recipe.variants:
            config = walk.recipe.config(fold, variant, walk.seeds[0])
            assert (config.market, config.threads) == (fold.market, 1)
    assert not any(tmp_path.iterdir())


def test_the_shipped_studies_are_those_that_pages_name() -> None:
    assert SHIPPED == ["laptop", "observed", "three_markets", "us"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"folds": {**STUDY["folds"], "cuont": 3}},
            "folds.cuont: unknown key; did you mean 'count'",
        ),
        ({"seed": 3}, "seed: unknown key; did you mean 'seeds'"),
        ({"seeds": []}, "seeds: "),
        ({"seeds": [1, 1]}, "seeds: expected each seed once"),
        ({"seeds": [-1]}, r"seeds\[0\]: "),
        ({"phases": [1, 3]}, "phases: expected the phases from 1 on"),
        ({"phases": [2]}, "phases: expected the phases from 1 on"),
        ({"markets": {}}, "markets: "),
        ({"variants": {}}, "variants: "),
        ({"variants": {"baselines": None}}, "`baselines` names the cells of the baselines"),
        ({"variants": {"a-ensemble": None}}, "variants: .* not 'a-ensemble'"),
        ({"folds": {**STUDY["folds"], "test_years": 0}}, "folds.test_years: "),
    ],
)
def test_a_study_that_cannot_be_meant_is_refused(
    write: Write, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        load_study(str(write(**changes)))


@pytest.mark.parametrize("key", list(STUDY))
def test_every_key_is_required(write: Write, key: str) -> None:
    path = write()
    path.write_text(yaml.safe_dump({name: STUDY[name] for name in STUDY if name != key}))
    with pytest.raises(ConfigError, match=f"{key}: required key is missing"):
        load_study(str(path))


def test_a_name_that_is_no_study_is_refused_with_the_near_one(command: Command) -> None:
    assert_refused(command("evaluate", "--study", "laptpo"), "did you mean 'laptop'?")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--market", "us"), ("--market", "NAME=DIR", "'us'")),
        (("--market", "us=nowhere"), ("nowhere", "does not exist")),
        (("--market", "uss=nowhere"), ("did you mean 'us'?",)),
        (("--seeds", "0-2"), ("--seeds", "'0-2'")),
        (("--phases", "2,3"), ("phases", "from 1 on", "command line")),
        (("--config", "nowhere"), ("--config nowhere", "init")),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    command: Command, write: Write, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    study = write()
    assert_refused(command("evaluate", "--study", study, *options), *words)
    assert not (tmp_path / "logs").exists()


def test_a_market_without_a_folder_is_refused(command: Command, write: Write) -> None:
    result = command("evaluate", "--study", write(markets={"sample": None, "us": None}))
    assert_refused(result, "markets.us", "--market us=DIR")


def test_wrong_values_of_a_later_variant_are_refused_at_the_start(
    command: Command, write: Write, tmp_path: Path
) -> None:
    variants = {"risk": None, "odd": {"objective": {"risk_aversoin": 1.0}}}
    result = command("evaluate", "--study", write(variants=variants))
    assert_refused(result, "risk_aversion", "mine.yaml")
    assert not (tmp_path / "logs").exists()


def test_pages_take_the_results_of_a_study_by_one_command(
    command: Command, write: Write, tmp_path: Path, cells_without_work: dict[str, str]
) -> None:
    assert cells_without_work == {}
    study, readme, docs = write(), tmp_path / "README.md", tmp_path / "docs.md"
    readme.write_text("before\n<!-- study mine -->\n12.3 %\n<!-- /study mine -->\nafter\n")
    docs.write_text("## Study\n<!-- tables of mine -->\n<!-- /tables of mine -->\n")
    for _ in range(2):  # the same again changes nothing
        code, _, err = command(
            "evaluate", "--study", study, "--readme", str(readme), "--readme", str(docs)
        )
        assert (code, err.count("Error")) == (0, 0)
        assert readme.read_text() == (
            "before\n<!-- study mine -->\nThree seeds.\n<!-- /study mine -->\nafter\n"
        )
        assert docs.read_text() == (
            "## Study\n<!-- tables of mine -->\n### Lines\n\n| a |\n<!-- /tables of mine -->\n"
        )
    readme.write_text("no block\n")
    own = ("--output", str(tmp_path / "own"))
    code, _, err = command("evaluate", "--study", study, "--readme", str(readme), *own)
    assert code == 1
    assert not (tmp_path / "own").exists()  # said before anything runs
    assert "expected a block from <!-- study mine --> to <!-- /study mine -->" in err
    assert readme.read_text() == "no block\n"


def test_a_failed_cell_is_named_and_the_rest_goes_on(
    command: Command, write: Write, tmp_path: Path, cells_without_work: dict[str, str]
) -> None:
    study, folder = write(), tmp_path / "logs" / "studies" / "mine"
    cells_without_work["sample-2006-2006-calm-1"] = "no close\non 2006-03-01"
    lost = ["sample-2006-2006-calm-1", "sample-2006-2006-calm-ensemble-0"]
    code, out, err = command("evaluate", "--study", study)
    assert code == 1
    pages = " and ".join(
        str(Path("logs/studies/mine") / page) for page in ("table.md", "report.html")
    )
    assert out.splitlines() == ["the table", *lost, f"wrote {pages}"]
    assert f"{lost[0]} failed: DataError: no close on 2006-03-01" in err.splitlines()
    assert f"{lost[1]} failed: it needs {lost[0]}, which failed" in err.splitlines()
    # 2 baselines, 2 folds x 2 seeds, 2 ensembles
    assert len(list(folder.glob("*/cell.json"))) == 8 - len(lost)
    cells_without_work.clear()
    code, out, err = command("evaluate", "--study", study)
    assert (code, out.splitlines()[1:-1]) == (0, [])
    assert "6 of 8 cells are there" in err


def test_baselines_that_fail_take_their_fold_with_them_and_no_other(
    write: Write, tmp_path: Path, cells_without_work: dict[str, str]
) -> None:
    walk = planned(load_study(str(write())), "mine", tmp_path / "out")
    cells_without_work["sample-2005-2005-baselines-0"] = "no close"
    failed = walk.run_all(1).failed
    assert {cell.name for cell in failed} == {
        cell.name for cell in walk.cells() if cell.name.startswith("sample-2005")
    }
    assert walk.missing() == {cell.name: reason for cell, reason in failed.items()}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seeds": [0, 1, 2]}, "seeds [0, 1] there, [0, 1, 2] here"),
        ({"phases": [1]}, "phases [1, 2] there, [1] here"),
        ({"variants": {"risk": None}}, "variants.calm.objective.risk_aversion 8.0 there"),
        ({"values": {"objective": {"kind": "risk"}}}, "values.objective.kind None there"),
        ({"experiment": None}, "experiment 'smoke' there, None here"),
        ({"folds": {**STUDY["folds"], "count": 1}}, "folds.count None there, 1 here"),
        ({"markets": {"sample": None, "us": "data/us/raw"}}, "markets ['sample'] there"),
    ],
)
def test_another_study_in_the_folder_is_refused(
    command: Command,
    write: Write,
    tmp_path: Path,
    changes: dict[str, Any],
    told: str,
) -> None:
    claim(load_study(str(write())), tmp_path / "out")
    before = read_json(tmp_path / "out" / "study.json", "this test")
    for only in ((), ("--summary-only",)):
        result = command("evaluate", "--study", write(**changes), "--output", "out", *only)
        assert_refused(result, "out holds another study", told, "--output", code=2)
    assert read_json(tmp_path / "out" / "study.json", "this test") == before


def test_data_that_were_moved_are_the_same_study(write: Write, tmp_path: Path) -> None:
    claim(load_study(str(write(markets={"us": "data/us/raw"}))), tmp_path)
    require_own_folder(load_study(str(write(markets={"us": "elsewhere"}))), tmp_path)


@pytest.mark.parametrize(
    "damaged", ["study.json", "sample-2005-2005-baselines-0/cell.json", "lost/failed.json"]
)
def test_a_damaged_file_is_refused_with_its_name_and_what_to_do(
    command: Command,
    write: Write,
    tmp_path: Path,
    cells_without_work: dict[str, str],
    damaged: str,
) -> None:
    lost = "sample-2005-2005-calm-0"
    cells_without_work[lost] = "no close"
    study, path = write(), tmp_path / "logs/studies/mine" / damaged.replace("lost", lost)
    assert command("evaluate", "--study", study)[0] == 1
    path.write_text(path.read_text()[:-20])
    only = ["--summary-only"] if lost in str(path) else []  # a failed cell is tried again
    code, _, err = command("evaluate", "--study", study, *only)
    assert code == 1
    assert str(Path(*path.parts[len(tmp_path.parts) :])) in err
    assert err.splitlines()[-1].endswith("is damaged: remove it, then repeat the command")
    path.unlink()
    cells_without_work.clear()
    assert command("evaluate", "--study", study)[0] == 0


def test_options_take_the_place_of_values_of_the_study(
    command: Command, write: Write, tmp_path: Path, cells_without_work: dict[str, str]
) -> None:
    assert not cells_without_work
    code, _, _ = command("evaluate", "--study", write(), "--seeds", "4", "--phases", "1")
    assert code == 0
    written = read_json(tmp_path / "logs" / "studies" / "mine" / "study.json", "this test")
    assert (written["seeds"], written["phases"]) == ([4], [1])


def test_a_stop_says_that_the_same_command_continues(
    command: Command,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    cells_without_work: dict[str, str],
) -> None:
    assert not cells_without_work

    def stopped(_self: WalkForward, _cell: Cell, _folder: Path) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(WalkForward, "run", stopped)
    code, _, err = command("evaluate", "--study", write())
    assert code == 130
    assert err.splitlines()[-1] == "stopped at once; the same command continues"


def test_help_shows_an_example(command: Command) -> None:
    code, out, _ = command("evaluate", "--help")
    assert code == 0
    assert "Example: hrl-sarp evaluate --study laptop" in out
