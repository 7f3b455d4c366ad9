"""Reads bars of the user's stocks: one table, several, or one download per symbol.

A table that breaks the format is refused. A download is not: a job that appends one row a day also
appends error pages, JSON, a second header and truncated lines. So each line of a download is read
or reported with its number. Of duplicate rows at most one is kept, and the others are reported. A
table of splits and dividends may complete the prices.
"""

from collections.abc import Collection, Iterable
from pathlib import Path

import polars as pl

from hrl_sarp.config.market_schema import PricesTable
from hrl_sarp.data.partners import without_partner
from hrl_sarp.data.quality.expressions import findings_of
from hrl_sarp.data.sources.files.downloads import (
    ADJUSTED_ONLY,
    PLACE,
    completed,
    is_download,
    read_download,
    spelt,
)
from hrl_sarp.data.sources.files.forms.content import find_table, is_readable, stem_of
from hrl_sarp.data.sources.files.forms.headings import match, with_adjusted
from hrl_sarp.data.sources.files.own_features import FEATURES, MACRO_FEATURES
from hrl_sarp.data.sources.files.parts import (
    joined_parts,
    refuse_derived,
    refuse_kinds,
    refuse_shared_days,
    shares_of_nse,
)
from hrl_sarp.data.sources.files.tables import (
    Read,
    read_columns,
    read_table,
    refusal,
    refuse_misspelt,
    refuse_unsorted,
    scan_table,
)
from hrl_sarp.data.store import BARS_SCHEMA, PRICE_COLUMNS
from hrl_sarp.errors import DataError, MissingArtifactError
from hrl_sarp.reporting.table import counted

OTHER_TABLES = ("sectors", "index", "membership", "macro", "actions", FEATURES, MACRO_FEATURES)
"""Names of tables that hold no prices, whether one table has the prices or a file per symbol."""

_STATED = ("adj_close", "dividend", "split")
"""What a file may say about adjustments."""
_KEYS = ("date", "symbol")
_MOSTLY = 0.5
"""Share of the rows from which on an error is no accident."""
_STRANGE = 0.2
"""Share of closes at or below 0 from which on they are no prices at all."""
_MOVED, _FEWEST_MOVED = 0.05, 20
"""Share and number of rows that do not fit, above which a column may be dated a row off; moved, so
small a share of them may be left."""
_LISTED = 20
"""Symbols that a note lists."""
_SHOWN_OTHERS = 5
"""Files of a folder without prices that the error lists."""
_ROUNDING = 1e-6
"""Relative difference below which two closes are the same."""
_OUTSIDE = (
    (
        "low",
        "lows below highs",
        "as where the two are exchanged",
        "exchange the headings high and low",
    ),
    (
        "close",
        "closes between low and high",
        "as where the closes are adjusted and the other prices are not",
        "give the traded closes as close and the adjusted ones as adj_close",
    ),
    (
        "open",
        "opens between low and high",
        "as where another column stands under the heading",
        "give the right column as open",
    ),
)
"""A price that must lie between low and high: what is expected, what the cause may be, the cure."""


