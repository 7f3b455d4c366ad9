"""A policy of your own, backtested on the bundled sample: `python examples/own_policy.py`."""

import numpy as np

import hrl_sarp
from hrl_sarp.evaluation.own_policy import PastView


def calmest_three(view: PastView) -> np.ndarray | None:
    """Hold the three stocks that moved least over half a year, renewed once a week."""
    if not (view.is_first or view.is_week_end):
        return None
    movement = np.where(view.usable, view.past_returns(126).std(axis=0), np.inf)
    return (np.argsort(np.argsort(movement)) < 3) / 3


if __name__ == "__main__":
    result = hrl_sarp.backtest(calmest_three, hrl_sarp.load_market())  # warns: a cap is 10 %
    print(result.summary().select("policy", "volatility", "max_drawdown", "annual_return"))
    print(result.holdings().tail(3))
    print(f"wrote {result.report('logs/calmest_three')}")
