"""Agents that observe encoders, or heads on them, decide on new days as on those of their run."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch

from hrl_sarp.contracts import STOCK_EMBEDDINGS, DayRange, Market
from hrl_sarp.daily.market import TrainedRun, read_today
from hrl_sarp.daily.paper.account import PaperAccount
from hrl_sarp.daily.paper.step import markets_of, open_account, step_account
from hrl_sarp.data.known_at import as_of
from hrl_sarp.data.store import write_raw
from hrl_sarp.encoders.embedding_table import EmbeddingJob, embed_windows
from hrl_sarp.encoders.stock_embeddings import EMBEDDINGS, embedding_job, read_frozen
from hrl_sarp.encoders.windows.panel import read_panel_bars
from hrl_sarp.errors import CheckpointError
from hrl_sarp.evaluation.backtest import backtest
from hrl_sarp.market.cache import assembled_market
from hrl_sarp.observed import continued
from hrl_sarp.observed.stocks import kept_sources, with_stock_embeddings
from hrl_sarp.observed.volatility_head import VolatilityHead, past_volatility
from hrl_sarp.run.checkpoints import load_payload, save_payload
from hrl_sarp.run.phases import best_file
from tests.command_line import Command, assert_refused
from tests.daily.conftest import QUIET, SETTINGS, Site, make_site
from tests.daily.paper.conftest import NOW
from tests.daily.test_market import decided
from tests.encoders import panels


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A run of agents that observe both encoders; a test must not change it."""
    return make_site(tmp_path_factory.mktemp("observed"), "both")


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A run of agents that observe what heads on both encoders say; a test must not change it."""
    return make_site(tmp_path_factory.mktemp("heads"), "both", shows="volatility")


@pytest.fixture(params=["both", "heads"])
def own(request: pytest.FixtureRequest) -> Site:
    """Each of these runs."""
    found: Site = request.getfixturevalue(request.param)
    return found


def embeddings_of(market: Market) -> np.ndarray:
    assert market.stock_embeddings is not None
    return market.stock_embeddings


def beside(site: Site, folder: Path, day: date) -> Path:
    """Write the data up to a day, with the run's table of embeddings beside them."""
    there = folder / str(day) / "raw"
    write_raw(as_of(site.raw, day), there)
    shutil.copytree(site.history.parent / EMBEDDINGS, there.parent / EMBEDDINGS)
    return there


def test_a_decision_is_the_same_on_data_that_end_with_its_day(own: Site, tmp_path: Path) -> None:
    whole = own.today()
    for day in own.later_days[2::23]:
        cut, alone = own.today(day), own.today(data_dir=beside(own, tmp_path, day))
        row = cut.market.n_days
        for other in (cut, alone):
            assert other.fingerprint == cut.fingerprint
            # stocks that were listed later have no column yet
            columns = [whole.market.symbols.index(s) for s in other.market.symbols]
            expected = embeddings_of(whole.market)[:row, columns]
            np.testing.assert_array_equal(embeddings_of(other.market), expected)
            assert decided(other, day) == decided(whole, day)


@pytest.mark.parametrize("kind", ["jade", "transformer"])
def test_a_later_row_is_the_window_that_ends_on_its_day(kind: str, both: Site) -> None:
    """Embedded by the encoder beside the data of the training, which the run has kept."""
    today = both.today()
    market, config = today.market, both.config
    trained_on = assembled_market(both.history, config)
    frozen = read_frozen(kind, trained_on, both.history, config)
    bars = read_panel_bars(both.whole, market, config)
    job = embedding_job(frozen, bars, market, config, torch.device("cpu"))
    first = 0 if kind == "jade" else panels.SMALL_ENCODERS["panel"]["embedding_size"]
    columns = slice(first, first + job.shape[2])
    later = market.dates > np.datetime64(today.run.origin.last_day)
    for day in np.flatnonzero(later)[::17]:
        stocks = np.flatnonzero(job.starts[day] >= 0)
        alone = embed_windows(job, job.starts[day, stocks]).numpy()
        found = embeddings_of(market)[day]
        np.testing.assert_array_equal(found[stocks, columns], alone)
        assert np.abs(alone).max() > 1e-3
        rest = np.setdiff1d(np.arange(market.n_assets), stocks)
        assert not found[rest].any()


