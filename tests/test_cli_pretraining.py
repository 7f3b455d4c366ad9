"""`pretrain-encoder` on a file of bars: options, refusals, and processes that are stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hrl_sarp.run.files import read_json
from tests.command_line import Command, assert_refused
from tests.encoders.bar_files import write_bars, write_config
from tests.fitting.test_distributed import free_port

LATEST = "checkpoint_latest.pt"


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """The options of a small run below the test's folder."""
    given = {
        "--encoder": "jade",
        "--data": write_bars(tmp_path),
        "--config": write_config(tmp_path),
        "--output": tmp_path / "out",
        "--device": "cpu",
        "--seed": 17,
    }
    return ["pretrain-encoder", *(str(part) for pair in given.items() for part in pair)]


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_command_trains_and_prints_the_model_beside_the_baselines(
    command: Command, options: list[str], tmp_path: Path
) -> None:
    code, out, err = command(
        *options, "--epochs", 2, "--batch-size", 16, "--mask-strategy", "block",
        "--learning-rate", 1e-3, "--symbol", "X",
    )  # fmt: skip
    assert code == 0, err
    assert "test loss: model " in out
    assert "linear interpolation" in out
    assert "epoch 1, loss" in err
    found = read_json(tmp_path / "out" / "training_results.json", "-")
    options_found = {name: found["config"][name] for name in ("epochs", "batch_size")}
    assert options_found == {"epochs": 2, "batch_size": 16}
    assert (found["config"]["mask_strategy"], found["config"]["learning_rate"]) == ("block", 1e-3)
    assert (found["seed"], found["windows"]["train"]) == (17, 144)
    assert "run.lock" not in files_of(tmp_path / "out")


@pytest.mark.parametrize(
    ("given", "mentioned"),
    [
        (("--encoder", "gru"), ("jade", "gru")),
        (("--mask-strategy", "all"), ("mask_strategy", "all")),
        (("--epochs", 0), ("epochs", "0")),
        (("--batch-size", -1), ("batch_size", "-1")),
        (("--learning-rate", "nan"), ("learning_rate",)),
        (("--device", "tpu"), ("device", "tpu")),
        (("--data", "absent.parquet"), ("absent.parquet",)),
        (("--symbol", "Z"), ("Z", "X")),
        (("--config", "absent.yaml"), ("absent.yaml",)),
    ],
)
def test_wrong_option_is_refused_in_one_line_and_nothing_is_written(
    command: Command, options: list[str], tmp_path: Path, given: tuple[str, str], mentioned: str
) -> None:
    assert_refused(command(*options, *given), *mentioned)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "mentioned"),
    [
        (("window_length: 20", "window_length: 5"), "warmup_bars"),
        (("train_end: 2018-01-02", "train_end: 2018-01-01"), "min_windows"),
        (("mask_ratio: 0.25", "mask_ratio: 0.01"), "mask_ratio"),
    ],
)
def test_windows_that_miss_a_gate_are_refused(
    command: Command,
    options: list[str],
    tmp_path: Path,
    change: tuple[str, str],
    mentioned: str,
) -> None:
    path = tmp_path / "small.yaml"
    text = path.read_text(encoding="utf-8").replace(*change)
    path.write_text(text.replace("min_windows: 20", "min_windows: 100"), encoding="utf-8")
    code, out, err = command(*options)  # before the refusal may stand what was cut
    assert (code, out) == (1, "")
    assert mentioned in err.splitlines()[-1]
    assert "Error: " in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_resume_refuses_other_options_and_keeps_the_state(
    command: Command, options: list[str], tmp_path: Path
) -> None:
    assert command(*options, "--epochs", 1)[0] == 0
    kept = (tmp_path / "out" / LATEST).read_bytes()
    code, _, err = command(*options, "--epochs", 2, "--resume")
    assert code == 1
    assert "epochs 1 there, 2 here" in err.splitlines()[-1]
    code, _, err = command(*options, "--epochs", 1, "--seed", 18, "--resume")
    assert "seed: 17 there, 18 here" in err.splitlines()[-1]
    assert (tmp_path / "out" / LATEST).read_bytes() == kept


def test_folder_in_use_is_refused(command: Command, options: list[str], tmp_path: Path) -> None:
    from hrl_sarp.run.session import RunFolder

    with RunFolder(tmp_path / "out").lock():
        code, out, err = command(*options)
    assert (code, out) == (1, "")
    assert "in use by process" in err.splitlines()[-1]
    assert "--output" in err.splitlines()[-1]


def start(repository: Path, options: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 -- our own command
        [sys.executable, "main.py", *options],
        cwd=repository,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.is_file():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def assert_same_run(found: Path, expected: Path) -> None:
    weights, others = (load_file(folder / "encoder.safetensors") for folder in (found, expected))
    for name, values in weights.items():
        assert torch.equal(values, others[name]), name
    results = [read_json(folder / "training_results.json", "-") for folder in (found, expected)]
    losses = [[row["val_loss"] for row in result["val_metrics"]] for result in results]
    assert losses[0] == losses[1]
    assert results[0]["test_metrics"] == results[1]["test_metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_process_that_is_stopped_continues_to_the_same_weights(
    command: Command, repository: Path, options: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    options = [*options, "--epochs", "60"]
    expected = tmp_path / "expected"
    assert command(*options, "--output", expected)[0] == 0
    process = start(repository, options)
    wait_for(tmp_path / "out" / LATEST, process)
    process.send_signal(number)
    stopped = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), err
    if number != signal.SIGKILL:
        assert time.monotonic() - stopped < 5
        assert err.splitlines()[-1] == (
            "stopped; the same command with --resume continues exactly there"
        )
    assert not (tmp_path / "out" / "encoder.safetensors").exists()
    code, _, err = command(*options, "--resume")
    assert code == 0, err
    assert "continues at epoch" in err
    assert_same_run(tmp_path / "out", expected)


@pytest.mark.slow
def test_torchrun_with_two_processes_gives_the_loss_of_one(
    command: Command, repository: Path, options: list[str], tmp_path: Path
) -> None:
    no_dropout = tmp_path / "small.yaml"
    text = no_dropout.read_text(encoding="utf-8")
    no_dropout.write_text(text.replace("hidden: 8", "hidden: 8, dropout: 0.0"), encoding="utf-8")
    assert command(*options, "--output", tmp_path / "expected")[0] == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    address = ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    done = subprocess.run(  # noqa: S603 -- our own command
        [*torchrun, *address, "main.py", *options],
        cwd=repository,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test loss: model") == 1  # one of the two speaks
    found, expected = (
        read_json(tmp_path / name / "training_results.json", "-") for name in ("out", "expected")
    )
    assert found["processes"] == 2
    assert [row["val_loss"] for row in found["val_metrics"]] == pytest.approx(
        [row["val_loss"] for row in expected["val_metrics"]], rel=1e-4
    )
