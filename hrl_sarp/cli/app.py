"""The commands. Each reads options, calls one function of the package and prints its result."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hrl_sarp.cli import encoders, live, studies
from hrl_sarp.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_LOG_DIR,
    DataDir,
    Device,
    Experiment,
    LogDir,
    MarketName,
    Overwrite,
    OwnConfig,
    Resume,
    Seed,
    TrialLogFile,
    parse_numbers,
    read_config,
    running,
)
from hrl_sarp.cli.reports import (
    ALL,
    Selection,
    load_context,
    make_report,
    report_folder,
    report_seconds,
)
from hrl_sarp.errors import HrlSarpError
from hrl_sarp.run.phases import require_agents
from hrl_sarp.run.terminal import expect_seconds, run_progress, say, stretch

if TYPE_CHECKING:  # heavy packages load inside the command that needs them: --help is instant
    from hrl_sarp.config.schema import RunConfig
    from hrl_sarp.contracts import Market

SPANS = ("train", "validation", "test")

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

DAY = "%Y-%m-%d"


def _print_version(is_asked: bool) -> bool:  # noqa: FBT001 -- typer calls it by position
    if is_asked:
        from importlib.metadata import version

        say(f"hrl-sarp {version('hrl-sarp')}")
        raise typer.Exit
    return is_asked


@app.callback()
def options_of_all(
    _version: Annotated[  # noqa: FBT002 -- an option, given by name
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Hierarchical reinforcement learning for sector-aware, risk-adaptive portfolios."""


