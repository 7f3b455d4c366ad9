"""The last step of a training measures symbols of all the list, not those that stand first."""

import json
from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.forecasters.api import LoadedForecaster
from hrl_sarp.forecasters.evaluation.baselines.points import Drift
from hrl_sarp.forecasters.evaluation.plan import Vintage
from hrl_sarp.forecasters.final_metrics import SYMBOLS, measure_run
from hrl_sarp.forecasters.training.windows import Split
from tests.forecasters.training.test_run import bars_series


@pytest.mark.parametrize("n_symbols", [3, SYMBOLS, SYMBOLS + 1, 3 * SYMBOLS])
def test_symbols_are_spread_over_the_whole_list(n_symbols: int, tmp_path: Path) -> None:
    names = [f"S{number:03d}" for number in range(n_symbols)]
    series = [bars_series(name, number, 60) for number, name in enumerate(names)]
    days = series[0].timestamps
    split = Split(days[30], days[45], frozenset({names[1]}))
    loaded = LoadedForecaster(Drift(), Vintage("drift", days[45], "test"), frozenset({names[1]}))
    measure_run(loaded, series, split, 2, tmp_path)
    measured = json.loads((tmp_path / "metrics" / "evaluation.json").read_text())["per_symbol"]
    seen = sorted(set(measured) - {names[1]})
    places = [names.index(name) for name in seen]
    assert len(seen) == min(n_symbols - 1, SYMBOLS)
    assert places[0] == 0
    assert places[-1] == n_symbols - 1
    assert np.diff(places).max() - np.diff(places).min() <= 2
