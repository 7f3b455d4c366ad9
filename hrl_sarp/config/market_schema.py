"""Schema of the values about markets, features and data: types, ranges and meaning.

The other modules of the schema take the class of all sections and the common ranges from here.
"""

import re
from datetime import date, datetime, time
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from hrl_sarp.config.own_code import DottedName

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


class Section(BaseModel):
    """Base of every section: immutable, typed, no unknown keys, no defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _as_day(given: Any) -> Any:
    """Read a day in quotes, as JSON and many editors write it, and a midnight as its day."""
    if isinstance(given, str) and _DAY.fullmatch(given):
        return date.fromisoformat(given)
    if isinstance(given, datetime) and given.time() == time():
        return given.date()
    if type(given) is not date:
        raise ValueError("expected a day such as 2018-01-31")
    return given


Day = Annotated[date, BeforeValidator(_as_day)]
"""A day, with or without quotes."""


class CostConfig(Section):
    """Trading frictions, per side, charged on the trade from drifted holdings to the target."""

    buy_bps: float = Field(ge=0, lt=1000)
    """Commission and taxes of a purchase, basis points of traded value."""
    sell_bps: float = Field(ge=0, lt=1000)
    """Commission and taxes of a sale, basis points of traded value."""
    slippage_bps: float = Field(ge=0, lt=1000)
    """Slippage of purchases and sales, basis points of traded value."""
    impact_coefficient: float = Field(ge=0)
    """Square-root impact: cost = coefficient x trade x sqrt(trade / dollar volume); 0 is off."""
    capital: Positive
    """Account size in the currency of the prices; only the impact needs it."""
    delisting_return: float = Field(ge=-1, le=0)
    """Return from the last close to the price at which a delisted holding becomes cash."""


class UniverseConfig(Section):
    """Which stocks may be bought, chosen at the first session of each year from the past only."""

    stocks_per_sector: Count
    """The most traded of each sector by median dollar volume (all where volume is unknown)."""
    lookback_days: Count
    """Sessions over which dollar volume is measured and bars are counted."""
    min_bars: Count
    """Bars that a stock must have in the look-back."""


class SpanConfig(Section):
    """First and last day of a span, both inclusive."""

    start: Day
    """First day."""
    end: Day
    """Last day."""


class SpansConfig(Section):
    """Training, validation and test spans."""

    train: SpanConfig
    validation: SpanConfig
    test: SpanConfig

    @model_validator(mode="before")
    @classmethod
    def _has_one_form(cls, given: Any) -> Any:
        if isinstance(given, dict) and "shares" in given:
            raise ValueError("expected either days or shares, found both; remove one of them")
        return given


class SpanShares(Section):
    """Spans as shares of the sessions that the market has, for data of any years."""

    shares: list[Annotated[float, Field(gt=0, lt=1)]] = Field(min_length=3, max_length=3)
    """Training, validation and test; they sum to 1. Spans begin with a year where that fits."""


DATED, SHARED = "<dates>", "<shares>"
"""Marks in the location of an error that tell both forms of spans apart."""
Spans = Annotated[
    Annotated[SpansConfig, Tag(DATED)] | Annotated[SpanShares, Tag(SHARED)],
    Discriminator(lambda given: SHARED if _names_shares(given) else DATED),
]
"""Spans by their days, or as shares of the data."""


def _names_shares(given: Any) -> bool:
    if isinstance(given, dict):
        return "shares" in given and given.keys().isdisjoint(SpansConfig.model_fields)
    return isinstance(given, SpanShares)


class StressWindow(Section):
    """A dated stretch of history that `stress-test` replays where the data cover it."""

    name: str
    """What tables and figures call it."""
    start: Day
    """Losses count from the close of the first session on or after it."""
    end: Day
    """Last day that counts as part of the stress; recovery is watched beyond it."""


class MarketStressConfig(Section):
    """What `stress-test` does to one market."""

    windows: list[StressWindow]
    """Dated windows. Those outside the data are listed as not covered."""
    sectors: dict[str, str]
    """Sector of this market -> the sector of the shock scenarios whose return it takes."""


class MarketProfile(Section):
    """One market: its sectors, features, calendar, costs, universe and spans."""

    sectors: list[str]
    """Sector order of every array; a sector without stocks is masked. Empty: the sectors of the
    data, in alphabetical order."""
    sectors_left_out: list[str]
    """Sectors of the data whose stocks this market leaves out. Any other name is an error."""
    calendar: str
    """Name of the exchange calendar, as in `exchange_calendars`."""
    sessions_per_year: Count | None
    """Sessions by which figures become annual; null counts those of the calendar."""
    benchmark_name: str
    """Name of the index in tables."""
    stock_features: list[str] = Field(min_length=1)
    """Names from the feature registry, in the order of the arrays."""
    macro_features: list[str] = Field(min_length=1)
    """Names from the macro registry, in the order of the arrays; `portfolio_drawdown`, which only
    the environment knows, stands last."""
    extra_stock_features: list[DottedName]
    """Functions of the user's, `package.module:function`, that follow `stock_features`."""
    extra_macro_features: list[DottedName]
    """The same for `macro_features`; they stand before those of the portfolio."""
    required_features: list[str]
    """Features without which no market is made. Others, whose columns or series the data lack, are
    left out with a note."""
    costs: CostConfig
    universe: UniverseConfig
    spans: Spans
    """Training, validation and test, by their days or as shares of the data."""
    stress: MarketStressConfig


