"""All five phases and the backtest with the embeddings of each encoder in the observations."""

from pathlib import Path

import pytest

from hrl_sarp.errors import CheckpointError
from hrl_sarp.evaluation.backtest import run_backtest
from hrl_sarp.evaluation.policies import trained_policies
from hrl_sarp.market.cache import assembled_market
from hrl_sarp.observed.stocks import with_stock_embeddings
from hrl_sarp.training import run_curriculum, run_phase
from hrl_sarp.training.phase import PhaseContext, with_sector_table
from tests import tiny_runs
from tests.encoders import panels

FEW = {"bootstrap_samples": 50, "random_portfolios": 2, "baselines": ["equal_weight"]}
"""Of the backtest: what is asked here is only whether it runs."""


def context_of(observe: str, panel_data: Path, log_dir: Path) -> PhaseContext:
    config = tiny_runs.changed(panels.small_config(observe=observe), {"evaluation": FEW})
    market = assembled_market(panel_data, config)
    seen = with_stock_embeddings(market, panel_data, config, panels.CPU)
    return tiny_runs.context_of(seen, config, log_dir)


def test_phase_1_reads_both_encoders_and_its_table_is_refused_with_one_of_them(
    panel_data: Path, tmp_path: Path
) -> None:
    context = context_of("both", panel_data, tmp_path)
    run_phase(1, context)
    with_sector_table(context)
    with pytest.raises(CheckpointError, match="belongs to another market"):
        with_sector_table(context_of("jade", panel_data, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("observe", ["none", "jade", "transformer", "both"])
def test_phases_and_backtest_run_with_each_setting(
    observe: str, panel_data: Path, tmp_path: Path
) -> None:
    context = context_of(observe, panel_data, tmp_path)
    run_curriculum(context)
    policies, _ = trained_policies(context)
    result = run_backtest(context.market, policies, "test", context.config, 1)
    assert {"joint", "phases 1+2"} <= set(result.main.names)
