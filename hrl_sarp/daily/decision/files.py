"""Writes a decision into its folder. Wall time is no part of any file: a repeat is the same."""

from pathlib import Path
from typing import Any

import polars as pl

from hrl_sarp.contracts import REGIME_NAMES, Regime
from hrl_sarp.daily.decision.page import ORDERS_FILE, decision_page
from hrl_sarp.daily.decision.run import DECISION, DayDecision, orders_table, weights_table
from hrl_sarp.daily.market import agents_hash
from hrl_sarp.errors import OverwriteError
from hrl_sarp.run.files import read_json, to_plain, write_json, write_text

WEIGHTS, PAGE = "weights.csv", "decision.html"
INPUTS = {"agents_hash": "set of agents", "market": "market", "account": "account"}
"""Keys of the JSON that say what a decision was made from, and the words for them."""
DIGITS = 10
"""Decimals of a number in a CSV."""


def write_decision(decision: DayDecision, folder: Path, *, overwrite: bool) -> Path:
    """Write the files of a day; the JSON comes last, so that a day without it is not whole.

    Args:
        decision: of the day.
        folder: of all days; the day gets a folder in it.
        overwrite: replace a decision for another account or by other agents.

    Returns:
        The folder of the day.

    Raises:
        OverwriteError: if the day holds a decision of other inputs.
    """
    there = folder / decision.today.day.isoformat()
    content = as_json(decision)
    path = there / DECISION
    if path.is_file() and not overwrite:
        found = read_json(path, "hrl-sarp decide --overwrite")
        plain = to_plain(content)
        differing = [told for name, told in INPUTS.items() if found.get(name) != plain[name]]
        if differing:
            raise OverwriteError(
                f"{there} holds a decision of another {', '.join(differing)}: --overwrite replaces "
                "it, another --output keeps it"
            )
    texts = {
        WEIGHTS: _csv(weights_table(decision)),
        ORDERS_FILE: _csv(orders_table(decision.orders)),
        PAGE: decision_page(decision),
    }
    path.unlink(missing_ok=True)
    for name, text in texts.items():
        write_text(there / name, text)
    write_json(path, content)
    return there


def as_json(decision: DayDecision) -> dict[str, Any]:
    """Return everything that is known of a decision as plain values; shares of wealth, currency."""
    today, decided, orders = decision.today, decision.decided, decision.orders
    names = today.market.sector_names
    goal = decided.memory.goal or ()
    return {
        "day": today.day,
        "log_dirs": [str(each.run.log_dir) for each in decision.todays],
        "agents_hash": agents_hash([each.run for each in decision.todays]),
        "market": today.fingerprint,
        "policy": decided.policy,
        "account": {
            "wealth": decided.standing.wealth,
            "cash": decision.held.cash,
            "shares": dict(decision.held.shares),
            "is_kept": decision.account.is_kept,
            "file": decision.account.file,
        },
        "goal": {
            "set_at": decided.memory.goal_day,
            "is_new": decided.is_new_goal,
            "sectors": dict(zip(names, goal, strict=False)),
            "cash": goal[len(names)] if goal else None,
            "regime": dict(
                zip(
                    REGIME_NAMES[today.run.config.objective.kind],
                    goal[len(names) + 1 :] if decided.has_view else (),
                    strict=False,
                )
            ),
        },
        "exposure": decided.exposure,
        "moved_by_limits": decided.moved,
        "targets": decided.targets,
        "orders": orders_table(orders).to_dicts(),
        "after": {
            "shares": orders.shares,
            "cash": orders.cash,
            "estimated_cost": orders.cost,
            "rounding": orders.rounding,
        },
        "why": {
            "exposure": vars(decision.reasons.exposure),
            "limits": list(decision.reasons.limits),
            "filtered_regime": dict(
                zip((r.name.lower() for r in Regime), decision.reasons.filtered_regime, strict=True)
            ),
            "classical_prior": dict(decision.reasons.prior),
            "distance_to_prior": decision.reasons.distance,
            "effects": [vars(effect) for effect in decision.reasons.effects],
        },
        "agents": decision.card.to_json(),
        "warnings": list(decision.checked.warnings),
        "without_a_bar": list(decision.checked.missing),
        "drift": {drift.name: drift.to_json() for drift in decision.checked.drift},
        "memory": decided.memory.to_json(),
    }


def _csv(table: pl.DataFrame) -> str:
    return table.write_csv(float_precision=DIGITS)
