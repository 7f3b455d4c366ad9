"""What several commands share: options, their configuration, the lock of a folder, failed cells."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from hrl_sarp.errors import ConfigError, StoppedEarly
from hrl_sarp.run.phases import config_of_run, require_agents
from hrl_sarp.run.terminal import log_to_screen, say

if TYPE_CHECKING:  # pydantic and YAML load inside the command: --help is instant
    from hrl_sarp.config.schema import RunConfig
    from hrl_sarp.studies import Cell

DataDir = Annotated[Path, typer.Option(help="Folder of the collected raw data.")]
LogDir = Annotated[Path, typer.Option(help="Folder of checkpoints, metrics and reports.")]
Experiment = Annotated[
    str | None,
    typer.Option(help="File of config/experiments/ laid over the defaults, or one by its path."),
]
OwnConfig = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="YAML file laid over the defaults, or a folder that `init` wrote.",
        show_default=False,
    ),
]
MarketName = Annotated[str | None, typer.Option(help="Profile of config/markets/.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.", min=0)]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue a stopped run exactly.")]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace what an earlier command has written there."),
]
TrialLogFile = Annotated[
    Path | None,
    typer.Option(
        "--trial-log",
        help="File that counts what was evaluated on which span, over all runs: the environment "
        "variable HRL_SARP_TRIAL_LOG, else logs/trials.jsonl.",
        show_default=False,
    ),
]

FORMER_NAMES = {
    "--lr": "--learning-rate",
    "--n-epochs": "--epochs",
    "--max-epochs": "--epochs",
    "--model": "--variant (finetune-encoder), or --encoder (pretrain-encoder)",
    "--freeze-encoder": "--freeze-encoder without a value; leave it out to train the encoder",
}
"""Options of other systems, and what they are called here."""

DEFAULT_DATA_DIR = Path("data/raw")
DEFAULT_LOG_DIR = Path("logs")
OUTPUT_OPTION = "--output"
OPTIONS = "options.json"
"""In a log folder: hash of a configuration -> the options of `train` that it was read with."""
OWN_MARKET = "market.yaml"
"""What `init --input` writes: a file of --config that describes the market of the user's files."""


def read_config(
    market: str | None,
    experiment: str | None,
    own: Path | None,
    seed: int | None = None,
    changes: dict[str, Any] | None = None,
    usual_market: str | None = None,
) -> "RunConfig":
    """Read the configuration that the options of a command name.

    A file `own` overrides defaults, and so does a folder with `market.yaml`, which `init --input`
    writes; another folder `own` replaces them all. `changes` are values of the command's other
    options, by section. None means that the option was not given. `usual_market` is taken where
    nothing names a market.
    """
    from hrl_sarp.config.loading import DEFAULT_CONFIG_DIR, load_config

    given = _given({**(changes or {}), "seed": seed})
    if own is not None and (own / OWN_MARKET).is_file():
        own = own / OWN_MARKET
    where = {"config_dir": own} if own is not None and own.is_dir() else {"own_file": own}
    if own is not None and not own.exists():
        default = DEFAULT_CONFIG_DIR / own.name
        hint = f"; the defaults of that name are in {default}" if default.is_file() else ""
        raise ConfigError(
            f"--config {own} does not exist: expected a YAML file or a folder of them{hint}; "
            f"`hrl-sarp init {own}` writes such a folder"
        )
    return load_config(
        market=market,
        experiment=experiment,
        overrides=given,
        usual_market=usual_market,
        **where,
    )


def read_config_of_run(
    log_dir: Path,
    market: str | None,
    experiment: str | None,
    own: Path | None,
    seed: int | None = None,
    changes: dict[str, Any] | None = None,
) -> "RunConfig":
    """Read the configuration of a command about a run.

    It is what the options name, as in `read_config`; where they name nothing, that of the run, and
    a line says what was edited since.
    """
    if any(option is not None for option in (market, experiment, own, seed)):
        return read_config(market, experiment, own, seed, changes)
    config = config_of_run(log_dir, _given(changes or {}))
    tell_edits(log_dir, can_choose=True)
    return config


def require_there(log_dirs: Sequence[Path], data_dir: Path) -> None:
    """Refuse runs and data that are not there at once; what a command needs of them loads later."""
    from hrl_sarp.data.store import read_manifest

    for log_dir in log_dirs:
        require_agents(log_dir)
    read_manifest(data_dir)


