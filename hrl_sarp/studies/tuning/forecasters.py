"""The search of `tune-forecaster`: trials are trainings, scored by CRPS on origins of validation.

Bars after validation and the symbols of the holdout are left out before anything reads them.
"""

import math
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import optuna
from loguru import logger
from optuna.pruners import HyperbandPruner
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState
from torch import nn

from hrl_sarp.config.encoder_schema import ForecasterModelConfig, ForecastersConfig
from hrl_sarp.config.study_schema import SearchSpace
from hrl_sarp.errors import HrlSarpError, OverwriteError, StoppedEarly
from hrl_sarp.fitting import Epoch
from hrl_sarp.forecasters.contract import Forecaster
from hrl_sarp.forecasters.kronos.forecaster import KronosForecaster
from hrl_sarp.forecasters.kronos.predictor import KronosPredictor
from hrl_sarp.forecasters.kronos.sampling import Sampling
from hrl_sarp.forecasters.kronos.tokenizer import KronosTokenizer
from hrl_sarp.forecasters.series import content_hash
from hrl_sarp.forecasters.toto.forecaster import TotoForecaster
from hrl_sarp.forecasters.toto.model import Toto
from hrl_sarp.forecasters.training.models import KRONOS
from hrl_sarp.forecasters.training.origins import Origins
from hrl_sarp.forecasters.training.run import (
    MODEL,
    Trained,
    TrainingRequest,
    Watch,
    require_options,
    tokenizer_request,
    train_forecaster,
)
from hrl_sarp.forecasters.training.sources import PRICES, without_test
from hrl_sarp.run.files import read_json, sha256_plain, write_json
from hrl_sarp.run.session import StopFlag, derive_seed
from hrl_sarp.run.trials import Span, Trial, TrialLog
from hrl_sarp.studies.tuning.cells import REFUSALS, TRIAL, TUNED
from hrl_sarp.studies.tuning.forecaster_space import (
    PATCH,
    require_forecaster_space,
    space_of,
    tried_settings,
    tried_start,
)
from hrl_sarp.studies.tuning.space import shown_values
from hrl_sarp.studies.tuning.storage import (
    REASON,
    RUNNER,
    asked,
    beating,
    claim,
    opened,
    resumed,
    retry_silent,
    runner_name,
    suggested,
    values_of,
)

COMMAND = "hrl-sarp tune-forecaster"
TRIALS, TRAINING, DEFAULTS, TOKENIZERS = "trials", "training", "defaults", "tokenizers"
"""Folders of a search: its trials, the training of each, that of the untouched settings, and the
tokenizers of Kronos."""
CRPS = "crps_pct"
"""Metric in the trial log: mean ranked probability score of the close, % of the last price."""
SAMPLING = "sampling"
"""Kept beside the study: with the number of a trial, what each way of drawing its paths scores."""
CURE = "name another --output, and another --storage where one is given"
SAMPLER = 11
"""Role of the derived seeds of draws of values."""


