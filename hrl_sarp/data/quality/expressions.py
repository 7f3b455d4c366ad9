"""Expressions over bars sorted by symbol and date that several rules share."""

import numpy as np
import polars as pl
from jaxtyping import Shaped


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


def session_numbers(sessions: Shaped[np.ndarray, " T"]) -> pl.DataFrame:
    """Number the sessions of a calendar from 0: `date, session`."""
    return pl.DataFrame(
        {"date": sessions, "session": np.arange(len(sessions))}, schema_overrides={"date": pl.Date}
    )
