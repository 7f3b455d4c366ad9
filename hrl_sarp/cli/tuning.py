"""The command `tune`: a search for better values of the configuration."""

from pathlib import Path
from typing import Annotated

import typer

from hrl_sarp.cli.options import (
    DEFAULT_DATA_DIR,
    DataDir,
    Experiment,
    MarketName,
    OwnConfig,
    TrialLogFile,
    read_config,
    say_failed,
)
from hrl_sarp.run.terminal import say

SEARCHES = Path("logs/tuning")
"""Has one folder for each search where no --output is given."""


def add_commands(app: typer.Typer) -> None:
    """Add the command of this module to the application."""
    app.command("tune")(tune)


def tune(  # noqa: PLR0913 -- options, given by name
    trials: Annotated[int, typer.Option(help="Trials that this process adds.", min=1)],
    jobs: Annotated[int, typer.Option(help="Trials at a time; each takes one core.", min=1)] = 1,
    space: Annotated[
        Path | None,
        typer.Option(help="What is tried, and on what trials are compared: config/tuning.yaml."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Database that processes share: sqlite:///OUTPUT/study.db."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the study in the database: that of the experiment.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of trainings and results: logs/tuning/NAME.")
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    experiment: Experiment = None,
    market: MarketName = None,
    own: OwnConfig = None,
    trial_log: TrialLogFile = None,
) -> None:
    """Search for better values of the configuration, on folds of training and validation alone.

    The same command goes on after Ctrl-C or a kill. In a second terminal it adds trials to the same
    study, and so it does on another machine with the same --storage and --name. Exit code 1 if no
    trial has finished. docs/tuning.md reads the results. Needs Optuna, the extra `tune`.

    Example: hrl-sarp tune --experiment quickstart --trials 30 --jobs 2
    """
    from rich.console import Console

    from hrl_sarp.config.loading import DEFAULT_CONFIG_DIR, TUNING, load_apart
    from hrl_sarp.config.study_schema import TuningConfig
    from hrl_sarp.run.session import require_extra

    config_dir = own if own is not None and (own / TUNING).is_file() else DEFAULT_CONFIG_DIR
    path = space or config_dir / TUNING
    tried = load_apart(path, TuningConfig, "the search space")
    config = read_config(market, experiment, own)
    require_extra("optuna", "tune")
    from hrl_sarp.studies.tuning.cells import Tuning, run_trials
    from hrl_sarp.studies.tuning.report import summarise
    from hrl_sarp.studies.tuning.space import require_search

    require_search(tried, config, path.name)
    title = name or (Path(experiment).stem if experiment else config.market)
    folder = output or SEARCHES / title
    url = storage or f"sqlite:///{folder / 'study.db'}"
    tuning = Tuning(title, config, tried, data_dir, folder, url, trial_log)
    say_failed(run_trials(tuning, trials, jobs).failed)
    table, told = summarise(tuning, config_dir)
    Console().print(table)
    for sentence in told:
        say(sentence)
    say(f"wrote {folder / 'tune.html'}")
    if not (folder / "best.yaml").is_file():
        raise typer.Exit(1)
    where = f" --config {own}" if own is not None and own.is_dir() else ""
    say(f"hrl-sarp train --experiment {folder / 'best.yaml'}{where} trains with the best values")
