"""Commands of every day: the newest data, the decision after the last close, agents as files."""

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
)
from hrl_sarp.cli.studies import STUDIES
from hrl_sarp.errors import HrlSarpError
from hrl_sarp.run.terminal import say

if TYPE_CHECKING:  # --help is instant
    from hrl_sarp.daily.decision.run import DayDecision

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
        help="YAML file in place of config/daily.yaml: when a decision is refused.",
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
    float | None, typer.Option(help="Cash of an account without --holdings: 100000.")
]
LotSize = Annotated[
    int | None, typer.Option(help="Orders are multiples of so many shares: 1.", min=1)
]
Fractional = Annotated[bool, typer.Option("--fractional", help="Trade fractions of a share.")]
AcceptDrift = Annotated[
    bool, typer.Option("--accept-drift", help="Decide although inputs left their training span.")
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


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""
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
    as_json: AsJson = False,  # noqa: FBT002 -- an option, given by name
    data_dir: DataDir = DEFAULT_DATA_DIR,
    experiment: Experiment = None,
    market: MarketName = None,
    own: OwnConfig = None,
) -> None:
    """Bring collected data up to date, from the source that they were collected from.

    New days are appended, and adjusted closes keep one scale. Where days that were collected have
    other values now, each change is named, nothing is written, and the exit code is 1:
    --accept-changes takes them.

    Example: hrl-sarp update-data --input DIR --market us
    """
    from rich.console import Console

    from hrl_sarp.data.collect import DEFAULT_MARKETS
    from hrl_sarp.data.sources.yahoo.download import SYMBOLS_DIR, YahooRequest
    from hrl_sarp.data.store import read_manifest
    from hrl_sarp.data.update.folder import REFUSED, tables, update_folder
    from hrl_sarp.run.session import RunFolder

    source = read_manifest(data_dir).get("source", "")
    config = read_config(market, experiment, own, usual_market=DEFAULT_MARKETS.get(source))
    request = None
    if source == "yahoo" or symbols or start or end:
        lists = own / "symbols" if own is not None and own.is_dir() else SYMBOLS_DIR
        days = start and start.date(), end and end.date()
        request = YahooRequest(symbols, *days, datetime.now(tz=UTC).date(), lists)
    with RunFolder(data_dir, "--data-dir").lock():  # two updates at once would lose one
        outcome = update_folder(
            data_dir, config, input_path, macro, request, accept_changes=accept_changes
        )
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
    log_dir: LogDirs = [DEFAULT_LOG_DIR],  # noqa: B006 -- typer shows it as the default
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_of: AsOf = None,
    holdings: HoldingsFile = None,
    capital: Capital = None,
    lot_size: LotSize = None,
    fractional: Fractional = False,  # noqa: FBT002 -- an option, given by name
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of decisions: LOG_DIR/decisions.", show_default=False),
    ] = None,
    studies: Annotated[
        Path, typer.Option(help="Folder of studies; the page quotes the newest of the market.")
    ] = STUDIES,
    settings: Settings = None,
    accept_drift: AcceptDrift = False,  # noqa: FBT002 -- an option, given by name
    as_json: AsJson = False,  # noqa: FBT002 -- an option, given by name
    overwrite: Overwrite = False,  # noqa: FBT002 -- an option, given by name
) -> None:
    """Decide what to hold from the next open on; writes OUTPUT/DATE.

    Example: hrl-sarp decide --log-dir logs --holdings holdings.csv
    """
    if holdings is not None and capital is not None:
        raise HrlSarpError(
            "--capital is the cash of an account without --holdings: leave it out, the row CASH of "
            f"{holdings} says the cash"
        )
    if fractional and lot_size is not None:
        raise HrlSarpError("--lot-size belongs to whole shares: leave out --fractional or it")
    # what follows takes seconds to import
    from hrl_sarp.config.loading import DAILY, DEFAULT_CONFIG_DIR, load_apart
    from hrl_sarp.config.study_schema import DailyConfig
    from hrl_sarp.daily.decision.files import write_decision
    from hrl_sarp.daily.decision.run import Account, make_decision, read_runs

    rules = load_apart(settings or DEFAULT_CONFIG_DIR / DAILY, DailyConfig, "the settings")
    cash = DEFAULT_CAPITAL if capital is None else capital
    account = Account(holdings, cash, None if fractional else lot_size or 1)
    folder = output or log_dir[0] / DECISIONS
    decision = make_decision(
        read_runs(log_dir),
        data_dir,
        rules,
        account,
        folder,
        studies,
        now=datetime.now(UTC),
        day=None if as_of is None else as_of.date(),
        accept_drift=accept_drift,
    )
    there = write_decision(decision, folder, overwrite=overwrite)
    _show(decision, there, as_json=as_json)


def _show(decision: "DayDecision", there: Path, *, as_json: bool) -> None:
    """Print a decision that lies in its folder."""
    from rich.console import Console

    from hrl_sarp.daily.decision.files import PAGE
    from hrl_sarp.daily.decision.files import as_json as plain
    from hrl_sarp.daily.decision.page import lead, summary
    from hrl_sarp.daily.drift import drift_table
    from hrl_sarp.run.files import to_plain

    for warning in decision.checked.warnings:
        say(f"warning: {warning}", is_problem=True)
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

    OUTPUT gets weekly.onnx, daily.onnx, agents.json (names, units and scaling of every input) and
    example.npz (inputs of the last session of the data, and what has to come out). Needs the extra
    `onnx`.

    Example: hrl-sarp export --log-dir logs --format onnx --output export
    """
    if file_format not in FORMATS:
        raise HrlSarpError(f"--format must be {' or '.join(FORMATS)}, found '{file_format}'")
    # what follows takes seconds to import
    from hrl_sarp.config.loading import DAILY, DEFAULT_CONFIG_DIR, load_apart
    from hrl_sarp.config.study_schema import DailyConfig
    from hrl_sarp.daily.decision.run import read_runs
    from hrl_sarp.daily.export import export_agents, require_room
    from hrl_sarp.daily.market import read_today

    require_room(output, overwrite=overwrite)
    rules = load_apart(settings or DEFAULT_CONFIG_DIR / DAILY, DailyConfig, "the settings")
    agents = [read_today(run, data_dir, rules).agents for run in read_runs(log_dir)]
    say(export_agents(agents, output, pair, overwrite=overwrite).sentence())
