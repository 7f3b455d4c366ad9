"""What commands say about the market of the user's files: what `train` makes of it, a draft."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from hrl_sarp.cli.options import OWN_MARKET, read_config
from hrl_sarp.errors import HrlSarpError, OverwriteError
from hrl_sarp.run.terminal import say

if TYPE_CHECKING:  # heavy packages load inside the command that needs them: --help is instant
    from hrl_sarp.config.schema import RunConfig
    from hrl_sarp.data.store import RawData
    from hrl_sarp.market.assemble import Ground

LEFT_OUT = " left out: "
"""In a remark of a fitted profile, between a feature and the reason."""


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


def foresee(raw: "RawData", config: "RunConfig") -> "Ground | None":
    """Print what the market of a profile would be: its spans and cuts, or why `train` refuses it.

    Returns:
        What the market would stand on; None where it is refused.
    """
    from hrl_sarp.data.quality.validation import validate
    from hrl_sarp.market.assemble import lay_ground
    from hrl_sarp.market.own.profile import span_cuts

    profile, data = config.market_profile, config.data
    try:
        report = validate(raw, data.validation, profile.calendar, data.calendar_changes, profile)
        ground = lay_ground(raw, config, report)
    except HrlSarpError as error:
        reason = " ".join(str(error).split())
        say(f"train --market {config.market} would refuse these data: {reason}", is_problem=True)
        return None
    dates = ground.panel.dates[ground.first :]
    say(f"market {config.market}: {spans_in_words(ground)}")
    cuts = span_cuts(ground.spans, dates, ground.panel.dates[0].item(), ground.first)
    named = set(raw.sectors["sector"].drop_nulls())
    empty = [name for name in ground.config.market_profile.sectors if name not in named]
    cuts += [f"sectors without stocks: {', '.join(empty)}"] if empty else []
    lacking = dict(left_out(ground.remarks))
    for why in dict.fromkeys(lacking.values()):
        names = ", ".join(name for name, reason in lacking.items() if reason == why)
        cuts.append(f"left out, {why.removeprefix('it ')}: {names}")
    others = [remark for remark in ground.remarks if LEFT_OUT not in remark]
    for line in (*cuts, *others):
        say(f"note: {line}")
    return ground


def spans_in_words(ground: "Ground") -> str:
    """Name first and last day and the number of sessions of each span."""
    dates = ground.panel.dates[ground.first :]
    return "; ".join(
        f"{name} {dates[span.start]} to {dates[span.stop - 1]} ({len(span)} sessions)"
        for name in ("train", "validation", "test")
        for span in [getattr(ground.split, name)]
    )


def write_draft(
    folder: Path, input_path: Path, macro: Path | None, market: str, *, overwrite: bool
) -> None:
    """Write a market profile that follows the user's files, and say what to do next.

    Raises:
        OverwriteError: if there is one already.
        DataError: if the files cannot be read.
    """
    from hrl_sarp.market.own.draft import draft_profile, with_guesses
    from hrl_sarp.run.files import write_text

    path = folder / OWN_MARKET
    if path.exists() and not overwrite:
        raise OverwriteError(f"{path} exists: --overwrite replaces it, another folder keeps it")
    config = read_config(market, None, None)
    raw = read_files("files", config, input_path, macro)
    config, guess = with_guesses(config, raw)
    ground = foresee(raw, config)
    words = spans_in_words(ground) if ground else ""
    fitted = ground.config if ground else config
    profile = fitted.market_profile.model_copy(update={"spans": config.market_profile.spans})
    fitted = fitted.model_copy(update={"market_profile": profile})
    lacking = dict(left_out(ground.remarks)) if ground else {}
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, draft_profile(raw, fitted, guess, words, lacking))
    given = f" --macro {shlex.quote(str(macro))}" if macro else ""
    where = shlex.quote(str(folder))
    say(f"wrote {path}: look through it, then")
    say(
        f"  hrl-sarp collect-data --source files --input {shlex.quote(str(input_path))}{given} "
        f"--config {where} --data-dir {where}/raw"
    )
    say(f"  hrl-sarp train --config {where} --data-dir {where}/raw --log-dir {where}/logs")


def left_out(remarks: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the features that remarks leave out, with the reason."""
    told = [remark.removeprefix("feature ").split(LEFT_OUT, 1) for remark in remarks]
    return [(parts[0], parts[1]) for parts in told if len(parts) > 1]
