"""Two folds of the bundled sample end to end: cells, a resume, ensembles, the page."""

from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest

from hrl_sarp.config.loading import config_hash
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.market.cache import bundled_sample
from hrl_sarp.run.files import read_json
from hrl_sarp.run.trials import TrialLog
from hrl_sarp.studies import run_grid
from hrl_sarp.studies.walk_forward import Fold, Recipe, WalkForward, cells, summarise
from hrl_sarp.studies.walk_forward.ledger import Ledger, read_ledger

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


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> WalkForward:
    """A study whose passes have run in this process; the first fold of seed 0 was resumed."""
    folder = tmp_path_factory.mktemp("walk")
    years = {"test_years": 1, "last_test_year": 2006}
    recipe = Recipe("smoke", years, {"risk": None}, (1, 2), CHANGES)
    folds = {fold.name: fold for fold in recipe.folds("sample", None)}
    made = WalkForward(recipe, {"sample": None}, folder, folds, tuple(range(SEEDS)), "baselines")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HRL_SARP_TRIAL_LOG", str(folder / "trials.jsonl"))
        patched.setattr(cells, "bundled_sample", _once())
        run_grid(made, made.cells(), in_process=True)
        _stopped_in_phase_2(made.of("seeds"))
        for step in (made.of("seeds"), made.of("ensemble")):
            assert not run_grid(step, step.cells(), in_process=True).failed
    return made


def _once() -> Any:
    """Assemble each market once: seeds of a fold share theirs."""
    made: dict[str, Market] = {}

    def market(config: RunConfig) -> Market:
        key = config_hash(config.model_copy(update={"seed": 0}))
        if key not in made:
            made[key] = bundled_sample(config)
        return made[key]

    return market


def _stopped_in_phase_2(seeds: WalkForward) -> None:
    """Run the first cell until its phase 2 is asked for, as a kill would leave it."""

    def stopped(number: int, context: Any) -> None:
        if number == 2:
            raise KeyboardInterrupt
        run_phase(number, context)

    run_phase = cells.run_phase
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cells, "run_phase", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_grid(seeds, seeds.cells()[:1], in_process=True)


def of(study: WalkForward, name: str) -> Ledger:
    return read_ledger(study.folder / name)


def test_every_cell_leaves_daily_series(study: WalkForward) -> None:
    names = sorted(path.parent.name for path in study.folder.glob("*/series.npz"))
    assert names == sorted(
        f"sample-{year}-{year}-{kind}"
        for year in (2005, 2006)
        for kind in ("baselines-0", "risk-0", "risk-1", "risk-ensemble-0")
    )
    trained = of(study, "sample-2005-2005-risk-0")
    assert trained.names == ("prior", "phase 1", "phase 2", "macro alone", "micro alone")
    assert {str(day)[:4] for day in trained.dates} == {"2005"}
    assert set(trained.objective) == {"premium", "cost_term", "variance"}
    # what a goal asks for is what is held, but for the drift between the trades
    np.testing.assert_allclose(trained.asked, trained.invested, atol=0.05)
    assert (trained.net_return[1] <= trained.net_return[0] + 1e-3).all()  # twice the costs
    assert trained.cost[1].sum() == pytest.approx(2 * trained.cost[0].sum(), rel=0.05)


def test_a_cell_that_was_stopped_ends_as_the_others(study: WalkForward) -> None:
    folder = study.folder / "sample-2005-2005-risk-0"
    assert (folder / "cell.json").is_file()
    began = (folder / "cell.json").stat().st_mtime_ns
    seeds = study.of("seeds")
    run_grid(seeds, seeds.cells(), in_process=True)
    assert (folder / "cell.json").stat().st_mtime_ns == began  # nothing runs twice


def test_the_prior_is_the_same_for_all_seeds_and_their_ensemble(study: WalkForward) -> None:
    first, second = of(study, "sample-2006-2006-risk-0"), of(study, "sample-2006-2006-risk-1")
    whole = of(study, "sample-2006-2006-risk-ensemble-0")
    column = first.column("prior")
    np.testing.assert_array_equal(first.net_return[..., column], second.net_return[..., column])
    np.testing.assert_allclose(
        whole.net_return[..., column], first.net_return[..., column], atol=1e-6
    )


def test_1_over_n_has_the_exposure_of_the_ensemble(study: WalkForward) -> None:
    whole = of(study, "sample-2005-2005-risk-ensemble-0")
    means = whole.invested[0].mean(axis=0)
    own, even = means[whole.column("phase 2")], means[whole.column("1/N, same exposure")]
    assert even == pytest.approx(own, abs=0.005)


def test_the_ensemble_of_one_seed_is_the_seed(study: WalkForward) -> None:
    alone = replace(study.of("ensemble"), seeds=(1,))
    fold = Fold("sample", 2005, 2005)
    config = alone.recipe.config(fold, "risk", 0)
    found = alone._ensemble(fold, "risk", bundled_sample(config), config)
    seed = of(study, "sample-2005-2005-risk-1")
    for name in seed.names:
        np.testing.assert_array_equal(
            found.net_return[..., found.column(name)], seed.net_return[..., seed.column(name)]
        )


def test_everything_looked_at_is_in_the_trial_log(study: WalkForward) -> None:
    trials = TrialLog(study.folder / "trials.jsonl").trials()
    assert {trial.span.name for trial in trials} == {"sample-2005-2005", "sample-2006-2006"}
    named = [trial.name for trial in trials if trial.kind == "study"]
    assert named.count("phase 2") == 2 * (SEEDS + 1)
    assert {trial.name for trial in trials if trial.kind == "baseline"} >= {"1/N", "prior"}


def test_the_summary_states_the_figures_of_the_series(study: WalkForward) -> None:
    page = summarise(study)
    assert (study.folder / "table.md").read_text() == page
    assert (study.folder / "walk_forward_risk.png").is_file()
    found = read_json(study.folder / "table.json", "this test")["risk"]
    net = np.concatenate(
        [
            (ledger := of(study, f"sample-{year}-{year}-risk-ensemble-0")).net_return[
                0, :, ledger.column("phase 2")
            ]
            for year in (2005, 2006)
        ]
    )
    row = found["policies"]["sample"]["phase 2, ensemble"]
    assert row["growth"] == pytest.approx(100 * 252 * np.log1p(net).mean())
    assert row["volatility"] == pytest.approx(100 * 252**0.5 * net.std(ddof=1))