@app.command("collect-data")
def collect_data(  # noqa: PLR0913 -- a parameter is an option
    source: Annotated[str, typer.Option(help="sample, synthetic, files or yahoo.")] = "sample",
    input_path: Annotated[
        Path | None, typer.Option("--input", help="Your CSV or parquet (source files).")
    ] = None,
    macro: Annotated[Path | None, typer.Option(help="Macro series (source files).")] = None,
    symbols: Annotated[
        Path | None,
        typer.Option(help="symbol, sector[, ticker] (source yahoo); default: config/symbols/."),
    ] = None,
    start: Annotated[
        datetime | None, typer.Option(formats=[DAY], help="First day (source yahoo).")
    ] = None,
    end: Annotated[
        datetime | None, typer.Option(formats=[DAY], help="Last day (source yahoo).")
    ] = None,
    check: Annotated[  # noqa: FBT002 -- an option, given by name
        bool, typer.Option("--check", help="Say what would be read as what; write nothing.")
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    experiment: Experiment = None,
    market: MarketName = None,
    own: OwnConfig = None,
    overwrite: Overwrite = False,  # noqa: FBT002 -- an option, given by name
) -> None:
    """Collect a market into DATA_DIR: parquet files and a manifest with hashes.

    The default is offline: 20 US stocks 1990-2022 that come with the package skfolio. Exit code 1
    where the data were written, but `train` with the same options would refuse them.
    """
    from rich.console import Console

    from hrl_sarp.cli.own_market import read_files
    from hrl_sarp.data.collect import DEFAULT_MARKETS, SOURCES, collect, render_readings
    from hrl_sarp.data.sources.yahoo.download import SYMBOLS_DIR, YahooRequest
    from hrl_sarp.market.assemble import assemble_market
    from hrl_sarp.market.cache import assembled_market

    if source not in SOURCES:
        raise HrlSarpError(f"--source must be one of {', '.join(SOURCES)}, found '{source}'")
    config = read_config(market, experiment, own, usual_market=DEFAULT_MARKETS[source])
    if check:
        raw = read_files(source, config, input_path, macro)
        Console().print(render_readings(raw))
        _require_market(config, lambda: assemble_market(raw, config))
        return
    request = None
    if source == "yahoo" or symbols or start or end:
        lists = own / "symbols" if own is not None and own.is_dir() else SYMBOLS_DIR
        today = datetime.now(tz=UTC).date()
        days = start and start.date(), end and end.date()
        request = YahooRequest(symbols, *days, today, lists)
    manifest = collect(source, data_dir, config, input_path, macro, request, overwrite=overwrite)
    say(f"{data_dir}: {len(manifest['symbols'])} symbols from {manifest['source']}")
    _require_market(config, lambda: assembled_market(data_dir, config))


def _require_market(config: "RunConfig", make: Callable[[], "Market"]) -> None:
    """Say what `train` makes of data; end with exit code 1 where it would refuse them."""
    from hrl_sarp.cli.own_market import foresee

    if foresee(config, make) is None:
        raise typer.Exit(1)


@app.command("validate-data")
def validate_data(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    experiment: Experiment = None,
    market: MarketName = None,
    own: OwnConfig = None,
) -> None:
    """Check the collected data by named rules; exit code 0 if nothing fails.

    Writes validation.json and, with a picture of each kind of finding, validation.html.
    """
    from rich.console import Console

    from hrl_sarp.data.findings_page import write_page
    from hrl_sarp.data.quality.validation import summary, validate_folder
    from hrl_sarp.data.store import read_raw
    from hrl_sarp.features.prices import levels_around

    config = read_config(market, experiment, own)
    report = validate_folder(data_dir, config)
    raw = read_raw(data_dir)
    Console().print(summary(report))
    levels = levels_around(raw, report, config.market_profile.sectors)
    say(f"wrote {write_page(data_dir, raw, report, levels)}")
    if report.has_failed:
        raise typer.Exit(1)


@app.command("train")
def train(  # noqa: PLR0913 -- options, given by name
    phase: Annotated[
        int | None, typer.Option(help="One of 1 to 5; all of them and the backtest if not given.")
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    log_dir: LogDir = DEFAULT_LOG_DIR,
    experiment: Experiment = None,
    market: MarketName = None,
    own: OwnConfig = None,
    seed: Seed = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Several seeds with commas: each trains, and their mean is deployed."),
    ] = None,
    device: Device = "auto",
    resume: Resume = False,  # noqa: FBT002 -- an option, given by name
    overwrite: Overwrite = False,  # noqa: FBT002 -- an option, given by name
    trial_log: TrialLogFile = None,
) -> None:
    """Train the five phases, certify the agents and backtest on the test span; or one phase.

    Example: hrl-sarp train --experiment real_us --seeds 0,1,2
    """
    from hrl_sarp.run.phases import require_free_folder

    # every wrong option is refused before anything is written
    several = parse_numbers(seeds, "--seeds", "0,1,2")
    if several is not None and (phase is not None or seed is not None):
        raise HrlSarpError("--seeds trains all phases of its seeds: leave out --phase and --seed")
    # before the imports below, which take seconds
    require_free_folder(log_dir, phase, resume=resume, overwrite=overwrite)
    from hrl_sarp.data.store import read_manifest
    from hrl_sarp.run.session import resolve_device
    from hrl_sarp.run.trials import TrialLog
    from hrl_sarp.training.certify import run_seconds, train_and_certify
    from hrl_sarp.training.curriculum import introduce, phase_seconds, run_phase
    from hrl_sarp.training.seeds import require_kind

    if phase is not None or not overwrite:
        require_kind(log_dir, several=several is not None)
    seed = several[0] if several else seed
    config = read_config(market, experiment, own, seed)
    resolve_device(device)
    read_manifest(data_dir)
    with running(log_dir), run_progress():
        context = replace(load_context(data_dir, log_dir, config, device), resume=resume)
        if phase is not None:
            introduce(context)
            expect_seconds(phase_seconds(config, context.market.split)[phase])
            with context.stop, stretch(0.0, 1.0, f"phase {phase}"):
                run_phase(phase, context)
            return
        trained = sum(run_seconds(context, len(several or [0])))
        share = trained / (trained + report_seconds(context, Selection().span))
        with context.stop, stretch(0.0, share):
            train_and_certify(context, several, TrialLog(trial_log), overwrite=overwrite)
        with stretch(share, 1.0, "backtest"):
            context = load_context(data_dir, log_dir, config, "cpu")
            made = make_report(context, Selection(), trial_log, overwrite=True)
    made.show()


@app.command("backtest")
def backtest(  # noqa: PLR0913 -- options, given by name
    span: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    agents: Annotated[
        str, typer.Option(help="Trained pairs by their names in the table, with commas; or all.")
    ] = ALL,
    baselines: Annotated[
        str, typer.Option(help="As in evaluation.yaml, with commas; or all or none.")
    ] = ALL,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    log_dir: LogDir = DEFAULT_LOG_DIR,
    experiment: Experiment = None,
    market: MarketName = None,
    own: OwnConfig = None,
    seed: Seed = None,
    overwrite: Overwrite = False,  # noqa: FBT002 -- an option, given by name
    trial_log: TrialLogFile = None,
) -> None:
    """Backtest the trained agents of LOG_DIR beside all baselines; writes LOG_DIR/backtest.

    Another span, or some agents or baselines only, has a folder of its own beside it.
    """
    if span not in SPANS:
        raise HrlSarpError(f"--span must be one of {', '.join(SPANS)}, found '{span}'")
    chosen = Selection(span, agents, baselines)
    names = {ALL: None, "none": []}.get(baselines, baselines.split(","))
    config = read_config(market, experiment, own, seed, {"evaluation": {"baselines": names}})
    require_agents(log_dir)
    with running(log_dir):
        context = load_context(data_dir, log_dir, config, "cpu")
        with run_progress(), stretch(0.0, 1.0, "backtest"):
            made = make_report(context, chosen, trial_log, overwrite=overwrite)
        made.show()


@app.command("stress-test")
def stress_test(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    log_dir: LogDir = DEFAULT_LOG_DIR,
    experiment: Experiment = None,
    market: MarketName = None,
    own: OwnConfig = None,
    seed: Seed = None,
    overwrite: Overwrite = False,  # noqa: FBT002 -- an option, given by name
) -> None:
    """Put the trained agents of LOG_DIR and all baselines under stress; writes LOG_DIR/stress.

    Replays the dated windows of the market profile that the data cover. Applies the sector shocks
    of config/stress.yaml after the test span, to a market that is otherwise still. Simulator,
    costs and limits are those of the backtest.
    """
    from rich.console import Console

    from hrl_sarp.config.consistency import require_shock_sectors
    from hrl_sarp.data.store import read_sector_names

    config = read_config(market, experiment, own, seed)
    require_agents(log_dir)
    require_shock_sectors(config, config.market_profile.sectors or read_sector_names(data_dir))
    # what follows takes seconds to import
    from hrl_sarp.evaluation.policies import trained_policies
    from hrl_sarp.evaluation.report.stress_page import summary, write_stress_test
    from hrl_sarp.evaluation.stress import run_stress_test

    with running(log_dir):
        context = load_context(data_dir, log_dir, config, "cpu")
        with report_folder(log_dir / "stress", context, overwrite=overwrite) as folder:
            result = run_stress_test(
                context.market, lambda change: trained_policies(context, change)[0], config
            )
            page = write_stress_test(result, folder)
        Console().print(summary(result))
        say(f"wrote {page}")


@app.command("diagnose")
def diagnose(
    log_dir: LogDir = DEFAULT_LOG_DIR,
    permuted: Annotated[  # noqa: FBT002 -- an option, given by name
        bool,
        typer.Option(
            "--permuted", help="Train phases 1 to 3 on permuted returns, too (takes minutes)."
        ),
    ] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show the training curves of LOG_DIR, what was granted, and the permuted-returns control.

    docs/diagnosis.md explains them. The control is kept in LOG_DIR/permuted.
    """
    from rich.console import Console

    from hrl_sarp.reporting.table import paragraphs
    from hrl_sarp.studies.permuted_returns import (
        COMMAND,
        control_sentence,
        control_table,
        run_control,
        stored_control,
    )
    from hrl_sarp.training.certify import read_certification
    from hrl_sarp.training.curriculum import config_of_run, phase_tables
    from hrl_sarp.training.seeds import seed_folders

    console = Console()
    folders = seed_folders(log_dir)
    for seed, folder in folders.items():
        for table in phase_tables(folder):
            named = table.title if seed is None else f"seed {seed}, {table.title}"
            console.print(replace(table, title=named))
    certified = read_certification(log_dir)
    for table in certified.tables() if certified else []:
        console.print(table)
    first = next(iter(folders.values()))
    config = config_of_run(first)
    gains = stored_control(first)
    if permuted and gains is None:
        with running(log_dir):
            context = load_context(data_dir, first, config, "cpu")
            with context.stop:
                gains = run_control(context)
    if gains is None:
        unknown = f"In-sample gain, true / permuted: not measured; `{COMMAND}` measures it."
        console.print(paragraphs([unknown]))
        return
    confidence = config.evaluation.confidence
    console.print(
        control_table(gains, confidence), paragraphs([control_sentence(gains, confidence)])
    )


@app.command("report")
def report(
    runs: Annotated[list[Path], typer.Argument(help="Log folders of finished runs (seeds).")],
    readme: Annotated[
        Path | None, typer.Option(help="File whose block <!-- results --> gets the table.")
    ] = None,
) -> None:
    """Compare finished runs: one table over all seeds, with intervals over dates and seeds."""
    from rich.console import Console

    from hrl_sarp.evaluation.report import aggregate_runs
    from hrl_sarp.run.files import replace_block

    table = aggregate_runs(runs).table
    Console().print(table)
    if readme is not None:
        replace_block(readme, "results", table.markdown())
        say(f"wrote the table into {readme}")


@app.command("init")
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to write.")] = Path("config"),
    input_path: Annotated[
        Path | None,
        typer.Option("--input", help="Your CSV or parquet: describe its market for --config."),
    ] = None,
    macro: Annotated[Path | None, typer.Option(help="Macro series beside --input.")] = None,
    market: Annotated[
        str, typer.Option(help="Profile that the market of --input follows in all else.")
    ] = "own",
    overwrite: Overwrite = False,  # noqa: FBT002 -- an option, given by name
) -> None:
    """Write an editable configuration to FOLDER, for --config FOLDER.

    Without --input it is a copy of all defaults. With it, one file that describes your market:
    sectors, calendar, features, spans and limits as your files have them.
    """
    from hrl_sarp.cli.own_market import write_draft
    from hrl_sarp.config.loading import copy_defaults

    if input_path is not None:
        write_draft(folder, input_path, macro, market, overwrite=overwrite)
        return
    n_files = copy_defaults(folder, overwrite=overwrite)
    say(f"wrote {n_files} files; use them with --config {folder}")


studies.add_commands(app)
live.add_commands(app)
encoders.add_commands(app)
