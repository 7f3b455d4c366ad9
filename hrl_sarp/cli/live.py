"""Commands of every day: the decision after the last close."""

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from hrl_sarp.cli.options import DEFAULT_DATA_DIR, DEFAULT_LOG_DIR, DataDir, Overwrite
from hrl_sarp.errors import HrlSarpError
from hrl_sarp.run.terminal import say

DAY = "%Y-%m-%d"
DECISIONS = "decisions"
"""Folder of decisions below the log folder of the first run."""
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
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def add_commands(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("decide")(decide)


def decide(  # noqa: PLR0913 -- a parameter is an option
    log_dir: LogDirs = [DEFAULT_LOG_DIR],  # noqa: B006 -- typer shows it as the default
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_of: Annotated[
        datetime | None,
        typer.Option(formats=[DAY], help="Session to decide after; the last one if not given."),
    ] = None,
    holdings: Annotated[
        Path | None, typer.Option(help="CSV: symbol,shares and a row CASH; else all is cash.")
    ] = None,
    capital: Annotated[
        float | None, typer.Option(help="Cash of an account without --holdings: 100000.")
    ] = None,
    lot_size: Annotated[
        int | None, typer.Option(help="Orders are multiples of so many shares: 1.", min=1)
    ] = None,
    fractional: Annotated[  # noqa: FBT002 -- an option, given by name
        bool, typer.Option("--fractional", help="Trade fractions of a share.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of decisions: LOG_DIR/decisions.", show_default=False),
    ] = None,
    settings: Settings = None,
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
    from hrl_sarp.daily.decision.files import as_json as plain
    from hrl_sarp.daily.decision.files import write_decision
    from hrl_sarp.daily.decision.run import Account, make_decision, read_runs
    from hrl_sarp.run.files import to_plain

    rules = load_apart(settings or DEFAULT_CONFIG_DIR / DAILY, DailyConfig, "the settings")
    account = Account(holdings, capital or 100_000.0, None if fractional else lot_size or 1)
    folder = output or log_dir[0] / DECISIONS
    day = None if as_of is None else as_of.date()
    decision = make_decision(read_runs(log_dir), data_dir, rules, account, folder, day)
    there = write_decision(decision, folder, overwrite=overwrite)
    if as_json:
        typer.echo(json.dumps(to_plain(plain(decision)), allow_nan=False))
        return
    say(f"wrote {there}")
