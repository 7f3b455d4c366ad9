"""The commands that compare: evaluate, known-markets, tune, tune-forecaster, runs and audit."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hrl_sarp.cli.forecasters import DEFAULT_DIR as FORECASTER_DIR
from hrl_sarp.cli.forecasters import (
    Epochs,
    Holdout,
    Model,
    Panel,
    Root,
    RunSeed,
    Settings,
    Tokenizer,
    ValRoot,
    Weights,
    pretrained,
    read_settings,
    read_source,
    require_source,
)
from hrl_sarp.cli.options import (
    DEFAULT_DATA_DIR,
    OUTPUT_OPTION,
    OWN_MARKET,
    DataDir,
    Device,
    Experiment,
    MarketName,
    OwnConfig,
    TrialLogFile,
    parse_numbers,
    read_config,
    read_config_of_run,
    running,
    say_failed,
)
from hrl_sarp.errors import ConfigError, HrlSarpError
from hrl_sarp.run.phases import require_agents
from hrl_sarp.run.terminal import run_progress, say

if TYPE_CHECKING:  # heavy packages load inside the command that needs them: --help is instant
    from hrl_sarp.config.study_schema import StudyConfig
    from hrl_sarp.studies import Cell
    from hrl_sarp.studies.workers import Workers

Readme = Annotated[
    list[Path] | None,
    typer.Option(
        help="File whose block <!-- study NAME --> gets the card of the study, and whose block "
        "<!-- tables of NAME --> its tables. May be repeated.",
        show_default=False,
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        help="Cells at a time; each takes one core. Default: 2, on a cluster all its cores.",
        min=1,
        show_default=False,
    ),
]
Backend = Annotated[
    str, typer.Option(help="local: processes of this machine. ray: a cluster (extra `ray`).")
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Of the Ray cluster: auto or HOST:PORT. Default: one on this machine, which ends with "
        "the study.",
        show_default=False,
    ),
]
Memory = Annotated[
    float | None,
    typer.Option(
        help="GiB of a cell; one that needs more fails. On a Ray cluster: what a cell asks for, so "
        "that a machine begins no more cells than it has room for.",
        min=0.1,
        show_default=False,
    ),
]
Output = Annotated[
    Path | None, typer.Option(help="Folder of cells and tables; default: logs/studies/NAME.")
]
Trials = Annotated[int, typer.Option(min=1, help="Trials of this folder.")]
Storage = Annotated[
    str | None,
    typer.Option(
        help="Database that processes share: sqlite:///OUTPUT/study.db.", show_default=False
    ),
]
SearchOutput = Annotated[
    Path | None,
    typer.Option(help=f"Folder of the search; {FORECASTER_DIR}/tuning/MODEL.", show_default=False),
]
LOCAL, RAY = "local", "ray"
LOCAL_JOBS = 2
STUDIES = Path("logs/studies")
"""Has one folder for each study where no --output is given."""
SEARCHES = Path("logs/tuning")
"""Has one folder for each search where no --output is given."""
FORECASTERS = ("toto", "kronos")
TUNING_LOG = "tuning.log"


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module to the application."""
    app.command("evaluate")(evaluate)
    app.command("known-markets")(known_markets)
    app.command("runs")(runs)
    app.command("audit")(audit)
    app.command("tune")(tune)
    app.command("tune-forecaster")(tune_forecaster)


