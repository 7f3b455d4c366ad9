"""What each agent sees: index observations, the inputs of its networks, and its limits.

An index observation holds a day and a portfolio. `macro_inputs` and `micro_inputs` look up the
market rows of that day. A full observation is the same inputs, flattened.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hrl_sarp.config.schema import RiskConfig
from hrl_sarp.contracts import SECTOR_COLUMNS, Goal, Market, PortfolioState, Regime
from hrl_sarp.errors import MarketError
from hrl_sarp.market.tensors import MarketTensors, slot_feature_names
from hrl_sarp.simulator.limits import DecisionLimits, decision_limits, exposure_limit

MACRO_SCALARS = ("cash", "active_drawdown", "gate_on")
MICRO_SCALARS = ("cash", "active_drawdown", "gate_on", "days_left")
"""Portfolio scalars that follow the weights, in this order. `days_left` is a share of the week."""
HELD = -2
"""Column of `MacroInputs.sectors` with the weight held."""
SCALAR_OF = {"portfolio_drawdown": MACRO_SCALARS.index("active_drawdown")}
"""Index in `MACRO_SCALARS` of the scalar that each of `PORTFOLIO_FEATURES` repeats."""


@dataclass(frozen=True)
class MacroInputs:
    """Inputs of the macro networks for B decisions."""

    sectors: Float[Tensor, "B S D"]
    """Embedding, risk of the sector, then drifted sector weight, then 1 where listed."""
    context: Float[Tensor, "B C"]
    """Macro features, the portfolio's features among them, filtered regime, portfolio scalars,
    risk of the market."""
    prior: Float[Tensor, "B X"]
    """Sector shares of the classical portfolio that the policy starts from, then its cash."""

    @property
    def listed(self) -> Bool[Tensor, "B S"]:
        """Sectors that may get weight."""
        return self.sectors[..., -1] > 0.5

    def flatten(self) -> Float[Tensor, "B X"]:
        """Return one row per decision, (B, S x D + C + S + 1): sectors, context, prior."""
        return torch.cat([self.sectors.flatten(1), self.context, self.prior], dim=1)

    @classmethod
    def unflatten(cls, flat: Tensor, n_sectors: int, width: int) -> "MacroInputs":
        """Rebuild from `flatten`; `width` is the number of columns per sector."""
        cut = n_sectors * width
        sectors = flat[:, :cut].unflatten(1, (n_sectors, width))
        return cls(sectors, flat[:, cut : -n_sectors - 1], flat[:, -n_sectors - 1 :])


@dataclass(frozen=True)
class MicroView:
    """Portfolio, goal and masks of B micro decisions over N slots."""

    weights: Float[Tensor, "B N"]
    """Drifted holdings of the day's slots."""
    tradable: Bool[Tensor, "B N"]
    preference: Float[Tensor, "B N"]
    """How the classical portfolio weighs the slots of a sector, in any unit."""
    scalars: Float[Tensor, "B P"]
    """In the order of `MICRO_SCALARS`."""
    goal: Goal


@dataclass(frozen=True)
class MicroInputs:
    """Inputs of the micro networks for B decisions over N slots."""

    features: Float[Tensor, "D N F"]
    """Market rows of the D distinct days among the B decisions."""
    tradable: Bool[Tensor, "D N"]
    """True for slots that are filled on those days."""
    row_of: Int[Tensor, " B"]
    """Row of `features` that each decision looks at."""
    view: MicroView

    def flatten(self) -> Float[Tensor, "B X"]:
        """Return one row per decision without the goal.

        It holds features, weights, tradable, preference and scalars, and its shape is
        (B, N x (F + 3) + P). Market rows are repeated for each decision.
        """
        view = self.view
        features = self.features[self.row_of].flatten(1)
        tradable, preference = (v.to(features.dtype) for v in (view.tradable, view.preference))
        return torch.cat([features, view.weights, tradable, preference, view.scalars], dim=1)

    @classmethod
    def unflatten(cls, flat: Tensor, goal: Tensor, n_slots: int) -> "MicroInputs":
        """Rebuild from `flatten` and the goal vector; each decision has a market row of its own."""
        cut = flat.shape[1] - len(MICRO_SCALARS) - 3 * n_slots
        weights, tradable, preference = flat[:, cut:].split(n_slots, dim=1)[:3]
        view = MicroView(
            weights=weights,
            tradable=tradable > 0.5,
            preference=preference,
            scalars=flat[:, cut + 3 * n_slots :],
            goal=Goal.from_vector(goal),
        )
        features = flat[:, :cut].unflatten(1, (n_slots, -1))
        return cls(features, view.tradable, torch.arange(len(flat), device=flat.device), view)