class SyntheticConfig(Section):
    """The two-level planted market; all returns are daily log returns."""

    n_days: Count
    """Sessions of the generated market."""
    stocks_per_sector: Count
    """Stocks generated for each sector."""
    n_sectors: Count
    """Sectors generated."""
    seed: int = Field(ge=0)
    """Seed of the generator. The run's seed does not change the market."""
    start: Day
    """First session; the rest follow the exchange calendar's weekdays."""
    stay_probability: Fraction
    """Weekly probability that the hidden regime stays."""
    market_mean_bps: list[float] = Field(min_length=3, max_length=3)
    """Daily mean of the market factor in bear, bull, sideways."""
    market_sd_pct: list[float] = Field(min_length=3, max_length=3)
    """Daily deviation of the market factor in bear, bull, sideways."""
    sector_drift_bps: float = Field(ge=0)
    """delta: drift of favoured sectors, negative for the unfavoured ones."""
    sector_sd_pct: float = Field(ge=0)
    """Daily deviation of each sector factor."""
    idiosyncratic_sd_pct: float = Field(gt=0)
    """Daily deviation of each stock's own part."""
    alpha_strength: float = Field(ge=0)
    """beta as a multiple of the idiosyncratic deviation, earned per unit of the signal."""
    signal_autocorrelation: Fraction
    """From day to day, of the planted signal (unit variance)."""
    n_noise_features: int = Field(ge=0)
    """Features of pure noise beside the planted signal."""
    overnight_share: Fraction
    """Share of each log return that falls between close and open."""


class ValidationConfig(Section):
    """Thresholds of validate-data."""

    max_abs_return: Positive
    """A larger one-day move without a split is a finding."""
    max_abs_index_return: Positive
    """A larger move of the index between two levels is an error: the benchmark leaves it out."""
    max_adjustment_gap: Positive
    """Allowed gap between adjusted return and (split x close + dividend) / previous close - 1."""
    stale_run_days: Count
    """Identical closes in a row that count as a stale run."""
    undeclared_split_ratios: list[float] = Field(min_length=0)
    """New shares for an old one. A night that looks like such an undeclared split is kept out."""
    split_turnover_multiple: Positive
    """Dollar volume over its median, per ratio, above which such a night counts as a crash."""
    split_max_turnover: Positive
    """Dollar volume over its median above which such a night counts as a crash at any ratio."""
    split_min_turnover: float = Field(ge=0)
    """Dollar volume over its median below which such a night counts as a crash that nobody buys."""
    impossible_ratio: float = Field(gt=1)
    """A price that moves by this factor on usual trading has changed its unit: nobody earned it."""
    taken_back_bars: Count
    """Bars within which a level that is taken back, or a split stated on another day, is one event.
    """
    taken_back_return: Positive
    """A smaller step away from the price and back is a move, not a false level."""
    max_hole_days: Count
    """Calendar days between two bars of a stock beyond which the move between is kept out."""


