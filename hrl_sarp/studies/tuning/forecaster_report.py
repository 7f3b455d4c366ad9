"""What a search of `tune-forecaster` came to: counts, the best settings as a file, a page."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import polars as pl
from sqlalchemy.engine import make_url

from hrl_sarp.config.encoder_schema import ForecastersConfig
from hrl_sarp.forecasters.evaluation.baselines.points import LastValue
from hrl_sarp.forecasters.evaluation.baselines.walks import EwmaWalk
from hrl_sarp.forecasters.training.run import Pretrained
from hrl_sarp.reporting.page import Section, page
from hrl_sarp.reporting.table import Table
from hrl_sarp.run.files import write_json, write_text
from hrl_sarp.studies.tuning import PAGE
from hrl_sarp.studies.tuning.cells import as_plain
from hrl_sarp.studies.tuning.forecaster_space import settings_file, tried_settings, tried_start
from hrl_sarp.studies.tuning.forecasters import (
    COMMAND,
    CRPS,
    DEFAULTS,
    ForecasterSearch,
    best_trial,
    sampling_of,
)
from hrl_sarp.studies.tuning.report import BEST, Aim, draw, importances, table_of
from hrl_sarp.studies.tuning.storage import values_of

STUDY, TABLE = "study.json", "trials.csv"
"""Files in the folder of a search, beside those of `report`."""
FAILED_SHOWN = 10
CLOSE_OF = Aim(
    "CRPS of the close, % of the last price",
    "Score: mean ranked probability score of the close on the fixed origins of validation, % of "
    "the price at the origin; lower is better.",
    is_lower_better=True,
    shown=lambda score: f"{score:.4f}",
)


@dataclass(frozen=True)
class Outcome:
    """What is said of a search."""

    table: Table
    told: list[str]
    has_best: bool


def summarise_search(search: ForecasterSearch) -> Outcome:
    """Write what the trials of a study have come to so far, those of other processes included.

    Args:
        search: its folder gets `study.json`, `trials.csv`, `best.yaml`, `tune.html` and figures.

    Returns:
        The table of the best trials, and sentences about the search.
    """
    with search.study() as study:
        plain = [
            as_plain(trial)
            | {
                "values": values_of(trial, search.space),
                "epochs": len(trial.intermediate_values),
            }
            for trial in study.get_trials(deepcopy=False)
        ]
        importance, defaults = importances(study), float(study.user_attrs[DEFAULTS])
        best = _best(search, study)
    beside = {rule.name: search.origins.score(rule) for rule in (LastValue(), EwmaWalk())}
    rules = ", ".join(f"{name} {score:.4f} %" for name, score in beside.items())
    told = [
        *_sentences(search, plain, best, defaults),
        f"Rules on the same origins: {rules}.",
        *_failures(plain),
    ]
    table = table_of(plain, CLOSE_OF)
    scores = {"defaults": defaults, "rules": beside, "best": best}
    write_json(search.folder / STUDY, {**_counts(search, plain), **scores})
    write_text(search.folder / TABLE, _rows(plain))
    if best is not None:
        heading = (
            f"# Made by `{COMMAND}`: trial {best['number']}. Laid over config/forecasters.yaml:\n"
            f"# {_command(search, best)}\n"
        )
        write_text(search.folder / BEST, settings_file(_settings(search, best), heading))
    drawings = draw(plain, importance, search.folder, CLOSE_OF, defaults)
    sections = [Section("Trials", [table]), Section("Figures", drawings)]
    title = f"Tuning of {search.model}"
    write_text(search.folder / PAGE, page(title, search.folder.name, told, sections))
    return Outcome(table, told, best is not None)


def _best(search: ForecasterSearch, study: optuna.Study) -> dict[str, Any] | None:
    """Return the best trial, with the sampling that makes it better still."""
    trial = best_trial(study)
    if trial is None:
        return None
    found: dict[str, Any] = {
        "number": trial.number,
        "score": trial.value,
        "values": values_of(trial, search.space),
        "sampling": None,
        "samplings": len(sampling_of(study, trial.number)),
    }
    for sampling in sampling_of(study, trial.number)[:1]:
        if sampling["score"] < found["score"]:
            found["sampling"] = sampling
    return found


def _settings(search: ForecasterSearch, best: Mapping[str, Any]) -> ForecastersConfig:
    values = dict(best["values"])
    if best["sampling"] is not None:
        values |= {f"sampling.{key}": best["sampling"][key] for key in ("temperature", "top_p")}
    return tried_settings(search.settings, search.model, values)


def _command(search: ForecasterSearch, best: Mapping[str, Any]) -> str:
    """Return the command that trains with the best values; the source of bars is left to add."""
    start: Pretrained = tried_start(search.request.start, best["values"])
    paths: dict[str, Path | None] = {"--weights": start.weights, "--tokenizer": start.tokenizer}
    words = ["hrl-sarp", "train-forecaster", "--model", search.model]
    words += ["--settings", str(search.folder / BEST), "--seed", str(search.request.seed)]
    for option, path in paths.items():
        words += [] if path is None else [option, str(path)]
    words += ["--freeze"] if start.freeze else []
    words += [] if start.lora_rank is None else ["--lora-rank", str(start.lora_rank)]
    return shlex.join(words)


def _sentences(
    search: ForecasterSearch,
    trials: Sequence[Mapping[str, Any]],
    best: Mapping[str, Any] | None,
    defaults: float,
) -> list[str]:
    counts = ", ".join(f"{n} {state}" for state, n in _states(trials).items())
    told = [f"{len(trials)} trials: {counts}."]
    usual = f"The untouched settings score {defaults:.4f} %"
    if best is None:
        return [*told, f"{usual}. No trial has finished."]
    score, drawn = best["score"], best["sampling"]
    told.append(
        f"Trial {best['number']} is the best one: CRPS {score:.4f} % of the last price. {usual}; "
        f"the best trial is {100 * (score / defaults - 1):+.1f} % from that."
    )
    if score >= defaults:
        told.append("No trial beat the untouched settings: keep them.")
    if drawn is not None:
        told.append(
            f"Of {best['samplings']} ways to draw its paths, temperature {drawn['temperature']:g} "
            f"and top_p {drawn['top_p']:g} are the best: {drawn['score']:.4f} %."
        )
    told.append(
        f"It was chosen among {len(trials)} on the same {len(search.origins.rows)} origins, so its "
        "score is too low. The test has not been read."
    )
    return [*told, f"To train it: {_command(search, best)}, with the options of your bars."]


def _failures(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    failed = [trial for trial in trials if trial["state"] == "fail"]
    return [
        f"Trial {trial['number']} failed: {trial['reason']}." for trial in failed[:FAILED_SHOWN]
    ]


def _states(trials: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    states = [trial["state"] for trial in trials]
    return {state: states.count(state) for state in dict.fromkeys(states)}


def _counts(search: ForecasterSearch, trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what statistics need to know of a search, in plain values."""
    first, last = search.origins.days()
    return {
        "model": search.model,
        "storage": make_url(search.storage).render_as_string(hide_password=True),
        "metric": CRPS,
        "horizon": search.origins.horizon,
        "origins": len(search.origins.rows),
        "days": {"first": first, "last": last},
        "trials": {"all": len(trials), **_states(trials)},
    }


def _rows(trials: Sequence[Mapping[str, Any]]) -> str:
    keys = list(dict.fromkeys(key for trial in trials for key in trial["values"]))
    columns: dict[str, list[Any]] = {
        "trial": [trial["number"] for trial in trials],
        "state": [trial["state"] for trial in trials],
        CRPS: [trial["score"] for trial in trials],
        "epochs": [trial["epochs"] for trial in trials],
        "reason": [trial["reason"] for trial in trials],
    }
    for key in keys:
        found = [trial["values"].get(key) for trial in trials]
        is_number = all(isinstance(value, int | float | None) for value in found)
        columns[key] = found if is_number else [None if v is None else str(v) for v in found]
    return pl.DataFrame(columns, strict=False).write_csv()
