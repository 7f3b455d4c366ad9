"""Runs that must not be continued or mixed are refused in one line that says what to do."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hrl_sarp.errors import CheckpointError, StoppedEarly
from hrl_sarp.run.checkpoints import load_payload, save_payload
from hrl_sarp.training import run_curriculum, run_phase
from tests.end_to_end.phase_runs import (
    StopAfter,
    assert_same,
    copy_before,
    outcome,
    running_path,
    small_config,
    small_context,
)
from tests.tiny_runs import context_of, tiny_market


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """Log folder of a run that was stopped in phase 1."""
    context = replace(small_context(tmp_path), stop=StopAfter(2))
    with pytest.raises(StoppedEarly):
        run_phase(1, context)
    return tmp_path


def refusal(caught: pytest.ExceptionInfo[CheckpointError]) -> str:
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_in_all_phases(undisturbed: Path, tmp_path: Path) -> None:
    run_curriculum(small_context(tmp_path))
    for number in range(1, 6):
        assert_same(outcome(number, tmp_path), outcome(number, undisturbed))


def test_a_checkpoint_of_another_number_of_threads_is_refused(stopped: Path) -> None:
    path = running_path(1, stopped)
    payload = load_payload(path)
    payload["threads"] = torch.get_num_threads() + 1
    save_payload(path, payload)
    with pytest.raises(CheckpointError, match="threads") as caught:
        run_phase(1, small_context(stopped, resume=True))
    assert "data_config.yaml" in refusal(caught)


def test_a_damaged_checkpoint_is_refused(stopped: Path) -> None:
    path = running_path(1, stopped)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="not a checkpoint") as caught:
        run_phase(1, small_context(stopped, resume=True))
    assert str(path) in refusal(caught)


@pytest.mark.parametrize("changes", [{"seed": 4}, {"curriculum": {"selection_window": 1}}])
def test_finished_phases_of_another_configuration_are_refused(
    changes: dict[str, object], undisturbed: Path
) -> None:
    with pytest.raises(
        CheckpointError, match=r"finished phase 1 .* with another configuration"
    ) as caught:
        run_curriculum(small_context(undisturbed, resume=True, **changes))
    assert "--log-dir" in refusal(caught)


def test_agents_of_another_market_are_refused(undisturbed: Path, tmp_path: Path) -> None:
    log_dir = copy_before(3, undisturbed, tmp_path)
    context = context_of(tiny_market(seed=1), small_config(), log_dir)
    with pytest.raises(CheckpointError, match="another market") as caught:
        run_phase(3, context)
    assert "--phase 1" in refusal(caught)
