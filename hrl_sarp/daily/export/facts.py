"""What a program has to know to use the graphs: names, units and scaling of every number."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from hrl_sarp.config.loading import config_hash
from hrl_sarp.contracts import REGIME_NAMES, DayRange
from hrl_sarp.daily.export.decisions import macro_agents, micro_agents
from hrl_sarp.daily.export.graphs import OPSET
from hrl_sarp.envs.observations import (
    MACRO_SCALARS,
    MICRO_SCALARS,
    SCALAR_OF,
    goal_names,
    macro_names,
    slot_names,
)
from hrl_sarp.envs.policies import ClassicalGoal, FollowGoal, MixedGoal, MixedTarget
from hrl_sarp.envs.rollout import HierarchicalPolicy
from hrl_sarp.features.macro import MACRO_FEATURES
from hrl_sarp.features.stock import STOCK_FEATURES
from hrl_sarp.graph import node_names
from hrl_sarp.market.sector_table import market_facts
from hrl_sarp.market.tensors import MarketTensors, is_embedding, slot_feature_names
from hrl_sarp.run.phases import config_of_run
from hrl_sarp.training.certify import read_certification
from hrl_sarp.training.phase import PhaseContext
from hrl_sarp.training.seeds import members

SHARE = "share of wealth at the close"
RETURN = "fraction a day, or as named"
FLAG = "1 or true where it holds, else 0"
OWN = "of the feature's own"
"""Unit of a feature of the user's, before scaling."""
CONTEXT = {"regime": ("regime", "probability"), "risk of the market": ("risk", "as named")}
"""Part of the input `context` -> scaling and unit before it."""
SCALARS = {
    "cash": SHARE,
    "active_drawdown": "fraction by which wealth over that of 1/N is below its maximum",
    "gate_on": f"drawdown gate closed: {FLAG}",
    "days_left": "weekdays that are left of the week, over 5; 0 at its last session",
}


def describe(
    policy: HierarchicalPolicy,
    contexts: Sequence[PhaseContext],
    arrays: Mapping[str, Mapping[str, Tensor]],
) -> dict[str, Any]:
    """Describe the graphs of a pair, without their files.

    Args:
        policy: the pair.
        contexts: of its runs.
        arrays: name of each decision -> its inputs on the day of the example.

    Returns:
        Plain values for `agents.json`.
    """
    context = contexts[0]
    market, tensors = context.market, context.tensors
    return {
        "format": "onnx",
        "opset": OPSET,
        "package": {"hrl-sarp": version("hrl-sarp"), "torch": torch.__version__.split("+")[0]},
        "pair": {
            "name": policy.name,
            "weekly": _parts(policy.macro),
            "daily": _parts(policy.micro),
        },
        "runs": [_run(seen) for seen in contexts],
        "market": {**market_facts(market), "data_hash": market.manifest.get("data_hash", "")},
        "spans": {
            name: _days(context, getattr(market.split, name))
            for name in ("train", "validation", "test")
        },
        "sectors": list(market.sector_names),
        "slots_per_sector": tensors.slots_per_sector,
        "slots": [name for _, name in slot_names(tensors)],
        "limits": context.config.risk.model_dump(mode="json"),
        "units": "of a column: before its scaling",
        "scaling": _scaling(context),
        "inputs": {
            decision: [
                {"name": name, "shape": list(array.shape), "type": _type(array), **texts[name]}
                for name, array in found.items()
            ]
            for decision, texts in (
                ("sectors", _sector_texts(context)),
                ("weekly", _weekly_texts(policy, tensors)),
                ("daily", _daily_texts(context)),
            )
            if (found := arrays.get(decision))
        },
        "outputs": {name: found for name, found in _outputs(context).items() if name in arrays},
    }


def _type(array: Tensor) -> str:
    return str(array.dtype).removeprefix("torch.")


def _parts(policy: Any, share: float = 1.0) -> list[dict[str, Any]]:
    """Return who decides with which share, in the order of the networks."""
    if isinstance(policy, MixedGoal | MixedTarget):
        pairs = zip(policy.parts, policy.shares, strict=True)
        return [found for part, own in pairs for found in _parts(part, share * own)]
    is_rule = isinstance(policy, ClassicalGoal | FollowGoal)
    return [{"who": "classical portfolio" if is_rule else "network", "share": share}]


def _run(context: PhaseContext) -> dict[str, Any]:
    granted = read_certification(context.log_dir)
    shares = (granted.macro.granted, granted.micro.granted) if granted else (None, None)
    return {
        "seeds": [member.config.seed for member in members(context)],
        "config_hash": config_hash(config_of_run(context.log_dir)),
        "market_hash": context.fingerprint,
        "granted": dict(zip(("weekly", "daily"), shares, strict=True)),
    }


