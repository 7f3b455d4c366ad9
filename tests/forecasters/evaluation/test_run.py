"""An evaluation says what forecasters are worth, in the file, on the page and in its sentences."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hrl_sarp.errors import CheckpointError, ForecastError
from hrl_sarp.forecasters.contract import Forecast, History
from hrl_sarp.forecasters.evaluation import Evaluation, RollingPlan, Vintage, evaluate
from hrl_sarp.forecasters.evaluation.baselines.points import Drift, LastValue
from hrl_sarp.forecasters.evaluation.baselines.walks import EwmaWalk, GarchWalk
from hrl_sarp.forecasters.evaluation.report import page
from hrl_sarp.forecasters.evaluation.report.figures import step_chart
from hrl_sarp.forecasters.evaluation.rolling import PARTS, Roller
from hrl_sarp.forecasters.evaluation.run import FORECASTS, PAGE, RESULT
from hrl_sarp.forecasters.evaluation.summary import Group, summarise
from hrl_sarp.run.files import read_json
from tests.forecasters.evaluation.planted import (
    START,
    Noisy,
    Oracle,
    TrueWalk,
    days,
    reverting,
    unfitted,
    walks,
)

PLAN = RollingPlan(2, days(200)[START])


def group(found: Evaluation, model: str) -> Group:
    (only,) = (each for each in found.groups if each.model == model)
    return only


@pytest.mark.parametrize("seed", range(3))
def test_a_forecaster_that_knows_the_process_beats_the_last_value(
    tmp_path: Path, seed: int
) -> None:
    oracle = unfitted(Oracle())
    found = evaluate([oracle], reverting(seed), PLAN, tmp_path, baselines=[Drift()])
    test = group(found, "oracle").errors
    assert test.statistic < -3
    assert test.verdict == "significantly better"
    assert group(found, "oracle").median("naive_ratio") < 0.95
    (told,) = found.sentences
    assert told.startswith("oracle beats repeating the last value (3 series, ")
    assert "below 0 is for it" in told
    assert all(each.statistic < 0 for each in group(found, "oracle").by_step)


def test_noise_is_called_better_on_random_walks_in_at_most_3_of_20_seeds(tmp_path: Path) -> None:
    better = 0
    for seed in range(20):
        roller = Roller(walks(seed, 2, 120), PLAN, tmp_path / str(seed))
        models = {"noisy": Noisy(0.0005), "last value": LastValue()}
        table = roller.roll(models, dict.fromkeys(models, "x"))
        better += (
            "noisy beats" in summarise(table, PLAN, [Vintage("noisy", None, "x")]).sentences[0]
        )
    assert better <= 3


def test_noise_of_the_size_of_moves_is_called_worse(tmp_path: Path) -> None:
    found = evaluate([unfitted(Noisy(0.02))], walks(0), PLAN, tmp_path, baselines=[])
    assert found.sentences[0].startswith("noisy does not beat repeating the last value (3 series")
    assert "significantly worse" in found.sentences[0]


def test_repeating_the_last_value_is_exactly_naive(tmp_path: Path) -> None:
    found = evaluate([], walks(0), PLAN, tmp_path, baselines=[EwmaWalk()])
    for name in ("last value", "random walk, EWMA variance"):
        own = group(found, name)
        assert own.median("naive_ratio") == pytest.approx(1.0, abs=1e-12)
        assert own.errors.verdict == "not tested: the same losses"
        assert math.isnan(own.median("direction"))
        assert own.ranks.n_dates == 0
    assert found.sentences == ()


def test_coverage_and_levels_of_a_true_density_are_right(tmp_path: Path) -> None:
    plan = RollingPlan(1, days(200)[START])
    made = walks(4, 8, 260)
    models = [unfitted(TrueWalk()), unfitted(TrueWalk(0.005, "too sure"))]
    found = evaluate(models, made, plan, tmp_path, baselines=[EwmaWalk()])
    n = 8 * 199
    true, sure = group(found, "true walk"), group(found, "too sure")
    for share in (50, 80, 90):
        asked = share / 100
        error = math.sqrt(asked * (1 - asked) / n)
        assert true.mean(f"coverage_{share}") == pytest.approx(asked, abs=4 * error)
        assert sure.mean(f"coverage_{share}") < asked - 4 * error
    bin_error = math.sqrt(0.1 * 0.9 / n)
    assert np.abs(np.array(true.pit) - 0.1).max() < 4 * bin_error
    assert sure.pit[0] > 0.1 + 4 * bin_error
    assert true.mean("qlike") < sure.mean("qlike")
    assert true.mean("crps") < sure.mean("crps")
    assert true.densities is not None
    assert true.densities.statistic < 0  # against a variance that is estimated


@dataclass(frozen=True)
class Sometimes:
    """A density that shrinks to its median whenever the last price ends on an even digit."""

    name: str = "sometimes"
    context_rows: int = 1
    least_rows: int = 1

    def forecast(
        self, histories: Sequence[History], levels: Sequence[float], seed: int
    ) -> Forecast:
        made = TrueWalk().forecast(histories, levels, seed)
        even = np.array([int(1e6 * history.target[-1]) % 2 == 0 for history in histories])
        middle = made.quantiles[..., [list(levels).index(0.5)]]
        return replace(
            made, quantiles=np.where(even[:, None, None], middle, made.quantiles), paths=None
        )


def test_a_density_that_shrinks_to_a_point_misses_there(tmp_path: Path) -> None:
    plan = RollingPlan(1, days(200)[START])
    found = evaluate([unfitted(Sometimes())], walks(4, 8, 260), plan, tmp_path, baselines=[])
    # about half of the rows are points, which no price meets
    assert group(found, "sometimes").mean("coverage_80") == pytest.approx(0.4, abs=0.05)


def test_files_hold_what_was_found(tmp_path: Path) -> None:
    walk, plan = GarchWalk(least_rows=40, n_paths=30), RollingPlan(2, PLAN.start, every_rows=8)
    found = evaluate([unfitted(Oracle())], reverting(0), plan, tmp_path, baselines=[walk])
    table = pl.read_parquet(tmp_path / FORECASTS)
    assert {"model", "symbol", "origin", "step", "y", "mean", "0.1", "0.5", "0.9"} <= {
        *table.columns
    }
    plain = read_json(tmp_path / RESULT, "evaluate-forecaster")
    kind = found.groups[0].kind
    own = plain["aggregate"][kind]["oracle"]
    assert own["diebold_mariano"]["verdict"] == "significantly better"
    assert own["contaminated"] is False
    ratios = [plain["per_symbol"][f"A{i}"]["oracle"]["naive_ratio"] for i in range(3)]
    assert own["naive_ratio"] == {
        "median": pytest.approx(np.median(ratios)),
        "mean": pytest.approx(np.mean(ratios)),
    }
    assert own["coverage_80"]["mean"] is None  # a point has none
    draws = plain["aggregate"][kind][walk.name]
    assert draws["crps_paths"]["mean"] == pytest.approx(draws["crps"]["mean"], rel=0.15)
    assert plain["summary"] == list(found.sentences)
    assert json.dumps(plain, allow_nan=False)


def test_measures_are_those_of_the_rows_of_the_file(tmp_path: Path) -> None:
    found = evaluate([unfitted(Oracle())], reverting(1), PLAN, tmp_path, baselines=[])
    rows = pl.read_parquet(tmp_path / FORECASTS).filter(
        (pl.col("model") == "oracle") & (pl.col("symbol") == "A1")
    )
    errors = (rows["y"] - rows["0.5"]).abs()
    own = group(found, "oracle").symbols["A1"]
    assert own["mae"] == pytest.approx(errors.mean())
    assert own["mase"] == pytest.approx((errors / rows["scale"]).mean())
    assert own["pct_mae"] == pytest.approx(100 * errors.mean() / rows["y"].abs().mean())


def test_the_page_says_first_whether_the_model_beats_the_last_value(tmp_path: Path) -> None:
    found = evaluate(
        [unfitted(Oracle())], reverting(0), PLAN, tmp_path, baselines=[EwmaWalk(), Drift()]
    )
    text = (tmp_path / PAGE).read_text()
    body = text[text.index("<body") :]
    assert body.index("oracle beats repeating") < body.index("<table")
    assert "contaminated" not in body
    for words in ("best series", "median series", "worst series", "share of values", "step ahead"):
        assert words in body
    assert all(f"A{i}" in body for i in range(3))
    alone = evaluate([], walks(0), PLAN, tmp_path / "alone", baselines=[Drift()])
    (best,) = page.best_baselines(alone)
    assert "the closest of the others is drift" in best
    assert "No model was tested" in (tmp_path / "alone" / PAGE).read_text()
    assert found.sentences[0].split(" (")[0] in body


def test_a_long_horizon_keeps_its_first_and_last_step_in_the_chart(tmp_path: Path) -> None:
    plan = RollingPlan(40, PLAN.start, every_rows=10)
    found = evaluate([unfitted(Oracle())], reverting(0), plan, tmp_path, baselines=[])
    own = group(found, "oracle")
    assert len(own.by_step) == 40
    (bars,) = step_chart("steps", [own], {"oracle": "oracle"}).spec["data"]
    assert (bars["x"][0], bars["x"][-1], len(bars["x"])) == ("1", "40", 16)
    assert bars["y"][-1] == pytest.approx(own.by_step[-1].statistic, rel=1e-4)


def test_a_test_that_is_contaminated_is_refused_or_stamped(tmp_path: Path) -> None:
    seen = Vintage("oracle", PLAN.start + np.timedelta64(1, "D"), "x")
    made = reverting(0)
    with pytest.raises(
        CheckpointError, match="oracle was fitted on data up to 2020-03-02"
    ) as error:
        evaluate([(Oracle(), seen)], made, PLAN, tmp_path, baselines=[])
    assert error.value.has_seen_future
    assert "--allow-contaminated" in str(error.value)
    assert not (tmp_path / RESULT).exists()
    allowed = Vintage("oracle", seen.fitted_to, "x", is_release=True, is_allowed=True)
    found = evaluate([(Oracle(), allowed)], made, PLAN, tmp_path, baselines=[])
    assert found.sentences[0].startswith("CONTAMINATED, released on 2020-03-02: oracle beats")
    assert "oracle (contaminated)" in (tmp_path / PAGE).read_text()
    plain = read_json(tmp_path / RESULT, "evaluate-forecaster")
    assert plain["contaminated"] == {"oracle": "released on 2020-03-02"}
    just_before = Vintage("oracle", PLAN.start, "x")
    assert (
        evaluate([(Oracle(), just_before)], made, PLAN, tmp_path, baselines=[]).contaminated == {}
    )


def test_what_a_model_has_seen_is_shown_apart_from_what_it_has_not(tmp_path: Path) -> None:
    edge = days(200)[120]
    seen = Vintage("oracle", edge, "x", is_allowed=True, symbols=frozenset({"A0", "A2"}))
    found = evaluate([(Oracle(), seen)], reverting(0), PLAN, tmp_path, baselines=[EwmaWalk()])
    parts = dict(found.parts)
    fitted, others = "symbols that it was fitted on", "other symbols"
    before, on = "origins before 2020-04-30", "origins from 2020-04-30 on"
    assert [*parts] == [f"{who}, {when}" for who in (fitted, others) for when in (before, on)]
    assert {part: [*group.symbols] for part, group in parts.items()} == {
        f"{who}, {when}": symbols
        for who, symbols in ((fitted, ["A0", "A2"]), (others, ["A1"]))
        for when in (before, on)
    }
    rows = pl.read_parquet(tmp_path / FORECASTS).filter(
        (pl.col("model") == "oracle") & (pl.col("symbol") == "A1") & (pl.col("origin") >= edge)
    )
    unseen = parts[f"{others}, {on}"]
    assert unseen.n_origins == rows["origin"].n_unique() == 49  # rows 120, 122, .. 216
    assert unseen.median("mae") == pytest.approx((rows["y"] - rows["0.5"]).abs().mean())
    first, second = found.sentences
    assert first.startswith("CONTAMINATED")
    assert second.startswith("oracle ")
    assert f"(1 series, {unseen.kind}, {others}, {on})" in second
    plain = read_json(tmp_path / RESULT, "evaluate-forecaster")
    assert plain["aggregate"][unseen.kind]["oracle"]["parts"].keys() == parts.keys()
    assert "What models have seen" in (tmp_path / PAGE).read_text()


def test_leftovers_of_a_kill_go_and_a_damaged_block_is_named(tmp_path: Path) -> None:
    made = reverting(0)
    evaluate([], made, PLAN, tmp_path, baselines=[Drift()])
    block = tmp_path / PARTS / "drift" / "00001.parquet"
    leftover = block.with_name(".00002.x.hrl_sarp.tmp.parquet")
    leftover.write_bytes(b"half")
    block.write_bytes(block.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match=r"drift/00001\.parquet: .* remove it and repeat"):
        evaluate([], made, PLAN, tmp_path, baselines=[Drift()])
    assert not leftover.exists()
    block.unlink()
    evaluate([], made, PLAN, tmp_path, baselines=[Drift()])


def test_overwriting_begins_anew_and_another_model_is_refused(tmp_path: Path) -> None:
    made, other = reverting(0), (Oracle(0.1), Vintage("oracle", None, "other"))
    first = evaluate([unfitted(Oracle())], made, PLAN, tmp_path, baselines=[])
    with pytest.raises(CheckpointError, match="another weights"):
        evaluate([other], made, PLAN, tmp_path, baselines=[])
    second = evaluate([other], made, PLAN, tmp_path, baselines=[], overwrite=True)
    assert group(first, "oracle").median("mae") != group(second, "oracle").median("mae")
    for taken in ("last value", "drift"):
        with pytest.raises(ForecastError, match="unlike those of other forecasters"):
            evaluate([(Oracle(), Vintage(taken, None, "x"))], made, PLAN, tmp_path,
                     baselines=[Drift()])  # fmt: skip


def test_tests_weigh_every_series_by_its_own_moves(tmp_path: Path) -> None:
    # the same series at a thousand times the price must not decide
    cheap, dear = reverting(0, n_series=2)
    scaled = type(dear)(dear.symbol, dear.timestamps, 1000.0 * dear.target, None)
    evaluate([unfitted(Noisy(0.004))], [cheap, dear], PLAN, tmp_path / "a", baselines=[])
    evaluate([unfitted(Noisy(0.004))], [cheap, scaled], PLAN, tmp_path / "b", baselines=[])
    found = []
    for name in ("a", "b"):
        table = pl.read_parquet(tmp_path / name / FORECASTS)
        found.append(
            group(summarise(table, PLAN, [Vintage("noisy", None, "x")]), "noisy").errors.statistic
        )
    assert found[0] == pytest.approx(found[1])
