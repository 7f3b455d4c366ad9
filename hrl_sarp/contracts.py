"""The frozen dataclasses that cross the stages: what travels, in which shape and unit.

Axis letters: B batch of environments or policies, T days, A assets, S sectors, K slots per sector,
N = S x K slots a day, F stock features, M macro features, E embedding of a stock, H of a sector,
G goal = S + 1 + R, R regimes.
Returns and weights are fractions (0.01 is 1 %), never percent.
"""

import hashlib
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from hrl_sarp.errors import MarketError

STOCK_EMBEDDINGS = "stock_embeddings"
"""Entry of a market's manifest that says whose embeddings it carries."""
PORTFOLIO_FEATURES = ("portfolio_drawdown",)
"""Macro features of a profile that only the environment knows: a market has no column of them."""


class Regime(IntEnum):
    """Market regime; the order wherever three regime numbers stand.

    Examples:
        >>> Regime(1).name
        'BULL'
    """

    BEAR = 0
    BULL = 1
    SIDEWAYS = 2


REGIME_NAMES = {
    "growth": ("bear", "bull", "sideways"),
    "risk": ("stressed", "calm", "normal"),
}
"""Objective -> what its regime head forecasts, in the order of `Regime`: the direction of the
market under `growth`, the tercile of its volatility under `risk`."""


