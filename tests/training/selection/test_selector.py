"""What is evaluated is what is kept, and only if the evidence says that it beats the start."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hrl_sarp.config.loading import load_config
from hrl_sarp.errors import MetricError
from hrl_sarp.run.checkpoints import load_payload, save_payload
from hrl_sarp.training.selection.selector import Selector, choose_temperature, mean_weights
from hrl_sarp.training.selection.validation import ValidationScore
from tests.tiny_runs import changed

RULE = changed(load_config().curriculum.acceptance, {"samples": 200, "block_days": 10})
NOISE = 0.5 * np.random.default_rng(0).normal(size=250)
NOISE -= NOISE.mean()


def score(growth: float, noise: np.ndarray | float = 0.0) -> ValidationScore:
    """Return a score of a mean growth in % a year."""
    daily = np.full(250, growth / 252) + noise
    return ValidationScore(252 * float(daily.mean()), growth, growth, 0.0, 1.0, 0.0, daily)


def selected(*growth: float) -> Selector:
    selector = Selector(RULE, seed=0)
    for value in growth:
        selector.add(score(value))
    return selector


def test_the_evaluation_that_is_kept_is_the_one_that_scored() -> None:
    selector = Selector(RULE, seed=0)
    kept = [selector.add(score(growth)) for growth in (0.0, 3.0, 3.0, -5.0, 4.0)]
    assert kept == [True, True, False, False, True]
    summary = selector.summary()
    assert (summary["best_evaluation"], summary["n_evaluations"]) == (4, 5)
    assert summary["best"]["objective_pct"] == pytest.approx(4.0)
    assert summary["acceptance"]["granted"] == 4.0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-9.0, 0.0), min_size=1, max_size=6))
def test_the_start_stays_if_nothing_beats_it(later: list[float]) -> None:
    selector = selected(0.0, *later)
    assert (selector.settle("phase 3"), selector.best_index) == (0, 0)


def test_a_better_mean_without_evidence_is_not_kept() -> None:
    # 252 x 0.5 x sqrt(1 / 250) = 8 % a year is one standard error
    selector = Selector(RULE, seed=0)
    assert [selector.add(score(g, n)) for g, n in ((0.0, 0.0), (4.0, NOISE), (40.0, NOISE))] == [
        True,
        False,
        True,
    ]


def test_training_that_only_adds_noise_seldom_replaces_the_start() -> None:
    rng, n_studies, replaced = np.random.default_rng(1), 40, 0
    for number in range(n_studies):
        selector = Selector(RULE, seed=number)
        for evaluation in range(7):
            selector.add(score(0.0, float(evaluation > 0) * rng.normal(size=250)))
        replaced += selector.settle("phase 3") > 0
    assert replaced / n_studies <= 0.10 + 2 * math.sqrt(0.1 * 0.9 / n_studies)


def test_further_evaluations_can_take_back_what_one_was_granted() -> None:
    # 9 % a year is 1.5 standard errors: enough for one evaluation, too little for one of nine
    rng = np.random.default_rng(2)
    selector = Selector(RULE, seed=0)
    selector.add(score(0.0))
    assert selector.add(score(12.5, NOISE))
    for _ in range(12):
        other = 0.5 * rng.normal(size=250)
        assert not selector.add(score(-1.0, other - other.mean()))
    assert selector.settle("phase 3") == 0


def test_a_score_that_is_no_number_is_refused() -> None:
    selector = selected(0.0)
    with pytest.raises(MetricError, match="candidate 1 is nan in session 0"):
        selector.add(score(math.nan))


def test_a_selection_continues_from_a_checkpoint(tmp_path) -> None:
    first = selected(0.0, 3.0)
    path = save_payload(tmp_path / "state.pt", {"kind": "selector", "state": first.state_dict()})
    second = Selector(RULE, seed=0)
    second.load_state_dict(load_payload(path)["state"])
    first.add(score(4.0)), second.add(score(4.0))
    assert first.summary() == second.summary()


def test_stages_end_on_full_windows_only() -> None:
    selector = selected(0.0, 3.0, 6.0)
    assert selector.recent_mean(since=1, window=3) is None
    assert selector.recent_mean(since=1, window=2) == pytest.approx(4.5)


def test_the_mean_of_networks_is_exact_where_they_agree() -> None:
    third = torch.tensor([1 / 3, 0.1])
    networks = [{"a": third + i, "b": third, "n": torch.tensor(i)} for i in (0, 1, 5)]
    found = mean_weights(networks)
    assert torch.allclose(found["a"], third + 2)
    assert torch.equal(found["b"], third)
    assert found["n"].item() == 5


class Scaled(torch.nn.Module):
    """A network with one weight: what it learned times the temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(2.0))

    def calibrate(self, temperature: float) -> None:
        with torch.no_grad():
            self.weight.mul_(temperature)


def choose(growth_of: dict[float, float], noise: float) -> tuple[dict, float]:
    agent = SimpleNamespace(actor=Scaled(), seed=0)

    def evaluate(agents: list[SimpleNamespace]) -> list[ValidationScore]:
        temperatures = [scaled.actor.weight.item() / 2 for scaled in agents]
        return [score(growth_of[t], t * noise * NOISE) for t in temperatures]

    found = choose_temperature(
        "phase 1", agent, [1.0, 0.0, 4.0], evaluate, RULE, sessions_per_year=252
    )
    return found, agent.actor.weight.item()


def test_the_temperature_that_grows_most_for_sure_is_taken() -> None:
    found, weight = choose({0.0: -1.0, 1.0: 3.0, 4.0: 2.0}, noise=0.01)
    assert (found["temperature"], weight) == (1.0, 2.0)
    assert found["temperatures"] == pytest.approx({"0.0": -1.0, "1.0": 3.0, "4.0": 2.0})
    assert found["validation"]["objective_pct"] == pytest.approx(3.0)


def test_without_evidence_the_network_is_not_used() -> None:
    found, weight = choose({0.0: 0.0, 1.0: 2.0, 4.0: 6.0}, noise=1.0)
    assert (found["temperature"], weight) == (0.0, 0.0)
    assert found["acceptance"]["asked"] == 4.0


def test_the_newest_evaluation_is_given_back_as_it_was_added() -> None:
    selector = selected(1.0, 3.0)
    newest = selector.newest()
    assert newest == score(3.0)
    assert newest.daily.tolist() == selector.days[1].tolist()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_what_is_said_to_be_granted_is_the_evaluation_that_is_deployed(draw: int) -> None:
    # a further evaluation lowers the bounds of uncertain ones more, so that their order may change
    rng = np.random.default_rng(draw)
    selector = Selector(RULE, seed=0)
    selector.add(score(0.0))
    for _ in range(6):
        gain, spread = rng.uniform(0, 12), rng.uniform(0.1, 1.5)
        selector.add(score(gain, spread * rng.normal(size=250)))
    kept = selector.best_index
    deployed = selector.settle("phase 3")
    assert deployed in (kept, 0)
    assert selector.summary()["acceptance"]["granted"] == deployed
    said = selector.acceptance().sentence("phase 3", "evaluation", "its start")
    granted = f"evaluation {deployed} granted" if deployed else "its start stays"
    assert granted in said
