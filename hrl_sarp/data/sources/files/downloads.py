"""Reads the download of one symbol line by line, and completes bars to the standard columns."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from hrl_sarp.data.partners import twin_of
from hrl_sarp.data.quality.expressions import findings_of
from hrl_sarp.data.sources.files.forms.content import (
    TornError,
    cells_of,
    is_text,
    lines_of,
    partition_of,
    read_text,
    stem_of,
)
from hrl_sarp.data.sources.files.forms.headings import (
    LOOSE,
    MEASURES,
    Columns,
    heading_key,
    match,
    meaning,
    with_adjusted,
)
from hrl_sarp.data.sources.files.forms.layouts import (
    YAHOO,
    Column,
    Head,
    find_head,
    head_at,
    is_day,
    is_wide,
    looks_like_head,
    prices_fit,
)
from hrl_sarp.data.sources.files.forms.values import UnclearError, decimal_mark
from hrl_sarp.data.sources.files.tables import (
    ACTIONS_CURE,
    Read,
    convert,
    in_shares,
    reading_of,
    refusal,
    unread_notes,
    with_time,
)
from hrl_sarp.data.store import BARS_SCHEMA, FINDINGS_SCHEMA, PRICE_COLUMNS

PLACE = "place"
"""Column with the line number of a row."""

ADJUSTED_ONLY = "its closes are adjusted ones"
"""What is noted of a file that has no other prices."""

_REQUIRED = ("date", "close")
_WANTED = ("date", "time", *MEASURES, "ret", "cfacpr")
_OF_CRSP = frozenset({"prc", "dlyprc", "prccd"})
"""Headings of closes of CRSP, where a sign says that they are the mean of bid and ask, and of
Compustat. Both have factors of splits."""
_NO_PRICE = 1e12
"""No share, coin or index is so dear in any currency."""
_ROUNDING = 1e-6
"""Relative change of a factor below which it is the same."""
_FIT_SHARE = 0.9
"""Share of rows without a header whose prices must fit the order of a Yahoo download."""
_MOST_BAD, _FEWEST_BAD = 0.1, 10
"""Unreadable rows, over the others, that are no accident of a job, and so few that may be one."""
_SHOWN = 60
"""Characters of a line that a finding quotes."""


def is_download(path: Path) -> bool:
    """Say whether a file is the download of one symbol: text without a column of symbols."""
    if not is_text(path) or "symbol" in map(meaning, partition_of(path)):
        return False
    try:
        head = find_head(lines_of(read_text(path)))
    except TornError:
        return True
    if head is None:
        return True
    headings = [column.heading for column in head.columns]
    has_symbols = len(head.symbols) > 1 or "symbol" in match(headings, ("symbol",)).taken
    return not has_symbols and (bool(head.symbols) or not is_wide(headings))


def read_download(
    path: Path, calendar: str | None = None, known: Collection[str] = frozenset()
) -> Read:
    """Read a text file of one symbol, line by line.

    Lines are read by the header above them, or by the first below where none is above. A line with
    a day in the column of days is a row. Its numbers may be missing (null, empty). Rows have the
    columns of `BARS_SCHEMA` and `place`, the line number. They keep the order of the file,
    duplicate dates included.

    The value of a finding is a line number.
    `junk_lines`: several lines in a row have no date. It has the date of the row above.
    `bad_row`: a row has the wrong number of fields, or text instead of a number.
    `no_header`: rows stand above the first header.
    `no_usable_row`: the file is left out.

    Args:
        path: The file.
        calendar: See `read_prices`.
        known: See `read_prices`.

    Returns:
        The rows, findings and notes.

    Raises:
        DataError: if another column of the file holds symbols of the sectors, if it states splits
            or dividends without prices, or if many of its rows cannot be read.
    """
    symbol = stem_of(path)
    renamed: tuple[str, ...] = ()
    try:
        lines = lines_of(read_text(path))
        download = _Download(lines)
        rows, junk = download.rows_and_junk()
        if len(download.symbols) == 1:
            symbol, renamed = spelt(download.symbols[0], path, known)
        _refuse_mixture(rows, path, known)
        rows = _typed(rows, download, calendar)
    except (TornError, UnclearError) as error:
        return Read(_no_rows(), findings=_unusable(symbol, path, f"{path.name}: {error}"))
    rows = rows.with_columns(symbol=pl.lit(symbol))
    place = pl.format("{} line {}: ", pl.lit(path.name), PLACE)
    good = rows.filter(pl.col("problem").is_null())
    bad = rows.filter(pl.col("problem").is_not_null())
    _refuse_losses(good, bad, download, path)
    unordered = good.head(1).filter(~pl.col("is_headed"))
    strange = junk.join_asof(good.select(PLACE, "date"), on=PLACE)
    strange = strange.with_columns(symbol=pl.lit(symbol))
    findings = pl.concat(
        findings_of(found, rule, pl.col(PLACE), count, place + detail)
        for found, rule, count, detail in (
            (bad, "bad_row", pl.lit(1), pl.format("{} ({})", "line", "problem")),
            (unordered, "no_header", pl.lit(1), pl.lit(f"{download.assumed} assumed")),
            (strange, "junk_lines", pl.col("count"), pl.col("line")),
        )
    ).sort("value")
    if good.is_empty():  # one finding is enough: the first row that does not fit, or the first line
        worst = pl.concat([findings.filter(rule="bad_row"), findings]).head(1)
        detail = (worst["detail"].to_list() or [f"{path.name} no line is a row"])[0]
        if bad.is_empty() and junk.height and download.heads:
            detail += f" (no day in its column {download.taken.get('date', 'date')})"
        return Read(_no_rows(), findings=_unusable(symbol, path, detail, worst["value"].to_list()))
    taken = {name: text for name, text in download.taken.items() if name in good.columns}
    adjusted = (f"{path.name}: {ADJUSTED_ONLY}",) if download.is_adjusted else ()
    values = [name for name in (*MEASURES, "ret", "cfacpr") if name in taken]
    read = Read(
        in_shares(good.select("symbol", "date", PLACE, *values), taken, download.unread, path),
        (*renamed, *unread_notes(path, download.unread), *adjusted),
        findings,
        (reading_of(path, download.words, taken, good),),
    )
    whole = completed(read, path, taken.get("close", "close"))
    return whole._replace(frame=whole.frame.select(*BARS_SCHEMA.names(), PLACE))


class _Download:
    """Sorts the lines of a text into headers, rows and junk."""

    def __init__(self, lines: Sequence[tuple[int, str]]) -> None:
        self.lines = lines
        self.heads = dict(self._find_heads())
        first = next(iter(self.heads.values()), None)
        self.assumed = "the columns of the header below"
        if first is None:
            first = find_head(lines)  # a known layout without a header
            self.assumed = first.words if first else "Yahoo's columns"
        self.has_head = first is not None
        self.head = first or Head(
            "commas, no header", ",", tuple(map(Column, YAHOO)), line=0, n_lines=0
        )
        self.symbols = tuple(
            dict.fromkeys(name for head in self.heads.values() for name in head.symbols)
        )
        self.is_adjusted = False
        self.words, self.separator = self.head.words, self.head.separator
        columns = self._columns()
        self.taken, self.unread = columns.taken, columns.unread

    def _find_heads(self) -> Iterator[tuple[int, Head]]:
        i = 0
        while i < len(self.lines):
            head = head_at(self.lines, i)
            if head is not None:
                yield i, head
                i += head.n_lines
            else:
                i += 1

    def _columns(self) -> Columns:
        found = match([column.heading for column in self.head.columns], _WANTED)
        self.is_adjusted |= with_adjusted(found) is not found
        return with_adjusted(found)

    def rows_and_junk(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the rows, as text under our column names, and the runs of other lines."""
        rows: list[dict[str, Any]] = []
        junk: list[dict[str, Any]] = []
        columns, is_headed, is_in_junk, skipped = self._columns(), False, False, 0
        unknown = ""
        for i, (number, line) in enumerate(self.lines):
            if skipped:
                skipped -= 1
                continue
            if i in self.heads:
                self.head, is_headed, is_in_junk, unknown = self.heads[i], True, False, ""
                columns, skipped = self._columns(), self.head.n_lines - 1
                continue
            fields = cells_of(line, self.head.separator)
            row = self._row(fields, columns, unknown)
            if row is not None:
                rows.append({PLACE: number, "line": _quoted(line), "is_headed": is_headed} | row)
                is_in_junk = False
                continue
            if looks_like_head(fields) and self._heads_a_row(i, len(fields)):
                unknown = f"unknown headings in line {number}: {_quoted(line)}"
            if is_in_junk:
                junk[-1]["count"] += 1
            else:
                junk.append({PLACE: number, "line": _quoted(line), "count": 1})
                is_in_junk = True
        self._check_order(rows)
        return _frames(rows, junk)

    def _row(self, fields: list[str], columns: Columns, unknown: str) -> dict[str, Any] | None:
        """Return the cells of a line under our names, with its problem; None if it is no row."""
        headings = [column.heading for column in self.head.columns]
        if len(fields) == len(headings) + 1 and not fields[-1]:
            fields = fields[:-1]  # a separator at the end of each line
        cells = dict(zip(headings, fields, strict=False))
        named = {name: cells.get(heading) for name, heading in columns.taken.items()}
        of_days = [named.get("date") or ""] if "date" in named else fields
        if not any(map(is_day, of_days)):
            return None
        problem: str | None = None
        missing = [name for name in _REQUIRED if name not in named]
        if unknown:
            problem = unknown
        elif missing:
            where = f" in line {self.head.line}" if self.head.line else ""
            problem = f"the header{where} has no {', '.join(missing)}"
        elif columns.rivals:
            name, rivals = next(iter(columns.rivals.items()))
            problem = f"{' and '.join(rivals)} may both be the {name}"
        elif len(fields) != len(headings):
            problem = f"{len(fields)} fields, expected {len(headings)}"
            problem += "" if self.has_head else ": no header says what they are"
        rest = {f"?{name}": cells.get(name) for name in columns.unread}
        return named | rest | {"problem": problem}

    def _heads_a_row(self, i: int, n_fields: int) -> bool:
        if i + 1 >= len(self.lines):
            return False
        below = cells_of(self.lines[i + 1][1], self.head.separator)
        return len(below) == n_fields and any(map(is_day, below))

    def _check_order(self, rows: list[dict[str, Any]]) -> None:
        """Refuse the order of a Yahoo download where the prices do not fit it."""
        if self.has_head or not rows:
            return
        own = [text for text in YAHOO if text.lower() in PRICE_COLUMNS]
        fits = [prices_fit([str(row.get(name.lower())) for name in own], own) for row in rows]
        if sum(fits) < _FIT_SHARE * len(fits):
            for row in rows:
                row["problem"] = row["problem"] or "no header says what its numbers are"


