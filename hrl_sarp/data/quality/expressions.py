"""Expressions over bars sorted by symbol and date that several rules share, and the priced rows."""

import numpy as np
import polars as pl
from jaxtyping import Shaped

from hrl_sarp.data.store import FINDINGS_SCHEMA


def before(name: str) -> pl.Expr:
    """Return the column one row earlier, within the symbol."""
    return pl.col(name).shift(1).over("symbol")


def any_of(conditions: list[pl.Expr]) -> pl.Expr:
    """Mark rows that meet any condition; no condition marks none."""
    return pl.any_horizontal(pl.lit(value=False), *conditions)


def so_far(condition: pl.Expr) -> pl.Expr:
    """Mark the rows of a symbol from the first one on that meets the condition."""
    return condition.fill_null(value=False).cum_max().over("symbol")


def within(condition: pl.Expr, n_rows: int) -> pl.Expr:
    """Mark the rows of a symbol that meet the condition and the `n_rows` rows after each."""
    met = condition.fill_null(value=False).cast(pl.Int8)
    return met.rolling_max(n_rows + 1, min_samples=1).over("symbol") > 0


def is_unpriced() -> pl.Expr:
    """Mark rows without a close: no move can be measured from them or to them."""
    return pl.col("close").is_null() | ~pl.col("close").is_finite()


def priced_rows(bars: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with a close, so that each can be compared with the one above it.

    A split or dividend that is stated on a row without a close counts on the next row that has one:
    nobody could trade on it before.

    Args:
        bars: sorted by symbol and date.

    Returns:
        The rows in the same order; `split` and `dividend` hold what was stated since the row above.
    """
    is_priced = ~is_unpriced()
    if bars.select(is_priced.all()).item():
        return bars
    turn = is_priced.cast(pl.Int64).cum_sum().over("symbol") - is_priced.cast(pl.Int64)
    turns = ["symbol", "_turn"]
    shares = pl.col("split").fill_null(1.0).cum_prod().over(turns)
    # a dividend is paid on the shares that there were before the splits of its own row
    held = shares.shift(1).over(turns).fill_null(1.0)
    cash = (pl.col("dividend").fill_null(0.0) * held).cum_sum().over(turns)
    has_waited = pl.len().over(turns) > 1
    return (
        bars.with_columns(_turn=turn)
        .with_columns(
            split=pl.when(has_waited).then(shares).otherwise("split"),
            dividend=pl.when(has_waited).then(cash).otherwise("dividend"),
        )
        .filter(is_priced)
        .drop("_turn")
    )


def session_numbers(sessions: Shaped[np.ndarray, " T"]) -> pl.DataFrame:
    """Number the sessions of a calendar from 0: `date, session`."""
    return pl.DataFrame(
        {"date": sessions, "session": np.arange(len(sessions))}, schema_overrides={"date": pl.Date}
    )


def findings_of(
    rows: pl.DataFrame,
    rule: str,
    value: pl.Expr,
    count: pl.Expr | None = None,
    detail: pl.Expr | None = None,
) -> pl.DataFrame:
    """Turn rows with `symbol` and `date` into findings of one rule, in `FINDINGS_SCHEMA`.

    `count` is the number of rows or sessions concerned; None means 1.
    """
    return rows.select(
        pl.col("symbol").cast(pl.String),
        pl.col("date").cast(pl.Date),
        value=value.cast(pl.Float64),
        rule=pl.lit(rule),
        count=(pl.lit(1) if count is None else count).cast(pl.Int64),
        detail=(pl.lit(None) if detail is None else detail).cast(pl.String),
    )


def finding(
    symbol: str, day: object, rule: str, value: float | None, count: int, detail: str
) -> pl.DataFrame:
    """Return one finding about a whole series or data set, in `FINDINGS_SCHEMA`."""
    row = {"symbol": symbol, "date": day, "value": value, "rule": rule, "count": count}
    return pl.DataFrame([{**row, "detail": detail}], schema=FINDINGS_SCHEMA)
