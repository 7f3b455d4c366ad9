from datetime import date
from typing import Any

import pytest

from hrl_sarp.config.consistency import find_contradictions
from hrl_sarp.config.loading import DEFAULT_CONFIG_DIR, list_choices, load_config
from hrl_sarp.config.schema import RunConfig


def changed(**sections: Any) -> RunConfig:
    """Return the project's configuration with `sections` replaced, past the loader's checks."""
    config = load_config()
    return RunConfig.model_validate(_merged(config.model_dump(), sections))


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    deeper = {
        key: _merged(below[key], value) if isinstance(value, dict) else value
        for key, value in above.items()
    }
    return {**below, **deeper}


def spans(**edges: date) -> dict[str, Any]:
    days = {
        "train_start": date(2001, 1, 1),
        "train_end": date(2005, 12, 31),
        "validation_start": date(2006, 1, 1),
        "validation_end": date(2007, 12, 31),
        "test_start": date(2008, 1, 1),
        "test_end": date(2009, 12, 31),
        **edges,
    }
    return {
        "spans": {
            name: {"start": days[f"{name}_start"], "end": days[f"{name}_end"]}
            for name in ("train", "validation", "test")
        }
    }


def stress_window(name: str, start: date, end: date) -> dict[str, Any]:
    return {"name": name, "start": start, "end": end}


def test_the_prior_always_takes_part() -> None:
    curriculum = changed(
        curriculum={"temperature_grid": [1.0], "acceptance": {"shares": [1.0, 0.5]}}
    ).curriculum
    assert curriculum.temperature_grid == [0.0, 1.0]
    assert curriculum.acceptance.shares == [0.0, 1.0, 0.5]


@pytest.mark.parametrize("market", list_choices(DEFAULT_CONFIG_DIR, "market"))
def test_project_configuration_has_no_contradiction(market: str) -> None:
    assert find_contradictions(load_config(market=market)) == []


@pytest.mark.parametrize(
    ("section", "value", "expected"),
    [
        (
            "market_profile",
            spans(test_start=date(2007, 12, 31)),
            "market_profile.spans.test: start 2007-12-31 must be after the end of validation, "
            "2007-12-31",
        ),
        (
            "market_profile",
            spans(test_end=date(2008, 1, 1)),
            "market_profile.spans.test: end 2008-01-01 must be after start 2008-01-01",
        ),
        (
            "market_profile",
            {"universe": {"lookback_days": 100, "min_bars": 101}},
            "market_profile.universe.min_bars: 101 bars never fit into lookback_days = 100",
        ),
        (
            "market_profile",
            {"sectors": ["Energy", "Banks", "Energy"]},
            "market_profile.sectors: each name may stand once, duplicate: Energy",
        ),
        (
            # A 20-session label from the next open reads up to row t + 21.
            "data",
            {"purge_days": 20, "macro_label_days": 20, "regime": {"label_horizon_days": 10}},
            "data.purge_days: 20 sessions let the labels of data.macro_label_days = 20 reach into "
            "the next span; at least 21 are needed",
        ),
        (
            "macro_agent",
            {"graph": {"layer": "gat", "hidden": 32, "heads": 5}},
            "macro_agent.graph.heads: 5 must divide hidden = 32",
        ),
        (
            "macro_agent",
            {"ppo": {"n_envs": 8, "n_steps": 32, "batch_size": 60}},
            "macro_agent.ppo.batch_size: 60 must divide n_envs x n_steps = 256",
        ),
        (
            "macro_agent",
            {"ppo": {"n_envs": 8, "envs_per_group": 3}},
            "macro_agent.ppo.envs_per_group: 3 must divide n_envs = 8",
        ),
        (
            "market_profile",
            {"stress": {"sectors": {"Energy": "Oil"}}},
            "market_profile.stress.sectors: expected sectors of stress.sectors, found Energy: Oil",
        ),
        (
            "market_profile",
            {"stress": {"windows": [stress_window("2008", date(2008, 1, 1), date(2008, 1, 1))]}},
            "market_profile.stress.windows[0]: end 2008-01-01 must be after start 2008-01-01",
        ),
        (
            "market_profile",
            {
                "stress": {
                    "windows": 2 * [stress_window("2008", date(2008, 1, 1), date(2009, 1, 1))]
                }
            },
            "stress: each scenario needs a name of its own, duplicate: 2008",
        ),
        (
            "stress",
            {"sectors": ["IT", "Energy"]},
            "stress.shocks[0].sector_returns: 11 returns for 2 sectors",
        ),
        (
            "micro_agent",
            {"td3": {"n_envs": 64, "envs_per_group": 7}},
            "micro_agent.td3.envs_per_group: 7 must divide n_envs = 64",
        ),
        (
            "micro_agent",
            {"network": {"decode": "free", "trade_speed": 0.5}},
            "micro_agent.network.trade_speed: 0.5 slows the decode 'within_sector' only; set it to "
            "1 beside decode: free",
        ),
        (
            "micro_agent",
            {"td3": {"batch_days": 32, "batch_per_day": 8, "buffer_size": 255}},
            "micro_agent.td3.buffer_size: 255 is smaller than one batch, "
            "batch_days x batch_per_day = 256",
        ),
        (
            "windowed",
            {"splits": {"train_end": date(2018, 9, 30)}},
            "windowed.splits: must follow each other, found train_end 2018-09-30, val_end "
            "2018-09-30, test_end 2018-12-31",
        ),
    ],
)
def test_contradiction_is_found(section: str, value: dict[str, Any], expected: str) -> None:
    assert expected in find_contradictions(changed(**{section: value}))


