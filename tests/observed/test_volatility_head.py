"""Heads of volatility: fitted on training alone, causal, made once, refused if they cannot be."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import STOCK_EMBEDDINGS, DayRange, Market
from hrl_sarp.data.quality.validation import read_validated
from hrl_sarp.encoders.embedding_table import embed_windows
from hrl_sarp.encoders.networks import EncoderKind
from hrl_sarp.encoders.stock_embeddings import embedding_job, read_frozen
from hrl_sarp.encoders.windows.panel import read_panel_bars
from hrl_sarp.errors import ConfigError, MarketError, MissingArtifactError
from hrl_sarp.features.labels import next_variance
from hrl_sarp.market.cache import assembled_market
from hrl_sarp.market.sector_table import market_fingerprint
from hrl_sarp.observed import stocks
from hrl_sarp.observed.forecasts import column_names
from hrl_sarp.observed.stocks import observed_words, with_stock_embeddings
from hrl_sarp.observed.volatility_head import (
    HORIZON,
    METRIC,
    VolatilityHead,
    fit_head,
    head_columns,
    labelled_weeks,
    past_volatility,
    qlike,
)
from hrl_sarp.run.trials import TrialLog
from hrl_sarp.studies.audit.rebuilt import Subject, check_embeddings
from hrl_sarp.studies.audit.spans import check_vintages
from hrl_sarp.studies.walk_forward.risk_seen import DIRECT, volatility_skill
from tests import tiny_runs
from tests.encoders import panels

CPU = panels.CPU
KINDS: tuple[EncoderKind, ...] = ("jade", "transformer")
PENALTIES = (1e-4, 0.1)
Seen = Callable[..., Market]


def showing(observe: str, forecaster: str = "none") -> RunConfig:
    """Return the small configuration with the heads of encoders, and a forecaster beside them."""
    panel = {**panels.SMALL_ENCODERS["panel"], "head_penalties": list(PENALTIES)}
    config = panels.small_config(observe=observe, shows="volatility", panel=panel)
    changed: RunConfig = tiny_runs.changed(config, {"forecasters": {"observe": forecaster}})
    return changed


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw data of the small market with both encoders; not to be changed."""
    found = panels.write_small_data(tmp_path_factory.mktemp("heads"))
    for kind in KINDS:
        panels.pretrain_small(kind, found, panels.small_config())
    return found


@pytest.fixture(scope="module")
def market(data_dir: Path) -> Market:
    return assembled_market(data_dir, panels.small_config())


@pytest.fixture(scope="module")
def seen(data_dir: Path, market: Market) -> Seen:
    """Return the market as heads show it."""

    def load(observe: str, forecaster: str = "none") -> Market:
        return with_stock_embeddings(market, data_dir, showing(observe, forecaster), CPU)

    return load


def table_of(found: Market) -> np.ndarray:
    assert found.stock_embeddings is not None
    return found.stock_embeddings


def head_of(found: Market, kind: str) -> VolatilityHead:
    return VolatilityHead.from_payload(found.manifest[STOCK_EMBEDDINGS]["heads"][kind])


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_made_of_bars_up_to_its_day_alone(
    kind: EncoderKind, seen: Seen, market: Market, data_dir: Path
) -> None:
    # every step is taken again with the bars cut off at the day, and each window by itself
    table, head = table_of(seen(kind)), head_of(seen(kind), kind)
    config = showing(kind)
    frozen = read_frozen(kind, market, data_dir, config)
    bars = read_panel_bars(data_dir, market, config)
    assert market.range_variance is not None
    days, columns = np.nonzero((market.eligible & market.tradable)[HORIZON:])
    days += HORIZON
    for at in np.linspace(0, len(days) - 1, 12).astype(int):
        day, stock = days[at], columns[at]
        known = panels.cut_off(bars, market.dates[day])
        job = embedding_job(frozen, known, market, config, CPU)
        own = known.instrument == bars.instruments.index(market.symbols[stock])
        start = np.flatnonzero(own)[-1:] - panels.LENGTH + 1
        alone = embed_windows(job, start)[0].numpy().astype(np.float64)
        said = 0.5 * (alone @ head.weights + head.level)
        week = slice(day - HORIZON + 1, day + 1)
        nights = np.log1p(market.overnight_return[week, stock]) ** 2
        past = 0.5 * np.log((nights + market.range_variance[week, stock]).mean())
        unit = head.standard
        expected = (np.array([said, said - past]) - unit.mean) / unit.deviation
        if not market.tradable[week, stock].all():
            expected[1] = 0.0
        np.testing.assert_allclose(
            table[day, stock], np.clip(expected, -unit.clip, unit.clip), atol=1e-4
        )
        assert abs(table[day, stock, 0]) > 1e-5


