"""Trials of a search: scores, pruning, failures, stops, kills, and what the trial log counts."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock, Timeout
from optuna.pruners import NopPruner
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial

from hrl_sarp.config.loading import DEFAULT_CONFIG_DIR, load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.envs.rollout import Decision
from hrl_sarp.errors import CheckpointError, HrlSarpError, OverwriteError
from hrl_sarp.evaluation.backtest import run_backtest
from hrl_sarp.evaluation.report.analysis import analyse
from hrl_sarp.run.files import sqlite_url
from hrl_sarp.run.trials import TrialLog, prices_hash
from hrl_sarp.studies.tuning import storage
from hrl_sarp.studies.tuning.cells import SCORE, Tuning, as_plain, run_trials
from hrl_sarp.studies.tuning.inner import InnerTrainings, tuning_splits
from hrl_sarp.studies.tuning.report import BEST, summarise
from hrl_sarp.studies.tuning.storage import (
    ABANDONED,
    RETRY_OF,
    RUNNER,
    asked,
    own_place,
    place_folder,
    retry_abandoned,
    runner_name,
    suggested,
    values_of,
)
from tests.evaluation.small_runs import ScriptedPolicy
from tests.studies.tuning.small_search import (
    LAYER,
    RATE,
    WIDTH,
    script,
    search,
    small_market,
    space,
)
from tests.tiny_runs import changed


def by_rate(config: RunConfig, number: int) -> list[float]:
    """Score the logarithm of the learning rate: mean + 1 and - 1 have a standard error of 1."""
    mean = number + np.log10(config.macro_agent.gradient.learning_rate)
    return [mean - 1.0, mean + 1.0]


def trials_of(tuning: Tuning) -> list[dict[str, Any]]:
    with tuning.study() as study:
        return [as_plain(trial) for trial in study.get_trials(deepcopy=False)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, by_rate)


def test_a_score_is_the_mean_less_one_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = search(tmp_path, monkeypatch)
    found = run_trials(tuning, 2, 1, in_process=True).found
    for measures in found.values():
        assert measures["state"] == "complete"
        # phase 2, and an error of sqrt(2) / sqrt(2)
        expected = 2 + np.log10(measures["values"][RATE]) - 1.0
        assert measures["score"] == pytest.approx(expected)


def test_the_same_call_adds_nothing_and_a_larger_one_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = search(tmp_path, monkeypatch)
    for count, there in ((2, 2), (2, 2), (5, 5)):
        assert len(run_trials(tuning, count, 1, in_process=True).found) == count
        assert len(trials_of(tuning)) == there


def test_a_search_that_was_stopped_draws_what_it_would_have_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = search(tmp_path / "whole", monkeypatch)
    run_trials(whole, 5, 1, in_process=True)
    stopped = search(tmp_path / "stopped", monkeypatch)
    run_trials(stopped, 2, 1, in_process=True)
    calls: list[int] = []

    def dying(config: RunConfig, number: int) -> list[float]:
        calls.append(number)
        if number == 2:
            raise KeyboardInterrupt
        return by_rate(config, number)

    script(monkeypatch, dying)
    with pytest.raises(KeyboardInterrupt):
        run_trials(stopped, 5, 1, in_process=True)
    assert [trial["state"] for trial in trials_of(stopped)] == ["complete", "complete", "running"]
    script(monkeypatch, by_rate)
    run_trials(stopped, 5, 1, in_process=True)
    # the trial that was running went on: same number, same values
    assert trials_of(stopped) == trials_of(whole)
    assert TrialLog(tmp_path / "stopped" / "trials.jsonl").count() == 5


def test_a_trial_behind_the_median_ends_after_its_phase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = search(tmp_path, monkeypatch)
    run_trials(tuning, 2, 1, in_process=True)
    seen: list[int] = []

    def bad(_config: RunConfig, number: int) -> list[float]:
        seen.append(number)
        return [-9.0, -9.0]

    script(monkeypatch, bad)
    run_trials(tuning, 3, 1, in_process=True)
    assert [trial["state"] for trial in trials_of(tuning)] == ["complete", "complete", "pruned"]
    assert seen == [1]


@pytest.mark.parametrize(
    "error", [CheckpointError("no such file"), RuntimeError("shapes 3 and 4"), ValueError("n < 2")]
)
def test_a_failed_trial_is_recorded_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    calls: list[int] = []

    def once(config: RunConfig, number: int) -> list[float]:
        calls.append(number)
        if len(calls) == 1:
            raise error
        return by_rate(config, number)

    script(monkeypatch, once)
    tuning = search(tmp_path, monkeypatch)
    results = run_trials(tuning, 2, 1, in_process=True)
    assert not results.failed
    first, second = trials_of(tuning)
    assert (first["state"], first["score"]) == ("fail", None)
    assert first["reason"] == f"{type(error).__name__}: {error}"
    assert second["state"] == "complete"
    assert TrialLog(tuning.trial_log).count() == 2
    _, told = summarise(tuning, DEFAULT_CONFIG_DIR)
    assert any(str(error) in sentence for sentence in told)


@pytest.mark.parametrize("scores", [[np.nan, 1.0], [np.inf, 1.0]])
def test_a_score_that_is_no_number_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: list[float]
) -> None:
    script(monkeypatch, lambda _config, _number: scores)
    tuning = search(tmp_path, monkeypatch)
    run_trials(tuning, 1, 1, in_process=True)
    (only,) = trials_of(tuning)
    assert only["state"] == "fail"
    assert "phase 1: scores" in only["reason"]


def test_another_search_in_the_same_study_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = search(tmp_path, monkeypatch)
    run_trials(tuning, 1, 1, in_process=True)
    other = replace(tuning, space=space(ints={}))
    with pytest.raises(OverwriteError, match=rf"space\.ints.*{WIDTH}.* there, .* here"):
        run_trials(other, 1, 1, in_process=True)
    seed = tuning.config.model_copy(update={"seed": 4})
    with pytest.raises(OverwriteError, match=r"experiment\.seed 3 there, 4 here"):
        run_trials(replace(tuning, config=seed), 1, 1, in_process=True)
    market, _ = small_market()
    later = replace(market, dates=market.dates + 1)
    monkeypatch.setattr(Tuning, "market", lambda _self: later)
    with pytest.raises(OverwriteError, match=r"data\.content"):
        run_trials(tuning, 1, 1, in_process=True)
    assert len(trials_of(tuning)) == 1


def test_the_folder_of_another_search_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = search(tmp_path, monkeypatch)
    run_trials(tuning, 1, 1, in_process=True)
    with pytest.raises(OverwriteError, match=r"study 'small' there, 'other' here.*--output"):
        run_trials(replace(tuning, name="other"), 1, 1, in_process=True)


# ---- several processes


def test_a_second_process_takes_a_place_of_its_own(tmp_path: Path) -> None:
    with own_place(tmp_path) as first:
        with own_place(tmp_path) as second:
            assert (first, second) == (0, 1)
        with own_place(tmp_path) as again:
            assert again == 1
    with own_place(tmp_path) as last:
        assert last == 0


def begun(tuning: Tuning, place: int) -> int:
    """Begin a trial as a process in a place does."""
    with tuning.study() as study:
        trial = asked(study)
        trial.set_user_attr(RUNNER, runner_name(place_folder(tuning.root, place)))
        suggested(trial, tuning.space)
        return trial.number


def test_a_trial_of_a_killed_process_fails_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = search(tmp_path, monkeypatch)
    with own_place(tmp_path) as own, own_place(tmp_path) as living:
        with own_place(tmp_path) as killed:
            numbers = [begun(tuning, place) for place in (own, living, killed)]
        with tuning.study() as study:
            assert retry_abandoned(study, tmp_path, own) == [numbers[2]]
            assert retry_abandoned(study, tmp_path, own) == []
            trials = study.get_trials(deepcopy=False)
            again = asked(study)
            assert again.user_attrs[RETRY_OF] == numbers[2]
            assert suggested(again, tuning.space) == values_of(trials[numbers[2]], tuning.space)
    states = [trial.state for trial in trials]
    assert states == [
        *(TrialState.RUNNING, TrialState.RUNNING),  # it goes on, and the other one lives
        *(TrialState.FAIL, TrialState.WAITING),
    ]
    assert as_plain(trials[2])["reason"] == ABANDONED


def test_another_machine_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning = search(tmp_path, monkeypatch)
    with own_place(tmp_path) as own:
        with own_place(tmp_path) as killed:
            number = begun(tuning, killed)
        with tuning.study() as study:
            attrs = study.get_trials()[number].user_attrs
            monkeypatch.setattr("platform.node", lambda: "elsewhere")
            assert attrs[RUNNER] != runner_name(place_folder(tmp_path, killed))
            assert retry_abandoned(study, tmp_path, own) == []


SECOND = 1.0
"""Of silence in this test: a beat stands in whole seconds in the database."""


def test_a_trial_of_another_machine_that_is_silent_for_long_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials: of the own place, of a living machine, of a killed one, of one that never beat."""
    monkeypatch.setattr(storage, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(storage, "SILENCE_SECONDS", 2)
    tuning = search(tmp_path, monkeypatch)
    own, living, killed, old = (begun(tuning, place) for place in range(4))
    with tuning.study() as study:
        for number in (own, killed):
            with storage.beating(storage.resumed(study, number)):
                pass  # it beats as soon as it begins
        with storage.beating(storage.resumed(study, living)):
            assert storage.retry_silent(study, place_folder(tmp_path, 0)) == []
            time.sleep(4 * SECOND)
            assert storage.retry_silent(study, place_folder(tmp_path, 0)) == [killed]
            assert storage.retry_silent(study, place_folder(tmp_path, 0)) == []
        trials = study.get_trials(deepcopy=False)
        again = asked(study)
        assert again.user_attrs[RETRY_OF] == killed
        assert suggested(again, tuning.space) == values_of(trials[killed], tuning.space)
    states = {number: trials[number].state for number in (own, living, killed, old)}
    assert states == {
        **dict.fromkeys((own, living, old), TrialState.RUNNING),
        killed: TrialState.FAIL,
    }
    assert as_plain(trials[killed])["reason"] == ABANDONED
    assert as_plain(trials[own])["reason"] == ""


def test_a_trial_beats_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning, beats = search(tmp_path, monkeypatch), list[int]()
    record = RDBStorage.record_heartbeat

    def noted(self: RDBStorage, trial_id: int) -> None:
        beats.append(trial_id)
        record(self, trial_id)

    monkeypatch.setattr(RDBStorage, "record_heartbeat", noted)
    assert not run_trials(tuning, 2, 1, in_process=True).failed
    assert len(set(beats)) == 2


# ---- what comes of it


def test_the_best_trial_is_an_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(experiment="smoke", market="us")
    tuning = search(tmp_path, monkeypatch, config=config, space=space(startup_trials=9))
    for module in ("cells", "inner"):
        name = f"hrl_sarp.studies.tuning.{module}.tuning_splits"
        monkeypatch.setattr(name, splits_of_small_market)
    run_trials(tuning, 5, 1, in_process=True)
    table, told = summarise(tuning, DEFAULT_CONFIG_DIR)
    best = max(trials_of(tuning), key=lambda trial: trial["score"] or -np.inf)
    found = load_config(experiment=str(tmp_path / BEST))
    assert found == load_config(own_file=tmp_path / BEST)
    assert found.macro_agent.gradient.learning_rate == best["values"][RATE]
    assert found.macro_agent.graph.layer == best["values"][LAYER]
    assert found.macro_agent.network.hidden == best["values"][WIDTH]
    # everything else is that of the experiment
    base = config.model_dump()
    base["macro_agent"]["gradient"]["learning_rate"] = best["values"][RATE]
    base["macro_agent"]["graph"]["layer"] = best["values"][LAYER]
    base["macro_agent"]["network"]["hidden"] = best["values"][WIDTH]
    assert found.model_dump() == base
    assert table.rows[0][0] == str(best["number"])
    assert f"Trial {best['number']} is the best one" in " ".join(told)
    files = {"history.png", "importance.png", "tune.html", "trials.json", BEST}
    assert files <= {path.name for path in tmp_path.iterdir()}
    assert "<svg" in (tmp_path / "tune.html").read_text()


def splits_of_small_market(*_: Any) -> Any:
    market, config = small_market()
    return tuning_splits(market, config, space().inner)


def test_every_trial_is_in_the_log_and_deflates_what_is_evaluated_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    market, config = small_market()
    few = {"baselines": ["inverse_volatility"], "random_portfolios": 0, "bootstrap_samples": 20}
    config = changed(config, {"evaluation": few})

    def deflated() -> tuple[int, float, float]:
        log = TrialLog(tmp_path / "trials.jsonl")
        policy = ScriptedPolicy("mine", lambda view: leaning(view))
        result = run_backtest(market, [policy], "test", config, log=log)
        found = analyse(result).performances["mine"]
        return (
            result.trials.count,
            found["deflated_sharpe"],
            found["needed_appraisal_ratio"],
        )

    def leaning(view: Any) -> Any:
        usable = view.tradable[0].double()
        weights = usable * (1 + 0.1 * usable.cumsum(0))
        return Decision(weights / weights.sum())

    count, sure, needed = deflated()
    assert count == 1
    calls: list[int] = []

    def mixed(config: RunConfig, number: int) -> list[float]:
        calls.append(number)
        if len(calls) == 1:
            raise RuntimeError("once")
        return [-9.0, -9.0] if len(calls) >= 8 else by_rate(config, number)

    script(monkeypatch, mixed)
    tuning = search(tmp_path, monkeypatch)
    run_trials(tuning, 6, 1, in_process=True)
    states = [trial["state"] for trial in trials_of(tuning)]
    assert {"fail", "pruned", "complete"} == set(states)
    tuned = TrialLog(tmp_path / "trials.jsonl").trials(metric=SCORE)
    assert [trial.kind for trial in tuned] == ["tuning"] * 6
    assert {trial.market for trial in tuned} == {prices_hash(market)}
    assert [trial.value is None for trial in tuned] == [state != "complete" for state in states]
    # no session of the test span was seen, and all six still count
    assert max(trial.span.last for trial in tuned) < str(market.dates[market.split.test.start])
    after, less_sure, more_needed = deflated()
    assert after == 1 + 6
    assert less_sure < sure
    assert more_needed > needed


def test_trials_of_equal_values_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[bool] = []

    def scores_by_phase(self: InnerTrainings) -> Iterator[tuple[int, list[float]]]:
        try:
            FileLock(self.folder / "trainings.lock", timeout=0, is_singleton=False).acquire()
        except Timeout:
            waited.append(True)
        yield from ((number, [0.0, 1.0]) for number in (1, 2))

    monkeypatch.setattr(InnerTrainings, "scores_by_phase", scores_by_phase)
    run_trials(search(tmp_path, monkeypatch), 1, 1, in_process=True)
    assert waited == [True]


def test_a_database_that_does_not_open_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in ("nonsense", f"sqlite:///{tmp_path}/none/x.db", "postgresql://nobody@nowhere/x"):
        tuning = search(tmp_path, monkeypatch, storage=url)
        with pytest.raises(HrlSarpError, match="--storage") as caught:
            run_trials(tuning, 1, 1, in_process=True)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sign", ["?", "#", "%41", "?x=1", "&", " ", "é", ";", "@", ":"])
def test_a_folder_may_have_any_name(sign: str, tmp_path: Path) -> None:
    folder = tmp_path / f"is it{sign}"
    folder.mkdir()
    url = sqlite_url(folder / "study.db")
    with storage.opened(url, "first", NopPruner()) as study:
        study.add_trial(create_trial(value=2.0))
    with storage.opened(url, "first", NopPruner()) as again:
        assert again.best_value == 2.0
    assert [path.name for path in folder.iterdir()] == ["study.db"]
    assert list(tmp_path.iterdir()) == [folder]
