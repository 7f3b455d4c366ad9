"""The deployment study: each rule decides on one span and earns on the next one."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hrl_sarp.studies import Cell, Results
from hrl_sarp.training.acceptance import PairedDays
from tests import tiny_runs

RULE = tiny_runs.tiny_config().curriculum.acceptance.model_copy(
    update={"shares": [0.0, 0.5, 1.0], "samples": 200}
)


@pytest.fixture(scope="module")
def script(repository: Path) -> ModuleType:
    name = "certified_deployment"
    spec = importlib.util.spec_from_file_location(name, repository / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def gains(mean: float, noise: float, seed: int) -> dict[str, list[float]]:
    """Return 400 sessions of a learned policy's gains, % a day; a mixture has its share of them."""
    days = mean / 252 + noise * np.random.default_rng(seed).normal(size=400)
    days += mean / 252 - days.mean()
    return {f"{share:g}": (share * days).tolist() for share in (0.0, 0.5, 1.0)}


def results(first: dict[str, Any], second: dict[str, Any]) -> Results:
    """Two folds with one seed each: what was evaluated, and what the next span earns."""
    return Results({Cell("risk-2008", 0): first, Cell("risk-2010", 0): second}, {})


def test_each_rule_earns_what_its_share_earns_on_the_next_span(script: ModuleType) -> None:
    sure = {"evaluated": gains(5.0, 0.01, 1), "next": gains(4.0, 0.01, 2)}
    lucky = {"evaluated": gains(1.0, 0.5, 3), "next": gains(-6.0, 0.5, 4)}
    found = script.summarise(results(sure, lucky), ["risk-2008", "risk-2010"], RULE)
    rules = found["rules"]
    assert rules["always"] == pytest.approx({"mean_pct": -1.0, "worst_pct": -6.0, "deployed": 1.0})
    assert rules["best mean"] == rules["always"]  # both spans looked good
    own = {"mean_pct": 2.0, "worst_pct": 0.0, "deployed": 0.5}
    assert rules["certified, own span"] == pytest.approx(own)
    assert rules["never"] == {"mean_pct": 0.0, "worst_pct": 0.0, "deployed": 0.0}


def test_a_fold_may_use_what_was_evaluated_before_it_and_nothing_later(script: ModuleType) -> None:
    # the second fold's own span says nothing, but with the first one there is evidence enough
    sure = {"evaluated": gains(5.0, 0.01, 1), "next": gains(4.0, 0.01, 2)}
    weak = {"evaluated": gains(3.0, 0.3, 3), "next": gains(2.0, 0.1, 4)}
    folds = ["risk-2008", "risk-2010"]
    forwards = script.summarise(results(sure, weak), folds, RULE)["rules"]
    assert forwards["certified, all folds so far"]["mean_pct"] == pytest.approx(3.0)
    assert forwards["certified, own span"]["mean_pct"] == pytest.approx(2.0)
    backwards = script.summarise(results(weak, sure), folds, RULE)["rules"]
    assert backwards["certified, all folds so far"]["mean_pct"] == pytest.approx(2.0)


def test_noise_has_no_mean_and_is_rarely_granted_a_share(script: ModuleType) -> None:
    values = {share: np.array(days) for share, days in gains(30.0, 0.3, 5).items()}
    series = [PairedDays("one", 0, {float(share): days for share, days in values.items()})]
    assert script.noise_share(series, RULE) <= 0.16  # 0.1, two standard errors of 100 studies


def test_a_cell_has_the_spans_and_the_objective_of_its_name(script: ModuleType) -> None:
    study = script.Deployment(Path("data"), Path("logs"), 1)
    config = study.config(Cell("growth-2012", 4))
    assert (config.objective.kind, config.seed) == ("growth", 4)
    spans = config.market_profile.spans
    assert [str(day) for day in (spans.train.end, spans.validation.start, spans.test.end)] == [
        "2012-12-31",
        "2013-01-01",
        "2015-12-31",
    ]
    assert study.config(Cell("planted", 1)).market == "synthetic"
