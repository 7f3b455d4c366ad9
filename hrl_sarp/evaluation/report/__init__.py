"""What a backtest says, in files, on a page, on the terminal and beside other runs."""

from hrl_sarp.evaluation.report.analysis import Analysis, analyse
from hrl_sarp.evaluation.report.compare import aggregate_runs
from hrl_sarp.evaluation.report.outcome import Backtest
from hrl_sarp.evaluation.report.page import headline, print_summary, render_page, write_backtest

__all__ = [
    "Analysis",
    "Backtest",
    "aggregate_runs",
    "analyse",
    "headline",
    "print_summary",
    "render_page",
    "write_backtest",
]
