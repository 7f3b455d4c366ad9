"""What a backtest asks of a policy: one decision a day for one portfolio, from the past alone."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from hrl_sarp.contracts import DayRange, PortfolioState
from hrl_sarp.market.tensors import MarketTensors


@dataclass(frozen=True)
class Decision:
    """Orders for the next open."""

    slot_action: Float[Tensor, " N"] | None
    """Target weights of the day's slots, before the limits; None sends no orders."""
    p_bear: float = 0.0
    """Probability of a bear regime, which lowers the exposure."""
    goal: Float[Tensor, " G"] | None = None
    """In force today, also when holding; None for a policy without goals."""


HOLD = Decision(slot_action=None)


@dataclass(frozen=True)
class DecisionView:
    """What a policy may look at after the close of `day`."""

    day: int
    tensors: MarketTensors
    """Only rows up to `day` may be read."""
    states: PortfolioState
    """All portfolios of the rollout; a policy reads its own through `state`."""
    row: int
    """Which of them is the policy's own."""
    is_first: bool
    """First decision of the rollout: the portfolio is all cash."""
    is_week_end: bool
    """Last session of its exchange week: the macro agent decides."""

    @property
    def state(self) -> PortfolioState:
        """The policy's own portfolio, a batch of one row."""
        own = slice(self.row, self.row + 1)
        states = self.states
        return PortfolioState(
            day=states.day[own],
            weights=states.weights[own],
            cash=states.cash[own],
            wealth=states.wealth[own],
            peak=states.peak[own],
            gate_days=states.gate_days[own],
        )


@runtime_checkable
class Policy(Protocol):
    """Anything that can be backtested; agents and baselines alike."""

    @property
    def name(self) -> str:
        """What tables and legends call it; unique in a backtest."""

    def prepare(self, tensors: MarketTensors, span: DayRange) -> None:
        """Forget the last rollout and get ready for one over `span`; called before every rollout.

        Work that needs no portfolio may be done here for all days at once, as long as the row of
        each day uses rows up to that day.
        """

    def decide(self, view: DecisionView) -> Decision:
        """Decide after the close of `view.day`; called once for each day of the rollout."""
