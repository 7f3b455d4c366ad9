"""What an account holds at a close, in shares and as the portfolio that agents see.

A file of holdings is a CSV with `symbol` and `shares`; the row CASH is cash in currency.
"""

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hrl_sarp.contracts import PortfolioState
from hrl_sarp.envs.two_clocks import EpisodeState, TwoClocks
from hrl_sarp.errors import DataError
from hrl_sarp.market.tensors import MarketTensors

CASH = "CASH"
"""Symbol of the row of a holdings file that is cash in currency."""
SYMBOL, SHARES = "symbol", "shares"
NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?|\.[0-9]+", re.ASCII)
"""A number of shares. `float` would also take 1_000 and digits of other scripts."""

_ROUNDING = 1e-3
"""Weights may be rounded so much that their sum is not quite 1."""


@dataclass(frozen=True)
class Memory:
    """What a policy remembers of its own past; none of it is seen in holdings.

    Examples:
        >>> Memory().goal is None
        True
    """

    goal: tuple[float, ...] | None = None
    """In force: sector weights, cash, regime probabilities; None before the first one."""
    goal_day: date | None = None
    """Close at which it was set."""
    peak: float = 1.0
    """Highest wealth so far over wealth now, at least 1."""
    gate_days: int = 0
    """Sessions that the drawdown gate still halves the exposure."""
    active_growth: float = 0.0
    """Log growth over 1/N since the account began."""
    active_peak: float = 0.0
    """Its running maximum."""
    traded: Mapping[str, float] = field(default_factory=dict)
    """Weights just after the last trade."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, from which `from_json` makes an equal memory."""
        day = None if self.goal_day is None else self.goal_day.isoformat()
        goal = None if self.goal is None else list(self.goal)
        return {**vars(self), "goal": goal, "goal_day": day, "traded": dict(self.traded)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Memory":
        """Read `to_json`."""
        day, goal = found["goal_day"], found["goal"]
        return cls(
            **{
                **found,
                "goal": None if goal is None else tuple(goal),
                "goal_day": None if day is None else date.fromisoformat(day),
            }
        )


@dataclass(frozen=True)
class Standing:
    """An account at the close of a session.

    Examples:
        >>> standing = Standing(date(2024, 1, 2), 1000.0, {"A": 0.4})
        >>> round(standing.cash, 2)
        600.0
    """

    day: date
    wealth: float
    """In currency."""
    weights: Mapping[str, float]
    """Shares of wealth of the stocks that are held."""
    memory: Memory = Memory()

    @property
    def cash(self) -> float:
        """Cash in currency."""
        return self.wealth * (1.0 - math.fsum(self.weights.values()))

    def to_json(self) -> dict[str, Any]:
        """Return plain values, from which `from_json` makes an equal standing."""
        return {
            "day": self.day.isoformat(),
            "wealth": self.wealth,
            "weights": dict(self.weights),
            "memory": self.memory.to_json(),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Standing":
        """Read `to_json`."""
        day, memory = date.fromisoformat(found["day"]), Memory.from_json(found["memory"])
        return cls(day, found["wealth"], found["weights"], memory)

    def clocks(self, clocks: TwoClocks) -> TwoClocks:
        """Put the account into clocks of one portfolio, at the day of the standing.

        Args:
            clocks: of a market that has the day and every stock that is held.

        Returns:
            The same clocks.

        Raises:
            DataError: if a stock that is held is not in the market.
        """
        tensors, memory = clocks.tensors, self.memory
        row = int(np.searchsorted(tensors.market.dates, np.datetime64(self.day)))
        weights = by_stock(tensors, self.weights)
        one = torch.ones(1, dtype=tensors.dtype)
        clocks.simulator.state = PortfolioState(
            day=torch.tensor([row]),
            weights=weights,
            cash=1.0 - weights.sum(dim=1),
            wealth=one,
            peak=one * memory.peak,
            gate_days=torch.tensor([memory.gate_days]),
        )
        goal = torch.zeros_like(clocks.episode.goal)
        if memory.goal is not None:
            goal = torch.tensor([memory.goal], dtype=tensors.dtype)
        clocks.episode = EpisodeState(
            goal=goal,
            traded=by_stock(tensors, memory.traded, known_only=True),
            active_growth=one * memory.active_growth,
            active_peak=one * memory.active_peak,
            steps=torch.zeros(1, dtype=torch.int64),
        )
        return clocks

    @classmethod
    def of(cls, clocks: TwoClocks, wealth: float, goal_day: date | None) -> "Standing":
        """Read the account back from clocks of one portfolio.

        Args:
            clocks: at the close of their day.
            wealth: in currency at that close.
            goal_day: close at which the goal in force was set.

        Returns:
            The standing, whose weights leave out what is not held.
        """
        state, episode = clocks.simulator.state, clocks.episode
        day: date = clocks.tensors.market.dates[int(state.day)].item()
        has_goal = bool(episode.goal.any())
        memory = Memory(
            goal=tuple(episode.goal[0].tolist()) if has_goal else None,
            goal_day=goal_day,
            peak=float(state.peak / state.wealth),
            gate_days=int(state.gate_days),
            active_growth=float(episode.active_growth),
            active_peak=float(episode.active_peak),
            traded=by_symbol(clocks.tensors, episode.traded),
        )
        return cls(day, wealth, by_symbol(clocks.tensors, state.weights), memory)


def by_stock(
    tensors: MarketTensors, weights: Mapping[str, float], *, known_only: bool = False
) -> Float[Tensor, "1 A"]:
    """Arrange weights by the stocks of a market.

    Args:
        tensors: of the market.
        weights: symbol -> share of wealth.
        known_only: leave out stocks that the market lacks instead of refusing them.

    Raises:
        DataError: naming the stocks that the market lacks.
    """
    column = {symbol: place for place, symbol in enumerate(tensors.market.symbols)}
    unknown = [symbol for symbol in weights if symbol not in column]
    if unknown and not known_only:
        raise DataError(
            f"holdings in {', '.join(unknown)}: not in the universe of market "
            f"{tensors.market.name}, so that nothing is known of them; sell them by hand and leave "
            "them out"
        )
    row = torch.zeros(1, len(column), dtype=tensors.dtype)
    for symbol, weight in weights.items():
        if symbol in column:
            row[0, column[symbol]] = weight
    return row


def by_symbol(tensors: MarketTensors, weights: Float[Tensor, "1 A"]) -> dict[str, float]:
    """Name the weights of a market's stocks; those of 0 are left out."""
    symbols = tensors.market.symbols
    return {symbols[place]: float(weights[0, place]) for place in weights[0].nonzero().flatten()}


@dataclass(frozen=True)
class Holdings:
    """Shares and cash of an account.

    Examples:
        >>> Holdings({"A": 10.0}, 500.0).value({"A": 20.0})
        700.0
    """

    shares: Mapping[str, float]
    cash: float
    """In currency."""

    def value(self, closes: Mapping[str, float]) -> float:
        """Return the wealth at closing prices."""
        return self.cash + math.fsum(n * closes[symbol] for symbol, n in self.shares.items())

    def standing(self, day: date, closes: Mapping[str, float], memory: Memory) -> Standing:
        """Return the account that these holdings are at a close.

        Args:
            day: of the close.
            closes: price of each stock, as traded; those without a bar have their last one.
            memory: what the policy remembers.

        Raises:
            DataError: for a stock without a price, and for an account that is worth nothing.
        """
        unpriced = [symbol for symbol in self.shares if symbol not in closes]
        if unpriced:
            raise DataError(
                f"holdings in {', '.join(unpriced)}: the data have no price of them up to {day}; "
                "correct the symbols, or leave these out"
            )
        wealth = self.value(closes)
        if not (math.isfinite(wealth) and wealth > 0):
            raise DataError(
                f"holdings: expected an account with a value above 0, found {wealth:g}; the row "
                "CASH says its cash"
            )
        weights = {
            symbol: n * closes[symbol] / wealth for symbol, n in self.shares.items() if n > 0
        }
        return Standing(day, wealth, weights, memory)


def read_holdings(path: Path) -> Holdings:
    """Read a CSV of `symbol, shares`, with a row CASH for cash in currency.

    Args:
        path: of the file.

    Returns:
        The holdings.

    Raises:
        DataError: naming file, row, cause and cure, for another header, a symbol that stands twice,
            a number that is none or below 0, weights in place of shares, and a file without the row
            CASH.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error}); expected a CSV") from error
    try:
        rows = list(csv.reader(text.splitlines(keepends=True), strict=True))
    except csv.Error as error:
        raise DataError(
            f"{path}: cannot be read as a CSV ({error}); a quoted cell begins and ends with a quote"
        ) from error
    header = [name.strip().lower() for name in rows[0]] if rows else []
    if header != [SYMBOL, SHARES]:
        raise DataError(
            f"{path}: row 1: expected the header symbol,shares, found "
            f"{','.join(header) or 'none'}; write one row a stock with a comma between its cells, "
            f"and a row {CASH} with the cash in currency"
        )
    found: dict[str, float] = {}
    for number, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        symbol, shares = _holding(path, number, row)
        if symbol in found:
            raise DataError(f"{path}: row {number}: {symbol} stands twice; add its rows up")
        found[symbol] = shares
    if CASH not in found:
        raise DataError(
            f"{path}: expected a row {CASH} with the cash in currency, found none; write {CASH},0 "
            "if there is none"
        )
    if any(0 < n < 1 for n in found.values()) and abs(math.fsum(found.values()) - 1) < _ROUNDING:
        raise DataError(
            f"{path}: the column {SHARES} with {CASH} adds up to 1, as weights do; write the "
            f"number of shares of each stock, and {CASH} in currency"
        )
    cash = found.pop(CASH)
    return Holdings({symbol: n for symbol, n in found.items() if n > 0}, cash)


def _holding(path: Path, number: int, row: list[str]) -> tuple[str, float]:
    if len(row) != 2 or not row[0].strip():
        raise DataError(
            f"{path}: row {number}: expected a symbol and a number of shares, found "
            f"'{','.join(row)}'; a number has no commas"
        )
    symbol, text = row[0].strip(), row[1].strip()
    shares = float(text) if NUMBER.fullmatch(text) else math.nan
    if symbol == CASH and text.startswith("-"):
        raise DataError(
            f"{path}: row {number}: {CASH}: expected cash of at least 0, found '{text}'; the "
            "account has no margin: sell shares until the debt is paid"
        )
    if not math.isfinite(shares):
        raise DataError(
            f"{path}: row {number}: {symbol}: expected a number of shares of at least 0, found "
            f"'{text}'; the account is long only, and a number has no signs or commas"
        )
    return symbol, shares
