"""The commands of a run: train, backtest, stress-test, diagnose, report; the others are registered.

Each reads options, calls one function of the package and prints its result. A folder of reports
belongs to one configuration and one market.
"""

import hashlib
import inspect
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hrl_sarp.cli import data, encoders, forecasters, live, studies
from hrl_sarp.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_LOG_DIR,
    DataDir,
    Device,
    Experiment,
    Given,
    LogDir,
    MarketName,
    Overwrite,
    OwnConfig,
    Resume,
    Seed,
    TrialLogFile,
    keeping_options,
    parse_numbers,
    read_config,
    read_config_of_run,
    require_there,
    running,
    tell_edits,
)
from hrl_sarp.errors import HrlSarpError, OverwriteError
from hrl_sarp.run.earlier import CONFIG
from hrl_sarp.run.phases import (
    config_of_run,
    require_free_folder,
    require_kind,
    seed_folders,
)
from hrl_sarp.run.terminal import expect_seconds, run_progress, say, stretch

if TYPE_CHECKING:  # heavy packages load inside the command that needs them: --help is instant
    from hrl_sarp.config.schema import RunConfig
    from hrl_sarp.evaluation.backtest import BacktestResult
    from hrl_sarp.evaluation.report.analysis import Analysis
    from hrl_sarp.training.phase import PhaseContext

SPANS = ("train", "validation", "test")
ALL = "all"
SOURCE = "made_from.json"
"""In a folder of reports: the configuration and the data that they were made from."""
SESSION_SECONDS, FIGURES_SECONDS = 0.02, 20.0
"""Seconds of one core that a session of the rollouts takes, and all that follows them (resampling,
figures, files), measured on the bundled sample, for the time left on the screen."""
LONGEST_NAME = 100
"""Characters of a folder's name: file systems take 255 bytes."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data.add_commands(app)


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
    from hrl_sarp.data.store import read_manifest

    # every wrong option is refused before anything is written
    several = parse_numbers(seeds, "--seeds", "0,1,2")
    if several is not None and (phase is not None or seed is not None):
        raise HrlSarpError("--seeds trains all phases of its seeds: leave out --phase and --seed")
    require_free_folder(log_dir, phase, resume=resume, overwrite=overwrite)
    if phase is not None or not overwrite:
        require_kind(log_dir, several=several is not None)
    seed = several[0] if several else seed
    config = read_config(market, experiment, own, seed)
    read_manifest(data_dir)
    # what follows takes seconds to import
    from hrl_sarp.run.session import resolve_device
    from hrl_sarp.run.trials import TrialLog
    from hrl_sarp.training.certify import run_seconds, train_and_certify
    from hrl_sarp.training.curriculum import introduce, phase_seconds, run_phase

    resolve_device(device)
    with running(log_dir), run_progress(), ExitStack() as begun:
        context = replace(load_context(data_dir, log_dir, config, device), resume=resume)
        # not before the market is there: until then nothing of the run is written
        given = Given(market, experiment, own, seed)
        begun.enter_context(keeping_options(log_dir, config, given))
        if phase is not None:
            introduce(context)
            expect_seconds(phase_seconds(config, context.market.split)[phase])
            with context.stop, stretch(0.0, 1.0, f"phase {phase}"):
                run_phase(phase, context)
            return
        require_own_policies(context)
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

    Another span, or some agents or baselines only, has a folder of its own beside it. Without
    --experiment, --market, --config or --seed the configuration is that of the run.

    Example: hrl-sarp backtest --log-dir logs --span validation
    """
    if span not in SPANS:
        raise HrlSarpError(f"--span must be one of {', '.join(SPANS)}, found '{span}'")
    chosen = Selection(span, agents, baselines)
    names = {ALL: None, "none": []}.get(baselines, baselines.split(","))
    changes = {"evaluation": {"baselines": names}}
    config = read_config_of_run(log_dir, market, experiment, own, seed, changes)
    require_there([log_dir], data_dir)
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

    Without --experiment, --market, --config or --seed the configuration is that of the run.
    Replays the dated windows of the market profile that the data cover. Applies the sector shocks
    of config/stress.yaml after the test span, to a market that is otherwise still. Simulator,
    costs and limits are those of the backtest.

    Example: hrl-sarp stress-test --log-dir logs
    """
    from rich.console import Console

    from hrl_sarp.config.consistency import require_shock_sectors
    from hrl_sarp.data.store import read_sector_names

    config = read_config_of_run(log_dir, market, experiment, own, seed)
    require_there([log_dir], data_dir)
    require_shock_sectors(config, config.market_profile.sectors or read_sector_names(data_dir))
    # what follows takes seconds to import
    from hrl_sarp.evaluation.policies import trained_policies
    from hrl_sarp.evaluation.report.stress_page import summary, write_stress_test
    from hrl_sarp.evaluation.stress import run_stress_test

    with running(log_dir):
        context = load_context(data_dir, log_dir, config, "cpu")
        with (
            report_folder(log_dir / "stress", context, overwrite=overwrite) as folder,
            run_progress(),
            stretch(0.0, 0.0, "stress test"),
        ):
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

    Example: hrl-sarp diagnose --log-dir logs --permuted
    """
    folders = seed_folders(log_dir)
    config = config_of_run(log_dir)
    tell_edits(log_dir)
    # what follows takes seconds to import
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
    from hrl_sarp.training.curriculum import phase_tables

    console = Console()
    for seed, folder in folders.items():
        for table in phase_tables(folder):
            named = table.title if seed is None else f"seed {seed}, {table.title}"
            console.print(replace(table, title=named))
    certified = read_certification(log_dir)
    for table in certified.tables() if certified else []:
        console.print(table)
    first = next(iter(folders.values()))
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
    """Compare finished runs: one table over all seeds, with intervals over dates and seeds.

    Example: hrl-sarp report logs/a logs/b
    """
    from rich.console import Console

    from hrl_sarp.evaluation.report import aggregate_runs
    from hrl_sarp.run.files import replace_block

    table = aggregate_runs(runs).table
    Console().print(table)
    if readme is not None:
        replace_block(readme, "results", table.markdown())
        say(f"wrote the table into {readme}")