class Given(NamedTuple):
    """The options with which a configuration was read, as in `read_config`."""

    market: str | None = None
    experiment: str | None = None
    own: Path | None = None
    seed: int | None = None


@contextmanager
def keeping_options(log_dir: Path, config: "RunConfig", given: Given) -> Iterator[None]:
    """Keep the options of a training that ends well or is stopped; refused, it writes nothing."""
    try:
        yield
    except (StoppedEarly, KeyboardInterrupt):
        keep_options(log_dir, config, given)
        raise
    keep_options(log_dir, config, given)


def keep_options(log_dir: Path, config: "RunConfig", given: Given) -> None:
    """Write beside a run with which options its configuration was read, for `tell_edits`."""
    from hrl_sarp.config.loading import config_hash
    from hrl_sarp.errors import DataError
    from hrl_sarp.run.files import write_json

    words = dict(zip(("market", "experiment", "config", "seed"), given, strict=True))
    try:
        kept = _kept_options(log_dir)
    except DataError:  # damaged, and written anew here
        kept = {}
    write_json(log_dir / OPTIONS, {**kept, config_hash(config): words})


def _kept_options(log_dir: Path) -> dict[str, dict[str, Any]]:
    from hrl_sarp.run.files import read_json

    path = log_dir / OPTIONS
    return dict(read_json(path, "hrl-sarp train")) if path.is_file() else {}


def tell_edits(*log_dirs: Path, can_choose: bool = False) -> None:
    """Say in one line a run which values its files have now that its configuration has not.

    A run that was not trained by `train` of this version does not say which files those are, and
    the file of --config may be gone, or not be seen from this folder. Nothing is said of these.

    Args:
        log_dirs: of the runs whose configuration is taken.
        can_choose: the command takes the options of a configuration, too.

    Raises:
        DataError: if the options of a run were changed after it wrote them.
    """
    from hrl_sarp.config.loading import config_hash, name_changes

    for log_dir in log_dirs:
        config = config_of_run(log_dir)
        given = _kept_options(log_dir).get(config_hash(config))
        own = Path(given["config"]) if given and given["config"] else None
        if given is None or (own is not None and not own.exists()):
            continue
        try:
            here = read_config(given["market"], given["experiment"], own, given["seed"])
            edits = name_changes(*(_values(each) for each in (config, here)))
        except ConfigError as error:
            edits = [" ".join(str(error).split())]
        if not edits:
            continue
        given = {"market": config.market} if not any(given.values()) else given
        words = [f"--{name} {shlex.quote(str(v))}" for name, v in given.items() if v is not None]
        cure = " ".join(words) if can_choose else "only a new training"
        say(
            f"note: {log_dir} keeps the configuration that it was trained with, and its files "
            f"differ: {', '.join(edits)}; {cure} takes what is here",
            is_problem=not can_choose,  # a command without these options may print an object alone
        )


def _values(config: "RunConfig") -> dict[str, Any]:
    """Return the values that a run depends on; where its curves go is none."""
    return config.model_dump(mode="json", exclude={"trackers"})


def parse_numbers(text: str | None, option: str, example: str) -> tuple[int, ...] | None:
    """Read numbers with commas between them; None where the option was not given."""
    try:
        return None if text is None else tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"{option}: expected numbers with commas between them, such as {example}, found "
            f"'{text}'"
        ) from error


def _given(options: dict[str, Any]) -> dict[str, Any]:
    inner = {key: _given(v) if isinstance(v, dict) else v for key, v in options.items()}
    return {key: value for key, value in inner.items() if value is not None}


@contextmanager
def running(folder: Path, option: str = "--log-dir", log: str | None = None) -> Iterator[None]:
    """Lock a folder, remove the temporary files of killed runs, and log into it."""
    # torch loads here, inside the commands, so that --help is instant
    from hrl_sarp.run.files import remove_unfinished
    from hrl_sarp.run.session import RunFolder, configure_logging, file_errors_shown_once

    with RunFolder(folder, option).lock(), file_errors_shown_once():
        remove_unfinished(folder)
        configure_logging(folder, log)
        try:
            yield
        finally:
            log_to_screen()


def say_failed(failed: "Mapping[Cell, str]") -> None:
    """Name the cells of a study that failed, each in one line."""
    for cell, reason in failed.items():
        say(f"{cell.name} failed: {' '.join(reason.split())}", is_problem=True)