def _days(context: PhaseContext, span: DayRange) -> list[str]:
    dates = context.market.dates[span.start : span.stop]
    return [str(dates[0]), str(dates[-1])] if len(dates) else []


def _scaling(context: PhaseContext) -> dict[str, str]:
    """Say how each kind of number is made; a program that makes its own has to do the same."""
    data, model = context.config.data, context.config.risk_model
    first, last = _days(context, context.market.split.train)
    train = f"the training span, {first} to {last}"
    return {
        "stock features": (
            "of each day across its stocks: value less median, over 1.4826 x the median absolute "
            f"deviation, within +-{data.feature_clip:g}; 0 without a bar or with too short a past"
        ),
        "stock embeddings": "frozen encoder's output for the stock's last window; 0 in empty slots",
        "stock forecasts": (
            "of the stock's last forecast, made after a close by the run's forecaster, or by its "
            "encoder's head of volatility: value "
            "less mean, over deviation, both of the forecasts in the training span, bounded; 0 "
            "where there is none and in empty slots"
        ),
        "sector embeddings": "output `embeddings` of the graph `sectors`, a row for each network",
        "in the graph": f"as it is: the graph scales by mean and deviation of {train}",
        "macro features": (
            f"value less mean, over deviation, both of the last {data.macro_window_days} sessions "
            f"with the day itself, within +-{data.feature_clip:g}; 0 before a series begins"
        ),
        "bounds": f"as it is, within +-{data.feature_clip:g}",
        "regime": f"probabilities of a hidden Markov model of three states, fitted on {train}",
        "risk": (
            f"value, mostly a log, less its mean over {train}, over its deviation there, within "
            f"+-{model.input_clip:g}; 0 while unknown"
        ),
        "none": "as it is",
    }


def _column(name: str, scaling: str, unit: str) -> dict[str, str]:
    return {"name": name, "unit": unit, "scaling": scaling}


def _of_stock(name: str) -> dict[str, str]:
    known = STOCK_FEATURES.get(name)
    return _column(name, "stock features", known.unit if known else OWN)


def _of_observed(name: str) -> dict[str, str]:
    if is_embedding(name):
        return _column(name, "stock embeddings", "none")
    unit = "log" if " volatility " in name else "probability" if " rise " in name else "log return"
    return _column(name, "stock forecasts", unit)


def _of_context(part: str, name: str) -> dict[str, str]:
    if part == "macro features":
        if name in SCALAR_OF:
            return _column(name, "none", SCALARS[MACRO_SCALARS[SCALAR_OF[name]]])
        known = MACRO_FEATURES.get(name)
        is_bounded = known is not None and not known.is_standardised
        return _column(name, "bounds" if is_bounded else part, known.unit if known else OWN)
    if part == "portfolio":
        return _column(name, "none", SCALARS[name])
    return _column(name, *CONTEXT[part])


def _sector_texts(context: PhaseContext) -> dict[str, dict[str, Any]]:
    market, graph = context.market, context.config.macro_agent.graph
    return {
        "nodes": {
            "axes": ["decision", "sector", "columns"],
            "rows": list(market.sector_names),
            "columns": [
                _column(name, "in the graph", "of the mean" if name.startswith("mean ") else RETURN)
                for name in node_names(market, graph)
            ],
            "meaning": "means of the input `features` over the sector's slots with a bar; then "
            f"statistics of the simple daily returns of the sector over {graph.correlation_days} "
            "sessions: equal weights of the stocks that had a slot the day before",
        },
        "edges": {
            "axes": ["decision", "sector", "sector"],
            "unit": "absolute correlation, 1 of a sector with itself",
            "meaning": "of the daily returns of both sectors over the last "
            f"{graph.correlation_days} sessions, 0 below {graph.min_correlation:g}; computed every "
            f"{graph.update_days} sessions, counted from {market.dates[0]}, and held between",
        },
        "filled": {
            "axes": ["decision", "sector"],
            "unit": FLAG,
            "meaning": "the sector has a stock in a slot",
        },
    }


