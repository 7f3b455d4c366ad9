"""Whether what the agents see is still what they were fitted on.

Each input is compared with its training span, and so is its change from one session to the next:
exchanged names or values that stand still keep the values and alter the changes. Inputs of stocks
are measured against the other stocks of the day, which hides the unit of prices and volumes.
Therefore, the levels of both are compared, too.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from hrl_sarp.config.study_schema import DriftConfig
from hrl_sarp.contracts import DayRange, Market, Regime
from hrl_sarp.errors import DataError
from hrl_sarp.market.tensors import slot_feature_names
from hrl_sarp.reporting.table import Table

STOCKS, MARKET, LEVELS = "stock features", "market series", "levels"
"""Kinds of inputs."""
CHANGE = ", change"
"""Ends the name of the changes of an input."""
N_BINS = 10
"""Deciles of the training span."""
LEAST_WINDOWS = 5
"""Windows without a common day that the training span must hold to tell how far any of them is."""
LEAST_SHARE = 1e-3
"""Share that an empty bin counts as; 0 would make the index infinite."""
OTHER_UNIT = math.log(5.0)
"""Distance of a log level from its training range that no market moves and every unit does: lots,
cents and other currencies are factors of ten and more."""
NEARLY_ALL = 0.9
"""Share of the last values outside the training range from which a series has left it."""
SHOWN, TOLD = 10, 3
"""Inputs in the table, and in the line of a refusal."""


@dataclass(frozen=True)
class InputDrift:
    """How far an input is from its training span.

    Examples:
        >>> InputDrift("beta_120d, change", STOCKS, 0.3, 0.1, 0.0, is_drifted=True).source
        'beta_120d'
    """

    name: str
    kind: str
    psi: float
    """Population stability index of the last sessions against the training span."""
    worst: float
    """Largest index of as many sessions in a row inside the training span."""
    outside: float
    """Share of the last values that lie outside the range of the training span."""
    is_drifted: bool

    @property
    def source(self) -> str:
        """The input, also where this is about its changes."""
        return self.name.removesuffix(CHANGE)

    @property
    def reason(self) -> str:
        """How far it is from its training span, in words."""
        if self.kind == LEVELS:
            factor = math.exp(OTHER_UNIT)
            return f"more than {factor:.0f} times outside the range of training: another unit?"
        return (
            f"index {self.psi:.2f}, at most {self.worst:.2f} in training, {self.outside:.0%} "
            "outside its range"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        figures = {"psi": self.psi, "worst_in_training": self.worst, "outside": self.outside}
        return {**figures, "drifted": self.is_drifted}


class _Input(NamedTuple):
    name: str
    kind: str
    values: Float[np.ndarray, "T X"]
    known: Bool[np.ndarray, "T X"]


class DriftMeter:
    """Compares the last sessions before any row of a market with its training span.

    Args:
        market: any rows after the training span.
        bars: `date, symbol, close, volume`, as traded; null where unknown.
        settings: of the comparison.

    Examples:
        >>> DriftMeter.__name__
        'DriftMeter'
    """

    def __init__(self, market: Market, bars: pl.DataFrame, settings: DriftConfig) -> None:
        train = market.split.train
        self._settings = settings
        self._n_rows = min(settings.sessions, len(train) // LEAST_WINDOWS)
        self._inputs = [
            _fit(each, train, self._n_rows)
            for each in _inputs(market, bars)
            if each.known[train.start : train.stop].any()
        ]

    def at(self, row: int) -> tuple[InputDrift, ...]:
        """Compare the sessions that end with a row.

        Args:
            row: of the market, after the training span.

        Returns:
            Two for each input, its values and their changes, the farthest first. Inputs without a
            value in the training span are left out.

        Source:
            Siddiqi (2006), "Credit Risk Scorecards", chapter 7: the index and 0.25 as a major
            shift. The factor over the training span's own windows is ours, because series of a
            market move slowly: any single year of them is far from the other years.
        """
        found = [_drift_of(each, row, self._n_rows, self._settings) for each in self._inputs]
        return tuple(sorted(found, key=lambda drift: (-_excess(drift), drift.name)))


def drift_problem(found: Sequence[InputDrift], settings: DriftConfig) -> str | None:
    """Say in words which inputs have left their training span; None within the limits.

    Args:
        found: by `measure_drift`.
        settings: its limits.
    """
    limits = {
        STOCKS: settings.max_stock_share,
        MARKET: settings.max_market_share,
        LEVELS: 0.0,
    }
    problems = []
    for kind, limit in limits.items():
        drifted = [drift for drift in found if drift.kind == kind and drift.is_drifted]
        n_drifted = len({drift.source for drift in drifted})
        n_all = len({drift.source for drift in found if drift.kind == kind})
        if n_drifted > limit * n_all:
            told = ", ".join(f"{drift.name} ({drift.reason})" for drift in drifted[:TOLD])
            more = f" and {len(drifted) - TOLD} more" if len(drifted) > TOLD else ""
            problems.append(f"{n_drifted} of {n_all} {kind}: {told}{more}")
    return "; ".join(problems) or None


def require_no_drift(found: Sequence[InputDrift], settings: DriftConfig, day: date) -> None:
    """Refuse inputs that have left their training span.

    Args:
        found: of the day.
        settings: the limits.
        day: for the message.

    Raises:
        DataError: naming the inputs that are farthest from it.
    """
    problem = drift_problem(found, settings)
    if problem is not None:
        raise DataError(
            f"the inputs of the {settings.sessions} sessions up to {day} are not those that the "
            f"agents were trained on: {problem}; correct the data or train again; --accept-drift "
            "decides nevertheless"
        )


def drift_table(found: Sequence[InputDrift]) -> Table:
    """Make a table of the inputs that are farthest from their training span."""
    rows = [
        (drift.name, f"{drift.psi:.3f}", f"{drift.worst:.3f}", f"{drift.outside:.1%}")
        for drift in found[:SHOWN]
    ]
    return Table(
        f"Drift: the {len(rows)} of {len(found)} inputs farthest from their training span",
        ("input", "index", "worst in training", "outside its range"),
        rows,
    )


def _excess(drift: InputDrift) -> float:
    """Order inputs: those that drifted first, each by how far it is beyond the training span."""
    return 1e6 * drift.is_drifted + drift.psi / max(drift.worst, LEAST_SHARE)


def _inputs(market: Market, bars: pl.DataFrame) -> Iterator[_Input]:
    yield from _stock_inputs(market)
    for column, name in enumerate(market.macro_names):
        yield from _series(name, MARKET, market.macro_features[:, [column]])
    for regime in Regime:
        name = f"filtered regime {regime.name.lower()}"
        yield from _series(name, MARKET, market.filtered_regime[:, [regime]])
    risk = market.risk
    if risk is not None:
        for column, name in enumerate(risk.input_names):
            yield from _series(f"risk {name}", MARKET, risk.inputs[:, [column]])
        filled = (market.slots >= 0).reshape(market.n_days, market.n_sectors, -1).any(axis=2)
        for column, name in enumerate(risk.sector_input_names):
            values = risk.sector_inputs[:, :, column]
            yield from _series(f"sectors {name}", MARKET, np.where(filled, values, np.nan))
    for name, level in _levels(market, bars).items():
        yield from _series(name, LEVELS, level[:, None])


def _stock_inputs(market: Market) -> Iterator[_Input]:
    """Gather the features of the stocks in slots, and the same stocks' changes of them."""
    rows, slots = np.arange(market.n_days)[:, None], np.maximum(market.slots, 0)
    known = market.slot_tradable()
    both = known.copy()
    both[0] = False
    both[1:] &= market.tradable[rows[:-1], slots[1:]]
    tables = {name: market.stock_features[:, :, c] for c, name in enumerate(market.feature_names)}
    if market.stock_embeddings is not None:
        names = slot_feature_names(market)[len(tables) :]
        tables |= {name: market.stock_embeddings[:, :, c] for c, name in enumerate(names)}
    for name, table in tables.items():
        values, before = table[rows, slots], np.zeros(slots.shape, dtype=table.dtype)
        before[1:] = table[rows[:-1], slots[1:]]
        yield _Input(name, STOCKS, values, known)
        yield _Input(name + CHANGE, STOCKS, values - before, both)


