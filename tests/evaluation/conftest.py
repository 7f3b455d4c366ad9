"""One small backtest that the tests of tables, files and pages share."""

import numpy as np
import pytest

from hrl_sarp.evaluation.attribution import LevelSwaps
from hrl_sarp.evaluation.backtest import BacktestResult, run_backtest
from hrl_sarp.evaluation.report.analysis import Analysis, analyse
from tests import factories
from tests.evaluation.small_runs import even_goal_policy, small_config

SWAPS = LevelSwaps(both="own", macro_only="own", micro_only="1/N", neither="1/N")


@pytest.fixture(scope="session")
def result() -> BacktestResult:
    market = factories.random_market(np.random.default_rng(5), n_days=400)
    own = even_goal_policy("own", market.n_sectors)
    return run_backtest(market, [own], "test", small_config(), n_trials=49)


@pytest.fixture(scope="session")
def analysis(result: BacktestResult) -> Analysis:
    return analyse(result, SWAPS)
