"""Overfitting and reality checks: written out plainly, and on tables whose answer is known."""

import time
from itertools import combinations

import numpy as np
import pytest
from arch.bootstrap import SPA, StepM

from hrl_sarp.errors import MetricError
from hrl_sarp.evaluation import statistics
from hrl_sarp.evaluation.statistics import overfitting
from hrl_sarp.metrics import ROUNDING


def written_out(table: np.ndarray, n_blocks: int) -> float:
    """Compute the probability of overfitting row by row, as the paper tells it."""
    blocks, logits = np.array_split(np.arange(len(table)), n_blocks), []
    for chosen in combinations(range(n_blocks), n_blocks // 2):
        inside = np.concatenate([blocks[i] for i in chosen])
        outside = np.setdiff1d(np.arange(len(table)), inside)
        ratios = [
            table[rows].mean(axis=0) / table[rows].std(axis=0, ddof=1) for rows in (inside, outside)
        ]
        best = ratios[0].argmax()
        rank = 1 + (ratios[1] < ratios[1][best]).sum()
        share = rank / (table.shape[1] + 1)
        logits.append(np.log(share / (1 - share)))
    return float(np.mean(np.array(logits) <= 0))


@pytest.mark.parametrize(("n_periods", "n_configurations"), [(80, 5), (83, 6), (121, 17)])
def test_probability_of_overfitting_is_that_of_the_paper(
    n_periods: int, n_configurations: int
) -> None:
    rng = np.random.default_rng(n_periods)
    # a mean of many deviations: sums of squares that forget it would lose all digits
    table = rng.normal(0.001, 0.01, (n_periods, n_configurations)) + rng.normal(0, 0.003)
    for n_blocks in (2, 8):
        found = statistics.probability_of_overfitting(table, n_blocks)
        assert found == pytest.approx(written_out(table, n_blocks), abs=1e-12)


@pytest.mark.parametrize("chunk", [7, 70])
def test_ranks_in_the_middle_are_told_apart(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overfitting, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    found = []
    for n in (6, 8, 12):  # even: a rank of n / 2 + 1 is above the median, n / 2 is not
        table = rng.normal(0, 0.01, (81, n)) + np.linspace(-0.002, 0.002, n)
        found.append(statistics.probability_of_overfitting(table, 8))
        assert found[-1] == pytest.approx(written_out(table, 8), abs=1e-12)
    assert max(found) > 0


def test_the_better_of_two_in_both_halves_is_not_overfitted() -> None:
    series = np.random.default_rng(0).normal(0, 0.01, (40, 1))
    assert statistics.probability_of_overfitting(series + np.array([[0.01, 0.0]]), 2) == 0.0


def test_ratios_of_blocks_are_those_of_their_rows() -> None:
    # lengths differ, and so do the sizes of the columns; one does not move
    table = np.random.default_rng(1).normal(0, 0.02, (27, 4)) + np.array([0.01, -0.03, 500.0, 0.0])
    table[:, 3] = 0.25
    halves = overfitting._halves(4)
    found = overfitting._ratios(halves, *overfitting._block_sums(table, 4))
    blocks = np.array_split(np.arange(27), 4)
    for mask, ratios in zip(halves, found, strict=True):
        rows = np.concatenate([block for block, inside in zip(blocks, mask, strict=True) if inside])
        part = table[rows, :3]
        expected = part.mean(axis=0) / part.std(axis=0, ddof=1)
        np.testing.assert_allclose(ratios[:3], expected, rtol=1e-9)
        assert ratios[3] == 0.0


def test_a_configuration_that_moves_by_rounding_has_no_ratio() -> None:
    # 0, r, 2 r: mean and sample deviation are r
    edge = ROUNDING * np.array([[0.0], [1.0], [2.0]])
    whole = np.array([[True]])
    assert overfitting._ratios(whole, *overfitting._block_sums(edge, 1)).tolist() == [[0.0]]
    moving = overfitting._ratios(whole, *overfitting._block_sums(1.5 * edge, 1))
    assert moving == pytest.approx(np.array([[1.0]]))


def test_noise_is_overfitted_about_as_often_as_not_and_skill_is_not() -> None:
    rng = np.random.default_rng(0)
    noise = [
        statistics.probability_of_overfitting(rng.normal(0, 0.01, (500, 20)), 8) for _ in range(40)
    ]
    assert np.mean(noise) == pytest.approx(0.5, abs=0.1)
    table = rng.normal(0, 0.01, (500, 20))
    table[:, 7] += 0.01
    assert statistics.probability_of_overfitting(table) == 0.0


def test_what_wins_in_one_half_only_is_overfitted() -> None:
    # each configuration earns on one half of the blocks what it loses on the other
    signs = np.array(list(combinations(range(4), 2)))
    table = np.full((40, len(signs)), -0.01)
    for column, blocks in enumerate(signs):
        for block in blocks:
            table[10 * block : 10 * block + 10, column] = 0.01
    table += np.random.default_rng(0).normal(0, 1e-4, table.shape)
    assert statistics.probability_of_overfitting(table, 4) == 1.0


def test_equal_configurations_are_no_better_than_the_median() -> None:
    series = np.random.default_rng(0).normal(0.001, 0.01, (100, 1))
    rounding = 1e-17 * np.arange(5)
    assert statistics.probability_of_overfitting(series + np.zeros(5) + rounding, 4) == 1.0
    assert statistics.probability_of_overfitting(np.zeros((100, 5)), 4) == 1.0


@pytest.mark.parametrize(
    ("shape", "n_blocks"), [((100, 5), 3), ((100, 1), 4), ((7, 5), 4), ((100, 5), 0)]
)
def test_a_table_that_is_too_small_is_refused(shape: tuple[int, int], n_blocks: int) -> None:
    with pytest.raises(MetricError, match=r"^overfitting of .*fewer blocks or a longer span$"):
        statistics.probability_of_overfitting(np.ones(shape), n_blocks)
    with pytest.raises(MetricError, match="overfitting of"):
        statistics.probability_of_overfitting(np.full((100, 5), np.nan), 4)
    assert statistics.probability_of_overfitting(np.random.default_rng(0).normal(size=(8, 2)), 4)


def test_a_thousand_configurations_take_seconds() -> None:
    table = np.random.default_rng(0).normal(0, 0.01, (2500, 1000))
    start = time.process_time()
    found = statistics.probability_of_overfitting(table)
    assert time.process_time() - start < 5
    assert found * 12_870 == pytest.approx(round(found * 12_870))  # C(16, 8) splits


def policies(n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Draw a benchmark, and policies that differ from it by noise; one earns much more."""
    rng = np.random.default_rng(5)
    benchmark = rng.normal(0.0004, 0.01, 600)
    models = benchmark[:, None] + rng.normal(0, 0.003, (600, n))
    models[:, 4] += 0.002
    return benchmark, models


def test_reality_checks_are_those_of_the_library() -> None:
    benchmark, models = policies()
    models[:, 4] -= 0.0018
    test = SPA(-benchmark, -models, block_size=5, reps=200, seed=np.random.default_rng(1))
    test.compute()
    found = statistics.superior_predictive_ability(benchmark, models, 5, 200, seed=1)
    assert found == pytest.approx(float(test.pvalues["consistent"]), rel=1e-12)
    assert 0.02 < found < 0.98
    steps = StepM(-benchmark, -models, 0.2, block_size=5, reps=200, seed=np.random.default_rng(1))
    steps.compute()
    named = statistics.superior_policies(benchmark, models, 5, 200, seed=1, size=0.2)
    assert named == sorted(int(place) for place in steps.superior_models)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_draws_are_those_that_were_asked_for(seed: int) -> None:
    # 60 policies on the border: another seed, block or number of samples names others
    rng = np.random.default_rng(seed)
    benchmark = rng.normal(0.0, 0.01, 200)
    models = benchmark[:, None] + 0.003 * (rng.standard_normal((200, 60)) + np.linspace(0, 0.4, 60))
    draws = {"block_size": 7, "reps": 30}
    steps = StepM(-benchmark, -models, 0.1, seed=np.random.default_rng(seed), **draws)
    steps.compute()
    expected = sorted(int(place) for place in steps.superior_models)
    assert 5 < len(expected) < 55
    assert statistics.superior_policies(benchmark, models, 7, 30, seed, size=0.1) == expected
    weak = models[:, :10]
    test = SPA(-benchmark, -weak, seed=np.random.default_rng(seed), **draws)
    test.compute()
    found = statistics.superior_predictive_ability(benchmark, weak, 7, 30, seed)
    assert found == pytest.approx(float(test.pvalues["consistent"]), rel=1e-12)


def test_reality_checks_find_skill_and_no_luck() -> None:
    benchmark, models = policies()
    assert statistics.superior_predictive_ability(benchmark, models, 5, 200, seed=0) < 0.01
    assert statistics.superior_policies(benchmark, models, 5, 200, seed=0) == [4]
    luck = np.delete(models, 4, axis=1)
    assert statistics.superior_predictive_ability(benchmark, luck, 5, 200, seed=0) > 0.1
    assert statistics.superior_policies(benchmark, luck, 5, 200, seed=0) == []


def test_policies_that_are_the_benchmark_have_no_test() -> None:
    benchmark, models = policies(5)
    same = np.stack([benchmark, benchmark - 0.001], axis=1)
    assert statistics.superior_predictive_ability(benchmark, same, 5, 50, seed=0) == 1.0
    assert statistics.superior_policies(benchmark, same, 5, 50, seed=0) == []
    # among others they are passed over, and what earns more in every period is no luck
    both = np.concatenate([same, models, benchmark[:, None] + 0.001], axis=1)
    assert statistics.superior_policies(benchmark, both, 5, 200, seed=0) == [6, 7]
    assert statistics.superior_predictive_ability(benchmark, both, 5, 200, seed=0) == 0.0
    assert statistics.superior_policies(benchmark, both[:, [0, 7]], 5, 50, seed=0) == [1]


def test_what_differs_by_rounding_does_not_differ() -> None:
    # columns: deviation r, deviation 2 r, mean r, mean 2 r
    models = ROUNDING * np.array([[-1.0, -2.0, 1.0, 2.0], [1.0, 2.0, 1.0, 2.0]])
    moving, surely_better = overfitting._differing(np.zeros(2), models)
    assert moving.tolist() == [False, True, False, False]
    assert surely_better.tolist() == [False, False, False, True]


def test_returns_of_other_periods_are_refused() -> None:
    benchmark, models = policies(5)
    for test in (statistics.superior_predictive_ability, statistics.superior_policies):
        with pytest.raises(MetricError) as refused:
            test(benchmark[1:], models, 5, 50, seed=0)
        assert str(refused.value) == (
            "reality check of 600 periods against 599 of the benchmark: expected finite returns "
            "over the same periods; align them by date"
        )
        with pytest.raises(MetricError, match="same periods"):
            test(benchmark, np.full_like(models, np.nan), 5, 50, seed=0)


def test_every_half_is_chosen_once() -> None:
    halves = overfitting._halves(6)
    assert halves.shape == (20, 6)
    assert (halves.sum(axis=1) == 3).all()
    assert len({tuple(row) for row in halves.tolist()}) == 20