def test_days_that_the_run_had_keep_their_rows(own: Site) -> None:
    known = assembled_market(own.history, own.config)
    known = with_stock_embeddings(known, own.history, own.config, panels.CPU)
    market = own.today().market
    shared = [market.symbols.index(symbol) for symbol in known.symbols]
    found = embeddings_of(market)[: known.n_days, shared]
    np.testing.assert_array_equal(found, embeddings_of(known))
    assert market.embeddings_hash == known.embeddings_hash


def test_a_later_row_is_what_the_head_of_the_run_says(heads: Site) -> None:
    """Embedded and put into words by what the run has kept, whatever the later days hold."""
    today = heads.today()
    market, config = today.market, heads.config
    trained_on = assembled_market(heads.history, config)
    shown = with_stock_embeddings(trained_on, heads.history, config, panels.CPU)
    bars, past = read_panel_bars(heads.whole, market, config), past_volatility(market)
    for place, (kind, payload) in enumerate(shown.manifest[STOCK_EMBEDDINGS]["heads"].items()):
        frozen = read_frozen(kind, trained_on, heads.history, config)
        job = embedding_job(frozen, bars, market, config, torch.device("cpu"))
        head = VolatilityHead.from_payload(payload)
        columns = slice(2 * place, 2 * place + 2)
        later = market.dates > np.datetime64(today.run.origin.last_day)
        for day in np.flatnonzero(later)[::17]:
            stocks = np.flatnonzero(job.starts[day] >= 0)
            alone = embed_windows(job, job.starts[day, stocks]).numpy()
            found = embeddings_of(market)[day]
            np.testing.assert_array_equal(found[stocks, columns], head(alone, past[day, stocks]))
            assert np.abs(found[stocks, columns]).max() > 1e-3
            assert not np.delete(found, stocks, axis=0).any()


def test_an_account_of_fractions_is_the_backtest(both: Site, tmp_path: Path) -> None:
    path, start = tmp_path / "paper.sqlite", both.later_days[5]
    open_account(path, [both.run_dir], both.whole, QUIET, 1e5, None, NOW, start)
    with PaperAccount.open(path) as account:
        markets = markets_of(account, both.whole, QUIET)
        step_account(account, markets, QUIET, NOW)
        days, view = account.days, markets.view
    rows = DayRange(view.row(start), view.market.n_days)
    ledger = backtest(view.market, [view.policy], rows, view.todays[0].run.config)
    assert [day.item() for day in ledger.dates] == [day.day for day in days[1:]]
    for name in ("net_return", "cost", "turnover"):
        own = np.array([getattr(day, name) for day in days[1:]])
        assert np.abs(own - getattr(ledger, name)[:, 1]).max() < 1e-9


def test_what_encoders_see_is_a_reason_and_may_drift(
    both: Site, command: Command, tmp_path: Path
) -> None:
    day = both.later_days[-2]
    code, out, err = command(
        *("decide", "--log-dir", both.run_dir, "--data-dir", both.whole, "--as-of", day),
        *("--output", tmp_path, "--accept-drift", "--json"),
    )
    assert code == 0, err
    found = json.loads(out)
    assert "encoders" in {effect["group"] for effect in found["why"]["effects"]}
    assert "embedding 7, change" in found["drift"]
    assert "embedding 8" not in found["drift"]


