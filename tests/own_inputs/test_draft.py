"""`init --input` describes the market of the user's files; collect-data says what train refuses."""

import shlex
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from hrl_sarp.cli.options import read_config
from hrl_sarp.config.loading import load_config
from hrl_sarp.data.exchange_calendar import sessions_between
from hrl_sarp.data.sources.files import folder
from hrl_sarp.market.own.draft import CALENDARS, draft_profile, guess_calendar, with_guesses
from tests.command_line import Command, assert_refused

SPAN = date(2015, 1, 1), date(2018, 12, 31)
N_STOCKS = 6


def written(where: Path, sectors: list[str], n_days: int = 900) -> Path:
    """Write closes of six stocks on the first sessions of Bombay, and their sectors."""
    where.mkdir(parents=True)
    days = sessions_between("XBOM", *SPAN)[:n_days]
    moves = np.random.default_rng(3).normal(0.0003, 0.01, (len(days), N_STOCKS))
    closes = 100 * np.exp(moves.cumsum(axis=0))
    names = [f"S{number}" for number in range(N_STOCKS)]
    bars = pl.DataFrame(
        {
            "date": np.tile(days, N_STOCKS),
            "symbol": np.repeat(names, len(days)),
            "close": closes.T.ravel(),
            "Mood": np.ones(closes.size),
        }
    )
    bars.write_csv(where / "prices.csv")
    table = {"symbol": names, "sector": [sectors[i % len(sectors)] for i in range(N_STOCKS)]}
    pl.DataFrame(table).write_csv(where / "sectors.csv")
    return where


@pytest.mark.parametrize("calendar", ["XNYS", "XBOM", "XLON", "XTKS", "24/7"])
def test_the_calendar_is_that_of_the_days_although_some_are_missing(calendar: str) -> None:
    days = sessions_between(calendar, *SPAN)
    some = days[np.random.default_rng(0).random(len(days)) < 0.98]
    found = guess_calendar(some)
    assert (found.name, found.are_sessions) == (calendar, 1.0)
    assert found.are_in_data == pytest.approx(len(some) / len(days), abs=0.002)


@pytest.mark.parametrize("name", CALENDARS)
def test_every_candidate_is_found_by_its_own_sessions(name: str) -> None:
    days = sessions_between(name, date(2022, 1, 1), date(2025, 12, 31))
    found = guess_calendar(days)
    assert (found.are_sessions, found.are_in_data) == (1.0, 1.0)
    assert np.array_equal(sessions_between(found.name, date(2022, 1, 1), date(2025, 12, 31)), days)


@pytest.mark.parametrize("first", [1962, 1971, 1985, 1990])
@pytest.mark.parametrize("share", [1.0, 0.97])
def test_days_before_the_first_recorded_ones_of_some_candidates(first: int, share: float) -> None:
    days = sessions_between("XNYS", date(first, 1, 1), date(first + 25, 6, 30))
    some = days[np.random.default_rng(1).random(len(days)) < share]
    assert guess_calendar(some).name == "XNYS"


@pytest.mark.parametrize("market", ["own", "us"])
def test_a_draft_keeps_the_spans_of_its_profile_in_shares_and_in_days(
    tmp_path: Path, market: str
) -> None:
    raw = folder.load(written(tmp_path / "files", ["Energy"]), calendar="XBOM")
    config, guess = with_guesses(load_config(market=market), raw)
    read = yaml.safe_load(draft_profile(raw, config, guess, None))
    assert read["market_profile"]["spans"] == config.market_profile.spans.model_dump(mode="json")


ODD = ["Energy: Oil", "it's", "yes", "# 1", "- a", "1.5", 'say "so"', "Größe"]


