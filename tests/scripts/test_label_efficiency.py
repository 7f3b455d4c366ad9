"""scripts/label_efficiency.py: few cells end to end, and its arithmetic by hand."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from hrl_sarp.encoders.networks.jade import JadeEncoder
from hrl_sarp.features.relativity import PRETRAINING_COLUMNS
from hrl_sarp.run.files import write_json
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
    numbers |= {"frozen-updates": 3, "frozen-patience": 1, "heads-first": 1}
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
    assert [row.split(" | ")[1] for row in rows[2:]] == [*ARMS, "fixed interval", "largest move"]
    assert (out / "label_efficiency.png").stat().st_size > 0


def study_of(arguments: list[str]) -> label_efficiency.LabelStudy:
    given = vars(label_efficiency._options(arguments))
    shared = {name: value for name, value in given.items() if name not in label_efficiency.OF_CELLS}
    return label_efficiency.LabelStudy(folder=given["output"], **shared)


@pytest.mark.parametrize(
    ("arm", "is_pretrained", "is_frozen"),
    [
        ("random", False, True),
        ("frozen", True, True),
        ("fine-tuned", True, False),
        ("scratch", False, False),
        ("gentle", True, False),
        ("permuted", False, False),
    ],
)
def test_arms_differ_in_weights_and_in_what_learns(
    arguments: list[str], arm: str, *, is_pretrained: bool, is_frozen: bool
) -> None:
    study = study_of(arguments)
    job = label_efficiency.make_job(study, cell_of(arm, 20, 0))
    assert (job.pretrained is not None) == is_pretrained
    learns = [weights.requires_grad for weights in job.task().module.encoder.parameters()]
    assert set(learns) == {not is_frozen}


def test_all_arms_read_the_columns_of_the_encoder(arguments: list[str]) -> None:
    for arm in ARMS:
        job = label_efficiency.make_job(study_of(arguments), cell_of(arm, 20, 0))
        assert job.columns == PRETRAINING_COLUMNS
        assert job.inputs.shape[2] == len(PRETRAINING_COLUMNS)


def test_gentle_arm_lets_its_heads_begin_and_slows_its_encoder(arguments: list[str]) -> None:
    for arm in ARMS:
        job = label_efficiency.make_job(study_of(arguments), cell_of(arm, 20, 0))
        settings = job.request.config.encoders.finetuning
        found = settings.heads_first_epochs, settings.encoder_rate_share, settings.learning_rate
        assert found == (
            1 if arm == "gentle" else 0,
            0.1 if arm == "gentle" else 1.0,
            0.01 if arm in ("random", "frozen") else 0.001,
        )


def test_control_trains_on_labels_of_other_windows_and_is_tested_on_true_ones(
    arguments: list[str],
) -> None:
    jobs = {
        arm: label_efficiency.make_job(study_of(arguments), cell_of(arm, 20, 1))
        for arm in ("scratch", "permuted")
    }
    true, shuffled = (jobs[arm].windows for arm in ("scratch", "permuted"))
    np.testing.assert_array_equal(true.ohlc, shuffled.ohlc)
    np.testing.assert_array_equal(true.start[20:], shuffled.start[20:])
    labels = [
        list(zip(w.start[:20], w.end[:20], w.label[:20], strict=True)) for w in (true, shuffled)
    ]
    assert labels[0] != labels[1]
    assert sorted(labels[0]) == sorted(labels[1])


def test_encoder_of_other_columns_than_the_configuration_makes_is_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = tmp_path / "wide.yaml"
    wide.write_text(OWN + "windowed: {feature_config: {displacement_bars: [4]}}\n")
    assert main([*arguments, "--config", str(wide)]) == 1
    assert "displacement_4" in capsys.readouterr().err


def test_arms_and_labels_may_come_one_after_another(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--arms", "random"]) == 0
    report = tmp_path / "out" / "label_efficiency.json"
    assert {row["over_scratch"] for row in json.loads(report.read_text())["rows"]} == {None}
    assert main([*arguments, "--arms", "scratch"]) == 0
    rows = json.loads(report.read_text())["rows"]
    assert {row["arm"] for row in rows} == {"random", "scratch", "fixed interval", "largest move"}
    assert all(row["over_scratch"] is not None for row in rows)
    capsys.readouterr()
    # another encoder changes nothing for arms that do not read its weights
    encoder = Path(arguments[arguments.index("--encoder") + 1]).parent
    description = json.loads((encoder / "encoder.json").read_text())
    write_json(encoder / "encoder.json", {**description, "seed": 99})
    assert main([*arguments, "--arms", "random", "scratch"]) == 0


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
    assert main([*arguments, "--frozen-updates", "5"]) == 1
    assert "updates: 3 there, 5 here" in capsys.readouterr().err.replace("\n", " ")


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
            "test": {"span_f1": values.get((arm, seed), 0.0), "type_accuracy": 0.5},
            "baselines": {"type_accuracy": 0.4},
            "rules": {"largest move": {"span_f1": 0.6 + seed / 10}},
            "converged": seed == 0,
        }
        for arm in ARMS
        for seed in (0, 1)
    }
    rows = summarise(found)
    row = next(row for row in rows if row["arm"] == "frozen" and row["measure"] == "span_f1")
    # two values: deviation |a - b| / sqrt 2, so the half width is t(0.975, 1) |a - b| / 2
    quantile = 12.7062
    assert row["mean"] == pytest.approx(0.35)
    assert row["half_width"] == pytest.approx(quantile * 0.15, rel=1e-4)
    assert row["over_scratch"] == pytest.approx((0.1 + 0.2) / 2)
    assert row["over_scratch_half_width"] == pytest.approx(quantile * 0.05, rel=1e-4)
    assert (row["seeds"], row["converged"]) == (2, 1)
    rule = {row["measure"]: row for row in rows if row["arm"] == "largest move"}
    assert rule["span_f1"]["mean"] == pytest.approx(0.65)
    assert rule["span_f1"]["over_scratch"] == pytest.approx(0.45)
    assert rule["type_accuracy"]["mean"] == pytest.approx(0.4)


def test_arm_of_one_seed_has_no_interval_and_is_left_out() -> None:
    cell = {"test": {"span_f1": 0.2}, "baselines": {}, "rules": {}, "converged": True}
    assert summarise({cell_of("random", 50, 0): cell}) == []


def test_cells_tell_arm_and_labels() -> None:
    assert arm_of(cell_of("fine-tuned", 174, 3)) == ("fine-tuned", 174)
