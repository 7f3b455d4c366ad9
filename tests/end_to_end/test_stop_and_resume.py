"""A phase that was stopped at its boundaries ends exactly as one that was left alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from hrl_sarp.errors import StoppedEarly
from hrl_sarp.training import run_phase
from tests.end_to_end.phase_runs import (
    StopAfter,
    assert_same,
    copy_before,
    outcome,
    run_with_stops,
    running_path,
    small_context,
)

# At which look at the flag to stop; phases look at every boundary, and a resumed phase looks again
# at the boundary where it stopped.
STOPS = {1: [2, 2], 2: [2, 2], 3: [1, 2, 2], 4: [1, 3, 9, 6], 5: [1, 2, 4]}


@pytest.mark.parametrize(("number", "looks"), STOPS.items())
def test_a_phase_stopped_again_and_again_ends_as_the_undisturbed_one(
    number: int, looks: list[int], undisturbed: Path, tmp_path: Path
) -> None:
    context = small_context(copy_before(number, undisturbed, tmp_path))
    assert run_with_stops(number, context, looks) == len(looks)
    assert_same(outcome(number, tmp_path), outcome(number, undisturbed))
    assert not running_path(number, tmp_path).exists()


@pytest.mark.parametrize("number", [1, 3])
def test_a_stopped_phase_leaves_a_whole_checkpoint_and_no_result(
    number: int, undisturbed: Path, tmp_path: Path
) -> None:
    context = small_context(copy_before(number, undisturbed, tmp_path))
    with pytest.raises(StoppedEarly):
        run_phase(number, replace(context, stop=StopAfter(2)))
    assert replace(context, resume=True).state(number).load() is not None
    assert not context.has(number)
    assert [path for path in context.folder(number).rglob("*") if ".tmp" in path.name] == []
