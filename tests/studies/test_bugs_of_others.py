"""Seven bugs that other packages had in splits and statistics: each must be impossible here."""

import datetime
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrl_sarp.config.market_schema import SpanConfig, SpansConfig
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Split
from hrl_sarp.evaluation import statistics
from hrl_sarp.evaluation.statistics import Appraisal, Trials
from hrl_sarp.market.assemble import make_split
from hrl_sarp.studies.walk_forward import Fold, Recipe
from hrl_sarp.studies.walk_forward.measures import points
from tests.studies.walk_forward.made_ledgers import CASH, series

RECIPE = Recipe(None, {}, {"risk": None}, (1,), {})
CALENDAR = np.arange("1999-01-01", "2021-01-01", dtype="datetime64[D]")
CALENDAR = CALENDAR[(CALENDAR.astype(int) + 3) % 7 < 5]  # Mondays to Fridays
ALONE = Trials(1, ())


@cache
def config_of(fold: Fold) -> RunConfig:
    return RECIPE.config(fold, "risk", seed=0)


def split_of(fold: Fold) -> Split:
    config = config_of(fold)
    data = config.data
    spans = config.market_profile.spans
    return make_split(CALENDAR, spans, data.purge_days, data.embargo_days)


def row_of(year: int) -> int:
    """Return the first session of a year."""
    return int(np.searchsorted(CALENDAR, np.datetime64(f"{year}-01-01")))


FOLDS = [fold for market in ("us", "nse") for fold in RECIPE.folds(market, None)]


@st.composite
def spans(draw: st.DrawFn) -> tuple[SpansConfig, list[int]]:
    """Draw three spans that follow each other, with gaps or without."""
    cuts = sorted(draw(st.sets(st.integers(0, 500), min_size=6, max_size=6)))
    days = [CALENDAR[cut].astype(datetime.date) for cut in cuts]
    made = [SpanConfig(start=days[i], end=days[i + 1]) for i in (0, 2, 4)]
    return SpansConfig(train=made[0], validation=made[1], test=made[2]), cuts


@given(spans(), st.integers(1, 30), st.integers(0, 10))
@settings(max_examples=60)
def test_purging_begins_before_the_first_label_of_the_next_span(
    drawn: tuple[SpansConfig, list[int]], purge: int, embargo: int
) -> None:
    # another package began at the END of the first test label, and kept training labels that run
    # into it: a label of row t reads the rows t to t + purge
    made, cuts = drawn
    lengths = np.diff(cuts)[::2] + 1
    if lengths.min() <= purge + embargo:
        return
    split = make_split(CALENDAR, made, purge, embargo)
    for own, later, end in ((split.train, cuts[2], cuts[1]), (split.validation, cuts[4], cuts[3])):
        assert own.stop - 1 + purge < later
        assert own.stop == end + 1 - purge  # and no session more is lost


@pytest.mark.parametrize("fold", FOLDS, ids=lambda fold: fold.name)
def test_no_training_label_ends_inside_a_later_span(fold: Fold) -> None:
    # another package kept events that end during the test events
    split, config = split_of(fold), config_of(fold)
    longest = max(
        config.data.macro_label_days,
        config.data.micro_label_days,
        config.data.regime.label_horizon_days,
    )
    for own, later in ((split.train, split.validation), (split.validation, split.test)):
        ends = np.arange(own.start, own.stop) + 1 + longest  # from the next open
        assert not np.isin(ends, np.arange(later.start, later.stop)).any()
        assert ends.max() < later.start


@pytest.mark.parametrize("fold", FOLDS, ids=lambda fold: fold.name)
def test_the_embargo_is_that_of_the_own_fold(fold: Fold) -> None:
    # another package took the end of the last fold for every fold
    split, embargo = split_of(fold), config_of(fold).data.embargo_days
    assert split.validation.start == row_of(fold.first - 1) + embargo
    assert split.test.start == row_of(fold.first) + embargo
    assert split.test.stop == row_of(fold.last + 1)


