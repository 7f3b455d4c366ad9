"""Shares are granted on sessions after short trainings inside the training span, level by level."""

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.config.study_schema import CertificationConfig
from hrl_sarp.contracts import DayRange, Goal, Split
from hrl_sarp.envs import make_starts
from hrl_sarp.envs.policies import ClassicalGoal, FollowGoal, MixedGoal, MixedTarget, no_view
from hrl_sarp.envs.rollout import HierarchicalPolicy
from hrl_sarp.errors import CheckpointError, MarketError
from hrl_sarp.evaluation.policies import trained_policies
from hrl_sarp.known_markets.two_level_study import write_untrained
from hrl_sarp.risk import risk_tables
from hrl_sarp.run.files import read_json
from hrl_sarp.run.phases import CERTIFICATION, PHASES
from hrl_sarp.run.trials import Span, Trial, TrialLog, prices_hash
from hrl_sarp.training.certify import (
    Learned,
    certify,
    grant,
    inner_market,
    inner_splits,
    read_certification,
    shortened,
    splits_with_room,
    tuned_before,
)
from hrl_sarp.training.phase import PhaseContext
from hrl_sarp.training.selection.validation import daily_objective
from tests import factories, tiny_runs

PURGE = 21
SETTINGS = CertificationConfig(
    folds=4, seeds=3, phases=2, length=0.5, first_share=0.4, validation_share=0.2
)


def folds(**values: Any) -> CertificationConfig:
    return SETTINGS.model_copy(update=values)


# ---- folds


@pytest.mark.parametrize("n_folds", [1, 3, 4, 7])
@pytest.mark.parametrize("span", [DayRange(0, 2000), DayRange(252, 3777)])
def test_folds_expand_are_purged_and_end_with_the_training_span(
    n_folds: int, span: DayRange
) -> None:
    splits = inner_splits(span, folds(folds=n_folds), PURGE)
    assert len(splits) == n_folds
    assert splits[0].test.start == span.start + round(0.4 * len(span))
    assert splits[-1].test.stop == span.stop
    for earlier, later in pairwise(splits):
        assert earlier.test.stop == later.test.start
        assert len(earlier.train) < len(later.train)
    for split in splits:
        assert split.train.start == span.start
        assert split.train.stop + PURGE == split.validation.start
        assert split.validation.stop + PURGE == split.test.start
        share = (split.test.start - split.validation.start) / (split.test.start - span.start)
        assert share == pytest.approx(0.2, abs=1e-3)
    assert max(len(s.test) for s in splits) - min(len(s.test) for s in splits) <= 1


def test_a_training_span_that_is_too_short_is_refused_with_the_cure() -> None:
    with pytest.raises(
        MarketError,
        match=r"4 folds of a training span of 300 .*take fewer folds .* or a longer span$",
    ):
        inner_splits(DayRange(0, 300), SETTINGS, PURGE)


@pytest.mark.parametrize(
    ("validation_share", "n_folds", "short"),
    [(0.9, 1, "train"), (0.05, 1, "validation"), (0.3, 15, "test")],
)
def test_no_part_of_an_inner_fold_may_be_too_short(
    validation_share: float, n_folds: int, short: str
) -> None:
    # the purge of 21 asks for 63 sessions: 800 before the first test leave 80 - 21 to train, or
    # 40 - 21 to validate; 900 after 600 leave 60 to test
    settings = folds(folds=n_folds, validation_share=validation_share)
    span = DayRange(0, 2000) if short != "test" else DayRange(0, 1500)
    with pytest.raises(MarketError, match=r"expected at least \d+ each"):
        inner_splits(span, settings, PURGE)


def test_parts_of_an_inner_fold_may_be_as_short_as_three_purges() -> None:
    # 80 before the test: 40 - 10 to train, 40 - 10 to validate; 30 left to test
    settings = folds(folds=1, first_share=80 / 110, validation_share=0.5)
    (split,) = inner_splits(DayRange(0, 110), settings, 10)
    assert [len(split.train), len(split.validation), len(split.test)] == [30, 30, 30]
    with pytest.raises(MarketError, match="at least 33 each"):
        inner_splits(DayRange(0, 110), settings, 11)