def evaluate(  # noqa: PLR0913 -- a parameter is an option
    study: Annotated[str, typer.Option(help="File of config/studies/ by its name, or a file.")],
    market: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=DIR: the folder of a market's data, in place of the study's or added to it. "
            "May be repeated.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="In place of the study's, with commas between them.")
    ] = None,
    phases: Annotated[
        str | None, typer.Option(help="In place of the study's, from 1 on: 1,2 ends after phase 2.")
    ] = None,
    jobs: Jobs = None,
    backend: Backend = LOCAL,
    address: Address = None,
    memory: Memory = None,
    output: Output = None,
    own: Annotated[
        Path | None,
        typer.Option(
            "--config", help="Folder that `init` wrote, with studies and markets of your own."
        ),
    ] = None,
    readme: Readme = None,
    summary_only: Annotated[  # noqa: FBT002 -- an option, given by name
        bool, typer.Option("--summary-only", help="Run nothing; tables of what has finished.")
    ] = False,
) -> None:
    """Train and test over years that follow each other, and say what is shown (walk-forward).

    The same command goes on after Ctrl-C or a kill, and tries again what failed. Exit code 1 if a
    cell failed. docs/walk_forward.md reads the tables.

    Example: hrl-sarp evaluate --study laptop --jobs 2
    """
    name = Path(study).stem
    folder = output or STUDIES / name
    given = {
        "markets": dict(map(_market, market or [])),
        "seeds": list(parse_numbers(seeds, "--seeds", "0,1,2") or ()),
        "phases": list(parse_numbers(phases, "--phases", "1,2,3") or ()),
    }
    plan = _read(study, own, {key: value for key, value in given.items() if value})
    from hrl_sarp.config.loading import DEFAULT_CONFIG_DIR
    from hrl_sarp.studies.evaluate import claim, planned, require_own_folder  # takes seconds
    from hrl_sarp.studies.walk_forward import report

    walk = planned(plan, name, folder, own or DEFAULT_CONFIG_DIR)
    require_own_folder(plan, folder)
    for path in readme or ():
        _blocks(path, name)  # a page without a block is refused before hours of work
    failed: Mapping[Cell, str] = {}
    if not summary_only:
        walk.require_startable()
        claim(plan, folder)
        failed = walk.run_all(*_workers(jobs, backend, address, memory)).failed
    say_failed(failed)
    say(report.summarise(walk))
    say(f"wrote {folder / report.TABLE} and {folder / report.PAGE}")
    for path in readme or ():
        _fill(path, name, folder)
    if failed:
        raise typer.Exit(1)


def known_markets(
    markets: Annotated[
        str | None, typer.Option(help="Names with commas between them; default: all.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds 0, 1, ... of each market.", min=1)] = 5,
    jobs: Jobs = None,
    backend: Backend = LOCAL,
    address: Address = None,
    memory: Memory = None,
    output: Annotated[Path, typer.Option(help="Folder of cells and tables.")] = STUDIES
    / "known_markets",
) -> None:
    """Train where the best policy is known, and say how much of it is reached (hours for all).

    The same command goes on after Ctrl-C or a kill. Exit code 1 if a cell failed.

    Example: hrl-sarp known-markets --markets kelly,no_trade_band --seeds 2
    """
    from rich.console import Console

    from hrl_sarp.known_markets.study import STUDIES as MARKETS  # takes seconds
    from hrl_sarp.known_markets.study import KnownMarkets, as_table, summarise
    from hrl_sarp.run.files import write_json, write_text
    from hrl_sarp.studies import Cell, run_grid
    from hrl_sarp.studies.overview import KNOWN_MARKETS

    names = list(dict.fromkeys(markets.split(","))) if markets else list(MARKETS)
    if unknown := [name for name in names if name not in MARKETS]:
        raise ConfigError(
            f"--markets: no market {', '.join(map(repr, unknown))}; choose of {', '.join(MARKETS)}"
        )
    cells = [Cell(market, seed) for market in names for seed in range(seeds)]
    write_json(output / KNOWN_MARKETS, {"markets": names, "seeds": seeds})
    n_jobs, workers = _workers(jobs, backend, address, memory)
    results = run_grid(KnownMarkets(output), cells, n_jobs, workers=workers)
    say_failed(results.failed)
    rows = summarise(results)
    table = as_table(rows)
    Console().print(table)
    write_json(output / "table.json", {"rows": rows})
    write_text(output / "table.md", f"{table.markdown()}\n")
    say(f"wrote {output / 'table.md'}")
    if results.failed:
        raise typer.Exit(1)