def spoiled_after(market: Market, embeddings: np.ndarray, t: int) -> tuple[Market, np.ndarray]:
    """Change all that a head could read after row t."""
    later = np.arange(market.n_days)[:, None] > t
    assert market.range_variance is not None
    other = replace(
        market,
        overnight_return=np.where(later, 0.3, market.overnight_return),
        range_variance=np.where(later, 0.5, market.range_variance),
        tradable=np.where(later, market.listed, market.tradable),
        eligible=np.where(later, market.listed, market.eligible),
    )
    return other, np.where(later[..., None], 1.0, embeddings).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_after_the_training_span_moves_a_head(
    kind: EncoderKind, data_dir: Path, market: Market
) -> None:
    plain = with_stock_embeddings(market, data_dir, panels.small_config(observe=kind), CPU)
    embeddings, panel = np.array(table_of(plain)), showing(kind).encoders.panel
    expected = fit_head(kind, embeddings, market, panel, "it").to_payload()
    end = market.split.train.stop - 1
    other, changed = spoiled_after(market, embeddings, end)
    assert fit_head(kind, changed, other, panel, "it").to_payload() == expected
    other, changed = spoiled_after(market, embeddings, end - HORIZON)
    assert fit_head(kind, changed, other, panel, "it").to_payload() != expected


def test_labels_lie_inside_their_span(market: Market) -> None:
    variance = next_variance(market, HORIZON)
    for span in (market.split.train, market.split.validation):
        rows, counts = labelled_weeks(market, span, variance)
        assert rows.min() >= span.start
        assert rows.max() + HORIZON < span.stop
        assert market.is_week_end[rows].all()
        assert counts.any(axis=1).all()


@pytest.fixture(scope="module")
def waves() -> Market:
    """A market whose stocks swing between calm and wild months, all at other times."""
    plain = tiny_runs.tiny_market(n_days=600)
    rng = np.random.default_rng(3)
    phase = rng.uniform(0, 2 * np.pi, plain.n_assets)
    deviation = 0.01 * np.exp(np.sin(np.arange(plain.n_days)[:, None] / 20 + phase))
    returns = np.where(plain.tradable, deviation * rng.normal(size=deviation.shape), 0.0)
    return replace(
        plain,
        overnight_return=np.zeros_like(returns),
        intraday_return=np.expm1(returns),
        range_variance=None,
        manifest={**plain.manifest, "deviation": deviation},
    )


def embeddings_with(market: Market, signal: float) -> np.ndarray:
    """Draw embeddings whose first column is the log of the deviation to come, as far as known."""
    noise = np.random.default_rng(7).normal(size=(*market.tradable.shape, 3))
    deviation = market.manifest["deviation"]
    ahead = np.stack([np.roll(deviation, -k, axis=0) for k in range(1, HORIZON + 1)])
    noise[..., 0] = signal * 0.5 * np.log((ahead**2).mean(axis=0)) + (1 - signal) * noise[..., 0]
    return noise.astype(np.float32)


