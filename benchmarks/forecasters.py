"""How many times faster forecasters are than the plain way of doing the same, in one process.

Each line of `COMPARISONS` names the fast way, the plain way, and the ratio that it must reach.
Run: `python -m benchmarks.forecasters`. Writes `logs/benchmarks/forecasters.json`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from benchmarks import kronos_forecasts, timing
from hrl_sarp.forecasters.contract import LEVELS, History
from hrl_sarp.forecasters.toto import (
    SeriesBatch,
    Toto,
    TotoConfig,
    TotoForecaster,
    forecast_paths,
    forecast_quantiles,
)

REPEATS = 5
PATHS = 256
CONTEXT_PATCHES, FAR_PATCHES, FAR_PATHS, N_SERIES = 32, 5, 8, 64


@dataclass(frozen=True)
class Comparison:
    """Two ways of doing the same."""

    goal: float
    """The fast way must do so many times as much a second."""
    fast: Callable[[], object]
    plain: Callable[[], object]
    units: int = 1
    """Forecasts that one call of either makes."""


@cache
def toto() -> Toto:
    """Return a model of random weights with the patches and mixtures of the published one."""
    torch.manual_seed(0)
    sizes = {"embed_dim": 256, "num_layers": 6, "num_heads": 8, "mlp_hidden_dim": 512}
    sizes |= {"spacewise_every_n_layers": 6}
    return Toto(TotoConfig.base().model_copy(update=sizes)).eval()


def small_toto() -> Toto:
    """Return a model of the size that is trained by default."""
    torch.manual_seed(0)
    sizes = {"patch_size": 8, "embed_dim": 64, "num_layers": 4, "num_heads": 4}
    sizes |= {"mlp_hidden_dim": 128, "spacewise_every_n_layers": 4, "k_components": 8}
    return Toto(TotoConfig.base().model_copy(update=sizes)).eval()


def toto_batch() -> SeriesBatch:
    """Return one series of the context."""
    steps = np.random.default_rng(0).normal(size=CONTEXT_PATCHES * toto().config.patch_size)
    return SeriesBatch.alone(torch.from_numpy(steps.cumsum())[None])


def uniforms(n_paths: int, n_patches: int) -> torch.Tensor:
    """Return what paths of one series are drawn from."""
    shape = (n_paths, 1, 1, n_patches * toto().config.patch_size, 3)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).clamp(min=1e-7)


@torch.no_grad()
def toto_rows_of_paths() -> torch.Tensor:
    """Draw a patch of paths as the published code does: each path is a row from the context on."""
    rows = toto().next_patch(toto_batch().repeat(PATHS))
    return rows.draw(uniforms(PATHS, 1)[:, 0])


def histories(n_days: int) -> list[History]:
    """Return series of prices, and five days to forecast."""
    rng = np.random.default_rng(0)
    days = np.datetime64("2020-01-01") + np.arange(n_days + 5)
    prices = np.exp(0.01 * rng.normal(size=(N_SERIES, n_days)).cumsum(axis=1))
    return [History(str(i), days[:-5], row, days[-5:]) for i, row in enumerate(prices)]


def toto_comparisons() -> dict[str, Comparison]:
    """Return what Toto is measured by."""
    model, batch, series = toto(), toto_batch(), histories(96)
    forecaster = TotoForecaster(small_toto(), 12, PATHS)
    far = uniforms(FAR_PATHS, FAR_PATCHES)
    size = model.config.patch_size
    return {
        f"toto: closed form, not {PATHS} paths": Comparison(
            50.0, lambda: forecast_quantiles(model, batch, size, LEVELS), toto_rows_of_paths
        ),
        f"toto: cache over {FAR_PATCHES} patches": Comparison(
            2.0,
            lambda: forecast_paths(model, batch, far),
            lambda: forecast_paths(model, batch, far, cached=False),
        ),
        f"toto: {N_SERIES} series at once": Comparison(
            4.0,
            lambda: forecaster.forecast(series, LEVELS, seed=0),
            lambda: [forecaster.forecast([one], LEVELS, seed=0) for one in series],
            N_SERIES,
        ),
    }


def kronos_comparisons() -> dict[str, Comparison]:
    """Return what Kronos is measured by."""
    return {name: Comparison(*found) for name, found in kronos_forecasts.comparisons().items()}


COMPARISONS = (toto_comparisons, kronos_comparisons)
"""Functions that return comparisons by their names."""


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    asked = {name: found for part in COMPARISONS for name, found in part().items()}
    cases: dict[str, timing.Case] = {}
    for name, comparison in asked.items():
        cases[name] = comparison.fast, comparison.units
        cases[f"{name} (plain)"] = comparison.plain, comparison.units
    rates = timing.alternate(cases, REPEATS)
    ratios = {
        name: timing.ratio(rates[name], rates[f"{name} (plain)"]) | {"goal": comparison.goal}
        for name, comparison in asked.items()
    }
    timing.publish("forecasters", rates, "forecasts", ratios=ratios)


if __name__ == "__main__":
    main()
