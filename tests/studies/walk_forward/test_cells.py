"""Two folds of the bundled sample: cells, a resume, ensembles, the trial log, the page.

Rules stand in the places of trained agents, and tests are cut to two months, so that no test trains
for minutes. The slow test at the end trains.
"""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from hrl_sarp.config.loading import config_hash, load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import DayRange, Market, SessionCounts, Split
from hrl_sarp.envs.policies import ClassicalGoal, FollowGoal, MixedGoal, ProportionalGoal
from hrl_sarp.errors import CheckpointError
from hrl_sarp.evaluation.baselines import make_constant_exposure
from hrl_sarp.known_markets.small_market import market_of_returns
from hrl_sarp.market.cache import bundled_sample
from hrl_sarp.run.files import read_json
from hrl_sarp.run.trials import TrialLog
from hrl_sarp.studies.walk_forward import (
    Fold,
    Recipe,
    WalkForward,
    cells,
    chain,
    ledger,
    summarise,
)
from hrl_sarp.studies.walk_forward.ledger import EARLIER, FRICTIONS, Ledger, read_ledger
from hrl_sarp.training.phase import PhaseContext

DAYS = 42
CHANGES: dict[str, Any] = {
    "market_profile": {"spans": {"train": {"start": date(2002, 6, 3)}}},
    "macro_agent": {"gradient": {"epochs": 1}},
    "micro_agent": {"gradient": {"epochs": 1}},
    "walk_forward": {
        "baselines": ["equal_weight", "minimum_variance_ridge_neutral"],
        "samples": 50,
    },
}
SEEDS = 2


def made_study(folder: Path, phases: tuple[int, ...] = (1, 2)) -> WalkForward:
    years = {"test_years": 1, "last_test_year": 2006}
    recipe = Recipe("smoke", years, {"risk": None}, phases, CHANGES)
    folds = {fold.name: fold for fold in recipe.folds("sample", None)}
    return WalkForward(recipe, {"sample": None}, folder, folds, tuple(range(SEEDS)))


def short_markets() -> Any:
    """Assemble each market once and cut its test to `DAYS`."""
    made: dict[str, Market] = {}

    def market(config: RunConfig) -> Market:
        key = config_hash(config.model_copy(update={"seed": 0}))
        if key not in made:
            whole = bundled_sample(config)
            start = whole.split.test.start
            split = replace(whole.split, test=DayRange(start, start + DAYS))
            made[key] = replace(whole, split=split)
        return made[key]

    return market


def finish_phase(number: int, context: PhaseContext) -> None:
    """Count how often a phase was run to its end."""
    with (context.log_dir / "phases.txt").open("a") as file:
        file.write(f"{number}\n")


def rules_of(context: PhaseContext) -> dict[str, Any]:
    """Return pairs that differ by phase, and phase 2 by seed."""
    tensors = context.tensors
    prior, even = ClassicalGoal(tensors), ProportionalGoal(tensors)
    follow = FollowGoal(tensors, context.config.risk)
    share = 0.3 + 0.4 * context.config.seed
    own = MixedGoal((prior, even), (1 - share, share))
    goals = {"prior": prior, "phase 1": even, "phase 2": own}
    goals |= {"macro alone": own, "micro alone": prior}
    return {name: (goal, follow) for name, goal in goals.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WalkForward]:
    """A study that has run here; its first training was stopped before phase 2."""
    study = made_study(tmp_path_factory.mktemp("walk"))

    def stopped(number: int, context: PhaseContext) -> None:
        if number == 2:
            raise KeyboardInterrupt
        finish_phase(number, context)

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HRL_SARP_TRIAL_LOG", str(study.folder / "trials.jsonl"))
        patched.setattr(cells, "bundled_sample", short_markets())
        patched.setattr(cells, "trained_pairs", rules_of)
        patched.setattr(cells, "run_phase", stopped)
        with pytest.raises(KeyboardInterrupt):
            study.run_all(1, in_process=True)
        patched.setattr(cells, "run_phase", finish_phase)
        assert not study.run_all(1, in_process=True).failed
        yield study


def of(made: WalkForward, name: str) -> Ledger:
    return read_ledger(made.folder / name)


