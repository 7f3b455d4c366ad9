"""What several commands do with the agents of a run: load them with their market, report on them.

A folder of reports belongs to one configuration and one market.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hrl_sarp.errors import OverwriteError
from hrl_sarp.run.earlier import CONFIG
from hrl_sarp.run.terminal import expect_seconds, say, stretch

if TYPE_CHECKING:  # heavy packages load inside the command that needs them: --help is instant
    from hrl_sarp.config.schema import RunConfig
    from hrl_sarp.evaluation.backtest import BacktestResult
    from hrl_sarp.evaluation.report.analysis import Analysis
    from hrl_sarp.training.phase import PhaseContext

ALL = "all"
SOURCE = "made_from.json"
"""In a folder of reports: the configuration and the data that they were made from."""
SESSION_SECONDS, FIGURES_SECONDS = 0.02, 20.0
"""Seconds of one core that a session of the rollouts takes, and all that follows them (resampling,
figures, files), measured on the bundled sample, for the time left on the screen."""
LONGEST_NAME = 100
"""Characters of a folder's name: file systems take 255 bytes."""


@dataclass(frozen=True)
class Selection:
    """What a backtest shows.

    Examples:
        >>> Selection().folder_name
        'backtest'
        >>> Selection("validation", "joint,certified", "none").folder_name
        'backtest-validation-agents_joint_certified-baselines_none'
    """

    span: str = "test"
    agents: str = ALL
    """Names of trained pairs with commas between them, or `all`."""
    baselines: str = ALL
    """Names of baselines with commas between them, or `all` or `none`."""

    @property
    def folder_name(self) -> str:
        """Name of its folder below the log folder; every selection has another one."""
        parts = ["backtest", *([self.span] if self != Selection() else [])]
        for kind, names in (("agents", self.agents), ("baselines", self.baselines)):
            if names != ALL:
                words = [re.sub(r"[^a-z0-9]+", "-", name.lower()) for name in names.split(",")]
                parts.append("_".join([kind, *(word.strip("-") for word in words)]))
        name = "-".join(parts)
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        cut = LONGEST_NAME - len(digest) - 1
        return name if len(name) <= LONGEST_NAME else f"{name[:cut]}-{digest}"


def load_context(data_dir: Path, log_dir: Path, config: "RunConfig", device: str) -> "PhaseContext":
    """Load the market, with the configured stock embeddings, and build the phases' context."""
    from hrl_sarp.encoders.stock_embeddings import with_stock_embeddings
    from hrl_sarp.market.cache import assembled_market
    from hrl_sarp.run.session import StopFlag, configure_threads, resolve_device
    from hrl_sarp.training.curriculum import make_context

    chosen = resolve_device(device)
    configure_threads(config.threads)
    with stretch(0.0, 0.0, "reading the market"):
        market = with_stock_embeddings(assembled_market(data_dir, config), data_dir, config, chosen)
        return make_context(config, market, log_dir, chosen, StopFlag(), resume=False)


@contextmanager
def report_folder(folder: Path, context: "PhaseContext", *, overwrite: bool) -> Iterator[Path]:
    """Write reports of a run into a folder that belongs to its configuration and its market.

    The same command may replace its own reports, because they say the same about the same. When the
    block ends, the folder says what they were made from.

    Args:
        folder: of the reports; need not exist.
        context: of the run that they are about.
        overwrite: replace reports that were made from something else.

    Yields:
        The folder.

    Raises:
        OverwriteError: naming what differs, before anything is computed.
    """
    from hrl_sarp.config.loading import dump_config
    from hrl_sarp.fitting import RunState
    from hrl_sarp.run.damage import sealed
    from hrl_sarp.run.files import read_json, write_json, write_text

    here = context.run_identity()
    if any(folder.glob("*.html")) and not overwrite:
        state = RunState(folder, folder.name, here, resume=False, config=context.config)
        path = folder / SOURCE
        there = read_json(path, "hrl-sarp backtest --overwrite") if path.is_file() else {}
        others = state.find_differences(there) if there else ["version of the package"]
        if others:
            raise OverwriteError(
                f"{folder} holds a report of another {'; another '.join(others)}: --overwrite "
                "replaces it, another --log-dir keeps it"
            )
    yield folder
    write_text(folder / CONFIG, sealed(dump_config(context.config)))
    write_json(folder / SOURCE, here)


@dataclass(frozen=True)
class Report:
    """A backtest whose report is written, to be shown."""

    result: "BacktestResult"
    analysis: "Analysis"
    folder: Path

    def show(self) -> None:
        """Print the summary and the place of the page."""
        from rich.console import Console

        from hrl_sarp.evaluation.report import print_summary

        print_summary(self.result, self.analysis, Console())
        say(f"wrote {self.folder / 'report.html'}")


def report_seconds(context: "PhaseContext", span: str) -> float:
    """Return about how long the backtest of a span takes on one core."""
    return FIGURES_SECONDS + SESSION_SECONDS * len(getattr(context.market.split, span))


def make_report(
    context: "PhaseContext", chosen: Selection, trial_log: Path | None, *, overwrite: bool
) -> Report:
    """Backtest a selection and write its report into its folder."""
    from hrl_sarp.evaluation.backtest import run_backtest
    from hrl_sarp.evaluation.policies import (
        granted,
        select_policies,
        trained_policies,
        training_curves,
    )
    from hrl_sarp.evaluation.report import write_backtest
    from hrl_sarp.evaluation.trials import record_selection
    from hrl_sarp.run.trials import TrialLog
    from hrl_sarp.training.seeds import members

    policies, pairs = trained_policies(context)
    swaps = pairs if chosen.agents == ALL else None
    if swaps is None:
        policies = select_policies(policies, chosen.agents.split(","))
    log = TrialLog(trial_log)
    wanted = context.log_dir / chosen.folder_name
    with report_folder(wanted, context, overwrite=overwrite) as folder:
        for member in members(context):
            record_selection(member.log_dir, member.market, member.config, log)
        seconds = report_seconds(context, chosen.span)
        expect_seconds(seconds)
        with stretch(0.0, 1 - FIGURES_SECONDS / seconds):
            result = run_backtest(context.market, policies, chosen.span, context.config, log=log)
        grants, curves = granted(context.log_dir), training_curves(context.log_dir)
        analysis = write_backtest(result, folder, swaps, grants, curves)
    return Report(result, analysis, folder)
