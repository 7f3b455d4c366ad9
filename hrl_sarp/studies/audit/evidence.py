"""Asks the data themselves about leaks that no other future can show.

What was collected cannot be collected again as of an earlier day. So these checks measure what the
numbers foretell, and say what they leave open.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int

from hrl_sarp.contracts import Market
from hrl_sarp.data.quality.validation import ValidationReport
from hrl_sarp.data.store import RawData
from hrl_sarp.features.stock import PLANTED_NAMES
from hrl_sarp.market.own.causality import FEWEST_DAYS, FEWEST_STOCKS, LARGEST_FORESIGHT
from hrl_sarp.studies.audit.checks import Check, Result

FAINT_FORESIGHT = 0.15
"""Correlation with the next return from which on it matters whether it outlives a day's delay.
Honest signals of a day stay below 0.1."""
OUTLIVES = 0.5
"""Share of its correlation that an honest value keeps a day later: what is known about the next
session does not vanish at once."""
LONG_PERIOD_DAYS = 20
"""Days between the values of a report; a day's value may be public on its own day."""
LATEST_BARS = 10
"""A stock whose last bar is further from the end of the data has left."""
FEWEST_YEARS = 2
"""In fewer years no stock may have left by chance."""
SAME = 1e-6
"""Largest difference of two equal returns."""
SAME_SHARE = 0.99
"""Share of the sessions on which the returns of a duplicate are equal."""
FEWEST_COMMON = 60
"""Moves that two stocks must share before they can be called duplicates."""


def check_lag(market: Market) -> Check:
    """Ask whether what a feature tells of the next session vanishes when it is a day late.

    Args:
        market: with features.

    Returns:
        A leak for each feature that foretells returns as only the future can.
    """
    returns = market.session_return()
    later = np.append(returns[1:], np.full_like(returns[:1], np.nan), axis=0)
    known: Bool[np.ndarray, "T A"] = market.tradable.copy()
    known[:-1] &= market.tradable[1:]
    known[-1] = False
    leaks, largest = list[str](), (0.0, "none")
    own = _foretold(returns, later, known)
    for name, values in _features(market):
        of_stocks = values.ndim == 2
        past = own if of_stocks else _foretold(_mean(returns, known), _mean(later, known), None)
        target = (later, known) if of_stocks else (_mean(later, known), None)
        now, late = (_foretold(table, *target) for table in (values, _delayed(values)))
        size, rest = abs(now) - abs(past), abs(late)
        largest = max(largest, (abs(now), name))
        if size > LARGEST_FORESIGHT or (size > FAINT_FORESIGHT and rest < OUTLIVES * abs(now)):
            leaks.append(f"{name}: {now:.2f} with the return of the next session, {late:.2f} late")
    tried = "correlated every feature, and every feature a day late, with the next session's return"
    return Check.of("lag", tried, leaks, f"the largest is {largest[0]:.3f} ({largest[1]})")


def _features(market: Market) -> Iterator[tuple[str, np.ndarray]]:
    for column, name in enumerate(market.feature_names):
        if name not in PLANTED_NAMES:
            yield name, market.stock_features[..., column].astype(np.float64)
    for column, name in enumerate(market.macro_names):
        yield name, market.macro_features[:, column].astype(np.float64)


def _delayed(values: np.ndarray) -> np.ndarray:
    return np.append(values[:1], values[:-1], axis=0)


def _mean(
    values: Float[np.ndarray, "T A"], known: Bool[np.ndarray, "T A"]
) -> Float[np.ndarray, " T"]:
    """Average each day's known stocks; 0 on a day without any."""
    return np.where(known, values, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)


def _foretold(
    values: np.ndarray, later: np.ndarray, known: Bool[np.ndarray, "T A"] | None
) -> float:
    """Correlate values with what came later: mean over days across stocks, else over days."""
    if known is None or known.shape[1] < FEWEST_STOCKS:
        mask = np.isfinite(values) & np.isfinite(later)
        if known is not None:
            mask &= known
        if mask.sum() < FEWEST_DAYS:
            return 0.0
        return _correlation(values[mask][None], later[mask][None])
    days = known.sum(axis=1) >= FEWEST_STOCKS
    if days.sum() < FEWEST_DAYS:
        return 0.0
    pair = (_centred(table[days], known[days]) for table in (values, later))
    return _correlation(*pair)


