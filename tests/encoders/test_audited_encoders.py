"""The audit compares what encoders read, and names encoders that have seen the future."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrl_sarp.data.quality.validation import read_validated
from hrl_sarp.encoders.stock_embeddings import encoder_folder
from hrl_sarp.studies.audit.rebuilt import Subject, check_embeddings
from hrl_sarp.studies.audit.run import load_observed
from hrl_sarp.studies.audit.spans import check_vintages
from tests.encoders import panels


@pytest.fixture(scope="module")
def subject(panel_data: Path) -> Subject:
    config = panels.small_config(observe="both")
    raw, report = read_validated(panel_data, config)
    return Subject.of(raw, config, report)


def test_windows_up_to_t_ignore_what_comes_later(subject: Subject) -> None:
    check = check_embeddings(subject, subject.rows[-1:])
    assert (check.result, check.where) == ("ok", "no window of jade, transformer moved")


def over_mean_of_all(volume: Any, is_first: Any) -> Any:
    """Measure a bar's volume by the mean over the whole history."""
    return np.log(np.maximum(volume, 1e-9) / volume.mean())


def test_a_window_that_is_scaled_by_later_bars_is_named(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "hrl_sarp.encoders.windows.panel._log_over_mean"
    monkeypatch.setattr(place, over_mean_of_all)
    check = check_embeddings(subject, subject.rows[-1:])
    assert check.result == "leak"
    assert [where.split(" (")[0] for where in check.places] == [
        "windows of the encoder transformer"
    ]


def test_an_encoder_that_was_fitted_past_the_fold_is_named(
    subject: Subject, panel_data: Path, tmp_path: Path
) -> None:
    shutil.copytree(panel_data.parent, tmp_path / "copy")
    data_dir = tmp_path / "copy" / "raw"
    path = encoder_folder(data_dir, "us", "jade") / "encoder.json"
    description = json.loads(path.read_text())
    del description["checksum"]
    later = str(subject.market.dates[subject.market.split.test.start])
    path.write_text(json.dumps({**description, "fitted_to": later}))
    config = panels.small_config(observe="jade")
    observed = load_observed(replace(subject, config=config), data_dir, None)
    check = check_vintages(observed.market, "", observed.past)
    assert check.result == "leak"
    assert f"was fitted on bars to {later}" in check.where
