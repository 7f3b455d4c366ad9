"""The script that kills runs: how kills are shared out, and what its comparison sees."""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from hrl_sarp.run.checkpoints import save_payload
from hrl_sarp.run.files import write_json, write_table

WEIGHTS = (
    "pretrain_macro/best_pretrain_macro.pt",
    "pretrain_macro/sector_graph.pt",
    "pretrain_micro/best_pretrain_micro.pt",
    "phase3_macro/best_macro.pt",
    "phase4_micro/best_micro.pt",
    "phase5_joint/best_joint_macro.pt",
    "phase5_joint/best_joint_micro.pt",
)
METRICS = (
    "pretrain_macro/pretrain_macro_metrics.json",
    "pretrain_micro/pretrain_micro_metrics.json",
    "phase3_macro/phase3_macro_metrics.json",
    "phase4_micro/phase4_micro_metrics.json",
    "phase5_joint/phase5_joint_metrics.json",
    "backtest/metrics.json",
)
LEDGERS = ("backtest/ledger.parquet", "backtest/daily.parquet")
MARKET = "data/market/sample-0.npz"


@pytest.fixture(scope="module")
def script(repository: Path) -> dict[str, Any]:
    return load(repository, "kill_anywhere")


@pytest.fixture(scope="module")
def compare(repository: Path) -> dict[str, Any]:
    return load(repository, "compare_runs")


def load(repository: Path, name: str) -> dict[str, Any]:
    path = list(sys.path)
    # the name of this module: dataclasses look theirs up
    content = runpy.run_path(str(repository / "scripts" / f"{name}.py"), run_name=__name__)
    sys.path[:] = path
    return content


def finished_run(folder: Path) -> Path:
    """Write what a finished run leaves, in miniature."""
    logs = folder / "logs"
    for name in WEIGHTS:
        save_payload(logs / name, {"kind": "macro", "actor": {"weight": torch.ones(2)}})
    for name in METRICS:
        write_json(logs / name, {"history": [{"step": 0, "loss": 0.5, "time/fps": hash(folder)}]})
    for name in LEDGERS:
        write_table(logs / name, pl.DataFrame({"wealth": [1.0, 1.1]}))
    (folder / MARKET).parent.mkdir(parents=True)
    np.savez(folder / MARKET, returns=np.ones(3))
    return folder


def test_equal_runs_do_not_differ_whatever_their_speed(
    compare: dict[str, Any], tmp_path: Path
) -> None:
    first, second = (finished_run(tmp_path / name) for name in "ab")
    assert list(compare["find_differences"](first, second)) == []
    assert compare["main"]([str(first), str(second)]) == 0


def change_weight(folder: Path) -> None:
    payload = {"kind": "macro", "actor": {"weight": torch.tensor([1.0, 1.0 + 2**-23])}}
    save_payload(folder / "logs" / WEIGHTS[3], payload)


def change_metric(folder: Path) -> None:
    write_json(folder / "logs" / METRICS[4], {"history": [{"step": 0, "loss": 0.6}]})


def change_ledger(folder: Path) -> None:
    write_table(folder / "logs" / LEDGERS[0], pl.DataFrame({"wealth": [1.0, 1.2]}))


def change_market(folder: Path) -> None:
    np.savez(folder / MARKET, returns=np.ones(3, np.float32))


def lose_a_file(folder: Path) -> None:
    (folder / "logs" / METRICS[0]).unlink()


def leave_a_checkpoint(folder: Path) -> None:
    (folder / "logs" / "phase4_micro" / "running.pt").touch()


def leave_a_temporary_file(folder: Path) -> None:
    (folder / "logs" / "phase4_micro" / ".running.abcdefgh.hrl_sarp.tmp.pt").touch()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (change_weight, "best_macro.pt/actor/weight"),
        (change_metric, "phase5_joint_metrics.json/history/0/loss"),
        (change_ledger, "ledger.parquet"),
        (change_market, "sample-0.npz/returns"),
        (lose_a_file, "pretrain_macro_metrics.json is missing"),
        (leave_a_checkpoint, "running.pt was left behind"),
        (leave_a_temporary_file, ".running.abcdefgh.hrl_sarp.tmp.pt was left behind"),
    ],
)
def test_one_difference_is_found_and_named(
    change: Callable[[Path], None], named: str, compare: dict[str, Any], tmp_path: Path
) -> None:
    first, second = (finished_run(tmp_path / name) for name in "ab")
    change(second)
    (found,) = compare["find_differences"](first, second)
    assert named in found
    assert compare["main"]([str(first), str(second)]) == 1


def test_every_stage_gets_kills_and_all_together_enough(script: dict[str, Any]) -> None:
    seconds = dict(zip(script["STAGES"], (10, 1, 4, 100, 400, 225, 6400), strict=True))
    shares = script["share_out"](seconds, 100)
    assert sum(shares.values()) >= 100
    assert min(shares.values()) >= script["FEWEST_KILLS"]
    # what has no checkpoint begins anew after each: no more than the fewest
    assert shares["market"] == shares["backtest"] == script["FEWEST_KILLS"]
    # beyond the fewest, the root of the duration counts: 400 s get twice as many as 100 s
    extra = {stage: n - script["FEWEST_KILLS"] for stage, n in shares.items()}
    assert extra["4"] == pytest.approx(2 * extra["3"], abs=1)


def test_moments_lie_within_the_work_and_follow_from_the_seed(script: dict[str, Any]) -> None:
    drawn = []
    for _ in range(2):
        plan = script["Plan"]({"3": 10.0}, {"3": 20}, np.random.default_rng(7))
        drawn.append(plan.targets("3"))
    assert drawn[0] == drawn[1]
    assert drawn[0] == sorted(drawn[0], reverse=True)  # the last is taken first
    assert min(drawn[0]) >= 0.0
    assert max(drawn[0]) <= 10.0
