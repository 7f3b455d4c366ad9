"""Trainings of every model: they learn, stop and go on bit for bit, and write what loads again."""

import json
import signal
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hrl_sarp.config.encoder_schema import ForecastersConfig
from hrl_sarp.config.loading import DEFAULT_CONFIG_DIR, FORECASTERS, load_apart
from hrl_sarp.errors import CheckpointError, ConfigError, StoppedEarly, UsageError
from hrl_sarp.fitting import Epoch, Fit
from hrl_sarp.forecasters.api import load_forecaster
from hrl_sarp.forecasters.kronos.forecaster import KronosForecaster
from hrl_sarp.forecasters.series import Series
from hrl_sarp.forecasters.training.models import TRAINABLE, make_task
from hrl_sarp.forecasters.training.run import Pretrained, TrainingRequest, train_forecaster
from hrl_sarp.forecasters.training.sources import SplitSeries
from hrl_sarp.forecasters.training.tasks import KronosBars
from hrl_sarp.forecasters.training.windows import split_by_time
from hrl_sarp.forecasters.weights import read_weights
from hrl_sarp.run.session import StopFlag

TINY: dict[str, dict[str, Any]] = {
    "toto": {
        "sizes": {
            "patch_size": 4,
            "embed_dim": 8,
            "num_layers": 2,
            "num_heads": 2,
            "mlp_hidden_dim": 8,
            "dropout": 0.1,
            "spacewise_every_n_layers": 2,
            "k_components": 2,
        },
        "context": 16,
        "horizon": 4,
    },
    "kronos-tokenizer": {
        "sizes": {
            "d_model": 8,
            "n_heads": 2,
            "ff_dim": 8,
            "n_enc_layers": 2,
            "n_dec_layers": 2,
            "s1_bits": 3,
            "s2_bits": 2,
        },
        "context": 12,
        "horizon": 3,
    },
    "kronos": {
        "sizes": {"d_model": 8, "n_heads": 2, "ff_dim": 8, "n_layers": 1},
        "context": 12,
        "horizon": 3,
    },
}


def tiny_settings(**changes: Any) -> ForecastersConfig:
    plain = load_apart(DEFAULT_CONFIG_DIR / FORECASTERS, ForecastersConfig, "x").model_dump()
    for name, values in TINY.items():
        plain["models"][name] |= {**values, "epochs": 2, "batch_size": 8, **changes}
    return ForecastersConfig(**plain | {"train_windows": 40, "validation_windows": 20})


def bars_series(symbol: str, seed: int, n_rows: int = 160) -> Series:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, n_rows)))
    days = np.datetime64("2020-01-01", "us") + np.arange(n_rows) * np.timedelta64(1, "D")
    volume = rng.uniform(1e3, 2e3, n_rows)
    prices = [close * 1.001, close * 1.01, close * 0.99, close]
    return Series(symbol, days, close, np.column_stack([*prices, volume, volume * close]))


def request(model: str, folder: Path, **changes: Any) -> TrainingRequest:
    series = [bars_series(name, seed) for seed, name in enumerate("AB")]
    usual = {
        "model": model,
        "source": SplitSeries(series, split_by_time(series, (0.6, 0.2), frozenset()), {}),
        "settings": tiny_settings(),
        "output": folder,
        "seed": 5,
        "device": torch.device("cpu"),
        "checkpoint_seconds": 0.0,
    }
    names = {field.name for field in fields(Pretrained)}
    start = Pretrained(**{name: changes.pop(name) for name in names & changes.keys()})
    return TrainingRequest(**{**usual, "start": start, **changes})


def weights_of(folder: Path) -> Mapping[str, torch.Tensor]:
    return read_weights(folder / "model").state


def assert_same(first: Path, second: Path) -> None:
    one, other = weights_of(first), weights_of(second)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("model", TINY)