def fitted(market: Market, embeddings: np.ndarray, *penalties: float) -> VolatilityHead:
    values = {**panels.SMALL_ENCODERS["panel"], "head_penalties": list(penalties or PENALTIES)}
    panel = panels.small_config(panel=values).encoders.panel
    return fit_head("jade", embeddings, market, panel, "drawn")


def test_a_head_finds_the_column_that_knows(waves: Market) -> None:
    head = fitted(waves, embeddings_with(waves, 1.0))
    # the log of the mean of five squared normals lies below that of their variance by a constant
    np.testing.assert_allclose(head.weights, [2.0, 0.0, 0.0], atol=0.1)
    assert head.penalty == PENALTIES[0]


def test_the_last_part_of_training_chooses_the_penalty(waves: Market) -> None:
    # what a head makes of noise is worse on other rows than nothing; what it makes of truth is not
    shape = (*waves.tradable.shape, 7)
    draws = [np.random.default_rng(seed).normal(size=shape).astype(np.float32) for seed in range(5)]
    few = replace(waves, eligible=waves.eligible & (np.arange(waves.n_assets) < 8))
    assert [fitted(few, noise, 1e-6, 1e3).penalty for noise in draws].count(1e3) >= 4
    assert fitted(waves, embeddings_with(waves, 1.0), 1e3, 1e-6).penalty == 1e-6


def test_each_penalty_is_a_line_of_the_trial_log(waves: Market) -> None:
    fitted(waves, embeddings_with(waves, 1.0), 1e-4, 1e-2, 1.0)
    trials = TrialLog().trials(metric=METRIC)
    assert [trial.name.split(", ")[1] for trial in trials] == [
        f"penalty {penalty}" for penalty in ("0.0001", "0.01", "1")
    ]
    last = trials[0].span.last
    assert last == str(waves.dates[waves.split.train.stop - 1])
    assert all(trial.value is not None and trial.value > 0.0 for trial in trials)


def test_qlike_by_hand() -> None:
    # e - 2 where the variance that came is e times the forecast, 0 where they agree
    found = qlike(np.array([1.0, 0.0]), np.array([0.0, 0.0]), 1.0)
    np.testing.assert_allclose(found, [np.e - 2.0, 0.0])
    np.testing.assert_allclose(qlike(np.log([3.0]), np.log([1.5]), 2.0), 0.0, atol=1e-15)


def test_a_history_that_is_too_short_is_refused(waves: Market) -> None:
    train = waves.split.train
    short = replace(waves.split, train=DayRange(train.start, train.start + 30))
    with pytest.raises(MarketError, match=r"shows: volatility: expected at least 30 windows"):
        fitted(replace(waves, split=short), embeddings_with(waves, 1.0))


def test_what_is_not_known_shows_zeros(seen: Seen, market: Market) -> None:
    table = table_of(seen("transformer"))
    shown = np.abs(table[:, :, 0]) > 0
    np.testing.assert_array_equal(shown, market.eligible & market.tradable)
    assert not table[~shown].any()
    unknown = shown & np.isnan(past_volatility(market))
    assert unknown.any()
    assert not table[unknown][:, 1].any()


@pytest.mark.parametrize("kind", KINDS)
def test_columns_have_one_scale_over_the_training_span(
    kind: str, seen: Seen, market: Market
) -> None:
    span = slice(market.split.train.start, market.split.train.stop)
    known = table_of(seen(kind))[span]
    known = known[(known != 0).all(axis=2)]
    np.testing.assert_allclose(known.mean(axis=0), 0.0, atol=0.1)
    np.testing.assert_allclose(known.std(axis=0), 1.0, atol=0.1)


def test_two_heads_and_a_rule_stand_side_by_side(seen: Seen) -> None:
    whole = seen("both", "har")
    parts = [table_of(seen(kind)) for kind in KINDS]
    np.testing.assert_array_equal(table_of(whole)[:, :, :4], np.concatenate(parts, axis=2))
    names = tuple(whole.manifest[STOCK_EMBEDDINGS]["names"])
    assert names == (*head_columns("jade"), *head_columns("transformer"), *column_names("har"))
    assert table_of(whole).shape[2] == len(names)