@dataclass(frozen=True)
class SlotRequest:
    """Limits, prior and holdings of B decisions over the day's slots."""

    limits: DecisionLimits
    budgets: Float[Tensor, "B S"]
    """Exposure x goal sector weight: what each sector may hold."""
    preference: Float[Tensor, "B S K"]
    """How the classical portfolio weighs the tradable slots of a sector, in any unit; 0 in others.
    """
    prior: Float[Tensor, "B N"]
    """Each sector's budget, spread by the preference. It follows the goal exactly."""
    held: Float[Tensor, "B N"]
    """Drifted holdings, the halted ones among them."""


def slot_request(view: MicroView, risk: RiskConfig) -> SlotRequest:
    """Compute what the actor may hold, and the prior that follows the goal."""
    gate = (view.scalars[:, MICRO_SCALARS.index("gate_on")] > 0.5).long()
    invested = exposure_limit(view.goal.cash, risk, gate)
    sectors = (len(invested), view.goal.sector_weights.shape[1], -1)
    tradable = view.tradable.to(view.weights.dtype).view(sectors)
    halted = (view.weights * ~view.tradable).view(sectors).sum(dim=2)
    budgets = (invested[:, None] * view.goal.sector_weights - halted).clamp(min=0)
    preference = view.preference.to(tradable).view(sectors) * tradable
    spread = preference / preference.sum(dim=2, keepdim=True).clamp(min=1e-12)
    return SlotRequest(
        limits=decision_limits(tradable, halted, invested, risk),
        budgets=budgets,
        preference=preference,
        prior=(budgets[:, :, None] * spread).flatten(1),
        held=view.weights,
    )


def macro_index(
    tensors: MarketTensors, state: PortfolioState, active_drawdown: Float[Tensor, " B"]
) -> dict[str, Tensor]:
    """Make the macro agent's index observation from portfolios at their close.

    `day` is (B, 1); `portfolio` is (B, S + 3): sector weights, then `MACRO_SCALARS`.
    """
    sectors = state.weights @ tensors.sector_member
    gate = (state.gate_days > 0).to(state.cash)
    scalars = torch.stack([state.cash, active_drawdown, gate], dim=1)
    return {"day": state.day[:, None], "portfolio": torch.cat([sectors, scalars], dim=1).float()}


def micro_index(
    tensors: MarketTensors,
    state: PortfolioState,
    goal: Float[Tensor, "B G"],
    active_drawdown: Float[Tensor, " B"],
) -> dict[str, Tensor]:
    """Make the micro agent's index observation from portfolios at their close and the goal.

    `day` is (B, 1); `portfolio` is (B, N + 4): slot weights, then `MICRO_SCALARS`; `desired_goal`
    is (B, G).
    """
    gate = (state.gate_days > 0).to(state.cash)
    left = tensors.week_left[state.day]
    scalars = torch.stack([state.cash, active_drawdown, gate, left], dim=1)
    slots = tensors.to_slots(state.weights, state.day)
    return {
        "day": state.day[:, None],
        "portfolio": torch.cat([slots, scalars], dim=1).float(),
        "desired_goal": goal.float(),
    }


def macro_inputs(
    tensors: MarketTensors,
    observation: Mapping[str, Tensor],
    embeddings: Float[Tensor, "B S E"] | None = None,
) -> MacroInputs:
    """Gather what the macro agent sees on the observation's days (rows <= day only).

    `embeddings` replaces the market's sector table while phase 1 trains them.
    """
    day = observation["day"].long().flatten()
    portfolio = observation["portfolio"]
    weights, scalars = portfolio[:, : tensors.n_sectors], portfolio[:, tensors.n_sectors :]
    listed = tensors.sector_listed[day].float()
    table = require_sector_embeddings(tensors)[day] if embeddings is None else embeddings
    risk = tensors.sector_risk[day]
    sectors = torch.cat([table, risk, weights[..., None], listed[..., None]], dim=2)
    own = [scalars[:, SCALAR_OF[name], None] for name in tensors.market.portfolio_names]
    macro, regime = tensors.macro_features[day], tensors.filtered_regime[day]
    context = torch.cat([macro, *own, regime, scalars, tensors.risk_inputs[day]], dim=1)
    cash = 1 - tensors.prior_exposure[day, None]
    prior = torch.cat([(1 - cash) * tensors.sector_prior[day], cash], dim=1)
    return MacroInputs(sectors, context, prior.float())


def micro_view(tensors: MarketTensors, observation: Mapping[str, Tensor]) -> MicroView:
    """Read portfolio, goal and the day's masks from an index observation."""
    day = observation["day"].long().flatten()
    portfolio = observation["portfolio"]
    return MicroView(
        weights=portfolio[:, : tensors.n_slots],
        tradable=tensors.slot_tradable.index_select(0, day),
        preference=tensors.slot_preference.index_select(0, day),
        scalars=portfolio[:, tensors.n_slots :],
        goal=Goal.from_vector(observation["desired_goal"]),
    )


