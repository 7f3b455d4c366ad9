"""What the study keeps of a rollout: daily series of every policy, in one file a cell."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, Goal, Market
from hrl_sarp.envs.rewards import session_objective
from hrl_sarp.envs.rollout import Policy, Session, Variant, sessions
from hrl_sarp.errors import DataError
from hrl_sarp.evaluation.attribution import share_elsewhere
from hrl_sarp.evaluation.backtest import ACCOUNTING_DTYPE, scaled_costs
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.run.damage import UNREADABLE, read_arrays
from hrl_sarp.run.files import atomic_path
from hrl_sarp.run.session import one_thread
from hrl_sarp.simulator.limits import exposure_limit

FILE = "series.npz"
"""In the folder of a cell."""
MAIN, DOUBLE, LATE = "main", "double costs", "one session late"
IMPACT = "square-root impact"
FRICTIONS = (MAIN, DOUBLE, LATE, IMPACT)
"""The market's costs; twice as much; orders one session late; square-root impact on top of them."""
EARLIER = FRICTIONS[:3]
"""Layers of a cell of an earlier version, whose file names none."""
OWN_MEAN = "its own mean"
"""The weights that a policy has on average over the sessions of a fold."""
NUMBERS = ("net_return", "cost", "turnover", "invested", "asked")


@dataclass(frozen=True)
class Ledger:
    """Daily series of P policies over D sessions under the frictions of the study.

    Examples:
        >>> one = np.zeros((3, 1, 1))
        >>> days = np.array(["2024-01-02"], "datetime64[D]")
        >>> Ledger(("prior",), days, one[0, :, 0], one, one, one, one, one, {}, EARLIER, {}).names
        ('prior',)
    """

    names: tuple[str, ...]
    """Length P."""
    dates: Shaped[np.ndarray, " D"]
    risk_free: Float[np.ndarray, " D"]
    """Simple return of cash."""
    net_return: Float[np.ndarray, "V D P"]
    """One layer for each of `frictions`, as below."""
    cost: Float[np.ndarray, "V D P"]
    turnover: Float[np.ndarray, "V D P"]
    invested: Float[np.ndarray, "V D P"]
    """Share of wealth in stocks just after the trade."""
    asked: Float[np.ndarray, "V D P"]
    """Share of wealth that the goal or the target wanted in stocks."""
    objective: dict[str, Float[np.ndarray, "V D P"]]
    """Terms of the variant's own objective, % a day."""
    frictions: tuple[str, ...]
    """Length V, of `FRICTIONS`."""
    distance: dict[str, Float[np.ndarray, "D P"]]
    """Rule or `OWN_MEAN` -> share of wealth that each policy holds elsewhere under `MAIN`; NaN if
    it was not measured. Empty in a cell of an earlier version."""

    def column(self, name: str) -> int:
        """Return the place of a policy."""
        return self.names.index(name)


@one_thread()
def roll_out(
    market: Market,
    span: DayRange,
    policies: Sequence[Policy],
    config: RunConfig,
    *,
    impact_coefficient: float = 0.0,
    rules: Sequence[str] = (),
    beside: Sequence[Policy] = (),
) -> Ledger:
    """Roll out policies in the exact simulator, all frictions side by side.

    Args:
        market: with its returns and limits.
        span: starts in cash at the close of its first session.
        policies: with unique names.
        config: costs, limits, objective.
        impact_coefficient: of the layer with square-root impact, at the capital of the market's
            costs. Without one, or where no volume is known, the layer is left out.
        rules: names of policies that the weights of all are compared with.
        beside: policies that are rolled out for this comparison only.

    Returns:
        One row for each session after the first.
    """
    tensors = MarketTensors(market, ACCOUNTING_DTYPE, "cpu")
    variants = _variants(market, config, impact_coefficient)
    everyone = [*policies, *beside]
    shape = (len(variants), len(everyone))
    rows: dict[str, list[np.ndarray]] = {}
    weights: list[np.ndarray] = []
    for session in sessions(everyone, tensors, [span], list(variants.values())):
        for name, values in _numbers(session, tensors, config).items():
            rows.setdefault(name, []).append(values.numpy().reshape(shape)[:, : len(policies)])
        weights.append(session.result.weights_after[: len(everyone)].numpy())
    series = {name: np.stack(values, axis=1) for name, values in rows.items()}
    names = [policy.name for policy in everyone]
    distance = _distances(np.stack(weights), names, rules)
    earned = slice(span.start + 1, span.stop)
    return Ledger(
        names=tuple(policy.name for policy in policies),
        dates=market.dates[earned],
        risk_free=market.risk_free[earned].astype(np.float64),
        objective={name: values for name, values in series.items() if name not in NUMBERS},
        frictions=tuple(variants),
        distance={rule: values[:, : len(policies)] for rule, values in distance.items()},
        **{name: series[name] for name in NUMBERS},
    )


