"""What a trained forecaster is worth on spans that did not train it: the last step of a run."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hrl_sarp.forecasters.api import LoadedForecaster
from hrl_sarp.forecasters.contract import Forecaster
from hrl_sarp.forecasters.evaluation.baselines.points import LastValue
from hrl_sarp.forecasters.evaluation.baselines.walks import EwmaWalk
from hrl_sarp.forecasters.evaluation.plan import RollingPlan
from hrl_sarp.forecasters.evaluation.run import evaluate
from hrl_sarp.forecasters.evaluation.summary import Evaluation
from hrl_sarp.forecasters.series import Series
from hrl_sarp.forecasters.training.windows import Split
from hrl_sarp.reporting.table import NONE, Table
from hrl_sarp.run.files import write_json

METRICS, FINAL = "metrics", "final_metrics.json"
MEASURES = (
    *("mae", "pct_mae", "naive_ratio", "mase", "crps", "qlike", "coverage_80", "direction"),
    "base_rate",
)
SYMBOLS, ORIGINS = 20, 40
"""Symbols, spread over all, and origins of each span, at most. `evaluate-forecaster` takes all."""


@dataclass(frozen=True)
class FinalMetrics:
    """Medians over symbols on each span, and the evaluation of the test."""

    spans: dict[str, dict[str, Any]]
    """`val`, `test` and, where symbols were left out, `unseen` -> measure -> median."""
    test: Evaluation

    def table(self) -> Table:
        """Lay the medians out.

        Returns:
            A row for each measure, a column for each span.
        """
        found = self.spans.values()
        rows = [("symbols", *(str(span["symbols"]) for span in found))]
        for name in MEASURES:
            values = [span[name] for span in found]
            rows.append((name, *(NONE if value is None else f"{value:.4g}" for value in values)))
        return Table("medians over symbols", ("measure", *self.spans), rows)


def measure_run(
    loaded: LoadedForecaster,
    series: list[Series],
    split: Split,
    horizon: int,
    folder: Path,
) -> FinalMetrics:
    """Forecast validation and test from rolling origins, and write what came of it.

    It writes `final_metrics.json`, and below `metrics/` the evaluation of the test, with a page;
    what an earlier training has left there is replaced.
    The epoch was chosen on validation, so its measures flatter the model.

    Args:
        loaded: the trained forecaster.
        series: of the training, the holdout among them.
        split: of the training.
        horizon: steps to forecast.
        folder: of the run.

    Returns:
        The measures.
    """
    seen = _spread([one for one in series if one.symbol not in split.holdout])
    unseen = [one for one in series if one.symbol in loaded.holdout]
    at = folder / METRICS
    validation = _evaluated(
        loaded, seen, horizon, (split.train_stop, split.validation_stop), at / "validation"
    )
    test = _evaluated(loaded, [*seen, *unseen], horizon, (split.validation_stop, None), at)
    name = loaded.vintage.model
    spans = {
        "val": _medians(validation, name, {one.symbol for one in seen}),
        "test": _medians(test, name, {one.symbol for one in seen}),
    }
    if unseen:
        spans["unseen"] = _medians(test, name, {one.symbol for one in unseen})
    write_json(folder / FINAL, spans)
    return FinalMetrics(spans, test)


def _spread(series: list[Series]) -> list[Series]:
    """Keep few series, at equal distances: the first names of a list are often of one kind."""
    places = np.linspace(0, len(series) - 1, min(len(series), SYMBOLS))
    return [series[place] for place in places.round().astype(int)]


def _evaluated(
    loaded: LoadedForecaster,
    series: list[Series],
    horizon: int,
    span: tuple[np.datetime64, np.datetime64 | None],
    folder: Path,
) -> Evaluation:
    """Evaluate on a span, from few origins, beside the last value and a density of its own."""
    first, last = span[0], span[1] or max(one.timestamps[-1] for one in series)
    rows = max(int(np.diff(np.searchsorted(one.timestamps, [first, last]))[0]) for one in series)
    every = max(horizon, -(-rows // ORIGINS))
    plan = RollingPlan(horizon, *span, every)
    # validation chose the epoch: the table is stamped, and the run shows it all the same
    vintage = replace(loaded.vintage, is_allowed=True)
    beside: list[Forecaster] = [LastValue(), EwmaWalk()]
    models = [(loaded.forecaster, vintage)]
    return evaluate(models, series, plan, folder, baselines=beside, overwrite=True)


def _medians(found: Evaluation, model: str, symbols: set[str]) -> dict[str, Any]:
    """Take medians over symbols; a measure that no symbol has is None."""
    own = [
        measures
        for group in found.groups
        if group.model == model
        for symbol, measures in group.symbols.items()
        if symbol in symbols
    ]
    medians: dict[str, Any] = {"symbols": len(own)}
    for name in MEASURES:
        values = [measures[name] for measures in own if np.isfinite(measures[name])]
        medians[name] = float(np.median(values)) if values else None
    return medians
