"""A policy written as a plain function of past data, without tensors, slots or batches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from hrl_sarp.config.own_code import call, load_function, read_only, real_numbers, summary_line
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market, session_growth
from hrl_sarp.envs.rollout import HOLD, Decision, DecisionView, Policy
from hrl_sarp.errors import SimulatorError

Weights = Float[np.ndarray, " A"] | Mapping[str, float] | None
"""Return value of a function: shares by stock, shares by symbol, or None to keep the portfolio."""
SHOWN_SYMBOLS = 5
"""Symbols that a message lists at most."""


@dataclass(frozen=True)
class PastView:
    """The data known after one close, which a function decides on.

    Arrays are by stock, in the order of `symbols`, and read-only.

    Examples:
        >>> import hrl_sarp
        >>> view = PastView(hrl_sarp.load_market(), 300, np.zeros(20), is_first=True)
        >>> view.past_returns(5).shape
        (5, 20)
    """

    _market: Market
    row: int
    """Market row at whose close the function decides."""
    weights: Float[np.ndarray, " A"]
    """Holdings at the close, as shares of wealth."""
    is_first: bool
    """True at the first decision of the rollout, when the portfolio is all cash."""

    @property
    def date(self) -> np.datetime64:
        """Session at whose close the function decides."""
        return self._market.dates[self.row]

    @property
    def symbols(self) -> tuple[str, ...]:
        """Stocks, in the order of every array."""
        return self._market.symbols

    @property
    def is_week_end(self) -> bool:
        """Last session of its exchange week."""
        return bool(self._market.is_week_end[self.row])

    @property
    def usable(self) -> Bool[np.ndarray, " A"]:
        """Stocks that may be bought: in the universe of the day, with a bar."""
        market = self._market
        return read_only(market.eligible[self.row] & market.tradable[self.row])

    def past_returns(self, n_days: int) -> Float[np.ndarray, "D A"]:
        """Return simple returns from close to close.

        Args:
            n_days: number of sessions; the last one has just closed.

        Returns:
            Oldest first; fewer rows at the start of the data. 0 where a stock has no bar.

        Raises:
            SimulatorError: unless `n_days` is a whole number of 1 or more.
        """
        if n_days < 1 or int(n_days) != n_days:
            raise SimulatorError(
                f"past_returns: expected a whole number of sessions, 1 or more, found {n_days!r}"
            )
        rows = slice(max(0, self.row + 1 - int(n_days)), self.row + 1)
        market = self._market
        growth = session_growth(market.overnight_return[rows], market.intraday_return[rows])
        return read_only(growth - 1.0)

    def feature(self, name: str) -> Float[np.ndarray, " A"]:
        """Return a stock feature of the day.

        Args:
            name: one of `Market.feature_names`.

        Returns:
            Standardised across the stocks of the day; 0 where the stock has no bar.

        Raises:
            MarketError: for a name that is not there.
        """
        column = self._market.feature_column(name)
        return read_only(self._market.stock_features[self.row, :, column])


class FunctionPolicy:
    """A function of the past as a policy that can be backtested.

    The limits of the backtest apply to the returned weights, as to every policy's. Weights that
    sum to more than may be invested are scaled down. The rest is cash. A holding whose stock has
    left the universe is sold.

    Args:
        function: maps a `PastView` to weights; called at every close.
        name: in tables and legends.

    Examples:
        >>> equal = FunctionPolicy(lambda view: view.usable / view.usable.sum(), "equal")
        >>> equal.name
        'equal'
    """

    def __init__(self, function: Callable[[PastView], Weights], name: str) -> None:
        self.function, self.name = function, name
        self.description = summary_line(function)

    def decide(self, view: DecisionView) -> Decision:
        """Ask the function for each portfolio of the rollout.

        Args:
            view: portfolios and market at the close of the day.

        Returns:
            Target weights of the day's slots; no orders where the function returns None.

        Raises:
            SimulatorError: for weights that are negative, not finite or of a stock that is unknown.
        """
        market, days = view.tensors.market, view.days
        held = view.state.weights.cpu().numpy()
        rows = [
            self.ask(PastView(market, day, read_only(own.copy()), is_first=view.is_first))
            for day, own in zip(days.tolist(), held, strict=True)
        ]
        silent = [row is None for row in rows]
        if all(silent):
            return HOLD
        wanted = np.stack([np.zeros_like(held[0]) if row is None else row for row in rows])
        slots = view.tensors.to_slots(torch.as_tensor(wanted, device=days.device), days)
        return Decision(slots, hold=torch.tensor(silent, device=days.device))

    def ask(self, past: PastView) -> Float[np.ndarray, " A"] | None:
        """Call the function for one portfolio, and refuse invalid weights.

        Args:
            past: what was known at the close, and the holdings.

        Returns:
            Weights by stock; None sends no orders.

        Raises:
            SimulatorError: for weights that are negative, not finite or of a stock that is unknown.
        """
        try:
            answer: Any = self.function(past)
        except Exception as error:
            error.add_note(f"in policy '{self.name}' at the close of {past.date}")
            raise
        if answer is None:
            return None
        symbols = past.symbols
        if hasattr(answer, "items"):  # a dictionary, or a Series whose order may be another one
            pairs = list(answer.items())
            by_symbol = dict(pairs)
            if len(by_symbol) < len(pairs):
                raise self._refusal(past, "two weights for one symbol")
            unknown = [str(symbol) for symbol in by_symbol if symbol not in symbols]
            if unknown:
                raise self._refusal(
                    past,
                    f"weights of unknown symbols {', '.join(unknown[:SHOWN_SYMBOLS])}; there are "
                    f"{', '.join(symbols[:SHOWN_SYMBOLS])}, ... (cash is what is left)",
                )
            answer = [by_symbol.get(symbol, 0.0) for symbol in symbols]
        weights = real_numbers(answer)
        if weights is None:
            raise self._refusal(past, f"{type(answer).__name__}, which is no array of numbers")
        if weights.shape != (len(symbols),):
            raise self._refusal(
                past,
                f"weights of shape {weights.shape}; expected {len(symbols)}, one for each of "
                "`view.symbols`",
            )
        if not np.isfinite(weights).all() or (weights < 0).any():
            at = int(np.argmax(~(weights >= 0) | np.isinf(weights)))
            raise self._refusal(
                past, f"the weight {weights[at]} for {symbols[at]}; expected 0 or more"
            )
        out_of_reach = (weights > 0) & ~past.usable & (past.weights == 0)
        if out_of_reach.any():
            named = ", ".join(symbols[at] for at in np.flatnonzero(out_of_reach)[:SHOWN_SYMBOLS])
            raise self._refusal(
                past, f"a weight for {named}, which cannot be bought that day: see `view.usable`"
            )
        return weights

    def _refusal(self, past: PastView, found: str) -> SimulatorError:
        return SimulatorError(f"policy '{self.name}' at the close of {past.date} returned {found}")


def require_configured(market: Market, config: RunConfig, span_name: str) -> None:
    """Ask each own baseline and policy once, before a training whose backtest needs them.

    Args:
        market: with a split that has `span_name`.
        config: names the functions.
        span_name: span of the backtest; its first close is asked about, in cash.

    Raises:
        ConfigError: if a function cannot be imported.
        OwnCodeError: if one fails.
        SimulatorError: if one gives weights that cannot be meant.
    """
    section, first = config.evaluation, getattr(market.split, span_name).start
    for key in ("extra_baselines", "extra_policies"):
        for name in getattr(section, key):
            nothing = read_only(np.zeros(market.n_assets))
            policy = _configured(name, f"evaluation.{key}")
            policy.ask(PastView(market, first, nothing, is_first=True))


def as_policies(given: Any) -> list[Policy]:
    """Turn a user's functions and policies into policies that can be backtested.

    Args:
        given: a function of a `PastView`, an object with `name` and `decide`, or several of them;
            the type is open, because any user input is checked here.

    Returns:
        The policies; that of a function has the function's name.

    Raises:
        SimulatorError: for anything else.
    """
    several = given if isinstance(given, Sequence) else [given]
    policies: list[Policy] = []
    for one in several:
        if isinstance(one, type):
            raise SimulatorError(
                f"expected a policy, found the class {one.__name__}: hand in {one.__name__}()"
            )
        if isinstance(one, Policy):
            policies.append(one)
        elif callable(one):
            policies.append(FunctionPolicy(one, getattr(one, "__name__", type(one).__name__)))
        else:
            raise SimulatorError(
                f"expected a function of the past or an object with `name` and `decide(view)`, "
                f"found {type(one).__name__}; see docs/your_policy.md"
            )
    return policies


def configured_policies(names: Sequence[str], key: str) -> list[Policy]:
    """Load the user's functions that a configuration names, each as a policy.

    Args:
        names: `package.module:function`, each a function from a `PastView` to weights.
        key: of the configuration, for messages.

    Returns:
        One policy a name, called as the function is.

    Raises:
        ConfigError: if a function cannot be imported.
    """
    return [_configured(name, key) for name in names]


def _configured(name: str, key: str) -> FunctionPolicy:
    return FunctionPolicy(partial(call, load_function(name, key), name), name.split(":")[1])
