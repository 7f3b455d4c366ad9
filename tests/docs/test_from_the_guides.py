"""What the page about other guides promises: its Python runs, its YAML is read, its names hold."""

import re
from pathlib import Path

import pytest
import torch

from hrl_sarp.cli.options import FORMER_NAMES
from hrl_sarp.config.consistency import RENAMED_KEYS
from hrl_sarp.config.loading import load_config
from hrl_sarp.data.collect import collect
from hrl_sarp.encoders.networks.jade import JadeMaskedAutoencoder
from hrl_sarp.errors import CheckpointError, ConfigError
from hrl_sarp.run.checkpoints import save_payload
from tests.command_line import Command, assert_refused
from tests.docs.test_pages_code import python_blocks


@pytest.fixture
def page(repository: Path) -> Path:
    return repository / "docs" / "from_the_guides.md"


def run(code: str) -> None:
    exec(compile(code, "from_the_guides.md", "exec"), {})  # noqa: S102 -- our own page


def test_the_weights_of_a_checkpoint_reach_an_encoder(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    model = JadeMaskedAutoencoder(11, load_config().encoders.jade)
    content = {"kind": "encoder pretraining", "model_state_dict": model.state_dict()}
    save_payload(tmp_path / "artifacts" / "jade_pretrain" / "checkpoint_best.pt", content)
    transfer, _ = python_blocks(page)
    run(transfer)
    assert "not found: []; not of the encoder: ['mask_token']" in capsys.readouterr().out
    nothing = {"linear.weight": torch.zeros(2, 2)}
    for strict in (True, False):
        with pytest.raises(CheckpointError, match=r"no weight matches .*linear\.weight"):
            model.encoder.load_state_dict(nothing, strict=strict)
    before = model.encoder.state_dict()["lstm.weight_ih_l0"].clone()
    inside = {name: 2 * part for name, part in model.state_dict().items() if "encoder" in name}
    model.encoder.load_state_dict(inside)
    assert torch.equal(model.encoder.state_dict()["lstm.weight_ih_l0"], 2 * before)
    model.load_state_dict(model.state_dict())  # whole models load as ever


def test_the_training_data_are_served_without_arguments(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    collect("sample", tmp_path / "data" / "raw", load_config())
    _, data = python_blocks(page)
    run(data)
    shown = capsys.readouterr().out
    assert "'macro_states', 'sector_embeddings', 'sector_returns', 'regime_labels'" in shown
    assert "18)" in shown


def test_the_yaml_of_the_page_is_read(page: Path, tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    own = tmp_path / "windowed.yaml"
    own.write_text(text)
    config = load_config(own_file=own)
    assert str(config.windowed.splits.train_end) == "2024-12-31"
    for line, wrong, right in (
        ("window_length: 105   #", "window_length: 64   #", "105"),
        ("window_overlap: 0.5 ", "window_overlap: 0.25 ", r"0\.504762"),
        ("window_overlap: 0.5 ", "window_overlap: half ", r"0\.504762"),
    ):
        own.write_text(text.replace(line, wrong))
        with pytest.raises(ConfigError, match=rf"windowed\.yaml: .*feature_config.*{right}"):
            load_config(own_file=own)


@pytest.mark.parametrize("key", RENAMED_KEYS, ids=".".join)
def test_a_key_of_another_system_is_answered_with_ours(
    key: tuple[str, ...], page: Path, tmp_path: Path
) -> None:
    own, cure = tmp_path / "own.yaml", RENAMED_KEYS[key]
    names = [*key, "any"] if len(key) == 1 else list(key)
    own.write_text(
        "\n".join(f"{'  ' * depth}{name}:" for depth, name in enumerate(names)) + " 32\n"
    )
    with pytest.raises(ConfigError, match=re.escape(cure)):
        load_config(own_file=own)
    if len(key) > 1:
        assert cure.split("`")[1].rpartition(".")[2] in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["pretrain-encoder", "--lr", "5e-4"], "--learning-rate"),
        (["finetune-encoder", "--lr=1e-3"], "--learning-rate"),
        (["finetune-encoder", "--n-epochs", "60"], "--epochs"),
        (["finetune-encoder", "--model", "jade"], "--variant"),
        (
            [*("finetune-encoder", "--variant", "position", "--data", "x.parquet"),
             *("--freeze-encoder", "true")],
            "--freeze-encoder without a value",
        ),
    ],
)  # fmt: skip
def test_an_option_of_another_system_is_answered_with_ours(
    words: list[str], cure: str, command: Command
) -> None:
    assert_refused(command(*words), "UsageError", cure, code=2)


def test_the_page_names_every_former_option(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [name for name in FORMER_NAMES if name not in text] == []


def test_a_path_of_another_system_is_answered_with_ours(command: Command) -> None:
    words = ["pretrain-encoder", "--data", "bars.parquet", "--config", "configs/windowed.yaml"]
    assert_refused(command(*words), "configs/windowed.yaml does not exist", "config/windowed.yaml;")


def test_dates_without_a_source_are_answered_with_the_source(
    tmp_path: Path, command: Command
) -> None:
    days = ["--start", "2015-01-01", "--end", "2023-12-31", "--data-dir", tmp_path / "raw"]
    assert_refused(
        command("collect-data", *days), "--source yahoo --experiment yahoo_us", "yahoo_nse"
    )


@pytest.mark.parametrize("phase", [2, 3, 4, 5])
def test_a_phase_without_its_inputs_is_refused_before_anything_is_loaded(
    phase: int, tmp_path: Path, command: Command
) -> None:
    # the folder of data does not exist: nothing looked for it
    folders = ["--data-dir", tmp_path / "none", "--log-dir", tmp_path / "logs"]
    result = command("train", "--phase", phase, *folders)
    assert_refused(result, "sector_graph.pt does not exist", "train --phase 1")
    assert not list(tmp_path.glob("logs*"))
