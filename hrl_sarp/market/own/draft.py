"""Drafts a market profile from the user's files: sectors, calendar, features, spans and limits.

What was found stands beside each value as a comment, so that the user can correct it.
"""

import json
import math
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Shaped

from hrl_sarp.config.market_schema import MarketProfile
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.data.exchange_calendar import sessions_between
from hrl_sarp.data.store import RawData
from hrl_sarp.errors import DataError
from hrl_sarp.features.stock import STOCK_FEATURES
from hrl_sarp.market.own.profile import SPANS, describe, left_out

CALENDARS = (
    *("XNYS", "XLON", "XETR", "XPAR", "XSWX", "XTSE", "XBOM", "XHKG", "XTKS", "XKRX", "XSHG"),
    *("XASX", "24/5", "24/7", "XSTO", "XMIL", "XMAD", "BVMF", "XJSE", "XTAI", "XSES", "XMEX"),
    *("XCSE", "XHEL", "XOSL", "XWAR", "XIDX", "XKLS", "XBKK", "XSAU", "XIST"),
)
"""Candidates for the calendar, by the names of exchange_calendars; of equal ones the first."""
SHOWN = 5
"""Symbols of a sector that a comment names."""
ROOM = 1.5
"""How many times over the stock caps let wealth be invested in a draft."""


class CalendarGuess(NamedTuple):
    """The calendar whose sessions are most like the days of the data."""

    name: str
    are_sessions: float
    """Share of the days of the data that are sessions."""
    are_in_data: float
    """Share of the sessions between first and last day that the data have."""


def guess_calendar(days: Shaped[np.ndarray, " T"]) -> CalendarGuess:
    """Choose the calendar that shares most days with the data.

    Args:
        days: of the data, datetime64[D], each once; at least one.

    Returns:
        The calendar and how well it fits.

    Examples:
        >>> week = np.arange("2024-01-01", "2024-02-01", dtype="datetime64[D]")
        >>> guess_calendar(week).name
        '24/7'
    """
    first, last = days.min().item(), days.max().item()
    guesses = []
    for name in CALENDARS:
        try:
            sessions = sessions_between(name, first, last)
        except DataError:  # some calendars are recorded from a later year on
            continue
        common = len(np.intersect1d(days, sessions))
        likeness = common / max(1, len(days) + len(sessions) - common)
        fit = CalendarGuess(name, common / len(days), common / max(1, len(sessions)))
        guesses.append((likeness, fit))
        if common == len(days) == len(sessions):  # no other fits better, and each takes time
            break
    return max(guesses, key=lambda guess: guess[0])[1]


def with_guesses(config: RunConfig, raw: RawData) -> tuple[RunConfig, CalendarGuess]:
    """Put into a configuration what must be guessed before a profile can be fitted.

    Args:
        config: of the profile that the draft follows.
        raw: the user's data.

    Returns:
        The configuration with the guessed calendar and with stock caps that leave room to invest.
    """
    days = raw.bars["date"].drop_nulls().unique().sort().to_numpy().astype("datetime64[D]")
    guess = guess_calendar(days)
    n_stocks = raw.bars["symbol"].n_unique()
    cap = max(config.risk.stock_cap, min(1.0, math.ceil(100 * ROOM / n_stocks) / 100))
    return config.model_copy(
        update={
            "market_profile": config.market_profile.model_copy(update={"calendar": guess.name}),
            "risk": config.risk.model_copy(update={"stock_cap": cap}),
        }
    ), guess


def draft_profile(
    raw: RawData, config: RunConfig, guess: CalendarGuess, market: Market | None
) -> str:
    """Write the profile as YAML with a comment beside what was found, guessed or left out.

    Args:
        raw: the user's data.
        config: with the guesses.
        guess: calendar.
        market: that the profile makes of the data; None where they are refused.

    Returns:
        Text that `load_config` reads as `own_file`.
    """
    profile, costs = config.market_profile, config.market_profile.costs
    lacking, spans = {}, ""
    if market is not None:
        profile, lacking = _as_found(profile, market), left_out(market)
        spans = describe(market, config.risk)[0].removeprefix(SPANS)
    universe, divided = profile.universe, json.dumps(profile.spans.model_dump(mode="json"))
    fits = f"guessed: {guess.are_sessions:.1%} of the days are its sessions, and the data have "
    fits += f"{guess.are_in_data:.1%} of them"
    lines = [
        "# Drafted from your files by `hrl-sarp init`: correct what is not so. All other values",
        "# are those of the profile named here; `hrl-sarp init FOLDER` writes them all.",
        f"market: {config.market}",
        "market_profile:",
        "  sectors: []             # those of your table of sectors, which are",
        *_sector_lines(raw, profile.sectors),
        f"  calendar: {_text(profile.calendar)}          # {fits}",
        f"  benchmark_name: {_text(profile.benchmark_name)}",
        *_features("stock_features", profile.stock_features, lacking),
        *_features("macro_features", profile.macro_features, lacking),
        "  costs:                  # not in your files: set them to what you pay",
        f"    buy_bps: {costs.buy_bps}",
        f"    sell_bps: {costs.sell_bps}",
        f"    slippage_bps: {costs.slippage_bps}",
        f"    delisting_return: {costs.delisting_return}  # lost when a company ceases",
        f"  universe: {{stocks_per_sector: {universe.stocks_per_sector}, lookback_days: "
        f"{universe.lookback_days}, min_bars: {universe.min_bars}}}",
        f"  spans: {divided}" + (f"   # {spans}" if spans else ""),
        "  # the command stress-test asks for the shock that each sector takes, one of",
        f"  # {', '.join(config.stress.sectors)}:",
        "  # stress:",
        "  #   sectors:",
        *(f"  #     {_text(sector)}: " for sector in profile.sectors),
        "risk:",
        f"  stock_cap: {config.risk.stock_cap}         # {raw.bars['symbol'].n_unique()} stocks",
        f"  sector_cap: {config.risk.sector_cap}        # {len(profile.sectors)} sectors",
    ]
    return "\n".join(lines) + "\n"


def _as_found(profile: MarketProfile, market: Market) -> MarketProfile:
    """Return a profile with the sectors, features and slots that a market has."""
    sectors = list(market.sector_names)
    per_sector = market.slots.shape[1] // len(sectors)
    return profile.model_copy(
        update={
            "sectors": sectors,
            "stock_features": list(market.feature_names),
            "macro_features": [*market.macro_names, *market.portfolio_names],
            "universe": profile.universe.model_copy(update={"stocks_per_sector": per_sector}),
        }
    )


def _sector_lines(raw: RawData, sectors: list[str]) -> list[str]:
    lines = []
    for sector in sectors:
        symbols = raw.sectors.filter(pl.col("sector") == sector)["symbol"].sort().to_list()
        more = f" and {len(symbols) - SHOWN} more" if len(symbols) > SHOWN else ""
        lines.append(f"    # - {_text(sector)}: {', '.join(symbols[:SHOWN])}{more}")
    return lines


def _features(key: str, kept: list[str], left_out: dict[str, str]) -> list[str]:
    of_stocks = key == "stock_features"
    lacking = {name: why for name, why in left_out.items() if (name in STOCK_FEATURES) == of_stocks}
    lines = [f"  {key}:", *(f"    - {name}" for name in kept)]
    lines += [f"    # - {name}: {why}" for name, why in lacking.items()]
    return lines


def _text(value: str) -> str:
    """Quote a text so that YAML reads it as one, whatever it holds."""
    return "'" + value.replace("'", "''") + "'"
