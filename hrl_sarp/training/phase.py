"""The context, the files and the results of a phase."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from loguru import logger

from hrl_sarp.agents import MacroAgent, MicroAgent, MicroSettings
from hrl_sarp.agents.files import table_hash
from hrl_sarp.config.loading import config_hash
from hrl_sarp.config.schema import GradientConfig, GraphConfig, RunConfig, SupervisedConfig
from hrl_sarp.contracts import CONTINUED_TABLE, SECTOR_COLUMNS, Market
from hrl_sarp.fitting import Fit, History, RunState, Schedule, Task, World
from hrl_sarp.fitting.history import DECISIONS, Axis
from hrl_sarp.fitting.resume import MARKET_FACTS
from hrl_sarp.graph import SectorGNN, adjacency, embed_all, node_features
from hrl_sarp.market.sector_table import (
    market_facts,
    read_graph,
    read_sector_table,
    write_sector_table,
)
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.observed.stocks import kept_sources
from hrl_sarp.run.checkpoints import load_module
from hrl_sarp.run.files import read_json
from hrl_sarp.run.phases import CERTIFICATION, PHASES, best_file, remove_from
from hrl_sarp.run.session import StopFlag, derive_seed
from hrl_sarp.training.selection.validation import Validation

PREFIXES = {1: "pretrain", 2: "pretrain_micro"}
"""Prefix of the metric names of the supervised phases."""


@dataclass(frozen=True)
class PhaseResult:
    """Metrics of a finished phase."""

    number: int
    metrics: Path
    summary: dict[str, Any]
    """The numbers of the phase's closing line."""


@dataclass(frozen=True)
class PhaseContext:
    """Everything a phase may use."""

    config: RunConfig
    market: Market
    """Carries the sector table of phase 1, except in phase 1 itself."""
    tensors: MarketTensors
    log_dir: Path
    resume: bool
    stop: StopFlag
    fingerprint: str
    """Hash of the market's content: dates, stocks, returns, features, risk, stock embeddings."""
    goes_on: bool = False
    """The market has days after the data of the run, or ends before them: agents decide on it, and
    no phase may train on it."""

    @cached_property
    def validation(self) -> Validation:
        """Scores pairs on the validation span."""
        return Validation(self.tensors, self.config)

    def folder(self, number: int) -> Path:
        """Folder of a phase below the log folder; it need not exist."""
        return self.log_dir / PHASES[number - 1].folder

    def has(self, number: int) -> bool:
        """Say whether all files of a phase's best agents are there."""
        files = PHASES[number - 1].best
        return all((self.folder(number) / name).is_file() for name in files)

    def best(self, number: int, which: int = 0) -> Path:
        """Return the file of a phase's best agent; `which` is its index in `PhaseFiles`."""
        return best_file(self.log_dir, number, which)

    def with_market(self, market: Market) -> "PhaseContext":
        """Return the context over another market with the same columns."""
        tensors = MarketTensors(market, self.tensors.dtype, self.tensors.device)
        return replace(self, market=market, tensors=tensors)

    def with_sector_embeddings(
        self, table: Float[np.ndarray, "T S E"], continued: str | None = None
    ) -> "PhaseContext":
        """Return the context over the same market with this sector table.

        `continued` is the hash of the written table that it goes on from.
        """
        manifest = {k: v for k, v in self.market.manifest.items() if k != SECTOR_COLUMNS}
        if continued is not None:
            manifest[CONTINUED_TABLE] = continued
        market = replace(self.market, sector_embeddings=table, manifest=manifest)
        return replace(self, market=market, tensors=self.tensors.with_sector_table(market))

    def micro_settings(self) -> MicroSettings:
        """Settings of the micro networks on this market."""
        return MicroSettings(self.tensors, self.config)

    def load_macro(self, number: int) -> MacroAgent:
        """Load the macro agent that a phase left, on this market."""
        return MacroAgent.load(self.best(number), self.tensors, self.config)

    def load_micro(self, number: int, which: int = 0) -> MicroAgent:
        """Load the micro agent that a phase left, on this market."""
        return MicroAgent.load(self.best(number, which), self.micro_settings())

    def decisions_before(self, number: int) -> int:
        """Count the decisions that the finished phases before this one were trained on."""
        last = 0
        for files in PHASES[: number - 1]:
            path = self.folder(files.number) / files.metrics
            if path.is_file():
                history = read_json(path, f"train --phase {files.number}")["history"]
                last = max([last, *(row.get(DECISIONS, 0) for row in history)])
        return last

    def run_identity(self) -> dict[str, Any]:
        """Return the facts in which a checkpoint and a run that resumes it must agree."""
        return {
            "config_hash": config_hash(self.config),
            "market": self.fingerprint,
            MARKET_FACTS: market_facts(self.market),
            "seed": self.config.seed,
        }

    def state(self, number: int) -> RunState:
        """Return the checkpoint of an unfinished phase, with the identity of its run."""
        folder, identity = self.folder(number), self.run_identity()
        return RunState(folder, f"phase {number}", identity, self.resume, self.config)

    def open_history(
        self, number: int, axis: Axis, running: Mapping[str, Any] | None, prefix: str = ""
    ) -> History:
        """Begin the history of a phase, or continue that of its checkpoint; the caller closes it.

        Args:
            number: of the phase.
            axis: of its trackers.
            running: its checkpoint; None where it begins.
            prefix: text before each name.

        Returns:
            The history with its trackers, as a context manager.
        """
        rows = running["history"] if running else None
        return History(self.folder(number), rows, prefix, axis, self.config.trackers)

    def forget_results(self, number: int) -> None:
        """Remove a phase of an earlier run and all that started from it or is about its agents."""
        later = [str(found) for found in remove_from(number, self.log_dir) if found > number]
        if later:
            logger.info(
                f"removed what started from the former phase {number}: phase {', '.join(later)}, "
                "with what was certified and reported"
            )

    def forget_certification(self) -> None:
        """Remove what was certified, with the inner trainings."""
        certified = (self.log_dir / CERTIFICATION).parent
        if certified.is_dir():
            shutil.rmtree(certified)

    def finish(self, number: int, history: History, summary: Mapping[str, Any]) -> PhaseResult:
        """Write the metrics of a phase whose agents are written, and end it.

        The summary is written after phase and identity and before the history, which is closed
        here.
        """
        whole = {"phase": number, **self.run_identity(), **summary}
        metrics = history.write(self.folder(number) / PHASES[number - 1].metrics, whole)
        history.close()
        self.state(number).finish()
        return PhaseResult(number, metrics, whole)


