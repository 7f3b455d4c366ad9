"""Fits a market profile to the data: sectors, features and spans that the profile leaves open.

Whatever is left out or taken from the data is a line of the manifest, and training prints it first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Shaped

from hrl_sarp.config.market_schema import MarketProfile, SpanConfig, SpansConfig, SpanShares
from hrl_sarp.config.own_code import is_dotted
from hrl_sarp.config.schema import RiskConfig, RunConfig
from hrl_sarp.contracts import PORTFOLIO_FEATURES, DayRange, Market
from hrl_sarp.data.known_at import is_unseen
from hrl_sarp.data.store import RawData
from hrl_sarp.errors import DataError, FeatureError, MarketError
from hrl_sarp.features.macro import (
    MACRO_FEATURES,
    find_macro_problems,
    lacking_series,
    split_names,
)
from hrl_sarp.features.stock import (
    STOCK_FEATURES,
    find_stock_problems,
    lacking_columns,
)

SMALLEST_PART = 0.5
"""Share of its sessions that a span keeps at least when it is moved to whole years."""
SLACK_DAYS = 10
"""Days by which a span may be shorter than asked for without a word: weekends and holidays."""
EQUAL_WEIGHT_INDEX = "1/N of the eligible stocks"
"""Words of the manifest's `benchmark` where no index is known."""
SPANS = "spans: "
"""How the line of `describe` about the spans begins."""
LEFT_OUT = " left out: "
"""In a remark, between a feature and the reason."""
CURE = (
    "write `market_profile: {spans: {shares: [0.60, 0.15, 0.25]}}` in an experiment or in the file "
    "of --config to divide the sessions that there are"
)


@dataclass(frozen=True)
class FittedProfile:
    """A profile without open places, and a line for each decision that the data made."""

    profile: MarketProfile
    remarks: tuple[str, ...]


def sectors_of(profile: MarketProfile, raw: RawData) -> list[str]:
    """Return the sectors of a profile, or those of the data in alphabetical order.

    Args:
        profile: of the market.
        raw: the data.

    Returns:
        Names in the order of every array.

    Raises:
        MarketError: if neither names a sector.
    """
    found = profile.sectors or sorted(set(raw.sectors["sector"].drop_nulls()))
    if not found:
        raise MarketError(
            "sectors: expected a sector for the stocks, found none; collect the data again, or add "
            "sectors.csv with symbol and sector to them"
        )
    return list(found)


def fit_profile(config: RunConfig, raw: RawData, columns: frozenset[str]) -> FittedProfile:
    """Leave out the features that the data cannot serve, and take open sectors from the data.

    Args:
        config: names the profile.
        raw: the data.
        columns: of the panel of prices.

    Returns:
        The profile with the features that are served.

    Raises:
        FeatureError: for unknown features, for required ones that the data cannot serve, and if no
            feature of stocks or of the market is left; lists all of them.
    """
    profile = config.market_profile
    of_stocks, of_market = own_names(raw)
    published = set(raw.macro["series"]) & set(of_market)
    if published:
        raise DataError(
            f"own features {', '.join(sorted(published))}: expected names of one table, found them "
            "in macro_features and in the macro series; remove the one, or rename it"
        )
    series = frozenset([*raw.macro["series"].unique().to_list(), *of_market])
    wanted = _wanted(profile.stock_features, profile.extra_stock_features, of_stocks)
    own, of_portfolio = split_names(profile.macro_features)
    further = [*_wanted(own, profile.extra_macro_features, of_market), *of_portfolio]
    lacking = lacking_columns(wanted, columns) | lacking_series(further, series) | _too_late(raw)
    left_out = {n: why for n, why in lacking.items() if n not in profile.required_features}
    stock = [name for name in wanted if name not in left_out]
    macro = [name for name in further if name not in left_out]
    problems = [*find_stock_problems(stock, columns), *find_macro_problems(macro, series)]
    for kind, names in (("stock_features", stock), ("macro_features", macro)):
        if not names:
            problems.append(f"{kind}: none is left; the data serve none of the profile's")
    if problems:
        heading = f"market profile {config.market} does not fit the data of source {raw.source}:"
        raise FeatureError("\n  ".join([heading, *problems]))
    sectors = sectors_of(profile, raw)
    remarks = [f"feature {name}{LEFT_OUT}it {why}" for name, why in left_out.items()]
    functions = [*profile.extra_stock_features, *profile.extra_macro_features]
    added = [name for name in (*of_stocks, *of_market, *functions) if name not in left_out]
    remarks += [f"own feature {name} added" for name in added]
    changes: dict[str, Any] = {"sectors": sectors, "stock_features": stock, "macro_features": macro}
    if not profile.sectors:
        remarks.append(f"sectors of the data: {', '.join(sectors)}")
        # slots that no stock could ever fill would only cost time
        largest = int(raw.sectors["sector"].value_counts()["count"].max())  # type: ignore[arg-type]
        per_sector = min(profile.universe.stocks_per_sector, largest)
        changes["universe"] = profile.universe.model_copy(update={"stocks_per_sector": per_sector})
    return FittedProfile(profile.model_copy(update=changes), tuple(remarks))


