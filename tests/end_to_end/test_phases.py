"""What a phase may start from, what it leaves behind, and whose checkpoint it refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hrl_sarp
from hrl_sarp.envs.levels import EpisodeStarts
from hrl_sarp.errors import (
    CheckpointError,
    HrlSarpError,
    MarketError,
    MissingArtifactError,
    StoppedEarly,
)
from hrl_sarp.run.checkpoints import load_payload, save_payload
from hrl_sarp.run.phases import PHASES
from hrl_sarp.training import run_curriculum, run_phase
from hrl_sarp.training.rl_loop import PhaseLoop
from hrl_sarp.training.selection.selector import START, Selector
from tests import tiny_runs
from tests.end_to_end.phase_runs import (
    StopAfter,
    assert_same,
    copy_before,
    differs,
    outcome,
    small_config,
    small_context,
)
from tests.end_to_end.tiny_site import Site, collect_closes_only


def actor(log_dir: Path, number: int, which: int = 0) -> Any:
    files = PHASES[number - 1]
    return load_payload(log_dir / files.folder / files.best[which])["actor"]


def test_phases_3_to_5_leave_the_regime_head_of_phase_1_alone(undisturbed: Path) -> None:
    first = actor(undisturbed, 1)
    for number in (3, 5):
        later = actor(undisturbed, number)
        assert torch.equal(first["regime.weight"], later["regime.weight"])
        assert torch.equal(first["regime.bias"], later["regime.bias"])


@pytest.mark.parametrize(
    ("number", "steps", "terms"),
    [
        (
            3,
            [0, 32, 48],
            {"macro/premium", "macro/variance", "macro/cost_term", "train/value_loss"},
        ),
        (4, [0, 96, 192], {"micro/gain", "micro/alignment", "micro/critic_loss"}),
    ],
)
def test_the_history_holds_every_evaluation_and_the_terms_of_the_reward(
    number: int, steps: list[int], terms: set[str], undisturbed: Path
) -> None:
    metrics = outcome(number, undisturbed)["metrics"]
    evaluated = [row for row in metrics["history"] if "eval/objective_pct" in row]
    assert [row["step"] for row in evaluated] == steps
    assert metrics["n_evaluations"] == len(steps)
    assert evaluated[0]["eval/objective_pct"] == metrics["first"]["objective_pct"]
    assert terms <= set().union(*metrics["history"])
    assert metrics["stages"][0]["from_step"] == 0


def test_the_first_episodes_are_drawn_by_the_first_stages_mix(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[float]] = []
    draw = EpisodeStarts.draw

    def watched(self: EpisodeStarts, n: int) -> Any:
        shares = np.bincount(self.regime, weights=self.probabilities, minlength=3)
        drawn.append(shares.tolist())
        return draw(self, n)

    monkeypatch.setattr(EpisodeStarts, "draw", watched)
    context = small_context(copy_before(3, undisturbed, tmp_path))
    with pytest.raises(StoppedEarly):
        run_phase(3, replace(context, stop=StopAfter(1)))
    assert drawn[0] == pytest.approx(context.config.curriculum.stages[0].regime_mix)


@pytest.mark.parametrize("number", [3, 4])
def test_a_phase_that_keeps_its_start_keeps_the_critic_that_it_trained(
    number: int, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[Any] = []
    monkeypatch.setattr(Selector, "settle", lambda self, title: START)
    train = PhaseLoop._on_training_start
    monkeypatch.setattr(
        PhaseLoop, "_on_training_start", lambda self: (models.append(self.model), train(self))
    )
    run_phase(number, small_context(copy_before(number, undisturbed, tmp_path)))
    before = load_payload(tmp_path / PHASES[number - 3].folder / PHASES[number - 3].best[0])
    after = load_payload(tmp_path / PHASES[number - 1].folder / PHASES[number - 1].best[0])
    policy = models[0].policy
    trained = policy.critic if number == 3 else policy.critic_target  # what TD3 leaves
    assert_same(dict(after["critic"]), dict(trained.state_dict()))
    assert differs(after["critic"], before["critic"])
    assert_same(after["actor"], before["actor"])


def test_the_joint_phase_that_keeps_its_start_keeps_the_critics_that_it_trained(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Selector, "settle", lambda self, title: START)
    run_phase(5, small_context(copy_before(5, undisturbed, tmp_path)))
    for which, earlier in ((0, 3), (1, 4)):
        before = load_payload(tmp_path / PHASES[earlier - 1].folder / PHASES[earlier - 1].best[0])
        after = load_payload(tmp_path / PHASES[4].folder / PHASES[4].best[which])
        assert differs(after["critic"], before["critic"])
        assert_same(after["actor"], before["actor"])


def test_a_stage_ends_when_its_share_of_the_steps_is_over(undisturbed: Path) -> None:
    # of 48 steps in rollouts of 16 a fifth is 9.6
    stages = outcome(3, undisturbed)["metrics"]["stages"]
    assert [(stage["name"], stage["from_step"]) for stage in stages] == [
        ("mostly_bull", 0),
        ("stress", 16),
        ("as_found", 32),
    ]


def test_histories_of_pretraining_begin_with_the_untrained_agents(undisturbed: Path) -> None:
    macro = outcome(1, undisturbed)["metrics"]["history"][0]
    assert macro["step"] == -1
    assert macro["pretrain/val_total_loss"] == -macro["pretrain/val_objective"]
    # the classical goal asks for no cash in a market without risk tables, up to the floor of a tilt
    assert macro["pretrain/val_goal_cash"] == pytest.approx(0.001, abs=1e-4)
    micro = outcome(2, undisturbed)["metrics"]["history"][0]
    assert micro["step"] == -1
    assert micro["pretrain_micro/val_score_std"] == 0.0


def test_the_best_epoch_is_what_a_supervised_phase_leaves(undisturbed: Path) -> None:
    for number, prefix in ((1, "pretrain"), (2, "pretrain_micro")):
        metrics = outcome(number, undisturbed)["metrics"]
        losses = {row["step"]: row[f"{prefix}/val_total_loss"] for row in metrics["history"]}
        assert metrics["best_epoch"] == min(losses, key=lambda epoch: losses[epoch])
        # measured again after the end, so the networks of that epoch were put back
        assert metrics["val_total_loss"] == metrics["best_val_loss"] == min(losses.values())


def test_another_seed_gives_other_numbers(undisturbed: Path, tmp_path: Path) -> None:
    run_phase(1, small_context(tmp_path, seed=4))
    history = [outcome(1, folder)["metrics"]["history"] for folder in (tmp_path, undisturbed)]
    assert differs(*history)


@pytest.mark.parametrize(("number", "missing"), [(2, 1), (3, 1), (3, 2), (4, 3), (5, 4)])
def test_a_phase_without_its_input_names_the_phase_to_run(
    number: int, missing: int, undisturbed: Path, tmp_path: Path
) -> None:
    copy_before(missing, undisturbed, tmp_path)
    with pytest.raises(MissingArtifactError, match=f"train --phase {missing}` first"):
        run_phase(number, small_context(tmp_path))


def test_an_unknown_phase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HrlSarpError, match="found 6"):
        run_phase(6, small_context(tmp_path))


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """Phase 1, stopped after its first epoch."""
    with pytest.raises(StoppedEarly):
        run_phase(1, replace(small_context(tmp_path), stop=StopAfter(2)))
    return tmp_path


@pytest.mark.parametrize(
    "values", [{"macro_agent": {"pretrain": {"learning_rate": 5e-4}}}, {"seed": 9}]
)
def test_the_checkpoint_of_another_configuration_is_refused(
    values: dict[str, Any], stopped: Path
) -> None:
    with pytest.raises(CheckpointError, match="resume with the same options"):
        run_phase(1, small_context(stopped, resume=True, **values))


def test_the_checkpoint_of_other_data_is_refused(stopped: Path) -> None:
    other = tiny_runs.tiny_market(seed=5)
    with pytest.raises(CheckpointError, match="another market"):
        run_phase(1, tiny_runs.context_of(other, small_config(), stopped, resume=True))


def test_without_resume_a_phase_begins_anew(stopped: Path, undisturbed: Path) -> None:
    run_phase(1, small_context(stopped))
    assert_same(outcome(1, stopped), outcome(1, undisturbed))


def test_a_resumed_curriculum_does_not_repeat_what_has_finished(
    undisturbed: Path, tmp_path: Path
) -> None:
    copy_before(6, undisturbed, tmp_path)
    at_once = StopAfter(1)  # whatever begins to train stops
    results = run_curriculum(replace(small_context(tmp_path, resume=True), stop=at_once))
    assert [result.number for result in results] == [1, 2, 3, 4, 5]
    (tmp_path / PHASES[1].folder / PHASES[1].metrics).unlink()  # phase 2 did not get that far
    with pytest.raises(StoppedEarly):
        run_curriculum(replace(small_context(tmp_path, resume=True), stop=StopAfter(1)))


def test_a_sector_table_of_a_longer_training_span_is_refused(
    undisturbed: Path, tmp_path: Path
) -> None:
    copy_before(2, undisturbed, tmp_path)
    path = tmp_path / PHASES[0].folder / PHASES[0].best[1]
    payload = load_payload(path)
    payload["fitted_rows"][1] += 1
    save_payload(path, payload)
    with pytest.raises(CheckpointError, match="seen the future"):
        run_phase(2, small_context(tmp_path))


def test_an_agent_in_the_place_of_the_sector_table_is_refused(
    undisturbed: Path, tmp_path: Path
) -> None:
    folder = copy_before(2, undisturbed, tmp_path) / PHASES[0].folder
    (folder / PHASES[0].best[1]).write_bytes((folder / PHASES[0].best[0]).read_bytes())
    with pytest.raises(CheckpointError, match=PHASES[0].best[1]):
        run_phase(2, small_context(tmp_path))


def test_a_run_is_loaded_by_its_folder_with_its_own_configuration(site: Site) -> None:
    run = hrl_sarp.load_run(site.log_dir, site.raw)
    assert run.config.macro_agent == site.config().macro_agent
    assert run.agents.name == "phases 1+2"
    assert run.market.n_days > 0
    with pytest.raises(MarketError, match="name the folder of its collected data"):
        hrl_sarp.load_run(site.log_dir)
    with pytest.raises(MissingArtifactError, match="run `hrl-sarp train` first"):
        hrl_sarp.load_run(site.root, site.raw)
    collect_closes_only(site)
    with pytest.raises(CheckpointError, match="market"):
        hrl_sarp.load_run(site.log_dir, site.raw)