def test_what_lies_between_tests_is_trained_on() -> None:
    # another package purged all sessions between two test blocks; here a test of an earlier fold is
    # training of the later ones, up to the purge before their validation
    for market in ("us", "nse"):
        folds = RECIPE.folds(market, None)
        for earlier, later in pairwise(folds):
            own, tested = split_of(later).train, split_of(earlier).test
            purge = config_of(later).data.purge_days
            assert own.start == split_of(earlier).train.start
            assert own.stop == row_of(later.first - 1) - purge
            between = np.arange(tested.start, row_of(later.first - 1) - purge)
            assert len(between) > 250
            assert np.isin(between, np.arange(own.start, own.stop)).all()


def active(annual_ratio: float, n_years: int = 8, seed: int = 3) -> np.ndarray:
    """Draw daily active returns with exactly this annual ratio."""
    drawn = np.random.default_rng(seed).standard_normal(252 * n_years)
    drawn = (drawn - drawn.mean()) / drawn.std(ddof=1)
    return 0.001 * (drawn + annual_ratio / 252**0.5)


@pytest.mark.parametrize("ratio", [0.2, 0.5, 1.0])
def test_a_ratio_is_not_annualised_before_it_is_deflated(ratio: float) -> None:
    # an annual ratio with the error of a daily one is certain at once: sqrt(252) x too many errors
    daily = active(ratio)
    found = statistics.active_appraisal(daily)
    assert found.ratio == pytest.approx(ratio / 252**0.5)
    # eight years tell a ratio r with r x sqrt(8) errors, whatever the clock
    assert found.ratio / found.error == pytest.approx(ratio * 8**0.5, rel=0.02)
    weekly = daily[: len(daily) // 5 * 5].reshape(-1, 5).sum(axis=1)
    by_week = statistics.deflated_sharpe_ratio(statistics.active_appraisal(weekly), ALONE)
    assert by_week == pytest.approx(statistics.deflated_sharpe_ratio(found, ALONE), abs=0.03)
    annualised = Appraisal(ratio, statistics.sharpe_error(ratio, len(daily), 0.0, 3.0))
    assert statistics.deflated_sharpe_ratio(annualised, ALONE) == pytest.approx(1.0)


def test_fat_tails_widen_the_error_of_a_ratio() -> None:
    # another package took the excess of the kurtosis over 3 for the kurtosis: fat tails of a
    # kurtosis up to 4 would then have made a ratio surer than a normal series does
    rng = np.random.default_rng(0)
    normal, fat = rng.standard_normal(50_000), rng.standard_t(5, 50_000)
    errors = []
    for drawn in (normal, fat):
        scaled = (drawn - drawn.mean()) / drawn.std(ddof=1) + 0.8
        errors.append(statistics.active_appraisal(scaled).error)
    # Lo (2002): (1 + 0.8^2 / 2) / T for a normal series
    assert errors[0] == pytest.approx((1.32 / 50_000) ** 0.5, rel=0.01)
    assert errors[1] > 1.1 * errors[0]


def test_cash_alone_is_never_worth_a_ratio() -> None:
    # another package deflated ratios of gross returns: a fund of treasury bills was certain
    rng = np.random.default_rng(1)
    net = CASH + rng.normal(-1e-6, 1e-6, 1000)
    assert points(series(net), ("sharpe",))["sharpe"] < -10
    gross, excess = (
        statistics.deflated_sharpe_ratio(statistics.active_appraisal(values), ALONE)
        for values in (net, net - CASH)
    )
    assert (gross, excess) == (pytest.approx(1.0), pytest.approx(0.0))
    # over a benchmark cash cancels, however high its rate
    benchmark = rng.normal(0.0004, 0.01, 1000)
    own = benchmark + rng.normal(0.0001, 0.001, 1000)
    for rate in (0.0, 0.01):
        lent = statistics.active_appraisal((own + rate) - (benchmark + rate))
        assert lent.ratio == pytest.approx(statistics.active_appraisal(own - benchmark).ratio)