def own_names(raw: RawData) -> tuple[list[str], list[str]]:
    """Return the names of the user's own features in the data.

    Args:
        raw: the data.

    Returns:
        Those of stocks, then those of the market.
    """
    if raw.own_features is None:
        return [], []
    has_symbol = pl.col("symbol").is_not_null()
    frames = (raw.own_features.filter(has_symbol), raw.own_features.filter(~has_symbol))
    of_stocks, of_market = (sorted(set(frame["name"])) for frame in frames)
    return of_stocks, of_market


def _too_late(raw: RawData) -> dict[str, str]:
    """Return the user's features of which no close of the data sees a value, with the reason."""
    last = raw.bars["date"].max()
    if raw.own_features is None or not isinstance(last, date):
        return {}
    firsts = raw.own_features.group_by("name").agg(pl.min("known_at"))
    late = firsts.filter(is_unseen(last)).sort("name")
    return {
        str(name): f"has its first value from {first}, and the prices end {last}"
        for name, first in late.iter_rows()
    }


def _wanted(listed: Sequence[str], functions: Sequence[str], own: Sequence[str]) -> list[str]:
    """Return the features of a profile with those of the user; a name may stand once."""
    known = {*STOCK_FEATURES, *MACRO_FEATURES, *PORTFOLIO_FEATURES}
    taken = [name for name in own if name in known or is_dotted(name)]
    if taken:
        raise DataError(
            f"own features: expected names that the package does not use, found "
            f"{', '.join(taken)}; rename them in features or macro_features"
        )
    return list(dict.fromkeys([*listed, *functions, *own]))


def dated_spans(
    spans: SpansConfig | SpanShares, dates: Shaped[np.ndarray, " T"], margin: int
) -> SpansConfig:
    """Return spans by their days; shares are cut from the sessions of a market.

    A bound goes to the nearest beginning of a year if every span then keeps half of its sessions
    and more than `margin` of them. Otherwise it stays at its share of the sessions.

    Args:
        spans: of the profile.
        dates: sessions of the market, datetime64[D].
        margin: sessions that purge and embargo take from a span.

    Returns:
        First and last day of each span.
    """
    if isinstance(spans, SpansConfig):
        return spans
    n_days = len(dates)
    ideal = [round(n_days * share) for share in np.cumsum(spans.shares)[:2].tolist()]
    years = np.flatnonzero(np.diff(dates.astype("datetime64[Y]").astype(int))) + 1
    bounds = [0, *ideal, n_days]
    if len(years):
        nearest = [int(years[np.abs(years - row).argmin()]) for row in ideal]
        moved = [0, *nearest, n_days]
        lengths = [stop - start for start, stop in pairwise(moved)]
        wanted = [SMALLEST_PART * share * n_days for share in spans.shares]
        if all(n > max(least, margin) for n, least in zip(lengths, wanted, strict=True)):
            bounds = moved
    days = [dates[row].item() for row in bounds[:-1]]
    ends = [*(day - timedelta(days=1) for day in days[1:]), dates[-1].item()]
    train, validation, test = (
        SpanConfig(start=start, end=end) for start, end in zip(days, ends, strict=True)
    )
    return SpansConfig(train=train, validation=validation, test=test)