def test_a_run_writes_weights_that_load_and_a_description_of_what_it_saw(
    tmp_path: Path, model: str
) -> None:
    asked = request(model, tmp_path / "run")
    trained = train_forecaster(asked, StopFlag())
    loaded = TRAINABLE[model].load(tmp_path / "run" / "model")
    for name, weight in trained.module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    found = json.loads((tmp_path / "run" / "forecaster.json").read_text())
    windows = asked.windows()
    chosen = np.concatenate([windows.first["train"], windows.first["validation"]])
    last = windows.timestamps[chosen + windows.length - 1].max()
    assert found["fitted_to"] == str(last)
    assert last < asked.source.split.validation_stop
    assert found["symbols"] == ["A", "B"]
    assert not list((tmp_path / "run" / "checkpoints").glob("*.pt"))
    assert (tmp_path / "run" / "convergence.png").stat().st_size > 1000


@pytest.mark.parametrize("model", TINY)
def test_a_training_lowers_the_loss_of_the_windows_that_it_sees(tmp_path: Path, model: str) -> None:
    settings = tiny_settings(epochs=25, patience=25, learning_rate=1e-2)
    plain = settings.model_dump() | {"train_windows": 8}
    asked = request(model, tmp_path, settings=ForecastersConfig(**plain))
    history = train_forecaster(asked, StopFlag()).description["history"]
    first, last = history[0]["total_loss"], history[-1]["total_loss"]
    assert last < first - 0.1 * abs(first)


@pytest.mark.parametrize(
    ("model", "at"),
    [("toto", 1), ("toto", 9), ("kronos-tokenizer", 5), ("kronos", 4), ("kronos", 16)],
)
def test_a_stopped_run_goes_on_within_its_epoch_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, at: int
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_forecaster(request(model, whole), StopFlag())
    steps, once = [0], Fit._step

    def counted(fit: Fit, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        steps[0] += 1
        if steps[0] == at:
            signal.raise_signal(signal.SIGINT)
        return once(fit, rows)

    with monkeypatch.context() as patched, StopFlag() as stop:
        patched.setattr(Fit, "_step", counted)
        with pytest.raises(StoppedEarly):
            train_forecaster(request(model, cut), stop)
    assert not (cut / "model").exists()
    train_forecaster(request(model, cut, resume=True), StopFlag())
    assert_same(whole, cut)
    if model == "kronos":
        assert_same(whole / "tokenizer", cut / "tokenizer")
    again = train_forecaster(request(model, cut, resume=True), StopFlag())  # nothing is left to do
    assert again.description["weights_sha256"]
    with pytest.raises(CheckpointError, match="seed"):
        train_forecaster(request(model, cut, resume=True, seed=6), StopFlag())


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    for model in ("toto", "kronos"):
        train_forecaster(request(model, folder / model), StopFlag())
    return folder


@pytest.mark.parametrize("model", ["toto", "kronos"])
@pytest.mark.parametrize("way", ["all", "freeze", "low rank"])
def test_weights_are_trained_further_in_all_three_ways(
    tmp_path: Path, pretrained: Path, model: str, way: str
) -> None:
    options: dict[str, Any] = {"freeze": way == "freeze"}
    options |= {"lora_rank": 2} if way == "low rank" else {}
    if model == "kronos":
        options["tokenizer"] = pretrained / "kronos" / "tokenizer"
    settings = tiny_settings(fine_tuning_rate=1e-2, epochs=3)
    weights = pretrained / model / "model"
    asked = request(model, tmp_path, weights=weights, settings=settings, **options)
    trained = train_forecaster(asked, StopFlag())
    before, after = read_weights(weights).state, weights_of(tmp_path)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    if trained.description["best_epoch"] < 0:
        assert not changed  # no epoch was better on validation than the weights that were given
    elif way == "freeze":
        heads = tuple(f"model.{head}" for head in TRAINABLE["toto"].heads)
        assert all(name.startswith((*heads, *TRAINABLE[model].heads)) for name in changed)
    else:
        assert changed
    history = trained.description["history"]
    assert trained.description["validation_loss"] <= history[0]["val_loss"]


def test_the_tokenizer_of_a_run_of_kronos_is_named_by_its_run(
    tmp_path: Path, pretrained: Path
) -> None:
    train_forecaster(request("kronos", tmp_path, tokenizer=pretrained / "kronos"), StopFlag())
    assert_same(tmp_path / "tokenizer", pretrained / "kronos" / "tokenizer")


def test_a_run_knows_what_its_first_weights_had_seen(tmp_path: Path, pretrained: Path) -> None:
    weights = pretrained / "toto" / "model"
    last = "2030-01-01T23:59:59.999999"
    asked = request("toto", tmp_path, weights=weights, until=last, symbols=frozenset("BX"))
    description = train_forecaster(asked, StopFlag()).description
    assert description["fitted_to"] == last
    assert description["symbols"] == ["A", "B", "X"]


def test_weights_of_unknown_symbols_make_the_symbols_of_a_run_unknown(
    tmp_path: Path, pretrained: Path
) -> None:
    asked = request("toto", tmp_path, weights=pretrained / "toto" / "model", symbols=None)
    description = train_forecaster(asked, StopFlag()).description
    assert description["symbols"] is None
    assert description["fitted_to"] < "2020-05-09"


def test_another_tokenizer_is_refused_before_it_replaces_that_of_the_run(
    tmp_path: Path, pretrained: Path
) -> None:
    train_forecaster(request("kronos", tmp_path / "other", seed=9), StopFlag())
    mine, others = (path / "tokenizer" for path in (pretrained / "kronos", tmp_path / "other"))
    run = tmp_path / "run"
    train_forecaster(request("kronos", run, tokenizer=mine), StopFlag())
    with pytest.raises(CheckpointError, match="tokenizer"):
        train_forecaster(request("kronos", run, tokenizer=others, resume=True), StopFlag())
    assert_same(run / "tokenizer", mine)
    again = train_forecaster(request("kronos", run, tokenizer=mine, resume=True), StopFlag())
    assert again.description["weights_sha256"]


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "freeze nothing": ("toto", {"freeze": True}, "--freeze.*--weights"),
    "low rank of nothing": ("toto", {"lora_rank": 4}, "--lora-rank.*--weights"),
    "two ways": (
        "toto",
        {"freeze": True, "lora_rank": 4, "weights": Path("x")},
        "give one",
    ),
    "tokenizer of toto": ("toto", {"tokenizer": Path("x")}, "--model kronos"),
    "kronos without its tokenizer": ("kronos", {"weights": Path("x")}, "--tokenizer"),
}


