"""All five phases and the backtest with the embeddings of each encoder in the observations."""

from pathlib import Path

import pytest

from hrl_sarp.encoders.stock_embeddings import with_stock_embeddings
from hrl_sarp.errors import CheckpointError
from hrl_sarp.evaluation.agent_policies import trained_policies
from hrl_sarp.evaluation.backtest import run_backtest
from hrl_sarp.market.cache import load_market
from hrl_sarp.training import run_curriculum
from hrl_sarp.training.phase import PhaseContext
from tests import tiny_runs
from tests.encoders import panels


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw data of the small market with both encoders."""
    data_dir = panels.write_small_data(tmp_path_factory.mktemp("embeddings"))
    panels.pretrain_small("jade", data_dir, panels.small_config())
    panels.pretrain_small("transformer", data_dir, panels.small_config())
    return data_dir


def context_of(observe: str, data_dir: Path, log_dir: Path) -> PhaseContext:
    config = panels.small_config(observe=observe)
    market = load_market(data_dir, config)
    seen = with_stock_embeddings(market, data_dir, config, panels.CPU)
    return tiny_runs.context_of(seen, config, log_dir)


def run_all(observe: str, data_dir: Path, log_dir: Path) -> PhaseContext:
    context = context_of(observe, data_dir, log_dir)
    run_curriculum(context)
    return context


def test_phases_and_backtest_run_with_both_encoders_and_refuse_other_tables(
    data_dir: Path, tmp_path: Path
) -> None:
    context = run_all("both", data_dir, tmp_path)
    policies, _ = trained_policies(context)
    result = run_backtest(context.market, policies, "test", context.config, 1)
    assert "joint" in result.trajectory.names
    with pytest.raises(CheckpointError, match="belongs to another market"):
        trained_policies(context_of("jade", data_dir, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("observe", ["none", "jade", "transformer"])
def test_phases_and_backtest_run_with_each_setting(
    observe: str, data_dir: Path, tmp_path: Path
) -> None:
    context = run_all(observe, data_dir, tmp_path)
    policies, _ = trained_policies(context)
    result = run_backtest(context.market, policies, "test", context.config, 1)
    assert "joint" in result.trajectory.names
