"""What a search came to: the best trial as an experiment, tables, figures and a page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import TrialState

from hrl_sarp.config.loading import dump_config, load_config, nested, overlaid
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.errors import ConfigError
from hrl_sarp.reporting.figure import (
    BLUE,
    FADED,
    PANEL_HEIGHT,
    VERMILION,
    WIDTH,
    save_png,
    styled,
)
from hrl_sarp.reporting.page import Drawing, Section, page
from hrl_sarp.reporting.table import NONE, Table, signed
from hrl_sarp.run.files import write_json, write_text
from hrl_sarp.studies.tuning import PAGE, TRIALS
from hrl_sarp.studies.tuning.cells import Tuning, as_plain
from hrl_sarp.studies.tuning.space import differing
from hrl_sarp.studies.tuning.storage import values_of

BEST, HISTORY, IMPORTANCE = "best.yaml", "history.png", "importance.png"
"""Files in the folder of a search."""
ROWS = 20
"""Trials that the table shows: the best ones first."""
FEWEST = 4
"""Finished trials from which on importances are shown; a forest over fewer says nothing."""
MOVED = 1e-9
"""Spread of scores, % a year, below which no value can have mattered."""


@dataclass(frozen=True)
class Aim:
    """What the scores of a search are, and which of them are good."""

    axis: str
    """Below the figure's title: what a score is, with its unit."""
    note: str
    """Below the table."""
    is_lower_better: bool
    shown: Callable[[float], str]
    """A score as text."""

    @property
    def sign(self) -> float:
        """Factor that makes higher scores better."""
        return -1.0 if self.is_lower_better else 1.0


OVER_RULE = Aim(
    "mean - error, % a year",
    "Score: objective over the experiment's rule on the inner folds, % a year, mean of the "
    "trainings less one standard error.",
    is_lower_better=False,
    shown=signed,
)
"""Of the command `tune`."""


def summarise(tuning: Tuning, config_dir: Path) -> tuple[Table, list[str]]:
    """Write what the trials of a study have come to so far, those of other processes included.

    Args:
        tuning: the search; its folder gets the files.
        config_dir: folder of the configuration, which `best.yaml` is laid over.

    Returns:
        The table of the best trials, and sentences about the search.
    """
    with tuning.study() as study:
        trials = study.get_trials(deepcopy=False)
        plain = [as_plain(trial) | {"values": values_of(trial, tuning.space)} for trial in trials]
        importance = importances(study)
    table, told = table_of(plain), _sentences(plain)
    write_json(tuning.root / TRIALS, {"study": tuning.name, "trials": plain})
    drawings = draw(plain, importance, tuning.root)
    best = best_of(plain)
    if best:
        config = overlaid(tuning.config, best["values"], f"trial {best['number']}")
        write_text(tuning.root / BEST, experiment(config, config_dir, _heading(tuning, best)))
    sections = [Section("Trials", [table]), Section("Figures", drawings)]
    write_text(tuning.root / PAGE, page("Tuning", tuning.name, told, sections))
    return table, told


def draw(
    trials: Sequence[Mapping[str, Any]],
    importance: Mapping[str, float],
    folder: Path,
    aim: Aim = OVER_RULE,
    untouched: float | None = None,
) -> list[Drawing]:
    """Draw the figures of a search, and write them.

    Args:
        trials: of `cells.as_plain`.
        importance: of `importances`.
        folder: gets `history.png` and, where there are importances, `importance.png`.
        aim: of the search.
        untouched: score of the settings that no trial changed, where it is known.

    Returns:
        The figures for a page.
    """
    figure = history_figure(trials, aim, untouched)
    save_png(folder / HISTORY, figure)
    drawings = [Drawing(figure, "history", "Score of each trial, and the best one.")]
    if importance:
        figure = importance_figure(importance)
        save_png(folder / IMPORTANCE, figure)
        caption = "Share of the variance of the scores that each value explains (fANOVA)."
        drawings.append(Drawing(figure, "importance", caption))
    return drawings


def best_of(trials: Sequence[Mapping[str, Any]], aim: Aim = OVER_RULE) -> Mapping[str, Any] | None:
    """Return the finished trial with the best score, the earlier one of two alike.

    Args:
        trials: of `cells.as_plain`.
        aim: of the search.

    Returns:
        The trial; None where none has finished.

    Examples:
        >>> best_of([{"number": 0, "score": 1.0}, {"number": 1, "score": None}])["number"]
        0
    """
    finished = [trial for trial in trials if trial["score"] is not None]
    return max(
        finished, key=lambda trial: (aim.sign * trial["score"], -trial["number"]), default=None
    )


