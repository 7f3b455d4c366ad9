"""Training, validation and test rows: apart in time by what labels and memories reach over."""

from itertools import pairwise

import numpy as np
from jaxtyping import Shaped

from hrl_sarp.config.schema import SpanConfig, SpansConfig
from hrl_sarp.contracts import DayRange, Split
from hrl_sarp.errors import MarketError


def make_split(
    dates: Shaped[np.ndarray, " T"], spans: SpansConfig, purge_days: int, embargo_days: int
) -> Split:
    """Turn dated spans into row ranges, purged and embargoed.

    Args:
        dates: sessions of the market.
        spans: first and last day of each span; a span may reach past the data on either side.
        purge_days: sessions dropped at the end of training and validation, whose labels would
            reach into the next span.
        embargo_days: sessions dropped at the start of validation and test.

    Raises:
        MarketError: if spans overlap, or one keeps no session; lists all such spans.
    """
    ranges = {
        "train": rows_between(dates, spans.train),
        "validation": rows_between(dates, spans.validation),
        "test": rows_between(dates, spans.test),
    }
    problems = _overlaps(spans)
    kept = {}
    for name, span in ranges.items():
        start = span.start + (embargo_days if name != "train" else 0)
        stop = span.stop - (purge_days if name != "test" else 0)
        kept[name] = DayRange(start, stop)
        if len(kept[name]) == 0:
            wanted: SpanConfig = getattr(spans, name)
            problems.append(
                f"{name} {wanted.start} to {wanted.end} keeps no session of {len(span)} after "
                f"{purge_days} purged and {embargo_days} embargoed"
            )
    if problems:
        raise MarketError(
            f"spans of the market profile: {'; '.join(problems)}; the market has sessions from "
            f"{dates[0]} to {dates[-1]}: change `spans` in config/markets/ or collect more data"
        )
    return Split(**kept)


def rows_between(dates: Shaped[np.ndarray, " T"], span: SpanConfig) -> DayRange:
    """Return the rows of the sessions from start to end, both inclusive."""
    start = int(np.searchsorted(dates, np.datetime64(span.start), side="left"))
    stop = int(np.searchsorted(dates, np.datetime64(span.end), side="right"))
    return DayRange(start, stop)


def _overlaps(spans: SpansConfig) -> list[str]:
    ordered = [("train", spans.train), ("validation", spans.validation), ("test", spans.test)]
    return [
        f"{later_name} starts {later.start}, not after the end of {earlier_name} {earlier.end}"
        for (earlier_name, earlier), (later_name, later) in pairwise(ordered)
        if later.start <= earlier.end
    ]