def _variants(market: Market, config: RunConfig, impact_coefficient: float) -> dict[str, Variant]:
    """Return the frictions that a market can have, by their names."""
    costs, risk = config.market_profile.costs, config.risk
    variants = {
        MAIN: Variant(costs, risk),
        DOUBLE: Variant(scaled_costs(costs, 2.0), risk),
        LATE: Variant(costs, risk, lag_days=1),
    }
    if impact_coefficient > 0 and bool((market.dollar_volume > 0).any()):
        large = costs.model_copy(update={"impact_coefficient": impact_coefficient})
        variants[IMPACT] = Variant(large, risk)
    return variants


def _distances(
    weights: Float[np.ndarray, "D P A"], names: Sequence[str], rules: Sequence[str]
) -> dict[str, Float[np.ndarray, "D P"]]:
    """Return the share of wealth that each policy holds elsewhere than each rule that is there."""
    centres = {rule: weights[:, [names.index(rule)]] for rule in rules if rule in names}
    centres[OWN_MEAN] = weights.mean(axis=0, keepdims=True)
    return {rule: share_elsewhere(weights, centre) for rule, centre in centres.items()}


def joined(first: Ledger, second: Ledger) -> Ledger:
    """Put the policies of two rollouts over the same sessions side by side."""
    both: dict[str, Any] = {
        name: np.concatenate([getattr(first, name), getattr(second, name)], axis=2)
        for name in NUMBERS
    }
    terms = {
        name: np.concatenate([values, second.objective[name]], axis=2)
        for name, values in first.objective.items()
    }
    unknown = np.full(second.net_return.shape[1:], np.nan)
    distance = {
        rule: np.concatenate([values, second.distance.get(rule, unknown)], axis=1)
        for rule, values in first.distance.items()
    }
    names, frictions = first.names + second.names, first.frictions
    return Ledger(
        *(names, first.dates, first.risk_free),
        **both,
        objective=terms,
        frictions=frictions,
        distance=distance,
    )


def write_ledger(ledger: Ledger, folder: Path) -> None:
    """Write the series of a cell atomically."""
    arrays = {name: getattr(ledger, name) for name in ("dates", "risk_free", *NUMBERS)}
    arrays |= {f"objective.{name}": values for name, values in ledger.objective.items()}
    arrays |= {f"distance.{rule}": values for rule, values in ledger.distance.items()}
    for name in ("names", "frictions"):
        text = json.dumps(getattr(ledger, name))
        arrays[name] = np.frombuffer(text.encode(), dtype=np.uint8)
    with atomic_path(folder / FILE) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_ledger(folder: Path) -> Ledger:
    """Read what `write_ledger` wrote, now or in an earlier version (`Ledger.distance`)."""
    path = folder / FILE
    try:
        arrays: dict[str, Any] = dict(read_arrays(path))
        names = tuple(json.loads(arrays.pop("names").tobytes()))
        frictions = EARLIER
        if "frictions" in arrays:
            frictions = tuple(json.loads(arrays.pop("frictions").tobytes()))
        parts: dict[str, Any] = {
            part: {
                name.removeprefix(f"{part}."): arrays.pop(name)
                for name in list(arrays)
                if name.startswith(f"{part}.")
            }
            for part in ("objective", "distance")
        }
        return Ledger(names=names, frictions=frictions, **parts, **arrays)
    except UNREADABLE as error:
        raise DataError(
            f"{path}: expected the series of a cell, found something else ({error}); remove the "
            "folder of the cell and run the study again"
        ) from error


def _numbers(
    session: Session, tensors: MarketTensors, config: RunConfig
) -> dict[str, Float[torch.Tensor, " B"]]:
    """Return what is kept of one session."""
    result = session.result
    cash = Goal.from_vector(session.goal).cash
    wanted = exposure_limit(cash, config.risk, torch.zeros_like(result.day))
    asked = torch.where(cash.isnan(), result.target_weights.sum(dim=1), wanted)
    return {
        "net_return": result.net_return,
        "cost": result.cost,
        "turnover": result.turnover,
        "invested": result.weights_after.sum(dim=1),
        "asked": asked,
        **session_objective(tensors, config.objective, result, asked),
    }