def read_prices(
    input_path: Path,
    names: PricesTable,
    calendar: str | None = None,
    known: Collection[str] = frozenset(),
    collected: pl.DataFrame | None = None,
) -> tuple[Read, str]:
    """Read all bars of a folder, or of the file that was given.

    If the folder lacks the table of prices that `names` mentions, its other tables are read as
    prices.

    Args:
        input_path: A folder, or a file of prices.
        names: The table and columns of the market profile, or the standard ones.
        calendar: Name of the exchange's calendar: its sessions tell the day of a time.
        known: Symbols of the sectors, which tell how a symbol is spelt.
        collected: The bars that these prices continue; see `apply_actions`.

    Returns:
        The bars, with one row per symbol and date, sorted by both, and a text that says how the
        prices are adjusted.

    Raises:
        DataError: if a table breaks the format, or no file has a row of prices.
        MissingArtifactError: if there is no file of prices.
    """
    paths = price_files(input_path, names.table)
    parts = [_read_bars(path, names, calendar, known) for path in paths]
    parts = joined_parts(parts, paths, known)
    refuse_shared_days(parts, paths, input_path)
    frames = (part.frame for part in parts)
    bars = pl.concat([BARS_SCHEMA.to_frame(), *frames], how="diagonal_relaxed")
    findings = pl.concat(part.findings for part in parts)
    if bars.is_empty():
        first = findings["detail"].head(1).to_list()
        raise DataError(
            f"{input_path}: expected rows of prices, found none in "
            f"{counted(len(paths), 'file')}"
            + "".join(f"; the first says: {text}" for text in first)
        )
    states = {name: bars[name].is_not_null().any() for name in _STATED}
    bars = bars.with_columns(pl.col("dividend").fill_null(0.0), pl.col("split").fill_null(1.0))
    bars = bars.sort("symbol", "date", maintain_order=True)
    folder = input_path if input_path.is_dir() else input_path.parent
    bars, notes, _, more = apply_actions(bars, folder, calendar, collected)
    source = paths[0] if len(paths) == 1 else input_path
    refuse_unsorted(bars, "symbol", source)
    refuse_derived(bars, source)
    outside = _prices_outside(bars, source)
    if states["adj_close"]:
        adjustment = f"{'/'.join(PRICE_COLUMNS)} as in the files; adj_close from the files"
    elif states["split"] or states["dividend"] or notes:
        adjustment = "raw prices with splits and dividends; adjusted when the market is assembled"
    else:
        adjustment = (
            "prices as in the files: no adj_close, split or dividend column, so nothing is adjusted"
        )
    origin = f"prices from {counted(len(paths), 'file')} of {input_path.name}"
    of_files = grouped_notes(note for part in parts for note in part.notes)
    readings = (*(reading for part in parts for reading in part.readings), *more)
    return Read(bars, (origin, *of_files, *outside, *notes), findings, readings), adjustment


def _prices_outside(bars: pl.DataFrame, source: Path) -> tuple[str, ...]:
    """Name the symbols whose prices mostly do not fit each other; refuse data full of them.

    Raises:
        DataError: if most rows of all symbols are so.
    """
    known = bars.drop_nulls("close")
    strange = known.filter(pl.col("close") <= 0)
    if strange.height > _STRANGE * known.height:
        row = strange.row(0, named=True)
        found = (
            f"{strange.height} of {known.height} rows without, the first {row['symbol']} "
            f"{row['date']}: {row['close']}, as where returns or scores stand there"
        )
        raise refusal(source, "closes above 0", found, "give the prices", "close")
    rows = bars.drop_nulls(["high", "low", "close"]).filter(pl.col("close") > 0)
    notes = []
    for name, expected, cause, cure in _OUTSIDE:
        marked = rows.with_columns(out=_is_outside(pl.col(name)))
        n_outside = int(marked["out"].sum())
        _refuse_moved(marked, name, n_outside, source)
        if n_outside > _MOSTLY * rows.height:
            row = marked.filter("out").row(0, named=True)
            shown = ", ".join(f"{text} {row[text]}" for text in PRICE_COLUMNS)
            found = (
                f"{n_outside} of {rows.height} rows without, the first {row['symbol']} "
                f"{row['date']}: {shown}, {cause}"
            )
            raise refusal(source, expected, found, cure, name)
        shares = marked.group_by("symbol").agg(pl.col("out").mean()).sort("symbol")
        worst = shares.filter(pl.col("out") > _MOSTLY)["symbol"].to_list()
        rows = rows.filter(~pl.col("symbol").is_in(worst))
        if worst:
            named = ", ".join(worst[:_LISTED]) + (" ..." if len(worst) > _LISTED else "")
            notes.append(f"{named}: expected {expected}, most rows are without, {cause}; {cure}")
    return tuple(notes)


def _is_outside(price: pl.Expr) -> pl.Expr:
    above, below = price / pl.col("high") - 1, 1 - price / pl.col("low")
    return pl.max_horizontal(above, below) > _ROUNDING


