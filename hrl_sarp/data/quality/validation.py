"""Judges raw data by rules and says which rows stay out of the market; repairs nothing."""

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Shaped
from rich.table import Table

from hrl_sarp.config.market_schema import CalendarChanges, ValidationConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.exchange_calendar import sessions_between
from hrl_sarp.data.quality import rules, series
from hrl_sarp.data.store import (
    BARS_SCHEMA,
    FINDINGS_SCHEMA,
    INDEX_SCHEMA,
    MACRO_SCHEMA,
    SECTORS_SCHEMA,
    RawData,
    read_raw,
)
from hrl_sarp.run.files import write_json

REPORT_NAME = "validation.json"
_EXAMPLES_SHOWN = 10
Severity = Literal["fail", "warn"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, and where."""

    symbol: str | None
    """Symbol, macro series or, for rule `schema`, table.column; None where the row has none."""
    date: datetime.date | None
    """First day concerned; None where the finding has no date."""
    value: float | None
    """What was found, in the unit of the rule (price, fraction, volume)."""
    rule: str
    severity: Severity
    count: int
    """Rows or sessions concerned."""
    detail: str | None
    """Where and what in words, for what only the source knows: file, line, first characters."""
    is_excluded: bool
    """Kept out of the market."""


@dataclass(frozen=True)
class ValidationReport:
    """Every finding, as a table: `FINDINGS_SCHEMA` plus severity and is_excluded."""

    table: pl.DataFrame
    n_bars: int
    n_symbols: int

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The rows of the table."""
        return tuple(Finding(**row) for row in self.table.iter_rows(named=True))

    @property
    def has_failed(self) -> bool:
        """Whether a structural rule is broken, so that the data cannot be used."""
        return bool((self.table["severity"] == "fail").any())


def validate(
    raw: RawData,
    config: ValidationConfig,
    calendar_name: str,
    changes: CalendarChanges | None = None,
) -> ValidationReport:
    """Judge raw data by every rule of `rules.py`.

    Args:
        raw: as a source or `read_raw` delivers it.
        config: section `data.validation`.
        calendar_name: name of the exchange calendar, as in exchange_calendars.
        changes: sessions against that calendar; None for none.

    Raises:
        DataError: if the calendar is unknown or does not cover the bars.
    """
    found = [_schema_findings(raw)]
    if raw.import_findings is not None:
        found.append(raw.import_findings)
    if found[0].is_empty():  # other rules need the columns
        found += _row_findings(raw, config, _sessions_of(raw.bars, calendar_name, changes))
    table = pl.concat(found, how="diagonal").with_columns(
        severity=pl.when(pl.col("rule").is_in(sorted(rules.STRUCTURAL)))
        .then(pl.lit("fail"))
        .otherwise(pl.lit("warn")),
        is_excluded=pl.col("rule").is_in(sorted(rules.EXCLUDING)),
    )
    return ValidationReport(
        table=table.sort("severity", "rule", "symbol", "date"),
        n_bars=raw.bars.height,
        n_symbols=raw.bars["symbol"].n_unique() if "symbol" in raw.bars.columns else 0,
    )


def read_validated(data_dir: Path, config: RunConfig) -> tuple[RawData, ValidationReport]:
    """Read collected data once and judge them once, for everyone who needs both.

    Args:
        data_dir: `data/raw` itself.
        config: the merged configuration; thresholds and the market's calendar are read.

    Returns:
        The data as they were collected, and every finding about them. Nothing is refused here:
        `has_failed` of the report says whether a market can be made of them.

    Raises:
        MissingArtifactError: if nothing was collected.
        DataError: if a file is damaged or the calendar does not fit.
    """
    raw, data = read_raw(data_dir), config.data
    calendar = config.market_profile.calendar
    return raw, validate(raw, data.validation, calendar, data.calendar_changes)


def validate_folder(data_dir: Path, config: RunConfig) -> ValidationReport:
    """Judge what was collected into `data_dir` and write `validation.json` there.

    Args:
        data_dir: `data/raw` itself.
        config: the merged configuration; thresholds and the market's calendar are read.

    Returns:
        The report that was written.

    Raises:
        MissingArtifactError: if nothing was collected.
        DataError: if a file is damaged or the calendar does not fit.
    """
    _, report = read_validated(data_dir, config)
    write_report(report, data_dir / REPORT_NAME)
    return report


def bad_rows(report: ValidationReport) -> pl.DataFrame:
    """Return (symbol, date) of every bar that must be kept out of the market, each once."""
    excluded = report.table.filter(pl.col("is_excluded"))
    return excluded.select("symbol", "date").unique().sort("symbol", "date")


def write_report(report: ValidationReport, path: Path) -> None:
    """Write counts per rule and all findings as JSON, atomically."""
    counts = report.table.group_by("rule").len().sort("rule")
    content = {
        "has_failed": report.has_failed,
        "n_bars": report.n_bars,
        "n_symbols": report.n_symbols,
        "n_excluded_bars": bad_rows(report).height,
        "findings_by_rule": dict(counts.iter_rows()),
        "findings": report.table.to_dicts(),
    }
    write_json(path, content)


def render(report: ValidationReport) -> Table:
    """Return a terminal table with one row per rule: how many, what follows, the first cases."""
    table = Table(title=f"{report.n_bars:,} bars of {report.n_symbols} symbols")
    for heading in ("rule", "severity", "findings", "examples (symbol date value)"):
        table.add_column(heading, justify="right" if heading == "findings" else "left")
    for rule in report.table["rule"].unique(maintain_order=True):
        rows = report.table.filter(pl.col("rule") == rule)
        severity, is_excluded = rows.select("severity", "is_excluded").row(0)
        effect = f"{severity}: excluded" if is_excluded else str(severity)
        effect = f"{severity}: left out" if rule in rules.LEFT_OUT else effect
        if rule in rules.BREAKING and not is_excluded:
            effect = f"{severity}: night kept out"
        table.add_row(rule, effect, f"{rows.height:,}", _examples(rows))
    return table


def _schema_findings(raw: RawData) -> pl.DataFrame:
    """Report columns that are missing, of another type or without any row."""
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
    if raw.bars.is_empty():
        wrong.append("bars")
    return pl.DataFrame(
        [{"symbol": name, "rule": "schema", "count": 1} for name in wrong],
        schema=FINDINGS_SCHEMA,
    )


def _row_findings(
    raw: RawData, config: ValidationConfig, sessions: Shaped[np.ndarray, " T"]
) -> list[pl.DataFrame]:
    keyed = raw.bars.drop_nulls(["symbol", "date"])
    bars = keyed.sort("symbol", "date")
    prepared = rules.prepare(bars)
    undeclared = rules.undeclared_splits(prepared, config)
    found = [
        rules.missing_keys(raw.bars),
        rules.missing_values(bars),
        rules.duplicates(bars),
        rules.duplicates_beside_bars(raw),
        rules.ordering(keyed),
        rules.non_positive_prices(bars),
        rules.ohlc_inconsistencies(bars),
        rules.zero_volumes(bars),
        rules.stale_repeats(bars),
        rules.large_returns(prepared, config),
        undeclared,
        rules.long_holes(prepared, config),
        rules.suspected_splits(prepared).join(undeclared, on=["symbol", "date"], how="anti"),
        rules.adjustment_defects(prepared, config),
        rules.stale_runs(bars, config),
        rules.gaps(bars, sessions),
        rules.off_session_bars(bars, sessions),
        rules.symbols_without_sector(raw),
        rules.macro_overlaps(raw),
        series.index_defects(raw.index, config, sessions),
        series.weekend_series(raw, sessions),
    ]
    is_excluded = pl.col("rule").is_in(sorted(rules.EXCLUDING))
    excluded = pl.concat(found, how="diagonal").filter(is_excluded)
    good_bars = bars.join(excluded, on=["symbol", "date"], how="anti")
    return [*found, rules.early_ends(good_bars, sessions)]


def _sessions_of(
    bars: pl.DataFrame, calendar_name: str, changes: CalendarChanges | None
) -> Shaped[np.ndarray, " T"]:
    first, last = bars["date"].min(), bars["date"].max()
    if not isinstance(first, datetime.date) or not isinstance(last, datetime.date):
        return np.empty(0, dtype="datetime64[D]")
    return sessions_between(calendar_name, first, last, changes)


def _examples(rows: pl.DataFrame) -> str:
    shown = rows.head(_EXAMPLES_SHOWN)
    texts = [
        " ".join(str(part) for part in (symbol, day, _rounded(value)) if part is not None)
        for symbol, day, value in shown.select("symbol", "date", "value").iter_rows()
    ]
    more = "" if rows.height <= _EXAMPLES_SHOWN else ", ..."
    return ", ".join(texts) + more


def _rounded(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"
