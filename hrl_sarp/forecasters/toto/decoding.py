"""Forecasts of Toto 1.0: quantiles in closed form for one patch, patch after patch beyond."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from hrl_sarp.errors import ForecastError
from hrl_sarp.forecasters.toto.layers import Cache
from hrl_sarp.forecasters.toto.mixture import StudentTMixture
from hrl_sarp.forecasters.toto.model import Toto
from hrl_sarp.forecasters.toto.scaler import SeriesBatch

Padding = Literal["cut", "reference"]


def prepare(
    values: Float[Tensor, "B V T"],
    observed: Bool[Tensor, "B V T"],
    groups: Int[Tensor, "B V"],
    patch_size: int,
    *,
    n_exogenous: int = 0,
    padding: Padding = "cut",
) -> SeriesBatch:
    """Cut a context of any length to whole patches, without inventing values.

    Args:
        values: series up to the origin; any finite number where not observed.
        observed: True = a value.
        groups: series of one row with the same number see each other.
        patch_size: P.
        n_exogenous: so many of the last series are given to help with the others.
        padding: "cut" drops the oldest steps that make no patch, fills holes with the value before
            them and lets nothing read the patches before a series begins. "reference" adds zeros
            before the first step and lets the network read zeros wherever nothing was observed, as
            the makers' code does: a hole then looks like a jump to 0.

    Returns:
        A batch whose T is a multiple of P. Values that are not observed count in no statistic.

    Raises:
        ForecastError: if a series has no whole observed patch at its end (padding "cut").
    """
    length = values.shape[-1]
    if padding == "reference":
        missing = -length % patch_size
        values = functional.pad(torch.where(observed, values, 0.0), (missing, 0))
        return SeriesBatch(values, functional.pad(observed, (missing, 0)), groups, n_exogenous)
    if length < patch_size:
        raise ForecastError(
            f"expected at least a patch of {patch_size} steps, found {length}; give a longer "
            "history"
        )
    kept = slice(length % patch_size, None)
    values, observed = values[..., kept], observed[..., kept]
    steps = torch.arange(values.shape[-1], device=values.device)
    newest = torch.where(observed, steps, -1).cummax(dim=-1).values
    n_before = (newest < 0).sum(dim=-1)
    starts = -(-n_before // patch_size)
    late = (starts == len(steps) // patch_size).nonzero()
    if len(late):
        row, series = late[0].tolist()
        raise ForecastError(
            f"row {row}, series {series}: expected a whole patch of {patch_size} steps from the "
            f"first value on, found {len(steps) - int(n_before[row, series])}; give a longer "
            "history"
        )
    filled = values.gather(-1, newest.clamp(min=0))
    # a patch that nothing reads must count in no statistic, either
    begins = (starts * patch_size).unsqueeze(-1)
    is_read = steps >= begins
    return SeriesBatch(
        torch.where(is_read, filled, 0.0),
        observed & is_read,
        groups,
        n_exogenous,
        starts if bool(starts.any()) else None,
    )


@torch.no_grad()
def forecast_quantiles(
    model: Toto, batch: SeriesBatch, horizon: int, levels: Sequence[float]
) -> Float[Tensor, "B V h Q"]:
    """Invert the distribution of each of the next steps: no draw, no error of sampling.

    Args:
        model: Toto 1.0.
        batch: T is a multiple of the patch size; see `prepare`.
        horizon: h, at most the patch size.
        levels: ascending.

    Returns:
        Quantiles of each step alone, in the unit of the values, in float64.

    Raises:
        ForecastError: if the horizon is longer than a patch.
    """
    return next_steps(model, batch, horizon).quantiles(levels)


def next_steps(model: Toto, batch: SeriesBatch, horizon: int) -> StudentTMixture:
    """Return the distributions of the next steps, up to one patch.

    Args:
        model: Toto 1.0.
        batch: T is a multiple of the patch size.
        horizon: h, at most the patch size.

    Returns:
        Mixtures (B, V, h, K), in the unit of the values.

    Raises:
        ForecastError: if the horizon is longer than a patch.
    """
    size = model.config.patch_size
    if not 1 <= horizon <= size:
        raise ForecastError(
            f"expected a horizon of at least 1 and at most a patch ({size} steps), found {horizon};"
            " draw paths for longer ones"
        )
    return model.next_patch(batch, n_steps=horizon)


@torch.no_grad()
def forecast_mean(
    model: Toto,
    batch: SeriesBatch,
    horizon: int,
    future_exogenous: Float[Tensor, "B X h"] | None = None,
    *,
    cached: bool = True,
) -> Float[Tensor, "B V h"]:
    """Continue series patch by patch with the mean of each.

    Beyond one patch this is the path that feeds means back, not the mean of all paths.

    Args:
        model: Toto 1.0.
        batch: T is a multiple of the patch size; see `prepare`.
        horizon: h.
        future_exogenous: the known future of the last X series. It is read before later patches
            are forecast, and returned as it is.
        cached: whether patches that were read are kept; it changes nothing beyond rounding.

    Returns:
        The continuation, in the unit of the values.
    """
    return _continue(
        model, batch, horizon, lambda mixture, _: mixture.mean, future_exogenous, cached=cached
    )


@torch.no_grad()
def forecast_paths(
    model: Toto,
    batch: SeriesBatch,
    uniforms: Float[Tensor, "S B V h 3"],
    future_exogenous: Float[Tensor, "B X h"] | None = None,
    *,
    cached: bool = True,
) -> Float[Tensor, "S B V h"]:
    """Draw joint paths: each patch is drawn given those that the path drew before.

    The context is read once, whatever the number of paths.

    Args:
        model: Toto 1.0.
        batch: T is a multiple of the patch size; see `prepare`.
        uniforms: three numbers in (0, 1) for each step of each path; they say all about the draws.
        future_exogenous: as in `forecast_mean`.
        cached: as in `forecast_mean`.

    Returns:
        S paths, in the unit of the values.
    """
    n_paths, _, _, horizon, _ = uniforms.shape
    size = model.config.patch_size
    rows = functional.pad(uniforms.flatten(0, 1), (0, 0, 0, -horizon % size), value=0.5)

    def draw(mixture: StudentTMixture, patch: int) -> Tensor:
        return mixture.draw(rows[:, :, patch * size : (patch + 1) * size])

    paths = _continue(model, batch, horizon, draw, future_exogenous, n_paths, cached=cached)
    return paths.unflatten(0, (n_paths, -1))


def _continue(
    model: Toto,
    batch: SeriesBatch,
    horizon: int,
    choose: Callable[[StudentTMixture, int], Tensor],
    future_exogenous: Tensor | None,
    n_paths: int = 1,
    *,
    cached: bool,
) -> Float[Tensor, "S_B V h"]:
    """Append patch after patch; `choose` makes values of a distribution and the patch's number."""
    size = model.config.patch_size
    n_patches = math.ceil(horizon / size)
    # the centre of the whole span keeps the factors of queries and keys small
    n_read = batch.values.shape[-1] // size
    cache = Cache(centre=(n_read + n_patches) / 2) if cached else None
    mixture = model.next_patch(batch, cache).repeat(n_paths)
    batch, cache = batch.repeat(n_paths), None if cache is None else cache.repeat(n_paths)
    found = []
    for patch in range(n_patches):
        values = choose(mixture, patch)
        if future_exogenous is not None:
            given = future_exogenous[..., patch * size : (patch + 1) * size].repeat(n_paths, 1, 1)
            values = values.clone()
            values[:, -given.shape[1] :, : given.shape[2]] = given.to(values.dtype)
        found.append(values)
        if patch + 1 < n_patches:
            batch = batch.append(values)
            mixture = model.next_patch(batch, cache)
    return torch.cat(found, dim=-1)[..., :horizon]
