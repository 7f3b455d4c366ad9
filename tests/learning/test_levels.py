"""Two agents, one flat agent and the gradient on the planted market: what is compared, and how."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.known_markets.two_level import DAYS_PER_WEEK, PathPlan, planted_market
from hrl_sarp.known_markets.two_level_study import TwoLevelStudy, flat_config, with_all_columns
from hrl_sarp.training import curriculum
from tests import tiny_runs

PLAN = PathPlan(train_weeks=260, validation_weeks=52, n_paths=4, path_weeks=26)
SHORT: dict[str, Any] = {
    "macro_agent": {
        "gradient": {"epochs": 3},
        "ppo": {"total_timesteps": 512, "eval_every_steps": 512},
    },
    "micro_agent": {
        "gradient": {"epochs": 2},
        "td3": {
            "total_timesteps": 640,
            "eval_every_steps": 3200,
            "learning_starts": 320,
            "critic_warmup_updates": 2,
        },
    },
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> TwoLevelStudy:
    config: RunConfig = tiny_runs.changed(load_config(experiment="two_level_levels"), SHORT)
    return TwoLevelStudy(
        config, planted_market(config, PLAN, seed=0), tmp_path_factory.mktemp("levels")
    )


def test_flat_and_hierarchy_train_for_as_many_sessions(study: TwoLevelStudy) -> None:
    macro, micro = study.config.macro_agent.ppo, study.config.micro_agent.td3
    flat = flat_config(study.config).micro_agent
    assert flat.td3.total_timesteps == DAYS_PER_WEEK * macro.total_timesteps + micro.total_timesteps
    assert flat.network.decode == "free"


def test_both_studies_of_the_flat_agent_differ_in_the_drift_alone() -> None:
    two, none = (load_config(experiment=f"two_level_{name}") for name in ("levels", "no_drift"))
    assert none.data.synthetic.sector_drift_bps == 0.0
    synthetic = none.data.synthetic.model_copy(
        update={"sector_drift_bps": two.data.synthetic.sector_drift_bps}
    )
    data = none.data.model_copy(update={"synthetic": synthetic})
    gradient = {
        name: getattr(none, name).model_copy(update={"gradient": getattr(two, name).gradient})
        for name in ("macro_agent", "micro_agent")  # the flat agent has no use for it
    }
    assert none.model_copy(update={"data": data, **gradient}) == two


def test_the_flat_agent_sees_what_the_macro_agent_sees(study: TwoLevelStudy) -> None:
    market = study.planted.market
    seen = with_all_columns(market, study.config.macro_agent.graph)
    day, stock = 900, 31  # of sector 3: nine stocks each
    columns = dict(zip(seen.feature_names, seen.stock_features[day, stock], strict=True))
    assert [columns[f"sector_{i}"] for i in range(11)] == list(np.eye(11)[3])
    whole = [columns[name] for name in seen.feature_names if name.startswith("market_")]
    expected = [*market.macro_features[day], *market.filtered_regime[day]]
    assert whole == pytest.approx(expected, abs=1e-6)
    kept = seen.stock_features[..., : len(market.feature_names)]
    assert np.array_equal(kept, market.stock_features)


def test_what_the_flat_agent_sees_does_not_move_with_later_rows(study: TwoLevelStudy) -> None:
    market, graph = study.planted.market, study.config.macro_agent.graph
    cut = market.split.validation.start
    later = market.intraday_return.copy()
    later[cut:] *= -1
    other = replace(market, intraday_return=later)
    first, second = (with_all_columns(of, graph).stock_features for of in (market, other))
    assert np.array_equal(first[:cut], second[:cut])
    assert not np.array_equal(first[cut:], second[cut:])


def test_the_gradient_learns_what_short_reinforcement_cannot(
    study: TwoLevelStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = study.levels()
    # 5 years of training: 0.5 was reached when this was written
    assert found["gradient"] > 0.25
    assert found["best known policy over 1/N, % a year"] > 30
    assert abs(found["flat"]) < 0.2
    assert found["hierarchy minus flat"] == found["hierarchy"] - found["flat"]

    def trained(*_: object) -> None:
        pytest.fail("a finished phase was trained again")

    monkeypatch.setattr(curriculum, "RUNNERS", dict.fromkeys(range(1, 6), trained))
    monkeypatch.setattr("hrl_sarp.training.pretrain.macro.MacroGradient", trained)
    assert study.levels() == found


def test_without_drift_the_best_policy_needs_no_sectors(tmp_path: Path) -> None:
    config = tiny_runs.changed(load_config(experiment="two_level_no_drift"), SHORT)
    still = TwoLevelStudy(config, planted_market(config, PLAN, seed=0), tmp_path)
    assert not still.planted.truth.sector_tilt.any() or config.data.synthetic.sector_drift_bps == 0
    found = still.flat()
    assert set(found) == {"1/N, % a year", "best known policy over 1/N, % a year", "flat"}
    assert 20 < found["best known policy over 1/N, % a year"] < 60  # the signals of stocks alone