def _series(name: str, kind: str, values: Float[np.ndarray, "T X"]) -> Iterator[_Input]:
    changes = np.diff(values, axis=0, prepend=np.full_like(values[:1], np.nan))
    yield _Input(name, kind, values, np.isfinite(values))
    yield _Input(name + CHANGE, kind, changes, np.isfinite(changes))


def _levels(market: Market, bars: pl.DataFrame) -> dict[str, Float[np.ndarray, " T"]]:
    """Return the logs of the median close and of the median volume of the universe of each day.

    NaN where unknown.
    """
    names = {"log close": "close", "log volume": "volume"}
    row, slot = np.nonzero(market.slots >= 0)
    symbols = np.array(market.symbols)[market.slots[row, slot]]
    universe = pl.DataFrame({"date": market.dates[row], "symbol": symbols})
    universe = universe.with_columns(pl.col("date").cast(pl.Date))
    medians = (
        bars.join(universe, on=["date", "symbol"], how="semi")
        .group_by("date")
        .agg(
            pl.col(column).filter(pl.col(column) > 0).median().log().alias(name)
            for name, column in names.items()
        )
    )
    days = pl.DataFrame({"date": market.dates}).with_columns(pl.col("date").cast(pl.Date))
    table = days.join(medians, on="date", how="left", maintain_order="left")
    return {name: table[name].fill_null(float("nan")).to_numpy() for name in names}


