"""The ablation: numbers paired by seed, cells that run once, a table that says what came out."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.market.cache import assembled_market
from hrl_sarp.observed.stocks import with_stock_embeddings
from hrl_sarp.run.files import read_json
from hrl_sarp.studies import Cell, Results, run_grid
from tests import tiny_runs
from tests.encoders import panels

FEW = {"bootstrap_samples": 50, "random_portfolios": 2, "baselines": ["equal_weight"]}


@pytest.fixture(scope="module")
def script(repository: Path) -> ModuleType:
    path = repository / "scripts" / "encoder_ablation.py"
    spec = importlib.util.spec_from_file_location("encoder_ablation", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def results(script: ModuleType, **of: list[float]) -> Results:
    """Results in which only the rank IC differs: setting -> values of seeds 0, 1, ..."""
    return Results(
        {
            Cell(setting, seed): {**dict.fromkeys(script.MEASURES, 0.0), "rank_ic": value}
            for setting, values in of.items()
            for seed, value in enumerate(values)
        },
        {},
    )


def test_differences_are_paired_by_seed(script: ModuleType) -> None:
    found = script.summarise(results(script, none=[0.01, 0.03], jade=[0.02, 0.05, 0.50]))
    # none: mean of 0.01 and 0.03, standard error 0.01414 / sqrt 2 = 0.01
    assert found["none"]["rank_ic"].mean == pytest.approx(0.02)
    assert found["none"]["rank_ic"].standard_error == pytest.approx(0.01)
    # jade minus none: 0.01 and 0.02 for seeds 0 and 1; seed 2 has no partner
    difference = found["jade"]["rank_ic_minus_none"]
    assert difference.mean == pytest.approx(0.015)
    assert difference.standard_error == pytest.approx(0.005)
    assert found["jade"]["paired_seeds"] == [0, 1]
    assert found["none"]["rank_ic_minus_none"] is None


def test_one_seed_has_no_standard_error(script: ModuleType) -> None:
    found = script.summarise(results(script, jade=[0.02]))
    page = script.as_markdown(found, {"jade": "1.0 [0.5, 1.5]"})
    assert "| 0.0200 |" in page
    assert "±" not in page.splitlines()[4]
    assert "Difference" not in page


def test_an_encoder_that_is_missing_is_told_in_one_line(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data-dir", str(tmp_path), "--output", str(tmp_path / "out")]
    assert script.main([*options, "--observe", "jade"]) == 1
    assert "collect-data" in capsys.readouterr().err
    assert script.main([*options, "--observe", "gru"]) == 1
    assert "encoders.observe" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def study(script: ModuleType, tmp_path: Path) -> Any:
    """A study of the small market."""
    data_dir = panels.write_small_data(tmp_path)
    panels.pretrain_small("jade", data_dir, panels.small_config())

    class Small(script.Ablation):  # type: ignore[name-defined, misc]  # the module is read by path
        def config(self, cell: Cell) -> RunConfig:
            config = panels.small_config(observe=cell.setting)
            config = config.model_copy(update={"seed": cell.seed})
            changed: RunConfig = tiny_runs.changed(config, {"evaluation": FEW})
            return changed

        def market_of(self, config: RunConfig) -> Market:
            market = assembled_market(data_dir, config)
            return with_stock_embeddings(market, data_dir, config, panels.CPU)

    return Small(data_dir, tmp_path / "out", None, None)


@pytest.mark.slow
def test_cells_run_once_and_end_in_a_table(script: ModuleType, study: Any) -> None:
    study.prepare(["none", "jade"])
    cells = [Cell("none", 0), Cell("jade", 0)]
    run_grid(study, cells[:1], in_process=True)
    began = (study.folder / "none-0" / "cell.json").stat().st_mtime_ns
    script.report(study, run_grid(study, cells, in_process=True))
    assert (study.folder / "none-0" / "cell.json").stat().st_mtime_ns == began
    summary = read_json(study.folder / "ablation.json", "this test")["settings"]
    metrics = read_json(
        study.folder / "jade-0" / "pretrain_micro" / "pretrain_micro_metrics.json", "this test"
    )
    assert summary["jade"]["rank_ic"]["mean"] == metrics["rank_ic"]
    page = (study.folder / "ablation.md").read_text()
    assert page.count("| jade | 1 |") == 2
