"""Reports of backtests and stress tests: files, page, terminal, and comparisons of runs."""

from hrl_sarp.evaluation.report.analysis import analyse
from hrl_sarp.evaluation.report.compare import aggregate_runs
from hrl_sarp.evaluation.report.outcome import Backtest
from hrl_sarp.evaluation.report.page import print_summary, write_backtest

__all__ = ["Backtest", "aggregate_runs", "analyse", "print_summary", "write_backtest"]
