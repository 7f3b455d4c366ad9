"""The quick look at embeddings: a planted signal is found, noise is not."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hrl_sarp.config.loading import dump_config
from hrl_sarp.contracts import Market
from hrl_sarp.features.labels import stock_label
from tests import tiny_runs
from tests.encoders import panels

HORIZON, PENALTY = 2, 0.01


@pytest.fixture(scope="module")
def script(repository: Path) -> ModuleType:
    path = repository / "scripts" / "embedding_skill.py"
    spec = importlib.util.spec_from_file_location("embedding_skill", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def market_showing(signal: float) -> Market:
    """Return a market whose second embedding holds the future with this weight, else noise."""
    market = tiny_runs.tiny_market(n_days=400)
    label = np.nan_to_num(stock_label(market, HORIZON)[0])
    noise = np.random.default_rng(2).normal(size=(*label.shape, 3)).astype(np.float32)
    noise[:, :, 1] += signal * label / label.std()
    return replace(market, stock_embeddings=noise)


def test_a_planted_signal_is_found_in_the_embeddings_alone(script: ModuleType) -> None:
    found = script.skills(market_showing(1.0), HORIZON, PENALTY)
    # correlation of x + noise with x is 0.71; ranks of a dozen stocks lose a little
    assert found["embeddings"][0] == pytest.approx(0.68, abs=0.08)
    assert abs(found["features"][0]) < 3 * found["features"][1]
    assert found["both minus features"][0] > 5 * found["both minus features"][1]


def test_noise_is_no_signal(script: ModuleType) -> None:
    found = script.skills(market_showing(0.0), HORIZON, PENALTY)
    assert abs(found["embeddings"][0]) < 3 * found["embeddings"][1]


def test_volatility_is_told_in_a_line_for_each_way(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    script.show_volatility({"head": {"qlike": [0.2, 0.4], "log_loss": [1.0, 1.0]}})
    assert capsys.readouterr().out == "  volatility, head: qlike 0.3000, log_loss 1.0000\n"


def test_a_forecaster_that_is_missing_is_told_in_one_line(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir = panels.write_small_data(tmp_path)
    small = panels.small_config().model_copy(update={"market": "us"})
    (tmp_path / "small.yaml").write_text(dump_config(small))
    given = ["--data-dir", str(data_dir), "--experiment", str(tmp_path / "small.yaml")]
    assert script.main([*given, "--observe", "kronos"]) == 1
    assert "train-forecaster --model kronos --panel" in capsys.readouterr().err


def test_data_that_are_missing_are_told_in_one_line(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--data-dir", str(tmp_path)]) == 1
    assert "collect-data" in capsys.readouterr().err
