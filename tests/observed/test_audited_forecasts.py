"""The audit compares what forecasters read, and names those that have seen the future."""

import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.data.quality.validation import read_validated
from hrl_sarp.forecasters.toto.model import Toto, TotoConfig, save_toto
from hrl_sarp.observed import forecasts
from hrl_sarp.studies.audit.rebuilt import Subject, check_embeddings
from hrl_sarp.studies.audit.run import load_observed
from hrl_sarp.studies.audit.spans import check_vintages
from tests import tiny_runs
from tests.encoders import panels


@pytest.fixture(scope="module")
def subject(data_dir: Path) -> Subject:
    config = tiny_runs.changed(panels.small_config(), {"forecasters": {"observe": "har"}})
    raw, report = read_validated(data_dir, config)
    return Subject.of(raw, config, report)


def test_histories_up_to_t_ignore_what_comes_later(subject: Subject) -> None:
    check = check_embeddings(subject, subject.rows[-1:])
    assert (check.result, check.where) == ("ok", "no history of har moved")


def test_a_forecast_that_waits_for_later_bars_is_named(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = forecasts.bar_table

    def centred(bars: object) -> np.ndarray:
        """Measure prices by the mean over the whole history."""
        table = real(bars)  # type: ignore[arg-type]
        return table / table.mean(axis=0)

    monkeypatch.setattr(forecasts, "bar_table", centred)
    check = check_embeddings(subject, subject.rows[-1:])
    assert check.result == "leak"
    assert [where.split(" (")[0] for where in check.places] == ["histories of the forecaster har"]


def test_weights_that_may_know_the_test_are_a_leak(
    subject: Subject, data_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(data_dir.parent, tmp_path / "copy")
    sizes = {"patch_size": 4, "embed_dim": 8, "num_heads": 2, "mlp_hidden_dim": 8, "num_layers": 2}
    save_toto(tmp_path / "weights", Toto(TotoConfig.base().model_copy(update=sizes)))
    shown = {"observe": "toto", "paths": 2, "weights": str(tmp_path / "weights")}
    for told, result in ((date(2004, 12, 31), "ok"), (None, "leak")):
        values = {"forecasters": {**shown, "pretrained_until": told}}
        config = tiny_runs.changed(subject.config, values)
        observed = load_observed(replace(subject, config=config), tmp_path / "copy" / "raw", None)
        check = check_vintages(observed.market, "", observed.past)
        assert check.result == result
        assert f"forecaster toto to {told or '2025-05-31'}" in check.where
