"""Evaluates forecasters on series: forecasts, measures and a page in a folder."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from loguru import logger

from hrl_sarp.errors import CheckpointError, ForecastError
from hrl_sarp.forecasters.contract import Forecaster
from hrl_sarp.forecasters.evaluation.baselines.points import LastValue
from hrl_sarp.forecasters.evaluation.plan import RollingPlan, Vintage, moment
from hrl_sarp.forecasters.evaluation.report import page
from hrl_sarp.forecasters.evaluation.rolling import PARTS, Roller
from hrl_sarp.forecasters.evaluation.summary import Evaluation, summarise
from hrl_sarp.forecasters.series import Series
from hrl_sarp.run.files import remove_unfinished, write_json, write_table, write_text

FORECASTS, RESULT, PAGE = "forecasts.parquet", "evaluation.json", "report.html"


def evaluate(
    models: Sequence[tuple[Forecaster, Vintage]],
    series: Sequence[Series],
    plan: RollingPlan,
    folder: Path,
    *,
    baselines: Sequence[Forecaster],
    overwrite: bool = False,
) -> Evaluation:
    """Forecast from rolling origins with all forecasters, and measure what came of it.

    It writes `forecasts.parquet`, `evaluation.json` and `report.html`. A run that was killed goes
    on behind its last block of origins, if everything is as it was.

    Args:
        models: what is tested, each with its name in tables and what it has seen; there may be
            none.
        series: what is forecast, with different symbols.
        plan: origins and steps.
        folder: of the run; made if needed.
        baselines: what models are shown beside, of `usual_baselines`; the last value is added if it
            is not among them. They are told apart by their settings.
        overwrite: begins anew instead of going on.

    Returns:
        Measures, tests and a sentence for each model and kind of series.

    Raises:
        CheckpointError: if a model has seen the window and that is not allowed, or if the folder
            holds forecasts of another run.
        ForecastError: if names of forecasters are not different, no origin can be forecast, or a
            forecast is not finite.
    """
    vintages = [vintage for _, vintage in models]
    names = [vintage.model for vintage in vintages]
    beside = {each.name: each for each in (LastValue(), *baselines)}
    if len({*names, *beside}) < len(names) + len(beside):
        raise ForecastError(f"expected names unlike those of other forecasters, found {names}")
    for vintage in vintages:
        _require_unseen(vintage, plan.start)
    remove_unfinished(folder)
    if overwrite:
        shutil.rmtree(folder / PARTS, ignore_errors=True)
        for name in (FORECASTS, RESULT, PAGE):
            (folder / name).unlink(missing_ok=True)
    identities = {vintage.model: vintage.identity for vintage in vintages}
    identities |= {name: repr(baseline) for name, baseline in beside.items()}
    forecasters = {vintage.model: model for model, vintage in models} | beside
    table = Roller(series, plan, folder).roll(forecasters, identities)
    write_table(folder / FORECASTS, table)
    found = summarise(table, plan, vintages)
    write_json(folder / RESULT, found.plain())
    write_text(folder / PAGE, page.html(found, table, plan, names))
    for sentence in found.sentences or page.best_baselines(found):
        logger.info(sentence)
    return found


def _require_unseen(vintage: Vintage, start: np.datetime64) -> None:
    """Refuse a test on rows that a model was fitted on."""
    if vintage.has_seen(start) and not vintage.is_allowed:
        raise CheckpointError(
            f"{vintage.model} was {vintage.stamp}, and the window begins on {moment(start)}: it "
            "may know what it should forecast; begin after that day, or test it all the same with "
            "--allow-contaminated, which stamps every table",
            has_seen_future=True,
        )
