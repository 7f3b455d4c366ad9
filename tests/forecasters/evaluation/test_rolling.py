"""All forecasters forecast from the same origins, from the rows before them alone; runs resume."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hrl_sarp.errors import CheckpointError, ForecastError
from hrl_sarp.forecasters.contract import Forecast, Forecaster, History
from hrl_sarp.forecasters.evaluation.baselines.points import (
    Drift,
    LastValue,
    SeasonalNaive,
    point_forecast,
)
from hrl_sarp.forecasters.evaluation.baselines.walks import EwmaWalk, GarchWalk, HarWalk
from hrl_sarp.forecasters.evaluation.plan import RollingPlan, find_origins
from hrl_sarp.forecasters.evaluation.rolling import PARTS, Roller, known_levels
from hrl_sarp.forecasters.evaluation.summary import summarise
from hrl_sarp.forecasters.series import Series
from hrl_sarp.forecasters.toto.forecaster import Toto2Forecaster
from hrl_sarp.forecasters.toto.second import Toto2, Toto2Config
from tests.forecasters.evaluation.planted import START, days, series, walks

PLAN = RollingPlan(3, days(200)[START], block_origins=4, batch_size=5)
SIMPLE = (LastValue(), Drift(), SeasonalNaive(5), EwmaWalk())


def named(models: Sequence[Forecaster]) -> dict[str, Forecaster]:
    return {each.name: each for each in models}


def rolled(folder: Path, made: Sequence[Series], plan: RollingPlan = PLAN) -> pl.DataFrame:
    return Roller(made, plan, folder).roll(named(SIMPLE), {each.name: "x" for each in SIMPLE})


def test_every_model_has_the_same_rows(tmp_path: Path) -> None:
    table = rolled(tmp_path, walks(0, n_rows=100))
    keys = ["kind", "symbol", "origin", "step", "time", "last", "scale", "y"]
    first, *others = (table.filter(pl.col("model") == each.name).select(keys) for each in SIMPLE)
    assert len(first) == 13 * 3 * 3  # origins at rows 60, 63, .. 96, three series, three steps
    for other in others:
        assert_frame_equal(first, other)


def test_rows_hold_what_came_at_its_real_time(tmp_path: Path) -> None:
    target = np.arange(100.0) ** 2 + 1.0
    times = days(200)[np.arange(200) % 4 != 2][:100]
    table = rolled(tmp_path, [Series("A", times, target, None)], replace(PLAN, start=times[START]))
    for origin, step, at, last, came, scale in table.select(
        "origin", "step", "time", "last", "y", "scale"
    ).rows():
        row = int(np.searchsorted(times, np.datetime64(origin)))
        assert (at, came) == (times[row + step].astype("datetime64[us]").item(), target[row + step])
        assert last == target[row]
        assert scale == pytest.approx(np.diff(target[: row + 1]).mean())


def test_series_take_part_where_they_have_rows_and_no_hole() -> None:
    whole, late = walks(0, 2, 100)
    late = Series("L", late.timestamps[40:], late.target[40:], None)
    kept = np.r_[0:70, 90:100]  # 20 days are missing
    holed = Series("H", whole.timestamps[kept], whole.target[kept], None)
    origins = find_origins([whole, late, holed], PLAN, least_rows=30)
    found = {
        symbol: [int((each.time - days(1)[0]).astype(int)) for each in origins
                 if any(i == place for i, _ in each.rows)]
        for place, symbol in enumerate("WLH")
    }  # fmt: skip
    assert found["W"] == list(range(60, 97, 3))
    assert found["L"] == list(range(69, 97, 3))  # 30 rows: 40 to 69
    assert found["H"] == [60, 63, 66]  # 69 has no 3 rows before the hole, 90 no 30 rows behind it
    roller = Roller([whole, late, holed], PLAN, Path("nowhere"))
    roller.origins = origins
    assert roller.left_out() == {"L": 3, "H": 10}


def test_nothing_after_the_end_is_forecast() -> None:
    made = walks(0, 1, 100)
    origins = find_origins(made, replace(PLAN, end=days(200)[70]), least_rows=1)
    assert [each.rows[0][1] for each in origins] == [60, 63, 66]  # 69 would reach row 72


def test_kinds_have_clocks_of_their_own() -> None:
    sessions = days(200)[np.is_busday(days(200))]
    made = [*walks(0, 1, 100), Series("S", sessions[:100], np.linspace(1.0, 2.0, 100), None)]
    origins = find_origins(made, PLAN, least_rows=1)
    assert {each.kind for each in origins} == {one.kind for one in made}
    assert all(len(each.rows) == 1 for each in origins)


@pytest.mark.parametrize("cut", [70, 81, 90])
def test_rows_after_an_origin_do_not_change_its_forecast(tmp_path: Path, cut: int) -> None:
    models = [*SIMPLE, HarWalk(least_rows=40), GarchWalk(least_rows=40, n_paths=20)]
    names = {each.name: "x" for each in models}
    made = walks(1, 2, 100)
    shuffled = [
        replace(one, target=np.r_[one.target[:cut], one.target[cut:][::-1]]) for one in made
    ]
    shorter = [Series(one.symbol, one.timestamps[:cut], one.target[:cut], None) for one in made]
    whole = Roller(made, PLAN, tmp_path / "whole").roll(named(models), names)
    drop = ["y", "crps_paths", "pit", "time"]
    for name, changed in {"shuffled": shuffled, "shorter": shorter}.items():
        found = Roller(changed, PLAN, tmp_path / name).roll(named(models), names)
        early = pl.col("origin") + pl.duration(days=PLAN.horizon) < days(200)[cut].item()
        assert_frame_equal(
            found.filter(early).drop(drop), whole.filter(early).drop(drop), check_exact=True
        )
        assert len(found.filter(early))


def test_a_permuted_future_leaves_the_forecast_of_its_origin(tmp_path: Path) -> None:
    one = walks(2, 1, 64)[0]  # a single origin, at row 60
    other = replace(one, target=np.r_[one.target[:61], one.target[:60:-1]])
    found = [
        rolled(tmp_path / str(i), [each]).drop("y", "pit") for i, each in enumerate([one, other])
    ]
    assert_frame_equal(*found, check_exact=True)
    assert len(found[0]) == 3 * len(SIMPLE)


@dataclass(frozen=True)
class Narrow(LastValue):
    """Refuses outer levels."""

    level_range: tuple[float, float] = (0.1, 0.9)

    def forecast(
        self, histories: Sequence[History], levels: Sequence[float], seed: int
    ) -> Forecast:
        if levels[0] < 0.1 or levels[-1] > 0.9:
            raise ForecastError("expected levels from 0.1 to 0.9")
        last = np.array([each.target[-1] for each in histories])
        made = point_forecast(np.repeat(last[:, None], 3, axis=1), levels)
        return replace(made, quantiles=made.quantiles + np.array(levels))


def test_levels_that_a_forecaster_does_not_know_are_not_asked_and_nan(tmp_path: Path) -> None:
    models = {"narrow": Narrow(), "last value": LastValue()}
    table = Roller(walks(0, 1, 100), PLAN, tmp_path).roll(models, dict.fromkeys(models, "x"))
    narrow = table.filter(pl.col("model") == "narrow")
    assert narrow["0.05"].is_nan().all()
    assert narrow["0.95"].is_nan().all()
    np.testing.assert_allclose(narrow["0.25"] - narrow["last"], 0.25)
    assert table.filter(pl.col("model") == "last value")["0.05"].is_finite().all()
    (own,) = (each for each in summarise(table, PLAN, []).groups if each.model == "narrow")
    assert np.isnan(own.median("coverage_90"))
    assert np.isfinite(own.median("coverage_80"))
    assert len(own.pit) == 10


def test_toto_2_is_asked_for_the_levels_of_its_network(tmp_path: Path) -> None:
    small = {"patch_size": 4, "d_model": 8, "d_ff": 8, "qk_dim": 4, "v_dim": 4}
    config = Toto2Config.smallest().model_copy(update=small)
    toto = Toto2Forecaster(Toto2(config), context_patches=4)
    assert known_levels(toto, PLAN) == PLAN.levels[1:-1]
    table = Roller(walks(0, 1, 70), PLAN, tmp_path).roll({"toto2": toto}, {"toto2": "x"})
    assert table["0.25"].is_finite().all()


@dataclass
class Fragile:
    """Stops a run at a forecast, as a kill would."""

    stops_at: int
    seen: list[str] = field(default_factory=list)
    name: str = "fragile"
    context_rows: int = 5
    least_rows: int = 1

    def forecast(
        self, histories: Sequence[History], levels: Sequence[float], seed: int
    ) -> Forecast:
        self.seen += [f"{each.symbol} {each.origin}" for each in histories]
        if len(self.seen) > self.stops_at:
            raise KeyboardInterrupt
        last = np.array([each.target[-1] for each in histories])[:, None]
        noise = np.random.default_rng(seed).normal(size=(len(histories), len(histories[0].future)))
        return point_forecast(last + noise, levels)


@pytest.mark.parametrize("stops_at", [3, 20, 38])
def test_a_killed_run_goes_on_and_ends_as_an_unbroken_one(tmp_path: Path, stops_at: int) -> None:
    made, names = walks(3, 3, 100), {"fragile": "x", "last value": "x"}
    unbroken = Roller(made, PLAN, tmp_path / "whole").roll(
        named([LastValue(), Fragile(999)]), names
    )
    killed = Fragile(stops_at)
    with pytest.raises(KeyboardInterrupt):
        Roller(made, PLAN, tmp_path / "part").roll(named([LastValue(), killed]), names)
    again = Fragile(999)
    found = Roller(made, PLAN, tmp_path / "part").roll(named([LastValue(), again]), names)
    assert_frame_equal(found, unbroken, check_exact=True)
    # 13 origins of 3 series in blocks of 4 origins: finished blocks are not made again
    assert len(again.seen) == 39 - 12 * (stops_at // 12)


def test_forecasts_of_another_run_are_refused_by_name(tmp_path: Path) -> None:
    made = walks(0, 2, 90)
    first = rolled(tmp_path, made)
    assert_frame_equal(rolled(tmp_path, made), first, check_exact=True)
    with pytest.raises(CheckpointError, match="horizon 3 there, 4 here"):
        rolled(tmp_path, made, replace(PLAN, horizon=4))
    with pytest.raises(CheckpointError, match="another data"):
        rolled(tmp_path, walks(1, 2, 90))
    names = {each.name: "x" for each in SIMPLE} | {"drift": "y"}
    with pytest.raises(CheckpointError, match="another weights: x there, y here"):
        Roller(made, PLAN, tmp_path).roll(named(SIMPLE), names)
    assert len(list((tmp_path / PARTS).iterdir())) == len(SIMPLE) + 1


@dataclass(frozen=True)
class Broken:
    """Forecasts nonsense."""

    how: str
    name: str = "broken"
    context_rows: int = 5
    least_rows: int = 1

    def forecast(
        self, histories: Sequence[History], levels: Sequence[float], seed: int
    ) -> Forecast:
        made = point_forecast(np.ones((len(histories), len(histories[0].future))), levels)
        if self.how == "nan":
            made.quantiles[-1, 0, 0] = np.nan
        if self.how == "falling":
            made.quantiles[-1, 0, 0] = 2.0
        return replace(made, levels=tuple(levels)[:-1]) if self.how == "levels" else made


@pytest.mark.parametrize(
    ("how", "message"),
    [("nan", "W1 from 2020-03-01"), ("falling", "W1 from 2020-03-01"), ("levels", "of the plan")],
)
def test_nonsense_is_refused_by_model_series_and_origin(
    tmp_path: Path, how: str, message: str
) -> None:
    roller = Roller(walks(0, 2, 64), PLAN, tmp_path)
    with pytest.raises(ForecastError, match=f"broken: expected .*{message}"):
        roller.roll({"broken": Broken(how)}, {"broken": "x"})
    assert list((tmp_path / PARTS / "broken").glob("*.parquet")) == []


def test_what_cannot_be_run_is_refused(tmp_path: Path) -> None:
    made = walks(0, 2, 90)
    with pytest.raises(ForecastError, match="different symbols"):
        rolled(tmp_path, [made[0], made[0]])
    with pytest.raises(ForecastError, match="no origin from 2020-03-01 on has 61 rows"):
        find_origins([series("A", made[0].target[:63])], PLAN, 61)
    roller = Roller(made, PLAN, tmp_path)
    with pytest.raises(ForecastError, match="names differ"):
        roller.roll({"last value": LastValue(), "Last, value": LastValue()}, {})
    for wrong in ({"horizon": 0}, {"every_rows": 0}, {"season": 0}, {"batch_size": 0}):
        with pytest.raises(ForecastError, match="from 1"):
            replace(PLAN, **wrong)
    for levels in ((0.1, 0.5, 0.9), tuple(PLAN.levels[::-1])):
        with pytest.raises(ForecastError, match="ascending levels"):
            replace(PLAN, levels=levels)
