"""Spans, purge and embargo."""

import datetime

import numpy as np
import pytest

from hrl_sarp.config.schema import SpanConfig, SpansConfig
from hrl_sarp.contracts import DayRange
from hrl_sarp.errors import MarketError
from hrl_sarp.market.splits import make_split

DATES = np.arange("2001-01-01", "2001-04-11", dtype="datetime64[D]")  # 100 days


def _spans(*bounds: tuple[str, str]) -> SpansConfig:
    spans = [
        SpanConfig(start=datetime.date.fromisoformat(a), end=datetime.date.fromisoformat(b))
        for a, b in bounds
    ]
    return SpansConfig(train=spans[0], validation=spans[1], test=spans[2])


def test_spans_are_purged_at_the_end_and_embargoed_at_the_start() -> None:
    spans = _spans(
        ("2001-01-01", "2001-02-19"), ("2001-02-20", "2001-03-21"), ("2001-03-22", "2009-01-01")
    )
    split = make_split(DATES, spans, purge_days=10, embargo_days=3)
    # 50, 30 and 20 days; a test span may reach past the data
    assert split.train == DayRange(0, 40)
    assert split.validation == DayRange(53, 70)
    assert split.test == DayRange(83, 100)


def test_empty_and_overlapping_spans_are_named_with_the_dates_there_are() -> None:
    spans = _spans(
        ("2001-01-01", "2001-02-19"), ("2001-02-10", "2001-03-21"), ("2005-01-01", "2006-01-01")
    )
    with pytest.raises(MarketError) as error:
        make_split(DATES, spans, purge_days=10, embargo_days=3)
    message = str(error.value)
    assert "validation starts 2001-02-10, not after the end of train" in message
    assert "test 2005-01-01 to 2006-01-01 keeps no session" in message
    assert "2001-01-01 to 2001-04-10" in message
