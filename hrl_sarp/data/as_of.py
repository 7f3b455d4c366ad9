"""Raw data as they were at the close of a day."""

import dataclasses
from datetime import date

import polars as pl

from hrl_sarp.data.store import RawData


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
