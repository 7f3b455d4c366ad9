"""Checks raw data by all rules and says which rows stay out of the market."""

import datetime
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Shaped

from hrl_sarp.config.market_schema import CalendarChanges, MarketProfile, ValidationConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.exchange_calendar import sessions_between
from hrl_sarp.data.quality import actions, alignment, hindsight, levels, rules, series
from hrl_sarp.data.quality.expressions import findings_of
from hrl_sarp.data.store import (
    BARS_SCHEMA,
    FINDINGS_SCHEMA,
    INDEX_SCHEMA,
    MACRO_SCHEMA,
    SECTORS_SCHEMA,
    RawData,
    read_raw,
)
from hrl_sarp.reporting.table import Table
from hrl_sarp.run.files import write_json

REPORT_NAME = "validation.json"
_SYMBOLS_SHOWN = 15
"""Symbols of a rule that a table lists; `validation.json` has all."""
_IN_FULL = 1e4
"""A value from here on is written without a power of ten."""


@dataclass(frozen=True)
class ValidationReport:
    """Every finding about one data set."""

    table: pl.DataFrame
    """`FINDINGS_SCHEMA` and the columns severity (fail or warn) and is_excluded (the row is kept
    out of the market). symbol is a stock, a macro series, `index` or, for the rule `schema`,
    table.column. date is the first day concerned. value is in the unit of the rule."""
    n_bars: int
    n_symbols: int

    @property
    def has_failed(self) -> bool:
        """Whether a structural rule is broken, so that the data cannot be used."""
        return bool((self.table["severity"] == "fail").any())


def validate(
    raw: RawData,
    config: ValidationConfig,
    calendar_name: str,
    changes: CalendarChanges | None = None,
    profile: MarketProfile | None = None,
) -> ValidationReport:
    """Check raw data by every rule; the findings include those of the source.

    `changes` are sessions in which the exchange departed from the published calendar. `profile`
    says which sectors are served; None asks no sector.
    """
    expected = {
        "bars": (raw.bars, BARS_SCHEMA),
        "sectors": (raw.sectors, SECTORS_SCHEMA),
        "macro": (raw.macro, MACRO_SCHEMA),
        "index": (raw.index, INDEX_SCHEMA),
    }
    wrong = [
        f"{table}.{name}"
        for table, (frame, schema) in expected.items()
        for name, dtype in schema.items()
        if frame.schema.get(name) != dtype
    ]
    wrong += ["bars"] if raw.bars.is_empty() else []
    rows = [{"symbol": name, "rule": "schema", "count": 1} for name in wrong]
    found = [pl.DataFrame(rows, schema=FINDINGS_SCHEMA)]
    if raw.import_findings is not None:
        found.append(raw.import_findings)
    if not wrong:  # other rules need the columns
        first, last = raw.bars["date"].min(), raw.bars["date"].max()
        sessions = np.empty(0, dtype="datetime64[D]")
        if isinstance(first, datetime.date) and isinstance(last, datetime.date):
            sessions = sessions_between(calendar_name, first, last, changes)
        found += [*_bar_findings(raw.bars, config, sessions), series.sector_defects(raw)]
        found.append(series.membership_defects(raw))
        if profile is not None:
            left_out = profile.sectors_left_out
            found.append(series.unknown_sectors(raw, profile.sectors, left_out))
        found.append(alignment.spacing_defects(raw.bars, sessions, calendar_name))
        found.append(alignment.level_defects(raw.bars))
        found.append(alignment.index_against_bars(raw, sessions))
        found.append(alignment.series_against_bars(raw))
        found.append(alignment.symbols_against_others(raw.bars))
        found.append(alignment.copies(raw.bars))
        found.append(alignment.renamed(raw.bars, sessions))
        found.append(series.macro_defects(raw, sessions))
        found.append(series.scale_defects(raw.macro))
        found.append(series.index_defects(raw.index, config, sessions))
    is_structural = pl.col("rule").is_in(sorted(rules.STRUCTURAL))
    table = pl.concat(found, how="diagonal").with_columns(
        severity=pl.when(is_structural).then(pl.lit("fail")).otherwise(pl.lit("warn")),
        is_excluded=pl.col("rule").is_in(sorted(rules.EXCLUDING)),
    )
    return ValidationReport(
        table=table.sort("severity", "rule", "symbol", "date"),
        n_bars=raw.bars.height,
        n_symbols=raw.bars["symbol"].n_unique() if "symbol" in raw.bars.columns else 0,
    )


def read_validated(data_dir: Path, config: RunConfig) -> tuple[RawData, ValidationReport]:
    """Read collected data and check them.

    Broken rules raise nothing: `has_failed` of the report says whether the data can be used.
    """
    raw, data = read_raw(data_dir), config.data
    profile = config.market_profile
    calendar = profile.calendar
    return raw, validate(raw, data.validation, calendar, data.calendar_changes, profile)


