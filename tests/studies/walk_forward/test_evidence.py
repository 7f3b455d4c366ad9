"""Evidence on chains whose gains are known, and searches over variants with and without skill."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.evaluation import statistics
from hrl_sarp.evaluation.statistics import Trials
from hrl_sarp.reporting.table import NONE, number
from hrl_sarp.run.files import write_table
from hrl_sarp.run.trials import Span, Trial
from hrl_sarp.studies.walk_forward.chain import Chain
from hrl_sarp.studies.walk_forward.evidence import (
    Evidence,
    configurations_tried,
    evidence_of,
    search_of,
    trials_of,
)
from hrl_sarp.studies.walk_forward.folds import Fold
from hrl_sarp.studies.walk_forward.ledger import Ledger
from hrl_sarp.studies.walk_forward.report.frames import trials_frame
from hrl_sarp.studies.walk_forward.report.tables import evidence_table, searches_table
from hrl_sarp.studies.walk_forward.verdicts import BEST_BEFORE
from tests.studies.walk_forward.made_ledgers import ledger

DAYS, YEAR = 250, 252


@cache
def config() -> RunConfig:
    return load_config(market="us", overrides={"walk_forward": {"samples": 200}})


def gaining(gains: list[float], noise: float = 0.0, names: tuple[str, ...] = ("phase 1",)) -> Chain:
    """Make a chain of two seeds whose log growth over 1/N, % a year, is given fold by fold.

    The noise is a session's, in percent, and that of a seed is its own; the ensemble has their
    mean. Every name has noise of its own.
    """
    rng = np.random.default_rng(11)
    folds, baselines, seeds, ensembles = [], [], [], []
    for place, gain in enumerate(gains):
        first = f"{2005 + place}-01-03"
        even = rng.normal(0.0004, 0.01, DAYS)
        drawn = rng.normal(0.0, 1.0, (len(names), 2, DAYS))
        active = gain / YEAR + noise * (drawn - drawn.mean(axis=2, keepdims=True))

        def made(active: np.ndarray, even: np.ndarray = even, first: str = first) -> Ledger:
            grown = (1 + even) * np.exp(active / 100) - 1
            return ledger({"prior": even, **dict(zip(names, grown, strict=True))}, first)

        folds.append(Fold("us", 2005 + place, 2005 + place))
        baselines.append(ledger({"1/N": even, "rich": np.full(DAYS, 0.002)}, first))
        seeds.append(tuple(made(active[:, seed]) for seed in range(2)))
        ensembles.append(made(active.mean(axis=1)))
    return Chain(tuple(folds), tuple(baselines), tuple(seeds), tuple(ensembles), 252)


def weighed(gains: list[float], noise: float = 0.0) -> Evidence:
    return evidence_of(gaining(gains, noise), "phase 1", config(), 2)["1/N"]


def test_a_gain_on_every_session_is_certain() -> None:
    found = weighed([2.0, 2.0, 2.0])
    for interval in (found.growth, found.one_seed, found.interquartile_mean):
        assert [interval.value, interval.low, interval.high] == pytest.approx([2.0] * 3)
    assert found.improvement.low == found.improvement.value == 1.0
    assert (found.verdict, found.newey_west_t) == ("better", 0.0)
    assert found.smallest_detectable == pytest.approx(0.0, abs=1e-9)
    assert list(found.fold_differences.values()) == pytest.approx([2.0] * 3)
    assert found.sign_p == pytest.approx(0.25)  # 2 / 2^3
    assert found.block_days == 1.0


def test_folds_count_by_their_sign_and_the_worst_is_named() -> None:
    found = weighed([3.0, -4.0, 2.0, 1.0, 5.0], noise=0.01)
    assert list(found.fold_differences.values()) == pytest.approx([3.0, -4.0, 2.0, 1.0, 5.0])
    assert found.worst_fold == "us-2006-2006"
    assert found.sign_p == pytest.approx(12 / 32)  # 4 of 5: 2 (1 + 5) / 2^5
    assert found.growth.value == pytest.approx(1.4)
    # both seeds of a fold are alike: of ten values 1 1 2 2 3 3 and halves... the middle half is
    # 0.5 x 1 + 1 + 2 + 2 + 3 with the weights 0.5 1 1 1 1 0.5 over 5
    assert found.interquartile_mean.value == pytest.approx((0.5 + 1 + 4 + 3 + 1.5) / 5, abs=0.01)
    assert found.improvement.value == 0.8


def test_noise_shows_no_difference_and_what_would_have_been_found() -> None:
    noise = 0.4
    found = weighed([0.3, -0.3, 0.2, -0.2], noise)
    assert found.verdict == "no difference shown"
    # the ensemble has the noise of a mean of two: 0.4 / sqrt(2) over sqrt(1000) sessions
    error = YEAR * noise / 2**0.5 / 1000**0.5
    assert found.smallest_detectable == pytest.approx(2.80 * error, rel=0.1)
    assert found.growth.high - found.growth.low == pytest.approx(2 * 1.96 * error, rel=0.2)
    assert abs(found.newey_west_t) < 1
    # a single seed has more noise than the mean of both
    assert found.one_seed.high - found.one_seed.low > found.growth.high - found.growth.low
    assert found.improvement.low < 0.5 < found.improvement.high


@pytest.mark.parametrize(("gain", "expected"), [(-3.0, "worse"), (0.1, "not worse")])
def test_the_verdict_follows_the_interval(gain: float, expected: str) -> None:
    assert weighed([gain, gain], noise=0.01).verdict == expected


def test_the_reference_of_earlier_folds_is_weighed_beside_1_over_n() -> None:
    found = evidence_of(gaining([2.0, 2.0]), "phase 1", config(), 2)
    assert list(found) == ["1/N", BEST_BEFORE]
    # the first fold has none before it and takes the prior, which is 1/N here; then one is known
    # that earns 0.2 % in every session
    first, second = found[BEST_BEFORE].fold_differences.values()
    even = found["1/N"].fold_differences
    assert first == pytest.approx(2.0)
    grown = 100 * YEAR * np.log1p(gaining([2.0, 2.0]).baseline("1/N").net[DAYS:]).mean()
    assert list(even.values()) == pytest.approx([2.0, 2.0])
    assert second == pytest.approx(2.0 + grown - 100 * YEAR * np.log1p(0.002))


def test_the_active_ratio_is_deflated_by_what_was_tried() -> None:
    one = gaining([4.0, 4.0], noise=0.1, names=("phase 1", "macro alone"))
    few, many = (evidence_of(one, "phase 1", config(), n)["1/N"] for n in (6, 600))
    assert (few.trials, many.trials) == (6, 600)
    assert many.deflated_sharpe < few.deflated_sharpe
    net, even = one.ensemble("phase 1").net[:, 0], one.baseline("1/N").net[:, 0]
    trials = trials_of(one, one.baseline("1/N"), 6)
    expected = statistics.deflated_sharpe_ratio(statistics.active_appraisal(net - even), trials)
    assert few.deflated_sharpe == pytest.approx(expected, rel=1e-9)
    # two policies of two seeds and the ensemble each, per session
    assert isinstance(trials, Trials)
    assert len(trials.ratios) == 6
    active = net - even
    assert trials.ratios[4] == pytest.approx(active.mean() / active.std(ddof=1))


def trial(config: str, span: Span, market: str = "prices", kind: str = "study") -> Trial:
    return Trial(kind, "x", config, market, span, "appraisal_ratio", 0.1, seed=0)  # type: ignore[arg-type]  # by parameter


def test_every_configuration_that_saw_a_fold_is_tried_once() -> None:
    one = gaining([1.0, 1.0])  # a policy, two seeds and the ensemble
    assert configurations_tried({"risk": one}, []) == 3
    assert configurations_tried({"risk": one, "growth": one}, []) == 6
    first = Span("us-2005-2005", "2005-01-03", "2005-12-30")
    second = Span("us-2006-2006", "2006-01-03", "2006-12-29")
    log = [trial(f"first {i}", first) for i in range(8)]
    log += [trial(f"second {i}", second) for i in range(5)]
    assert configurations_tried({"risk": one}, log) == 8  # not 13: each is of one fold
    log += [trial("first 0", first)]  # seen again
    log += [trial("rule", first, kind="baseline"), trial("other", first, market="others")]
    assert configurations_tried({"risk": one}, log) == 8
    # another command tuned on a span that shares days with the fold
    log += [
        trial(f"tuned {i}", Span("test", "2005-06-01", "2005-08-01"), kind="tuning")
        for i in range(4)
    ]
    assert configurations_tried({"risk": one}, log) == 12


NAMES = tuple(f"phase {number}" for number in range(1, 6))


def test_a_search_names_what_beats_1_over_n_and_no_luck() -> None:
    lucky = gaining([0.0, 0.0], noise=0.2, names=NAMES)
    skilled = gaining([30.0, 30.0], noise=0.2, names=("phase 1",))
    found = search_of({"risk": lucky, "wild": skilled}, config())
    assert found.configurations == (*(f"risk, {name}" for name in NAMES), "wild, phase 1")
    assert found.superior == ("wild, phase 1",)
    assert found.p_value is not None
    assert found.p_value < 0.05
    assert found.overfitting is None  # 6 are too few
    alone = search_of({"risk": lucky}, config())
    assert alone.superior == ()
    assert alone.p_value is not None
    assert alone.p_value > 0.1


def test_overfitting_is_told_of_many_configurations_only() -> None:
    variants = {f"variant {i}": gaining([0.0, 0.0], 0.2, NAMES) for i in range(3)}
    variants["wild"] = gaining([60.0, 60.0], 0.1, ("phase 1",))
    found = search_of(variants, config())
    assert len(found.configurations) == 16
    assert found.overfitting == 0.0


def test_variants_that_lack_folds_are_no_part_of_a_search() -> None:
    whole = gaining([1.0, 1.0], 0.1, ("phase 1", "phase 2"))
    short = gaining([1.0], 0.1)
    found = search_of({"short": short, "risk": whole}, config())
    assert found.configurations == ("risk, phase 1", "risk, phase 2")
    assert search_of({"short": short}, config()).p_value is None


def test_tables_hold_every_statistic_and_market() -> None:
    one = gaining([2.0, -1.0], noise=0.1)
    text = evidence_table({"us": evidence_of(one, "phase 1", config(), 7)}).markdown()
    assert (
        "| growth, % a year | us, over 1/N | us, over best classical of the folds before |" in text
    )
    assert f"| worst fold | {number(-1.0, 1)} (us-2006-2006) |" in text
    assert "| folds won, sign test | 1 of 2, p 1.00 |" in text
    assert "| configurations tried | 7 | 7 |" in text
    search = search_of({"risk": gaining([2.0], 0.1, NAMES)}, config())
    text = searches_table({"us": replace(search, p_value=0.25, superior=("a", "b"))}).markdown()
    assert f"| us | 5 | {NONE} | 0.25 | a, b |" in text


def test_trials_have_their_columns_without_a_line_of_the_log_too(tmp_path: Path) -> None:
    span = Span("us-2005-2005", "2005-01-03", "2005-12-30")
    trial = Trial("study", "phase 1", "c0ffee", "da7a", span, "appraisal_ratio", None, seed=3)
    found, none = trials_frame([trial], {span.name}), trials_frame([trial], {"us-2006-2006"})
    assert none.schema == found.schema
    assert none.is_empty()
    assert found.row(0, named=True) == {
        "fold": span.name, "first": span.first, "last": span.last, "kind": "study",
        "name": "phase 1", "config": "c0ffee", "market": "da7a", "metric": "appraisal_ratio",
        "value": None, "seed": 3, "time": "", "code": "", "command": "",
    }  # fmt: skip
    write_table(tmp_path / "trials.parquet", none)
    assert pl.read_parquet(tmp_path / "trials.parquet").schema == found.schema
