"""Damaged files of every kind are refused by name or read as they were written; a short run."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MUTATIONS = {"configuration of a user": 5}
MUTATIONS |= dict.fromkeys(("prices of a user", "download of a user", "typed prices of a user"), 12)
KINDS = (
    *("checkpoint", "state of a run", "market cache", "manifest", "raw table", "encoder weights"),
    *("encoder description", "projection", "embedding table", "configuration of a run"),
    *("configuration of a user", "prices of a user", "download of a user"),
    *("typed prices of a user", "validation report", "walk-forward series", "trial log"),
    "paper account",
)


@pytest.fixture(scope="module")
def script(repository: Path) -> dict[str, Any]:
    return runpy.run_path(str(repository / "scripts" / "fuzz_artefacts.py"))


def test_every_kind_is_named(script: dict[str, Any]) -> None:
    assert tuple(script["KINDS"]) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused_by_name_or_changes_nothing(
    kind: str, script: dict[str, Any], tmp_path: Path
) -> None:
    count = MUTATIONS.get(kind, 60)
    outcomes, failures = script["fuzz"](kind, tmp_path / "kind", count, seed=1)
    assert failures == []
    assert outcomes.total() == count
    assert outcomes["refused"] > 0


def test_another_value_and_a_bare_error_are_failures(
    script: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"1")

    def bare() -> None:
        raise OSError(22, "Invalid argument")

    outcome_of, artefact = script["outcome_of"], script["Artefact"]
    assert outcome_of(artefact(path, path.read_bytes), b"2") == "read with another value"
    assert outcome_of(artefact(path, bare), b"2") == "OSError: [Errno 22] Invalid argument"


def test_the_same_number_gives_the_same_damage(script: dict[str, Any]) -> None:
    content = bytes(range(200))
    made = [[script["mutate"](content, np.random.default_rng(i)) for i in range(50)] for _ in "ab"]
    assert made[0] == made[1]
    assert {how for how, _ in made[0]} == {"flip", "cut", "insert", "zero", "swap"}
    assert all(damaged != content for _, damaged in made[0])
