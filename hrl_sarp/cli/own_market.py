"""What commands say about the market of the user's files: what `train` makes of it, a draft."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hrl_sarp.cli.options import OWN_MARKET, read_config
from hrl_sarp.errors import HrlSarpError, OverwriteError
from hrl_sarp.run.terminal import say

if TYPE_CHECKING:  # heavy packages load inside the command that needs them: --help is instant
    from hrl_sarp.config.schema import RunConfig
    from hrl_sarp.contracts import Market
    from hrl_sarp.data.store import RawData


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
        market = make()
        require_room(market, config)
    except HrlSarpError as error:
        reason = " ".join(str(error).split())
        say(f"train --market {config.market} would refuse these data: {reason}", is_problem=True)
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