def test_agents_of_embeddings_are_told_from_those_of_a_head(
    seen: Seen, market: Market, data_dir: Path
) -> None:
    plain = with_stock_embeddings(market, data_dir, panels.small_config(observe="jade"), CPU)
    found = [plain, seen("jade"), seen("transformer"), seen("jade", "har")]
    assert len({market_fingerprint(each) for each in found}) == len(found)
    assert observed_words(showing("jade", "har")) == "jade-volatility+har"


def test_a_head_is_fitted_once(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    first = seen("transformer")

    def refuse(*_: object) -> None:
        raise AssertionError("the table is on disk")

    monkeypatch.setattr(stocks, "fit_head", refuse)
    monkeypatch.setattr(stocks, "read_panel_bars", refuse)
    again = seen("transformer")
    np.testing.assert_array_equal(table_of(again), table_of(first))
    assert head_of(again, "transformer").to_payload() == head_of(first, "transformer").to_payload()


def test_other_penalties_make_another_table(market: Market, data_dir: Path, seen: Seen) -> None:
    config = tiny_runs.changed(
        showing("transformer"), {"encoders": {"panel": {"head_penalties": [10.0]}}}
    )
    other = with_stock_embeddings(market, data_dir, config, CPU)
    assert head_of(other, "transformer").penalty == 10.0
    assert other.embeddings_hash != seen("transformer").embeddings_hash


def test_what_a_head_says_alone_is_measured(seen: Seen, market: Market) -> None:
    found = seen("transformer")
    skill = volatility_skill(found)
    head = head_of(found, "transformer")
    raw = table_of(found)[:, :, 0] * head.standard.deviation[0] + head.standard.mean[0]
    parts = [
        (2.0 * raw[rows], np.log(np.where(counts, variance[rows], 1.0)), counts)
        for variance in (next_variance(market, HORIZON),)
        for span in (market.split.train, market.split.validation)
        for rows, counts in (labelled_weeks(market, span, variance),)
    ]
    (said, truth, counts), (asked, came, counted) = parts
    factor = np.exp(truth - said)[counts].mean()
    ratio = np.exp(came - asked) / factor
    losses = ratio - np.log(ratio) - 1.0
    weeks = [row[here].mean() for row, here in zip(losses, counted, strict=True) if here.any()]
    np.testing.assert_allclose(skill[DIRECT]["qlike"], weeks)


def test_a_missing_encoder_names_the_command(tmp_path: Path) -> None:
    there = panels.write_small_data(tmp_path)
    config = showing("transformer")
    with pytest.raises(MissingArtifactError, match="pretrain-encoder --encoder transformer"):
        with_stock_embeddings(assembled_market(there, config), there, config, CPU)


def test_a_head_without_an_encoder_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"shows: volatility needs an encoder.*observe: none"):
        load_config(overrides={"encoders": {"shows": "volatility"}})


def test_the_audit_follows_windows_and_names_the_days_that_a_head_has_seen(
    seen: Seen, data_dir: Path
) -> None:
    raw, report = read_validated(data_dir, showing("transformer"))
    subject = Subject.of(raw, showing("transformer"), report)
    assert check_embeddings(subject, subject.rows[-1:]).result == "ok"
    found = seen("transformer")
    end = found.dates[found.split.train.stop - 1]
    check = check_vintages(found, "", ())
    assert check.result == "ok"
    assert f"transformer head to {end}" in check.where
    facts = found.manifest[STOCK_EMBEDDINGS]
    later = {**facts, "fitted_to": {"transformer head": str(end + 1)}}
    late = replace(found, manifest={**found.manifest, STOCK_EMBEDDINGS: later})
    assert check_vintages(late, "", ()).result == "leak"