class _Fitted(NamedTuple):
    """An input as sums over the rows before each one, so that any window is a difference."""

    name: str
    kind: str
    counts: Float[np.ndarray, "T1 bins"]
    """Known values in each bin of the training span."""
    outside: Int[np.ndarray, " T1"]
    """Values outside the range of the training span."""
    foreign: Int[np.ndarray, " T1"]
    """Values so far outside that a level has another unit."""
    expected: Float[np.ndarray, " bins"]
    worst: float


def _fit(each: _Input, train: DayRange, n_rows: int) -> _Fitted:
    values, known = each.values, each.known
    fitted = values[train.start : train.stop][known[train.start : train.stop]]
    edges = np.unique(np.quantile(fitted, np.arange(1, N_BINS) / N_BINS))
    counts = _summed(_counts(values, known, edges))
    expected = counts[train.stop] - counts[train.start]
    windows = (
        counts[train.start + n_rows : train.stop + 1]
        - counts[train.start : train.stop + 1 - n_rows]
    )
    windows = windows[windows.sum(axis=1) > 0]
    low, high = fitted.min(), fitted.max()
    away = np.where(known, np.maximum(low - values, values - high), 0.0)
    outside, foreign = ((away > far).sum(axis=1) for far in (0.0, OTHER_UNIT))
    worst = float(_psi(windows, expected).max())
    sums = _summed(outside), _summed(foreign)
    return _Fitted(each.name, each.kind, counts, *sums, expected, worst)


def _summed(values: np.ndarray) -> np.ndarray:
    """Sum the rows before each row, and all of them."""
    return np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0)])


def _drift_of(each: _Fitted, row: int, n_rows: int, settings: DriftConfig) -> InputDrift:
    counts, n_outside, n_foreign = (
        sums[row + 1] - sums[row + 1 - n_rows] for sums in (each.counts, each.outside, each.foreign)
    )
    n_known = counts.sum()
    psi = float(_psi(counts[None], each.expected)[0]) if n_known else 0.0
    outside = float(n_outside / n_known) if n_known else 0.0
    if each.kind == STOCKS:
        is_drifted = psi > max(settings.least_psi, settings.stock_factor * each.worst)
    elif each.kind == MARKET:  # the index of one that moves slowly is large inside the span, too
        is_drifted = psi > max(settings.least_psi, settings.market_factor * each.worst)
        is_drifted |= outside > NEARLY_ALL
    else:  # a level follows growth, so only one of another unit counts
        is_drifted = bool(n_foreign)
    return InputDrift(each.name, each.kind, psi, each.worst, outside, is_drifted)


def _counts(
    values: Float[np.ndarray, "T X"],
    known: Bool[np.ndarray, "T X"],
    edges: Float[np.ndarray, " E"],
) -> Float[np.ndarray, "T bins"]:
    """Count the known values of each day in each bin."""
    n_days, n_bins = len(values), len(edges) + 1
    place = np.searchsorted(edges, values, side="left") + n_bins * np.arange(n_days)[:, None]
    found = np.bincount(place[known], minlength=n_days * n_bins)
    return found.reshape(n_days, n_bins).astype(np.float64)


def _psi(
    counts: Float[np.ndarray, "W bins"], expected: Float[np.ndarray, " bins"]
) -> Float[np.ndarray, " W"]:
    """Compute the population stability index of each row of counts."""
    found = np.maximum(counts / counts.sum(axis=1, keepdims=True), LEAST_SHARE)
    there = np.maximum(expected / expected.sum(), LEAST_SHARE)
    index: Float[np.ndarray, " W"] = ((found - there) * np.log(found / there)).sum(axis=1)
    return index
