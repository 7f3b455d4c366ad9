"""Runs one or all of the five phases, in their order."""

import math
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path

import torch
from loguru import logger

from hrl_sarp.config.loading import dump_config
from hrl_sarp.config.schema import GradientConfig, RunConfig, SupervisedConfig
from hrl_sarp.contracts import Market, Split
from hrl_sarp.envs.rewards import require_extra_reward
from hrl_sarp.errors import MissingArtifactError
from hrl_sarp.fitting.history import curve_table
from hrl_sarp.fitting.trackers import require_trackers
from hrl_sarp.market.own.profile import describe
from hrl_sarp.market.sector_table import market_fingerprint
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.reporting.table import Table
from hrl_sarp.run.damage import sealed
from hrl_sarp.run.earlier import CONFIG
from hrl_sarp.run.files import read_json, write_text
from hrl_sarp.run.phases import MACRO_OF, MICRO_OF, PHASES, require_phase
from hrl_sarp.run.session import RunFolder, StopFlag, configure_threads, seed_everything
from hrl_sarp.run.terminal import found_finished, stretch
from hrl_sarp.training import joint_finetune, train_agents
from hrl_sarp.training.acceptance import Acceptance
from hrl_sarp.training.phase import PREFIXES, PhaseContext, PhaseResult, with_sector_table
from hrl_sarp.training.pretrain import macro, micro

RUNNERS = {
    1: macro.run,  # market, graph -> macro agent, sector table
    2: micro.run,  # market -> micro agent
    3: train_agents.run_macro,  # macro of 1, micro of 2 -> macro agent
    4: train_agents.run_micro,  # micro of 2, macro of 3 -> micro agent
    5: joint_finetune.run,  # macro of 3, micro of 4 -> both
}
"""Phases in order. Each reads the files of earlier ones."""

SECONDS = {
    "batch": 0.1,
    "macro step": 0.00085,
    "micro step": 0.0004,
    "update": 0.035,
    "day": 0.002,
}
"""Seconds of one core, measured on the bundled sample and on 339 stocks, for the time left on the
screen: a batch of phase 1 or 2, an env step, an update of TD3, a session of validation."""
SESSIONS_PER_WEEK = 5


Runner = Callable[[PhaseContext], PhaseResult]


def run_phase(number: int, context: PhaseContext, runner: Runner | None = None) -> PhaseResult:
    """Run one phase. When resuming, a phase that has finished is not repeated.

    Args:
        number: of the phase, 1 to 5.
        context: of the run.
        runner: trains in place of the phase's own; None takes that.

    Returns:
        The path of the metrics, and the numbers of the closing line.

    Raises:
        HrlSarpError: for a number that is no phase, for a tracker that is not installed, and for
            an own reward term that fails.
        MissingArtifactError: naming the phase that has to run first.
        CheckpointError: if a file that it reads is damaged or belongs to another run.
        StoppedEarly: after a checkpoint, if a stop was requested.
    """
    require_phase(number)
    require_trackers(context.config.trackers)
    require_extra_reward(context.config, context.tensors)
    if context.resume and _has_finished(context, number):
        logger.info(f"phase {number} has finished already")
        found_finished()
        context.state(number).finish()  # a run killed at its end may have left its checkpoint
        metrics = context.folder(number) / PHASES[number - 1].metrics
        return PhaseResult(number, metrics, read_json(metrics, "hrl-sarp train"))
    context = _require_inputs(number, context)
    config = context.config
    configure_threads(config.threads)
    seed_everything(config.seed)
    folder = context.folder(number)
    if not context.resume:
        context.forget_results(number)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CONFIG, sealed(dump_config(config)))
    logger.info(f"phase {number} ({PHASES[number - 1].title}) begins")
    result = (runner or RUNNERS[number])(context)
    logger.info(f"phase {number} wrote {result.metrics}")
    return result


def run_curriculum(context: PhaseContext) -> list[PhaseResult]:
    """Run all phases in order.

    Args:
        context: of the run.

    Returns:
        One result a phase.
    """
    introduce(context)
    seconds = phase_seconds(context.config, context.market.split)
    whole = sum(seconds.values())
    bounds = [0.0, *(part / whole for part in accumulate(seconds.values()))]
    results = []
    for number, (begin, end) in zip(RUNNERS, pairwise(bounds), strict=True):
        label = f"phase {number} of {len(RUNNERS)}, {PHASES[number - 1].title}"
        with stretch(begin, end, label):
            results.append(run_phase(number, context))
    return results


