"""Turns preferences into weights within limits: batched, exact, differentiable almost everywhere.

All projections use `_fill`: the weights w that minimise KL(w || p) with 0 <= w <= u and a given
sum are w_i = min(u_i, theta p_i). What does not fit the limits stays cash.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hrl_sarp.simulator.kernels import SMALLEST_MASS, find_thetas


def project_weights(
    preferences: Float[Tensor, "B S K"],
    stock_caps: Float[Tensor, "B S K"],
    sector_caps: Float[Tensor, "B S"],
    exposure: Float[Tensor, " B"],
) -> Float[Tensor, "B S K"]:
    """Project preferences onto long-only weights within stock caps, sector caps and exposure.

    Solves argmin KL(w || p) for 0 <= w <= u, sector sums <= c, sum w = min(exposure, capacity),
    where only stocks with p > 0 have capacity. Hence w_i = min(u_i, theta_s p_i) with
    theta_s = min(theta, the factor that fills sector s): the sectors are filled to their caps
    first, and what each stock gets there is its upper limit in the fill of the whole.

    Args:
        preferences: nonnegative and finite, of any scale; all 0 gives all 0.
        stock_caps: nonnegative; 0 forbids a stock.
        sector_caps: nonnegative.
        exposure: nonnegative.

    Returns:
        Weights of the same dtype. Their sum is exact to rounding. Computed in float64, so that
        preferences may span sixty decades. Gradients flow to all four arguments.
    """
    dtype = preferences.dtype
    wanted, caps = preferences.double(), stock_caps.double()
    upper = _fill(wanted, caps, sector_caps.double())
    weights = _fill(wanted.flatten(1), upper.flatten(1), exposure.double())
    return weights.view_as(wanted).to(dtype)


def project_sectors(
    sector_weights: Float[Tensor, "B S"],
    caps: Float[Tensor, "B S"],
    total: Float[Tensor, " B"],
) -> Float[Tensor, "B S"]:
    """Project sector weights onto their caps; the sum is min(total, caps of those above 0)."""
    filled = _fill(sector_weights.double(), caps.double(), total.double())
    return filled.to(sector_weights.dtype)


def project_within_sectors(
    preferences: Float[Tensor, "B S K"],
    stock_caps: Float[Tensor, "B S K"],
    budgets: Float[Tensor, "B S"],
) -> Float[Tensor, "B S K"]:
    """Project preferences inside each sector, so that sector sums follow the budgets.

    A sector holds at most the caps of its stocks with p > 0. What it cannot hold goes to the other
    sectors pro rata to their budgets, up to their room, and then stays cash. A cap of 0 forbids a
    stock.
    """
    wanted, caps, asked = preferences.double(), stock_caps.double(), budgets.double()
    capacity = torch.where(wanted > 0, caps, 0.0).sum(dim=2)
    granted = _fill(asked, capacity, asked.sum(dim=1))
    return _fill(wanted, caps, granted).to(preferences.dtype)


def cap_turnover(
    target: Float[Tensor, "B A"], current: Float[Tensor, "B A"], cap: float
) -> Float[Tensor, "B A"]:
    """Move the target towards the current weights until half the L1 distance is at most `cap`."""
    change = target - current
    half_distance = 0.5 * change.abs().sum(dim=1, keepdim=True)
    tiny = torch.finfo(target.dtype).tiny
    share = cap / half_distance.clamp_min(tiny)
    return torch.where(half_distance > cap, current + share * change, target)


def limit_positions(
    preferences: Float[Tensor, "B S K"], budgets: Float[Tensor, "B S"], max_positions: int
) -> Float[Tensor, "B S K"]:
    """Keep at most `max_positions` stocks: positions per sector by mass, best preferences first.

    Sectors get positions by D'Hondt's quotients mass / 1, mass / 2, ...; at equal quotients the
    earlier sector comes first. The preferences that a sector keeps are scaled to its budget. A
    sector without a position gets 0.
    """
    n_sectors, n_slots = preferences.shape[1:]
    order = preferences.argsort(dim=2, descending=True, stable=True)
    ranked = preferences.gather(2, order)
    counts = torch.arange(1, n_slots + 1, dtype=budgets.dtype, device=budgets.device)
    quotients = torch.where(ranked > 0, budgets.detach()[:, :, None] / counts, 0.0).flatten(1)
    best = quotients.argsort(dim=1, descending=True, stable=True)[:, :max_positions]
    is_kept = torch.zeros_like(quotients, dtype=torch.bool).scatter(1, best, value=True)
    is_kept &= quotients > 0
    kept = torch.zeros_like(preferences, dtype=torch.bool)
    kept.scatter_(2, order, is_kept.view(-1, n_sectors, n_slots))
    mass = torch.where(kept, preferences, 0.0)
    tiny = torch.finfo(preferences.dtype).tiny
    return mass * (budgets / mass.sum(dim=2).clamp_min(tiny))[:, :, None]


def _fill(
    preferences: Float[Tensor, "*batch K"],
    caps: Float[Tensor, "*batch K"],
    total: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch K"]:
    """Return min(cap, theta p) with sum min(total, capacity) along the last axis.

    The search for theta runs without gradient. Given the capped stocks, theta has a closed form,
    which gives the exact gradient. Beyond the capacity all stocks with p > 0 are at their cap.
    """
    with torch.no_grad():
        theta = _find_theta(preferences, caps, total)
        scaled = theta[..., None] * preferences
    if not torch.is_grad_enabled():
        return torch.minimum(scaled, caps)
    capped = scaled >= caps
    open_mass = torch.where(capped, 0.0, preferences).sum(dim=-1)
    held = torch.where(capped, caps, 0.0).sum(dim=-1)
    theta = (total - held).clamp_min(0.0) / open_mass.clamp_min(SMALLEST_MASS)
    theta = torch.where(open_mass > 0, theta, 0.0)
    return torch.where(capped, caps, theta[..., None] * preferences)


def _find_theta(
    preferences: Float[Tensor, "*batch K"],
    caps: Float[Tensor, "*batch K"],
    total: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch"]:
    """Solve sum min(u, theta p) = total. Beyond the capacity, return a theta that fills all caps.

    Newton's method starts at the left end of this concave, piecewise-linear sum. Theta only grows,
    and so does the set of capped stocks, so it takes at most K + 1 rounds, usually three or four.
    A CPU works row by row, so that a row stays in its cache.
    """
    if torch.compiler.is_exporting():
        return _find_theta_by_rank(preferences, caps, total)
    if preferences.device.type != "cpu":
        return _find_theta_at_once(preferences, caps, total)
    theta = torch.empty_like(total)
    rows = preferences.reshape(-1, preferences.shape[-1]).numpy()
    row_caps = caps.reshape(rows.shape).numpy()
    find_thetas(rows, row_caps, total.reshape(-1).numpy(), theta.view(-1).numpy())
    return theta


def _find_theta_at_once(
    preferences: Float[Tensor, "*batch K"],
    caps: Float[Tensor, "*batch K"],
    total: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch"]:
    theta = total / preferences.sum(dim=-1).clamp_min(SMALLEST_MASS)
    while True:
        capped = theta[..., None] * preferences >= caps
        open_mass = torch.where(capped, 0.0, preferences).sum(dim=-1)
        held = torch.where(capped, caps, 0.0).sum(dim=-1)
        grown = (total - held).clamp_min(0.0) / open_mass.clamp_min(SMALLEST_MASS)
        grown = torch.where((open_mass > 0) & (grown > theta), grown, theta)
        if bool((grown == theta).all() | grown.isnan().any()):
            return theta
        theta = grown


def _find_theta_by_rank(
    preferences: Float[Tensor, "*batch K"],
    caps: Float[Tensor, "*batch K"],
    total: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch"]:
    """Find theta without a search, for graphs that are exported: they hold no loops of ours.

    Stocks reach their caps in the order of u / p. The sum is the least of its lines, one for each
    number of capped stocks, so theta is the largest of their solutions.
    """
    ratio = torch.where(preferences > 0, caps / preferences, torch.inf)
    order = ratio.argsort(dim=-1, stable=True)
    ranked, ranked_caps = preferences.gather(-1, order), caps.gather(-1, order)
    held = ranked_caps.cumsum(dim=-1) - ranked_caps
    # summed from the end: a difference of sums would lose the smallest preferences
    open_mass = ranked.flip(-1).cumsum(dim=-1).flip(-1)
    theta = (total[..., None] - held).clamp_min(0.0) / open_mass.clamp_min(SMALLEST_MASS)
    return torch.where(open_mass == 0, 0.0, theta).amax(dim=-1)