def test_windows_are_embedded_once(both: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = embeddings_of(both.today().market)

    def refuse(*_: object) -> None:
        raise AssertionError("the rows of these windows are on the disk")

    monkeypatch.setattr(continued, "_one_day", refuse)
    np.testing.assert_array_equal(embeddings_of(both.today().market), before)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive"])
def test_a_damaged_file_of_later_rows_is_made_again(
    damage: bytes, both: Site, tmp_path: Path
) -> None:
    data_dir = beside(both, tmp_path, both.later_days[8])
    expected = embeddings_of(both.today(data_dir=data_dir).market)
    for path in data_dir.parent.glob(f"{EMBEDDINGS}/*{continued.LATER_DAYS}*"):
        path.write_bytes(damage)
    np.testing.assert_array_equal(embeddings_of(both.today(data_dir=data_dir).market), expected)


def test_corrected_bars_are_never_answered_by_kept_rows(
    both: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day, asked = both.later_days[8], list[int]()
    data_dir = beside(both, tmp_path, day)
    before = both.today(data_dir=data_dir).market
    bars = both.raw.bars.filter(both.raw.bars["date"] <= day).to_dicts()
    held = next(before.symbols[k] for k in before.slots[-1] if k >= 0)
    for row in bars:
        if row["symbol"] == held and row["date"] == day:
            row["volume"], row["high"] = 3 * row["volume"], 1.02 * row["high"]
    changed = dataclasses.replace(as_of(both.raw, day))
    frame = type(both.raw.bars)(bars, schema=both.raw.bars.schema)
    write_raw(dataclasses.replace(changed, bars=frame), data_dir)
    real = continued._one_day

    def counted(job: EmbeddingJob, starts: np.ndarray) -> np.ndarray:
        asked.append(len(starts))
        return real(job, starts)

    monkeypatch.setattr(continued, "_one_day", counted)
    after = both.today(data_dir=data_dir).market
    column = after.symbols.index(held)
    assert len(asked) == 2  # one day of each encoder
    assert (embeddings_of(after)[-1, column] != embeddings_of(before)[-1, column]).any()
    np.testing.assert_array_equal(embeddings_of(after)[:-1], embeddings_of(before)[:-1])


def test_a_folder_without_the_table_of_the_training_is_refused(
    both: Site, command: Command, tmp_path: Path
) -> None:
    day = both.later_days[3]
    write_raw(as_of(both.raw, day), tmp_path / "raw")
    given = ("--log-dir", both.run_dir, "--data-dir", tmp_path / "raw", "--as-of", day)
    result = command("decide", *given, "--output", tmp_path / "out")
    assert_refused(result, "observe embeddings", str(tmp_path / EMBEDDINGS), "copy its folder")
    assert not (tmp_path / "out").exists()


def spoiled(both: Site, folder: Path, change: Callable[[dict], None]) -> TrainedRun:
    """Copy the run, and change what it keeps of its encoders."""
    shutil.copytree(both.run_dir, folder)
    path = best_file(folder, 1, which=1)
    payload = load_payload(path)
    change(payload)
    save_payload(path, payload)
    return TrainedRun.read(folder)


def test_a_run_that_keeps_no_encoders_is_refused_by_name(both: Site, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"observe: both.*does not keep their encoders"):
        spoiled(both, tmp_path / "run", lambda payload: payload.pop("encoders"))


def test_encoders_of_other_sizes_are_refused(both: Site, tmp_path: Path) -> None:
    def shrink(payload: dict) -> None:
        weights = payload["encoders"]["encoders"]["jade"]["weights"]
        weights.update({name: value[:1] for name, value in weights.items()})

    run = spoiled(both, tmp_path / "run", shrink)
    with pytest.raises(CheckpointError, match="networks of other shapes"):
        read_today(run, both.whole, SETTINGS)


def test_an_encoder_that_was_pretrained_again_meanwhile_is_refused(tmp_path: Path) -> None:
    """Else the run would keep another encoder than that of the embeddings it was trained on."""
    both = make_site(tmp_path, "jade")
    market = assembled_market(both.history, both.config)
    market = with_stock_embeddings(market, both.history, both.config, panels.CPU)
    panels.pretrain_small("jade", both.history, both.config.model_copy(update={"seed": 9}))
    with pytest.raises(CheckpointError, match="pretrained again while agents were trained"):
        kept_sources(market, both.config)


def test_an_export_names_the_columns_of_the_encoders(
    both: Site, command: Command, tmp_path: Path
) -> None:
    given = ("--log-dir", both.run_dir, "--data-dir", both.whole, "--output", tmp_path / "out")
    code, out, err = command("export", *given)
    assert code == 0, err
    inputs = json.loads((tmp_path / "out" / "agents.json").read_text())["inputs"]["daily"]
    (features,) = (each for each in inputs if each["name"] == "features")
    size = 2 * panels.SMALL_ENCODERS["panel"]["embedding_size"]
    assert [c["name"] for c in features["columns"][-size:]] == [
        f"embedding {number}" for number in range(size)
    ]
    assert {c["scaling"] for c in features["columns"][-size:]} == {"stock embeddings"}
    assert features["shape"][-1] == len(features["columns"])
    assert "1 weekly and 1 daily networks" in out
