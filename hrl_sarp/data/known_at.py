"""What was known when: the user's values by the day on which they were public, data cut at a day.

A value is seen from the first session after its `known_at` on, so that a report of the evening is
not traded at the close before it.
"""

import dataclasses
from datetime import date

import numpy as np
import polars as pl
from jaxtyping import Float, Shaped

from hrl_sarp.data.store import RawData
from hrl_sarp.errors import DataError


def refuse_unknowable(frame: pl.DataFrame, where: str) -> None:
    """Refuse values that would have been known before the day that they describe.

    Args:
        frame: `date` and `known_at`, among other columns.
        where: file, for the message.

    Raises:
        DataError: naming the first row.
    """
    early = (frame["known_at"] < frame["date"]).fill_null(value=False)
    if early.any():
        row = frame.filter(early).row(0, named=True)
        raise DataError(
            f"{where}: column known_at: expected a day not before date, found {row['known_at']} "
            f"for {row['date']} in data row {int(early.arg_max() or 0) + 1} ({early.sum()} such "
            "rows); known_at is the day on which the value became public"
        )


def latest_periods(frame: pl.DataFrame) -> pl.DataFrame:
    """Drop values of an older `date` than one that was known already: late corrections.

    Args:
        frame: `OWN_FEATURES_SCHEMA`.

    Returns:
        Its rows by symbol, name and `known_at`; one a day, of the latest date.
    """
    keys = ["symbol", "name"]
    ordered = frame.sort(*keys, "known_at", "date", nulls_last=False)
    newest = pl.col("date").cum_max().over(*keys)
    kept = ordered.filter(pl.col("date") == newest)
    return kept.unique([*keys, "known_at"], keep="last", maintain_order=True)


def stock_tables(
    frame: pl.DataFrame | None, sessions: Shaped[np.ndarray, " T"], symbols: tuple[str, ...]
) -> dict[str, Float[np.ndarray, "T A"]]:
    """Arrange the values of stocks by session and symbol, carried forward until the next one.

    Args:
        frame: `OWN_FEATURES_SCHEMA`, or None.
        sessions: datetime64[D], increasing.
        symbols: columns of the tables; other symbols are left out.

    Returns:
        Name -> table; NaN before the first value.
    """
    if frame is None:
        return {}
    place = {symbol: column for column, symbol in enumerate(symbols)}
    tables: dict[str, Float[np.ndarray, "T A"]] = {}
    known = latest_periods(frame.filter(pl.col("symbol").is_in(list(symbols))))
    for (name, symbol), rows in known.partition_by("name", "symbol", as_dict=True).items():
        table = tables.setdefault(str(name), np.full((len(sessions), len(symbols)), np.nan))
        table[:, place[str(symbol)]] = _carried(rows, sessions)
    return tables


def market_series(
    frame: pl.DataFrame | None, sessions: Shaped[np.ndarray, " T"]
) -> dict[str, Float[np.ndarray, " T"]]:
    """Arrange the values without a symbol by session, carried forward until the next one.

    Args:
        frame: `OWN_FEATURES_SCHEMA`, or None.
        sessions: datetime64[D], increasing.

    Returns:
        Name -> series; NaN before the first value.
    """
    if frame is None:
        return {}
    known = latest_periods(frame.filter(pl.col("symbol").is_null()))
    parts = known.partition_by("name", as_dict=True)
    return {str(name): _carried(rows, sessions) for (name,), rows in parts.items()}


def _carried(rows: pl.DataFrame, sessions: Shaped[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    known = rows["known_at"].to_numpy().astype("datetime64[D]")
    last = np.searchsorted(known, sessions, side="left") - 1  # strictly before the session
    values = rows["value"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return np.where(last >= 0, values[np.maximum(last, 0)], np.nan)


def as_of(raw: RawData, day: date) -> RawData:
    """Cut everything that was not known at the close of a day.

    Args:
        raw: as collected; its import findings are kept, because a finding never gives a row back.
        day: the last one that is kept.

    Returns:
        Bars, levels and series up to the day, own features that were public before it, and
        memberships without those who join or leave later.
    """
    keep, own = pl.col("date") <= day, raw.own_features
    return dataclasses.replace(
        without_later_members(raw, day),
        bars=raw.bars.filter(keep),
        macro=raw.macro.filter(keep),
        index=raw.index.filter(keep),
        features=None if raw.features is None else raw.features.filter(keep),
        own_features=None if own is None else own.filter(~is_unseen(day)),
    )


def is_unseen(day: date) -> pl.Expr:
    """Mark own features that the close of the day does not see: it sees those public before it."""
    return pl.col("known_at") >= day


def without_later_members(raw: RawData, day: date) -> RawData:
    """Forget who joins and who leaves the index after the day."""
    if raw.membership is None:
        return raw
    known = raw.membership.filter(pl.col("start").is_null() | (pl.col("start") <= day))
    open_end = pl.when(pl.col("end") < day).then(pl.col("end"))
    return dataclasses.replace(raw, membership=known.with_columns(end=open_end))