def session_growth(
    overnight_return: Float[np.ndarray, "*shape"], intraday_return: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """Chain the night and the day of a session: (1 + overnight) (1 + intraday).

    Args:
        overnight_return: simple return from the close before to the open.
        intraday_return: simple return from the open to the close.

    Returns:
        Wealth at the close for one unit at the close before.
    """
    return (1.0 + overnight_return) * (1.0 + intraday_return)


@dataclass(frozen=True)
class SessionCounts:
    """Sessions of a market's calendar in a week and a year; windows and annual figures use them.

    Examples:
        >>> SessionCounts().month, SessionCounts(7, 365).quarter
        (20, 91)
    """

    week: int = 5
    """Of a week without holidays."""
    year: int = 252
    """The mean, or what the market counts by convention."""

    @property
    def month(self) -> int:
        """Four weeks."""
        return 4 * self.week

    @property
    def quarter(self) -> int:
        """Thirteen weeks."""
        return 13 * self.week

    @property
    def half(self) -> int:
        """Half a year."""
        return self.year // 2

    def scaled(self, sessions: int) -> int:
        """Turn a number of sessions out of 252 a year into as long a time here.

        Args:
            sessions: of a year of 252.

        Returns:
            At least 1.
        """
        return max(1, round(sessions * self.year / 252))


USUAL_SESSIONS = SessionCounts()
"""Those of a stock exchange."""


SECTOR_COLUMNS = "sector_columns"
"""Key of `Market.manifest`: names of the columns of a sector table that no network has made."""
CONTINUED_TABLE = "continued_table"
"""Key of `Market.manifest`: hash of the sector table that the market's own one goes on from."""


@dataclass(frozen=True)
class RiskTables:
    """Level-preserving risk inputs and classical portfolios of a market, made once.

    Row t is known at the close of day t. Nothing here holds NaN.

    Examples:
        >>> one = np.ones((2, 1))
        >>> tables = RiskTables(one, ("log_volatility_5d",), one[..., None], ("log_share",),
        ...     one, one, one[:, 0], one[:, 0])
        >>> tables.input_names
        ('log_volatility_5d',)
    """

    inputs: Float[np.ndarray, "T C"]
    """Risk of the whole market, in logs, standardised by the training span."""
    input_names: tuple[str, ...]
    sector_inputs: Float[np.ndarray, "T S D"]
    """Risk of each sector, standardised by the training span over all sectors together."""
    sector_input_names: tuple[str, ...]
    sector_prior: Float[np.ndarray, "T S"]
    """Sector shares of the classical portfolio; they sum to 1, 0 for a sector without stocks."""
    stock_prior: Float[np.ndarray, "T N"]
    """Shares of the day's slots inside their sector; each sector with stocks sums to 1."""
    prior_exposure: Float[np.ndarray, " T"]
    """Neutral exposure: the largest at normal variance, less when the forecast is above it."""
    normal_variance: Float[np.ndarray, " T"]
    """Annual variance of 1/N that counts as normal on the day, from the past alone."""


@dataclass(frozen=True)
class Market:
    """Everything the agents may trade and see, stored once; all else carries an index into it.

    Row t of every array is known at the close of day t. Nothing here holds NaN.

    Examples:
        >>> table, mask, days = np.zeros((2, 2)), np.ones((2, 2), dtype=bool), DayRange(0, 2)
        >>> market = Market(
        ...     *("tiny", np.array(["2024-01-02", "2024-01-03"], "datetime64[D]"), ("A", "B")),
        ...     *(("tech",), np.array([0, 0]), table, table + 0.01, mask, mask, mask),
        ...     *(np.array([[0, 1], [0, 1]]), table[0], table[0], "index", table),
        ...     *(np.zeros((2, 2, 1)), ("beta_120d",), table[:, :1], ("index_return_1w",)),
        ...     *(np.ones((2, 3)) / 3, mask[0], Split(days, days, days)),
        ... )
        >>> market.n_assets, market.n_slots, market.session_return()[1].round(2).tolist()
        (2, 2, [0.01, 0.01])
    """

    name: str
    """Market profile it was assembled from (`config/markets/<name>.yaml`)."""
    dates: Shaped[np.ndarray, " T"]
    """Trading sessions, datetime64[D], strictly increasing."""
    symbols: tuple[str, ...]
    """Length A: every stock that was ever eligible."""
    sector_names: tuple[str, ...]
    """Length S, in the order of the market profile."""
    sector_of: Int[np.ndarray, " A"]
    """Sector index of each stock."""
    overnight_return: Float[np.ndarray, "T A"]
    """Simple return close t-1 -> open t with dividends; 0 where the stock has no bar on t."""
    intraday_return: Float[np.ndarray, "T A"]
    """Simple return open t -> close t; all 0 in a data set of closes only."""
    tradable: Bool[np.ndarray, "T A"]
    """A bar was printed on t."""
    listed: Bool[np.ndarray, "T A"]
    """Between first and last bar; listed without a bar is a halt: holdings stay, untradable."""
    eligible: Bool[np.ndarray, "T A"]
    """In the universe of day t: may be bought. A leaver may only be sold."""
    slots: Int[np.ndarray, "T N"]
    """Asset in each slot, -1 if empty. Sector-major: slot n serves sector n // K."""
    risk_free: Float[np.ndarray, " T"]
    """Simple return of cash from the close of t-1 to the close of t."""
    benchmark_return: Float[np.ndarray, " T"]
    """Simple return of the index (`benchmark_name`) from the close of t-1 to the close of t."""
    benchmark_name: str
    """What `benchmark_return` is, for tables and legends."""
    dollar_volume: Float[np.ndarray, "T A"]
    """Raw close x raw volume, in currency; 0 where unknown."""
    stock_features: Float[np.ndarray, "T A F"]
    """Standardised across the stocks of each day, within +-3; 0 where the stock has no bar."""
    feature_names: tuple[str, ...]
    macro_features: Float[np.ndarray, "T M"]
    """Standardised by trailing windows."""
    macro_names: tuple[str, ...]
    filtered_regime: Float[np.ndarray, "T R"]
    """Forward-filtered probabilities of the 3-state HMM fitted on the training span."""
    is_week_end: Bool[np.ndarray, " T"]
    """Last session of an exchange week, by the published calendar."""
    split: "Split"
    """Training, validation and test spans that everything fitted here respects."""
    manifest: dict[str, Any] = field(default_factory=dict)
    """Sources, hashes, fitted spans, adjustments, survivorship note, what was unavailable."""
    portfolio_names: tuple[str, ...] = ()
    """Which of `PORTFOLIO_FEATURES` the environment appends to the macro features, in order."""
    stock_embeddings: Float[np.ndarray, "T A E"] | None = None
    """Frozen encoders' output per stock in a slot and day, 0 elsewhere; may be mapped from a file.
    `manifest["stock_embeddings"]` says whose, and the hash of the table."""
    sector_embeddings: Float[np.ndarray, "T S H"] | None = None
    """Frozen sector graph output per day, written by phase 1."""
    range_variance: Float[np.ndarray, "T A"] | None = None
    """Garman-Klass variance of the session from its range, 0 without a bar; None for closes only.
    """
    implied_volatility: Float[np.ndarray, " T"] | None = None
    """Annual volatility implied by options, known at the close; None where there is no index.
    0 before the first publication."""
    risk: RiskTables | None = None
    """Risk inputs and priors; None in a market whose objective needs none."""
    sessions: SessionCounts = USUAL_SESSIONS
    """Of its calendar."""

    @property
    def embeddings_hash(self) -> str:
        """Hash of the stock embeddings, as their table was written with; empty without any."""
        if self.stock_embeddings is None:
            return ""
        written = self.manifest.get(STOCK_EMBEDDINGS, {}).get("content")
        return written or hashlib.sha256(self.stock_embeddings.tobytes()).hexdigest()

    def feature_column(self, name: str) -> int:
        """Find a stock feature.

        Args:
            name: one of `feature_names`.

        Returns:
            Its place on the axis F of `stock_features`.

        Raises:
            MarketError: for a name that is not there; it lists those that are.
        """
        if name not in self.feature_names:
            raise MarketError(f"no feature '{name}'; there are: {', '.join(self.feature_names)}")
        return self.feature_names.index(name)

    def session_growth(self) -> Float[np.ndarray, "T A"]:
        """Chain night and day.

        Returns:
            Wealth at each close for one unit at the close before; 1 without a bar.
        """
        return session_growth(self.overnight_return, self.intraday_return)

    def session_return(self) -> Float[np.ndarray, "T A"]:
        """Chain night and day to the simple return from close to close.

        Returns:
            0 without a bar.
        """
        return self.session_growth() - 1.0

    def slot_tradable(self) -> Bool[np.ndarray, "T N"]:
        """Mark the slots that are filled with a stock that printed a bar on the day.

        Returns:
            False in empty slots.
        """
        filled: np.ndarray = self.slots >= 0
        return filled & np.take_along_axis(self.tradable, np.maximum(self.slots, 0), axis=1)

    def sector_member(self) -> Float[np.ndarray, "A S"]:
        """Say who belongs where: (T, A) @ (A, S) sums by sector.

        Returns:
            1 where a stock belongs to a sector, else 0.
        """
        return np.eye(self.n_sectors)[self.sector_of]

    def sector_mean(
        self, values: Float[np.ndarray, "X A"], mask: Bool[np.ndarray, "X A"]
    ) -> Float[np.ndarray, "X S"]:
        """Average each row over the masked stocks of each sector.

        Args:
            values: one per stock; read where the mask is set only.
            mask: stocks that count.

        Returns:
            NaN for a sector without a masked stock.
        """
        member = self.sector_member()
        total = np.where(mask, values, 0.0) @ member
        count = mask.astype(np.float64) @ member
        return np.where(count > 0, total / np.maximum(count, 1.0), np.nan)

    @property
    def n_days(self) -> int:
        """T."""
        return len(self.dates)

    @property
    def n_assets(self) -> int:
        """A."""
        return len(self.symbols)

    @property
    def n_sectors(self) -> int:
        """S."""
        return len(self.sector_names)

    @property
    def n_slots(self) -> int:
        """N."""
        return int(self.slots.shape[1])


@dataclass(frozen=True)
class DayRange:
    """A half-open range [start, stop) of row indices of a market.

    Examples:
        >>> len(DayRange(3, 5))
        2
    """

    start: int
    stop: int

    def __len__(self) -> int:
        """Return the number of days."""
        return max(0, self.stop - self.start)


@dataclass(frozen=True)
class Split:
    """Row ranges for fitting, selecting and testing; purged and embargoed, never overlapping.

    Examples:
        >>> split = Split(train=DayRange(0, 6), validation=DayRange(7, 9), test=DayRange(9, 12))
        >>> split.validation.stop
        9
    """

    train: DayRange
    validation: DayRange
    test: DayRange


def goal_size(n_sectors: int) -> int:
    """Count the numbers of a goal.

    Args:
        n_sectors: S.

    Returns:
        G: the sector weights, cash and the regime probabilities.
    """
    return n_sectors + 1 + len(Regime)


@dataclass(frozen=True)
class Goal:
    """What the macro agent asks of the micro agent until its next decision.

    Examples:
        >>> sectors, regime = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.0, 1.0, 0.0]])
        >>> Goal(sectors, torch.tensor([0.25]), regime).to_vector().tolist()
        [[0.5, 0.5, 0.25, 0.0, 1.0, 0.0]]
    """

    sector_weights: Float[Tensor, "B S"]
    """On the simplex: shares of the invested part, without cash."""
    cash: Float[Tensor, " B"]
    """Share of wealth to leave in cash. Limits of risk may leave more."""
    regime_probabilities: Float[Tensor, "B R"]
    """In the order of `Regime`."""

    def to_vector(self) -> Float[Tensor, "B G"]:
        """Write the goal into one row.

        Returns:
            Sector weights, cash, then regime probabilities.
        """
        return torch.cat(
            [self.sector_weights, self.cash[..., None], self.regime_probabilities], dim=-1
        )

    @classmethod
    def from_vector(cls, vector: Float[Tensor, "B G"]) -> "Goal":
        """Read a goal from one row; the inverse of `to_vector`.

        Args:
            vector: `goal_size` numbers a row.

        Returns:
            The goal; its fields are views.
        """
        cash = vector.shape[-1] - len(Regime) - 1
        return cls(vector[..., :cash], vector[..., cash], vector[..., cash + 1 :])


@dataclass(frozen=True)
class PortfolioState:
    """B portfolios at the close of their day.

    Examples:
        >>> one, day = torch.ones(1), torch.tensor([20])
        >>> state = PortfolioState(day, torch.tensor([[0.4, 0.6]]), 0 * one, one, one, 0 * day)
        >>> float(state.weights.sum() + state.cash)
        1.0
    """

    day: Int[Tensor, " B"]
    weights: Float[Tensor, "B A"]
    """Shares of wealth, after the drift of the day."""
    cash: Float[Tensor, " B"]
    """1 - sum of weights."""
    wealth: Float[Tensor, " B"]
    """In units of the wealth at reset (1.0)."""
    peak: Float[Tensor, " B"]
    """Running maximum of wealth that the drawdown gate compares with."""
    gate_days: Int[Tensor, " B"]
    """Sessions that the drawdown gate still halves the exposure; 0 is open."""


@dataclass(frozen=True)
class StepResult:
    """What one session earned, from the close of `day` to the close of `day + 1`.

    Examples:
        >>> cash, held, nothing = torch.zeros(1, 2), torch.ones(1, 2) / 2, torch.zeros(1)
        >>> bought = StepResult(torch.tensor([21]), nothing - 0.001, nothing, nothing + 0.001,
        ...     nothing + 0.5, held, cash, cash, held, held, nothing)
        >>> bool(bought.net_return == bought.gross_return - bought.cost)
        True
    """

    day: Int[Tensor, " B"]
    """The session that was earned (decision day + 1)."""
    net_return: Float[Tensor, " B"]
    gross_return: Float[Tensor, " B"]
    """The same holdings' return had the trade been free."""
    cost: Float[Tensor, " B"]
    """Paid at the open, as a fraction of the wealth just before the trade."""
    turnover: Float[Tensor, " B"]
    """Half of the traded value over the wealth just before the trade."""
    target_weights: Float[Tensor, "B A"]
    """As decided, before fills."""
    weights_start: Float[Tensor, "B A"]
    """Held over night, as shares of the wealth at the close of the decision day."""
    weights_before: Float[Tensor, "B A"]
    """Drifted over night, just before the trade."""
    weights_after: Float[Tensor, "B A"]
    """Just after the trade and its costs: executed target weights, held intraday."""
    weights_end: Float[Tensor, "B A"]
    """At the close of `day`."""
    delisted_value: Float[Tensor, " B"]
    """Share of wealth force-sold because its stock no longer exists."""


@dataclass(frozen=True)
class Trajectory:
    """The per-step ledger of one rollout of P policies; every number of a report comes from it.

    Row i is earned on `dates[i]` by the decision at the close of the session before.

    Examples:
        >>> one, weights = np.zeros((1, 1)), np.ones((1, 1, 2)) / 2  # a day, a policy, two stocks
        >>> ledger = Trajectory(("equal weight",), np.array(["2024-01-03"], "datetime64[D]"),
        ...     one, one, one, one, one + 1, weights, weights, weights, np.full((1, 1, 4), np.nan),
        ...     one, 0 * one)
        >>> ledger.names[0], float(ledger.wealth[-1, 0])
        ('equal weight', 1.0)
    """

    names: tuple[str, ...]
    """Length P."""
    dates: Shaped[np.ndarray, " D"]
    net_return: Float[np.ndarray, "D P"]
    gross_return: Float[np.ndarray, "D P"]
    cost: Float[np.ndarray, "D P"]
    turnover: Float[np.ndarray, "D P"]
    wealth: Float[np.ndarray, "D P"]
    target_weights: Float[np.ndarray, "D P A"]
    """As decided, before fills."""
    weights_before: Float[np.ndarray, "D P A"]
    weights_after: Float[np.ndarray, "D P A"]
    goal: Float[np.ndarray, "D P G"]
    """Goal in force; NaN rows for a policy without one."""
    delisted_value: Float[np.ndarray, "D P"]
    moved_by_limits: Float[np.ndarray, "D P"]
    """Share of wealth that limits put elsewhere than the policy asked; NaN without orders."""
