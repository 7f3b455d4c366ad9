"""The commands. Each reads options, calls one function of the package and prints its result."""

import errno
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hrl_sarp.cli import encoders
from hrl_sarp.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_LOG_DIR,
    FORMER_NAMES,
    DataDir,
    Device,
    Experiment,
    LogDir,
    MarketName,
    OwnConfig,
    Resume,
    Seed,
    TrialLogFile,
    parse_seeds,
    read_config,
    running,
)
from hrl_sarp.errors import HrlSarpError, MissingArtifactError, StoppedEarly
from hrl_sarp.run.terminal import accept_any_console, log_to_screen, say

if TYPE_CHECKING:  # heavy packages load inside the command that needs them: --help is instant
    from hrl_sarp.config.schema import RunConfig
    from hrl_sarp.training.phase import PhaseContext

ALL = "all"
SPANS = ("train", "validation", "test")
STOPPED = 130
"""Exit code after Ctrl-C or SIGTERM."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Hierarchical reinforcement learning for sector-aware, risk-adaptive portfolios.",
)

DAY = "%Y-%m-%d"
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files of the same names.")]


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
) -> None:
    """Collect a market into DATA_DIR: parquet files and a manifest with hashes.

    The default is offline: 20 US stocks 1990-2022 that come with the package skfolio.
    """
    from hrl_sarp.data.collect import DEFAULT_MARKETS, SOURCES, collect
    from hrl_sarp.data.sources.yahoo.download import SYMBOLS_DIR, YahooRequest

    if source not in SOURCES:
        raise HrlSarpError(f"--source must be one of {', '.join(SOURCES)}, found '{source}'")
    usual = None if experiment else DEFAULT_MARKETS[source]
    config = read_config(market or usual, experiment, own)
    if check:
        _check(source, config, input_path, macro)
        return
    request = None
    if source == "yahoo" or symbols or start or end:
        lists = own / "symbols" if own is not None and own.is_dir() else SYMBOLS_DIR
        today = datetime.now(tz=UTC).date()
        days = start and start.date(), end and end.date()
        request = YahooRequest(symbols, *days, today, lists)
    manifest = collect(source, data_dir, config, input_path, macro, request)
    say(f"{data_dir}: {len(manifest['symbols'])} symbols from {manifest['source']}")


def _check(source: str, config: "RunConfig", input_path: Path | None, macro: Path | None) -> None:
    from rich.console import Console

    from hrl_sarp.data.collect import check_files, render_readings

    if source != "files":
        raise HrlSarpError(f"--check belongs to the source files, found source {source}")
    raw = check_files(config, input_path, macro)
    Console().print(render_readings(raw))
    for note in raw.notes:
        say(f"note: {note}")


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
    trial_log: TrialLogFile = None,
) -> None:
    """Train the five phases, certify the agents and backtest on the test span; or one phase.

    Example: hrl-sarp train --experiment real_us --seeds 0,1,2
    """
    from hrl_sarp.run.phases import require_earlier_phases, require_phase

    several = parse_seeds(seeds)  # every wrong option is refused before anything is written
    if phase is not None:
        require_phase(phase)
    if several is not None and (phase is not None or seed is not None):
        raise HrlSarpError("--seeds trains all phases of its seeds: leave out --phase and --seed")
    if phase is not None:  # before the imports below, which take seconds
        require_earlier_phases(phase, log_dir)
    from hrl_sarp.data.store import read_manifest
    from hrl_sarp.run.session import resolve_device
    from hrl_sarp.training.certify import certify, require_room
    from hrl_sarp.training.curriculum import run_curriculum, run_phase
    from hrl_sarp.training.seeds import require_kind, train_seeds

    require_kind(log_dir, several=several is not None)
    seed = several[0] if several else seed
    config = read_config(market, experiment, own, seed)
    resolve_device(device)
    read_manifest(data_dir)
    with running(log_dir):
        context = replace(_context(data_dir, log_dir, config, device), resume=resume)
        with context.stop:
            if phase is not None:
                run_phase(phase, context)
                return
            require_room(context)
            if several is None:
                run_curriculum(context)
            else:
                train_seeds(context, several)
            certify(context)
        _backtest(_context(data_dir, log_dir, config, "cpu"), "test", trial_log)


@app.command("backtest")
def backtest(
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
    trial_log: TrialLogFile = None,
) -> None:
    """Backtest the trained agents of LOG_DIR beside all baselines; writes LOG_DIR/backtest."""
    if span not in SPANS:
        raise HrlSarpError(f"--span must be one of {', '.join(SPANS)}, found '{span}'")
    names = {ALL: None, "none": []}.get(baselines, baselines.split(","))
    config = read_config(market, experiment, own, seed, {"evaluation": {"baselines": names}})
    if not log_dir.is_dir():
        raise MissingArtifactError(f"no run at {log_dir}: run `hrl-sarp train` first")
    with running(log_dir):
        context = _context(data_dir, log_dir, config, "cpu")
        _backtest(context, span, trial_log, None if agents == ALL else agents.split(","))


@app.command("stress-test")
def stress_test(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    log_dir: LogDir = DEFAULT_LOG_DIR,
    experiment: Experiment = None,
    market: MarketName = None,
    own: OwnConfig = None,
    seed: Seed = None,
) -> None:
    """Put the trained agents of LOG_DIR and all baselines under stress; writes LOG_DIR/stress.

    Replays the dated windows of the market profile that the data cover. Applies the sector shocks
    of config/stress.yaml after the test span, to a market that is otherwise still. Simulator,
    costs and limits are those of the backtest.
    """
    from rich.console import Console

    from hrl_sarp.evaluation.policies import trained_policies
    from hrl_sarp.evaluation.report.stress_page import summary, write_stress_test
    from hrl_sarp.evaluation.stress import run_stress_test

    config = read_config(market, experiment, own, seed)
    if not log_dir.is_dir():
        raise MissingArtifactError(f"no run at {log_dir}: run `hrl-sarp train` first")
    with running(log_dir):
        context = _context(data_dir, log_dir, config, "cpu")
        result = run_stress_test(
            context.market, lambda change: trained_policies(context, change)[0], config
        )
        page = write_stress_test(result, context.log_dir / "stress")
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
            context = _context(data_dir, first, config, "cpu")
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
    overwrite: Overwrite = False,  # noqa: FBT002 -- an option, given by name
) -> None:
    """Write an editable copy of the default configuration to FOLDER, for --config FOLDER."""
    from hrl_sarp.config.loading import copy_defaults

    n_files = copy_defaults(folder, overwrite=overwrite)
    say(f"wrote {n_files} files; use them with --config {folder}")


encoders.add_commands(app)


def _context(data_dir: Path, log_dir: Path, config: "RunConfig", device: str) -> "PhaseContext":
    """Load the market, with the configured stock embeddings, and build the phases' context."""
    from hrl_sarp.encoders.stock_embeddings import with_stock_embeddings
    from hrl_sarp.market.cache import assembled_market
    from hrl_sarp.run.session import StopFlag, configure_threads, resolve_device
    from hrl_sarp.training.curriculum import make_context

    chosen = resolve_device(device)
    configure_threads(config.threads)
    market = with_stock_embeddings(assembled_market(data_dir, config), data_dir, config, chosen)
    return make_context(config, market, log_dir, chosen, StopFlag(), resume=False)


