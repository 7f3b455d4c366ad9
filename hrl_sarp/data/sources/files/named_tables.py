"""The user's folder whose tables and columns have names of their own, as the profile declares them.

`data.named_tables` says which table is which; nothing is guessed from contents. Rows are taken as
they are (validation judges them), but for dates whose day and month the profile declares to be
exchanged: those are put right and counted in the notes.
"""

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from hrl_sarp.config.market_schema import (
    IndexTable,
    NamedTables,
    PricesTable,
    RowFilter,
    SectorsTable,
    SeriesTable,
)
from hrl_sarp.data.sources.files.actions import apply_actions
from hrl_sarp.data.sources.files.macro import load_macro
from hrl_sarp.data.sources.files.tables import (
    Columns,
    find_table,
    read_table,
    refuse_null_keys,
    refuse_unsorted,
)
from hrl_sarp.data.store import (
    BARS_SCHEMA,
    FINDINGS_SCHEMA,
    INDEX_SCHEMA,
    MACRO_SCHEMA,
    SECTORS_SCHEMA,
    RawData,
)
from hrl_sarp.errors import DataError, MissingArtifactError

_SURELY_A_DAY = 12
"""A larger number cannot be a month, so the date was not exchanged."""
EXCHANGED = "day_month_exchanged"
"""Finding: how many dates of a series were put right; dated at the first as found."""
_WITHOUT_ACTIONS = ("adj_close", "dividend", "split")


@dataclass
class _Journal:
    """What reading did that the user must hear of."""

    notes: list[str] = field(default_factory=list)
    findings: list[pl.DataFrame] = field(default_factory=list)


def has_named_prices(input_path: Path, names: NamedTables) -> bool:
    """Return whether the input is, or holds, the table of prices that the profile names."""
    if input_path.is_dir():
        return find_table(input_path, names.prices.table) is not None
    return input_path.stem == names.prices.table


def load(input_path: Path, names: NamedTables, macro_path: Path | None) -> RawData:
    """Load the tables that the profile names from one folder.

    A table `actions` in the same folder adds splits and dividends (`actions.py`).

    Args:
        input_path: the folder, or its table of prices.
        names: section `data.named_tables` of the market profile.
        macro_path: further macro series, as for the standard names; None for none.

    Returns:
        Raw data whose notes say what was read, left out and put right.

    Raises:
        MissingArtifactError: if a named table is not there.
        DataError: naming file, column, expected and found.
    """
    folder = input_path if input_path.is_dir() else input_path.parent
    bars, described = _read_bars(_table(folder, names.prices.table), names.prices)
    bars, action_notes = apply_actions(bars, folder)
    sectors = _read_sectors(_table(folder, names.sectors.table), names.sectors)
    index, index_notes = _read_index(folder, names.index)
    journal = _Journal()
    macro = _read_all_series(folder, names.series, macro_path, journal)
    return RawData(
        bars=bars,
        sectors=sectors,
        macro=macro,
        index=index,
        source="files",
        adjustment=described,
        survivorship=names.survivorship,
        notes=(
            f"tables read under the names of the market profile from {folder.name}",
            *action_notes,
            *index_notes,
            *journal.notes,
        ),
        import_findings=pl.concat(journal.findings) if journal.findings else None,
    )


def _table(folder: Path, stem: str) -> Path:
    path = find_table(folder, stem)
    if path is None:
        raise MissingArtifactError(
            f"{folder}: expected {stem}.parquet or {stem}.csv, which `data.named_tables` of the "
            "market profile names, found neither; add the table or change the profile"
        )
    return path


def _read_bars(path: Path, names: PricesTable) -> tuple[pl.DataFrame, str]:
    optional = {name: BARS_SCHEMA[name] for name in _WITHOUT_ACTIONS}
    required = {name: dtype for name, dtype in BARS_SCHEMA.items() if name not in optional}
    bars = _read_renamed(path, names.columns, required, optional)
    if bars.is_empty():
        raise DataError(f"{path}: expected rows of prices, found none")
    refuse_null_keys(bars, ["date", "symbol"], path)
    given = [name for name in _WITHOUT_ACTIONS if name in bars.columns]
    absent = {"adj_close": None, "dividend": 0.0, "split": 1.0}
    bars = (
        bars.with_columns(
            pl.lit(value, dtype=pl.Float64).alias(name)
            for name, value in absent.items()
            if name not in given
        )
        .with_columns(pl.col("dividend").fill_null(0.0), pl.col("split").fill_null(1.0))
        .select(BARS_SCHEMA.names())
        .sort("symbol", "date", maintain_order=True)
    )
    refuse_unsorted(bars, "symbol", path)
    what = ", ".join(given) or "no adj_close, dividend or split"
    return bars, f"prices as in {path.name}, which states {what}"


def _read_renamed(
    path: Path, columns: dict[str, str], required: Columns, optional: Columns
) -> pl.DataFrame:
    """Read a table under its own column names and return it under ours."""
    theirs = {name: columns.get(name, name) for name in (*required, *optional)}
    frame = read_table(
        path,
        {theirs[name]: dtype for name, dtype in required.items()},
        {theirs[name]: dtype for name, dtype in optional.items()},
    )
    return frame.rename({there: here for here, there in theirs.items() if there in frame.columns})