def _centred(
    values: Float[np.ndarray, "D A"], known: Bool[np.ndarray, "D A"]
) -> Float[np.ndarray, "D A"]:
    """Rank each day's known stocks around 0; 0 elsewhere."""
    order = np.argsort(np.where(known, values, np.inf), axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable").astype(np.float64)
    mean = np.where(known, rank, 0.0).sum(axis=1) / known.sum(axis=1)
    return np.where(known, rank - mean[:, None], 0.0)


def _correlation(first: Float[np.ndarray, "D X"], second: Float[np.ndarray, "D X"]) -> float:
    """Average the correlations of the rows; a row that does not move counts as 0."""
    first = first - first.mean(axis=1, keepdims=True)
    second = second - second.mean(axis=1, keepdims=True)
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    both = (first * second).sum(axis=1)
    return float(np.divide(both, scale, out=np.zeros_like(both), where=scale > 0).mean())


def check_publication(raw: RawData) -> Check:
    """Ask whether reports of the user's were public on the day that their period ended."""
    tried = "compared date and known_at of own features"
    own = raw.own_features
    if own is None or own.is_empty():
        return Check("publication", tried, "not applicable", ("the data have no own features",))
    found = []
    for (name,), rows in own.sort("date").group_by("name", maintain_order=True):
        dates = rows["date"].unique().sort()
        gap = dates.diff().dt.total_days().median() or 0
        at_once = (rows["known_at"] == rows["date"]).sum() / rows.height
        if gap >= LONG_PERIOD_DAYS and at_once > 0.5:  # type: ignore[operator] # a number of days
            found.append(
                f"{name}: {at_once:.0%} of its values are public on the day that their period ends"
            )
    if found:
        return Check("publication", tried, "note", tuple(found))
    return Check("publication", tried, "ok", ("reports are public after their period",))


def check_survivorship(raw: RawData) -> Check:
    """Count the stocks that leave, and repeat what the source says about those that left."""
    last = raw.bars.group_by("symbol").agg(pl.max("date"))
    days = raw.bars["date"].unique().sort()
    end = days[max(0, len(days) - LATEST_BARS)]
    years = (days[-1] - days[0]).days / 365.25
    gone = last.filter(pl.col("date") < end).height
    text = f"{gone} of {last.height} stocks end before the data, in {years:.0f} years"
    places = (text, *([raw.survivorship] if raw.survivorship else []))
    is_open = gone == 0 and years >= FEWEST_YEARS
    result: Result = "note" if is_open else "ok"
    return Check("survivorship", "counted the stocks that leave", result, places)


def check_duplicates(market: Market, report: ValidationReport) -> Check:
    """Look for stocks that are another one, on the same day or on the next one."""
    returns, known = market.session_return(), market.tradable
    notes, leaks = list[str](), list[str]()
    for later in (0, 1):
        for first, second in _alike(returns, known, later):
            names = f"{market.symbols[first]} and {market.symbols[second]}"
            if later == 0:
                notes.append(f"{names} have the same returns")
            else:
                leaks.append(f"{names}: the first shows what the second earns a session later")
    shifted = report.table.filter(pl.col("rule") == "symbol_shifted")
    notes += [f"{row['symbol']}: {row['detail']}" for row in shifted.iter_rows(named=True)]
    tried = "compared the returns of all pairs of stocks, on the same and on the next session"
    if leaks or not notes:
        return Check.of("duplicates", tried, leaks, "no stock is another one")
    return Check("duplicates", tried, "note", tuple(notes))


def _alike(
    returns: Float[np.ndarray, "T A"], known: Bool[np.ndarray, "T A"], later: int
) -> Iterator[tuple[int, int]]:
    """Yield pairs of columns of which the first shows the second's return `later` rows early."""
    n_rows = len(returns) - later
    first = np.where(known, returns, 0.0)[:n_rows]
    second = np.where(known, returns, 0.0)[later:]
    unit = [table / np.maximum(np.sqrt((table**2).sum(axis=0)), SAME) for table in (first, second)]
    pairs: Int[np.ndarray, "P 2"] = np.argwhere(unit[0].T @ unit[1] > SAME_SHARE)
    for one, other in pairs.tolist():
        if one == other or (later == 0 and one > other):
            continue
        both = known[:n_rows, one] & known[later:, other] & (first[:, one] != 0)
        same = np.abs(first[both, one] - second[both, other]) < SAME
        if len(same) >= FEWEST_COMMON and same.mean() > SAME_SHARE:
            yield one, other
