"""Asks whether the user's own features look ahead, before anything is trained on them."""

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from hrl_sarp.config.own_code import is_dotted
from hrl_sarp.errors import FeatureError
from hrl_sarp.features.macro import MACRO_FEATURES, MacroSources, macro_feature
from hrl_sarp.features.prices import PricePanel
from hrl_sarp.features.stock import PLANTED_NAMES, stock_feature
from hrl_sarp.features.technical import row_mean
from hrl_sarp.reporting.table import counted

CUTS = (0.4, 0.7, 0.9)
"""Shares of the history at which own functions are asked again with the past alone."""
NOT_BY_DAY = ("symbols", "sector_of", "n_sectors", "columns", "planted", "sessions")
"""Fields of a panel that have no row for each day."""
LARGEST_FORESIGHT = 0.3
"""Rank correlation of values with the returns after them. Honest signals of a day stay below 0.1;
the return of the next day itself has 1, that of the next twenty 0.2 to 0.5."""
FEWEST_DAYS, FEWEST_STOCKS = 60, 5
_DEVIATIONS = 6.0
"""Standard deviations of a rank correlation by chance: reports move a value on few days."""


def require_causal(
    sources: MacroSources, stock_names: Sequence[str], macro_names: Sequence[str]
) -> None:
    """Refuse own features that look ahead, before anything is trained on them.

    A function is asked again about the data up to some days: its rows must stay as they were. The
    values of a table cannot be recomputed, so it is refused where it foretells returns as only the
    future can: see `LARGEST_FORESIGHT`.

    Args:
        sources: the panel and the series that the features read.
        stock_names: features of stocks.
        macro_names: features of the market.

    Raises:
        FeatureError: naming the features, and for functions the first day that moves.
    """
    panel = sources.panel
    n_days = len(panel.dates)
    cuts = sorted({round(share * n_days) for share in CUTS} - {0, n_days})
    problems = dict[str, str]()
    for name in filter(is_dotted, (*stock_names, *macro_names)):
        of_stock = name in stock_names
        whole = _raw_values(name, sources, of_stock=of_stock)
        for stop in cuts:
            past = _raw_values(name, _until(sources, stop), of_stock=of_stock)
            same = np.isclose(past, whole[:stop], rtol=1e-6, atol=1e-9, equal_nan=True)
            if not same.all():
                row = int(np.argmin(same.reshape(stop, -1).all(axis=1)))
                problems[name] = (
                    f"the value of {panel.dates[row]} changes with data after "
                    f"{panel.dates[stop - 1]}"
                )
                break
    future = _future_returns(panel)
    for name in stock_names:
        if name in panel.planted and name not in PLANTED_NAMES:
            problems |= _foresight_of_table(name, panel.planted[name], future)
    mean = [np.nan_to_num(table).mean(axis=1, keepdims=True) for table in future]
    for name in macro_names:
        if name in sources.series and name not in MACRO_FEATURES:
            problems |= _foresight_of_table(name, sources.series[name][:, None], mean[:1])
    if problems:
        told = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
        raise FeatureError(
            f"own features look ahead: {told}; row t may read what was known at the close of t, "
            "see known_at in docs/own_code.md",
            problems,
        )


def _raw_values(name: str, sources: MacroSources, *, of_stock: bool) -> np.ndarray:
    if of_stock:
        return stock_feature(name, sources.panel.columns).compute(sources.panel)
    return macro_feature(name, sources.series).compute(sources)


def _until(sources: MacroSources, stop: int) -> MacroSources:
    """Return what was known at the close of row `stop` - 1."""
    panel = sources.panel
    of_days = {
        item.name: getattr(panel, item.name)[:stop]
        for item in fields(panel)
        if item.name not in NOT_BY_DAY
    }
    planted = {name: table[:stop] for name, table in panel.planted.items()}
    return MacroSources(
        replace(panel, **of_days, planted=planted),
        sources.index_return[:stop],
        sources.filtered_regime[:stop],
        {name: values[:stop] for name, values in sources.series.items()},
    )


def _future_returns(panel: PricePanel) -> list[np.ndarray]:
    """Return log returns of the next session and of the next five, NaN where they are unknown."""
    level = panel.log_level
    tables = []
    for horizon in (1, 5):
        later = np.full_like(level, np.nan)
        later[:-horizon] = level[horizon:] - level[:-horizon]
        tables.append(np.where(panel.tradable, later, np.nan))
    return tables


def _foresight_of_table(
    name: str, values: np.ndarray, future: Sequence[np.ndarray]
) -> dict[str, str]:
    """Return the problem of a table whose values, or whose moves, foretell returns too well.

    A price of tomorrow, or a return of the next months, is seen in its moves alone.
    """
    moves = np.full_like(values, np.nan)
    moves[1:] = values[1:] - values[:-1]
    moves[moves == 0] = np.nan  # carried on: nothing became known
    return _foresight(name, values, future) or _foresight(name, moves, future[:1], "move's ")


def _foresight(
    name: str, values: np.ndarray, future: Sequence[np.ndarray], whose: str = ""
) -> dict[str, str]:
    """Return the problem of a table whose values foretell returns too well."""
    # importing it takes a second, which every command would wait
    from scipy.stats import rankdata

    for horizon, later in zip((1, 5), future, strict=False):
        known = np.isfinite(values) & np.isfinite(later)
        n_stocks = known.sum(axis=1)
        is_compared = bool(n_stocks.any()) and np.median(n_stocks[n_stocks > 0]) >= FEWEST_STOCKS
        if is_compared:  # one stock alone differs from none
            known &= (n_stocks > 1)[:, None]
        n_days = int(known.any(axis=1).sum())
        if n_days < FEWEST_DAYS:
            continue
        pair = [np.where(known, table, np.nan) for table in (values, later)]
        if is_compared:  # what differs between the stocks of a day
            pair = [table - row_mean(table)[:, None] for table in pair]
        # values that stand still are ties: in the order of their days they would rank as time does
        first, second = (rankdata(table[known]) for table in pair)
        if np.ptp(first) == 0 or np.ptp(second) == 0:
            continue
        found = abs(float(np.corrcoef(first, second)[0, 1]))
        by_chance = _DEVIATIONS / np.sqrt(known.sum()) if whose else 0.0
        if found > max(LARGEST_FORESIGHT, by_chance):
            return {
                name: f"its {whose}correlation with the return of the next "
                f"{counted(horizon, 'session')} is {found:.2f} over {n_days} days, as only the "
                "future can give"
            }
    return {}