def _read_sectors(path: Path, names: SectorsTable) -> pl.DataFrame:
    table = read_table(path, {names.symbol: pl.String(), names.sector: pl.String()})
    sectors = table.rename({names.symbol: "symbol", names.sector: "sector"}).drop_nulls("sector")
    refuse_null_keys(sectors, ["symbol"], path)
    unknown = sorted(set(sectors["sector"]) - set(names.sectors))
    if unknown:
        raise DataError(
            f"{path}: column {names.sector}: expected one of {', '.join(sorted(names.sectors))}, "
            f"found {', '.join(unknown)}; map it in `data.named_tables.sectors.sectors`"
        )
    sectors = sectors.with_columns(
        pl.col("symbol").replace(names.renamed_symbols), pl.col("sector").replace(names.sectors)
    )
    doubled = sectors.filter(pl.col("symbol").is_duplicated())
    if doubled.height:
        raise DataError(
            f"{path}: column {names.symbol}: expected each symbol once, found "
            f"{doubled['symbol'][0]} twice"
        )
    return sectors.select(SECTORS_SCHEMA.names()).sort("symbol")


def _read_index(folder: Path, names: IndexTable | None) -> tuple[pl.DataFrame, tuple[str, ...]]:
    if names is None:
        return INDEX_SCHEMA.to_frame(), ()
    path = _table(folder, names.table)
    rows, note = _read_rows(path, [names.close], names.only)
    index = rows.rename({names.close: "close"}).select(INDEX_SCHEMA.names()).drop_nulls()
    index = index.sort("date")
    refuse_unsorted(index.with_columns(symbol=pl.lit("index")), "symbol", path)
    return index, note


def _read_all_series(
    folder: Path, tables: list[SeriesTable], macro_path: Path | None, journal: _Journal
) -> pl.DataFrame:
    frames = [MACRO_SCHEMA.to_frame()]
    frames += [_read_series(_table(folder, names.table), names, journal) for names in tables]
    if macro_path is not None:
        macro, further = load_macro(macro_path)
        own = {series for names in tables for series in names.values}
        doubled = sorted(own & set(macro["series"]))
        if doubled:
            left_out = f"series {', '.join(doubled)} of {macro_path.name} left out: named table"
            journal.notes.append(left_out)
        frames.append(macro.filter(~pl.col("series").is_in(sorted(own))))
        journal.notes.extend(further)
    return pl.concat(frames).sort("series", "date")


def _read_series(path: Path, names: SeriesTable, journal: _Journal) -> pl.DataFrame:
    rows, notes = _read_rows(path, list(names.values.values()), names.only)
    journal.notes.extend(notes)
    if names.day_month_swapped_until is not None:
        rows = _put_right(rows, names, path, journal)
    columns = [
        rows.select("date", series=pl.lit(series), value=pl.col(column))
        for series, column in names.values.items()
    ]
    series = pl.concat(columns).drop_nulls("value").sort("series", "date")
    refuse_unsorted(series, "series", path)
    return series


def _read_rows(
    path: Path, columns: list[str], only: RowFilter | None
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Read dates and numbers of the rows that are wanted; a note says how many are left out."""
    keys = {} if only is None else {only.column: pl.String()}
    numbers = dict.fromkeys(columns, pl.Float64())
    table = read_table(path, {"date": pl.Date(), **keys, **numbers})
    refuse_null_keys(table, ["date"], path)
    if only is None:
        return table, ()
    rows = table.filter(pl.col(only.column) == only.equals)
    if rows.is_empty():
        found = ", ".join(sorted(set(table[only.column].drop_nulls())))
        raise DataError(
            f"{path}: column {only.column}: expected rows of {only.equals!r}, found {found}; "
            "change `only` in `data.named_tables`"
        )
    left_out = table.height - rows.height
    return rows, (f"{path.name}: {left_out} rows left out, not {only.equals}",)


def _put_right(
    rows: pl.DataFrame, names: SeriesTable, path: Path, journal: _Journal
) -> pl.DataFrame:
    """Exchange day and month of the dates that the profile declares to be exchanged."""
    day = pl.col("date")
    may_be_exchanged = (
        (day <= pl.lit(names.day_month_swapped_until))
        & (day.dt.day() <= _SURELY_A_DAY)
        & (day.dt.day() != day.dt.month())
    )
    changed = rows.filter(may_be_exchanged)
    note = (
        f"{path.name}: day and month exchanged back in {changed.height} of {rows.height} dates up "
        f"to {names.day_month_swapped_until}, as the profile declares"
    )
    journal.notes.append(note)
    journal.findings.append(
        pl.DataFrame(
            [
                {
                    "symbol": series,
                    "date": changed["date"].min(),
                    "rule": EXCHANGED,
                    "count": changed.height,
                    "detail": note,
                }
                for series in sorted(names.values)
                if changed.height
            ],
            schema=FINDINGS_SCHEMA,
        )
    )
    right = pl.when(may_be_exchanged).then(pl.date(day.dt.year(), day.dt.day(), day.dt.month()))
    return rows.with_columns(date=right.otherwise(day))
