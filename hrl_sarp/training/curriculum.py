"""The order of the five phases: what each needs, and running one or all of them."""

from pathlib import Path

import torch
from loguru import logger

from hrl_sarp.artifacts import read_json, write_text
from hrl_sarp.config.loading import dump_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.errors import CheckpointError, HrlSarpError
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.runtime import RunFolder, StopFlag, configure_threads, seed_everything
from hrl_sarp.training import (
    joint_finetune,
    pretrain_macro,
    pretrain_micro,
    train_macro,
    train_micro,
)
from hrl_sarp.training.phase import (
    PHASES,
    PhaseContext,
    PhaseResult,
    market_fingerprint,
    with_sector_table,
)

RUNNERS = {
    1: pretrain_macro.run,  # market, graph -> macro agent, sector table
    2: pretrain_micro.run,  # market -> micro agent
    3: train_macro.run,  # macro of 1, micro of 2 -> macro agent
    4: train_micro.run,  # micro of 2, macro of 3 -> micro agent
    5: joint_finetune.run,  # macro of 3, micro of 4 -> both
}
"""Phases in order; each reads what the ones before it wrote."""


def require_phase(number: int) -> None:
    """Refuse a number that is no phase.

    Raises:
        HrlSarpError: naming the phases.
    """
    if number not in RUNNERS:
        raise HrlSarpError(f"--phase must be one of {sorted(RUNNERS)}, found {number}")


def run_phase(number: int, context: PhaseContext) -> PhaseResult:
    """Run one phase; when resuming, one that has finished is not repeated.

    Raises:
        HrlSarpError: for a number that is no phase.
        MissingArtifactError: naming the phase that has to run first.
        StoppedEarly: after a checkpoint, if a stop was asked for.
    """
    require_phase(number)
    if context.resume and _has_finished(context, number):
        logger.info(f"phase {number} has finished already")
        metrics = context.folder(number) / PHASES[number - 1].metrics
        return PhaseResult(number, metrics, read_json(metrics, "python main.py train"))
    config = context.config
    configure_threads(config.threads)
    seed_everything(config.seed)
    if number > 1:
        context = with_sector_table(context)
    folder = context.folder(number)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.yaml", dump_config(config))
    logger.info(f"phase {number} ({PHASES[number - 1].title}) begins")
    result = RUNNERS[number](context)
    logger.info(f"phase {number} wrote {result.metrics}")
    return result


def run_curriculum(context: PhaseContext) -> list[PhaseResult]:
    """Run all phases in order."""
    return [run_phase(number, context) for number in RUNNERS]


def _has_finished(context: PhaseContext, number: int) -> bool:
    """Say whether a phase has finished in this very run.

    Raises:
        CheckpointError: if it finished with another configuration or on other data.
    """
    metrics = context.folder(number) / PHASES[number - 1].metrics
    if not context.has(number) or not metrics.is_file():
        return False
    found = read_json(metrics, f"python main.py train --phase {number}")
    for key, value in context.run_identity().items():
        if found.get(key) != value:
            raise CheckpointError(
                f"phase {number} in {metrics.parent} finished with another {key}: expected "
                f"{value}, found {found.get(key)}; resume with the same options, or choose "
                "another --log-dir"
            )
    return True


def make_context(
    config: RunConfig,
    market: Market,
    log_dir: Path,
    device: torch.device,
    stop: StopFlag,
    *,
    resume: bool,
) -> PhaseContext:
    """Put a market on its device and build the context of the phases."""
    tensors = MarketTensors(market, torch.float32, device)
    folder = RunFolder(log_dir).path
    return PhaseContext(config, market, tensors, folder, resume, stop, market_fingerprint(market))