class YahooConfig(Section):
    """Retries and waits of the source yahoo, and how many symbols may fail."""

    attempts: Count
    """Requests for one ticker before it counts as failed."""
    first_delay_seconds: float = Field(ge=0)
    """Wait before the second attempt; doubles with each further one, times 0.5 to 1.5 at random."""
    max_delay_seconds: float = Field(ge=0)
    """Longest wait, before the random factor."""
    pause_seconds: float = Field(ge=0)
    """Wait between two tickers."""
    give_up_after: Count
    """Tickers in a row without a usable answer (network, rate limit) after which the run ends."""
    max_failed_share: Fraction
    """Share of the symbols that may fail; beyond it nothing is written and the exit code is 1."""


class RegimeConfig(Section):
    """The regime label and the filtered probabilities."""

    label_horizon_days: Count
    """Sessions ahead, from the next open."""
    label_band: Positive
    """k: bull above +k, bear below -k trailing volatility x sqrt(horizon)."""
    volatility_days: Count
    """Look-back of the trailing volatility."""
    hmm_iterations: Count
    """Expectation-maximisation steps, at most."""


class PricesTable(Section):
    """The table of prices in the user's folder."""

    table: str
    """File name without .parquet or .csv."""
    columns: dict[str, str]
    """The file's name of each column that is called otherwise here (symbol: file_symbol)."""


class SectorsTable(Section):
    """The table that gives each stock its sector."""

    table: str
    """File name without .parquet or .csv."""
    symbol: str
    """Column of the symbol."""
    sector: str
    """Column of the sector or industry."""
    renamed_symbols: dict[str, str]
    """Symbols that the prices spell otherwise: spelling here -> spelling there."""
    sectors: dict[str, str]
    """Each of the file's sectors or industries -> sector of the market profile."""


class RowFilter(Section):
    """Rows of a table that holds several instruments."""

    column: str
    """Column that tells them apart."""
    equals: str
    """Its value in the rows that are taken."""


class IndexTable(Section):
    """The table that holds the benchmark's levels."""

    table: str
    """File name without .parquet or .csv."""
    close: str
    """Column of the level."""
    only: RowFilter | None
    """The benchmark's rows; null takes all."""


class SeriesTable(Section):
    """A table whose columns are macro series."""

    table: str
    """File name without .parquet or .csv."""
    values: dict[str, str] = Field(min_length=1)
    """Series -> its column."""
    only: RowFilter | None
    """Rows to take; null takes all."""
    day_month_swapped_until: Day | None
    """Up to this day every date whose day is 12 or less has day and month exchanged and is
    corrected; null for sound dates."""


class NamedTables(Section):
    """Names of the tables and columns of a folder, where they differ from the standard ones."""

    survivorship: str
    """Which stocks the files lack because they disappeared, in words for reports."""
    prices: PricesTable
    sectors: SectorsTable
    index: IndexTable | None
    """Null: no benchmark."""
    series: list[SeriesTable]
    """Macro series beside those of --macro; may be empty."""


class CalendarChanges(Section):
    """Where the exchange kept other sessions than its published calendar says."""

    added: list[date]
    """Sessions that the calendar lacks: weekend and evening sessions, moved holidays."""
    removed: list[date]
    """Sessions of the calendar that did not take place."""


class DataConfig(Section):
    """Features, labels, splits and validation."""

    feature_clip: Positive
    """Bound of the robust z-score of a day."""
    macro_window_days: Count
    """Trailing window of the macro features' standardisation."""
    purge_days: int = Field(ge=0)
    """Sessions dropped at the end of training and validation: the longest label horizon."""
    embargo_days: int = Field(ge=0)
    """Sessions dropped at the start of validation and test."""
    macro_label_days: Count
    """Horizon of phase 1's sector returns (4 weeks are 20 sessions)."""
    micro_label_days: Count
    """Horizon of phase 2's stock returns."""
    calendar_changes: CalendarChanges
    named_tables: NamedTables | None
    """What the source `files` reads under other names; null for the standard names."""
    regime: RegimeConfig
    validation: ValidationConfig
    yahoo: YahooConfig
    synthetic: SyntheticConfig
