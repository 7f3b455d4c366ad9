"""A run of several seeds: each trains in a folder of its own, and the mean of all decides."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from loguru import logger

from hrl_sarp.errors import CheckpointError, HrlSarpError
from hrl_sarp.run.files import read_json, write_json
from hrl_sarp.run.phases import SEEDS, require_kind, seed_folders
from hrl_sarp.run.terminal import stretch
from hrl_sarp.training.curriculum import run_curriculum
from hrl_sarp.training.phase import PhaseContext


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


def _member(context: PhaseContext, seed: int, folder: Path) -> PhaseContext:
    config = context.config.model_copy(update={"seed": seed})
    return replace(context, config=config, log_dir=folder)
