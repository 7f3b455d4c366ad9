"""Forecasts in a market: causal, free of units, made once, refused where they know the future."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loguru import logger

from hrl_sarp.agents import MicroAgent, MicroSettings
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import STOCK_EMBEDDINGS, Market
from hrl_sarp.data.bars import Bars
from hrl_sarp.encoders.windows.panel import bar_rows, read_panel_bars
from hrl_sarp.errors import (
    CheckpointError,
    ConfigError,
    MarketError,
    MissingArtifactError,
)
from hrl_sarp.forecasters.contract import CLOSE, LEVELS, Forecast, Forecaster
from hrl_sarp.forecasters.cost import cost_of
from hrl_sarp.forecasters.evaluation.baselines.walks import EwmaWalk
from hrl_sarp.forecasters.toto.model import Toto, TotoConfig, save_toto
from hrl_sarp.market.cache import assembled_market, bundled_sample
from hrl_sarp.market.sector_table import market_fingerprint
from hrl_sarp.market.tensors import MarketTensors, slot_feature_names
from hrl_sarp.observed import forecast_source, stocks
from hrl_sarp.observed.forecast_source import forecaster_folder, read_observed, write_forecasts
from hrl_sarp.observed.forecasts import (
    HORIZONS,
    STATISTICS,
    ForecastPlan,
    Standard,
    column_names,
    forecast_day,
    origins,
)
from hrl_sarp.observed.stocks import with_stock_embeddings
from tests import tiny_runs
from tests.encoders import panels

CPU = panels.CPU
KINDS = ("ewma", "har", "toto", "kronos")


def observing(kind: str, **changes: Any) -> RunConfig:
    """Return the small configuration with a forecaster."""
    values = {"observe": kind, "paths": 4, **changes}
    changed: RunConfig = tiny_runs.changed(panels.small_config(), {"forecasters": values})
    return changed


@pytest.fixture(scope="module")
def market(data_dir: Path) -> Market:
    return assembled_market(data_dir, panels.small_config())


@pytest.fixture(scope="module")
def bars(data_dir: Path, market: Market) -> Bars:
    return read_panel_bars(data_dir, market, panels.small_config())


@pytest.fixture(scope="module")
def seen(data_dir: Path, market: Market) -> Callable[..., Market]:
    """Return the market as a forecaster shows it."""

    def load(kind: str, **changes: Any) -> Market:
        return with_stock_embeddings(market, data_dir, observing(kind, **changes), CPU)

    return load


@pytest.fixture
def own_copy(data_dir: Path, tmp_path: Path) -> Path:
    """A copy of data and forecasters that a test may spoil."""
    shutil.copytree(data_dir.parent, tmp_path / "copy")
    return tmp_path / "copy" / "raw"


def table_of(found: Market) -> np.ndarray:
    assert found.stock_embeddings is not None
    return found.stock_embeddings


def forecaster_of(kind: str, market: Market, data_dir: Path) -> Forecaster:
    found = read_observed(market, data_dir, observing(kind))
    assert found is not None
    return found.forecaster


def plan_of(bars: Bars, market: Market, forecaster: Forecaster, **changes: Any) -> ForecastPlan:
    return ForecastPlan.of(bars, market, observing("ewma", **changes), forecaster.least_rows)


@pytest.mark.parametrize("kind", ["ewma", "har"])
def test_the_unit_of_a_column_is_that_of_forecasts_made_in_the_training_span(
    kind: str, seen: Callable[..., Market], market: Market, bars: Bars, data_dir: Path
) -> None:
    forecaster = forecaster_of(kind, market, data_dir)
    plan, train = plan_of(bars, market, forecaster), market.split.train
    made = np.flatnonzero(plan.made.any(axis=1))
    by_day = {day: forecast_day(forecaster, plan, int(day))[1].astype(np.float32) for day in made}
    clip = panels.small_config().encoders.panel.clip
    inside = [raw for day, raw in by_day.items() if train.start <= day < train.stop]
    assert len(inside) < len(by_day)
    known = Standard.fit(np.concatenate(inside), clip)
    unit = seen(kind).manifest[STOCK_EMBEDDINGS]["forecasts"]
    np.testing.assert_allclose(unit["mean"], known.mean, rtol=1e-6)
    np.testing.assert_allclose(unit["deviation"], known.deviation, rtol=1e-6)
    # with the days after it they would be others
    later = Standard.fit(np.concatenate(list(by_day.values())), clip)
    assert np.abs(later.mean / known.mean - 1.0).min() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_the_forecast_of_bars_up_to_its_day_alone(
    kind: str, seen: Callable[..., Market], market: Market, bars: Bars, data_dir: Path
) -> None:
    # every step is taken again with the bars cut off at the day of the forecast
    whole = seen(kind)
    table, forecaster = table_of(whole), forecaster_of(kind, market, data_dir)
    unit = whole.manifest[STOCK_EMBEDDINGS]["forecasts"]
    standard = Standard(np.array(unit["mean"]), np.array(unit["deviation"]), unit["clip"])
    plan = plan_of(bars, market, forecaster)
    for day in np.flatnonzero(plan.made.any(axis=1))[::11]:
        known = plan_of(panels.cut_off(bars, market.dates[day]), market, forecaster)
        chosen, shown = forecast_day(forecaster, known, int(day))
        expected = standard(shown.astype(np.float32))
        np.testing.assert_array_equal(table[day, chosen], expected)
        assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("every", ["week", "day"])
def test_later_bars_change_no_bit_of_earlier_forecasts(
    kind: str, every: str, market: Market, bars: Bars, data_dir: Path
) -> None:
    forecaster, t = forecaster_of(kind, market, data_dir), 420
    plans = [
        plan_of(future, market, forecaster, every=every)
        for future in (bars, panels.with_other_prices(bars, market.dates[t]))
    ]
    np.testing.assert_array_equal(plans[0].origin, plans[1].origin)
    for day in [d for d in range(t - 6, t + 1) if plans[0].made[d].any()]:
        first, second = (forecast_day(forecaster, plan, day)[1] for plan in plans)
        np.testing.assert_array_equal(first, second)
    later = t + 1 + int(np.flatnonzero(plans[0].made[t + 1 :].any(axis=1))[0])
    first, second = (forecast_day(forecaster, plan, later)[1] for plan in plans)
    assert (first != second).any()


@pytest.mark.parametrize("kind", ["ewma", "har", "toto"])
def test_the_unit_of_prices_changes_nothing(
    kind: str, market: Market, bars: Bars, data_dir: Path
) -> None:
    forecaster = forecaster_of(kind, market, data_dir)
    factor = np.array([2.0, 0.25, 64.0])[bars.instrument % 3]
    prices = {name: getattr(bars, name) * factor for name in ("open", "high", "low", "close")}
    plans = [plan_of(each, market, forecaster) for each in (bars, replace(bars, **prices))]
    for day in np.flatnonzero(plans[0].made.any(axis=1))[::20]:
        first, second = (forecast_day(forecaster, plan, int(day))[1] for plan in plans)
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)


def test_a_forecast_holds_until_the_last_close_of_the_next_week(
    seen: Callable[..., Market], market: Market
) -> None:
    table = table_of(seen("har"))
    stays = market.eligible[1:] & market.eligible[:-1] & (np.abs(table[:-1]) > 0).all(axis=2)
    same = (table[1:] == table[:-1]).all(axis=2)
    assert same[stays & ~market.is_week_end[1:, None]].all()
    assert not same[stays & market.is_week_end[1:, None] & market.tradable[1:]].any()


def test_every_day_makes_a_forecast_a_day(seen: Callable[..., Market], market: Market) -> None:
    table = table_of(seen("har", every="day"))
    shown = np.abs(table).sum(axis=2) > 0
    assert not shown[~(market.eligible & market.tradable)].any()
    assert shown[market.split.train.start :].any(axis=1).all()


def test_origins_of_a_hand_made_week() -> None:
    # stock 0 all the time; 1 joins on day 1; 2 has no bar at the week end, and one on day 3
    can = np.array([[1, 0, 1], [1, 1, 1], [1, 1, 0], [1, 1, 1], [0, 1, 1]], dtype=bool)
    eligible = np.array([[1, 0, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 1, 1]], dtype=bool)
    is_due = np.array([True, False, True, False, False])
    expected = [[0, -1, 0], [0, 1, 0], [2, 2, -1], [2, 2, 3], [-1, 2, 3]]
    np.testing.assert_array_equal(origins(can, is_due, eligible), expected)


def test_short_histories_and_stocks_outside_the_universe_show_zeros(
    seen: Callable[..., Market], market: Market, bars: Bars
) -> None:
    table = table_of(seen("har"))
    assert not table[~market.eligible].any()
    plan = ForecastPlan.of(bars, market, observing("har"), least_rows=400)
    row = bar_rows(bars, market)
    first = np.searchsorted(bars.instrument, bars.instrument)
    known = np.where(row >= 0, row + 1 - first[row], 0)
    assert not plan.made[known < 400].any()
    assert (market.eligible & (known > 0) & (known < 400)).any()
    assert plan.made[known >= 400].any()


def test_a_stock_that_never_moved_shows_zeros_and_measures_nothing(
    market: Market, bars: Bars
) -> None:
    stock = bars.instruments.index(market.symbols[int(np.flatnonzero(market.eligible[400])[0])])
    flat = np.where(bars.instrument == stock, 5.0, bars.close)
    plan = plan_of(replace(bars, close=flat), market, EwmaWalk())
    day = next(d for d in range(400, 420) if plan.made[d].any() and market.is_week_end[d])
    chosen, shown = forecast_day(EwmaWalk(), plan, day)
    is_flat = chosen == market.symbols.index(bars.instruments[stock])
    assert np.isnan(shown[is_flat]).all()
    assert np.isfinite(shown[~is_flat]).all()
    standard = Standard.fit(shown, clip=5.0)
    assert np.isfinite([standard.mean, standard.deviation]).all()
    assert not standard(shown)[is_flat].any()


@pytest.mark.parametrize("kind", KINDS)
def test_columns_have_one_scale_over_the_training_span(
    kind: str, seen: Callable[..., Market], market: Market
) -> None:
    span = slice(market.split.train.start, market.split.train.stop)
    table = table_of(seen(kind))[span]
    known = table[np.abs(table).sum(axis=2) > 0]
    assert known.shape[1] == len(column_names(kind))  # type: ignore[arg-type]
    np.testing.assert_allclose(known.mean(axis=0), 0.0, atol=0.3)
    np.testing.assert_allclose(known.std(axis=0), 1.0, atol=0.3)


class Known:
    """A forecaster whose quantiles of log returns are known."""

    name, context_rows, least_rows = "known", 50, 20

    def forecast(self, histories: Any, levels: Any, seed: int) -> Forecast:
        assert tuple(levels) == LEVELS
        steps = np.arange(1, len(histories[0].future) + 1)
        logs = 0.01 * steps[:, None] + 0.1 * (np.array(levels) - 0.5)
        last = np.array([history.target[-1] for history in histories])
        return Forecast(
            LEVELS, last[:, None, None] * np.exp(logs), np.ones((len(last), len(steps)))
        )


def test_columns_are_quantiles_of_log_returns_and_the_chance_to_rise(
    market: Market, bars: Bars
) -> None:
    plan = plan_of(bars, market, Known())
    day = int(np.flatnonzero(plan.made.any(axis=1))[30])
    _, shown = forecast_day(Known(), plan, day)
    by_horizon = shown.reshape(len(shown), len(HORIZONS), len(STATISTICS))
    for place, h in enumerate(HORIZONS):
        middle = 0.01 * h
        # a fall has probability 0.5 - middle / 0.1, as far as the nine levels reach
        rise = 1 - np.clip(0.5 - middle / 0.1, 0.1, 0.9)
        expected = [middle, middle - 0.04, middle, middle + 0.04, 0.08, rise]
        np.testing.assert_allclose(by_horizon[:, place], [expected] * len(shown), atol=1e-9)


def test_a_killed_table_is_continued_to_the_same_bytes(
    market: Market, bars: Bars, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read_observed(market, data_dir, observing("toto"))
    assert found is not None
    plan = plan_of(bars, market, found.forecaster)
    expected = write_forecasts(found, plan, tmp_path / "whole.npy")
    real, counted = forecast_day, list[int]()

    def counting(forecaster: Forecaster, given: ForecastPlan, day: int) -> Any:
        counted.append(day)
        if len(counted) == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(forecaster, given, day)

    monkeypatch.setattr(forecast_source, "forecast_day", counting)
    path = tmp_path / "table.npy"
    child = os.fork()
    if child == 0:  # pragma: no cover -- killed
        signal.alarm(60)
        write_forecasts(found, plan, path)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    counted += [0] * 20
    assert write_forecasts(found, plan, path) == expected
    assert path.read_bytes() == (tmp_path / "whole.npy").read_bytes()
    n_days = int(plan.made.any(axis=1).sum())
    # one day is timed for the cost, and 18 days were there
    assert len(counted) - 20 == 1 + n_days - 18


def test_the_cost_is_told_before_the_first_forecast(
    market: Market, bars: Bars, data_dir: Path, tmp_path: Path
) -> None:
    found = read_observed(market, data_dir, observing("toto"))
    assert found is not None
    lines = list[str]()
    sink = logger.add(lambda line: lines.append(str(line)), format="{message}")
    plan = plan_of(bars, market, found.forecaster)
    write_forecasts(found, plan, tmp_path / "table.npy")
    logger.remove(sink)
    cost = cost_of(found.forecaster, 21)
    # 4 patches of context, and 5 more of each of 4 paths
    assert cost.tokens == 4 + 4 * 5
    assert f"{plan.made.sum():,} on" in lines[0]
    assert f"2 x {cost.parameters:,} parameters x 24 tokens" in lines[0]


def test_a_table_is_made_once(seen: Callable[..., Market], monkeypatch: pytest.MonkeyPatch) -> None:
    first = seen("toto")

    def refuse(*_: object) -> None:
        raise AssertionError("the table is on disk")

    monkeypatch.setattr(stocks, "read_panel_bars", refuse)
    np.testing.assert_array_equal(table_of(seen("toto")), table_of(first))


def test_embeddings_stand_before_forecasts_and_all_columns_have_names(
    own_copy: Path, market: Market
) -> None:
    panels.pretrain_small("jade", own_copy, panels.small_config())
    config = observing("har")
    both = tiny_runs.changed(config, {"encoders": {"observe": "jade"}})
    whole = with_stock_embeddings(market, own_copy, both, CPU)
    alone = with_stock_embeddings(market, own_copy, config, CPU)
    assert table_of(whole).shape[2] == 4 + 3
    np.testing.assert_array_equal(table_of(whole)[:, :, 4:], table_of(alone))
    names = slot_feature_names(whole)[len(whole.feature_names) :]
    assert names[:4] == tuple(f"embedding {i}" for i in range(4))
    assert names[4:] == column_names("har")


def test_tables_tell_markets_apart_and_agents_are_refused_on_another(
    seen: Callable[..., Market], tmp_path: Path
) -> None:
    # toto and kronos have equally many columns: only the hash tells them apart
    found = [seen("toto"), seen("toto", every="day"), seen("toto", paths=5), seen("kronos")]
    assert len({market_fingerprint(each) for each in found}) == len(found)
    config = panels.small_config()
    settings = [
        MicroSettings(MarketTensors(tiny_runs.with_nodes(each), torch.float32, "cpu"), config)
        for each in (found[0], found[-1])
    ]
    path = MicroAgent(settings[0], 0).save(tmp_path / "micro.pt")
    MicroAgent.load(path, settings[0])
    with pytest.raises(CheckpointError, match="trained for another market: expected stock_embed"):
        MicroAgent.load(path, settings[1])


def test_a_missing_forecaster_names_the_command(own_copy: Path, market: Market) -> None:
    shutil.rmtree(forecaster_folder(own_copy, "us", "toto"))
    command = f"train-forecaster --model toto --panel --data-dir {own_copy} --market us --output"
    with pytest.raises(MissingArtifactError, match=command):
        with_stock_embeddings(market, own_copy, observing("toto"), CPU)


def test_a_forecaster_that_has_seen_the_future_of_the_fold_is_refused(
    own_copy: Path, market: Market
) -> None:
    path = forecaster_folder(own_copy, "us", "toto") / "forecaster.json"
    described = json.loads(path.read_text())
    later = str(market.dates[market.split.train.stop])
    described.pop("checksum", None)
    path.write_text(json.dumps({**described, "fitted_to": f"{later}T00:00:00"}))
    end = market.dates[market.split.train.stop - 1]
    with pytest.raises(CheckpointError, match=f"trained on bars to {later}, past .* end {end}"):
        read_observed(market, own_copy, observing("toto"))


def test_the_forecaster_of_another_model_is_refused(data_dir: Path, market: Market) -> None:
    folder = str(forecaster_folder(data_dir, "us", "kronos"))
    with pytest.raises(CheckpointError, match=r"expected a forecaster of .* toto.*found kronos"):
        read_observed(market, data_dir, observing("toto", weights=folder))


def test_a_run_is_not_told_what_it_has_seen(data_dir: Path, market: Market) -> None:
    with pytest.raises(ConfigError, match="pretrained_until belongs to published weights"):
        read_observed(market, data_dir, observing("toto", pretrained_until=date(2004, 1, 1)))


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (None, "data to 2025-05-31, by their release, nobody says more; training ends"),
        (date(2004, 12, 31), "data to 2004-12-31, as pretrained_until says"),
    ],
)
def test_published_weights_are_shown_with_what_they_may_have_seen(
    told: date | None, line: str, data_dir: Path, market: Market, tmp_path: Path
) -> None:
    sizes = {"patch_size": 4, "embed_dim": 8, "num_heads": 2, "mlp_hidden_dim": 8, "num_layers": 2}
    config = TotoConfig.base().model_copy(update=sizes)
    save_toto(tmp_path / "weights", Toto(config))
    lines = list[str]()
    sink = logger.add(lambda text: lines.append(str(text)), format="{level} {message}")
    changes = {"weights": str(tmp_path / "weights"), "pretrained_until": told}
    found = read_observed(market, data_dir, observing("toto", **changes))
    logger.remove(sink)
    assert found is not None
    assert line in lines[0]
    assert lines[0].startswith("INFO" if told else "WARNING")
    assert found.fitted_to == str(told or "2025-05-31")


def test_a_market_without_a_folder_observes_no_forecasts() -> None:
    config = tiny_runs.changed(observing("ewma"), {"market": "sample"})
    with pytest.raises(MarketError, match=r"forecasters.observe is 'ewma'"):
        bundled_sample(config)


def test_a_market_that_was_not_loaded_is_refused(data_dir: Path, market: Market) -> None:
    with pytest.raises(MarketError, match="load_market"):
        with_stock_embeddings(replace(market, manifest={}), data_dir, observing("ewma"), CPU)


@pytest.mark.parametrize(
    ("changes", "cure"),
    [
        ({"observe": "toto2"}, "toto2 needs weights"),
        ({"observe": "toto", "tokenizer": "x"}, "tokenizer belongs to weights"),
        ({"observe": "chronos"}, "observe"),
        ({"paths": 1}, "paths"),
    ],
)
def test_values_that_do_not_go_together_are_refused(changes: dict[str, Any], cure: str) -> None:
    from hrl_sarp.config.loading import load_config

    with pytest.raises(ConfigError, match=f"forecasters.*{cure}"):
        load_config(overrides={"forecasters": changes})


def test_every_close_is_the_last_value_of_its_history(market: Market, bars: Bars) -> None:
    plan = plan_of(bars, market, EwmaWalk())
    day = int(np.flatnonzero(plan.made.any(axis=1))[40])
    chosen = np.flatnonzero(plan.made[day])
    for stock, history in zip(chosen, plan.histories(day, chosen, 30), strict=True):
        assert history.symbol == market.symbols[stock]
        assert history.origin.astype("datetime64[D]") == market.dates[day]
        assert history.bars is not None
        np.testing.assert_array_equal(history.bars[:, CLOSE], history.target)
        assert len(history.target) <= 30
        assert history.future[0] > history.origin
        assert len(history.future) == HORIZONS[-1]