@contextmanager
def fitted_phase(
    task: Task, number: int, config: SupervisedConfig | GradientConfig, context: PhaseContext
) -> Iterator[tuple[History, dict[str, Any]]]:
    """Fit the module of a supervised phase, and leave the best epoch's weights in it.

    The untrained module takes part in the choice, as epoch -1. Gives the history, which is open
    until the phase ends, and `best_epoch` and `best_val_loss`.
    """
    schedule = Schedule.of(
        config,
        batch_size=config.batch_size,
        checkpoint_seconds=context.config.curriculum.checkpoint_seconds,
        low_epoch=config.epochs,
        final_share=0.0,
        validate_first=True,
    )
    axis = Axis.of_epochs(context.decisions_before(number), len(task.train_rows))
    seed = derive_seed(context.config.seed, number)
    world = World.alone(context.tensors.device)
    state = context.state(number)
    with context.open_history(number, axis, state.load(), PREFIXES[number]) as history:
        fitted = Fit(task, schedule, state, seed, context.stop, world, history=history).run()
        yield history, {"best_epoch": fitted.best_epoch, "best_val_loss": fitted.best_loss}


def save_sector_table(
    path: Path, context: PhaseContext, table: np.ndarray, graph: SectorGNN | None = None
) -> Path:
    """Write the (T, S, E) sector embeddings of phase 1 with the span they were fitted on.

    `graph` is the network that made them; without it the run cannot decide on days to come.
    """
    network, observed = None, None
    if graph is not None:
        network, observed = graph.state_dict(), kept_sources(context.market, context.config)
    return write_sector_table(path, context.market, context.fingerprint, table, network, observed)


def with_sector_table(context: PhaseContext) -> PhaseContext:
    """Return the context whose market carries the sector embeddings of phase 1.

    A table of other data, or one that was fitted past this training span, is refused. Where the
    context goes on after the data of its run, days that the table lacks are embedded by the network
    that made it.
    """
    path = context.best(1, which=1)
    if context.goes_on:
        graph = context.config.macro_agent.graph
        return context.with_sector_embeddings(*_continued_table(path, context.market, graph))
    table = read_sector_table(path, context.market, context.fingerprint)
    return context.with_sector_embeddings(table)


def _continued_table(
    path: Path, market: Market, config: GraphConfig
) -> tuple[Float[np.ndarray, "T S E"], str]:
    """Return the rows of a written table, and embed the days that it lacks one by one.

    The second value is the hash of the written table.

    One by one, because products of matrices round by their size: a day has the same embedding
    however many days follow it.
    """
    dates, written, weights = read_graph(path)
    nodes = torch.from_numpy(node_features(market, config))
    edges = torch.from_numpy(adjacency(market, config))
    graph = SectorGNN(nodes.shape[2], config)
    load_module(path, graph, weights)
    place = np.minimum(np.searchsorted(dates, market.dates), len(dates) - 1)
    table = written[place]
    for row in np.flatnonzero(dates[place] != market.dates):
        table[row] = embed_all(graph, nodes[row : row + 1], edges[row : row + 1])[0].numpy()
    return table, table_hash(written)