def _refuse_moved(marked: pl.DataFrame, name: str, n_outside: int, source: Path) -> None:
    """Refuse a column that fits the other prices only if it is moved by a row."""
    if name == "low" or n_outside <= max(_MOVED * marked.height, _FEWEST_MOVED):
        return
    for step, word in ((-1, "before"), (1, "after")):
        moved = _is_outside(pl.col(name).shift(step).over("symbol"))
        n_left = int(marked.select(moved.sum()).item())
        if n_left < _MOVED * n_outside:
            row = marked.filter("out").row(0, named=True)
            found = (
                f"{n_outside} of {marked.height} rows without, the first {row['symbol']} "
                f"{row['date']}, and {n_left} if they are those of the session {word}"
            )
            expected = f"{name}s of the day between low and high"
            raise refusal(source, expected, found, "move the column by a row", name)


def grouped_notes(notes: Iterable[str]) -> tuple[str, ...]:
    """Say once what several files have in common; a note begins with its file and a colon."""
    files: dict[str, list[str]] = {}
    for note in notes:
        file, _, text = note.partition(": ")
        files.setdefault(text, []).append(file)
    return tuple(
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {text}"
        for text, names in files.items()
    )


def settle_duplicates(bars: pl.DataFrame, place_is: str) -> Read:
    """Keep at most one row of each symbol and date.

    If the closes agree, the first row stays, because it was known first. If they differ, no row
    stays, because the right one is unknown. `place_is` names file and unit of the column `place`,
    such as "AAPL.csv line".

    Findings: `duplicate_row` for each other row with the same close (the value is its volume) and
    `conflicting_rows` for each row with a differing close (the value is its close).
    """
    repeated = bars.filter(pl.struct(_KEYS).is_duplicated())
    if repeated.is_empty():
        return Read(bars)
    # a row without a close agrees with every other and stays only if no row has a close
    ranked = repeated.sort(pl.col("close").is_null(), PLACE).with_columns(
        spread=(pl.col("close").max() / pl.col("close").min() - 1).over(_KEYS),
        first_place=pl.col(PLACE).first().over(_KEYS),
        first_volume=pl.col("volume").first().over(_KEYS),
    )
    conflicts = pl.col("spread").fill_null(0.0) > _ROUNDING
    clash = ranked.filter(conflicts).sort("symbol", PLACE)
    copies = ranked.filter(~conflicts & (pl.col(PLACE) != pl.col("first_place")))
    copies = copies.sort("symbol", PLACE)
    volume, first_volume = (
        pl.col(name).cast(pl.Int64, strict=False).cast(pl.String).fill_null("unknown")
        for name in ("volume", "first_volume")
    )
    place = pl.format("{} {}", pl.lit(place_is), PLACE)
    kept = pl.format("kept {}: volume {}", "first_place", first_volume)
    copy_detail = pl.format("{}: volume {}; {}", place, volume, kept)
    clash_detail = pl.format("{}: close {} is not the only one of the day", place, "close")
    findings = [
        findings_of(copies, "duplicate_row", pl.col("volume"), detail=copy_detail),
        findings_of(clash, "conflicting_rows", pl.col("close"), detail=clash_detail),
    ]
    leaving = pl.concat([clash.select(PLACE), copies.select(PLACE)])
    return Read(bars.join(leaving, on=PLACE, how="anti"), findings=pl.concat(findings))