def describe(market: Market, risk: RiskConfig) -> list[str]:
    """Return what a reader should know before a training: spans, what is left out, tight limits.

    Args:
        market: assembled.
        risk: limits of the portfolios.

    Returns:
        One line for each.
    """
    split = market.split
    spans = {"train": split.train, "validation": split.validation, "test": split.test}
    lines = [f"{SPANS}{'; '.join(_named_span(market, *item) for item in spans.items())}"]
    remarks, lacking = market.manifest.get("remarks", ()), left_out(market)
    lines += cuts_of(market)
    for why in dict.fromkeys(lacking.values()):
        names = ", ".join(name for name, reason in lacking.items() if reason == why)
        lines.append(f"left out, because {why}: {names}")
    lines += [remark for remark in remarks if LEFT_OUT not in remark]
    eligible = market.eligible[split.train.start : split.train.stop]
    members = np.eye(len(market.sector_names))[market.sector_of]
    room = np.minimum(eligible @ members * risk.stock_cap, risk.sector_cap).sum(axis=1)
    most = float(np.median(room))
    if most < 1 - risk.min_cash:
        stocks = int(np.median(eligible.sum(axis=1)))
        lines.append(
            f"the limits let at most {most:.0%} of wealth be invested: {stocks} stocks of "
            f"{len(np.unique(market.sector_of))} sectors, `risk.stock_cap` {risk.stock_cap:g}, "
            f"`risk.sector_cap` {risk.sector_cap:g}; raise them to invest more"
        )
    return lines


def left_out(market: Market) -> dict[str, str]:
    """Return the features of the profile that a market lacks.

    Args:
        market: assembled.

    Returns:
        Feature -> why it was left out.
    """
    told = [remark.split(LEFT_OUT, 1) for remark in market.manifest.get("remarks", ())]
    return {parts[0].removeprefix("feature "): parts[1] for parts in told if len(parts) > 1}


def cuts_of(market: Market) -> list[str]:
    """Return what a market lacks of what its profile asks for: days, sectors with stocks, an index.

    Args:
        market: assembled.

    Returns:
        One text for each.
    """
    cuts = [str(cut) for cut in market.manifest.get("cuts", ())]
    empty = market.manifest.get("sectors_without_stocks", ())
    if empty:
        cuts.append(f"sectors without stocks: {', '.join(empty)}")
    index = str(market.manifest.get("benchmark", ""))
    if EQUAL_WEIGHT_INDEX in index:
        cuts.append(f"the index of the report: {index}")
    return cuts


def index_name(profile: MarketProfile, found: str) -> str:
    """Return the name of the index in reports.

    Args:
        profile: of the market; names the index that it expects.
        found: what the index was made of.

    Returns:
        The profile's name, or 1/N where the data hold no index at all.
    """
    is_equal_weight = found.startswith(EQUAL_WEIGHT_INDEX)
    return (
        f"{EQUAL_WEIGHT_INDEX}, for want of an index" if is_equal_weight else profile.benchmark_name
    )


def span_cuts(
    asked: SpansConfig, dates: Shaped[np.ndarray, " T"], first: date, lookback: int
) -> list[str]:
    """Say which spans begin later or end earlier than asked for, and why.

    Args:
        asked: days of the profile.
        dates: sessions of the market, datetime64[D].
        first: session of the data.
        lookback: sessions that features and universe need before the first one of the market.

    Returns:
        One text for each span that is shorter by more than `SLACK_DAYS`.
    """
    begin, end = dates[0].item(), dates[-1].item()
    cuts = []
    for name in ("train", "validation", "test"):
        span: SpanConfig = getattr(asked, name)
        got = max(span.start, begin), min(span.end, end)
        why = []
        if (got[0] - span.start).days > SLACK_DAYS:
            why.append(
                f"the data begin {first}, and the first session with a universe, after {lookback} "
                f"sessions of look-back, is {begin}"
            )
        if (span.end - got[1]).days > SLACK_DAYS:
            why.append(f"the data end {end}")
        if why:
            asked_for = f"{span.start} to {span.end}"
            cuts.append(
                f"{name} span: asked {asked_for}, got {got[0]} to {got[1]}, because "
                f"{'; '.join(why)}"
            )
    return cuts


def _named_span(market: Market, name: str, span: DayRange) -> str:
    first, last = market.dates[span.start], market.dates[span.stop - 1]
    return f"{name} {first} to {last} ({len(span)} sessions)"