@dataclass(frozen=True)
class ForecasterSearch:
    """What is searched, and where its files go."""

    whole: TrainingRequest
    """Training of the untouched settings; its `output` is the folder of the search."""
    storage: str
    """URL of the database."""
    trial_log: Path | None

    @cached_property
    def request(self) -> TrainingRequest:
        """The same without test and holdout. Everything here reads this one."""
        return replace(self.whole, source=without_test(self.whole.source), resume=True)

    @property
    def folder(self) -> Path:
        """Folder of the search."""
        return self.request.output

    @property
    def model(self) -> str:
        """Value of --model."""
        return self.request.model

    @property
    def settings(self) -> ForecastersConfig:
        """The untouched settings."""
        return self.request.settings

    @property
    def space(self) -> SearchSpace:
        """What is tried."""
        return space_of(self.settings, self.model, self.request.start)

    @cached_property
    def origins(self) -> Origins:
        """Origins that all trials share; the longest patch that may be tried fits before each."""
        patches = self.space.choices.get(PATCH, [])
        return Origins.of_validation(self.request, max(self.request.of_model.context, *patches, 0))

    def study(self) -> AbstractContextManager[optuna.Study]:
        """Open the study, which minimises the score.

        Returns:
            Its context. Hyperband ends trials whose score after 1, 3, 9, ... epochs is not among
            the best third (`tuning.reduction`).
        """
        epochs, reduction = self.request.of_model.epochs, self.settings.tuning.reduction
        pruner = HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=reduction)
        return opened(self.storage, f"{COMMAND} {self.model}", pruner, "minimize")

    def tried(self, values: Mapping[str, Any], output: Path) -> TrainingRequest:
        """Return the training of a trial.

        Args:
            values: key -> value.
            output: folder of the training.

        Returns:
            The request.
        """
        return replace(
            self.request,
            settings=tried_settings(self.settings, self.model, values),
            start=tried_start(self.request.start, values),
            output=output,
        )

    def forecaster(
        self, module: nn.Module, tokenizer: nn.Module | None, settings: ForecasterModelConfig
    ) -> Forecaster:
        """Make the forecaster of a module.

        Args:
            module: as it is now.
            tokenizer: of `kronos`.
            settings: of the model.

        Returns:
            The forecaster, with the context and the sampling of the settings.
        """
        n_paths = self.settings.tuning.paths
        if isinstance(module, Toto):
            return TotoForecaster(module, settings.context // settings.horizon, n_paths)
        assert isinstance(module, KronosPredictor)  # noqa: S101 -- the models that are tuned
        assert isinstance(tokenizer, KronosTokenizer)  # noqa: S101
        assert settings.sampling is not None  # noqa: S101 -- the schema asks for them
        assert settings.clip is not None  # noqa: S101
        sampling = Sampling(n_paths, **settings.sampling.model_dump(), s2_positions="trained")
        here = next(module.parameters()).device
        parts = tokenizer.to(here), module
        return KronosForecaster(*parts, sampling, context=settings.context, clip=settings.clip)

    def train(
        self, request: TrainingRequest, stop: StopFlag, watch: Watch | None = None
    ) -> Trained:
        """Train from where the training stands.

        Args:
            request: of a trial. The tokenizer that a Kronos from scratch needs is trained once for
                each `clip`.
            stop: flag that is checked after each batch.
            watch: is shown every epoch.

        Returns:
            The trained module.
        """
        start = request.start
        if request.model == KRONOS and start.weights is None and start.tokenizer is None:
            folder = self.folder / TOKENIZERS / f"clip_{request.of_model.clip}"
            values = {"clip": request.of_model.clip}
            own = tokenizer_request(self.tried(values, request.output), folder)
            train_forecaster(own, stop)
            request = replace(request, start=replace(start, tokenizer=folder / MODEL))
        return train_forecaster(request, stop, watch)

    def score(self, trained: Trained, settings: ForecasterModelConfig) -> float:
        """Score a finished training.

        Args:
            trained: the module.
            settings: of the model.

        Returns:
            `Origins.score`.
        """
        return self.origins.score(self.forecaster(trained.module, trained.tokenizer, settings))

    def record(self, name: str, tried: Mapping[str, Any], score: float | None) -> None:
        """Add what was tried to the trial log.

        Args:
            name: for people.
            tried: what makes it differ from other trials.
            score: None if it did not finish.
        """
        source, seed = self.request.source, self.request.seed
        market = source.origin.get(PRICES) or content_hash(source.series)
        same = sha256_plain([{**self.request.identity(), "seed": None}, dict(tried)])
        span = Span(TUNED, *self.origins.days())
        said = f"{COMMAND} {self.model}, {name}"
        one = Trial("tuning", said, same, market, span, CRPS, score, seed)
        TrialLog(self.trial_log).add(one)

    def require_startable(self) -> None:
        """Refuse settings or bars that no trial could train with, before anything is written.

        Raises:
            ConfigError: if the space does not fit the settings.
            HrlSarpError: if options, weights and bars do not go together.
        """
        request = self.request
        require_forecaster_space(self.settings, self.model, request.start)
        require_options(request)
        request.windows()
        logger.info(
            f"every trial forecasts {self.origins.horizon} bars from the same "
            f"{len(self.origins.rows)} origins of validation"
        )


def run_search(search: ForecasterSearch, count: int, stop: StopFlag) -> None:
    """Add trials to a study; the same call after a stop or a kill goes on.

    Args:
        search: what is searched.
        count: trials that this folder adds.
        stop: flag that is checked after each batch and each trial.

    Raises:
        OverwriteError: if the study is about other settings or bars.
        StoppedEarly: if the stop flag is set.
    """
    search.folder.mkdir(parents=True, exist_ok=True)
    with search.study() as study:
        claim(study, search.request.identity(), CURE)
        for number in retry_silent(study, search.folder):
            logger.warning(f"trial {number} was left by a killed process: it is tried again")
        _score_defaults(search, study, stop)
        for place in range(count):
            _run_trial(search, study, search.folder / TRIALS / f"trial-{place}", stop)
            _keep_best_training(search, study)
            if stop.is_set:
                raise StoppedEarly
        _choose_sampling(search, study)


def _score_defaults(search: ForecasterSearch, study: optuna.Study, stop: StopFlag) -> None:
    """Train and score the untouched settings, once a study."""
    if DEFAULTS in study.user_attrs:
        return
    folder = search.folder / DEFAULTS
    trained = search.train(replace(search.request, output=folder), stop)
    score = search.score(trained, search.request.of_model)
    logger.info(f"the untouched settings: {score:.4f} %")
    search.record("the untouched settings", {}, score)
    study.set_user_attr(DEFAULTS, score)
    shutil.rmtree(folder)


def _run_trial(search: ForecasterSearch, study: optuna.Study, folder: Path, stop: StopFlag) -> None:
    """Run one trial from where it stands."""
    trial = _begun(search, study, folder / TRIAL)
    if study.get_trials(deepcopy=False)[trial.number].state.is_finished():
        return
    trial.set_user_attr(RUNNER, runner_name(search.folder))
    values, score, state = suggested(trial, search.space), None, TrialState.COMPLETE
    logger.info(f"trial {trial.number}: {shown_values(values)}")
    with beating(trial):
        try:
            request = search.tried(values, folder / TRAINING)
            watch = partial(_watch, search, trial, request.of_model)
            score = search.score(search.train(request, stop, watch), request.of_model)
            logger.info(f"trial {trial.number}: {score:.4f} %")
        except optuna.TrialPruned:
            state = TrialState.PRUNED
            logger.info(f"trial {trial.number} ends early: others are better after as many epochs")
        except REFUSALS as error:
            if not isinstance(error, HrlSarpError):
                logger.exception(f"trial {trial.number} failed")
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            logger.warning(f"trial {trial.number} failed: {reason}")
            trial.set_user_attr(REASON, reason)
            state = TrialState.FAIL
    name = f"trial {trial.number}, {state.name.lower()}: {shown_values(values)}"
    search.record(name, values, score)
    # another machine ends a trial that was silent for long: it is not ended twice
    study.tell(trial, score, state=state, skip_if_finished=True)


def _begun(search: ForecasterSearch, study: optuna.Study, path: Path) -> optuna.Trial:
    """Go on with the trial of a stopped command, else ask for one."""
    if path.is_file():
        number = read_json(path, COMMAND)["number"]
        if number >= len(study.get_trials(deepcopy=False)):
            raise OverwriteError(
                f"{path} is of trial {number}, which {search.storage} does not have; name its "
                "database with --storage, or another --output"
            )
        trial = resumed(study, number)
    else:
        trial = asked(study)
        write_json(path, {"number": trial.number})
    # each trial draws from a stream of its own, so that a search that goes on after a stop draws
    # what it would have drawn
    study.sampler = TPESampler(
        n_startup_trials=search.settings.tuning.startup_trials,
        seed=derive_seed(search.request.seed, SAMPLER, trial.number),
        constant_liar=True,
    )
    return trial


def _watch(
    search: ForecasterSearch,
    trial: optuna.Trial,
    settings: ForecasterModelConfig,
    epoch: Epoch,
    module: nn.Module,
    tokenizer: nn.Module | None,
) -> None:
    """Tell Optuna the score of an epoch, and end the trial if others are better.

    An epoch that is shown again after a kill is neither reported nor decided again: Optuna counts
    the times that it was asked.
    """
    step = epoch.number + 1
    decision = f"ended at {step}"
    if decision not in trial.user_attrs:
        known = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        if step not in known:
            score = search.origins.score(search.forecaster(module, tokenizer, settings))
            logger.info(f"trial {trial.number}, epoch {epoch.number}: {score:.4f} %")
            trial.report(score, step)
        is_last = step == settings.epochs
        trial.set_user_attr(decision, not is_last and trial.should_prune())
    if trial.user_attrs[decision]:
        raise optuna.TrialPruned


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """Return the finished trial with the lowest score, the earlier one of two alike.

    Args:
        study: with its trials.

    Returns:
        The trial; None where none has finished.
    """
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return min(
        done,
        key=lambda trial: (math.inf if trial.value is None else trial.value, trial.number),
        default=None,
    )


def _keep_best_training(search: ForecasterSearch, study: optuna.Study) -> None:
    """Remove the trainings of trials that are over, but that of the best one."""
    best, trials = best_trial(study), study.get_trials(deepcopy=False)
    for path in (search.folder / TRIALS).glob(f"*/{TRIAL}"):
        number = read_json(path, COMMAND)["number"]
        is_best = best is not None and number == best.number
        if trials[number].state.is_finished() and not is_best:
            shutil.rmtree(path.parent / TRAINING, ignore_errors=True)


def _choose_sampling(search: ForecasterSearch, study: optuna.Study) -> None:
    """Score the ways to draw paths with the best trial, where this folder has its training."""
    best = best_trial(study)
    if best is None or search.model != KRONOS or f"{SAMPLING} {best.number}" in study.user_attrs:
        return
    places = (search.folder / TRIALS).glob(f"*/{TRIAL}")
    own = [path.parent for path in places if read_json(path, COMMAND)["number"] == best.number]
    if not own:
        logger.info(f"trial {best.number} is the best one: the folder that ran it tries samplings")
        return
    values = values_of(best, search.space)
    request = search.tried(values, own[0] / TRAINING)
    trained, tuning, scores = search.train(request, StopFlag()), search.settings.tuning, []
    for temperature in tuning.temperatures:
        for top_p in tuning.top_ps:
            drawn = {"temperature": temperature, "top_p": top_p}
            sampling = request.of_model.sampling
            assert sampling is not None  # noqa: S101 -- the schema asks for it
            settings = request.of_model.model_copy(
                update={"sampling": sampling.model_copy(update=drawn)}
            )
            scores.append({**drawn, "score": search.score(trained, settings)})
            name = f"trial {best.number}, {shown_values(drawn)}"
            search.record(name, {**values, **drawn}, scores[-1]["score"])
    study.set_user_attr(f"{SAMPLING} {best.number}", scores)


def sampling_of(study: optuna.Study, number: int) -> list[dict[str, float]]:
    """Return what ways of drawing paths have scored with a trial.

    Args:
        study: with its trials.
        number: of the trial.

    Returns:
        Temperature, top_p and score of each way, the best one first; none where none was tried.
    """
    found = study.user_attrs.get(f"{SAMPLING} {number}", [])
    return sorted(found, key=lambda one: one["score"])
