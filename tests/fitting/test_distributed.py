"""Two processes on this machine give what one gives; started by hand as torchrun starts them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from hrl_sarp.encoders.pretrain.task import MODEL, pretrain
from hrl_sarp.fitting.distributed import World, join_world
from tests.encoders.masked_windows import (
    CPU,
    autoregressive,
    run,
    settings,
    small_jade,
    table,
)

WORKER = """
import json, sys, torch
torch.set_num_threads(1)
from hrl_sarp.fitting.distributed import join_world
from tests.encoders.masked_windows import CPU
from tests.fitting.test_distributed import trained
with join_world(CPU) as world, open(f"{sys.argv[1]}/{world.rank}.json", "w") as file:
    json.dump(trained(world), file)
"""


def trained(world: World) -> dict[str, list[float]]:
    """Return losses and weights of a short course; 10 windows of a batch, 17 of validation.

    Plain gradient steps: those of AdamW would hide a wrong scale of the gradients.
    """
    module = small_jade(dropout=0.0)
    config = settings(
        epochs=2, batch_size=10, learning_rate=0.5, warmup_epochs=1, max_grad_norm=100.0
    )
    data = table(autoregressive, train=31, validation=17, test=5)
    with patch("torch.optim.AdamW", lambda weights, **_: torch.optim.SGD(weights)):
        result = pretrain(module, data, run(config, world=world))
    weights = torch.cat([weights.detach().flatten() for weights in module.parameters()])
    losses = [row["train_loss"] for row in result.train_metrics]
    losses += [row["val_loss"] for row in result.val_metrics] + [result.test[MODEL].loss]
    return {"losses": losses, "weights": weights.tolist()}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def start(folder: Path, repository: Path, rank: int, port: int) -> subprocess.Popen[str]:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    environment = {
        **os.environ,
        **{name: str(value) for name, value in names.items()},
        "MASTER_ADDR": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    return subprocess.Popen(  # noqa: S603 -- our own worker
        [sys.executable, "-c", WORKER, str(folder)],
        cwd=repository,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_learn_what_one_learns(tmp_path: Path, repository: Path) -> None:
    port = free_port()
    workers = [start(tmp_path, repository, rank, port) for rank in range(2)]
    alone = trained(World.alone(CPU))
    for worker in workers:
        _, shown = worker.communicate(timeout=240)
        assert worker.returncode == 0, shown
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert first["weights"] == pytest.approx(alone["weights"], abs=2e-5)


@pytest.mark.parametrize("n_rows", [0, 1, 2, 7, 256])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_shares_cover_a_batch_without_overlap(n_rows: int, size: int) -> None:
    rows = torch.arange(n_rows)
    parts = [rows[World(rank, size, CPU).share(n_rows)] for rank in range(size)]
    assert torch.equal(torch.cat(parts), rows)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_process_that_torchrun_did_not_start_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_world(CPU) as world:
        assert (world.rank, world.size, world.is_first) == (0, 1, True)
        assert world.agree(is_wanted=True)
        assert not world.agree(is_wanted=False)
