"""The study of Optuna that tuning writes to, and the trials that a killed process left in it."""

import platform
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.storages._heartbeat import get_heartbeat_thread
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from hrl_sarp.config.loading import name_changes
from hrl_sarp.errors import HrlSarpError, OverwriteError
from hrl_sarp.studies.tuning.space import Tried, as_label, choice_of

IDENTITY, RUNNER, REASON, RETRY_OF = "identity", "runner", "reason", "retry_of"
"""Names of what is kept beside a study and its trials."""
WAIT_SECONDS = 60.0
"""How long a process waits for another one that writes to the same SQLite file."""
ABANDONED = "its process was killed, and its command was not repeated"
HEARTBEAT_SECONDS, SILENCE_SECONDS = 60, 900
"""How often a running trial says so in the database, and after what silence it counts as killed."""


@contextmanager
def opened(
    url: str, name: str, pruner: BasePruner, direction: Literal["maximize", "minimize"] = "maximize"
) -> Iterator[optuna.Study]:
    """Open a study, which is made if it is missing, and close its database at the end.

    Args:
        url: of the database, as SQLAlchemy writes it.
        name: of the study in it.
        pruner: says which trials end early.
        direction: `maximize` or `minimize` the scores.

    Yields:
        The study.

    Raises:
        HrlSarpError: if the database cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    is_file = url.startswith("sqlite")
    waits = {"connect_args": {"timeout": WAIT_SECONDS}} if is_file else {}
    try:
        with warnings.catch_warnings():  # heartbeats are experimental
            warnings.simplefilter("ignore", ExperimentalWarning)
            storage = optuna.storages.RDBStorage(
                url,
                engine_kwargs=waits,
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=SILENCE_SECONDS,
            )
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction=direction,
            load_if_exists=True,
            pruner=pruner,
        )
    except (SQLAlchemyError, ImportError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise HrlSarpError(
            f"--storage {url}: expected a database such as sqlite:///logs/tuning/study.db, found "
            f"none that opens ({reason})"
        ) from error
    try:
        yield study
    finally:
        storage.remove_session()
        storage.engine.dispose()


def claim(
    study: optuna.Study, identity: Mapping[str, Any], cure: str = "--name begins another one"
) -> None:
    """Say what a study is about, or refuse to add trials that cannot be compared with its own.

    Args:
        study: new, or with trials.
        identity: plain values: configuration, search space and data.
        cure: what to do about a study of another search.

    Raises:
        OverwriteError: naming what differs.
    """
    there = study.user_attrs.get(IDENTITY)
    if there is None:
        study.set_user_attr(IDENTITY, dict(identity))
        return
    changes = name_changes(there, identity)
    if changes:
        raise OverwriteError(
            f"study {study.study_name} has trials of another search ({'; '.join(changes)}): {cure}"
        )


def suggested(trial: optuna.Trial, tuning: Tried) -> dict[str, Any]:
    """Draw the values of a trial; those that it has already stay.

    Args:
        trial: that was asked for.
        tuning: the search space.

    Returns:
        Dotted key -> value.
    """
    floats = {
        key: trial.suggest_float(key, found.low, found.high, log=found.log)
        for key, found in tuning.floats.items()
    }
    ints = {
        key: trial.suggest_int(key, found.low, found.high, log=found.log)
        for key, found in tuning.ints.items()
    }
    choices = {
        key: choice_of(trial.suggest_categorical(key, [as_label(v) for v in values]), values)
        for key, values in tuning.choices.items()
    }
    return {**floats, **ints, **choices}


def values_of(trial: FrozenTrial, tuning: Tried) -> dict[str, Any]:
    """Return the values of a trial by dotted key; none of one that has drawn none."""
    return {
        key: choice_of(value, tuning.choices[key]) if key in tuning.choices else value
        for key, value in trial.params.items()
    }


def asked(study: optuna.Study) -> optuna.Trial:
    """Ask for a trial; `beating` sends the heartbeats that Optuna warns about at this place."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Heartbeat of storage")
        return study.ask()


def resumed(study: optuna.Study, number: int) -> optuna.Trial:
    """Return a running trial, so that the process that began it can go on."""
    storage = study._storage
    return optuna.Trial(
        study, storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    )


def runner_name(folder: Path) -> str:
    """Name a process that runs trials: its machine, and its own folder there."""
    return f"{platform.node()} {folder.resolve()}"


@contextmanager
def own_place(root: Path) -> Iterator[int]:
    """Take the first place of a tuning folder that no process works in.

    A command that is repeated after a kill takes the place that is free again, and goes on there.
    The operating system frees it with the process, even a killed one.

    Args:
        root: folder of the tuning.

    Yields:
        Number of the place: 0 for the only process.
    """
    root.mkdir(parents=True, exist_ok=True)
    number = 0
    while True:
        lock = FileLock(_place_lock(root, number), timeout=0, is_singleton=False)
        try:
            lock.acquire()
        except Timeout:
            number += 1
        else:
            break
    try:
        yield number
    finally:
        lock.release()


def _place_lock(root: Path, number: int) -> Path:
    return root / f"place_{number}.lock"


def place_folder(root: Path, number: int) -> Path:
    """Return the folder of a place, with the trials that were run there."""
    return root / f"place_{number}"


def retry_abandoned(study: optuna.Study, root: Path, own: int) -> list[int]:
    """End the trials of killed processes of this folder as failed, and ask for each once more.

    A retry has the same values, and its trainings go on where the killed process left them. The
    trials of the own place are left: its cells go on with them.

    Args:
        study: with all trials.
        root: folder of the tuning.
        own: place of this process.

    Returns:
        Numbers of the trials that were ended.
    """
    free = {runner_name(place_folder(root, number)) for number in _free_places(root, own)}
    ended = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get(RUNNER) in free:
            resumed(study, trial.number).set_user_attr(REASON, ABANDONED)
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs={RETRY_OF: trial.number})
            ended.append(trial.number)
    return ended


@contextmanager
def beating(trial: optuna.Trial) -> Iterator[None]:
    """Let a trial say every minute that it runs, so that other machines leave it alone.

    Args:
        trial: that this process runs.

    Yields:
        Nothing. The trial is silent afterwards, as it is after a kill.
    """
    with get_heartbeat_thread(trial._trial_id, trial.study._storage):
        yield


def retry_silent(study: optuna.Study, own: Path) -> list[int]:
    """End trials that have been silent for long as failed, and ask for each once more.

    They are those of other folders, on this machine or another one: a process of theirs was killed
    and its command not repeated. The trials of the own place are left: its cells go on with them.

    Args:
        study: with all trials.
        own: folder of the place of this process.

    Returns:
        Numbers of the trials that were ended.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in running:
        if trial.user_attrs.get(RUNNER) == runner_name(own):
            study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined] # of RDBs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    trials = study.get_trials(deepcopy=False)
    ended = [each.number for each in running if trials[each.number].state == TrialState.FAIL]
    for number in ended:
        study.enqueue_trial(trials[number].params, user_attrs={RETRY_OF: number})
    return ended


def _free_places(root: Path, own: int) -> Iterator[int]:
    for path in root.glob("place_*.lock"):
        number = int(path.stem.removeprefix("place_"))
        if number == own:
            continue
        lock = FileLock(path, timeout=0, is_singleton=False)
        try:
            lock.acquire()
        except Timeout:
            continue
        lock.release()
        yield number
