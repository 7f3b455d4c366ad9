"""scripts/label_efficiency.py: few cells end to end, and its arithmetic by hand."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from hrl_sarp.encoders.networks.jade import JadeEncoder
from hrl_sarp.features.relativity import PRETRAINING_COLUMNS
from hrl_sarp.studies import Cell
from scripts import label_efficiency
from scripts.label_efficiency import ARMS, arm_of, cell_of, main, summarise
from tests.price_action.expansions.labelled_factories import as_frame, labelled, small_config
from tests.price_action.expansions.test_model import export

OWN = "encoders: {jade: {hidden: 8, layers: 1}, panel: {embedding_size: 8}}\n"
FITTED_TO = np.datetime64("2018-06-30T00:00", "us")
N_WINDOWS, N_LATER = 40, 12
"""The last windows begin after the encoder's fitted span."""


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    days = np.arange(N_WINDOWS) - (N_WINDOWS - N_LATER) + 1
    times = FITTED_TO + days.astype("timedelta64[D]")
    data = tmp_path / "labelled.parquet"
    as_frame(labelled(N_WINDOWS)).with_columns(time=times).write_parquet(data)
    sizes = small_config().encoders.jade
    module = JadeEncoder(len(PRETRAINING_COLUMNS), sizes)
    encoder = export(
        tmp_path / "encoder", module, sizes=sizes.model_dump(), fitted_to=str(FITTED_TO)
    )
    own = tmp_path / "own.yaml"
    own.write_text(OWN)
    given = {"data": data, "encoder": encoder, "output": tmp_path / "out", "config": own}
    numbers = {"labels": 20, "seeds": 2, "updates": 2, "patience": 2}
    return [
        text for name, value in {**given, **numbers}.items() for text in (f"--{name}", str(value))
    ]


@pytest.fixture(autouse=True)
def _same_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)


def test_cells_know_their_labels_only_and_share_the_test(
    arguments: list[str], tmp_path: Path
) -> None:
    assert main(arguments) == 0
    out = tmp_path / "out"
    names = {path.parent.name for path in out.glob("*/cell.json")}
    assert names == {f"{arm}_00020-{seed}" for arm in ARMS for seed in (0, 1)}
    for name in names:
        parts = json.loads((out / name / "cell.json").read_text())["measures"]["windows"]
        assert parts["train"] + parts["validation"] == 20
        assert parts["test"] == N_LATER
    report = json.loads((out / "label_efficiency.json").read_text())
    assert report["study"]["pool_windows"] == N_WINDOWS - N_LATER
    rows = (out / "label_efficiency.md").read_text().splitlines()
    assert [row.split(" | ")[1] for row in rows[2:]] == [*ARMS, "no model"]
    assert (out / "label_efficiency.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("arm", "is_pretrained", "is_frozen"),
    [
        ("random", False, True),
        ("frozen", True, True),
        ("fine-tuned", True, False),
        ("scratch", False, False),
    ],
)
def test_arms_differ_in_weights_and_in_what_learns(
    arguments: list[str], arm: str, *, is_pretrained: bool, is_frozen: bool
) -> None:
    given = vars(label_efficiency._options(arguments))
    shared = {name: value for name, value in given.items() if name not in label_efficiency.OF_CELLS}
    study = label_efficiency.LabelStudy(folder=given["output"], **shared)
    job = label_efficiency.make_job(study, cell_of(arm, 20, 0))
    assert (job.pretrained is not None) == is_pretrained
    learns = [weights.requires_grad for weights in job.task().module.encoder.parameters()]
    assert set(learns) == {not is_frozen}


def test_finished_cells_are_not_run_again(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Cell] = []
    really = label_efficiency.make_job

    def counted(study: label_efficiency.LabelStudy, cell: Cell) -> object:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(cell)
        return really(study, cell)

    monkeypatch.setattr(label_efficiency, "make_job", counted)
    assert main(arguments) == 130
    assert len(list((tmp_path / "out").glob("*/cell.json"))) == 2
    again: list[Cell] = []
    monkeypatch.setattr(
        label_efficiency, "make_job", lambda *given: (again.append(given[1]), really(*given))[1]
    )
    assert main(arguments) == 0
    assert len(again) == 2 * len(ARMS) - 2
    assert not set(again) & set(ran)


def test_folder_of_another_study_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Cell] = []
    really = label_efficiency.make_job

    def once(study: label_efficiency.LabelStudy, cell: Cell) -> object:
        if ran:
            raise KeyboardInterrupt
        ran.append(cell)
        return really(study, cell)

    monkeypatch.setattr(label_efficiency, "make_job", once)
    assert main(arguments) == 130
    capsys.readouterr()
    assert main([*arguments, "--updates", "3"]) == 1
    assert "updates: 2 there, 3 here" in capsys.readouterr().err.replace("\n", " ")


def test_too_few_labels_and_seeds_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--labels", "29"]) == 1
    assert f"found {N_WINDOWS - N_LATER} and {N_LATER}" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*arguments, "--seeds", "1"])


def test_labels_without_times_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(arguments[arguments.index("--data") + 1])
    pl.read_parquet(data).drop("time").write_parquet(data)
    assert main(arguments) == 1
    assert "time" in capsys.readouterr().err


def test_interval_and_paired_difference_by_hand() -> None:
    values = {("scratch", 0): 0.1, ("scratch", 1): 0.3, ("frozen", 0): 0.2, ("frozen", 1): 0.5}
    found = {
        cell_of(arm, 50, seed): {
            "test": {"span_f1": values.get((arm, seed), 0.0)},
            "baselines": {"span_f1": 0.14},
        }
        for arm in ARMS
        for seed in (0, 1)
    }
    row = next(row for row in summarise(found) if row["arm"] == "frozen")
    # two values: deviation |a - b| / sqrt 2, so the half width is t(0.975, 1) |a - b| / 2
    quantile = 12.7062
    assert row["mean"] == pytest.approx(0.35)
    assert row["half_width"] == pytest.approx(quantile * 0.15, rel=1e-4)
    assert row["over_scratch"] == pytest.approx((0.1 + 0.2) / 2)
    assert row["over_scratch_half_width"] == pytest.approx(quantile * 0.05, rel=1e-4)
    assert row["baseline"] == pytest.approx(0.14)


def test_cells_tell_arm_and_labels() -> None:
    assert arm_of(cell_of("fine-tuned", 174, 3)) == ("fine-tuned", 174)