def apply_actions(
    bars: pl.DataFrame,
    folder: Path,
    calendar: str | None = None,
    collected: pl.DataFrame | None = None,
) -> Read:
    """Write the splits and dividends of `actions.csv` or `.parquet` into the bars.

    The table has `date, symbol` and `split` (new shares for an old one, 1 for none) or `dividend`
    (cash per share). The date is the first day without the right. Its values replace those of the
    bars. Without such a table the bars stay unchanged.

    The table may also name days of the `collected` bars that the prices do not repeat. What it says
    there must be what was collected.
    """
    path = find_table(folder, "actions")
    if path is None:
        return Read(bars)
    required = {name: BARS_SCHEMA[name] for name in _KEYS}
    optional = {name: BARS_SCHEMA[name] for name in ("split", "dividend")}
    read = read_table(path, required, optional, keys=_KEYS, calendar=calendar)
    found = read.frame
    if set(found.columns) == set(required):
        raise refusal(path, "a column split or dividend", "neither", "add one of them")
    actions = pl.concat([pl.DataFrame(schema=required | optional), found], how="diagonal")
    own = actions.join(bars.select("symbol").unique(), on="symbol", how="semi")
    if collected is not None:
        _refuse_late(actions.join(bars, on=list(_KEYS), how="anti"), collected, path)
        earlier = collected.join(bars, on=list(_KEYS), how="anti")
        own = own.join(earlier, on=list(_KEYS), how="anti")
    is_wrong = (pl.col("split") <= 0) | (pl.col("dividend") < 0)
    for expected, wrong, cure in (
        ("a split above 0 and no negative dividend", actions.filter(is_wrong), "correct the row"),
        ("one row", actions.filter(pl.struct(_KEYS).is_duplicated()), "keep the right row"),
        (
            "a bar of the stock",
            own.join(bars, on=list(_KEYS), how="anti"),
            "give the first day without the right",
        ),
    ):
        if wrong.height:
            row = wrong.row(0, named=True)
            cells = f"{row['symbol']} {row['date']} split {row['split']} dividend {row['dividend']}"
            first = f"{cells} ({wrong.height} such rows)"
            raise refusal(path, f"{expected} for each symbol and day", first, cure)
    added = own.rename({"split": "new_split", "dividend": "new_dividend"})
    joined = bars.join(added, on=list(_KEYS), how="left", maintain_order="left")
    filled = joined.with_columns(
        split=pl.coalesce("new_split", "split"), dividend=pl.coalesce("new_dividend", "dividend")
    )
    frames = [bars] if collected is None else [bars, collected]
    traded = sorted({symbol for frame in frames for symbol in frame["symbol"].unique()})
    named = actions["symbol"].unique().to_list()
    lonely = without_partner(named, traded, f"{path.name}: symbols", "the prices")
    refuse_misspelt(named, traded, path)
    notes = (f"{own.height} splits and dividends from {path.name}", *read.notes, *lonely)
    return Read(filled.select(bars.columns), notes, readings=read.readings)


def _refuse_late(actions: pl.DataFrame, collected: pl.DataFrame, path: Path) -> None:
    """Refuse splits and dividends of collected days that were collected otherwise."""
    rows = actions.join(collected, on=list(_KEYS), how="inner", suffix="_before")
    differs = [
        (pl.col(name) - pl.col(f"{name}_before")).abs() > _ROUNDING * pl.col(f"{name}_before")
        for name in ("split", "dividend")
    ]
    late = rows.filter(pl.any_horizontal(differs).fill_null(value=False)).sort("symbol", "date")
    if late.height:
        row = late.row(0, named=True)
        before = f"split {row['split_before']} dividend {row['dividend_before']} as collected"
        now = f"split {row['split']} dividend {row['dividend']} ({late.height} such rows)"
        place = f"for {row['symbol']} on {row['date']}"
        cure = "give the prices of that day, too: then the change is named and may be accepted"
        raise refusal(path, f"{before} {place}", now, cure)


def price_files(input_path: Path, stem: str) -> list[Path]:
    """Return the file that was given, the folder's table of prices, or its files of symbols.

    Without any of them these are the files of its sub-folders.

    Raises:
        MissingArtifactError: if the folder holds none of them.
    """
    if input_path.is_file():
        return [input_path]
    table = find_table(input_path, stem)
    if table:
        return [table]
    found = _readable(input_path.iterdir()) or _readable(input_path.rglob("*"))
    if not found:
        others = [
            path.name for path in sorted(input_path.iterdir()) if not path.name.startswith(".")
        ]
        shown = ", ".join(others[:_SHOWN_OTHERS]) + (" ..." if len(others) > _SHOWN_OTHERS else "")
        raise MissingArtifactError(
            f"{input_path}: expected {stem}.parquet, {stem}.csv or one file per symbol, found "
            f"{shown or 'none'}; name the folder of the prices with --input, and save workbooks, "
            "JSON and other formats as .csv or .parquet"
        )
    return found


