"""What a backtest writes to the trial log, and what the log does to its certificate."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrl_sarp.contracts import Market
from hrl_sarp.envs.rollout import Decision
from hrl_sarp.evaluation.backtest import BacktestResult, run_backtest
from hrl_sarp.evaluation.report.analysis import analyse
from hrl_sarp.evaluation.report.page import headline
from hrl_sarp.evaluation.trials import APPRAISAL, SELECTION, SpanHistory, record_selection
from hrl_sarp.run.files import write_json
from hrl_sarp.run.trials import Span, Trial, TrialLog, prices_hash
from tests import factories
from tests.evaluation.small_runs import ScriptedPolicy, small_config

CONFIG = small_config(baselines=["inverse_volatility"], random_portfolios=0)


@pytest.fixture(scope="module")
def market() -> Market:
    return factories.random_market(np.random.default_rng(5), n_days=200)


@pytest.fixture
def log(tmp_path: Path) -> TrialLog:
    return TrialLog(tmp_path / "trials.jsonl")


def leaning(slope: float) -> ScriptedPolicy:
    """Hold all stocks, later slots more."""

    def script(view: Any) -> Decision:
        usable = view.tradable[0].double()
        weights = usable * (1 + slope * usable.cumsum(0))
        return Decision(weights / weights.sum())

    return ScriptedPolicy("mine", script)


def run(market: Market, slope: float, log: TrialLog, **options: Any) -> BacktestResult:
    return run_backtest(market, [leaning(slope)], "test", CONFIG, log=log, **options)


def certificate(result: BacktestResult) -> tuple[float, float]:
    found = analyse(result).performances["mine"]
    return found["deflated_sharpe"], found["needed_appraisal_ratio"]


def test_every_row_is_written_with_its_ratio(market: Market, log: TrialLog) -> None:
    result = run(market, 0.1, log)
    rows = {trial.name: trial for trial in log.trials()}
    assert list(rows) == list(result.main.names)
    assert {name for name, row in rows.items() if row.kind == "backtest"} == {"mine"}
    mine = rows["mine"]
    assert mine.span == Span.of(market, "test")
    assert (mine.market, mine.seed) == (prices_hash(market), CONFIG.seed)
    assert mine.value == pytest.approx(
        analyse(result).performances["mine"]["appraisal_ratio"] / 252**0.5
    )


def test_the_same_policy_counts_once_and_a_changed_one_again(market: Market, log: TrialLog) -> None:
    first, again = run(market, 0.1, log), run(market, 0.1, log)
    assert (first.trials.count, first.history) == (1, SpanHistory(0, 0))
    assert (again.trials.count, again.history) == (1, SpanHistory(1, 1))
    assert certificate(first) == certificate(again)
    changed = run(market, 0.2, log)
    assert (changed.trials.count, changed.history) == (2, SpanHistory(2, 1))
    assert len(changed.trials.ratios) == 2


def test_earlier_trials_on_the_span_lower_the_deflated_sharpe(
    market: Market, log: TrialLog
) -> None:
    alone = certificate(run(market, 0.1, log))
    where, span = prices_hash(market), Span.of(market, "test")
    for i in range(30):
        log.add(Trial("study", "x", f"{i}", where, span, "growth", None, seed=0))
    among_many = run(market, 0.1, log)
    assert among_many.trials.count == 31
    assert certificate(among_many)[0] < alone[0]
    assert certificate(among_many)[1] > alone[1]
    told = run(market, 0.1, log, n_trials=9)
    assert told.trials.count == 40
    text = " ".join(headline(told, analyse(told)))
    assert "test span was opened 32 times before, by 31 configurations" in text
    assert f"{certificate(told)[1]:.2f} is needed, corrected for 40 configurations" in text


def test_trials_on_other_spans_and_markets_do_not(market: Market, log: TrialLog) -> None:
    validation, test = Span.of(market, "validation"), Span.of(market, "test")
    log.add(Trial("selection", "x", "a", prices_hash(market), validation, "growth", 0.1, seed=0))
    log.add(Trial("study", "x", "b", "another market", test, "growth", 0.1, seed=0))
    found = run(market, 0.1, log)
    assert (found.trials.count, found.history) == (1, SpanHistory(0, 0))


def test_what_validation_chose_from_is_written_once(
    market: Market, log: TrialLog, tmp_path: Path
) -> None:
    folders = {1: "pretrain_macro", 3: "phase3_macro", 4: "phase4_micro"}
    write_json(
        tmp_path / folders[1] / "pretrain_macro_metrics.json",
        {"temperatures": {"0.5": 0.1, "1.0": -0.2}},
    )
    history = [{"step": 0, "macro/loss": 1.0}, {"step": 0, "eval/objective_pct": 0.3}]
    write_json(
        tmp_path / folders[3] / "phase3_macro_metrics.json",
        {"n_evaluations": 1, "history": history},
    )
    write_json(tmp_path / folders[4] / "phase4_micro_metrics.json", {"n_evaluations": 2})
    record_selection(tmp_path, market, CONFIG, log)
    record_selection(tmp_path, market, CONFIG, log)
    found = {trial.name: trial.value for trial in log.trials(Span.of(market, "validation"))}
    assert found == {
        "phase 1, temperature 0.5": 0.1,
        "phase 1, temperature 1.0": -0.2,
        "phase 3, evaluation 0": 0.3,
        "phase 4, evaluation 0": None,
        "phase 4, evaluation 1": None,
    }
    assert len(log.trials(metric=SELECTION)) == len(log.trials()) == 5
    chosen = run_backtest(market, [leaning(0.1)], "validation", CONFIG, log=log)
    assert chosen.trials.count == 6
    assert len(chosen.trials.ratios) == len(log.trials(metric=APPRAISAL)) - len(
        [t for t in log.trials() if t.kind == "baseline"]
    )


def test_the_first_look_and_a_missing_log_are_said(market: Market, log: TrialLog) -> None:
    first = run(market, 0.1, log)
    assert "opened for the first time" in " ".join(headline(first, analyse(first)))
    unlogged = run_backtest(market, [leaning(0.1)], "test", CONFIG)
    assert unlogged.trials.count == 1
    assert "Without a trial log" in " ".join(headline(unlogged, analyse(unlogged)))
