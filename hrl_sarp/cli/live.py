"""Commands of every day: the newest data, the decision after a close, a paper account, export."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hrl_sarp.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_LOG_DIR,
    DataDir,
    Experiment,
    MarketName,
    Overwrite,
    OwnConfig,
    read_config,
    require_there,
    tell_edits,
)
from hrl_sarp.cli.studies import STUDIES
from hrl_sarp.errors import UsageError
from hrl_sarp.run.terminal import say

if TYPE_CHECKING:  # --help is instant
    from collections.abc import Sequence

    from hrl_sarp.config.study_schema import DailyConfig
    from hrl_sarp.daily.decision.run import Account, DayDecision
    from hrl_sarp.daily.market import TrainedRun

DAY = "%Y-%m-%d"
FORMATS = ("onnx",)
DECISIONS = "decisions"
"""Folder of decisions below the log folder of the first run."""
DEFAULT_CAPITAL = 100_000.0
LogDirs = Annotated[
    list[Path],
    typer.Option("--log-dir", help="Folder of a trained run; several decide as their mean."),
]
Settings = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        help="YAML file laid over config/daily.yaml: when a decision is refused.",
        show_default=False,
    ),
]
AsOf = Annotated[
    datetime | None,
    typer.Option(formats=[DAY], help="Session to decide after; the last one if not given."),
]
HoldingsFile = Annotated[
    Path | None, typer.Option(help="CSV: symbol,shares and a row CASH; else all is cash.")
]
Capital = Annotated[
    float | None,
    typer.Option(help=f"Cash of an account without --holdings: {DEFAULT_CAPITAL:.0f}."),
]
LotSize = Annotated[
    int | None, typer.Option(help="Orders are multiples of so many shares: 1.", min=1)
]
Fractional = Annotated[bool, typer.Option("--fractional", help="Trade fractions of a share.")]
AcceptDrift = Annotated[
    bool, typer.Option("--accept-drift", help="Decide although inputs left their training span.")
]
AcceptMoves = Annotated[
    bool,
    typer.Option("--accept-moves", help="Go on although prices moved as by a split of no data."),
]
AccountFile = Annotated[Path, typer.Option("--account", help="SQLite file of the paper account.")]
KeptAccount = Annotated[
    Path | None,
    typer.Option(
        "--account",
        help="Paper account to decide for, with its runs, holdings and lots.",
        show_default=False,
    ),
]
DecidingRuns = Annotated[
    list[Path] | None,
    typer.Option("--log-dir", help="Folder of a trained run: logs; several decide as their mean."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Input = Annotated[
    Path | None,
    typer.Option("--input", help="The new days, or all of them again (source files)."),
]
Macro = Annotated[Path | None, typer.Option(help="Macro series (source files).")]
Symbols = Annotated[
    Path | None,
    typer.Option(help="symbol, sector[, ticker] (source yahoo); default: config/symbols/."),
]
Start = Annotated[
    datetime | None,
    typer.Option(
        formats=[DAY],
        help="First day that is fetched (source yahoo); default: a month before the last one.",
        show_default=False,
    ),
]
End = Annotated[
    datetime | None,
    typer.Option(
        formats=[DAY],
        help="Last day (source yahoo); default: yesterday, because today's bar is not final.",
        show_default=False,
    ),
]
AcceptChanges = Annotated[
    bool,
    typer.Option("--accept-changes", help="Let changed history replace what was collected."),
]


paper = typer.Typer(no_args_is_help=True, help="A paper account: what the decisions would earn.")


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""
    app.add_typer(paper, name="paper")
    app.command("update-data")(update_data)
    app.command("decide")(decide)
    app.command("export")(export)


def update_data(  # noqa: PLR0913 -- a parameter is an option
    input_path: Input = None,
    macro: Macro = None,
    symbols: Symbols = None,
    start: Start = None,
    end: End = None,
    accept_changes: AcceptChanges = False,  # noqa: FBT002 -- an option, given by name
    settings: Settings = None,
    as_json: AsJson = False,  # noqa: FBT002 -- an option, given by name
    data_dir: DataDir = DEFAULT_DATA_DIR,
    experiment: Experiment = None,
    market: MarketName = None,
    own: OwnConfig = None,
) -> None:
    """Bring collected data up to date, from the source that they were collected from.

    New days are appended, and adjusted closes keep one scale. Where days that were collected have
    other values now, each change is named, nothing is written, and the exit code is 1:
    --accept-changes takes them. Volumes and series of the last days may be restated without it.

    Example: hrl-sarp update-data --input DIR --market us
    """
    require_there([], data_dir)
    from rich.console import Console

    from hrl_sarp.data.collect import DEFAULT_MARKETS
    from hrl_sarp.data.sources.yahoo.download import SYMBOLS_DIR, YahooRequest
    from hrl_sarp.data.store import read_manifest
    from hrl_sarp.data.update.folder import REFUSED, UPDATED, tables, update_folder
    from hrl_sarp.market.cache import forget_markets
    from hrl_sarp.run.session import RunFolder

    source = read_manifest(data_dir).get("source", "")
    rules = _daily_settings(settings)
    config = read_config(market, experiment, own, usual_market=DEFAULT_MARKETS.get(source))
    request = None
    if source == "yahoo" or symbols or start or end:
        lists = own / "symbols" if own is not None and own.is_dir() else SYMBOLS_DIR
        days = start and start.date(), end and end.date()
        request = YahooRequest(symbols, *days, datetime.now(tz=UTC).date(), lists)
    with RunFolder(data_dir, "--data-dir").lock():  # two updates at once would lose one
        outcome = update_folder(
            *(data_dir, config, input_path, macro, request),
            accept_changes=accept_changes,
            provisional_sessions=rules.provisional_sessions,
        )
    if outcome.status == UPDATED:  # a market of 339 stocks takes 100 MB, every day
        forget_markets(data_dir, config.market)
    sentences = [f"{data_dir}: {outcome.status}", *outcome.sentences()]
    if as_json:
        say(json.dumps(outcome.as_plain(), ensure_ascii=False))
    else:
        for table in tables(outcome):
            Console().print(table)
    for line in (*(f"note: {note}" for note in outcome.notes), *sentences):
        say(line, is_problem=as_json)
    if outcome.status == REFUSED:
        say(
            f"{len(outcome.made.changes)} changes of collected history, the first: "
            f"{outcome.made.changes[0]}; nothing was written, --accept-changes takes them",
            is_problem=True,
        )
        raise typer.Exit(1)


def decide(  # noqa: PLR0913 -- a parameter is an option
    log_dir: DecidingRuns = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_of: AsOf = None,
    holdings: HoldingsFile = None,
    capital: Capital = None,
    lot_size: LotSize = None,
    fractional: Fractional = False,  # noqa: FBT002 -- an option, given by name
    account: KeptAccount = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of decisions: LOG_DIR/decisions.", show_default=False),
    ] = None,
    studies: Annotated[
        Path, typer.Option(help="Folder of studies; the page quotes the newest of the market.")
    ] = STUDIES,
    settings: Settings = None,
    accept_drift: AcceptDrift = False,  # noqa: FBT002 -- an option, given by name
    accept_moves: AcceptMoves = False,  # noqa: FBT002 -- an option, given by name
    as_json: AsJson = False,  # noqa: FBT002 -- an option, given by name
    overwrite: Overwrite = False,  # noqa: FBT002 -- an option, given by name
) -> None:
    """Decide what to hold from the next open on; writes OUTPUT/DATE.

    Example: hrl-sarp decide --log-dir logs --holdings holdings.csv
    """
    rules, lots = _daily_settings(settings), _lots(lot_size, is_fractional=fractional)
    given = (log_dir, holdings, capital, lot_size, fractional or None)
    if account is not None and any(value is not None for value in given):
        raise UsageError(
            f"--account {account} says which runs decide, what is held and the lots: leave out "
            "--log-dir, --holdings, --capital, --lot-size and --fractional"
        )
    require_there([] if account else log_dir or [DEFAULT_LOG_DIR], data_dir)
    # what follows takes seconds to import
    from hrl_sarp.daily.decision.checks import Accepted
    from hrl_sarp.daily.decision.files import write_decision
    from hrl_sarp.daily.decision.run import make_decision, read_runs

    if account is None:
        whose = _account(holdings, capital, lots)
        runs = read_runs(log_dir or [DEFAULT_LOG_DIR])
    else:
        runs, rules, whose = _kept_account(account, rules)
    folder = output or runs[0].log_dir / DECISIONS
    decision = make_decision(
        runs,
        data_dir,
        rules,
        whose,
        folder,
        studies,
        now=datetime.now(UTC),
        day=None if as_of is None else as_of.date(),
        accepted=Accepted(drift=accept_drift, moves=accept_moves),
    )
    there = write_decision(decision, folder, overwrite=overwrite)
    tell_edits(*(run.log_dir for run in runs))
    _show(decision, there, as_json=as_json)


def _account(holdings: Path | None, capital: float | None, lots: int | None) -> "Account":
    """Return the account that the options name."""
    from hrl_sarp.daily.decision.run import Account

    if holdings is not None and capital is not None:
        raise UsageError(
            "--capital is the cash of an account without --holdings: leave it out, the row CASH of "
            f"{holdings} says the cash"
        )
    return Account(holdings, DEFAULT_CAPITAL if capital is None else capital, lots)


def _kept_account(
    path: Path, rules: "DailyConfig"
) -> "tuple[list[TrainedRun], DailyConfig, Account]":
    """Return runs, settings and holdings of a paper account, whose agents must be those it had."""
    from hrl_sarp.daily.decision.run import Account
    from hrl_sarp.daily.paper.account import PaperAccount
    from hrl_sarp.daily.paper.step import runs_of
    from hrl_sarp.daily.portfolio import Holdings

    with PaperAccount.open(path) as opened:
        runs, own = runs_of(opened, rules)
        terms, last = opened.terms, opened.last
    held = Holdings({symbol: h["shares"] for symbol, h in last.holdings.items()}, last.cash)
    return runs, own, Account(None, last.wealth, terms.lot_size, (held, last.standing))


def _show(decision: "DayDecision", there: Path, *, as_json: bool) -> None:
    """Print a decision that lies in its folder."""
    from rich.console import Console

    from hrl_sarp.daily.decision.files import PAGE
    from hrl_sarp.daily.decision.files import as_json as plain
    from hrl_sarp.daily.decision.page import lead, summary
    from hrl_sarp.daily.drift import drift_table
    from hrl_sarp.run.files import to_plain

    _warn(decision.checked.warnings)
    if as_json:
        say(json.dumps(to_plain(plain(decision)), allow_nan=False))
        return
    for sentence in lead(decision):
        say(sentence)
    if decision.checked.missing:
        say(f"without a bar, so not traded: {', '.join(decision.checked.missing)}")
    for table in (*summary(decision), drift_table(decision.checked.drift)):
        Console().print(table)
    say(f"wrote {there / PAGE}")


def _warn(warnings: "Sequence[str]") -> None:
    for warning in warnings:
        say(f"warning: {warning}", is_problem=True)


def export(
    log_dir: LogDirs = [DEFAULT_LOG_DIR],  # noqa: B006 -- typer shows it as the default
    data_dir: DataDir = DEFAULT_DATA_DIR,
    file_format: Annotated[str, typer.Option("--format", help="onnx.")] = "onnx",
    output: Annotated[Path, typer.Option(help="Folder to write.")] = Path("export"),
    pair: Annotated[
        str | None,
        typer.Option(
            help="Trained pair by its name in the table of the backtest: what is deployed if not "
            "given.",
            show_default=False,
        ),
    ] = None,
    settings: Settings = None,
    overwrite: Overwrite = False,  # noqa: FBT002 -- an option, given by name
) -> None:
    """Write both decisions of the deployed agents as ONNX graphs, for programs without torch.

    OUTPUT gets weekly.onnx, daily.onnx, sectors.onnx (sector embeddings of new days), agents.json
    (names, units and scaling of every input) and example.npz (inputs of the last session of the
    data, and what has to come out). Needs the extra `onnx`.

    Example: hrl-sarp export --log-dir logs --format onnx --output export
    """
    if file_format not in FORMATS:
        raise UsageError(f"--format must be {' or '.join(FORMATS)}, found '{file_format}'")
    require_there(log_dir, data_dir)
    # what follows takes seconds to import
    from hrl_sarp.daily.decision.run import read_runs
    from hrl_sarp.daily.export import export_agents, require_room
    from hrl_sarp.daily.market import read_today

    require_room(output, overwrite=overwrite)
    rules = _daily_settings(settings)
    agents = [read_today(run, data_dir, rules).agents for run in read_runs(log_dir)]
    done = export_agents(agents, output, pair, overwrite=overwrite)
    tell_edits(*log_dir)
    say(done.sentence())


@paper.command("init")
def paper_init(  # noqa: PLR0913 -- a parameter is an option
    account: AccountFile,
    log_dir: LogDirs = [DEFAULT_LOG_DIR],  # noqa: B006 -- typer shows it as the default
    data_dir: DataDir = DEFAULT_DATA_DIR,
    capital: Annotated[float, typer.Option(help="Cash at the start.")] = DEFAULT_CAPITAL,
    lot_size: LotSize = None,
    fractional: Fractional = False,  # noqa: FBT002 -- an option, given by name
    start: Annotated[
        datetime | None,
        typer.Option(
            formats=[DAY],
            help="Session at whose close it begins; default: the last one of the data.",
            show_default=False,
        ),
    ] = None,
    settings: Settings = None,
    accept_drift: AcceptDrift = False,  # noqa: FBT002 -- an option, given by name
    accept_moves: AcceptMoves = False,  # noqa: FBT002 -- an option, given by name
    as_json: AsJson = False,  # noqa: FBT002 -- an option, given by name
) -> None:
    """Open a paper account in cash, with the decision for the next open.

    Example: hrl-sarp paper init --account paper.sqlite --log-dir logs
    """
    lots = _lots(lot_size, is_fractional=fractional)
    require_there(log_dir, data_dir)
    # what follows takes seconds to import
    from hrl_sarp.daily.decision.checks import Accepted
    from hrl_sarp.daily.paper.step import as_json as plain
    from hrl_sarp.daily.paper.step import open_account

    first = open_account(
        account,
        log_dir,
        data_dir,
        _daily_settings(settings),
        capital,
        lots,
        datetime.now(UTC),
        None if start is None else start.date(),
        accepted=Accepted(drift=accept_drift, moves=accept_moves),
    )
    tell_edits(*log_dir)
    _warn(first.warnings)
    if as_json:
        say(json.dumps(plain(first), allow_nan=False))
        return
    orders = len(first.decision["orders"])
    say(f"wrote {account}: {first.cash:,.2f} in cash at the close of {first.day}, {orders} orders")


@paper.command("step")
def paper_step(
    account: AccountFile,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_of: Annotated[
        datetime | None,
        typer.Option(formats=[DAY], help="Session to book up to; the last one if not given."),
    ] = None,
    settings: Settings = None,
    accept_drift: AcceptDrift = False,  # noqa: FBT002 -- an option, given by name
    accept_moves: AcceptMoves = False,  # noqa: FBT002 -- an option, given by name
    as_json: AsJson = False,  # noqa: FBT002 -- an option, given by name
) -> None:
    """Book every session that the data have and the account lacks, and decide at each close.

    Example: hrl-sarp paper step --account paper.sqlite
    """
    from hrl_sarp.daily.decision.checks import Accepted
    from hrl_sarp.daily.paper.account import PaperAccount
    from hrl_sarp.daily.paper.step import as_json as plain
    from hrl_sarp.daily.paper.step import catch_up, line_of

    with PaperAccount.open(account) as opened:
        log_dirs = opened.terms.log_dirs
        booked = catch_up(
            opened,
            data_dir,
            _daily_settings(settings),
            datetime.now(UTC),
            None if as_of is None else as_of.date(),
            accepted=Accepted(drift=accept_drift, moves=accept_moves),
        )
        last = opened.last
    tell_edits(*map(Path, log_dirs))
    if booked:
        _warn(last.warnings)
    warned = sum(bool(day.warnings) for day in booked[:-1])
    if warned:
        _warn([f"{warned} sessions before had warnings, too; `hrl-sarp paper report` lists them"])
    if as_json:
        found = {"booked": [str(day.day) for day in booked], **plain(last)}
        say(json.dumps(found, allow_nan=False))
        return
    for day in booked:
        say(line_of(day))
    if not booked:
        say(f"nothing to do: {account} is booked to {last.day}")


@paper.command("report")
def paper_report(
    account: AccountFile,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of the page; default: beside the account.", show_default=False),
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,  # noqa: FBT002 -- an option, given by name
) -> None:
    """Compare a paper account with the backtest of its policy and with 1/N.

    Example: hrl-sarp paper report --account paper.sqlite --output logs/paper
    """
    from rich.console import Console

    from hrl_sarp.daily.paper.account import PaperAccount
    from hrl_sarp.daily.paper.report import compare, measures, measures_table, write_report
    from hrl_sarp.daily.paper.step import markets_of

    with PaperAccount.open(account) as opened:
        log_dirs = opened.terms.log_dirs
        report = compare(opened, markets_of(opened, data_dir, _daily_settings(settings)))
    tell_edits(*map(Path, log_dirs))
    there = write_report(report, output or account.with_name(f"{account.stem}_report"))
    if as_json:
        found = {"page": str(there), "measures": measures(report), "tracking": report.tracking}
        say(json.dumps(found, allow_nan=False))
        return
    Console().print(measures_table(report))
    say(f"wrote {there}")


def _lots(lot_size: int | None, *, is_fractional: bool) -> int | None:
    """Return the lot of whole shares; None for fractions."""
    if is_fractional and lot_size is not None:
        raise UsageError("--lot-size belongs to whole shares: leave out --fractional or it")
    return None if is_fractional else lot_size or 1


def _daily_settings(path: Path | None) -> "DailyConfig":
    from hrl_sarp.config.loading import DAILY, DEFAULT_CONFIG_DIR, load_apart
    from hrl_sarp.config.study_schema import DailyConfig

    defaults = DEFAULT_CONFIG_DIR / DAILY
    return load_apart(
        path or defaults, DailyConfig, "the settings", over=defaults if path else None
    )
