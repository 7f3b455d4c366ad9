"""A phase that diverges stops with one line, and what it had saved before still serves."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hrl_sarp.agents.ppo.algorithm import MacroPPO
from hrl_sarp.agents.td3.algorithm import MicroTD3
from hrl_sarp.errors import TrainingDivergedError
from hrl_sarp.run.checkpoints import load_payload
from hrl_sarp.training import run_phase
from hrl_sarp.training.pretrain.gradient import MacroGradient, MicroGradient
from tests.end_to_end.phase_runs import (
    assert_same,
    copy_before,
    outcome,
    running_path,
    small_context,
)

# Calls of the loss until its result is spoilt.
TASKS = {1: (MacroGradient, 2), 2: (MicroGradient, 2)}


GROWTH = {"objective": {"kind": "growth"}}  # bounded tilts keep the gradient of `risk` finite
FAST = {"pretrain": {"learning_rate": 1e6}}


@pytest.mark.parametrize("number", TASKS)
def test_a_loss_that_is_no_number_names_step_and_rows_and_keeps_the_checkpoint(
    number: int, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, good_calls = TASKS[number]
    context = small_context(copy_before(number, undisturbed, tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(task, "loss", _spoilt(task.loss, good_calls, _nan_loss))
        message = r"nan at epoch \d+, batch \d+.*rows \d+ to \d+"
        with pytest.raises(TrainingDivergedError, match=message):
            run_phase(number, context)
    _assert_serves(number, tmp_path, undisturbed)


@pytest.mark.parametrize(("number", "algorithm"), [(3, MacroPPO), (4, MicroTD3)])
def test_weights_that_are_no_numbers_never_reach_a_checkpoint(
    number: int, algorithm: Any, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = small_context(copy_before(number, undisturbed, tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(algorithm, "train", _spoilt(algorithm.train, 1, _nan_weights))
        with pytest.raises(TrainingDivergedError, match=rf"phase {number}: weights .* after step"):
            run_phase(number, context)
    _assert_serves(number, tmp_path, undisturbed)


@pytest.mark.parametrize(
    ("number", "section", "place"),
    [
        (
            1,
            {**GROWTH, "macro_agent": {"pretrain": {"learning_rate": 1e6}}},
            r"phase 1: loss .*batch",
        ),
        (
            2,
            {**GROWTH, "micro_agent": {"pretrain": {"learning_rate": 1e6}}},
            r"phase 2: loss .*batch",
        ),
        (
            3,
            {"macro_agent": {"ppo": {"learning_rate": 1e20, "critic_warmup_steps": 0}}},
            r"macro/.*step",
        ),
        (4, {"micro_agent": {"td3": {"learning_rate": 1e20}}}, r"micro/critic_loss.*step"),
    ],
)
def test_a_huge_learning_rate_ends_in_one_line(
    number: int, section: dict[str, Any], place: str, undisturbed: Path, tmp_path: Path
) -> None:
    context = small_context(copy_before(number, undisturbed, tmp_path), **section)
    with pytest.raises(TrainingDivergedError, match=rf"{place} \d+.*rows \d+ to \d+"):
        run_phase(number, context)
    assert not context.has(number)


def _assert_serves(number: int, log_dir: Path, undisturbed: Path) -> None:
    """Without what spoilt it, the phase goes on from its last checkpoint and ends as always."""
    assert load_payload(running_path(number, log_dir))["kind"] == f"phase {number}"
    run_phase(number, replace(small_context(log_dir), resume=True))
    assert_same(outcome(number, log_dir), outcome(number, undisturbed))


def _spoilt(method: Any, good_calls: int, spoil: Callable[[Any, Any], Any]) -> Any:
    calls = 0

    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        result = method(self, *args, **kwargs)
        return result if calls <= good_calls else spoil(self, result)

    return wrapped


def _nan_loss(_: Any, result: tuple[torch.Tensor, dict[str, float]]) -> Any:
    return result[0] * torch.nan, result[1]


def _nan_weights(algorithm: Any, _: None) -> None:
    with torch.no_grad():
        next(algorithm.policy.actor.parameters())[0] = torch.nan
