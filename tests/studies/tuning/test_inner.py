"""The trainings of a trial: inside training and validation, resumed, with one yardstick."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.config.loading import overlaid
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.errors import MarketError
from hrl_sarp.risk import risk_tables
from hrl_sarp.run.session import StopFlag
from hrl_sarp.studies.tuning.inner import InnerTrainings, lower_score, trial_seconds, tuning_splits
from tests.studies.tuning.small_search import RATE, small_market, space

INNER = space().inner.model_copy(update={"seeds": 1})
ONE = INNER.model_copy(update={"folds": 1})
"""A training alone; a search has two or more."""


def trainings(market: Market, base: RunConfig, folder: Path, **values: object) -> InnerTrainings:
    config = overlaid(base, {RATE: 0.01, **values}, "a trial")
    return InnerTrainings(market, base, config, ONE, folder)


def test_folds_end_with_validation_and_see_no_session_of_the_test() -> None:
    market, config = small_market()
    splits = tuning_splits(market, config, INNER)
    assert len(splits) == INNER.folds
    assert splits[-1].test.stop == market.split.validation.stop
    for split in splits:
        assert split.train.start == market.split.train.start
        assert split.test.stop <= market.split.validation.stop < market.split.test.start


def test_too_short_a_span_is_refused_by_the_name_of_what_to_change() -> None:
    market, config = small_market()
    with pytest.raises(MarketError, match="inner folds of tuning: 30 folds"):
        tuning_splits(market, config, INNER.model_copy(update={"folds": 30}))


def test_the_time_of_a_trial_grows_with_its_trainings() -> None:
    market, config = small_market()

    def seconds(**changes: int) -> float:
        return trial_seconds(market, config, INNER.model_copy(update=changes))

    assert seconds(seeds=3) == pytest.approx(3 * seconds(seeds=1))
    assert seconds(phases=4) > seconds(phases=2) > 0


def test_the_score_is_a_mean_less_its_standard_error() -> None:
    # mean 2, deviation 2 (n - 1), error 2 / sqrt(4)
    assert lower_score([0.0, 2.0, 2.0, 4.0]) == pytest.approx(2 - (8 / 3) ** 0.5 / 2)


Trained = tuple[InnerTrainings, list[tuple[int, list[float]]]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Run the trainings of a trial; return them with their scores."""
    market, base = small_market()
    inner = trainings(market, base, tmp_path_factory.mktemp("trial"))
    return inner, list(inner.scores_by_phase())


def test_trainings_go_on_where_they_were(trained: Trained) -> None:
    inner, found = trained
    assert [number for number, _ in found] == [1, 2]
    assert all(len(scores) == 1 and np.isfinite(scores).all() for _, scores in found)
    assert found[0][1][0] != 0.0  # something was learned, and deployed
    files = {path: path.stat().st_mtime_ns for path in inner.folder.rglob("*.pt")}
    assert len(files) >= 2
    assert list(inner.scores_by_phase()) == found
    assert {path: path.stat().st_mtime_ns for path in files} == files


@pytest.mark.slow
def test_another_future_after_validation_moves_no_score(trained: Trained, tmp_path: Path) -> None:
    inner, found = trained
    market = inner.market
    later = np.arange(market.n_days) >= market.split.validation.stop
    noise = np.random.default_rng(1).normal(0.0, 0.05, market.intraday_return.shape)
    moved = np.where(later[:, None] & market.tradable, noise, market.intraday_return)
    other = replace(market, intraday_return=moved, risk=None)
    other = replace(other, risk=risk_tables(other, inner.base))
    again = replace(inner, market=other, folder=tmp_path)
    assert list(again.scores_by_phase()) == found


def test_a_trial_is_measured_with_the_objective_of_the_experiment(trained: Trained) -> None:
    inner, found = trained
    expected = found[0][1][0]
    (context, yardstick), *_ = inner._places(StopFlag())
    averse = {"objective.risk_aversion": 50.0}
    # the same agents under another objective are worth the same
    own = replace(context, config=overlaid(context.config, averse, "a trial"))
    assert yardstick.score(own, 1) == expected
    severe = replace(yardstick, config=overlaid(inner.base, averse, "an experiment"))
    assert severe.score(context, 1) != expected