def draw_episodes(whole: PhaseContext, splits: list[Split]) -> None:
    for split in splits:
        make_starts(whole.tensors, whole.config, "macro", split.train)
        make_starts(whole.tensors, whole.config, "micro", split.train)


@pytest.mark.parametrize(("asked", "found"), [(1, 1), (3, 3), (40, None), (400, None)])
def test_a_short_training_span_gets_the_folds_that_it_has_room_for(
    asked: int, found: int | None, tmp_path: Path
) -> None:
    short = context(tmp_path, folds=asked)
    splits = splits_with_room(short)
    assert len(splits) == (found or len(splits))
    assert 1 <= len(splits) < 40
    span = short.market.split.train
    assert splits == inner_splits(span, folds(folds=len(splits), validation_share=0.4), 6)
    if found is None:  # one fold more has no room
        more = folds(folds=len(splits) + 1, validation_share=0.4)
        with pytest.raises(MarketError):
            draw_episodes(short, inner_splits(span, more, 6))


def test_without_room_for_a_fold_validation_decides(tmp_path: Path) -> None:
    short = context(tmp_path, folds=4, first_share=0.02)
    assert splits_with_room(short) == []
    write_untrained(short, (1, 2))
    assert not certify(short).is_inner


def test_an_inner_market_is_scaled_by_its_own_training_span() -> None:
    market = tiny_runs.tiny_market(n_days=400)
    config = tiny_runs.tiny_config(objective={"kind": "risk"})
    outer = replace(market, risk=risk_tables(market, config))
    split = inner_splits(market.split.train, folds(folds=2), 4)[0]
    inner = inner_market(outer, split, config)
    assert inner.split == split
    assert inner.risk is not None
    assert not np.array_equal(inner.risk.inputs, outer.risk.inputs)
    expected = risk_tables(replace(market, split=split), config)
    np.testing.assert_array_equal(inner.risk.inputs, expected.inputs)
    # nothing after the fold moves what it sees
    rows = np.arange(market.n_days) >= split.test.stop
    later = np.where(rows[:, None], 0.0, market.intraday_return)
    changed = inner_market(replace(outer, intraday_return=later), split, config)
    assert changed.risk is not None
    seen = slice(0, split.test.stop)
    np.testing.assert_array_equal(inner.risk.inputs[seen], changed.risk.inputs[seen])


def test_an_inner_training_is_the_same_recipe_but_shorter() -> None:
    config = tiny_runs.tiny_config()
    short = shortened(config, 7, folds(length=0.5))
    assert short.seed == 7
    assert short.macro_agent.ppo.total_timesteps == 24
    assert short.micro_agent.td3.total_timesteps == 96
    assert short.micro_agent.td3.learning_starts == 24
    assert short.curriculum.joint.micro_steps == 48
    assert short.macro_agent.gradient.epochs == round(config.macro_agent.gradient.epochs / 2)
    assert shortened(config, config.seed, folds(length=1.0)) == config


# ---- shares


class Always:
    """Wants one sector."""

    def __init__(self, sector: int) -> None:
        self.weights = torch.eye(2)[sector]

    def goal(self, observation: Any) -> Goal:
        weights = self.weights.expand(len(observation["day"]), -1)
        return Goal(weights, torch.zeros(len(weights)), no_view(weights))


class First:
    """Holds the first stock of each sector."""

    def target(self, observation: Any) -> torch.Tensor:
        return torch.tensor([[0.5, 0.0, 0.5, 0.0]]).expand(len(observation["day"]), -1)


