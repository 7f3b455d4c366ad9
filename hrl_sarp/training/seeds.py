"""A run of several seeds: each trains in a folder of its own, and the mean of all decides."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from loguru import logger

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.errors import CheckpointError, ConfigError, HrlSarpError, MissingArtifactError
from hrl_sarp.run.damage import has_broken_seal
from hrl_sarp.run.earlier import CONFIG
from hrl_sarp.run.files import read_json, write_json
from hrl_sarp.run.phases import PHASES, SEEDS
from hrl_sarp.run.terminal import stretch
from hrl_sarp.training.curriculum import run_curriculum
from hrl_sarp.training.phase import PhaseContext


def seed_folders(log_dir: Path) -> dict[int | None, Path]:
    """Return the folders that hold the phases of a run.

    Args:
        log_dir: of the run.

    Returns:
        Seed -> its folder. A run of one seed has one entry, None -> its log folder.
    """
    path = log_dir / SEEDS
    if not path.is_file():
        return {None: log_dir}
    return {seed: log_dir / f"seed_{seed}" for seed in read_json(path, "hrl-sarp train")["seeds"]}


def config_of_run(log_dir: Path, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """Read the configuration that a run wrote beside its first phase, and check it.

    Args:
        log_dir: of the run; of several seeds the first one is read.
        changes: values laid over it, by section.

    Returns:
        The configuration.

    Raises:
        MissingArtifactError: if there is no run.
        ConfigError: if the file was changed after the run wrote it, or a change is wrong.
    """
    first = next(iter(seed_folders(log_dir).values()))
    path = first / PHASES[0].folder / CONFIG
    if not path.is_file():
        raise MissingArtifactError(
            f"no run at {log_dir} ({path} does not exist): run `hrl-sarp train` first"
        )
    if has_broken_seal(path.read_bytes()):
        raise ConfigError(
            f"{path}: its checksum says that it was changed after the run wrote it; restore the "
            "file, or train again in another --log-dir"
        )
    return load_config(own_file=path, overrides=changes)


def members(context: PhaseContext) -> list[PhaseContext]:
    """Return the context of each seed of a run, in the order in which they were asked for.

    Args:
        context: of the whole run.

    Returns:
        The context itself for a run of one seed.
    """
    return [
        context if seed is None else _member(context, seed, folder)
        for seed, folder in seed_folders(context.log_dir).items()
    ]


def train_seeds(context: PhaseContext, seeds: Sequence[int]) -> None:
    """Train all phases of every seed, one after the other.

    Args:
        context: of the whole run; its own seed is not used.
        seeds: different ones; at least one.

    Raises:
        HrlSarpError: for a seed that stands twice, or a folder that holds a run of another kind.
        CheckpointError: when resuming a run of other seeds.
        StoppedEarly: after a checkpoint, if a stop was requested; resuming goes on there.
    """
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise HrlSarpError(
            f"--seeds: expected different numbers from 0 with commas between them, found "
            f"{', '.join(map(str, seeds)) or 'none'}"
        )
    require_kind(context.log_dir, several=True)
    path = context.log_dir / SEEDS
    if context.resume and path.is_file():
        found = read_json(path, "hrl-sarp train")["seeds"]
        if found != list(seeds):
            raise CheckpointError(
                f"{path} is of a run with the seeds {found}, asked for are {list(seeds)}: give "
                "the same seeds, or another --log-dir"
            )
    if not context.resume:
        context.forget_certification()  # it is about the agents of before
    write_json(path, {"seeds": list(seeds)})
    for number, member in enumerate(members(context), 1):
        name = f"seed {member.config.seed} ({number} of {len(seeds)})"
        logger.info(f"{name} begins")
        with stretch((number - 1) / len(seeds), number / len(seeds), name):
            run_curriculum(member)


def require_kind(log_dir: Path, *, several: bool) -> None:
    """Refuse to train one seed over a run of several, and the other way round.

    Args:
        log_dir: of the run.
        several: whether several seeds are to be trained.

    Raises:
        HrlSarpError: naming the folder and what it holds.
    """
    has_several = (log_dir / SEEDS).is_file()
    has_one = any((log_dir / files.folder).is_dir() for files in PHASES)
    if several and has_one:
        raise HrlSarpError(
            f"{log_dir} holds a run of one seed: choose another --log-dir for --seeds"
        )
    if not several and has_several:
        raise HrlSarpError(
            f"{log_dir} holds a run of several seeds: give --seeds, or choose another --log-dir"
        )


def _member(context: PhaseContext, seed: int, folder: Path) -> PhaseContext:
    config = context.config.model_copy(update={"seed": seed})
    return replace(context, config=config, log_dir=folder)