def micro_inputs(tensors: MarketTensors, observation: Mapping[str, Tensor]) -> MicroInputs:
    """Gather what the micro agent sees on the observation's days (rows <= day only).

    Days that occur more than once share a row.
    """
    day = observation["day"].long().flatten()
    days, row_of = torch.unique(day, return_inverse=True)
    return MicroInputs(
        features=tensors.slot_features.index_select(0, days),
        tradable=tensors.slot_tradable.index_select(0, days),
        row_of=row_of,
        view=micro_view(tensors, observation),
    )


Named = list[tuple[str, str]]
"""Part and name of each number of a vector, in its order."""


def macro_names(tensors: MarketTensors) -> Named:
    """Name the numbers of `MacroInputs.flatten`."""
    market = tensors.market
    width = require_sector_embeddings(tensors).shape[2]
    known = market.manifest.get(SECTOR_COLUMNS, ())
    table = known if len(known) == width else [f"embedding {i}" for i in range(width)]
    risk, market_risk = _risk_names(market)
    columns = [*table, *risk, "weight held", "has stocks (0 or 1)"]
    regimes = [f"filtered regime: {regime.name.lower()}" for regime in Regime]
    return [
        *(("sectors", f"{s}: {name}") for s in market.sector_names for name in columns),
        *(("macro features", name) for name in (*market.macro_names, *market.portfolio_names)),
        *(("regime", name) for name in regimes),
        *(("portfolio", name) for name in MACRO_SCALARS),
        *(("risk of the market", name) for name in market_risk),
        *(("classical prior", f"{s}: share of the prior") for s in market.sector_names),
        ("classical prior", "cash of the prior"),
    ]


def micro_names(tensors: MarketTensors) -> Named:
    """Name the numbers of `MicroInputs.flatten`."""
    slots = [name for _, name in slot_names(tensors)]
    features = slot_feature_names(tensors.market)
    return [
        *(("stock features", f"{slot}: {name}") for slot in slots for name in features),
        *(("weights", f"{slot}: weight held") for slot in slots),
        *(("tradable", f"{slot}: has a bar (0 or 1)") for slot in slots),
        *(("classical prior", f"{slot}: preference") for slot in slots),
        *(("portfolio", name) for name in MICRO_SCALARS),
    ]


def goal_names(tensors: MarketTensors, regimes: Sequence[str]) -> Named:
    """Name the numbers of a goal, which is also the action of the macro level.

    `regimes` are their names under the objective, `REGIME_NAMES`.
    """
    sectors = tensors.market.sector_names
    return [
        *(("sectors", f"{s}: share of what is invested") for s in sectors),
        ("cash", "share of wealth in cash"),
        *(("regime", f"probability: {name}") for name in regimes),
    ]


def slot_names(tensors: MarketTensors) -> Named:
    """Name the slots, which are the numbers of the micro level's action."""
    places = range(1, tensors.slots_per_sector + 1)
    return [("slots", f"{s}, slot {k}") for s in tensors.market.sector_names for k in places]


def _risk_names(market: Market) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the risk of a sector and of the market; none without risk tables."""
    risk = market.risk
    return ((), ()) if risk is None else (risk.sector_input_names, risk.input_names)


def require_sector_embeddings(tensors: MarketTensors) -> Float[Tensor, "T S E"]:
    """Return the sector embeddings; without them, the error says how to get them."""
    if tensors.sector_embeddings is None:
        raise MarketError(
            "the market has no sector embeddings: run `hrl-sarp train --phase 1`, or add raw "
            "ones with hrl_sarp.graph.with_node_features(market)"
        )
    return tensors.sector_embeddings


def macro_sizes(tensors: MarketTensors) -> tuple[int, int]:
    """Return (columns per sector, columns of context) of `MacroInputs`."""
    width = require_sector_embeddings(tensors).shape[2] + tensors.sector_risk.shape[2] + 2
    n_macro = tensors.macro_features.shape[1] + len(tensors.market.portfolio_names)
    n_risk = tensors.risk_inputs.shape[1]
    return width, n_macro + len(Regime) + len(MACRO_SCALARS) + n_risk


def portfolio_columns(tensors: MarketTensors) -> list[int]:
    """Return the columns of `MacroInputs.context` that follow the portfolio, not the market."""
    first = tensors.macro_features.shape[1]
    scalars = first + len(tensors.market.portfolio_names) + len(Regime)
    return [*range(first, scalars - len(Regime)), *range(scalars, scalars + len(MACRO_SCALARS))]


def achieved_sectors(
    tensors: MarketTensors, weights_after: Float[Tensor, "B A"]
) -> Float[Tensor, "B S"]:
    """Return sector shares of the invested part; all 0 when nothing is invested."""
    # weights @ member is several times slower where the batch is large
    sums = (tensors.sector_member.t() @ weights_after.t()).t()
    return sums / sums.sum(dim=1, keepdim=True).clamp(min=1e-12)