def runs(
    logs: Annotated[Path, typer.Option(help="Folder that is looked through.")] = Path("logs"),
) -> None:
    """List every run, report and study with its verdict, and write LOGS/index.html.

    Example: hrl-sarp runs --logs logs
    """
    from rich.console import Console

    from hrl_sarp.studies.overview import look_through, write_overview

    found = look_through(logs)
    for table in (found.studies, found.runs):
        if table.rows:
            Console().print(table)
    if found.is_empty:
        say(f"{logs} holds no run and no study yet")
    say(f"wrote {write_overview(found, logs)}")


def _workers(
    jobs: int | None, backend: str, address: str | None, memory_gib: float | None
) -> "tuple[int, Workers]":
    """Return how many cells run at a time, and who runs them."""
    if backend not in (LOCAL, RAY):
        raise ConfigError(f"--backend: expected {LOCAL} or {RAY}, found '{backend}'")
    if backend == RAY:
        from hrl_sarp.studies.ray_workers import RayWorkers

        cluster = RayWorkers(address, memory_gib=memory_gib)
        return jobs or cluster.cpus_of_cluster, cluster
    if address is not None:
        raise ConfigError(f"--address {address} is that of a cluster: give --backend {RAY}, too")
    from hrl_sarp.studies.workers import LocalProcesses

    return jobs or LOCAL_JOBS, LocalProcesses(memory_gib)


def _fill(path: Path, name: str, folder: Path) -> None:
    """Put what a study came to into the blocks that a page has for it."""
    from hrl_sarp.run.files import replace_block
    from hrl_sarp.studies.walk_forward.report import CARD, TABLE

    card, tables = _card_and_tables(name)
    blocks = _blocks(path, name)
    if tables in blocks:
        text = (folder / TABLE).read_text(encoding="utf-8")
        _, _, below = text.partition("\n")  # the page has a heading of its own
        below = re.sub(r"^!\[.*\n+", "", below, flags=re.MULTILINE)  # pictures stay with the study
        replace_block(path, tables, re.sub("^(?=#)", "#", below, flags=re.MULTILINE))
    if card in blocks:
        replace_block(path, card, (folder / CARD).read_text(encoding="utf-8"))
    say(f"wrote the study into {path}")


def _blocks(path: Path, name: str) -> list[str]:
    """Name the blocks that a page has for a study; one that has none is refused."""
    from hrl_sarp.run.files import has_block, require_block

    card, tables = _card_and_tables(name)
    blocks = [block for block in (card, tables) if has_block(path, block)] or [card]
    for block in blocks:
        require_block(path, block)
    return blocks


def _card_and_tables(name: str) -> tuple[str, str]:
    return f"study {name}", f"tables of {name}"