@pytest.fixture(scope="module")
def two_sectors() -> tuple[RunConfig, Any]:
    """Sector 0 earns more than sector 1, the first stock of each less than the second."""
    rng = np.random.default_rng(5)
    drift = [0.0010, 0.0030, -0.0030, -0.0010]
    moves = np.array(drift) + rng.normal(0, 0.001, (70, 4))
    market = factories.market_with(np.zeros((70, 4)), moves, [0, 0, 1, 1])
    few = {"acceptance": {"shares": [0.0, 1.0], "block_days": 5, "samples": 200}}
    config = tiny_runs.tiny_config(objective={"kind": "growth"}, curriculum=few)
    config = config.model_copy(
        update={"risk": factories.risk_config(stock_cap=1.0, sector_cap=1.0)}
    )
    return config, tiny_runs.tensors_of(market)


def learned(tensors: Any, macro: Any, micro: Any, n_folds: int = 2) -> list[Learned]:
    edges = np.linspace(5, 65, n_folds + 1).astype(int).tolist()
    spans = [DayRange(a, b) for a, b in pairwise(edges)]
    return [Learned(f"fold {n}", 0, tensors, span, macro, micro) for n, span in enumerate(spans)]


def test_what_earns_is_granted_in_full_and_what_loses_not_at_all(two_sectors: Any) -> None:
    config, tensors = two_sectors
    follow = FollowGoal(tensors, config.risk)
    good = grant(learned(tensors, Always(0), follow), config, is_inner=True)
    assert (good.macro.granted, good.micro.granted) == (1.0, 0.0)
    assert good.micro.evidence[-1].mean_pct == 0.0  # the rule itself
    bad = grant(learned(tensors, Always(1), First()), config, is_inner=True)
    assert (bad.macro.granted, bad.micro.granted) == (0.0, 0.0)
    assert bad.macro.asked == bad.micro.asked == 0.0
    assert (bad.macro.n_folds, bad.macro.n_series) == (2, 2)
    assert config.curriculum.acceptance.confidence == 0.9  # for both levels, each at half the error
    assert good.macro.confidence == good.micro.confidence == pytest.approx(0.95)


def test_a_tuned_configuration_has_to_gain_more(two_sectors: Any) -> None:
    config, tensors = two_sectors
    pairs = learned(tensors, Always(0), FollowGoal(tensors, config.risk))
    plain, tuned = (grant(pairs, config, is_inner=True, n_tuned=n) for n in (0, 40))
    # 10 % of error for two levels and forty configurations
    assert tuned.macro.confidence == pytest.approx(1 - 0.1 / 2 / 40)
    assert tuned.macro.evidence[-1].mean_pct == plain.macro.evidence[-1].mean_pct
    assert tuned.macro.evidence[-1].lower_pct < plain.macro.evidence[-1].lower_pct
    told = " ".join(tuned.sentences())
    assert "split among 40 configurations that were tuned on these sessions" in told
    assert "at 99.88% confidence" in told
    assert "tuned" not in " ".join(plain.sentences())
    assert grant(pairs, config, is_inner=True, n_tuned=1).macro == plain.macro


def test_what_was_tuned_on_training_and_validation_is_counted_once(tmp_path: Path) -> None:
    market, log = tiny_runs.tiny_market(), TrialLog(tmp_path / "trials.jsonl")
    inside, outside = Span.of(market, "validation"), Span.of(market, "test")
    where = prices_hash(market)
    for config, span, kind in (
        *(("a", inside, "tuning"), ("a", inside, "tuning"), ("b", inside, "tuning")),
        *(("c", outside, "tuning"), ("d", inside, "selection")),
    ):
        log.add(Trial(kind, "x", config, where, span, "score", 0.1, seed=0))
    log.add(Trial("tuning", "x", "e", "other prices", inside, "score", 0.1, seed=0))
    assert tuned_before(market, log) == 2


def test_the_micro_agent_is_evaluated_under_the_goals_that_are_deployed(two_sectors: Any) -> None:
    config, tensors = two_sectors
    pairs = learned(tensors, Always(0), First(), n_folds=1)
    found = grant(pairs, config, is_inner=True)
    assert found.macro.granted == 1.0
    policies = [
        HierarchicalPolicy("rule", Always(0), FollowGoal(tensors, config.risk)),
        HierarchicalPolicy("first", Always(0), First()),
    ]
    rule, first = daily_objective(tensors, config, policies, pairs[0].span)
    assert found.micro.evidence[-1].mean_pct == pytest.approx(252 * (first - rule).mean())


