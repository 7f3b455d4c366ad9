"""Two stocks with ordinary nights, days and volumes, whose returns are read as the market does."""

from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from hrl_sarp.config.loading import load_config
from hrl_sarp.data.exchange_calendar import first_sessions
from hrl_sarp.data.quality.validation import ValidationReport, validate
from hrl_sarp.data.store import BARS_SCHEMA, INDEX_SCHEMA, MACRO_SCHEMA, SECTORS_SCHEMA, RawData
from hrl_sarp.features.prices import PricePanel, build_panel

SESSIONS = first_sessions("XNYS", date(2011, 1, 3), 70)
LEVELS = ("open", "high", "low", "close", "adj_close")
CONFIG = load_config(market="us").data.validation


def noisy_raw(seed: int = 0) -> RawData:
    """AAA and BBB from 40 on: nights of 0.5 %, days of 1 %, volumes of 30 %; nothing is wrong."""
    rng = np.random.default_rng(seed)
    frames = []
    for symbol in ("AAA", "BBB"):
        night, day = rng.normal(0, 0.005, len(SESSIONS)), rng.normal(0, 0.01, len(SESSIONS))
        close = 40 * np.exp(np.cumsum(night + day))
        opening = close * np.exp(-day)
        spread = np.exp(np.abs(rng.normal(0, 0.003, len(SESSIONS))))
        frames.append(
            pl.DataFrame(
                {
                    "date": SESSIONS,
                    "symbol": [symbol] * len(SESSIONS),
                    "open": opening,
                    "high": np.maximum(opening, close) * spread,
                    "low": np.minimum(opening, close) / spread,
                    "close": close,
                    "volume": np.exp(rng.normal(13, 0.3, len(SESSIONS))).round(),
                    "adj_close": close,
                    "dividend": np.zeros(len(SESSIONS)),
                    "split": np.ones(len(SESSIONS)),
                },
                schema=BARS_SCHEMA,
            )
        )
    return RawData(
        bars=pl.concat(frames),
        sectors=pl.DataFrame({"symbol": ["AAA", "BBB"], "sector": ["Energy"] * 2}, SECTORS_SCHEMA),
        macro=MACRO_SCHEMA.to_frame(),
        index=INDEX_SCHEMA.to_frame(),
        source="files",
        adjustment="",
        survivorship="",
    )


def scaled(raw: RawData, rows: slice, **factors: Any) -> RawData:
    """Multiply cells of AAA in the rows of the slice; a factor of None deletes them."""
    days = [day.item() for day in SESSIONS[rows]]
    here = (pl.col("symbol") == "AAA") & pl.col("date").is_in(days)
    changes = [
        pl.when(here).then(None if factor is None else pl.col(name) * factor).otherwise(name)
        for name, factor in factors.items()
    ]
    named = [change.alias(name) for change, name in zip(changes, factors, strict=True)]
    return replace(raw, bars=raw.bars.with_columns(named))


def without(raw: RawData, *columns: str) -> RawData:
    """Drop columns of the whole set."""
    unknown = [pl.lit(None, dtype=pl.Float64).alias(name) for name in columns]
    return replace(raw, bars=raw.bars.with_columns(unknown))


def checked(raw: RawData) -> tuple[ValidationReport, PricePanel]:
    """Validate and build the panel, as assembling a market does."""
    report = validate(raw, CONFIG, "XNYS")
    return report, build_panel(raw, report.table, ["Energy"])


def returns_of(panel: PricePanel) -> Float[np.ndarray, " T"]:
    """Simple return of AAA from close to close."""
    grown: np.ndarray = panel.session_growth[:, 0] - 1.0
    return grown


def rules_on(report: ValidationReport, row: int) -> set[str]:
    """Rules that name AAA on the row-th session."""
    table = report.table.filter(
        (pl.col("symbol") == "AAA") & (pl.col("date") == pl.lit(SESSIONS[row].item()))
    )
    return set(table["rule"])
