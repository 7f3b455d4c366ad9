"""Weights that learn at a share of the rate, and weights that wait for the others."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hrl_sarp.fitting import Epoch, Fit, RunState, Schedule, World
from hrl_sarp.fitting.epochs import SlowsWeights
from hrl_sarp.run.session import StopFlag
from tests.fitting.kills import assert_kills_change_nothing

SCHEDULE = Schedule(
    epochs=4,
    patience=4,
    batch_size=4,
    learning_rate=0.1,
    weight_decay=0.0,
    max_grad_norm=100.0,
    checkpoint_seconds=0.0,
)


class TwoLines:
    """Two weights with equal gradients: AdamW moves each by its rate in every update."""

    title = "two lines"

    def __init__(self, shares: list[float]) -> None:
        self.module = nn.ModuleDict({name: nn.Linear(1, 1, bias=False) for name in ("slow", "new")})
        for weights in self.module.parameters():
            nn.init.zeros_(weights)
        self.train_rows = torch.arange(4)
        self.shares = shares
        self.seen: list[tuple[float, float]] = []

    def loss(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        return self.module["slow"].weight.sum() + self.module["new"].weight.sum(), {}

    def validate(self) -> tuple[float, dict[str, float]]:
        found = tuple(float(self.module[name].weight.detach()) for name in ("slow", "new"))
        self.seen.append((found[0], found[1]))
        return sum(found), {}

    def describe(self, rows: Tensor) -> str:
        return "rows"

    def slow_weights(self) -> list[nn.Parameter]:
        return list(self.module["slow"].parameters())

    def slow_share(self, epoch: int) -> float:
        return self.shares[epoch]


def run_of(
    task: TwoLines, state: RunState | None = None, seen: list[Epoch] | None = None
) -> TwoLines:
    world, epochs = World.alone(torch.device("cpu")), [] if seen is None else seen
    Fit(task, SCHEDULE, state, 1, StopFlag(), world, on_epoch=epochs.append).run()
    return task


@pytest.mark.parametrize("share", [1.0, 0.5, 0.01])
def test_slow_weights_move_by_their_share_of_the_rate(share: float) -> None:
    task = run_of(TwoLines([share] * 4))
    assert isinstance(task, SlowsWeights)
    for epoch, (slow, new) in enumerate(task.seen, start=1):
        assert new == pytest.approx(-0.1 * epoch, rel=1e-4)
        assert slow == pytest.approx(-0.1 * share * epoch, rel=1e-4)


def test_weights_of_share_zero_wait_without_gradients_and_then_begin() -> None:
    epochs: list[Epoch] = []
    task = run_of(TwoLines([0.0, 0.0, 0.5, 0.5]), seen=epochs)
    assert [slow for slow, _ in task.seen] == pytest.approx([0, 0, -0.05, -0.1], rel=1e-4)
    assert [set(epoch.gradients) for epoch in epochs[1:3]] == [
        {"new.weight"},
        {"slow.weight", "new.weight"},
    ]
    assert [epoch.rate for epoch in epochs] == [0.1] * 4


@pytest.mark.parametrize("seed", range(3))
def test_a_run_killed_while_weights_wait_or_after_ends_as_one_left_alone(
    seed: int, tmp_path: Path
) -> None:
    def train(folder: Path, *, resume: bool) -> None:
        folder.mkdir(exist_ok=True)
        task = run_of(TwoLines([0.0, 0.0, 0.5, 0.5]), RunState(folder, "lines", {}, resume))
        torch.save(task.module.state_dict(), folder / "end.pt")

    def outcome(folder: Path) -> dict[str, Tensor]:
        found: dict[str, Tensor] = torch.load(folder / "end.pt")
        return found

    assert_kills_change_nothing(train, outcome, tmp_path, seed)
