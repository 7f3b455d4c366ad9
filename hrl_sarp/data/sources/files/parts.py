"""What several files, or several rows of a day, say about one symbol.

A symbol may come in a file for each month or year. A day of a symbol may stand in two files, or in
two rows that another column tells apart, such as the series of a share.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

import polars as pl

from hrl_sarp.data.partners import PERIODS
from hrl_sarp.data.sources.files.forms.content import stem_of
from hrl_sarp.data.sources.files.forms.headings import heading_key
from hrl_sarp.data.sources.files.tables import Read, refusal

_KEYS = ("date", "symbol")
_MANY = 0.2
"""Share of a symbol's rows from which on several rows a day are no accident."""
_MOST_KINDS = 50
"""Different words, at most, of a column that tells kinds of rows apart."""
_CURRENCIES = frozenset({"currency", "ccy", "curr", "devise", "wahrung", "waehrung", "moneda"})
"""Headings of the currency of a price."""
_SERIES = frozenset({"series", "sctysrs"})
"""Headings under which NSE says what a row is a price of."""
_SHARE, _SHARES = "EQ", frozenset({"EQ", "BE", "BZ", "SM", "ST"})
"""NSE's series of shares: usual trading, and the segments to which a share may be moved."""
_FEWEST_OTHERS, _FEWEST_VALUES = 2, 5
"""Fewer other symbols, or different closes, are a sum or a mean by chance."""
_ROUNDED = 5e-5
"""Relative difference below which closes are the sum or mean of the others, which may be rounded.
"""
_SAME = 1e-6
"""Relative difference below which two closes are the same."""


def joined_parts(parts: list[Read], paths: list[Path], known: Collection[str]) -> list[Read]:
    """Give files that hold one symbol in parts its name.

    Such files are called as the symbol and a period, and no two of them reach over the same days.
    One file alone, or files that overlap, count as parts only if the sectors name the symbol.

    Args:
        parts: What was read of each file.
        paths: The files.
        known: Symbols of the sectors.

    Returns:
        The same, in order; the first part of each symbol has a note.
    """
    by_base: dict[str, list[int]] = {}
    for i, (part, path) in enumerate(zip(parts, paths, strict=True)):
        stem = stem_of(path)
        base = PERIODS.sub("", stem)
        if base not in ("", stem) and part.frame["symbol"].unique().to_list() == [stem]:
            by_base.setdefault(base, []).append(i)
    joined = list(parts)
    for base, members in by_base.items():
        day = pl.col("date")
        spans = pl.concat(parts[i].frame.select(first=day.min(), last=day.max()) for i in members)
        spans = spans.sort("first")
        is_apart = bool((spans["first"].shift(-1) > spans["last"]).all())
        if base not in known and (len(members) == 1 or not is_apart):
            continue
        count = f"{len(members)} files are parts of" if len(members) > 1 else "holds"
        note = f"{paths[members[0]].name}: {count} one symbol, {base}"
        for i in members:
            first = (note,) if i == members[0] else ()
            joined[i] = _renamed(joined[i], {stem_of(paths[i]): base}, first)
    return joined


def refuse_shared_days(parts: list[Read], paths: list[Path], input_path: Path) -> None:
    """Refuse files that both have a symbol on a day: which of them is right, nobody can tell.

    Raises:
        DataError: naming the first such day and its files.
    """
    symbols = [symbol for part in parts for symbol in part.frame["symbol"].unique()]
    if len(symbols) == len(set(symbols)):
        return
    shared = [symbol for symbol, count in Counter(symbols).items() if count > 1]
    root = input_path if input_path.is_dir() else input_path.parent
    keyed = pl.concat(
        part.frame.filter(pl.col("symbol").is_in(shared)).select(
            *_KEYS, file=pl.lit(str(path.relative_to(root)))
        )
        for part, path in zip(parts, paths, strict=True)
    )
    twice = keyed.group_by(_KEYS).agg(pl.col("file").unique().sort())
    twice = twice.filter(pl.col("file").list.len() > 1).sort("symbol", "date")
    if twice.is_empty():
        return
    row = twice.row(0, named=True)
    found = f"{row['symbol']} {row['date']} in {' and '.join(row['file'])}"
    days = f"({twice.height} such days)"
    raise refusal(
        input_path, "each day of a symbol in one file", f"{found} {days}", "remove one of them"
    )


