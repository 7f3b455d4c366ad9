"""The rules for what stands beside the bars: the index and macro series.

Like `rules.py`: pure functions that report. What the benchmark leaves out follows from
`INDEX_BREAKING`.
"""

from itertools import pairwise

import numpy as np
import polars as pl
from jaxtyping import Shaped

from hrl_sarp.config.market_schema import ValidationConfig
from hrl_sarp.data.quality import rules
from hrl_sarp.data.store import RawData

INDEX = "index"
"""What findings call the benchmark."""
INDEX_BREAKING = frozenset({"index_jump", "index_not_positive"})
"""The benchmark earns nothing over a row with one of these. `index_wrong_level` is none of them:
it is known only once the level is back."""

REVISED = r"^(ANFCI|NFCI|STLFSI.*|CFNAI.*|USREC.*|GDP.*|M2.*|WM2NS)$"
"""Names as FRED has them: financial conditions, activity, recessions, national accounts, money.
Today's values were not known then, and without vintages no lag repairs that: sources leave such
series out, and features refuse them."""

_SATURDAY = 6
_DAILY_SPACING_DAYS = 2
"""Series whose median spacing is shorter are daily; slower ones are dated at any weekday."""


def index_defects(
    index: pl.DataFrame, config: ValidationConfig, sessions: Shaped[np.ndarray, " T"]
) -> pl.DataFrame:
    """Report levels of the index that cannot be: each row is dated, with its value.

    `index_not_positive`: a level of 0 or below. `index_jump`: a move between two levels beyond the
    threshold, as after a change of base. `index_wrong_level`: a level between a jump and the one
    that takes it back. `index_gap`: sessions without a
    level (dated at the first, the count says how many). `index_off_session`: a level on a day that
    is no session, such as the value of the base day.

    Args:
        index: `INDEX_SCHEMA`, sorted by date.
        config: section `data.validation`.
        sessions: of the exchange, over the span of the bars.
    """
    levels = index.with_columns(symbol=pl.lit(INDEX)).sort("date")
    wrong = levels.filter(pl.col("close") <= 0)
    good = levels.filter(pl.col("close") > 0)
    moved = good.with_columns(move=pl.col("close") / pl.col("close").shift(1) - 1)
    jumps = moved.filter(pl.col("move").abs() > config.max_abs_index_return)
    inside = good.filter(pl.col("date").is_between(*_span_of(sessions)))
    return pl.concat(
        [
            rules.findings_of(wrong, "index_not_positive", pl.col("close")),
            rules.findings_of(jumps, "index_jump", pl.col("move")),
            rules.findings_of(_between_jumps(moved, config), "index_wrong_level", pl.col("close")),
            _renamed(rules.gaps(inside, sessions), "index_gap"),
            _renamed(rules.off_session_bars(levels, sessions), "index_off_session"),
        ]
    )


def _between_jumps(moved: pl.DataFrame, config: ValidationConfig) -> pl.DataFrame:
    """Return the levels that stand between a jump and the jump back to where it began."""
    level = moved["close"].to_numpy()
    rows = np.flatnonzero(np.abs(moved["move"].fill_null(0.0)) > config.max_abs_index_return)
    is_wrong = np.zeros(len(level), dtype=bool)
    for start, stop in pairwise(rows.tolist()):
        whole_move = level[stop] / level[start - 1] - 1
        if abs(whole_move) <= config.max_abs_index_return and not is_wrong[start - 1]:
            is_wrong[start:stop] = True
    return moved.filter(pl.Series(is_wrong))


def weekend_series(raw: RawData, sessions: Shaped[np.ndarray, " T"]) -> pl.DataFrame:
    """Report daily macro series with values on weekends without a session.

    One finding per series, dated at the first such day; the count says how many. Exchanged days
    and months look like this.
    """
    days = pl.DataFrame({"date": sessions}, schema_overrides={"date": pl.Date})
    spacing = pl.col("date").sort().diff().dt.total_days().median().over("series")
    wrong = (
        raw.macro.with_columns(spacing=spacing)
        .filter(
            (pl.col("spacing") < _DAILY_SPACING_DAYS) & (pl.col("date").dt.weekday() >= _SATURDAY)
        )
        .join(days, on="date", how="anti")
        .group_by(symbol="series")
        .agg(pl.min("date"), pl.len().alias("days"))
        .sort("symbol")
    )
    return rules.findings_of(wrong, "macro_weekend", pl.lit(None), pl.col("days"))


def _span_of(sessions: Shaped[np.ndarray, " T"]) -> tuple[pl.Expr, pl.Expr]:
    if len(sessions) == 0:
        nothing = pl.lit(None, dtype=pl.Date)
        return nothing, nothing
    return pl.lit(sessions[0].item()), pl.lit(sessions[-1].item())


def _renamed(findings: pl.DataFrame, rule: str) -> pl.DataFrame:
    return findings.with_columns(rule=pl.lit(rule))