def test_a_draft_is_read_back_with_any_names_of_sectors(tmp_path: Path, command: Command) -> None:
    files = written(tmp_path / "my files", ODD[:6])
    mine = tmp_path / "mine"
    code, out, err = command("init", mine, "--input", files)
    assert (code, err) == (0, "")
    assert "note: prices.csv: not read: Mood" in out
    config = read_config(None, None, mine)
    profile = config.market_profile
    assert (config.market, profile.calendar) == ("own", "XBOM")
    assert "return_1d" in profile.stock_features
    assert "volume_ratio_20d" not in profile.stock_features  # there is no volume
    assert "    # - volume_ratio_20d: " in (mine / "market.yaml").read_text(encoding="utf-8")
    # six stocks at the usual cap of 10 % would leave 40 % in cash
    assert config.risk.stock_cap * N_STOCKS >= 1
    text = (mine / "market.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["market_profile"]["universe"]["stocks_per_sector"] == 1
    for sector in ODD[:6]:
        assert f"'{sector.replace(chr(39), 2 * chr(39))}': S" in text
    assert_refused(command("init", mine, "--input", files), "market.yaml", "--overwrite", code=2)
    assert command("init", mine, "--input", files, "--overwrite")[0] == 0


def test_the_next_command_of_a_draft_collects_and_says_what_train_makes(
    tmp_path: Path, command: Command
) -> None:
    files, mine = written(tmp_path / "my files", ["A", "B"]), tmp_path / "mine"
    out = command("init", mine, "--input", files)[1]
    line = next(text for text in out.splitlines() if "collect-data" in text)
    code, out, err = command(*shlex.split(line)[1:])
    assert code == 0, err
    assert "market own, spans: train 2016" in out
    assert "refuse" not in out + err


LONG = """
macro_agent: {ppo: {horizon_weeks: 300}}
"""
STILL = """
market_profile: {required_features: [intraday_return_20d]}
"""


@pytest.mark.parametrize(
    ("sectors", "n_days", "market", "own", "said"),
    [
        (["A", "B"], 60, "own", "", "no universe: expected a first session"),
        (["A", "B"], 260, "own", "", "keeps no session"),
        (["A", "B"], 900, "us", "", "sector"),
        (["A", "B"], 900, "own", LONG, "300"),
        (["A", "B"], 900, "own", STILL, "constant over the training span"),
    ],
)
def test_what_train_would_refuse_is_refused_when_the_data_are_collected(
    sectors: list[str],
    n_days: int,
    market: str,
    own: str,
    said: str,
    tmp_path: Path,
    command: Command,
) -> None:
    files = written(tmp_path / "files", sectors, n_days)
    pl.read_csv(files / "prices.csv").with_columns(open="close").write_csv(files / "prices.csv")
    (tmp_path / "own.yaml").write_text(f"threads: 1\n{own}")
    chosen = ["--market", market, "--config", tmp_path / "own.yaml"]
    given = ["--source", "files", "--input", files, *chosen]
    for more in (["--check"], ["--data-dir", tmp_path / "raw"]):
        code, _, err = command("collect-data", *given, *more)
        assert code == 1
        line = err.splitlines()[-1]
        assert f"`hrl-sarp train --market {market} --config " in line
        assert "would refuse these data" in line
        assert said in line
    folders = ["--data-dir", tmp_path / "raw", "--log-dir", tmp_path / "logs"]
    assert_refused(command("train", *chosen, *folders), said)


def test_a_feature_that_never_moves_is_said_when_the_data_are_collected(
    tmp_path: Path, command: Command
) -> None:
    files, mine = written(tmp_path / "files", ["A", "B"]), tmp_path / "mine"
    pl.read_csv(files / "prices.csv").with_columns(open="close").write_csv(files / "prices.csv")
    code, out, err = command("init", mine, "--input", files)
    assert code == 0, err
    still = "left out, because it is constant over the training span: intraday_return_20d"
    assert still in out
    kept = read_config(None, None, mine).market_profile.stock_features
    assert "intraday_return_20d" not in kept
    assert "overnight_return_20d" in kept
    code, out, err = command(
        *("collect-data", "--source", "files", "--input", files),
        *("--market", "own", "--data-dir", tmp_path / "raw"),
    )
    assert code == 0, err
    assert still in out


def test_a_stock_without_a_sector_is_said_when_the_data_are_collected(
    tmp_path: Path, command: Command
) -> None:
    files = written(tmp_path / "files", ["A", "B"])
    table = pl.read_csv(files / "sectors.csv")
    table.slice(1).write_csv(files / "sectors.csv")
    given = ["--source", "files", "--input", files, "--market", "own"]
    code, _, err = command("collect-data", *given, "--data-dir", tmp_path / "raw")
    assert code == 1
    assert "symbol_without_sector" in err
    assert "S0" in err


def test_sectors_without_stocks_are_said_when_the_data_are_collected(
    tmp_path: Path, command: Command
) -> None:
    files = written(tmp_path / "files", ["A", "B"])
    own = tmp_path / "own.yaml"
    own.write_text("market: own\nmarket_profile: {sectors: [A, B, Mining]}\n")
    given = ["--source", "files", "--input", files, "--config", own]
    code, out, err = command("collect-data", *given, "--data-dir", tmp_path / "raw")
    assert code == 0, err
    assert "note: sectors without stocks: Mining" in out
