"""The search of `tune-forecaster`: it goes on after stops, never reads the test, counts it all."""

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch

from hrl_sarp.config.encoder_schema import ForecastersConfig
from hrl_sarp.config.loading import DEFAULT_CONFIG_DIR, FORECASTERS, load_apart
from hrl_sarp.errors import ConfigError, OverwriteError, StoppedEarly, TrainingDivergedError
from hrl_sarp.fitting import Fit
from hrl_sarp.forecasters.api import load_forecaster
from hrl_sarp.forecasters.evaluation.baselines.points import LastValue
from hrl_sarp.forecasters.series import Series
from hrl_sarp.forecasters.training.origins import Origins
from hrl_sarp.forecasters.training.run import Pretrained, train_forecaster
from hrl_sarp.forecasters.training.sources import SplitSeries
from hrl_sarp.run.session import StopFlag
from hrl_sarp.run.trials import TrialLog
from hrl_sarp.studies.tuning import forecasters
from hrl_sarp.studies.tuning.forecaster_report import summarise_search
from hrl_sarp.studies.tuning.forecaster_space import (
    require_forecaster_space,
    tried_settings,
    tried_start,
)
from hrl_sarp.studies.tuning.forecasters import ForecasterSearch, run_search
from tests.studies.tuning.small_forecasters import (
    SPACES,
    TUNING,
    plain_trials,
    search,
    series_of,
    settings,
    split_of,
    trials_of,
    with_source,
)

N_TRIALS = 4


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ForecasterSearch]:
    """Return searches that nothing has stopped, each run once."""
    root, found = tmp_path_factory.mktemp("whole"), {}

    def of(model: str) -> ForecasterSearch:
        if model not in found:
            made = search(model, root / model / "search")
            run_search(made, N_TRIALS, StopFlag())
            summarise_search(made)
            found[model] = made
        return found[model]

    return of