def audit(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    log_dir: Annotated[
        Path | None,
        typer.Option(help="Log folder of a trained run, whose agents are audited as well."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of the results; default: audit in LOG_DIR, else in DATA_DIR."),
    ] = None,
    experiment: Experiment = None,
    market: MarketName = None,
    own: OwnConfig = None,
) -> None:
    """Look for the future in your data, features, rewards, policies and agents.

    Data are changed after a day, and whatever was known before has to stay as it was. Exit code 1
    if a check finds a leak. Without --experiment, --market and --config the configuration is that
    of the run in LOG_DIR. docs/audit.md reads the table.

    Example: hrl-sarp audit --market sample --data-dir data/raw
    """
    from rich.console import Console

    from hrl_sarp.data.store import read_manifest

    read_manifest(data_dir)  # before the imports below, which take seconds
    if log_dir is not None:
        require_agents(log_dir)
    from hrl_sarp.studies.audit import audit_table, run_audit, verdict, write_audit

    if log_dir is None:
        config = read_config(market, experiment, own)
    else:
        config = read_config_of_run(log_dir, market, experiment, own)
    folder = output or (log_dir or data_dir) / "audit"
    with running(folder, OUTPUT_OPTION), run_progress():
        found = run_audit(data_dir, config, log_dir)
    page = write_audit(found, folder)
    Console().print(audit_table(found))
    say(verdict(found))
    say(f"wrote {page}")
    if found.n_leaks:
        raise typer.Exit(1)


def _read(study: str, own: Path | None, changes: dict[str, Any]) -> "StudyConfig":
    from hrl_sarp.config.loading import DEFAULT_CONFIG_DIR, load_study

    if own is not None and (not own.is_dir() or (own / OWN_MARKET).is_file()):
        raise ConfigError(
            f"--config {own}: expected a folder that `hrl-sarp init FOLDER` wrote without --input; "
            f"a profile that it drafted ({OWN_MARKET}) is copied to FOLDER/markets/NAME.yaml"
        )
    return load_study(study, own or DEFAULT_CONFIG_DIR, changes)


def _market(text: str) -> tuple[str, str]:
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise HrlSarpError(f"--market: expected NAME=DIR, such as us=data/us/raw, found '{text}'")
    return name, folder


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
    from hrl_sarp.run.files import sqlite_url
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
    url = storage or sqlite_url(folder / "study.db")
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


def tune_forecaster(  # noqa: PLR0913 -- the parameters are the command's options
    trials: Trials,
    model: Model = "toto",
    train_root: Root = None,
    val_root: ValRoot = None,
    panel: Panel = False,  # noqa: FBT002 -- an option, given by name
    data_dir: DataDir = DEFAULT_DATA_DIR,
    market: MarketName = None,
    epochs: Epochs = None,
    weights: Weights = None,
    tokenizer: Tokenizer = None,
    holdout: Holdout = None,
    output: SearchOutput = None,
    settings: Settings = None,
    storage: Storage = None,
    own: OwnConfig = None,
    experiment: Experiment = None,
    seed: RunSeed = 0,
    device: Device = "auto",
    trial_log: TrialLogFile = None,
) -> None:
    """Search for better settings of Toto or Kronos; the test is never read.

    Trials are compared by the CRPS of their forecasts in validation. The same command goes on after
    Ctrl-C or a kill; more trials are added to those there. What is tried is the section `tuning` of
    config/forecasters.yaml. Exit code 1 if no trial has finished. Needs Optuna, the extra `tune`.

    Example: hrl-sarp tune-forecaster --model toto --train-root prices/ --trials 20
    """
    require_source(
        "tune-forecaster", model, train_root, val_root, is_panel=panel, models=FORECASTERS
    )
    from rich.console import Console

    from hrl_sarp.run.files import sqlite_url
    from hrl_sarp.run.session import StopFlag, configure_threads, require_extra, resolve_device

    require_extra("optuna", "tune")
    from hrl_sarp.forecasters.training import run
    from hrl_sarp.studies.tuning.forecaster_report import summarise_search
    from hrl_sarp.studies.tuning.forecasters import ForecasterSearch, run_search

    found = read_settings(settings, model, {"epochs": epochs})
    config, chosen = read_config(market, experiment, own), resolve_device(device)
    configure_threads(config.threads)
    source = read_source(train_root, val_root, data_dir, config, found, holdout)
    folder = output or FORECASTER_DIR / "tuning" / model
    start = pretrained(model, weights, tokenizer, None)
    where = folder, seed, chosen, config.curriculum.checkpoint_seconds
    whole = run.TrainingRequest(model, source, found, *where, start)
    url = storage or sqlite_url(folder / "study.db")
    search = ForecasterSearch(whole, url, trial_log)
    search.require_startable()
    with running(folder, OUTPUT_OPTION, TUNING_LOG), StopFlag() as stop:
        run_search(search, trials, stop)
        outcome = summarise_search(search)
    Console().print(outcome.table)
    for sentence in outcome.told:
        say(sentence)
    say(f"wrote {folder / 'study.json'} and {folder / 'tune.html'}")
    if not outcome.has_best:
        raise typer.Exit(1)
