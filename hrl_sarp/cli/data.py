"""The commands of raw data: collect and validate them, and describe the market of own files."""

import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hrl_sarp.cli.options import (
    DEFAULT_DATA_DIR,
    OWN_MARKET,
    DataDir,
    Experiment,
    MarketName,
    Overwrite,
    OwnConfig,
    read_config,
)
from hrl_sarp.errors import HrlSarpError, OverwriteError
from hrl_sarp.run.terminal import run_progress, say, stretch

if TYPE_CHECKING:  # heavy packages load inside the command that needs them: --help is instant
    from hrl_sarp.config.schema import RunConfig
    from hrl_sarp.contracts import Market
    from hrl_sarp.data.store import RawData

DAY = "%Y-%m-%d"


def add_commands(app: typer.Typer) -> None:
    """Register the commands of raw data."""
    app.command("collect-data")(collect_data)
    app.command("validate-data")(validate_data)
    app.command("init")(init)


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

    Example: hrl-sarp collect-data --source files --input DIR --market own
    """
    from rich.console import Console

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
    if foresee(config, make) is None:
        raise typer.Exit(1)


def validate_data(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    experiment: Experiment = None,
    market: MarketName = None,
    own: OwnConfig = None,
) -> None:
    """Check the collected data by named rules; exit code 0 if nothing fails.

    Writes validation.json and, with a picture of each kind of finding, validation.html.

    Example: hrl-sarp validate-data --market own --data-dir data/raw
    """
    from hrl_sarp.data.store import read_manifest

    config = read_config(market, experiment, own)
    read_manifest(data_dir)
    # what follows takes seconds to import
    from rich.console import Console

    from hrl_sarp.data.findings_page import write_page
    from hrl_sarp.data.quality.validation import summary, validate_folder
    from hrl_sarp.data.store import read_raw
    from hrl_sarp.features.prices import levels_around

    report = validate_folder(data_dir, config)
    raw = read_raw(data_dir)
    found = summary(report)
    Console().print(found)
    if not found.rows:
        say("no findings: nothing breaks a rule")
    levels = levels_around(raw, report, config.market_profile.sectors)
    say(f"wrote {write_page(data_dir, raw, report, levels)}")
    if report.has_failed:
        raise typer.Exit(1)


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

    Example: hrl-sarp init mine --input DIR
    """
    from hrl_sarp.config.loading import copy_defaults

    if input_path is not None:
        write_draft(folder, input_path, macro, market, overwrite=overwrite)
        return
    n_files = copy_defaults(folder, overwrite=overwrite)
    say(f"wrote {n_files} files; use them with --config {folder}")


def read_files(
    source: str, config: "RunConfig", input_path: Path | None, macro: Path | None
) -> "RawData":
    """Read the user's files and print the notes about them; nothing is written."""
    from hrl_sarp.data.collect import check_files

    if source != "files":
        raise HrlSarpError(f"--check belongs to the source files, found source {source}")
    raw = check_files(config, input_path, macro)
    for note in raw.notes:
        say(f"note: {note}")
    return raw


def foresee(config: "RunConfig", make: Callable[[], "Market"]) -> "Market | None":
    """Print what `train` would make of data with the same options, or why it would refuse them.

    Args:
        config: of the options.
        make: assembles the market, as `train` does, so that nothing can be refused later.

    Returns:
        The market; None where it would be refused.
    """
    from hrl_sarp.market.own.profile import describe
    from hrl_sarp.training.certify import require_room

    try:
        with run_progress(), stretch(0.0, 0.0, "reading the market"):
            market = make()
            require_room(market, config)
    except HrlSarpError as error:
        reason = " ".join(str(error).split())
        command = f"`hrl-sarp train --market {config.market}`"
        say(f"{command} would refuse these data: {reason}", is_problem=True)
        return None
    spans, *notes = describe(market, config.risk)
    say(f"market {config.market}, {spans}")
    for note in notes:
        say(f"note: {note}")
    return market


def write_draft(
    folder: Path, input_path: Path, macro: Path | None, market: str, *, overwrite: bool
) -> None:
    """Write a market profile that follows the user's files, and say what to do next.

    Raises:
        OverwriteError: if there is one already.
        DataError: if the files cannot be read.
    """
    from hrl_sarp.market.assemble import assemble_market
    from hrl_sarp.market.own.draft import draft_profile, with_guesses
    from hrl_sarp.run.files import write_text

    path = folder / OWN_MARKET
    if path.exists() and not overwrite:
        raise OverwriteError(f"{path} exists: --overwrite replaces it, another folder keeps it")
    config = read_config(market, None, None)
    raw = read_files("files", config, input_path, macro)
    config, guess = with_guesses(config, raw)
    made = foresee(config, lambda: assemble_market(raw, config))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, draft_profile(raw, config, guess, made))
    given = f" --macro {shlex.quote(str(macro))}" if macro else ""
    where = shlex.quote(str(folder))
    say(f"wrote {path}: look through it, then")
    say(
        f"  hrl-sarp collect-data --source files --input {shlex.quote(str(input_path))}{given} "
        f"--config {where} --data-dir {where}/raw"
    )
    say(f"  hrl-sarp train --config {where} --data-dir {where}/raw --log-dir {where}/logs")
