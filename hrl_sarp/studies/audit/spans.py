"""Asks whether what is fitted, learned and labelled stays inside the span that it belongs to."""

from collections.abc import Iterator, Sequence

import numpy as np

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import STOCK_EMBEDDINGS, Market
from hrl_sarp.encoders.stock_embeddings import OBSERVED
from hrl_sarp.market import training_data
from hrl_sarp.studies.audit.behaviour import with_shuffled_future
from hrl_sarp.studies.audit.checks import Check

FOLLOWED_BY = (("train", "validation"), ("validation", "test"))
"""Spans whose labels could reach into the next one."""


def check_spans(market: Market, config: RunConfig) -> Check:
    """Let everything from the next span on differ, and compare the labels of each span.

    Args:
        market: assembled.
        config: horizons of the labels.

    Returns:
        A leak for each label of a span that reads the next one, with its first day.
    """
    leaks, gaps = list[str](), list[str]()
    for name, following in FOLLOWED_BY:
        span, later = getattr(market.split, name), getattr(market.split, following)
        gaps.append(f"{later.start - span.stop} sessions between {name} and {following}")
        if span.stop > later.start:
            leaks.append(f"{following} begins {market.dates[later.start]}, before {name} ends")
        other = with_shuffled_future(market, later.start - 1)
        for (label, values, usable), (_, others, _) in zip(
            _labels(market, config), _labels(other, config), strict=True
        ):
            rows = training_data.rows_within(usable, span)
            same = np.isclose(values[rows], others[rows], rtol=0, atol=0, equal_nan=True)
            unlike = rows[~same.reshape(len(rows), -1).all(axis=1)]
            if len(unlike):
                day = market.dates[int(unlike[0])]
                leaks.append(f"{label} of {day} ({name}) reads the {following} span")
    tried = "shuffled the market from the next span on; labels of training and validation"
    return Check.of("split overlap", tried, leaks, ", ".join(gaps))


def _labels(market: Market, config: RunConfig) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield the name, the values and the usable rows of each label that phases learn from."""
    loader = training_data.TrainingDataLoader.of(market, config)
    returns, regimes, usable = loader.macro_labels(config.data.macro_label_days)
    yield "sector label", returns, usable
    yield "regime label", regimes, usable
    yield ("stock label", *loader.micro_labels(config.data.micro_label_days))


def check_vintages(market: Market, trained_on: str, past: Sequence[str]) -> Check:
    """Say up to which day everything that was fitted has seen the data.

    Args:
        market: with what its agents observe of each stock.
        trained_on: what the agents are; empty without a run.
        past: files that were refused, because they were fitted on later days.

    Returns:
        A leak for each such file, and for whatever else was fitted on a day after the training
        span.
    """
    split = market.split
    last, test = market.dates[split.train.stop - 1], market.dates[split.test.start]
    fitted = {"scalers and regimes": str(market.manifest["fitted_span"][1])}
    fitted |= {
        f"{'encoder' if kind in OBSERVED['both'] else 'forecaster'} {kind}": day
        for kind, day in market.manifest.get(STOCK_EMBEDDINGS, {}).get("fitted_to", {}).items()
    }
    if trained_on:
        fitted[trained_on] = str(last)
    seen = ", ".join(f"{name} to {day}" for name, day in fitted.items())
    tried = "compared the last day of all that was fitted with the end of the training span"
    late = [f"{name} to {day}" for name, day in fitted.items() if np.datetime64(day, "D") > last]
    leaks = [*past, *late]
    return Check.of("vintages", tried, leaks, f"{seen}; training ends {last}, test begins {test}")