def signal_at(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Press Ctrl-C in an update, counted over all trainings."""
    steps, once = [0], Fit._step

    def counted(fit: Fit, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        steps[0] += 1
        if steps[0] == at:
            signal.raise_signal(signal.SIGINT)
        return once(fit, rows)

    monkeypatch.setattr(Fit, "_step", counted)


def kill_at(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, at: int) -> None:
    """End the process, as a kill does, when a method is called for the `at`-th time."""
    calls, once = [0], getattr(owner, name)

    def counted(*given: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == at:
            raise KeyboardInterrupt
        return once(*given, **named)

    monkeypatch.setattr(owner, name, counted)


@pytest.mark.parametrize(
    ("model", "at"),
    [
        ("toto", 62),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [("toto", 3), ("toto", 25), ("kronos", 14), ("kronos", 60)]
        ),
    ],
)
def test_a_search_that_is_stopped_goes_on_to_the_trials_of_one_that_is_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: Callable[[str], ForecasterSearch],
    model: str,
    at: int,
) -> None:
    expected = plain_trials(whole(model))
    cut = search(model, tmp_path / "search")
    with monkeypatch.context() as patched, StopFlag() as stop:
        signal_at(patched, at)
        with pytest.raises(StoppedEarly):
            run_search(cut, N_TRIALS, stop)
    run_search(search(model, tmp_path / "search"), N_TRIALS, StopFlag())
    assert plain_trials(cut) == expected


@pytest.mark.parametrize(
    ("owner", "name", "at"),
    [
        # between the report of an epoch and its checkpoint, which shows the epoch again
        (Fit, "_save", 5),
        *(pytest.param(Fit, "_save", at, marks=pytest.mark.slow) for at in (2, 11)),
        # between the end of a trial, which is the pruned one, and Optuna's knowledge of it
        (optuna.Study, "tell", 4),
        # before a trial has its values, and between a score and what follows from it
        *(pytest.param(optuna.Trial, "set_user_attr", at, marks=pytest.mark.slow) for at in (1, 4)),
        pytest.param(TrialLog, "add", 3, marks=pytest.mark.slow),
    ],
)
def test_a_search_that_is_killed_anywhere_goes_on_to_the_same_trials(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: Callable[[str], ForecasterSearch],
    owner: type,
    name: str,
    at: int,
) -> None:
    cut = search("toto", tmp_path / "search")
    with monkeypatch.context() as patched:
        kill_at(patched, owner, name, at)
        with pytest.raises(KeyboardInterrupt):
            run_search(cut, N_TRIALS, StopFlag())
    run_search(cut, N_TRIALS, StopFlag())
    assert plain_trials(cut) == plain_trials(whole("toto"))


def test_more_trials_are_added_and_the_old_ones_stay(
    tmp_path: Path, whole: Callable[[str], ForecasterSearch]
) -> None:
    grown = search("toto", tmp_path / "search")
    for count in (1, N_TRIALS, 2):
        run_search(grown, count, StopFlag())
    assert plain_trials(grown) == plain_trials(whole("toto"))


def changed_after(one: Series, stop: np.datetime64, rng: np.random.Generator) -> Series:
    """Multiply all bars from a time on by a walk of their own."""
    walk = np.exp(np.cumsum(rng.normal(0, 0.05, len(one))))
    walk[one.timestamps < stop] = 1.0
    assert one.bars is not None
    return replace(one, target=one.target * walk, bars=one.bars * walk[:, None])


@pytest.mark.parametrize(
    ("model", "is_cut"),
    [
        ("toto", False),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [("toto", True), ("kronos", False), ("kronos", True)]
        ),
    ],
)
def test_neither_the_test_nor_the_holdout_moves_a_trial(
    tmp_path: Path, whole: Callable[[str], ForecasterSearch], model: str, *, is_cut: bool
) -> None:
    series, rng = series_of(), np.random.default_rng(9)
    split = split_of(series)
    begin = {"C": series[0].timestamps[0]}
    other = [
        changed_after(one, begin.get(one.symbol, split.validation_stop), rng) for one in series
    ]
    if is_cut:  # the bars are not even there
        stop = int(np.searchsorted(series[0].timestamps, split.validation_stop))
        parts = [(s.symbol, s.timestamps[:stop], s.target[:stop], s.bars[:stop]) for s in series]
        other = [Series(*part) for part in parts[:2]]
    found = with_source(search(model, tmp_path / "search"), SplitSeries(other, split, {}))
    run_search(found, N_TRIALS, StopFlag())
    assert plain_trials(found) == plain_trials(whole(model))


def test_a_bar_of_validation_moves_the_trials(
    tmp_path: Path, whole: Callable[[str], ForecasterSearch]
) -> None:
    series = series_of()
    split = split_of(series)
    middle = split.train_stop + (split.validation_stop - split.train_stop) / 2
    other = [changed_after(one, middle, np.random.default_rng(1)) for one in series]
    found = with_source(search("toto", tmp_path / "search"), SplitSeries(other, split, {}))
    run_search(found, 1, StopFlag())
    assert plain_trials(found)[0][-1] != plain_trials(whole("toto"))[0][-1]


@pytest.mark.parametrize("horizon", [1, 3, 7])
@pytest.mark.parametrize("most", [5, 1000])
def test_origins_lie_in_validation_a_horizon_after_training(
    tmp_path: Path, horizon: int, most: int
) -> None:
    plain = settings().model_dump()
    plain["tuning"] = {**TUNING, "horizon": horizon, "origins": most}
    found = search("toto", tmp_path, settings=ForecastersConfig(**plain))
    origins, split = found.origins, found.request.source.split
    assert len(origins.rows) <= most
    assert {origins.series[i].symbol for i, _ in origins.rows} == {"A", "B"}
    for i, row in origins.rows:
        times = origins.series[i].timestamps
        assert times[row + horizon] < split.validation_stop
        assert (times[row + 1 - horizon : row + 1] >= split.train_stop).all()
    moves = [
        np.abs(one.target[row + 1 + np.arange(horizon)] / one.target[row] - 1).mean()
        for one, row in ((origins.series[i], row) for i, row in origins.rows)
    ]
    # the score of a point is its absolute error
    assert origins.score(LastValue()) == pytest.approx(100 * np.mean(moves))


def test_every_trial_forecasts_from_the_same_origins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, once = [], Origins.score

    def watched(self: Origins, forecaster: Any) -> float:
        seen.append((self.rows, self.horizon, forecaster.least_rows, forecaster.context_rows))
        return once(self, forecaster)

    monkeypatch.setattr(Origins, "score", watched)
    run_search(search("toto", tmp_path / "search"), N_TRIALS, StopFlag())
    assert len({patch for _, _, patch, _ in seen}) == 2
    assert len({context for *_, context in seen}) > 2
    assert all(one[:2] == seen[0][:2] for one in seen)


def test_pruned_and_failed_trials_count_and_stand_in_the_trial_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once, failing = train_forecaster, [2]

    def diverges(request: Any, stop: Any, watch: Any = None) -> Any:
        if request.output.parent.name in {f"trial-{number}" for number in failing}:
            raise TrainingDivergedError("loss is nan")
        return once(request, stop, watch)

    monkeypatch.setattr(forecasters, "train_forecaster", diverges)
    found = search("toto", tmp_path / "search")
    run_search(found, 8, StopFlag())
    summarise_search(found)
    states = [trial.state.name.lower() for trial in trials_of(found)]
    assert states[2] == "fail"
    assert "pruned" in states
    counted = json.loads((found.folder / "study.json").read_text())["trials"]
    assert counted["all"] == 8
    assert {name: counted[name] for name in set(states)} == {
        name: states.count(name) for name in states
    }
    log = TrialLog(tmp_path / "trials.jsonl")
    assert log.count() == 8 + 1  # and the untouched settings
    assert {trial.kind for trial in log.trials()} == {"tuning"}
    assert {trial.metric for trial in log.trials()} == {"crps_pct"}
    assert sum(trial.value is None for trial in log.trials()) == 8 - states.count("complete")
    # only the best training is kept
    (kept,) = found.folder.glob("trials/*/training")
    assert (
        json.loads((kept.parent / "trial.json").read_text())["number"]
        == min(
            (t for t in trials_of(found) if t.value is not None and t.state.name == "COMPLETE"),
            key=lambda t: t.value,
        ).number
    )
    rows = (found.folder / "trials.csv").read_text().splitlines()
    assert len(rows) == 1 + 8
    assert "TrainingDivergedError: loss is nan" in rows[3]


@pytest.mark.parametrize("model", ["toto", "kronos"])
def test_training_with_the_best_settings_gives_the_score_of_the_trial(
    tmp_path: Path, whole: Callable[[str], ForecasterSearch], model: str
) -> None:
    found = whole(model)
    usual = DEFAULT_CONFIG_DIR / FORECASTERS
    best = load_apart(found.folder / "best.yaml", ForecastersConfig, "best", usual)
    told = json.loads((found.folder / "study.json").read_text())
    # the bars of test and holdout are there again
    asked = replace(found.whole, settings=best, output=tmp_path / "run")
    train_forecaster(asked, StopFlag())
    loaded = load_forecaster(tmp_path / "run", n_paths=TUNING["paths"]).forecaster
    score = found.origins.score(loaded)
    sampling = told["best"]["sampling"]
    expected = told["best"]["score"] if sampling is None else sampling["score"]
    assert score == pytest.approx(expected, rel=1e-6)
    assert told["defaults"] > 0
    if model == "kronos":
        assert told["best"]["samplings"] == 4
        assert loaded.clip == told["best"]["values"]["clip"]
        chosen = best.models["kronos"].sampling
        assert chosen is not None
        assert (loaded.sampling.temperature, loaded.sampling.top_p) == (
            chosen.temperature,
            chosen.top_p,
        )


def test_one_tokenizer_is_trained_for_each_clip(
    whole: Callable[[str], ForecasterSearch],
) -> None:
    found = whole("kronos")
    tried = {trial.params["clip"] for trial in trials_of(found)} | {5.0}
    there = {path.name for path in (found.folder / "tokenizers").iterdir()}
    assert there == {f"clip_{clip}" for clip in tried}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = search("toto", tmp_path_factory.mktemp("weights") / "run")
    train_forecaster(found.whole, StopFlag())
    return found.folder / "model"


def test_fine_tuning_tries_the_ways_and_says_the_best_one(tmp_path: Path, weights: Path) -> None:
    found = search("toto", tmp_path / "search", start=Pretrained(weights))
    run_search(found, 6, StopFlag())
    told = summarise_search(found).told
    ways = {trial.params["way"] for trial in trials_of(found)}
    assert len(ways) > 1
    best = json.loads((found.folder / "study.json").read_text())["best"]["values"]["way"]
    option = {"all": str(weights), "freeze": "--freeze", 2: "--lora-rank 2"}[best]
    assert any(option in sentence for sentence in told)
    assert option in (found.folder / "best.yaml").read_text()


def test_another_search_in_the_same_folder_is_refused_by_what_differs(
    tmp_path: Path, whole: Callable[[str], ForecasterSearch]
) -> None:
    there = whole("toto")
    other = replace(there, whole=replace(there.whole, seed=6))
    with pytest.raises(OverwriteError, match=r"seed 5 there, 6 here.*--output"):
        run_search(other, 1, StopFlag())
    moved = replace(there, storage=f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(OverwriteError, match=r"is of trial 0.*--storage"):
        run_search(moved, 1, StopFlag())


def spaced(model: str, part: str, **changes: Any) -> ForecastersConfig:
    plain = settings().model_dump()
    spaces = {**SPACES[model], part: {**SPACES[model][part], **changes}}
    plain["tuning"] = {**TUNING, "spaces": {**SPACES, model: spaces}}
    return ForecastersConfig(**plain)


RANGE = {"low": 1, "high": 2, "log": False}
WRONG: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "unknown": ("toto", "scratch", {"ints": {"depth": RANGE}}, r"depth: expected a key of"),
    "unknown size": ("kronos", "scratch", {"ints": {"sizes.k": RANGE}}, r"sizes\.k: expected a"),
    "resource": ("toto", "scratch", {"ints": {"epochs": RANGE}}, "epochs: all trials have"),
    "context": ("toto", "scratch", {"ints": {"context": RANGE}}, "context_patches"),
    "patches": ("kronos", "scratch", {"ints": {"context_patches": RANGE}}, "expected a key"),
    "way": ("toto", "scratch", {"choices": {"way": ["all", "freeze"]}}, "way: expected a key"),
    "ways": ("toto", "weights", {"choices": {"way": ["all", "half"]}}, "found 'half'"),
    "rank": ("toto", "weights", {"choices": {"way": ["all", 0]}}, "a rank from 1, found 0"),
    "size": ("toto", "weights", {"ints": {"sizes.num_layers": RANGE}}, "their own sizes"),
    "type": ("toto", "scratch", {"choices": {"batch_size": [8, 1.5]}}, "batch_size.*found 1.5"),
    "end": ("toto", "scratch", {"ints": {"patience": {**RANGE, "low": 0}}}, "patience.*found 0"),
    "sampling": (
        *("kronos", "scratch"),
        {"choices": {"sampling.top_p": [0.5, 0.9]}},
        "after the best trial",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_space_that_does_not_fit_is_refused_by_its_key(case: str) -> None:
    model, part, changes, message = WRONG[case]
    start = Pretrained() if part == "scratch" else Pretrained(Path("x"))
    with pytest.raises(ConfigError, match=message):
        require_forecaster_space(spaced(model, part, **changes), model, start)


@pytest.mark.parametrize("model", ["toto", "kronos"])
@pytest.mark.parametrize("start", [Pretrained(), Pretrained(Path("x"))])
def test_the_space_of_the_defaults_fits(model: str, start: Pretrained) -> None:
    usual = load_apart(DEFAULT_CONFIG_DIR / FORECASTERS, ForecastersConfig, "x")
    require_forecaster_space(usual, model, start)


@pytest.mark.parametrize(
    ("values", "context", "horizon"),
    [
        ({}, 16, 4),
        ({"context_patches": 3}, 12, 4),
        ({"sizes.patch_size": 2}, 16, 2),
        ({"sizes.patch_size": 8, "context_patches": 5}, 40, 8),
        ({"sizes.patch_size": 32}, 32, 32),
    ],
)
def test_a_toto_forecasts_one_patch_from_whole_patches(
    values: dict[str, Any], context: int, horizon: int
) -> None:
    found = tried_settings(settings(), "toto", values).models["toto"]
    assert (found.context, found.horizon) == (context, horizon)


@pytest.mark.parametrize(
    ("way", "freeze", "rank"), [("all", False, None), ("freeze", True, None), (4, False, 4)]
)
def test_a_way_says_what_is_trained_of_weights(
    way: str | int, rank: int | None, *, freeze: bool
) -> None:
    found = tried_start(Pretrained(Path("x")), {"way": way})
    assert (found.weights, found.freeze, found.lora_rank) == (Path("x"), freeze, rank)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