def _weekly_texts(policy: HierarchicalPolicy, tensors: MarketTensors) -> dict[str, dict[str, Any]]:
    market, sectors = tensors.market, list(tensors.market.sector_names)
    texts: dict[str, dict[str, Any]] = {
        "classical": {
            "axes": ["decision", "columns"],
            "columns": [
                *(_column(s, "none", "share of what the portfolio invests") for s in sectors),
                _column("cash", "none", "share of wealth"),
            ],
            "meaning": "the classical portfolio of the day",
        },
        "tradable": _tradable(),
    }
    agents = macro_agents(policy.macro)
    if not agents:
        return texts
    named = macro_names(agents[0].tensors)
    own = [name for part, name in named if part == "sectors"]
    columns = [name.removeprefix(f"{sectors[0]}: ") for name in own[: len(own) // len(sectors)]]
    n_risk = 0 if market.risk is None else len(market.risk.sector_input_names)
    embedded = len(columns) - n_risk - 2
    scaling = ["sector embeddings"] * embedded + ["risk"] * n_risk + ["none"] * 2
    units = ["none"] * embedded + ["as named"] * n_risk + [SHARE, FLAG]
    return texts | {
        "sectors": {
            "axes": ["network", "sector", "columns"],
            "rows": sectors,
            "columns": [_column(*column) for column in zip(columns, scaling, units, strict=True)],
            "meaning": "one row for each network; only the embeddings of the rows differ",
        },
        "context": {
            "axes": ["decision", "columns"],
            "columns": [
                _of_context(part, name)
                for part, name in named
                if part in ("macro features", "portfolio", *CONTEXT)
            ],
            "meaning": "what all sectors share",
        },
    }


def _daily_texts(context: PhaseContext) -> dict[str, dict[str, Any]]:
    market, tensors = context.market, context.tensors
    names, n_plain = slot_feature_names(market), len(market.feature_names)
    slots = {"axes": ["decision", "slot"]}
    return {
        "features": {
            "axes": ["decision", "slot", "columns"],
            "columns": [
                *(_of_stock(name) for name in names[:n_plain]),
                *(_of_observed(name) for name in names[n_plain:]),
            ],
            "meaning": "features of the stock in each slot; 0 in empty slots",
        },
        "tradable": _tradable(),
        "preference": {
            **slots,
            "unit": "any, within a sector",
            "meaning": "how the classical portfolio weighs the slots of a sector; 0 in empty slots",
        },
        "held": {**slots, "unit": SHARE, "meaning": "what is held of the stock in each slot"},
        "scalars": {
            "axes": ["decision", "columns"],
            "columns": [_column(name, "none", SCALARS[name]) for name in MICRO_SCALARS],
            "meaning": "the portfolio",
        },
        "goal": {
            "axes": ["decision", "columns"],
            "columns": _goal_columns(context),
            "meaning": "the goal in force: output `goal` of the last weekly decision",
        },
        "halted_elsewhere": {
            "axes": ["decision", "sector"],
            "rows": list(tensors.market.sector_names),
            "unit": SHARE,
            "meaning": "held in stocks that have no slot, are listed and have no bar",
        },
        "held_elsewhere": {
            "axes": ["decision", "one number"],
            "unit": SHARE,
            "meaning": "held in stocks that have a bar and no slot: they are sold",
        },
    }


def _tradable() -> dict[str, Any]:
    return {
        "axes": ["decision", "slot"],
        "unit": FLAG,
        "meaning": "the slot is filled and its stock has a bar on the day",
    }


def _goal_columns(context: PhaseContext) -> list[dict[str, str]]:
    regimes = REGIME_NAMES[context.config.objective.kind]
    units = {"sectors": "share of what is invested", "cash": "share of wealth"}
    return [
        _column(name, "none", units.get(part, "probability"))
        for part, name in goal_names(context.tensors, regimes)
    ]


def _outputs(context: PhaseContext) -> dict[str, list[dict[str, Any]]]:
    after = "share of wealth after costs, to hold after the next open"
    return {
        "sectors": [
            {
                "name": "embeddings",
                "unit": "none",
                "meaning": "first columns of the input `sectors` of the weekly graph",
            }
        ],
        "weekly": [
            {
                "name": "goal",
                "columns": _goal_columns(context),
                "meaning": "the goal until the next week end, within what the sectors can hold",
            }
        ],
        "daily": [
            {"name": "weights", "unit": after, "meaning": "of each slot, within all limits"},
            {
                "name": "kept_elsewhere",
                "unit": after,
                "meaning": "what the turnover cap leaves of `held_elsewhere`, each stock pro rata; "
                "0 without a cap. `halted_elsewhere` stays as it is",
            },
            {
                "name": "asked",
                "unit": after,
                "meaning": "what the agents asked for, before the limits",
            },
        ],
    }


def has_networks(policy: HierarchicalPolicy) -> tuple[int, int]:
    """Count the networks that decide on weeks and on days.

    Args:
        policy: the pair.
    """
    return len(macro_agents(policy.macro)), len(micro_agents(policy.micro))
