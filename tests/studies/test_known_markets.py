"""The command `known-markets`: cells, the table with its thresholds, failures, a second call."""

from functools import partial
from pathlib import Path

import pytest

import hrl_sarp.studies
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.errors import DataError
from hrl_sarp.known_markets.study import STUDIES, KnownMarket
from hrl_sarp.run.files import read_json
from hrl_sarp.studies import run_grid
from hrl_sarp.studies.summary import Threshold
from tests.command_line import Command, assert_refused, make_command


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return make_command(monkeypatch, capfd)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Make a market of three seeds, of which the last fails; the list fills with those that ran."""
    seeds: list[int] = []

    def run(config: RunConfig, _folder: Path) -> dict[str, float]:
        seeds.append(config.seed)
        if config.seed == 2:
            raise DataError("no close\non 2006-03-01")
        return {"share": 0.5 + 0.2 * config.seed}

    market = KnownMarket("kelly", run, (Threshold("share", ">=", 0.65),))
    monkeypatch.setitem(STUDIES, "made", market)
    monkeypatch.setattr(hrl_sarp.studies, "run_grid", partial(run_grid, in_process=True))
    monkeypatch.chdir(tmp_path)
    return seeds


def test_seeds_are_averaged_held_against_the_line_and_not_run_again(
    command: Command, ran: list[int], tmp_path: Path
) -> None:
    for _ in range(2):
        code, out, _ = command("known-markets", "--markets", "made", "--seeds", "2", "--jobs", "1")
        assert code == 0
        assert ">= 0.65 MISSED" in out
    assert ran == [0, 1]
    folder = tmp_path / "logs" / "studies" / "known_markets"
    begun = read_json(folder / "known_markets.json", "this test")
    assert (begun["markets"], begun["seeds"]) == (["made"], 2)
    (row,) = read_json(folder / "table.json", "this test")["rows"]
    assert (row["market"], row["figure"], row["met"]) == ("made", "share", False)
    assert row["mean"] == pytest.approx(0.6)
    # Student's t with one degree of freedom: 12.706 x 0.1
    expected = "| made | share | 0.6 | 0.1 | [-0.671, 1.87] | 2 | >= 0.65 MISSED |"
    assert expected in (folder / "table.md").read_text()


def test_a_seed_that_fails_is_named_and_the_others_count(command: Command, ran: list[int]) -> None:
    code, out, err = command("known-markets", "--markets", "made", "--seeds", "3", "--jobs", "1")
    assert code == 1
    assert "made-2 failed: DataError: no close on 2006-03-01" in err.splitlines()
    assert "MISSED" in out
    assert ran == [0, 1, 2]


def test_an_unknown_market_is_refused_with_the_known_ones(
    command: Command, ran: list[int], tmp_path: Path
) -> None:
    found = command("known-markets", "--markets", "made,kely")
    assert_refused(found, "no market 'kely'", "kelly")
    assert ran == []
    assert not any(tmp_path.iterdir())
