"""What forecasts of Kronos are measured by; `python -m benchmarks.forecasters` measures them.

Weights are random, sizes are those of the published small predictor. Only the comparison of a batch
has the sizes that `train-forecaster` trains: on a CPU the published ones compute at full speed one
by one, too.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch

from hrl_sarp.forecasters.contract import History
from hrl_sarp.forecasters.kronos import (
    PREDICTORS,
    TOKENIZER_BASE,
    KronosForecaster,
    KronosPredictor,
    KronosTokenizer,
    Sampling,
)

MAX_CONTEXT, MANY_PATHS, BATCH_PATHS, N_SERIES = 512, 20, 8, 64
SHORT, LONG, TRAINED = (256, 10), (400, 30), (90, 10)
"""Rows of the context, and steps."""
TRAINED_SIZE = {"d_model": 64, "n_heads": 4, "ff_dim": 128, "s1_bits": 6, "s2_bits": 6}


@cache
def networks(size: str) -> tuple[KronosTokenizer, KronosPredictor]:
    """Return networks of the published small size, or of the trained one."""
    torch.manual_seed(0)
    if size == "small":
        return KronosTokenizer(TOKENIZER_BASE), KronosPredictor(PREDICTORS[size])
    blocks = TRAINED_SIZE | {"n_enc_layers": 3, "n_dec_layers": 3}
    tokenizer = TOKENIZER_BASE.model_copy(update=blocks)
    predictor = PREDICTORS["small"].model_copy(update=TRAINED_SIZE | {"n_layers": 3})
    return KronosTokenizer(tokenizer), KronosPredictor(predictor)


def history(shape: tuple[int, int], seed: int = 0) -> History:
    """Return a random walk of daily closes."""
    n_rows, n_steps = shape
    rng = np.random.default_rng(seed)
    days = np.datetime64("2020-01-01") + np.arange(n_rows + n_steps)
    closes = 100 * np.exp(0.01 * rng.normal(size=n_rows).cumsum())
    return History(str(seed), days[:n_rows], closes, days[n_rows:])


def draws(
    shape: tuple[int, int], n_paths: int, *, size: str = "small", is_cached: bool = True
) -> Callable[[list[History]], object]:
    """Return a function that draws paths of histories."""
    forecaster = KronosForecaster(
        *networks(size),
        Sampling(n_paths=n_paths),
        max_context=MAX_CONTEXT,
        context=shape[0],
        is_cached=is_cached,
    )
    return lambda histories: forecaster.draw_bars(histories, seed=0)


def cached(shape: tuple[int, int]) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return one path with the cache, and without."""
    one = [history(shape)]
    with_cache, without = (draws(shape, 1, is_cached=is_cached) for is_cached in (True, False))
    return lambda: with_cache(one), lambda: without(one)


def paths() -> tuple[Callable[[], object], Callable[[], object]]:
    """Return many paths at once, and one by one."""
    one = [history(SHORT)]
    many, single = draws(SHORT, MANY_PATHS), draws(SHORT, 1)
    return lambda: many(one), lambda: [single(one) for _ in range(MANY_PATHS)]


def series() -> tuple[Callable[[], object], Callable[[], object]]:
    """Return many series at once, and one by one."""
    histories = [history(TRAINED, seed) for seed in range(N_SERIES)]
    few = draws(TRAINED, BATCH_PATHS, size="trained")
    return lambda: few(histories), lambda: [few([one]) for one in histories]


def comparisons() -> dict[str, tuple[float, Callable[[], object], Callable[[], object], int]]:
    """Return goal, fast way, plain way and forecasts of a call, by name."""
    return {
        "kronos: 256 rows + 10 steps with a cache, not recomputed": (6.0, *cached(SHORT), 1),
        "kronos: 400 rows + 30 steps with a cache, not recomputed": (12.0, *cached(LONG), 1),
        # 20 paths may take four times as long as one
        f"kronos: {MANY_PATHS} paths at once, not one by one": (
            MANY_PATHS / 4,
            *paths(),
            MANY_PATHS,
        ),
        f"kronos: {N_SERIES} series at once, not one by one": (4.0, *series(), N_SERIES),
    }