def validate_folder(data_dir: Path, config: RunConfig) -> ValidationReport:
    """Check what was collected into `data_dir` and write `validation.json` there."""
    _, report = read_validated(data_dir, config)
    counts = report.table.group_by("rule").len().sort("rule")
    content = {
        "has_failed": report.has_failed,
        "n_bars": report.n_bars,
        "n_symbols": report.n_symbols,
        "n_excluded_bars": bad_rows(report).height,
        "findings_by_rule": dict(counts.iter_rows()),
        "findings": report.table.to_dicts(),
    }
    write_json(data_dir / REPORT_NAME, content)
    return report


def bad_rows(report: ValidationReport) -> pl.DataFrame:
    """List `symbol, date` of the bars that must be kept out of the market, once and sorted."""
    excluded = report.table.filter(pl.col("is_excluded"))
    return excluded.select("symbol", "date").unique().sort("symbol", "date")


def summary(report: ValidationReport) -> Table:
    """Sum the findings up: one row a rule and symbol, with effect, count, first case and detail.

    What fails comes first. Rules with many symbols show the first ones and count the rest.
    """
    cells = []
    for (rule,), rows in report.table.group_by("rule", maintain_order=True):
        of_symbols = rows.group_by("symbol", maintain_order=True).agg(
            pl.len(), pl.first("severity"), pl.all().exclude("severity", "symbol").first()
        )
        effect = effect_of(str(rule), str(rows["severity"][0]))
        for row in of_symbols.head(_SYMBOLS_SHOWN).iter_rows(named=True):
            first = "" if row["date"] is None else str(row["date"])
            value = _short(row["value"])
            named = (str(rule), row["symbol"] or "", f"{row['len']:,}")
            cells.append((*named, first, value, effect, row["detail"] or ""))
        rest = of_symbols.slice(_SYMBOLS_SHOWN)
        if rest.height:
            text = f"{rest.height:,} further symbols"
            cells.append((str(rule), text, f"{rest['len'].sum():,}", "", "", effect, ""))
    return Table(
        f"{report.n_bars:,} bars of {report.n_symbols} symbols",
        ("rule", "symbol", "findings", "first", "value", "effect", "detail"),
        cells,
        text_columns=frozenset({0, 1, 3, 5, 6}),
    )


def effect_of(rule: str, severity: str) -> str:
    """Say how grave a finding is, and what is done with the bars."""
    effects = dict.fromkeys(rules.BREAKING, ": overnight return 0")
    effects |= dict.fromkeys(rules.NOT_APPLIED, ": not applied")
    effects |= dict.fromkeys(rules.UNRANGED, ": high and low unknown")
    effects |= dict.fromkeys(rules.LEFT_OUT, ": left out")
    effects |= dict.fromkeys(rules.EXCLUDING, ": excluded")
    return severity + effects.get(rule, "")


def _short(value: float | None) -> str:
    """Write a value with four digits, a large one in full; empty where there is none."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= _IN_FULL else f"{value:.4g}"


def _bar_findings(
    unsorted: pl.DataFrame, config: ValidationConfig, sessions: Shaped[np.ndarray, " T"]
) -> list[pl.DataFrame]:
    close = pl.col("close")
    keyed = unsorted.drop_nulls(["symbol", "date"])
    lacking = unsorted.filter(pl.col("date").is_null() | pl.col("symbol").is_null())
    backward = keyed.filter(pl.col("date") < pl.col("date").shift(1).over("symbol"))
    bars = keyed.sort("symbol", "date")
    pairs = bars.group_by("symbol", "date").agg(pl.len().alias("times"), pl.first("close"))
    repeated = pairs.filter(pl.col("times") > 1)
    prepared = rules.prepare(bars, config)
    found = [
        findings_of(lacking, "missing_key", close),
        findings_of(backward, "ordering", close),
        findings_of(repeated, "duplicate", close, pl.col("times")),
        rules.check_rows(prepared, config),
        rules.missing_values(bars),
        rules.missing_columns(bars),
        actions.repeated(bars),
        actions.in_prices(bars),
        rules.unlike_adjusted(prepared),
        rules.stale_runs(bars, config),
        levels.volume_steps(bars),
        levels.straight_lines(bars),
        levels.exchanged_opens(bars),
        levels.unlike_prices(bars),
        rules.gaps(bars, sessions),
        rules.off_session(bars, sessions),
    ]
    late = hindsight.check_hindsight(_without(prepared, found), config)
    good_bars = _without(bars, [*found, late])
    found += [late, rules.early_ends(good_bars, sessions)]
    found.append(actions.not_adjusted(prepared))
    found.append(actions.not_shown(prepared))
    found.append(actions.unlike_splits(prepared))
    found.append(levels.jumps_of_most(prepared))
    return [*found, alignment.span_defects(bars, good_bars, sessions)]


def _without(bars: pl.DataFrame, found: list[pl.DataFrame]) -> pl.DataFrame:
    """Leave out the bars that a finding excludes."""
    excluded = pl.concat(found).filter(pl.col("rule").is_in(sorted(rules.EXCLUDING)))
    return bars.join(excluded, on=["symbol", "date"], how="anti", maintain_order="left")