def test_every_cell_leaves_daily_series(made: WalkForward) -> None:
    names = sorted(path.parent.name for path in made.folder.glob("*/series.npz"))
    assert names == sorted(
        f"sample-{year}-{year}-{kind}"
        for year in (2005, 2006)
        for kind in ("baselines-0", "risk-0", "risk-1", "risk-ensemble-0")
    )
    trained = of(made, "sample-2005-2005-risk-0")
    assert trained.names == ("prior", "phase 1", "phase 2", "macro alone", "micro alone")
    assert len(trained.dates) == DAYS - 1
    assert str(trained.dates[0])[:4] == "2005"
    assert set(trained.objective) == {"premium", "cost_term", "variance"}
    # what a goal asks for is held just after the trade, but for stocks without a bar
    np.testing.assert_allclose(trained.asked[0], trained.invested[0], atol=0.02)
    # twice the costs, and orders that come a session later
    assert trained.cost[1].sum() == pytest.approx(2 * trained.cost[0].sum(), rel=0.05)
    assert not trained.invested[2, 0].any()
    np.testing.assert_allclose(
        trained.objective["cost_term"], -100 * trained.cost, rtol=1e-12, atol=0
    )


def test_a_cell_that_was_stopped_goes_on_and_no_cell_runs_twice(made: WalkForward) -> None:
    folder = made.folder / "sample-2005-2005-risk-0"
    # phases are asked for again after a stop: `run_phase` passes over those that have finished
    assert (folder / "phases.txt").read_text().split() == ["1", "1", "2"]
    assert (made.folder / "sample-2006-2006-risk-0" / "phases.txt").read_text() == "1\n2\n"
    made.run_all(1, in_process=True)
    assert (folder / "phases.txt").read_text().split() == ["1", "1", "2"]


def test_a_finished_cell_of_other_phases_is_refused(made: WalkForward) -> None:
    other = replace(made, recipe=replace(made.recipe, phases=(1,)))
    with pytest.raises(CheckpointError, match="phases"):
        other.run_all(1, in_process=True)


def test_the_prior_is_the_same_for_all_seeds_and_their_ensemble(made: WalkForward) -> None:
    first, second = of(made, "sample-2006-2006-risk-0"), of(made, "sample-2006-2006-risk-1")
    whole = of(made, "sample-2006-2006-risk-ensemble-0")
    column = first.column("prior")
    np.testing.assert_array_equal(first.net_return[..., column], second.net_return[..., column])
    np.testing.assert_allclose(
        whole.net_return[..., column], first.net_return[..., column], atol=1e-6
    )


def test_1_over_n_has_the_exposure_of_the_ensemble(made: WalkForward) -> None:
    whole = of(made, "sample-2005-2005-risk-ensemble-0")
    means = whole.invested[0].mean(axis=0)
    own, even = means[whole.column("phase 2")], means[whole.column("1/N, same exposure")]
    assert even == pytest.approx(own, abs=0.005)


def test_the_ensemble_of_one_seed_is_the_seed(made: WalkForward) -> None:
    alone, fold = replace(made, seeds=(1,)), Fold("sample", 2005, 2005)
    config = made.recipe.config(fold, "risk", 0)
    found = alone._ensemble(fold, "risk", alone._market(fold, config), config)
    seed = of(made, "sample-2005-2005-risk-1")
    for name in seed.names:
        np.testing.assert_array_equal(
            found.net_return[..., found.column(name)], seed.net_return[..., seed.column(name)]
        )


def test_the_ensemble_decides_between_its_seeds(made: WalkForward) -> None:
    # shares of 0.3 and 0.7 in 1/N: the mean decision has 0.5, and returns are linear in it but for
    # the drift of the holdings
    names = [f"sample-2005-2005-risk-{end}" for end in ("0", "1", "ensemble-0")]
    first, second, whole = (
        (ledger := of(made, name)).net_return[0, :, ledger.column("phase 2")] for name in names
    )
    apart = np.abs(first - second).max()
    assert apart > 1e-4
    assert np.abs(whole - (first + second) / 2).max() < 0.05 * apart


def test_everything_looked_at_is_in_the_trial_log(made: WalkForward) -> None:
    trials = TrialLog(made.folder / "trials.jsonl").trials()
    assert {trial.span.name for trial in trials} == {"sample-2005-2005", "sample-2006-2006"}
    named = [trial.name for trial in trials if trial.kind == "study"]
    assert named.count("phase 2") == 2 * (SEEDS + 1)
    assert {trial.name for trial in trials if trial.kind == "baseline"} >= {"1/N", "prior"}


