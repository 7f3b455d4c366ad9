"""Acceptance grants what evidence supports, and noise in one of ten studies at most."""

import json
import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import AcceptanceConfig
from hrl_sarp.errors import MetricError
from hrl_sarp.training.acceptance import Acceptance, Evidence, PairedDays, accept
from tests.tiny_runs import changed

SHARES = (0.1, 0.25, 0.5, 1.0)
TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
N_STUDIES, N_DAYS = 100, 120
Noise = Callable[[np.random.Generator, int], np.ndarray]


SHIPPED = load_config().curriculum.acceptance


def rule(**values: object) -> AcceptanceConfig:
    """Return the shipped rule with shorter blocks and fewer samples, which suits short studies."""
    found: AcceptanceConfig = changed(SHIPPED, {"samples": 150, "block_days": 10, **values})
    return found


def normal(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.normal(size=n)


def heavy(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_t(3, size=n)


def persistent(rng: np.random.Generator, n: int) -> np.ndarray:
    """Autocorrelation 0.3 ** lag."""
    steps: np.ndarray = lfilter([1.0], [1.0, -0.3], rng.normal(size=n + 50))[50:]
    return steps


def clustered(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.normal(size=n) * np.exp(0.8 * persistent(rng, n))


def study(rng: np.random.Generator, noise: Noise, mean: float = 0.0) -> list[PairedDays]:
    """Draw four folds x three seeds that share most of their noise; not linear in the share."""
    series = []
    for fold in range(4):
        common = noise(rng, N_DAYS)
        for seed in range(3):
            learned = mean + 0.9 * common + 0.4 * noise(rng, N_DAYS)
            cost = 0.05 * (learned**2 - (learned**2).mean())  # what mixing does beside scaling
            days = {share: share * learned + share * (1 - share) * cost for share in SHARES}
            series.append(PairedDays(f"fold {fold}", seed, days))
    return series


@pytest.mark.parametrize("noise", [normal, heavy, persistent, clustered])
def test_noise_is_granted_nothing_in_nine_of_ten_studies(noise: Noise) -> None:
    rng = np.random.default_rng(1)
    granted = [accept(study(rng, noise), rule(), seed).granted for seed in range(N_STUDIES)]
    share = np.count_nonzero(granted) / N_STUDIES
    # at most 10 %, and twice the error of a share that is counted so often
    assert share <= 0.10 + 2 * math.sqrt(0.1 * 0.9 / N_STUDIES)


def test_candidates_that_share_nothing_are_not_granted_more_often() -> None:
    # seven temperatures without skill: the best of seven 10 % quantiles is above 0 in half of them
    rng, n_studies = np.random.default_rng(2), 200
    config, granted = rule(block_days=5), 0
    for number in range(n_studies):
        days = {t: normal(rng, N_DAYS) for t in TEMPERATURES}
        granted += accept([PairedDays("one", 0, days)], config, number).granted > 0
    assert granted / n_studies <= 0.10 + 2 * math.sqrt(0.1 * 0.9 / n_studies)


@pytest.mark.parametrize("noise", [normal, heavy, persistent, clustered])
def test_a_planted_gain_is_granted_in_full(noise: Noise) -> None:
    # a mean of a third of the noise's deviation is 7 standard errors of 480 independent sessions
    rng = np.random.default_rng(3)
    scale = noise(rng, 20_000).std()
    granted = [accept(study(rng, noise, scale / 3), rule(), seed).granted for seed in range(10)]
    assert granted == [1.0] * 10


def test_a_gain_that_large_shares_lose_is_granted_in_part() -> None:
    # growth of a mixture is concave: gain share - share^2 is largest at a half
    rng = np.random.default_rng(4)
    days = {share: 0.1 * (share - share**2) + 0.001 * normal(rng, 500) for share in SHARES}
    found = accept([PairedDays("one", 0, days)], rule(), 0)
    assert (found.asked, found.granted) == (0.5, 0.5)


def test_what_is_asked_for_is_not_what_is_granted() -> None:
    rng = np.random.default_rng(5)
    steady, wild = 0.02 + 0.01 * normal(rng, 500), 2.0 * normal(rng, 500)
    days = {0.25: steady, 1.0: 0.05 + wild - wild.mean()}
    found = accept([PairedDays("one", 0, days)], rule(), 0)
    assert (found.asked, found.granted) == (1.0, 0.25)
    sentence = found.sentence("macro agent", "share")
    assert sentence.startswith("macro agent: share 0.25 granted, at least +")
    assert sentence.endswith("; asked for was share 1 (mean +12.60)")
    cells = [row[-1] for row in found.table("Macro").rows]
    assert cells == ["", "granted", "asked"]
    written = json.loads(json.dumps(found.as_dict()))
    assert written["granted"] == 0.25
    assert Acceptance.from_dict(written) == found


@pytest.mark.parametrize(
    ("gain", "lower", "decisions"),
    [
        (-1.0, -2.0, ["stays", ""]),
        (1.0, -2.0, ["stays", "asked"]),
        (1e-6, 1e-7, ["", "asked, granted"]),
    ],
)
def test_a_table_grants_nothing_beside_a_gain_of_zero(
    gain: float, lower: float, decisions: list[str]
) -> None:
    rows = (Evidence(0.0, 0.0, 0.0), Evidence(1.0, gain, lower))
    found = Acceptance(rows, confidence=0.9, n_folds=1, n_series=1, n_sessions=728)
    table = found.table("Macro")
    assert [row[-1] for row in table.rows] == decisions
    assert all(row[2] != "0.00" for row in table.rows if "granted" in row[-1])
    assert "over 728 sessions in 1 fold and 1 training;" in table.note


@pytest.mark.parametrize("gain", [-1.0, -1e-6, 0.0, 1e-6, 0.004, 1.0])
@pytest.mark.parametrize("error", [0.0, 2e-6, 3.0])
def test_a_sentence_names_what_is_deployed_and_shows_no_gain_as_zero(
    gain: float, error: float
) -> None:
    rows = (Evidence(0.0, 0.0, 0.0), Evidence(2.0, gain, gain - error))
    told = Acceptance(rows, 0.9, 1, 1, 250).sentence("phase 3", "evaluation", "its start")
    stays = told.startswith("phase 3: its start stays")
    assert stays == (gain - error <= 0)
    assert stays != ("evaluation 2 granted" in told)
    assert ("(mean" in told) == (gain > 0)  # what loses is not asked for
    assert not re.search(r"[+-]0\.0+\b(?!\d)", told)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 0.3), st.sampled_from([normal, heavy]))
def test_more_of_the_same_gain_never_grants_less(seed: int, more: float, noise: Noise) -> None:
    less = study(np.random.default_rng(seed), noise)
    gained = [
        PairedDays(s.fold, s.seed, {c: d + more * c for c, d in s.differences.items()})
        for s in less
    ]
    before, after = accept(less, rule(), 0), accept(gained, rule(), 0)
    assert after.granted >= before.granted
    for first, second in zip(before.evidence, after.evidence, strict=True):
        gain = 252 * more * first.candidate  # the same draws: bounds move by the gain exactly
        assert second.lower_pct == pytest.approx(first.lower_pct + gain, abs=1e-8)


def test_one_candidate_has_the_quantile_of_its_resampled_means() -> None:
    # 2000 independent sessions: mean - 1.2816 x deviation / sqrt(2000)
    days = normal(np.random.default_rng(6), 2000)
    series = [PairedDays("one", 0, {1.0: days})]
    (_, found) = accept(series, rule(samples=2000, block_days=1), 0).evidence
    expected = days.mean() - 1.2816 * days.std() / math.sqrt(2000)
    assert found.mean_pct == pytest.approx(252 * days.mean())
    assert found.lower_pct / 252 == pytest.approx(expected, abs=0.05 / math.sqrt(2000))


def test_seeds_on_the_same_dates_are_no_further_evidence() -> None:
    days = normal(np.random.default_rng(7), 500)
    one = accept([PairedDays("one", 0, {1.0: days})], rule(), 0)
    many = accept([PairedDays("one", seed, {1.0: days}) for seed in range(9)], rule(), 0)
    assert many.evidence[1].lower_pct == pytest.approx(one.evidence[1].lower_pct)


def test_further_folds_are_further_evidence() -> None:
    rng = np.random.default_rng(8)
    folds = [PairedDays(str(fold), 0, {1.0: normal(rng, 500)}) for fold in range(9)]
    gaps = [
        found.mean_pct - found.lower_pct
        for found in (accept(folds[:n], rule(samples=1000), 0).evidence[1] for n in (1, 9))
    ]
    assert gaps[0] / gaps[1] == pytest.approx(3.0, rel=0.15)  # the root of nine times the sessions


def test_a_gain_without_any_risk_is_granted() -> None:
    found = accept([PairedDays("one", 0, {1.0: np.full(60, 0.01)})], rule(), 0)
    assert found.granted == 1.0
    assert found.evidence[1].lower_pct == pytest.approx(2.52)


def test_a_candidate_that_is_the_prior_is_not_granted() -> None:
    found = accept([PairedDays("one", 0, {0.0: np.zeros(60), 1.0: np.zeros(60)})], rule(), 0)
    assert found.evidence == (Evidence(0.0, 0.0, 0.0), Evidence(1.0, 0.0, 0.0))
    assert (found.asked, found.granted) == (0.0, 0.0)


def test_the_same_series_give_the_same_answer() -> None:
    series = study(np.random.default_rng(9), normal)
    found: list[Acceptance] = [accept(series, rule(), 4) for _ in range(2)]
    assert found[0] == found[1]


GOOD = np.ones(40)


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ([], "no candidate beside the prior"),
        (
            [PairedDays("F1", 2, {1.0: np.empty(0)})],
            "fold 'F1', seed 2, candidate 1 has 0 sessions",
        ),
        ([PairedDays("F1", 2, {1.0: GOOD[:1]})], "candidate 1 has 1 sessions"),
        (
            [PairedDays("F1", 2, {0.5: GOOD, 1.0: np.r_[GOOD, math.nan]})],
            "fold 'F1', seed 2, candidate 1 is nan in session 40",
        ),
        ([PairedDays("F1", 2, {1.0: np.r_[math.inf, GOOD]})], "is inf in session 0"),
        ([PairedDays("F1", 2, {0.5: GOOD, 1.0: GOOD[:30]})], r"series of \[30, 40\] sessions"),
        (
            [PairedDays("F1", 0, {1.0: GOOD}), PairedDays("F1", 1, {1.0: GOOD[:30]})],
            "fold 'F1', seed 1: series of",
        ),
        (
            [PairedDays("F1", 0, {1.0: GOOD}), PairedDays("F2", 0, {0.5: GOOD})],
            r"fold 'F1', seed 0: candidates \[1.0\], expected \[0.5, 1.0\]",
        ),
        ([PairedDays("F1", 0, {0.0: GOOD, 1.0: GOOD})], "candidate 0 differs from the prior"),
        ([PairedDays("F1", 0, {0.0: 0 * GOOD})], "no candidate beside the prior"),
    ],
)
def test_what_cannot_be_evidence_is_refused_by_name(
    series: list[PairedDays], expected: str
) -> None:
    with pytest.raises(MetricError, match=expected):
        accept(series, rule(), 0)


def test_folds_may_have_unlike_lengths() -> None:
    series = [PairedDays("F1", 0, {1.0: GOOD}), PairedDays("F2", 0, {1.0: GOOD[:30]})]
    assert accept(series, rule(), 0).n_sessions == 70
