"""Seconds to compute the 12 features of 1.8 million bars, beside the same in plain Python.

The peer is the reference of the tests, which follows the formulas bar by bar; it gets fewer bars.
Run: `OMP_NUM_THREADS=1 python -m benchmarks.relativity`; writes `logs/benchmarks/relativity.json`.
"""

from benchmarks import timing
from hrl_sarp.config.loading import load_config
from hrl_sarp.features.relativity import relativity_features
from tests.features.candle_factories import part, walk
from tests.features.test_relativity import slow_features

N_BARS, N_SLOW_BARS, REPEATS = 1_800_000, 3_000, 5
TARGET_SECONDS = 1.0


def main() -> None:
    """Measure and print."""
    windowed = load_config().windowed
    config, length = windowed.feature_config, windowed.window_length
    bars = walk("2 trades", N_BARS, seed=0)
    few = part(bars, slice(N_SLOW_BARS))
    rates = timing.alternate(
        {
            "compiled": (lambda: relativity_features(bars, config, length), N_BARS),
            "plain Python": (lambda: slow_features(few), N_SLOW_BARS),
        },
        REPEATS,
    )
    per_bar = rates["compiled"].seconds_spent()
    timing.publish(
        "relativity",
        rates,
        "bars",
        ratio=timing.ratio(rates["compiled"], rates["plain Python"]),
        seconds={kind: N_BARS * seconds for kind, seconds in per_bar.items()},
        target_seconds=TARGET_SECONDS,
    )


if __name__ == "__main__":
    main()
