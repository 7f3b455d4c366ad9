"""Real prices that arrive in parts are those that arrive at once."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl

from hrl_sarp.config.loading import load_config
from hrl_sarp.data.collect import check_files
from hrl_sarp.data.exchange_calendar import sessions_between
from hrl_sarp.data.store import RawData, is_same
from hrl_sarp.data.update.merge import update


def between(raw: RawData, after: date, until: date) -> RawData:
    is_kept = (pl.col("date") > after) & (pl.col("date") <= until)
    return replace(raw, bars=raw.bars.filter(is_kept), macro=raw.macro.filter(is_kept))


def test_a_year_of_us_stocks_in_parts_is_the_year_at_once(data_folder: Path) -> None:
    whole = check_files(load_config(market="us"), data_folder / "us_daily", None)
    last = date(2019, 12, 31)
    sessions = sessions_between("XNYS", date(2018, 12, 1), last)
    shown = date(2018, 12, 31)
    there = between(whole, date.min, shown)
    # single days without a repeated one, days with one, then all of it again
    for begin, until in (
        (shown, date(2019, 1, 2)),
        (date(2018, 12, 31), date(2019, 1, 4)),
        (date.min, last),
    ):
        made = update(there, between(whole, begin, until), sessions)
        assert (made.refusals, made.changes, made.rescaled) == ((), (), ())
        assert made.last == until
        there = made.raw
    assert is_same(there, whole)