@dataclass(frozen=True)
class Selection:
    """What a backtest shows.

    Examples:
        >>> Selection().folder_name
        'backtest'
        >>> Selection("validation", "joint,certified", "none").folder_name
        'backtest-validation-agents_joint_certified-baselines_none'
    """

    span: str = "test"
    agents: str = ALL
    """Names of trained pairs with commas between them, or `all`."""
    baselines: str = ALL
    """Names of baselines with commas between them, or `all` or `none`."""

    @property
    def folder_name(self) -> str:
        """Name of its folder below the log folder; every selection has another one."""
        parts = ["backtest", *([self.span] if self != Selection() else [])]
        for kind, names in (("agents", self.agents), ("baselines", self.baselines)):
            if names != ALL:
                words = [re.sub(r"[^a-z0-9]+", "-", name.lower()) for name in names.split(",")]
                parts.append("_".join([kind, *(word.strip("-") for word in words)]))
        name = "-".join(parts)
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        cut = LONGEST_NAME - len(digest) - 1
        return name if len(name) <= LONGEST_NAME else f"{name[:cut]}-{digest}"


def load_context(data_dir: Path, log_dir: Path, config: "RunConfig", device: str) -> "PhaseContext":
    """Load the market, with the configured stock embeddings, and build the phases' context."""
    from hrl_sarp.market.cache import assembled_market
    from hrl_sarp.observed.stocks import with_stock_embeddings
    from hrl_sarp.run.session import StopFlag, configure_threads, resolve_device
    from hrl_sarp.training.curriculum import make_context

    chosen = resolve_device(device)
    configure_threads(config.threads)
    with stretch(0.0, 0.0, "reading the market"):
        market = with_stock_embeddings(assembled_market(data_dir, config), data_dir, config, chosen)
        return make_context(config, market, log_dir, chosen, StopFlag(), resume=False)


def require_own_policies(context: "PhaseContext") -> None:
    """Ask own baselines and policies once, before the training whose backtest needs them."""
    from hrl_sarp.evaluation.own_policy import require_configured

    require_configured(context.market, context.config, Selection().span)


