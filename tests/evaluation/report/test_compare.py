import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.errors import MetricError, MissingArtifactError
from hrl_sarp.evaluation.backtest import BacktestResult
from hrl_sarp.evaluation.report import aggregate_runs, write_backtest
from hrl_sarp.evaluation.report.files import DAILY_NAME, METRICS_NAME


def _with_own_shifted(result: BacktestResult, shift: float) -> BacktestResult:
    net = result.main.net_return.copy()
    net[:, result.main.names.index("own")] += shift
    return replace(result, main=replace(result.main, net_return=net))


def _with_seed(result: BacktestResult, seed: int) -> BacktestResult:
    return replace(result, config=result.config.model_copy(update={"seed": seed}))


@pytest.fixture(scope="module")
def folders(result: BacktestResult, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    for seed, (name, shift) in enumerate((("a", -0.001), ("b", 0.0), ("c", 0.001))):
        run = _with_seed(_with_own_shifted(result, shift), seed)
        write_backtest(run, root / name / "backtest")
    return [root / name for name in "abc"]


def test_mean_over_runs_is_that_of_the_middle_one(folders: list[Path]) -> None:
    found = aggregate_runs(folders)
    single = aggregate_runs(folders[1:2])
    own, alone = found.summaries["own"], single.summaries["own"]
    assert own.runs == 3
    # shifts of -10, 0, +10 bps a session cancel but for the curvature of the logarithm
    assert own.growth_excess.value == pytest.approx(alone.growth_excess.value, abs=1e-3)
    assert own.worst == pytest.approx(alone.growth_excess.value - 0.252, abs=5e-3)
    assert alone.return_deviation == 0


def test_runs_that_disagree_widen_the_interval(
    folders: list[Path], result: BacktestResult, tmp_path: Path
) -> None:
    three = aggregate_runs(folders).summaries["own"].growth_excess
    same = [tmp_path / str(seed) for seed in range(3)]
    for seed, folder in enumerate(same):
        write_backtest(_with_seed(result, seed), folder)
    alike = aggregate_runs(same).summaries["own"].growth_excess
    assert three.high - three.low > 1.2 * (alike.high - alike.low)


def test_baselines_do_not_vary_over_seeds(folders: list[Path]) -> None:
    found = aggregate_runs(folders)
    assert found.summaries["12-1 momentum"].return_deviation == pytest.approx(0, abs=1e-15)
    assert found.summaries["1/N"].growth_excess.high == 0


def test_tables_show_every_policy(folders: list[Path], result: BacktestResult) -> None:
    table = aggregate_runs(folders).table
    names = [row[0] for row in table.rows]
    assert names[-2:] == ["random stocks ± sd", "random, 5 % to 95 %"]
    assert set(names[:-2]) == set(result.main.names)
    assert len(table.markdown().splitlines()) == len(names) + 2


def test_random_stocks_show_the_average_of_the_runs_ranges(
    folders: list[Path], tmp_path: Path
) -> None:
    for name, shift in (("a", 0.0), ("b", 0.02)):
        shutil.copytree(folders["ab".index(name)], tmp_path / name)
        path = tmp_path / name / "backtest" / METRICS_NAME
        document = json.loads(path.read_text())
        del document["checksum"]
        figures = {"mean": 0.08, "deviation": 0.03, "low": 0.01, "high": 0.12}
        moved = {key: value + shift for key, value in figures.items()}
        document["luck"] = dict.fromkeys(document["luck"], moved)
        path.write_text(json.dumps(document))
    rows = {row[0]: row for row in aggregate_runs([tmp_path / "a", tmp_path / "b"]).table.rows}
    # by hand: halfway between the two runs, 1 % above the first
    assert rows["random stocks ± sd"][1:3] == ("2", "9.0 % ± 4.0")
    spread = rows["random, 5 % to 95 %"]
    assert (spread[2], *spread[5:7]) == ("2.0 to 13.0 %", "0.02 to 0.13", "2.0 to 13.0")


def test_risk_is_averaged_over_the_runs(folders: list[Path]) -> None:
    each = [
        json.loads((folder / "backtest" / METRICS_NAME).read_text())["performances"]
        for folder in folders
    ]
    for name, summary in aggregate_runs(folders).summaries.items():
        for measure in ("volatility", "certainty_equivalent_5"):
            mean = sum(found[name][measure] for found in each) / len(each)
            assert getattr(summary, measure) == pytest.approx(mean)


def test_runs_without_random_stocks_have_no_row_of_them(
    result: BacktestResult, tmp_path: Path
) -> None:
    write_backtest(replace(result, random=None), tmp_path)
    rows = aggregate_runs([tmp_path]).table.rows
    assert not [row[0] for row in rows if "random s" in row[0] or "95 %" in row[0]]


def test_backtest_folder_itself_may_be_named(folders: list[Path]) -> None:
    outer = aggregate_runs(folders[:1]).summaries
    inner = aggregate_runs([folders[0] / "backtest"]).summaries
    assert outer == inner


def test_runs_on_other_sessions_are_refused(
    folders: list[Path], result: BacktestResult, tmp_path: Path
) -> None:
    main, cut = result.main, slice(0, 40)
    arrays = {
        name: getattr(main, name)[cut]
        for name in main.__dataclass_fields__
        if isinstance(getattr(main, name), np.ndarray)
    }
    shorter = replace(result, main=replace(main, **arrays), variants={}, random=None)
    write_backtest(shorter, tmp_path / "short")
    with pytest.raises(MetricError, match="cannot be averaged"):
        aggregate_runs([folders[0], tmp_path / "short"])


def test_runs_of_another_experiment_are_refused(
    folders: list[Path], result: BacktestResult, tmp_path: Path
) -> None:
    risk = result.config.risk.model_copy(update={"min_cash": 0.5})
    other = replace(result, config=result.config.model_copy(update={"risk": risk, "seed": 9}))
    write_backtest(other, tmp_path)
    with pytest.raises(MetricError, match="differ in --seed only") as caught:
        aggregate_runs([folders[0], tmp_path])
    assert "\n" not in str(caught.value)


def test_seed_that_comes_twice_is_refused(
    folders: list[Path], result: BacktestResult, tmp_path: Path
) -> None:
    write_backtest(_with_seed(result, 2), tmp_path)
    with pytest.raises(MetricError, match="found 2 as in"):
        aggregate_runs([*folders, tmp_path])


def test_folder_that_comes_twice_is_refused_under_any_name(folders: list[Path]) -> None:
    with pytest.raises(MetricError, match="found it twice"):
        aggregate_runs([folders[0], folders[1], folders[0] / ".." / "a" / "backtest"])


def test_run_of_an_older_version_is_refused(result: BacktestResult, tmp_path: Path) -> None:
    write_backtest(result, tmp_path)
    path = tmp_path / METRICS_NAME
    document = json.loads(path.read_text())
    del document["checksum"]
    del document["provenance"]["experiment_hash"]
    path.write_text(json.dumps(document))
    with pytest.raises(MetricError, match="older version"):
        aggregate_runs([tmp_path])


def test_unfinished_run_names_the_command(folders: list[Path]) -> None:
    with pytest.raises(MissingArtifactError, match="hrl-sarp backtest"):
        aggregate_runs([folders[0].parent / "nowhere"])


def test_run_without_its_daily_ledger_is_refused(result: BacktestResult, tmp_path: Path) -> None:
    write_backtest(result, tmp_path)
    (tmp_path / DAILY_NAME).unlink()
    with pytest.raises(MissingArtifactError, match=DAILY_NAME):
        aggregate_runs([tmp_path])


def test_no_runs_are_refused() -> None:
    with pytest.raises(MetricError, match="at least one folder"):
        aggregate_runs([])
