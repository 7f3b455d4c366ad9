"""Training on candles: what is learned, what is not, and exact continuation."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.data.bars import Bars
from hrl_sarp.encoders.networks.transformer import CandleEncoder, PriceActionTransformer
from hrl_sarp.encoders.transfer import load_encoder, read_description
from hrl_sarp.encoders.windows.scaler import Scaler
from hrl_sarp.errors import (
    CheckpointError,
    MissingArtifactError,
    StoppedEarly,
    TrainingDivergedError,
)
from hrl_sarp.features.candles import COLUMNS
from hrl_sarp.price_action.buys import measures, training
from hrl_sarp.price_action.buys.training import (
    FIGURE,
    MODEL,
    RESULTS,
    RUNNING,
    SCALER,
    BuyTask,
    PriceAction,
    load_price_action,
    save_price_action,
    train_price_action,
)
from hrl_sarp.price_action.buys.windows import CandleScaling, cut_candle_windows
from hrl_sarp.run.checkpoints import load_payload
from hrl_sarp.run.files import read_json, write_json
from hrl_sarp.run.session import StopFlag
from tests.end_to_end.phase_runs import StopAfter
from tests.fitting.kills import assert_kills_change_nothing
from tests.price_action.buys.candle_factories import bars_of, noise_bars, planted_bars, small_config

CPU = torch.device("cpu")
LONG_TEST = {"train_share": 0.4, "validation_share": 0.2}
"""So that the test span is long enough to tell a signal from luck."""


def train(
    folder: Path,
    bars: Bars,
    config: RunConfig,
    *,
    resume: bool = False,
    stop: StopFlag | None = None,
) -> dict[str, Any]:
    windows = cut_candle_windows(bars, config.encoders)
    return train_price_action(windows, config, folder, CPU, stop or StopFlag(), resume=resume)


def task_of(bars: Bars, config: RunConfig) -> BuyTask:
    return BuyTask(cut_candle_windows(bars, config.encoders), config, CPU)


def test_one_batch_of_noise_is_learned_by_heart() -> None:
    task = task_of(noise_bars(900), small_config())
    rows = task.train_rows[::17][:32]
    optimizer = torch.optim.AdamW(task.module.parameters(), lr=1e-2)
    losses = []
    for _ in range(250):
        loss, _ = task.loss(rows, torch.Generator())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 0.5
    assert losses[-1] < 0.1


def planted_config() -> RunConfig:
    return small_config(learning_rate=5e-3, epochs=3, **LONG_TEST)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("planted")
    return folder, train(folder, planted_bars(3000), planted_config())


def test_planted_signal_is_found_on_the_test_span(planted: tuple[Path, dict[str, Any]]) -> None:
    results = planted[1]
    test = results["spans"]["test"]
    assert test["base_rate"] < 0.5
    assert test["pr_auc"] > test["base_rate"] + 0.3
    assert test["lift_low"] > 0.2
    assert test["precision"] > test["base_rate"] + 0.3
    assert "beats the base rate" in results["verdict"]


def test_noise_stays_at_the_base_rate(tmp_path: Path) -> None:
    config = small_config(learning_rate=5e-3, epochs=2, **LONG_TEST)
    found = [train(tmp_path / str(seed), noise_bars(3000, seed), config) for seed in range(3)]
    for results in found:
        test = results["spans"]["test"]
        assert abs(test["pr_auc"] - test["base_rate"]) < 0.05
    # an interval of 95 % may miss the truth now and then, not as a rule
    assert sum("test span the model beats" in results["verdict"] for results in found) <= 1
    assert (tmp_path / "1" / MODEL).is_file()  # the best checkpoint is written all the same


def test_every_measure_stands_beside_its_baseline(planted: tuple[Path, dict[str, Any]]) -> None:
    folder, results = planted
    pairs = {"pr_auc": "base_rate", "f1": "all_positive_f1", "accuracy": "majority_accuracy"}
    for span in ("validation", "test"):
        assert {*pairs, *pairs.values(), "precision", "recall"} <= results["spans"][span].keys()
    written = read_json(folder / RESULTS, "train")
    assert written["spans"] == json.loads(json.dumps(results["spans"]))
    assert (folder / FIGURE).read_bytes().startswith(b"\x89PNG")


def test_blocks_of_the_interval_span_a_window_of_every_instrument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = noise_bars(700, seed=1), noise_bars(700, seed=2)
    columns = ("timestamps", "open", "high", "low", "close", "volume")
    joined = {name: np.concatenate([getattr(one, name), getattr(other, name)]) for name in columns}
    instrument = np.repeat(np.arange(2, dtype=np.int32), 700)
    bars = replace(one, **joined, instrument=instrument, instruments=("ONE", "TWO"))
    drawn = []
    plain = measures.lift_interval

    def noted(scores: Any, labels: Any, block: int, rng: Any) -> tuple[float, float]:
        drawn.append(block)
        return plain(scores, labels, block, rng)

    monkeypatch.setattr(measures, "lift_interval", noted)
    config = small_config(epochs=1)
    train(tmp_path, bars, config)
    assert drawn == 2 * [2 * config.encoders.transformer.window_length]


def test_model_that_knows_direction_is_no_good_for_falls(
    planted: tuple[Path, dict[str, Any]],
) -> None:
    test = planted[1]["spans"]["test"]
    assert test["fall_pr_auc"] < test["fall_rate"] + 0.05
    assert test["linear_pr_auc"] > test["base_rate"]  # momentum: RSI alone tells a climb


def test_rate_of_the_hour_finds_a_daily_rhythm() -> None:
    # the same step up at 12:00 every day, noise at other hours
    rng = np.random.default_rng(2)
    n_bars = 2400
    noon = np.arange(n_bars) % 24 == 12
    log_return = np.where(noon, 0.02, 0.002 * rng.normal(size=n_bars) - 0.0008)
    bars = bars_of(100.0 * np.exp(np.cumsum(log_return)), None, rng)
    task = task_of(bars, small_config(**LONG_TEST))
    found = training._peers(task, "test", task.evaluate("test")[1])
    assert found["hour_pr_auc"] > 0.9


def test_threshold_is_chosen_on_validation_and_evaluated_on_both(
    planted: tuple[Path, dict[str, Any]],
) -> None:
    results = planted[1]
    validation, test = results["spans"]["validation"], results["spans"]["test"]
    assert validation["threshold"] == test["threshold"] == results["threshold"]
    assert validation["calls"] >= 10


def test_loaded_model_gives_the_probabilities_of_the_run(
    planted: tuple[Path, dict[str, Any]],
) -> None:
    folder, results = planted
    config = planted_config()
    task = task_of(planted_bars(3000), config)
    model = load_price_action(folder, config.encoders.transformer)
    task.module.load_state_dict(model.network.state_dict())
    loss, scores = task.evaluate("validation")
    assert loss == pytest.approx(results["best_val_loss"], rel=1e-5)
    rows = task.inputs.first["validation"][:7].unsqueeze(1) + torch.arange(16)
    found = model.probabilities(task.inputs.table[rows])
    torch.testing.assert_close(found.double(), torch.from_numpy(scores[:7]), rtol=1e-4, atol=1e-6)


def test_encoder_is_exported_with_what_it_was_fitted_on(
    planted: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = planted
    config = planted_config()
    encoder = CandleEncoder(14, config.encoders.transformer).eval()
    report = load_encoder(folder, encoder)
    assert (report.missing, report.unexpected) == ((), ())
    trained = load_price_action(folder, config.encoders.transformer).network.encoder
    x = torch.randn(2, 16, 14)
    torch.testing.assert_close(encoder.embed(x), trained.embed(x))
    description = read_description(folder)
    bars = planted_bars(3000)
    windows = cut_candle_windows(bars, config.encoders)
    assert description["kind"] == "transformer"
    # the last bar that any label of training, or of the choice of the epoch, looks at
    last = windows.first["validation"].max() + windows.to_target + 4
    assert description["fitted_to"] == str(bars.timestamps[last])


def outcome(folder: Path) -> dict[str, Any]:
    results = read_json(folder / RESULTS, "train")
    kept = {name: results[name] for name in ("history", "spans", "threshold", "best_epoch")}
    state = torch.load(folder / MODEL, weights_only=True)["model_state_dict"]
    return {**kept, "weights": state, "scaler": read_json(folder / SCALER, "train")}


def test_run_that_is_killed_within_epochs_ends_as_one_that_is_not(tmp_path: Path) -> None:
    bars, config = noise_bars(900), small_config(epochs=3, dropout=0.1)
    at_every_batch = config.curriculum.model_copy(update={"checkpoint_seconds": 0.0})
    config = config.model_copy(update={"curriculum": at_every_batch})

    def run(folder: Path, *, resume: bool) -> None:
        train(folder, bars, config, resume=resume)

    assert_kills_change_nothing(run, outcome, tmp_path, seed=1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One epoch on noise, which no test changes."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train(folder, noise_bars(900), small_config(epochs=1))


def test_finished_run_that_is_resumed_ends_at_once_with_the_same_results(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, first = finished
    copy = shutil.copytree(folder, tmp_path / "copy")
    again = train(copy, noise_bars(900), small_config(epochs=1), resume=True)
    assert again["spans"] == first["spans"]
    assert again["epochs_run"] == 1


@pytest.mark.parametrize("what", ["configuration", "data", "seed"])
def test_checkpoint_of_another_run_is_refused(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, what: str
) -> None:
    bars, config = noise_bars(900), small_config(epochs=1)
    copy = shutil.copytree(finished[0], tmp_path / "copy")
    before = (copy / MODEL).read_bytes()
    others = {
        "configuration": (bars, small_config(epochs=2)),
        "data": (planted_bars(900), config),
        "seed": (bars, config.model_copy(update={"seed": 5})),
    }
    other_bars, other_config = others[what]
    if what == "data":
        other_bars = planted_bars(900)
        object.__setattr__(other_bars, "content_hash", "another")
    with pytest.raises(CheckpointError, match="of a run with another"):
        train(copy, other_bars, other_config, resume=True)
    assert (copy / MODEL).read_bytes() == before


def test_fresh_start_removes_what_the_run_before_left(tmp_path: Path) -> None:
    for name in (MODEL, RESULTS, RUNNING):
        (tmp_path / name).write_bytes(b"old")
    with pytest.raises(StoppedEarly):
        train(tmp_path, noise_bars(900), small_config(), stop=StopAfter(1))
    assert [path.name for path in tmp_path.iterdir()] == [RUNNING]
    assert load_payload(tmp_path / RUNNING)["progress"]["batch"] == 1


def test_loss_that_is_not_finite_ends_the_run_and_names_the_place(tmp_path: Path) -> None:
    config = small_config(learning_rate=1e30)
    with pytest.raises(TrainingDivergedError, match=r"price action: .*epoch 0, .*begin 2020-"):
        train(tmp_path, noise_bars(900), config)
    assert not (tmp_path / MODEL).exists()


def test_patience_ends_training(tmp_path: Path) -> None:
    config = small_config(patience=2, epochs=50, learning_rate=2e-2)
    results = train(tmp_path, noise_bars(900), config)
    assert results["epochs_run"] - 1 - results["best_epoch"] == 2
    losses = [row["val_loss"] for row in results["history"]]
    assert results["best_epoch"] == losses.index(min(losses))


def test_positives_weigh_as_much_as_negatives_in_training() -> None:
    task = task_of(noise_bars(900), small_config())
    truth = task.windows.labels("train")
    assert task.pos_weight == pytest.approx((truth == 0).sum() / (truth == 1).sum())


def test_results_of_all_epochs_are_evaluated_on_validation_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = []
    plain = BuyTask.evaluate

    def noting(self: BuyTask, span: str) -> Any:
        evaluated.append(span)
        return plain(self, span)

    monkeypatch.setattr(BuyTask, "evaluate", noting)
    train(tmp_path, noise_bars(900), small_config(epochs=3))
    assert evaluated == ["validation"] * 3 + list(training.EVALUATED)


SIZES = small_config().encoders.transformer


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    scaling = CandleScaling("raw", Scaler.of(np.arange(14.0), 1.0 + np.arange(14.0)))
    save_price_action(tmp_path, PriceAction(PriceActionTransformer(14, SIZES), scaling, 16))
    return tmp_path


def test_files_hold_what_is_described(saved: Path) -> None:
    payload = torch.load(saved / MODEL, weights_only=True)
    assert list(payload) == ["model_state_dict", "feature_columns", "window_size", "input_dim"]
    assert payload["feature_columns"] == list(COLUMNS)
    assert (payload["window_size"], payload["input_dim"]) == (16, 14)
    scaler = read_json(saved / SCALER, "train")
    assert (scaler["mean"][3], scaler["std"][3], scaler["levels"]) == (3.0, 4.0, "raw")
    assert scaler["feature_columns"] == list(COLUMNS)


def test_loaded_model_equals_the_saved_one(saved: Path) -> None:
    one, other = load_price_action(saved, SIZES), load_price_action(saved, SIZES)
    x = 10 * torch.randn(3, 16, 14)
    assert torch.equal(one.probabilities(x), other.probabilities(x))
    torch.testing.assert_close(one.scaling.apply(x), (x - torch.arange(14.0)) / torch.arange(1, 15))
    assert one.window_length == 16
    assert ((one.probabilities(x) > 0) & (one.probabilities(x) < 1)).all()


@pytest.mark.parametrize("name", [MODEL, SCALER])
def test_missing_file_names_the_command(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(MissingArtifactError, match=name):
        load_price_action(saved, SIZES)


@pytest.mark.parametrize("name", [MODEL, SCALER])
def test_truncated_file_is_refused(saved: Path, name: str) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=name):
        load_price_action(saved, SIZES)


class Hostile:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(Path.cwd() / "made_by_a_hostile_file"),)


def test_file_with_code_is_refused_and_runs_nothing(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model_state_dict": Hostile()}, saved / MODEL)
    with pytest.raises(CheckpointError, match="code"):
        load_price_action(saved, SIZES)
    assert not (tmp_path / "made_by_a_hostile_file").exists()


def test_network_of_another_size_is_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="other shapes"):
        load_price_action(saved, SIZES.model_copy(update={"width": 32}))


def changed_model(saved: Path, **changes: Any) -> None:
    torch.save({**torch.load(saved / MODEL, weights_only=True), **changes}, saved / MODEL)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_columns": ["open"] * 14}, "feature_columns"),
        ({"window_size": 64}, "window_size: expected 16, found 64"),
        ({"input_dim": 13}, "input_dim"),
        ({"model_state_dict": 3}, "model_state_dict"),
        ({"model_state_dict": {}}, "other shapes"),
    ],
)
def test_model_of_another_kind_is_refused(
    saved: Path, changes: dict[str, Any], message: str
) -> None:
    changed_model(saved, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_price_action(saved, SIZES)


def test_weights_that_are_not_finite_are_refused(saved: Path) -> None:
    state = torch.load(saved / MODEL, weights_only=True)["model_state_dict"]
    state["head.0.weight"][0, 0] = torch.nan
    changed_model(saved, model_state_dict=state)
    with pytest.raises(CheckpointError, match=r"head\.0\.weight holds values that are not finite"):
        load_price_action(saved, SIZES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": [0.0]}, "mean must be 14 finite numbers"),
        ({"std": ["one"] * 14}, "std must be 14 finite numbers"),
        ({"mean": [None] * 14}, "mean must be 14 finite numbers"),
        ({"std": [0.0] * 14}, "above 0"),
        ({"levels": "other"}, "relative or raw"),
        ({"feature_columns": list(COLUMNS[::-1])}, "feature_columns"),
        ({"std": None}, "std"),
    ],
)
def test_scaler_that_does_not_fit_is_refused(
    saved: Path, changes: dict[str, Any], message: str
) -> None:
    scaler = read_json(saved / SCALER, "train")
    write_json(saved / SCALER, {**scaler, **changes})
    with pytest.raises(CheckpointError, match=message):
        load_price_action(saved, SIZES)