@contextmanager
def report_folder(folder: Path, context: "PhaseContext", *, overwrite: bool) -> Iterator[Path]:
    """Write reports of a run into a folder that belongs to its configuration and its market.

    The same command may replace its own reports, because they say the same about the same. When the
    block ends, the folder says what they were made from.

    Args:
        folder: of the reports; need not exist.
        context: of the run that they are about.
        overwrite: replace reports that were made from something else.

    Yields:
        The folder.

    Raises:
        OverwriteError: naming what differs, before anything is computed.
    """
    from hrl_sarp.config.loading import dump_config
    from hrl_sarp.fitting import RunState
    from hrl_sarp.run.damage import sealed
    from hrl_sarp.run.files import read_json, write_json, write_text

    here = context.run_identity()
    if any(folder.glob("*.html")) and not overwrite:
        state = RunState(folder, folder.name, here, resume=False, config=context.config)
        path = folder / SOURCE
        there = read_json(path, "hrl-sarp backtest --overwrite") if path.is_file() else {}
        others = state.find_differences(there) if there else ["version of the package"]
        if others:
            raise OverwriteError(
                f"{folder} holds a report of another {'; another '.join(others)}: --overwrite "
                "replaces it, another --log-dir keeps it"
            )
    yield folder
    write_text(folder / CONFIG, sealed(dump_config(context.config)))
    write_json(folder / SOURCE, here)


@dataclass(frozen=True)
class Report:
    """A backtest whose report is written, to be shown."""

    result: "BacktestResult"
    analysis: "Analysis"
    folder: Path

    def show(self) -> None:
        """Print the summary and the place of the page."""
        from rich.console import Console

        from hrl_sarp.evaluation.report import print_summary

        print_summary(self.result, self.analysis, Console())
        say(f"wrote {self.folder / 'report.html'}")


def report_seconds(context: "PhaseContext", span: str) -> float:
    """Return about how long the backtest of a span takes on one core."""
    return FIGURES_SECONDS + SESSION_SECONDS * len(getattr(context.market.split, span))


def make_report(
    context: "PhaseContext", chosen: Selection, trial_log: Path | None, *, overwrite: bool
) -> Report:
    """Backtest a selection and write its report into its folder."""
    from hrl_sarp.evaluation.backtest import run_backtest
    from hrl_sarp.evaluation.policies import (
        granted,
        select_policies,
        trained_policies,
        training_curves,
    )
    from hrl_sarp.evaluation.report import write_backtest
    from hrl_sarp.evaluation.trials import record_selection
    from hrl_sarp.run.trials import TrialLog
    from hrl_sarp.training.seeds import members

    policies, pairs = trained_policies(context)
    swaps = pairs if chosen.agents == ALL else None
    if swaps is None:
        policies = select_policies(policies, chosen.agents.split(","))
    log = TrialLog(trial_log)
    wanted = context.log_dir / chosen.folder_name
    with report_folder(wanted, context, overwrite=overwrite) as folder:
        for member in members(context):
            record_selection(member.log_dir, member.market, member.config, log)
        seconds = report_seconds(context, chosen.span)
        expect_seconds(seconds)
        with stretch(0.0, 1 - FIGURES_SECONDS / seconds):
            result = run_backtest(context.market, policies, chosen.span, context.config, log=log)
        grants, curves = granted(context.log_dir), training_curves(context.log_dir)
        analysis = write_backtest(result, folder, swaps, grants, curves)
    return Report(result, analysis, folder)


studies.add_commands(app)
live.add_commands(app)
encoders.add_commands(app)
forecasters.add_commands(app)


def _break_lines_at_the_screen(commands: typer.Typer) -> None:
    """Join the lines of each paragraph of help, which typer would break as the source does."""
    for command in commands.registered_commands:
        text = inspect.cleandoc(command.callback.__doc__ or "") if command.callback else ""
        command.help = "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
    for group in commands.registered_groups:
        if group.typer_instance is not None:
            _break_lines_at_the_screen(group.typer_instance)


_break_lines_at_the_screen(app)