@pytest.mark.parametrize("case", WRONG)
def test_options_that_do_not_go_together_are_refused_before_anything_is_written(
    tmp_path: Path, case: str
) -> None:
    model, options, message = WRONG[case]
    options |= {name: tmp_path for name in ("weights", "tokenizer") if name in options}
    with pytest.raises(UsageError, match=message):
        train_forecaster(request(model, tmp_path / "run", **options), StopFlag())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [
        ("toto", {"depth": 3}, "depth"),
        ("toto", {"num_heads": 3}, "multiple"),
        ("kronos-tokenizer", {"s1_bits": 0}, "s1_bits"),
        ("kronos", {"n_heads": 0}, "n_heads"),
    ],
)
def test_sizes_that_no_model_has_are_refused_by_name(
    tmp_path: Path, model: str, size: dict[str, int], message: str
) -> None:
    plain = tiny_settings().model_dump()
    plain["models"][model]["sizes"] |= size
    asked = request(model, tmp_path, settings=ForecastersConfig(**plain))
    with pytest.raises(ConfigError, match=rf"models\.{model}\.sizes.*{message}"):
        train_forecaster(asked, StopFlag())


def test_toto_needs_windows_of_whole_patches(tmp_path: Path) -> None:
    settings = tiny_settings()
    plain = settings.model_dump()
    plain["models"]["toto"]["horizon"] = 3
    asked = replace(request("toto", tmp_path), settings=ForecastersConfig(**plain))
    with pytest.raises(UsageError, match=r"patches of 4 bars.*found 3 and 16"):
        train_forecaster(asked, StopFlag())