def table_of(trials: Sequence[Mapping[str, Any]], aim: Aim = OVER_RULE) -> Table:
    """Make the table of the best trials, and after them of those that did not finish.

    Args:
        trials: of `cells.as_plain`.
        aim: of the search.

    Returns:
        One row a trial, and a column for each value that was tried.
    """
    keys = list(dict.fromkeys(key for trial in trials for key in trial["values"]))
    order = sorted(
        trials, key=lambda t: (t["score"] is None, -aim.sign * (t["score"] or 0.0), t["number"])
    )
    rows = [
        (
            str(trial["number"]),
            NONE if trial["score"] is None else aim.shown(trial["score"]),
            trial["state"],
            *(_cell(trial["values"].get(key)) for key in keys),
        )
        for trial in order[:ROWS]
    ]
    header = ("trial", "score", "state", *keys)
    columns, words = tuple(range(len(header))), frozenset({0, 2})
    return Table("trials", header, rows, aim.note, telling=columns, text_columns=words)


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else NONE if value is None else str(value)


def _sentences(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    states = [trial["state"] for trial in trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    told = [f"{len(trials)} trials: {counts or 'none'}."]
    best = best_of(trials)
    if best:
        told.append(
            f"Trial {best['number']} is the best one: {signed(best['score'])} % a year. It was "
            f"chosen among {len(trials)}, so its score is too high; every trial is in the trial "
            "log, and what is evaluated from now on is deflated by them."
        )
    failed = [trial for trial in trials if trial["state"] == "fail"]
    told += [f"Trial {trial['number']} failed: {trial['reason']}." for trial in failed[:ROWS]]
    return told


def _heading(tuning: Tuning, best: Mapping[str, Any]) -> str:
    return (
        f"# Made by `hrl-sarp tune`: trial {best['number']} of study {tuning.name}.\n"
        "# An experiment of its own: hrl-sarp train --experiment best.yaml, with its path.\n"
    )


def experiment(config: RunConfig, config_dir: Path, heading: str) -> str:
    """Write a configuration as an experiment: the values that differ from the defaults.

    Args:
        config: merged and checked.
        config_dir: folder of the defaults that it will be laid over.
        heading: comment lines before the values.

    Returns:
        YAML that reads back as the same configuration.
    """
    is_known = (config_dir / "markets" / f"{config.market}.yaml").is_file()
    defaults = load_config(config_dir, config.market if is_known else None)
    values = differing(config, defaults)
    try:
        is_whole = overlaid(defaults, values, BEST) == config
    except ConfigError:  # a dot in a key
        is_whole = False
    # a mapping that lacks a key of the defaults can only be written as a whole
    return heading + dump_config(
        {"market": config.market, **nested(values)} if is_whole else config
    )


def importances(study: optuna.Study) -> dict[str, float]:
    """Say how much of the scores' variance each value explains.

    Args:
        study: with its trials.

    Returns:
        Key -> share, the largest first; nothing for too few trials.
    """
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    scores = [trial.value for trial in done if trial.value is not None]
    if len(scores) < FEWEST or float(np.ptp(scores)) < MOVED:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


@styled
def history_figure(
    trials: Sequence[Mapping[str, Any]], aim: Aim = OVER_RULE, untouched: float | None = None
) -> Figure:
    """Draw the scores of the trials in their order.

    Args:
        trials: of `cells.as_plain`.
        aim: of the search.
        untouched: score of the settings that no trial changed, where it is known.

    Returns:
        The figure: a point for each finished trial, a line for the best one so far, a dashed one
        for `untouched`, and a mark at the foot for each that was pruned or failed.
    """
    figure = Figure(figsize=(WIDTH, PANEL_HEIGHT), layout="constrained")
    axes = figure.subplots()
    done = [trial for trial in trials if trial["score"] is not None]
    x, y = [t["number"] for t in done], [t["score"] for t in done]
    axes.plot(x, y, "o", color=BLUE, markersize=4, label="finished")
    if done:
        best = aim.sign * np.maximum.accumulate(aim.sign * np.array(y))
        axes.step(x, best, where="post", color=VERMILION, label="best so far")
    if untouched is not None:
        axes.axhline(untouched, color=FADED, linestyle="--", label="untouched settings")
    rest = [t["number"] for t in trials if t["score"] is None]
    if rest:
        foot, label = axes.get_xaxis_transform(), "pruned or failed"
        axes.plot(rest, [0.02] * len(rest), "|", color=FADED, transform=foot, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title="Score of each trial", xlabel="trial", ylabel=aim.axis)
    axes.legend()
    return figure


@styled
def importance_figure(importance: Mapping[str, float]) -> Figure:
    """Draw how much of the scores' variance each value explains.

    Args:
        importance: dotted key -> share, largest first.

    Returns:
        The figure, one bar a key.
    """
    height = max(PANEL_HEIGHT / 2, 0.4 * len(importance) + 1)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    names = list(importance)[::-1]
    axes.barh(names, [importance[name] for name in names], color=BLUE)
    axes.set(title="What the scores depend on", xlabel="share of their variance", xlim=(0, 1))
    axes.grid(visible=False, axis="y")
    return figure
