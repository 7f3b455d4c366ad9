"""Seconds to backtest 500 stocks over ten years: all baselines and random portfolios as one batch.

The baselines that optimise a covariance are left out of universes this large, as in every backtest
(`optimised_max_slots`). Run: `python -m benchmarks.backtest`. Writes
`logs/benchmarks/backtest.json`.
"""

import numpy as np

from benchmarks import cases, timing
from hrl_sarp.contracts import DayRange, Market
from hrl_sarp.evaluation.backtest import backtest
from hrl_sarp.evaluation.baselines import make_baselines, make_random_portfolios
from tests import factories

N_DAYS, WARM_UP_DAYS, REPEATS = 2520, 253, 3
N_SECTORS, SLOTS_PER_SECTOR = 11, 45
TARGET_SECONDS = 3.0


def market() -> Market:
    """Draw 506 stocks, of which 495 are in the universe at any time; some halt and end."""
    rng = np.random.default_rng(0)
    return factories.random_market(rng, N_DAYS + WARM_UP_DAYS, N_SECTORS, SLOTS_PER_SECTOR)


def main() -> None:
    """Measure and print."""
    drawn, config = market(), cases.configuration()
    span = DayRange(WARM_UP_DAYS, drawn.n_days)

    def run() -> None:
        policies = [*make_baselines(drawn, config), *make_random_portfolios(config)]
        backtest(drawn, policies, span, config)

    rates = timing.alternate({"baselines and random portfolios": (run, 1)}, REPEATS)
    (rate,) = rates.values()
    timing.publish(
        "backtest", rates, "backtests", seconds=rate.seconds_spent(), target_seconds=TARGET_SECONDS
    )


if __name__ == "__main__":
    main()