@pytest.mark.parametrize("model", ["toto", "kronos"])
def test_every_epoch_of_the_model_is_shown_with_its_weights(tmp_path: Path, model: str) -> None:
    shown: list[tuple[int, float, bool]] = []
    weights = []

    def watch(epoch: Epoch, module: nn.Module, tokenizer: nn.Module | None) -> None:
        shown.append((epoch.number, epoch.loss, tokenizer is not None))
        weights.append({name: w.clone() for name, w in module.state_dict().items()})

    trained = train_forecaster(request(model, tmp_path), StopFlag(), watch)
    losses = [row["val_loss"] for row in trained.description["history"]]
    assert shown == [(i, loss, model == "kronos") for i, loss in enumerate(losses)]
    best = weights[trained.description["best_epoch"]]
    assert all(torch.equal(best[name], w) for name, w in trained.module.state_dict().items())


def test_what_watches_may_end_the_run(tmp_path: Path) -> None:
    class EnoughError(Exception):
        pass

    def watch(epoch: Epoch, _module: nn.Module, _tokenizer: nn.Module | None) -> None:
        if epoch.number == 1:
            raise EnoughError

    with pytest.raises(EnoughError):
        train_forecaster(request("toto", tmp_path), StopFlag(), watch)
    assert not (tmp_path / "forecaster.json").exists()


def test_the_weight_of_the_likelihood_mixes_the_two_parts_of_the_loss(tmp_path: Path) -> None:
    asked = request("toto", tmp_path)
    module = TRAINABLE["toto"].make(asked.of_model.sizes, None).eval()
    rows = torch.from_numpy(asked.windows().first["train"][:5])

    def loss(weight: float) -> float:
        settings = asked.of_model.model_copy(update={"nll_weight": weight})
        task = make_task("toto", module, None, asked.windows(), asked.device, settings)
        return float(task.loss(rows, torch.Generator())[0].detach())

    assert loss(0.25) == pytest.approx(0.25 * loss(1.0) + 0.75 * loss(0.0), rel=1e-5)
    assert loss(1.0) != pytest.approx(loss(0.0))


@pytest.mark.parametrize("clip", [0.5, 1.0, 5.0])
def test_training_and_forecast_cut_bars_at_the_same_clip(tmp_path: Path, clip: float) -> None:
    settings = tiny_settings().model_dump()
    settings["models"]["kronos"] |= {
        "clip": clip,
        "sampling": {"temperature": 0.5, "top_p": 0.75},
    }
    asked = request("kronos", tmp_path, settings=ForecastersConfig(**settings))
    train_forecaster(asked, StopFlag())
    made = load_forecaster(tmp_path).forecaster
    assert isinstance(made, KronosForecaster)
    assert (made.clip, made.sampling.temperature, made.sampling.top_p) == (clip, 0.5, 0.75)
    tokenizer = json.loads((tmp_path / "tokenizer" / "forecaster.json").read_text())
    assert tokenizer["clip"] == clip
    # what a training reads of a window is what a forecast reads of its context
    windows = asked.windows()
    row = int(windows.first["train"][3])
    one = next(s for s in asked.source.series if s.symbol == windows.symbols[windows.symbol[row]])
    at = int(np.searchsorted(one.timestamps, windows.timestamps[row]))
    history = one.until(at + windows.context, one.timestamps[-1:], windows.context)
    read = made._rows(0, history, seed=0).bars
    learned = KronosBars(windows, asked.device, clip).bars(torch.tensor([row]))[0]
    np.testing.assert_allclose(read, learned[: windows.context], atol=2e-4)
    assert np.abs(read).max() <= clip
    assert clip > 1 or np.abs(read).max() == np.float32(clip)


@pytest.mark.parametrize(
    ("model", "key"),
    [("toto", "nll_weight"), ("kronos", "clip"), ("kronos", "sampling")],
)
def test_a_setting_that_a_model_needs_is_not_null(model: str, key: str) -> None:
    plain = tiny_settings().model_dump()
    plain["models"][model][key] = None
    with pytest.raises(ValueError, match=rf"models\.{model}: expected a value of {key}"):
        ForecastersConfig(**plain)