def _frames(
    rows: list[dict[str, Any]], junk: list[dict[str, Any]]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    words, whole = pl.String(), pl.Int64()
    schema: dict[str, Any] = {PLACE: whole, "line": words, "problem": words}
    schema["is_headed"] = pl.Boolean()
    names = dict.fromkeys(name for row in rows for name in row if name not in schema)
    return (
        pl.DataFrame(rows, schema={**schema, "date": words, **dict.fromkeys(names, words)}),
        pl.DataFrame(junk, schema={PLACE: whole, "line": words, "count": whole}),
    )


def _typed(lines: pl.DataFrame, download: _Download, calendar: str | None) -> pl.DataFrame:
    """Convert the cells; the problem of a line is its first cell that does not fit."""
    problem, typed = lines["problem"], []
    if "time" in lines.columns:
        lines = lines.with_columns(date=with_time(lines["date"], lines["time"]))
    numeric = [name for name in (*MEASURES, "cfacpr") if name in lines.columns]
    cells = [lines[name].filter(problem.is_null()) for name in numeric]
    mark = decimal_mark(cells, download.separator)
    for name in ("date", *numeric):
        kind = pl.Date() if name == "date" else pl.Float64()
        try:
            column, is_lost = convert(lines[name], kind, mark=mark, calendar=calendar, name=name)
        except UnclearError as error:
            place = "" if error.rows is None else f"line {lines[PLACE].filter(error.rows)[0]}, "
            raise TornError(f"{place}column {download.taken.get(name, name)}: {error}") from error
        if column.dtype == pl.Float64:
            is_lost |= column.is_infinite().fill_null(value=False)
        meaning = "number" if column.dtype == pl.Float64 else "day"
        what = pl.when(is_lost).then(pl.lit(f"{name} is no {meaning}"))
        problem = pl.select(pl.coalesce(problem, what)).to_series()
        typed.append(column.alias(name))
    return lines.with_columns(*typed, problem=problem)


def _refuse_mixture(rows: pl.DataFrame, path: Path, known: Collection[str]) -> None:
    """Refuse a file without a column of symbols in which another column holds several of them."""
    for name in rows.columns:
        texts = set(rows[name].drop_nulls()) & set(known) if name.startswith("?") else set()
        if len(texts) > 1:
            found = f"{', '.join(sorted(texts)[:3])} under a heading that is not known"
            raise refusal(path, "the prices of one symbol", found, "call it symbol", name[1:])


def _refuse_losses(good: pl.DataFrame, bad: pl.DataFrame, download: _Download, path: Path) -> None:
    """Refuse dividends without prices, and a file of which many rows would be left out."""
    if "close" not in download.taken and {"dividend", "split"} & set(download.taken):
        found = f"the columns {', '.join(download.taken.values())}"
        raise refusal(path, "prices", found, ACTIONS_CURE)
    if good.height and bad.height > max(_MOST_BAD * good.height, _FEWEST_BAD):
        row = bad.row(0, named=True)
        found = f"{bad.height} of {bad.height + good.height} rows that cannot be read"
        first = f"the first in line {row[PLACE]}: {row['line']} ({row['problem']})"
        raise refusal(path, "rows as the header says", f"{found}, {first}", "correct them")


def spelt(
    symbol: str, path: Path, known: Collection[str], heading: str = "symbol"
) -> tuple[str, tuple[str, ...]]:
    """Spell a symbol as the sectors do: as in the file, or as in the name of the file.

    Args:
        symbol: The only symbol in the file.
        path: The file.
        known: Symbols of the sectors.
        heading: Where the file has it; under a `LOOSE` one it may be the name of the company.

    Returns:
        The symbol, and a note if the name of the file says another.
    """
    stem = stem_of(path)
    if symbol == stem or symbol in known:
        return symbol, ()
    if stem in known and (twin_of(symbol, [stem]) or heading_key(heading) in LOOSE):
        return stem, (f"{path.name}: symbol {stem} as in the file's name, {symbol} in the file",)
    return symbol, (f"{path.name}: symbol {symbol} as in the file, not as in its name",)


def completed(read: Read, path: Path, close: str) -> Read:
    """Add the columns of `BARS_SCHEMA` that the file lacks; say what stays unknown."""
    frame, notes = read.frame, list(read.notes)
    if heading_key(close) in _OF_CRSP:
        frame, more = _of_crsp(frame, path)
        notes += more
    frame = frame.drop("ret", "cfacpr", strict=False)
    frame, more = _without_zeros(frame, path)
    notes += more
    lacking = [name for name in (*PRICE_COLUMNS, "volume") if name not in frame.columns]
    if lacking:
        notes.append(f"{path.name}: no {', '.join(lacking)}: unknown on all days")
    frame = frame.with_columns(
        pl.lit(None, dtype=kind).alias(name)
        for name, kind in BARS_SCHEMA.items()
        if name not in frame.columns
    )
    return read._replace(frame=frame, notes=tuple(notes))


def _without_zeros(frame: pl.DataFrame, path: Path) -> tuple[pl.DataFrame, list[str]]:
    """Read a price of 0 as unknown: nothing trades at 0, but many sources write it for a gap.

    Others write the largest number that they have.
    """
    notes, known = [], {}
    for name in (*PRICE_COLUMNS, "adj_close"):
        if name not in frame.columns:
            continue
        price = pl.col(name)
        known[name] = pl.when((price != 0) & (price < _NO_PRICE)).then(price).alias(name)
    zeros = [name for name in known if (frame[name] == 0).any()]
    huge = [name for name in known if (frame[name] >= _NO_PRICE).any()]
    if zeros:
        notes.append(f"{path.name}: 0 is read as an unknown price in {', '.join(zeros)}")
    if huge:
        notes.append(
            f"{path.name}: numbers from {_NO_PRICE:g} on are no prices in {', '.join(huge)}"
        )
    return frame.with_columns(known.values()) if notes else frame, notes


def _of_crsp(frame: pl.DataFrame, path: Path) -> tuple[pl.DataFrame, list[str]]:
    """Read what CRSP means: a negative price is the mean of bid and ask, RET the whole return."""
    is_mean = (frame["close"] < 0).fill_null(value=False)
    notes = []
    if is_mean.any():
        notes.append(f"{path.name}: {is_mean.sum()} negative prices are means of bid and ask")
    frame = frame.with_columns(pl.col("close").abs())
    if "volume" in frame.columns:  # -99 is CRSP's word for unknown
        known = pl.when(pl.col("volume") >= 0).then("volume")
        frame = frame.with_columns(known.alias("volume"))
    if "ret" in frame.columns and "adj_close" not in frame.columns:
        gross = 1 + pl.col("ret").cast(pl.Float64, strict=False).fill_null(0.0)
        level = gross.cum_prod().over("symbol")
        scale = (pl.col("close") / level).drop_nulls().last().over("symbol")
        adjusted = pl.when(pl.col("close").is_not_null()).then(level * scale)
        frame = frame.with_columns(adj_close=adjusted)
        notes.append(f"{path.name}: adj_close follows from the returns RET")
    elif "cfacpr" in frame.columns and "split" not in frame.columns:
        ratio = pl.col("cfacpr").shift(1).over("symbol") / pl.col("cfacpr")
        is_split = (ratio - 1).abs() > _ROUNDING
        frame = frame.with_columns(split=pl.when(is_split).then(ratio).otherwise(1.0))
        notes.append(f"{path.name}: splits follow from CFACPR or AJEXDI; dividends are unknown")
    return frame, notes


def _no_rows() -> pl.DataFrame:
    return pl.DataFrame(schema={**BARS_SCHEMA, PLACE: pl.Int64()})


def _unusable(symbol: str, path: Path, detail: str, place: Sequence[float] = ()) -> pl.DataFrame:
    row = {"symbol": symbol, "value": place[0] if place else 0.0, "rule": "no_usable_row"}
    return pl.DataFrame([{**row, "count": 1, "detail": detail}], schema=FINDINGS_SCHEMA)


def _quoted(line: str) -> str:
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "..."