# ---- runs


def context(folder: Path, *, resume: bool = False, **certification: Any) -> PhaseContext:
    few = {
        "certification": {"length": 1.0, "validation_share": 0.4, **certification},
        "acceptance": {"shares": [0.0, 1.0], "samples": 200},
        "temperature_grid": [0.0, 1.0],
    }
    short = {"gradient": {"epochs": 1}}
    config = tiny_runs.tiny_config(
        data={"purge_days": 6}, curriculum=few, macro_agent=short, micro_agent=short
    )
    return tiny_runs.context_of(tiny_runs.tiny_market(n_days=300), config, folder, resume=resume)


ONE_FOLD = {"folds": 1, "seeds": 1, "phases": 2}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of phases 1 and 2, untrained, that was certified on an inner fold."""
    folder = tmp_path_factory.mktemp("certified")
    whole = context(folder, **ONE_FOLD)
    write_untrained(whole, (1, 2))
    certify(whole)
    return folder


def test_a_certified_run_deploys_both_agents_by_their_shares(pretrained: Path) -> None:
    seen = context(pretrained, **ONE_FOLD)
    path = pretrained / CERTIFICATION
    values = read_json(path, "certify")
    assert len(values["trainings"]) == values["macro"]["n_folds"] == 1
    found = read_certification(pretrained)
    assert found is not None
    assert found.is_inner
    assert found.sentences() == values["sentences"]
    half = replace(found.macro.evidence[-1], mean_pct=2.0, lower_pct=1.0, candidate=0.5)
    half_way = replace(found, macro=replace(found.macro, evidence=(found.macro.evidence[0], half)))
    policies, swaps = trained_policies(seen)
    assert [policy.name for policy in policies][:2] == ["certified", swaps.both]
    deployed = half_way.policy(
        "half", seen.tensors, seen.config, policies[1].macro, policies[1].micro
    )
    assert isinstance(deployed.macro, MixedGoal)
    assert isinstance(deployed.micro, MixedTarget)
    assert deployed.macro.shares == (0.5, 0.5)
    assert isinstance(deployed.macro.parts[0], ClassicalGoal)
    assert deployed.macro.parts[1] is policies[1].macro
    both = 1 - found.micro.granted, found.micro.granted
    assert deployed.micro.shares == tuple(share for share in both if share > 0)


def test_a_finished_certification_is_not_repeated_and_anothers_is_refused(
    pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrl_sarp.training.certify.run_phase", None)
    same = context(pretrained, **ONE_FOLD, resume=True)
    assert certify(same) == read_certification(pretrained)
    other = context(pretrained, **{**ONE_FOLD, "seeds": 2}, resume=True)
    with pytest.raises(CheckpointError, match=r"certification\.json is of a run with another"):
        certify(other)


def test_an_interrupted_certification_goes_on_where_it_was(
    pretrained: Path, tmp_path: Path
) -> None:
    killed = shutil.copytree(pretrained, tmp_path / "killed")
    (killed / CERTIFICATION).unlink()
    inner = killed / CERTIFICATION.parent / "fold_0_seed_0"
    shutil.rmtree(inner / PHASES[1].folder)
    first = inner / PHASES[0].folder / PHASES[0].best[0]
    written = first.stat().st_mtime_ns
    found = certify(context(killed, **ONE_FOLD, resume=True))
    assert found == read_certification(pretrained)
    assert first.stat().st_mtime_ns == written


def test_without_folds_the_runs_own_pair_is_evaluated_on_validation_and_says_so(
    pretrained: Path, tmp_path: Path
) -> None:
    own = context(tmp_path, folds=0)
    write_untrained(own, (1, 2))
    found = certify(own)
    assert not found.is_inner
    assert found.macro.n_sessions == len(own.market.split.validation) - 1
    assert "validation alone" in found.sentences()[0]
    own.forget_results(2)  # phase 2 begins anew: what was certified is about another agent
    assert read_certification(tmp_path) is None
