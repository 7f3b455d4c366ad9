"""Evaluates policies: backtest, baselines, statistics, stress tests and reports."""

from hrl_sarp import metrics
from hrl_sarp.envs.rollout import HOLD, Decision, DecisionView, Policy
from hrl_sarp.evaluation import baselines, statistics
from hrl_sarp.evaluation.backtest import BacktestResult, backtest, run_backtest

__all__ = [
    "HOLD",
    "BacktestResult",
    "Decision",
    "DecisionView",
    "Policy",
    "backtest",
    "baselines",
    "metrics",
    "run_backtest",
    "statistics",
]