def test_the_summary_states_the_figures_of_the_series(
    made: WalkForward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HRL_SARP_TRIAL_LOG", str(made.folder / "trials.jsonl"))
    page = summarise(made)
    assert (made.folder / "table.md").read_text() == page
    assert (made.folder / "walk_forward_risk.png").is_file()
    found = read_json(made.folder / "table.json", "this test")["risk"]
    net = np.concatenate(
        [
            (ledger := of(made, f"sample-{year}-{year}-risk-ensemble-0")).net_return[
                0, :, ledger.column("phase 2")
            ]
            for year in (2005, 2006)
        ]
    )
    weighed = found["evidence"]["sample"]["1/N"]
    assert weighed["verdict"] in page
    # four policies (phases 1 and 2, each level alone) of two seeds and the ensemble
    assert weighed["trials"] == 4 * (SEEDS + 1)
    # one variant, on bundled data: nothing to compare, and no table that agents could observe
    assert read_json(made.folder / "variants.json", "x") == {"over_first": {}, "volatility": {}}
    searches = read_json(made.folder / "searches.json", "this test")
    assert len(searches["sample"]["configurations"]) == 4
    html = (made.folder / "report.html").read_text()
    specs = re.findall(r'<script type="application/json">(.*?)</script>', html)
    wealth, plane, *folds = map(json.loads, specs)
    assert [chart["data"][0]["x"] for chart in folds] == [["2005", "2006"]] * 2
    drawn = {(trace["name"], trace["yaxis"]): trace["y"] for trace in wealth["data"]}
    assert drawn["agent (ensemble)", "y"][-1] == pytest.approx(np.prod(1 + net), rel=1e-4)
    assert [mark["x0"][:4] for mark in wealth["layout"]["shapes"]] == ["2006"]
    assert "agent (ensemble)" in [trace["name"] for trace in plane["data"]]
    row = found["policies"]["sample"]["phase 2, ensemble"]
    frame = pl.read_parquet(made.folder / "table.parquet")
    of_agent = frame.filter(pl.col("policy") == "phase 2, ensemble", pl.col("measure") == "growth")
    assert of_agent["value"].to_list() == [row["growth"]]
    less = frame.filter(pl.col("reference") == "1/N", pl.col("measure") == "sharpe")
    assert less["low"].to_list() == [
        found["comparisons"]["1/N"][market]["sharpe"]["low"] for market in ("sample", "pooled")
    ]
    trials = pl.read_parquet(made.folder / "trials.parquet")
    assert trials.height == len(TrialLog(made.folder / "trials.jsonl").trials())
    assert set(trials["fold"]) == set(made.folds)
    card = (made.folder / "card.md").read_text()
    shown = next(line for line in card.splitlines() if line.startswith("| volatility"))
    assert shown.split(" | ")[1] == f"{row['volatility']:.1f}"
    assert f"{weighed['trials']} configurations tried" in card
    assert row["growth"] == pytest.approx(100 * 252 * np.log1p(net).mean())
    assert row["volatility"] == pytest.approx(100 * 252**0.5 * net.std(ddof=1))


def test_impact_and_distances_are_kept_beside_the_series(made: WalkForward) -> None:
    """The sample has no volume, so it has no layer of impact instead of one without costs."""
    ledger = of(made, "sample-2005-2005-risk-ensemble-0")
    assert ledger.frictions == FRICTIONS[: len(ledger.net_return)] == EARLIER
    own, prior = ledger.column("phase 2"), ledger.column("prior")
    apart = ledger.distance["prior"]
    assert not apart[:, prior].any()
    assert 0.01 < apart[:, own].mean() < 1
    # both follow the same goal by the same rule
    assert not ledger.distance["macro alone"][:, own].any()
    # 1/N at the same exposure was rolled out apart
    assert np.isnan(apart[:, ledger.column("1/N, same exposure")]).all()
    even = of(made, "sample-2005-2005-baselines-0")
    assert not even.distance["1/N"][:, even.column("1/N")].any()


def test_cells_of_an_earlier_version_are_read_named_and_rolled_out_again_without_training(
    made: WalkForward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HRL_SARP_TRIAL_LOG", str(tmp_path / "trials.jsonl"))
    monkeypatch.setattr(cells, "bundled_sample", short_markets())
    monkeypatch.setattr(cells, "trained_pairs", rules_of)
    monkeypatch.setattr(cells, "run_phase", finish_phase)
    shutil.copytree(made.folder, tmp_path / "study")
    study = replace(
        made, folder=tmp_path / "study", recipe=replace(made.recipe, impact_coefficient=0.1)
    )
    names = [f"sample-2005-2005-{kind}" for kind in ("risk-0", "risk-ensemble-0")]
    for name in names:
        path = study.folder / name / "series.npz"
        with np.load(path) as file:
            kept = {key: file[key] for key in file if not key.startswith(("fric", "distance"))}
        np.savez_compressed(path, **kept)
    before = of(made, names[0])
    after = read_ledger(study.folder / names[0])
    np.testing.assert_array_equal(after.net_return, before.net_return)
    assert (after.frictions, after.distance) == (EARLIER, {})
    page = summarise(study)
    told = "An earlier version rolled out 2 cells of sample, variant risk"
    assert told in page
    assert "remove the file cell.json" in page
    for name in names:
        (study.folder / name / "cell.json").unlink()
    assert not study.run_all(1, in_process=True).failed
    assert told not in summarise(study)
    assert (study.folder / names[0] / "phases.txt").read_text().split()[-2:] == ["1", "2"]


def test_impact_costs_more_than_the_markets_costs_and_grows_with_the_trade() -> None:
    """A stock is bought once: 0.1 x trade x sqrt(trade x capital / volume), by hand."""
    config = load_config(market="sample")
    costs = config.market_profile.costs
    returns = np.zeros((12, 2))
    split = Split(DayRange(0, 4), DayRange(4, 4), DayRange(4, 12))
    market = market_of_returns("two stocks", returns, np.array([0, 1]), split)
    volume = np.full((12, 2), 4 * costs.capital)
    traded = replace(market, dollar_volume=volume)

    def rolled(which: Market, coefficient: float) -> Ledger:
        span = DayRange(4, 12)
        even = make_constant_exposure(config, 0.5)
        return ledger.roll_out(which, span, [even], config, impact_coefficient=coefficient)

    found = rolled(traded, 0.1)
    assert found.frictions == FRICTIONS
    trade = config.risk.stock_cap  # each stock would get 0.25; costs move it a little
    assert trade == 0.1
    expected = 2 * 0.1 * trade * (trade / 4) ** 0.5
    assert (found.cost[3] - found.cost[0])[0, 0] == pytest.approx(expected, rel=0.02)
    # nothing but the first layer of costs is moved by it
    plain = rolled(traded, 0.0)
    assert plain.frictions == EARLIER
    np.testing.assert_array_equal(plain.net_return, found.net_return[:3])
    # without any volume the law says nothing, so there is no layer that looks free
    assert rolled(market, 0.1).frictions == EARLIER


@pytest.mark.slow
def test_trained_agents_of_all_phases_are_rolled_out(tmp_path: Path) -> None:
    study = replace(made_study(tmp_path, phases=(1, 2, 3, 4, 5)), seeds=(0,))
    study = replace(study, folds={"sample-2005-2005": study.folds["sample-2005-2005"]})
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HRL_SARP_TRIAL_LOG", str(tmp_path / "trials.jsonl"))
        patched.setattr(cells, "bundled_sample", short_markets())
        assert not study.run_all(1, in_process=True).failed
    seed = of(study, "sample-2005-2005-risk-0")
    whole = of(study, "sample-2005-2005-risk-ensemble-0")
    assert seed.names[:6] == ("prior", *(f"phase {number}" for number in range(1, 6)))
    np.testing.assert_array_equal(whole.net_return[..., : len(seed.names)], seed.net_return)


def test_a_year_of_a_chain_is_that_of_the_markets_calendar(
    made: WalkForward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "session_counts", lambda _profile: SessionCounts(7, 365))
    found = chain.read_chains(made)["risk"]["sample"]
    assert found.sessions_per_year == 365
    for series in (found.baseline("1/N"), found.by_seed("phase 2"), found.ensemble("phase 2")):
        assert series.sessions_per_year == 365
        assert series.of_fold(0).sessions_per_year == 365