def test_regime_mix_must_sum_to_one() -> None:
    stages = load_config().model_dump()["curriculum"]["stages"]
    stages[1]["regime_mix"] = [0.5, 0.5, 0.1]
    found = find_contradictions(changed(curriculum={"stages": stages}))
    assert found == ["curriculum.stages[1].regime_mix: must sum to 1, sums to 1.1"]


@pytest.mark.parametrize("market", ["us", "nse", "sample"])
def test_agents_train_last_on_the_weeks_and_transitions_that_they_are_deployed_on(
    market: str,
) -> None:
    config = load_config(market=market)
    assert config.curriculum.stages[-1].regime_mix is None
    # inside the goal's sectors every transition reaches its goal: another one is never met
    assert config.micro_agent.network.decode == "within_sector"
    assert config.micro_agent.td3.hindsight_share == 0


def test_hindsight_stays_where_goals_can_be_missed() -> None:
    config = load_config(experiment="reachable_goals")
    assert config.micro_agent.network.decode == "free"
    assert config.micro_agent.td3.hindsight_share == 0.8


@pytest.mark.parametrize("share", [0.1, 0.2])
def test_stages_must_end_after_the_stage_before(share: float) -> None:
    stages = load_config().model_dump()["curriculum"]["stages"]
    stages[1]["max_share"] = share
    found = find_contradictions(changed(curriculum={"stages": stages}))
    expected = f"curriculum.stages[1].max_share: {share:g} is not above the stage before it, 0.2"
    assert found == [expected]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"envs_per_group": 4, "batch_per_day": 8},
            "micro_agent.td3.batch_per_day: 8 must divide envs_per_group = 4: "
            "a batch takes rows that share their day",
        ),
        (
            {"n_envs": 64, "env_steps_per_update": 7},
            "micro_agent.td3.env_steps_per_update: 7 must divide n_envs = 64",
        ),
    ],
)
def test_sizes_of_replay_must_fit_the_environments(values: dict[str, int], expected: str) -> None:
    assert find_contradictions(changed(micro_agent={"td3": values})) == [expected]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"transformer": {"width": 126}},
            "encoders.transformer.width: 126 must be even and a multiple of heads = 4",
        ),
        (
            {"price_action": {"train_share": 0.9, "validation_share": 0.1}},
            "encoders.price_action.validation_share: 0.1 beside train_share = 0.9 leaves nothing "
            "for the test",
        ),
    ],
)
def test_transformer_and_its_spans_must_fit(values: dict[str, Any], expected: str) -> None:
    assert find_contradictions(changed(encoders=values)) == [expected]


@pytest.mark.parametrize(
    ("market", "experiment"),
    [(name, None) for name in list_choices(DEFAULT_CONFIG_DIR, "market")]
    + [(None, name) for name in list_choices(DEFAULT_CONFIG_DIR, "experiment")],
)
def test_holdings_lose_when_a_stock_ceases_except_where_none_can(
    market: str | None, experiment: str | None
) -> None:
    config = load_config(market=market, experiment=experiment)
    costs = config.market_profile.costs
    kept = {"sample", "synthetic", "us", "fx"}  # a currency goes on
    lives_to_the_end = config.market in kept and experiment != "yahoo_us"
    assert costs.delisting_return == (0.0 if lives_to_the_end else -0.3)
    # the row under stress shows something else than the row above it
    assert config.evaluation.stressed_delisting_return < costs.delisting_return


@pytest.mark.parametrize("kind", ["risk", "growth"])
@pytest.mark.parametrize("credit", ["portfolio", "stock"])
def test_credit_by_stock_belongs_to_the_objective_risk(kind: str, credit: str) -> None:
    config = changed(objective={"kind": kind}, micro_agent={"td3": {"credit": credit}})
    found = [line for line in find_contradictions(config) if "td3.credit" in line]
    assert len(found) == (kind == "growth" and credit == "stock")