def _backtest(
    context: "PhaseContext", span: str, trial_log: Path | None, names: list[str] | None = None
) -> None:
    from rich.console import Console

    from hrl_sarp.evaluation.backtest import run_backtest
    from hrl_sarp.evaluation.policies import granted, select_policies, trained_policies
    from hrl_sarp.evaluation.report import print_summary, write_backtest
    from hrl_sarp.evaluation.trials import record_selection
    from hrl_sarp.run.trials import TrialLog
    from hrl_sarp.training.seeds import members

    policies, pairs = trained_policies(context)
    swaps = pairs if names is None else None
    if names is not None:
        policies = select_policies(policies, names)
    log = TrialLog(trial_log)
    for member in members(context):
        record_selection(member.log_dir, member.market, member.config, log)
    result = run_backtest(context.market, policies, span, context.config, log=log)
    out_dir = context.log_dir / "backtest"
    analysis = write_backtest(result, out_dir, swaps, granted(context.log_dir))
    print_summary(result, analysis, Console())
    say(f"wrote {out_dir / 'report.html'}")


def _as_line(error: HrlSarpError) -> str:
    """Return the message; a heading with a single line below it becomes one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(lines) if len(lines) <= 2 else str(error)


def main() -> int:
    """Run the command line. An expected problem prints one line and gives an exit code above 0.

    Returns:
        0, or 130 after Ctrl-C or SIGTERM, or 1 or 2 for a problem.
    """
    accept_any_console()
    log_to_screen()
    try:
        with _stopped_by_sigterm():
            code = app(standalone_mode=False) or 0
    except typer.TyperException as error:
        return _complain(_as_usage(error.format_message()), error.exit_code)
    except StoppedEarly:
        return _complain("stopped; the same command with --resume continues exactly there", STOPPED)
    except KeyboardInterrupt:
        code = STOPPED
    except HrlSarpError as error:
        return _complain(f"{type(error).__name__}: {_as_line(error)}", 1)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        cure = "; make room, then repeat the command (train: with --resume)" if is_full else ""
        return _complain(f"{type(error).__name__}: {error.strerror or error}{where}{cure}", 1)
    if code == STOPPED:
        return _complain(_stopped_at_once(), STOPPED)
    return int(code)


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C. Phases have handlers of their own, which stop at a boundary."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    former = {number: signal.getsignal(number) for number in numbers}
    # in the background of a script Ctrl-C is ignored, and stays so
    changed = {n: handler for n, handler in former.items() if handler is not signal.SIG_IGN}
    for number in changed:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in changed.items():
            signal.signal(number, handler)


def _complain(line: str, code: int) -> int:
    if line:
        say(line, is_problem=True)
    return code


def _as_usage(message: str) -> str:
    """Add the given arguments; an empty message means that the help was shown."""
    if not message:
        return ""
    words = [word.partition("=")[0] for word in sys.argv[1:]]
    # an option of ours may stand beside the wrong one, so only those that the message is about
    names = [word for word in words if word in FORMER_NAMES and word in message]
    if "extra argument" in message and "--freeze-encoder" in words:
        names.append("--freeze-encoder")
    cures = "".join(f"; {name} is {FORMER_NAMES[name]} here" for name in dict.fromkeys(names))
    given = " ".join(sys.argv[1:])
    return f"UsageError: {message.rstrip('.')}{cures}; found `{given}`, see --help"


def _stopped_at_once() -> str:
    given = sys.argv[1:]
    how = "begins anew"
    if given[:1] and given[0] in ("train", "pretrain-encoder", "finetune-encoder"):
        how = "with --resume continues from the last checkpoint"
    elif given[:1] == ["collect-data"] and any("yahoo" in word for word in given):
        how = "fetches the rest"
    return f"stopped at once; the same command {how}"
