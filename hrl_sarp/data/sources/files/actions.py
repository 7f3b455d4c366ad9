"""The user's table of splits and dividends, for prices that state none: the proper adjustment."""

from pathlib import Path

import polars as pl

from hrl_sarp.data.sources.files.tables import find_table, read_table, refuse_null_keys
from hrl_sarp.errors import DataError

STEM = "actions"
_REQUIRED = pl.Schema({"date": pl.Date(), "symbol": pl.String()})
_OPTIONAL = pl.Schema({"split": pl.Float64(), "dividend": pl.Float64()})


def apply_actions(bars: pl.DataFrame, folder: Path) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Write the splits and dividends of `actions.csv` or `.parquet` into the bars.

    The table has `date, symbol` and `split` (new shares for an old one, 1 for none) or `dividend`
    (cash per share), each on the first day without the right. It replaces what the bars state on
    that day; nothing happens where there is no such table.

    Args:
        bars: `BARS_SCHEMA`, splits and dividends filled.
        folder: where the prices lie.

    Returns:
        The bars and notes for the manifest.

    Raises:
        DataError: if the table lacks columns, holds a split that is not positive or a negative
            dividend, or names a day without a bar.
    """
    path = find_table(folder, STEM)
    if path is None:
        return bars, ()
    actions = _read(path)
    own = actions.join(bars.select("symbol").unique(), on="symbol", how="semi")
    lost = own.join(bars, on=["symbol", "date"], how="anti")
    if lost.height:
        row = lost.row(0, named=True)
        raise DataError(
            f"{path}: expected days on which the stock has a bar, found {row['symbol']} "
            f"{row['date']} ({lost.height} such rows); give the first day without the right"
        )
    added = own.rename({"split": "new_split", "dividend": "new_dividend"})
    joined = bars.join(added, on=["symbol", "date"], how="left", maintain_order="left")
    filled = joined.with_columns(
        split=pl.coalesce("new_split", "split"), dividend=pl.coalesce("new_dividend", "dividend")
    )
    return filled.select(bars.columns), (f"{own.height} splits and dividends from {path.name}",)


def _read(path: Path) -> pl.DataFrame:
    actions = read_table(path, _REQUIRED, _OPTIONAL)
    if set(actions.columns) == set(_REQUIRED):
        raise DataError(f"{path}: expected a column split or dividend, found neither")
    refuse_null_keys(actions, list(_REQUIRED), path)
    actions = actions.with_columns(
        pl.lit(None, dtype=pl.Float64).alias(name)
        for name in _OPTIONAL
        if name not in actions.columns
    )
    wrong = actions.filter((pl.col("split") <= 0) | (pl.col("dividend") < 0))
    doubled = actions.filter(pl.struct("symbol", "date").is_duplicated())
    for problem, rows in (("a split above 0 and no negative dividend", wrong), ("a row", doubled)):
        if rows.height:
            row = rows.row(0, named=True)
            raise DataError(
                f"{path}: expected {problem} for each symbol and day, found {row['symbol']} "
                f"{row['date']} split {row['split']} dividend {row['dividend']}"
            )
    return actions.select("date", "symbol", "split", "dividend")
