"""Reads the user's tables of features: values of stocks or of the market, with `known_at`."""

from pathlib import Path
from typing import Any

import polars as pl

from hrl_sarp.data.known_at import refuse_unknowable
from hrl_sarp.data.sources.files.forms.content import find_table
from hrl_sarp.data.sources.files.forms.headings import heading_key, match
from hrl_sarp.data.sources.files.forms.layouts import is_row_number
from hrl_sarp.data.sources.files.tables import (
    Read,
    read_table,
    refusal,
    refuse_misspelt,
    scan_table,
)
from hrl_sarp.data.store import OWN_FEATURES_SCHEMA

FEATURES, MACRO_FEATURES = "features", "macro_features"
"""Tables of stocks and of the market."""
_LONG = {"name": pl.String(), "value": pl.Float64()}
_SLOW = 20
"""Days between dates from which on they are those of months or quarters."""
_FEWEST_DATES = 4
_SHOWN = 5


def read_own_features(folder: Path, symbols: list[str], calendar: str | None) -> Read | None:
    """Read `features` and `macro_features` of a folder, in any form that prices may have.

    The long form has `date, symbol, name, value, known_at`, the wide form `date, symbol, known_at`
    and a column for each feature. `macro_features` has no symbol. Values that are missing are left
    out.

    Args:
        folder: of the user.
        symbols: of the prices; rows of others are left out, and a note counts them.
        calendar: name of the exchange's calendar.

    Returns:
        `OWN_FEATURES_SCHEMA` and notes; None without either table.

    Raises:
        DataError: naming file, column and row if a table cannot be used.
    """
    parts = []
    for stem in (FEATURES, MACRO_FEATURES):
        path = find_table(folder, stem)
        if path is not None:
            parts.append(_read(path, symbols, calendar, has_symbol=stem == FEATURES))
    if not parts:
        return None
    return Read(
        pl.concat(part.frame for part in parts).sort("name", "symbol", "known_at", "date"),
        tuple(note for part in parts for note in part.notes),
        readings=tuple(reading for part in parts for reading in part.readings),
    )


def _read(path: Path, symbols: list[str], calendar: str | None, *, has_symbol: bool) -> Read:
    keys: dict[str, Any] = {"date": pl.Date(), "known_at": pl.Date()}
    if has_symbol:
        keys["symbol"] = pl.String()
    headings = scan_table(path).frame.columns
    taken = set(match(headings, list(keys)).taken.values())
    names = [name for name in headings if name not in taken and not is_row_number(name)]
    if not names:
        raise refusal(path, "a column for each feature, or name and value", "none", "add them")
    of_long = {heading_key(name) for name in names} & set(_LONG)
    is_long = of_long == set(_LONG)
    if of_long and not is_long:
        found = f"{', '.join(of_long)} alone"
        raise refusal(path, "name and value, or neither", found, "add the other, or rename it")
    numbers = _LONG if is_long else dict.fromkeys(names, pl.Float64())
    required = (*keys, *(("name",) if is_long else ()))
    given = {name: name for name in numbers}
    read = read_table(path, {**keys, **numbers}, names=given, keys=required, calendar=calendar)
    frame = read.frame
    refuse_unknowable(frame, str(path))
    if not is_long:
        frame = frame.unpivot(index=list(keys), variable_name="name", value_name="value")
    if not has_symbol:
        frame = frame.with_columns(symbol=pl.lit(None, dtype=pl.String()))
    given_names = frame["name"].unique() if is_long else pl.Series(names)
    frame = frame.select(OWN_FEATURES_SCHEMA.names()).drop_nulls("value")
    _refuse_again(frame, path)
    notes = _notes(frame, given_names.sort().to_list(), path.name)
    if has_symbol:
        is_known = pl.col("symbol").is_in(symbols)
        gone = frame.filter(~is_known)
        refuse_misspelt(gone["symbol"], symbols, path)
        if gone.height:
            some = ", ".join(sorted(set(gone["symbol"]))[:_SHOWN])
            notes.append(f"{path.name}: {gone.height} values of symbols without prices: {some} ...")
        frame = frame.filter(is_known)
    return read._replace(frame=frame, notes=(*read.notes, *notes))


def _refuse_again(frame: pl.DataFrame, path: Path) -> None:
    """Refuse a value that stands twice, and a name under two spellings."""
    twice = frame.select(pl.exclude("value")).is_duplicated()
    if frame.height and twice.any():
        row = frame.filter(twice).row(0, named=True)
        found = f"{row['name']} of {row['symbol'] or 'the market'} for {row['date']} twice"
        raise refusal(path, "one value a date and known_at", found, "remove one of them")
    spellings: dict[str, str] = {}
    for name in sorted(set(frame["name"])):
        other = spellings.setdefault(" ".join(name.split()).casefold(), name)
        if other != name:
            found = f"{other!r} and {name!r}"
            raise refusal(path, "each feature under one spelling", found, "write both alike")


def _notes(frame: pl.DataFrame, names: list[str], file: str) -> list[str]:
    """Name the features of a file, those without a value, and those that claim no delay."""
    there = sorted(set(frame["name"]))
    notes = [f"own features of {file}: {', '.join(there)}" if there else f"{file}: no value in it"]
    empty = [name for name in names if name not in there]
    if empty and there:
        more = f" and {len(empty) - _SHOWN} more" if len(empty) > _SHOWN else ""
        notes.append(f"{file}: without any value: {', '.join(empty[:_SHOWN])}{more}")
    dates = frame.group_by("name").agg(
        step=pl.col("date").unique().sort().diff().dt.total_days().median(),
        n_dates=pl.col("date").n_unique(),
        at_once=(pl.col("date") == pl.col("known_at")).all(),
    )
    is_doubtful = pl.col("at_once") & (pl.col("n_dates") >= _FEWEST_DATES)
    doubtful = dates.filter(is_doubtful & (pl.col("step") >= _SLOW))["name"].sort().to_list()
    if doubtful:
        notes.append(
            f"{file}: known_at is the date itself in all rows of {', '.join(doubtful[:_SHOWN])}, "
            "weeks apart; a month or a quarter is reported after its end: is it the day of the "
            "report?"
        )
    return notes