def phase_seconds(config: RunConfig, split: Split) -> dict[int, float]:
    """Return about how long each phase takes on one core, from what `SECONDS` measured.

    Args:
        config: of the run.
        split: of its market.

    Returns:
        Phase -> seconds. A phase that stops early takes less.

    Examples:
        >>> from hrl_sarp.config.loading import load_config
        >>> from hrl_sarp.contracts import DayRange
        >>> split = Split(DayRange(0, 6000), DayRange(6050, 6800), DayRange(6850, 8100))
        >>> quick, smoke = (load_config(experiment=name) for name in ("quickstart", "smoke"))
        >>> sum(phase_seconds(smoke, split).values()) < sum(phase_seconds(quick, split).values())
        True
    """
    macro, micro, joint = config.macro_agent, config.micro_agent, config.curriculum.joint
    is_risk = config.objective.kind == "risk"
    rollout = SECONDS["day"] * len(split.validation)

    def fit(section: SupervisedConfig | GradientConfig, n_rows: float) -> float:
        epochs = min(section.epochs, 2 * section.patience)
        batches = epochs * math.ceil(n_rows / section.batch_size)
        return SECONDS["batch"] * batches + 2 * rollout  # of the rule, then of all temperatures

    def loop(n_steps: int, every: int, step: float) -> float:
        return n_steps * step + rollout * (1 + n_steps / every)

    update = SECONDS["update"] / micro.td3.env_steps_per_update
    steps = SECONDS["macro step"], SECONDS["micro step"] + update
    every = macro.ppo.eval_every_steps, micro.td3.eval_every_steps
    n_rows = float(len(split.train))
    rounds = min(joint.max_rounds, joint.patience_rounds + 1)
    return {
        1: fit(macro.gradient if is_risk else macro.pretrain, n_rows / SESSIONS_PER_WEEK),
        2: fit(micro.gradient if is_risk else micro.pretrain, n_rows),
        3: loop(macro.ppo.total_timesteps, every[0], steps[0]),
        4: loop(micro.td3.total_timesteps, every[1], steps[1]),
        5: rounds
        * (
            loop(joint.macro_steps, every[0], steps[0])
            + loop(joint.micro_steps, every[1], steps[1])
        ),
    }


def introduce(context: PhaseContext) -> None:
    """Print what a run trains on, before it does.

    Args:
        context: of the run.
    """
    for line in describe(context.market, context.config.risk):
        logger.info(line)


def _require_inputs(number: int, context: PhaseContext) -> PhaseContext:
    """Read everything that a phase starts from, before anything is written.

    For phases after the first, the returned context carries the sector table of phase 1.
    """
    context.state(number).load()
    if number == 1:
        return context
    context = with_sector_table(context)
    if number in MACRO_OF:
        context.load_macro(MACRO_OF[number])
    if number in MICRO_OF:
        context.load_micro(MICRO_OF[number])
    return context


def _has_finished(context: PhaseContext, number: int) -> bool:
    """Say whether a phase has finished; refuse one of another configuration or other data."""
    metrics = context.folder(number) / PHASES[number - 1].metrics
    if not context.has(number) or not metrics.is_file():
        return False
    found = read_json(metrics, f"hrl-sarp train --phase {number}")
    context.state(number).require_same(found, f"finished phase {number} in {metrics.parent}")
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
    """Put a market on its device and build the context of the phases.

    Args:
        config: merged configuration.
        market: in memory.
        log_dir: folder of the run; made when it is missing.
        device: of the market's tensors and all networks.
        stop: flag that the phases read between batches and steps.
        resume: continue what the folder holds.

    Returns:
        The context of all phases.
    """
    tensors = MarketTensors(market, torch.float32, device)
    folder = RunFolder(log_dir).path
    return PhaseContext(config, market, tensors, folder, resume, stop, market_fingerprint(market))


def phase_tables(log_dir: Path) -> list[Table]:
    """Make a table of the curves of each finished phase, and one of what it was granted."""
    tables = []
    for files in PHASES:
        path = log_dir / files.folder / files.metrics
        if path.is_file():
            found = read_json(path, f"hrl-sarp train --phase {files.number}")
            title = f"phase {files.number} ({files.title})"
            tables.append(curve_table(title, found["history"]))
            if found.get("acceptance"):
                what = "temperatures" if files.number in PREFIXES else "evaluations"
                granted = Acceptance.from_dict(found["acceptance"])
                tables.append(granted.table(f"{title}: {what} asked for and granted"))
    if not tables:
        raise MissingArtifactError(f"no finished phase in {log_dir}: run `hrl-sarp train` first")
    return tables