def _readable(paths: Iterable[Path]) -> list[Path]:
    return sorted(
        path
        for path in paths
        if path.is_file()
        and is_readable(path)
        and not path.name.startswith((".", "_"))
        and stem_of(path).lower() not in OTHER_TABLES
    )


def _read_bars(
    path: Path, names: PricesTable, calendar: str | None, known: Collection[str]
) -> Read:
    """Read one file of prices; the bars are in order, without duplicates."""
    is_named = stem_of(path).lower() == names.table.lower()
    if not is_named and is_download(path):
        download = read_download(path, calendar, known)
        # rows of a download may be out of order: they are sorted by date
        earlier = download.frame.filter(pl.col("date") < pl.col("date").shift(1))
        is_falling = earlier.height == download.frame.height - 1  # the newest day comes first
        detail = pl.format("{} line {}: earlier than the row above", pl.lit(path.name), PLACE)
        unordered = findings_of(
            earlier.head(0 if is_falling else 1),
            "unordered_rows",
            pl.col(PLACE),
            pl.lit(earlier.height),
            detail,
        )
        bars = download.frame.sort("date", maintain_order=True)
        settled = settle_duplicates(bars, f"{path.name} line")
        findings = pl.concat([download.findings, unordered, settled.findings])
        return download._replace(frame=settled.frame.drop(PLACE), findings=findings)
    table = _read_table_of_prices(path, names, calendar, known, is_named=is_named)
    numbered = in_time(table.frame).with_row_index(PLACE, offset=1)
    settled = settle_duplicates(numbered, f"{path.name} data row")
    refuse_unsorted(settled.frame, "symbol", path)
    return table._replace(frame=settled.frame.drop(PLACE), findings=settled.findings)


def _read_table_of_prices(
    path: Path,
    names: PricesTable,
    calendar: str | None,
    known: Collection[str],
    *,
    is_named: bool,
) -> Read:
    """Read a table of one or several symbols, strictly."""
    sheet = scan_table(path, is_of_prices=True)
    shares, notes = shares_of_nse(sheet.frame, path)
    sheet = sheet._replace(frame=shares)
    given = names.columns if is_named else {}
    found = match(sheet.frame.columns, ("symbol", "close", "adj_close", *PRICE_COLUMNS), given)
    if "symbol" not in found.taken and not is_named:
        lit = pl.lit(stem_of(path)).alias("symbol")
        sheet = sheet._replace(frame=sheet.frame.with_columns(lit))
    if with_adjusted(found) is not found:
        sheet = sheet._replace(frame=sheet.frame.rename({found.taken["adj_close"]: "close"}))
        notes += (f"{path.name}: {ADJUSTED_ONLY}",)
    required = {name: BARS_SCHEMA[name] for name in ("date", "symbol", "close")}
    others = {name: kind for name, kind in BARS_SCHEMA.items() if name not in required}
    optional = {**others, "ret": pl.String(), "cfacpr": pl.Float64()}
    read = read_columns(sheet, path, required, optional, given, _KEYS, calendar)
    if read.frame.is_empty():
        raise refusal(path, "rows of prices", "none", "collect them again")
    frame = read.frame
    refuse_kinds(frame, sheet.frame, dict(read.readings[0].columns), path)
    only = frame["symbol"].unique().to_list()
    if len(only) == 1 and not is_named:
        symbol, renamed = spelt(only[0], path, known, found.taken.get("symbol", "symbol"))
        frame, notes = frame.with_columns(symbol=pl.lit(symbol)), notes + renamed
    close = found.taken.get("close", "close")
    return completed(read._replace(frame=frame, notes=(*notes, *read.notes)), path, close)


def in_time(rows: pl.DataFrame) -> pl.DataFrame:
    """Turn rows of days round if each symbol, or the whole table, has its newest day first."""
    step = pl.col("date").diff().dt.total_days()
    steps = rows.select(step.over("symbol") if "symbol" in rows.columns else step)
    known = steps.to_series().drop_nulls()
    return rows.reverse() if len(known) and (known < 0).all() else rows
