from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.errors import MetricError, MissingArtifactError
from hrl_sarp.evaluation.backtest import BacktestResult
from hrl_sarp.evaluation.compare import aggregate_runs, compare_runs
from hrl_sarp.evaluation.ledger import DAILY_NAME
from hrl_sarp.evaluation.report import write_backtest


def _with_own_shifted(result: BacktestResult, shift: float) -> BacktestResult:
    net = result.main.net_return.copy()
    net[:, result.main.names.index("own")] += shift
    return replace(result, main=replace(result.main, net_return=net))


@pytest.fixture(scope="module")
def folders(result: BacktestResult, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    for name, shift in (("a", -0.001), ("b", 0.0), ("c", 0.001)):
        write_backtest(_with_own_shifted(result, shift), root / name / "backtest")
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


def test_runs_that_disagree_widen_the_interval(folders: list[Path]) -> None:
    three = aggregate_runs(folders).summaries["own"].growth_excess
    alike = aggregate_runs([folders[1]] * 3).summaries["own"].growth_excess
    assert three.high - three.low > 1.2 * (alike.high - alike.low)


def test_baselines_do_not_vary_over_seeds(folders: list[Path]) -> None:
    found = aggregate_runs(folders)
    assert found.summaries["12-1 momentum"].return_deviation == pytest.approx(0, abs=1e-15)
    assert found.summaries["1/N"].growth_excess.high == 0


def test_tables_show_every_policy(folders: list[Path], result: BacktestResult) -> None:
    table, markdown = compare_runs(folders)
    assert len(markdown.splitlines()) == len(result.main.names) + 2
    assert table.row_count == len(result.main.names)


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


def test_unfinished_run_names_the_command(folders: list[Path]) -> None:
    with pytest.raises(MissingArtifactError, match=r"main\.py backtest"):
        aggregate_runs([folders[0].parent / "nowhere"])


def test_run_without_its_daily_ledger_is_refused(result: BacktestResult, tmp_path: Path) -> None:
    write_backtest(result, tmp_path)
    (tmp_path / DAILY_NAME).unlink()
    with pytest.raises(MissingArtifactError, match=DAILY_NAME):
        aggregate_runs([tmp_path])


def test_no_runs_are_refused() -> None:
    with pytest.raises(MetricError, match="at least one folder"):
        aggregate_runs([])
