"""A run of several seeds: each is the run of its seed, their mean decides, and kinds do not mix."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hrl_sarp.cli.options import parse_numbers
from hrl_sarp.contracts import Market
from hrl_sarp.envs.policies import MixedGoal, MixedTarget
from hrl_sarp.errors import CheckpointError, ConfigError, HrlSarpError
from hrl_sarp.evaluation.policies import granted, trained_policies, training_curves
from hrl_sarp.known_markets.two_level_study import write_untrained
from hrl_sarp.run.checkpoints import load_payload
from hrl_sarp.run.files import read_json
from hrl_sarp.run.phases import PHASES, SEEDS, require_kind, seed_folders
from hrl_sarp.training import run_curriculum
from hrl_sarp.training.certify import certify, read_certification
from hrl_sarp.training.phase import PhaseContext, with_sector_table
from hrl_sarp.training.seeds import members, train_seeds
from tests import tiny_runs
from tests.end_to_end.phase_runs import assert_same

PAIR = (4, 1)


def context(log_dir: Path, *, seed: int = 3, resume: bool = False) -> PhaseContext:
    config = tiny_runs.tiny_config(seed=seed)
    return tiny_runs.context_of(tiny_runs.tiny_market(), config, log_dir, resume=resume)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("both")
    train_seeds(context(folder), PAIR)
    certify(context(folder))
    return folder


def test_each_seed_ends_with_the_weights_of_its_own_run(both: Path, tmp_path: Path) -> None:
    run_curriculum(context(tmp_path, seed=PAIR[1]))
    for files in PHASES:
        for name in files.best:
            alone = load_payload(tmp_path / files.folder / name)
            assert_same(load_payload(seed_folders(both)[PAIR[1]] / files.folder / name), alone)


def test_the_mean_of_the_seeds_is_deployed_beside_each_of_them(both: Path) -> None:
    policies, swaps = trained_policies(context(both))
    named = {policy.name: policy for policy in policies}
    whole, parts = named[swaps.both], [named[f"joint, seed {seed}"] for seed in PAIR]
    assert policies[0].name == "certified"
    assert isinstance(whole.macro, MixedGoal)
    assert isinstance(whole.micro, MixedTarget)
    assert whole.macro.shares == whole.micro.shares == (0.5, 0.5)
    observed = {"day": torch.tensor([[150.0]])}
    sectors = whole.macro.parts[0].tensors.n_sectors
    observed["portfolio"] = torch.zeros(1, sectors + 3)
    found = [policy.macro.goal(observed).cash.item() for policy in parts]
    assert whole.macro.goal(observed).cash.item() == pytest.approx(sum(found) / 2, abs=1e-6)
    assert any(name.startswith("seed 4, phase 1") for name in granted(both))
    assert whole.description.endswith("; the mean of the decisions of 2 seeds")
    assert "of one seed alone" in parts[0].description
    assert all(policy.description for policy in policies)


def test_every_phase_has_a_curve_of_each_seed_with_all_that_validation_saw(both: Path) -> None:
    panels = training_curves(both)
    assert [panel.title.split(":")[0] for panel in panels] == [f"Phase {n}" for n in range(1, 6)]
    for seed in PAIR:
        folder = seed_folders(both)[seed]
        for files, whole, own in zip(PHASES, panels, training_curves(folder), strict=True):
            metrics = read_json(folder / files.folder / files.metrics, "train")
            steps, values = own.curves["validation"]
            assert whole.curves[f"validation, seed {seed}"] == (steps, values)
            assert len(steps) == len(values) >= metrics.get("n_evaluations", 2)
            kept = metrics.get("val_objective", metrics.get("best", {}).get("objective_pct"))
            assert values[list(steps).index(own.best)] == kept, own.title
            assert whole.best is None


def test_each_seed_reads_its_own_sector_table_on_a_changed_market(both: Path) -> None:
    def later(market: Market) -> Market:
        return replace(market, name="changed")

    (whole,) = [p for p in trained_policies(context(both), later)[0] if p.name == "joint"]
    tables = [part.tensors.sector_embeddings for part in whole.macro.parts]
    for member, table in zip(members(context(both)), tables, strict=True):
        own = with_sector_table(member).tensors.sector_embeddings
        assert own is not None
        assert torch.equal(table, own)
    assert not torch.equal(*tables)


def test_a_run_of_one_seed_is_its_own_member(tmp_path: Path) -> None:
    alone = context(tmp_path)
    assert members(alone) == [alone]
    assert seed_folders(tmp_path) == {None: tmp_path}


def test_a_finished_run_is_not_trained_again_and_other_seeds_are_refused(
    both: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrl_sarp.training.curriculum.RUNNERS", dict.fromkeys(range(1, 6)))
    train_seeds(context(both, resume=True), PAIR)
    with pytest.raises(CheckpointError, match=r"seeds \[4, 1\], asked for are \[4, 2\]"):
        train_seeds(context(both, resume=True), (4, 2))


def test_training_anew_forgets_what_was_certified_before(
    both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(both, tmp_path / "again")
    monkeypatch.setattr("hrl_sarp.training.seeds.run_curriculum", lambda _: None)
    train_seeds(context(folder, resume=True), PAIR)
    assert read_certification(folder) is not None
    train_seeds(context(folder), PAIR)  # stopped before its own certification
    assert read_certification(folder) is None


def test_runs_of_one_and_of_several_seeds_do_not_mix(both: Path, tmp_path: Path) -> None:
    with pytest.raises(HrlSarpError, match="holds a run of several seeds: give --seeds"):
        require_kind(both, several=False)
    write_untrained(context(tmp_path), (1,))
    with pytest.raises(HrlSarpError, match="holds a run of one seed"):
        train_seeds(context(tmp_path), PAIR)
    assert not (tmp_path / SEEDS).exists()


@pytest.mark.parametrize("seeds", [(), (1, 1), (0, -1)])
def test_seeds_that_cannot_be_meant_are_refused(tmp_path: Path, seeds: tuple[int, ...]) -> None:
    with pytest.raises(HrlSarpError, match="--seeds: expected different numbers"):
        train_seeds(context(tmp_path), seeds)
    assert not any(tmp_path.rglob("*.json"))


def test_seeds_are_read_from_text() -> None:
    assert parse_numbers(None, "--seeds", "0,1,2") is None
    assert parse_numbers("2, 0,1", "--seeds", "0,1,2") == (2, 0, 1)
    with pytest.raises(
        ConfigError, match=r"--seeds: expected numbers .* such as 0,1,2, found '0-2'"
    ):
        parse_numbers("0-2", "--seeds", "0,1,2")
