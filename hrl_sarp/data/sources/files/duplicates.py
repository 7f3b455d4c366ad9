"""Settles rows that stand twice for one symbol and date, and names every row that leaves.

Copies that agree in the close: the first one stays, as the one that was known first. Copies that do
not: nobody knows which is right, all leave and the day has no bar.
"""

import polars as pl

from hrl_sarp.data.sources.files.downloads import PLACE
from hrl_sarp.data.store import FINDINGS_SCHEMA

_ROUNDING = 1e-6
_KEYS = ["symbol", "date"]


def settle_doubled(bars: pl.DataFrame, place_is: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Keep one row of each symbol and date, or none.

    Args:
        bars: with `symbol, date, close, volume` and `place`; any order.
        place_is: what `place` counts, with the file, such as "AAPL.csv line".

    Returns:
        The rows that stay, in their order, and findings: `duplicate_row` per copy that leaves (the
        value is its volume) and `conflicting_rows` per row that contradicts another (the value is
        its close).
    """
    is_doubled = pl.struct(_KEYS).is_duplicated()
    doubled = bars.filter(is_doubled)
    if doubled.is_empty():
        return bars, FINDINGS_SCHEMA.to_frame()
    # a copy without a close says nothing: it agrees with all and stays only if none has one
    ranked = doubled.sort(pl.col("close").is_null(), PLACE).with_columns(
        spread=(pl.col("close").max() / pl.col("close").min() - 1).over(_KEYS),
        first_place=pl.col(PLACE).first().over(_KEYS),
        first_volume=pl.col("volume").first().over(_KEYS),
    )
    conflicts = pl.col("spread").fill_null(0.0) > _ROUNDING
    clash, agreeing = ranked.filter(conflicts), ranked.filter(~conflicts)
    copies = agreeing.filter(pl.col(PLACE) != pl.col("first_place"))
    leaving = pl.concat([clash.select(PLACE), copies.select(PLACE)])
    return bars.join(leaving, on=PLACE, how="anti"), pl.concat(
        [_name_copies(copies, place_is), _name_conflicts(clash, place_is)]
    )


def _name_copies(copies: pl.DataFrame, place_is: str) -> pl.DataFrame:
    told = pl.format(
        f"{place_is} {{}}: volume {{}}; kept {{}}: volume {{}}",
        pl.col(PLACE),
        _whole("volume"),
        pl.col("first_place"),
        _whole("first_volume"),
    )
    return _as_findings(copies, "duplicate_row", "volume", told)


def _name_conflicts(clash: pl.DataFrame, place_is: str) -> pl.DataFrame:
    told = pl.format(f"{place_is} {{}}: close {{}} is not the only one of the day", PLACE, "close")
    return _as_findings(clash, "conflicting_rows", "close", told)


def _as_findings(rows: pl.DataFrame, rule: str, value: str, detail: pl.Expr) -> pl.DataFrame:
    return rows.sort("symbol", PLACE).select(
        "symbol",
        "date",
        value=pl.col(value),
        rule=pl.lit(rule),
        count=pl.lit(1, dtype=pl.Int64),
        detail=detail,
    )


def _whole(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Int64, strict=False).cast(pl.String).fill_null("unknown")
