"""Learning rates by update follow the published schedules, and a resumed run goes on with them."""

import signal
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from hrl_sarp.errors import StoppedEarly
from hrl_sarp.fitting import Fit, RunState, Schedule, World
from hrl_sarp.fitting.schedule import one_cycle, warmup_stable_decay
from hrl_sarp.run.session import StopFlag


@pytest.mark.parametrize("total", [7, 40, 333])
@pytest.mark.parametrize(("rising", "divisor"), [(0.03, 10.0), (0.3, 25.0), (0.5, 4.0)])
def test_one_cycle_is_that_of_pytorch(total: int, rising: float, divisor: float) -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total, pct_start=rising, div_factor=divisor
    )
    for update in range(total):
        ours = one_cycle(update, total, rising, 1.0 / divisor)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), update
        optimizer.step()
        if update + 1 < total:
            theirs.step()


@pytest.mark.parametrize(
    ("rising", "staying", "falling"), [(20, 130, 50), (10, 5, 8), (0, 3, 4), (1, 0, 1), (2, 2, 0)]
)
def test_the_other_schedule_rises_stays_and_falls_to_its_last_share(
    rising: int, staying: int, falling: int
) -> None:
    total = rising + staying + falling
    plan = {"warmup": rising / total, "decay": falling / total, "last_share": 0.2}
    shares = [warmup_stable_decay(update, total, **plan) for update in range(total + 3)]
    rise, stay, fall = shares[:rising], shares[rising:][:staying], shares[rising + staying : total]
    assert rise == pytest.approx([0.2 + 0.8 * (step + 1) / rising for step in range(rising)])
    assert stay == [1.0] * staying
    assert all(later < earlier for earlier, later in pairwise(fall))
    assert shares[total - 1 :] == pytest.approx([0.2 if falling else 1.0] + [0.2] * 3)


class _Line:
    """A line whose weight goes to 3; it notes the rate of each update."""

    title = "line"

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = nn.Linear(1, 1, bias=False)
        self.train_rows = torch.arange(12)
        self.stop: StopFlag | None = None
        self.calls = 0

    def loss(self, rows: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, dict]:
        self.calls += 1
        if self.stop is not None and self.calls == 4:
            signal.raise_signal(signal.SIGINT)
        noise = torch.randn(len(rows), 1, generator=generator)
        return (self.module(1 + noise) - 3).square().mean(), {}

    def validate(self) -> tuple[float, dict[str, float]]:
        return abs(self.module.weight.item() - 3), {}

    def describe(self, rows: torch.Tensor) -> str:
        return f"rows {rows.tolist()}"


def _fit(task: _Line, folder: Path, stop: StopFlag, *, resume: bool) -> Fit:
    schedule = Schedule(
        *(3, 9, 4, 0.1, 0.0, 1.0, 60.0),
        betas=(0.9, 0.95),
        by_update=lambda update, total: (update + 1) / total,
    )
    state = RunState(folder, "line", {}, resume)
    return Fit(task, schedule, state, 1, stop, World.alone(torch.device("cpu")))


def test_rates_by_update_reach_the_optimizer_and_survive_a_stop_within_an_epoch(
    tmp_path: Path,
) -> None:
    whole = _Line()
    fit = _fit(whole, tmp_path / "whole", StopFlag(), resume=False)
    fit.run()
    assert fit.optimizer.param_groups[0]["lr"] == pytest.approx(0.1)
    assert [row["lr"] for row in fit.history.rows] == pytest.approx([0.1 / 3, 0.2 / 3, 0.1])
    stopped = _Line()
    with StopFlag() as stopped.stop, pytest.raises(StoppedEarly):
        _fit(stopped, tmp_path / "cut", stopped.stop, resume=False).run()
    again = _Line()
    _fit(again, tmp_path / "cut", StopFlag(), resume=True).run()
    assert torch.equal(again.module.weight, whole.module.weight)