def refuse_derived(bars: pl.DataFrame, source: Path) -> None:
    """Refuse a symbol that is no stock: the sum or the mean of the others on each of its days.

    Args:
        bars: Rows with `symbol`, `date` and `close` of all files.
        source: The file or folder.

    Raises:
        DataError: naming the symbol.
    """
    close, n_others = pl.col("close"), pl.len().over("date") - 1
    others = close.sum().over("date") - close
    priced = bars.select("symbol", "date", "close").drop_nulls("close")
    marked = priced.select(
        "symbol",
        "close",
        is_many=n_others >= _FEWEST_OTHERS,
        sum=(close - others).abs() <= _ROUNDED * others.abs(),
        mean=(close - others / n_others).abs() <= _ROUNDED * (others / n_others).abs(),
    )
    of_symbols = marked.group_by("symbol").agg(
        pl.n_unique("close"), pl.col("is_many", "sum", "mean").all()
    )
    made = of_symbols.filter(
        pl.col("is_many") & (pl.col("sum") | pl.col("mean")) & (close > _FEWEST_VALUES)
    ).sort("symbol")
    if made.height:
        row = made.row(0, named=True)
        word = "sum" if row["sum"] else "mean"
        found = f"{row['symbol']}, the {word} of the other symbols on each of its days"
        raise refusal(source, "closes of stocks", found, "remove it", "close")


def shares_of_nse(table: pl.DataFrame, path: Path) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Leave out the bonds, funds and warrants that NSE lists under the symbol of a share."""
    heading = next((text for text in table.columns if heading_key(text) in _SERIES), None)
    if heading is None or table[heading].dtype != pl.String:
        return table, ()
    series = table[heading].str.strip_chars().str.to_uppercase()
    is_share = series.is_in(sorted(_SHARES)) | series.is_null()
    if not (series == _SHARE).any() or is_share.all():
        return table, ()
    others = ", ".join(series.filter(~is_share).unique().sort().head(5))
    note = f"{path.name}: {(~is_share).sum()} rows left out, no shares but the series {others}"
    return table.filter(is_share), (note,)


def refuse_kinds(
    bars: pl.DataFrame, table: pl.DataFrame, taken: Mapping[str, str], path: Path
) -> None:
    """Refuse several currencies, and several rows of its day that words tell apart.

    Args:
        bars: The rows with `symbol`, `date` and `close`, in the order of the file.
        table: All columns of the file.
        taken: Our column -> heading; other headings may tell the rows apart.
        path: The file.

    Raises:
        DataError: naming the column and its words.
    """
    for heading in table.columns:
        if heading_key(heading) in _CURRENCIES:
            _refuse_currencies(bars, table[heading], path)
    spread = (pl.col("close").max() / pl.col("close").min() - 1).over(_KEYS)
    marked = bars.select(*_KEYS, is_many=(pl.len().over(_KEYS) > 1) & (spread > _SAME))
    often = marked.group_by("symbol").agg(pl.col("is_many").mean())
    symbols = often.filter(pl.col("is_many") > _MANY)["symbol"].sort().to_list()
    is_row = marked["is_many"] & marked["symbol"].is_in(symbols)
    if not symbols:
        return
    for heading in table.columns:
        column = table[heading]
        if (
            heading in taken.values()
            or column.dtype != pl.String
            or column.n_unique() > _MOST_KINDS
        ):
            continue
        groups = marked.with_columns(kind=column).filter(is_row)
        apart = groups.group_by(_KEYS).agg(pl.col("kind").n_unique() == pl.len())
        if apart["kind"].all() and groups["kind"].str.contains(r"\p{L}").all():
            kinds = ", ".join(map(str, groups["kind"].unique().sort().head(5)))
            first = groups.row(0, named=True)
            found = f"several of {first['symbol']} on {first['date']}, told apart as {kinds}"
            cure = f"keep the rows of one {heading}"
            raise refusal(path, "one row a symbol and day", found, cure, heading, is_row)


def _refuse_currencies(bars: pl.DataFrame, currency: pl.Series, path: Path) -> None:
    """Refuse several currencies: of one symbol, whose moves are false, or of several."""
    named = bars.select("symbol", "date", word=currency.cast(pl.String).str.strip_chars())
    word = pl.col("word").forward_fill()
    changes = named.with_columns(before=word.shift(1).over("symbol"), other=word.shift(1))
    for before, whose, cure in (
        ("before", "a symbol", "convert all prices of a symbol to one"),
        (
            "other",
            "for all symbols",
            "convert all prices to one, or leave out the column: returns "
            "are then each in its own currency",
        ),
    ):
        is_change = changes.select(pl.col("word") != pl.col(before)).to_series()
        mask = is_change.fill_null(value=False)
        if mask.any():
            row = changes.filter(mask).row(0, named=True)
            first = row["symbol"] if before == "before" else "prices"
            again = "" if before == "before" else f"{row['symbol']} "
            found = f"{first} in {row[before]}, and {again}in {row['word']} on {row['date']}"
            raise refusal(path, f"one currency {whose}", found, cure, currency.name, mask)


def _renamed(part: Read, names: Mapping[str, str], notes: tuple[str, ...]) -> Read:
    """Give a symbol its name in rows, findings and readings."""
    symbol = pl.col("symbol").replace(names)
    readings = tuple(
        reading._replace(symbols=tuple(names.get(name, name) for name in reading.symbols))
        for reading in part.readings
    )
    return part._replace(
        frame=part.frame.with_columns(symbol),
        findings=part.findings.with_columns(symbol),
        notes=(*notes, *part.notes),
        readings=readings,
    )
