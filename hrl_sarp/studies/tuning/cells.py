"""The cells of tuning: each runs one trial in a process of its own, and tells Optuna its score."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import torch
from filelock import FileLock
from loguru import logger
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url

from hrl_sarp.config.loading import config_hash, name_changes, overlaid
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.config.study_schema import TuningConfig
from hrl_sarp.contracts import DayRange, Market
from hrl_sarp.errors import HrlSarpError, MetricError, OverwriteError
from hrl_sarp.market.cache import assembled_market
from hrl_sarp.market.sector_table import market_facts, market_fingerprint
from hrl_sarp.observed.stocks import with_stock_embeddings
from hrl_sarp.run.files import read_json, remove_unfinished, sha256_plain, write_json
from hrl_sarp.run.session import configure_logging, configure_threads, derive_seed
from hrl_sarp.run.trials import Span, Trial, TrialLog, prices_hash
from hrl_sarp.studies.cell import Cell
from hrl_sarp.studies.grid import Results, run_grid
from hrl_sarp.studies.tuning import SEARCH
from hrl_sarp.studies.tuning.inner import (
    THREADS,
    InnerTrainings,
    lower_score,
    trial_seconds,
    tuning_splits,
)
from hrl_sarp.studies.tuning.space import shown_values
from hrl_sarp.studies.tuning.storage import (
    ABANDONED,
    REASON,
    RUNNER,
    asked,
    beating,
    claim,
    opened,
    own_place,
    place_folder,
    resumed,
    retry_abandoned,
    retry_silent,
    runner_name,
    suggested,
)

TRIAL = "trial.json"
"""In the folder of a cell: the number of its trial."""
SCORE = "tuning_score_pct"
"""Metric in the trial log: mean of the inner trainings less one standard error, % a year."""
TUNED = "tuning"
"""Name of the span in the trial log: all sessions that evaluated trials."""
REFUSALS = (HrlSarpError, RuntimeError, ValueError, ArithmeticError, AssertionError, LookupError)
"""What ours and other libraries raise about values that they cannot train with."""


@dataclass(frozen=True)
class Tuning:
    """One process's share of a search; see `grid.Study`.

    Its cells are trials. Several processes may add theirs to one study of Optuna.
    """

    name: str
    """Of the study in the database."""
    config: RunConfig
    """Of the experiment. Its trials train on one thread each."""
    space: TuningConfig
    data_dir: Path
    root: Path
    """Folder of the search."""
    storage: str
    """URL of the database."""
    trial_log: Path | None
    place: int = 0
    """Of this process in the folder of the search."""

    @property
    def title(self) -> str:
        """Name on the progress bar and in messages."""
        return f"tuning {self.name}"

    @property
    def folder(self) -> Path:
        """Gets one folder per cell."""
        return place_folder(self.root, self.place)

    def study(self) -> AbstractContextManager[optuna.Study]:
        """Open the study, which maximises scores.

        Returns:
            Its context. A trial is pruned if its best score so far is below the median that the
            finished ones had after the same phase.
        """
        pruner = optuna.pruners.MedianPruner(n_startup_trials=self.space.startup_trials)
        return opened(self.storage, self.name, pruner)

    def market(self) -> Market:
        """Load the market of the experiment, with the configured stock embeddings."""
        market = assembled_market(self.data_dir, self.config)
        return with_stock_embeddings(market, self.data_dir, self.config, torch.device("cpu"))

    def require_startable(self) -> dict[str, Any]:
        """Refuse a market that no trial could train on, and say what makes trials comparable.

        Returns:
            Configuration, search space and data, as plain values.

        Raises:
            MarketError: if the sessions are too few for the inner folds.
        """
        market = self.market()
        minutes = trial_seconds(market, self.config, self.space.inner) / 60
        logger.info(f"{self.title}: a trial of all phases takes about {minutes:.0f} min of a core")
        return {
            "experiment": self.config.model_dump(mode="json", exclude={"trackers"}),
            "space": self.space.model_dump(mode="json"),
            "data": {**market_facts(market), "content": market_fingerprint(market)},
        }

    def identity(self, cell: Cell) -> Mapping[str, Any]:
        """Return what a result depends on; the study itself refuses other data.

        Args:
            cell: of this search.

        Returns:
            Hashes by name.
        """
        _ = cell
        return {
            "configuration": config_hash(self.config),
            "search space": sha256_plain(self.space.model_dump(mode="json")),
        }

    def run(self, cell: Cell, folder: Path) -> dict[str, Any]:
        """Run one trial from where it stands.

        Args:
            cell: of this search.
            folder: of the cell.

        Returns:
            Number, state, score and values of the trial, and why it failed.
        """
        _ = cell
        configure_threads(THREADS)
        remove_unfinished(folder)
        configure_logging(folder)
        with self.study() as study:
            trial = self._trial(study, folder / TRIAL)
            found = study.get_trials(deepcopy=False)[trial.number]
            if not found.state.is_finished():
                with beating(trial):
                    self._evaluate(study, trial)
                found = study.get_trials(deepcopy=False)[trial.number]
        return as_plain(found)

    def _trial(self, study: optuna.Study, path: Path) -> optuna.Trial:
        """Go on with the trial of a killed process, else ask for one."""
        if path.is_file():
            trial = resumed(study, read_json(path, "hrl-sarp tune")["number"])
        else:
            trial = asked(study)
            write_json(path, {"number": trial.number})
        # each trial draws from a stream of its own, so that a search that goes on after a stop
        # draws what it would have drawn
        study.sampler = TPESampler(
            n_startup_trials=self.space.startup_trials,
            seed=derive_seed(self.config.seed, trial.number),
            constant_liar=True,
        )
        return trial

    def _evaluate(self, study: optuna.Study, trial: optuna.Trial) -> None:
        """Train, tell Optuna how the trial ended, and add it to the trial log before that."""
        trial.set_user_attr(RUNNER, runner_name(self.folder))
        values = suggested(trial, self.space)
        logger.info(f"trial {trial.number}: {shown_values(values)}")
        market, score, state = self.market(), None, TrialState.COMPLETE
        try:
            config = overlaid(self.config, values, f"trial {trial.number}")
            score = self._score(trial, market, config)
        except optuna.TrialPruned:
            state = TrialState.PRUNED
        except REFUSALS as error:
            if not isinstance(error, HrlSarpError):
                logger.exception(f"trial {trial.number} failed")
            trial.set_user_attr(REASON, f"{type(error).__name__}: {' '.join(str(error).split())}")
            state = TrialState.FAIL
        self._record(trial.number, state, market, values, score)
        # another machine ends a trial that was silent for long: it is not ended twice
        study.tell(trial, score, state=state, skip_if_finished=True)

    def _score(self, trial: optuna.Trial, market: Market, config: RunConfig) -> float:
        """Train phase after phase; a trial that has fallen behind the median ends early."""
        folder = self.root / "trainings" / config_hash(config)[:16]
        folder.mkdir(parents=True, exist_ok=True)
        inner = InnerTrainings(market, self.config, config, self.space.inner, folder)
        seen = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        score = 0.0
        # two trials may have drawn the same values: the second one reads what the first one trains
        with FileLock(folder / "trainings.lock", is_singleton=False):
            for number, scores in inner.scores_by_phase():
                if not all(map(math.isfinite, scores)):
                    raise MetricError(f"phase {number}: scores {scores}, expected finite ones")
                score = lower_score(scores)
                logger.info(
                    f"phase {number}: {score:.3f} of {', '.join(f'{s:.3f}' for s in scores)}"
                )
                if number not in seen:
                    trial.report(score, number)
                if number < self.space.inner.phases and trial.should_prune():
                    raise optuna.TrialPruned
        trial.set_user_attr("scores", scores)
        return score

    def _record(
        self,
        number: int,
        state: TrialState,
        market: Market,
        values: Mapping[str, Any],
        score: float | None,
    ) -> None:
        """Add a trial to the trial log, whatever became of it."""
        splits = tuning_splits(market, self.config, self.space.inner)
        rows = DayRange(splits[0].test.start, splits[-1].test.stop)
        name = f"{self.name}, trial {number}, {state.name.lower()}: {shown_values(values)}"
        span = Span.of_rows(market, rows, TUNED)
        same = sha256_plain([config_hash(self.config), values])
        where, seed = prices_hash(market), self.config.seed
        TrialLog(self.trial_log).add(Trial("tuning", name, same, where, span, SCORE, score, seed))


def claim_folder(tuning: Tuning) -> None:
    """Say which search a folder belongs to, or refuse that of another one.

    Args:
        tuning: the search.

    Raises:
        OverwriteError: naming what differs.
    """
    address = make_url(tuning.storage).render_as_string(hide_password=True)
    here = {"study": tuning.name, "storage": address, "market": tuning.config.market}
    path = tuning.root / SEARCH
    if path.is_file():
        changes = name_changes(read_json(path, "hrl-sarp tune"), here)
        if changes:
            raise OverwriteError(
                f"{tuning.root} holds another search ({'; '.join(changes)}): --output names "
                "another folder"
            )
    write_json(path, here)


def as_plain(trial: FrozenTrial) -> dict[str, Any]:
    """Return what a page and a file say of a trial."""
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "score": trial.value if trial.state == TrialState.COMPLETE else None,
        "scores": trial.user_attrs.get("scores", []),
        "values": dict(trial.params),
        # Optuna itself ends a silent trial, and gives no reason
        "reason": trial.user_attrs.get(REASON, ABANDONED if trial.state == TrialState.FAIL else ""),
    }


def run_trials(tuning: Tuning, count: int, jobs: int, *, in_process: bool = False) -> Results:
    """Add trials to a study; the same call after a stop or a kill goes on.

    Args:
        tuning: the search; its place is chosen here.
        count: trials that this process adds.
        jobs: trials at a time.
        in_process: run one trial after another in this process instead.

    Returns:
        What the trials of this process came to. A trial that failed is one of them; `failed` holds
        those whose process ended without a word of its own.

    Raises:
        MarketError: if the data have no room for the inner folds.
        OverwriteError: if the study is about another configuration, search space or market.
    """
    identity = tuning.require_startable()
    with own_place(tuning.root) as place:
        mine = replace(tuning, place=place)
        with (
            FileLock(tuning.root / "study.lock", is_singleton=False),
            tuning.study() as study,
        ):
            claim_folder(tuning)
            claim(study, identity)
            left = retry_abandoned(study, tuning.root, place)
            for number in [*left, *retry_silent(study, mine.folder)]:
                logger.warning(f"trial {number} was left by a killed process: it is tried again")
        cells = [Cell("trial", number) for number in range(count)]
        return run_grid(mine, cells, jobs, in_process=in_process)
