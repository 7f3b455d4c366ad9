"""A run continues what it left itself; what another run left is refused with every difference."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hrl_sarp.config.loading import dump_config
from hrl_sarp.errors import CheckpointError, TrainingDivergedError
from hrl_sarp.fitting import RunState
from hrl_sarp.fitting.resume import differences, name_difference, require_finite_weights
from hrl_sarp.run.checkpoints import save_payload
from hrl_sarp.run.earlier import CONFIG
from tests.tiny_runs import tiny_config

HASH, OTHER_HASH = "a" * 64, "b" * 64


def state(folder: Path, *, resume: bool = True, **identity: Any) -> RunState:
    return RunState(folder, "a course", identity, resume, option="--output")


def test_what_was_saved_comes_back_until_the_run_is_finished(tmp_path: Path) -> None:
    run = state(tmp_path, seed=1)
    assert run.load() is None
    run.save({"epoch": 3, "weights": torch.ones(2)})
    found = run.load()
    assert found is not None
    assert (found["epoch"], found["kind"], found["identity"]) == (3, "a course", {"seed": 1})
    run.finish()
    run.finish()  # twice does no harm
    assert run.load() is None


def test_a_run_that_begins_anew_reads_nothing(tmp_path: Path) -> None:
    state(tmp_path, seed=1).save({})
    assert state(tmp_path, resume=False, seed=2).load() is None


def test_every_value_that_differs_is_named(tmp_path: Path) -> None:
    state(tmp_path, seed=1, data=HASH, device="cpu").save({})
    with pytest.raises(CheckpointError) as caught:
        state(tmp_path, seed=2, data=OTHER_HASH, device="cpu").load()
    text = str(caught.value)
    assert "is of a run with another seed: 1 there, 2 here" in text
    assert f"another data: {HASH[:12]} there, {OTHER_HASH[:12]} here" in text
    assert "device" not in text
    assert "choose another --output" in text


def test_of_a_section_only_the_values_that_differ_are_named() -> None:
    there = {"sizes": {"hidden": 8, "layers": 2, "inner": {"a": 1, "b": 2}}}
    here = {"sizes": {"hidden": 16, "layers": 2, "inner": {"a": 1, "b": 3}}}
    expected = "sizes: hidden 8 there, 16 here, inner b 2 there, 3 here"
    assert differences(there, here) == {"sizes": expected}
    assert differences(here, here) == {}


def test_what_only_the_other_run_knows_does_not_matter() -> None:
    assert differences({"seed": 1, "phase": 3}, {"seed": 1}) == {}
    assert differences({}, {"seed": 1}) == {"seed": "seed: null there, 1 here"}


def test_a_dumped_configuration_tells_its_changes(tmp_path: Path) -> None:
    there, here = tiny_config(seed=1), tiny_config(seed=2)
    (tmp_path / CONFIG).write_text(dump_config(there))
    RunState(tmp_path, "a", {"config_hash": HASH, "seed": 1, "market": HASH}, resume=True).save({})
    identity = {"config_hash": OTHER_HASH, "seed": 2, "market": OTHER_HASH}
    run = RunState(tmp_path, "a", identity, resume=True, config=here)
    with pytest.raises(CheckpointError) as caught:
        run.load()
    text = str(caught.value)
    assert "another configuration: seed 1 there, 2 here; another market: aaaaaaaaaaaa" in text
    assert text.count("seed") == 1


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    save_payload(tmp_path / "running.pt", {"kind": "macro"})
    with pytest.raises(CheckpointError, match="expected the checkpoint of a course, found macro"):
        state(tmp_path).load()


def test_weights_that_are_no_numbers_are_named() -> None:
    module = nn.Linear(2, 1)
    require_finite_weights("phase 3", module, "step 4")
    with torch.no_grad():
        module.bias[0] = torch.inf
    with pytest.raises(
        TrainingDivergedError, match="phase 3: weights bias are not finite after st"
    ):
        require_finite_weights("phase 3", module, "step 4")


FACTS = {"profile": "us", "days": "2000 to 2010", "stocks": "A, B, C"}


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ({**FACTS, "profile": "nse"}, "profile nse there, us here"),
        (
            {**FACTS, "days": "2000 to 2009"},
            "days 2000 to 2009 there, 2000 to 2010 here (`decide` and `paper` take the new days; "
            "this needs a data folder that ends 2009)",
        ),
        ({**FACTS, "days": "2000 to 2011"}, "days 2000 to 2011 there, 2000 to 2010 here"),
        ({**FACTS, "days": "1999 to 2009"}, "days 1999 to 2009 there, 2000 to 2010 here"),
        ({**FACTS, "stocks": "A, C, D"}, "stocks only there: D, only here: B"),
        ({**FACTS, "stocks": "A, B"}, "stocks only there: none, only here: C"),
        (FACTS, "the same days, stocks and features with other values"),
        ({}, "the file does not say which"),
    ],
)
def test_another_market_is_named_by_what_differs(
    there: dict[str, str], told: str, tmp_path: Path
) -> None:
    state = RunState(tmp_path, "phase 1", {"market": "a" * 64, "market_facts": FACTS}, resume=True)
    found = {"market": "b" * 64, "market_facts": there}
    assert state.find_differences(found) == [f"market: {told}"]
    # facts explain a hash that differs; alone they decide nothing, so older files stay good
    assert state.find_differences({"market": "a" * 64}) == []


def test_a_market_of_many_other_stocks_names_a_few(tmp_path: Path) -> None:
    here = {"stocks": ", ".join(f"S{number}" for number in range(20))}
    assert name_difference({"stocks": "T"}, here) == (
        "stocks only there: T, only here: S0, S1, S2, S3, S4 and 15 more"
    )


def test_only_days_that_went_on_name_who_takes_them() -> None:
    told = name_difference({"training span": "2000 to 2009"}, {"training span": "2000 to 2010"})
    assert told == "training span 2000 to 2009 there, 2000 to 2010 here"
