"""A decision that should not be made is refused in one line, and nothing is written."""

import dataclasses
import itertools
import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import exchange_calendars
import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hrl_sarp.config.loading import dump_config
from hrl_sarp.daily.decision.checks import _near, require_timely
from hrl_sarp.daily.market import TrainedRun, read_today
from hrl_sarp.daily.portfolio import CASH, read_holdings
from hrl_sarp.data.exchange_calendar import closed_sessions
from hrl_sarp.data.known_at import as_of
from hrl_sarp.data.quality.series import DAILY
from hrl_sarp.data.store import RawData, write_raw
from hrl_sarp.errors import CheckpointError, DataError
from hrl_sarp.features.macro import MACRO_FEATURES
from hrl_sarp.run.damage import sealed
from hrl_sarp.run.earlier import CONFIG
from hrl_sarp.run.files import write_text
from hrl_sarp.run.phases import PHASES, best_file
from tests.command_line import Command, Result, assert_refused
from tests.daily.conftest import N_DAYS, SETTINGS, Site
from tests.raw_data import SERIES, sessions

# two years of training are too few to tell drift from chance, so that only another unit counts
QUIET: dict[str, Any] = {"drift": {"least_psi": 9.0}}
Decide = Callable[..., Result]


@pytest.fixture
def last(site: Site) -> date:
    """The last session of the data."""
    return site.later_days[-1]


@pytest.fixture
def decide(command: Command, site: Site, tmp_path: Path) -> Decide:
    """Run the command for the site; a refusal must leave the folders as they were."""

    def run(*options: object, data_dir: Path | None = None, **settings: Any) -> Result:
        values = SETTINGS.model_dump(mode="json")
        drift = {**values["drift"], **QUIET["drift"], **settings.pop("drift", {})}
        path = tmp_path / "settings.yaml"
        path.write_text(yaml.safe_dump({**values, **settings, "drift": drift}))
        before = content(site.run_dir)
        result = command(
            *("decide", "--log-dir", site.run_dir, "--data-dir", data_dir or site.whole),
            *("--settings", path, "--output", tmp_path / "decisions", *options),
        )
        assert content(site.run_dir) == before
        assert (result[0] == 0) == (tmp_path / "decisions").exists(), result[2]
        return result

    return run


def content(folder: Path) -> dict[Path, bytes]:
    """Return every file with its bytes."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def changed_data(site: Site, folder: Path, **tables: Any) -> Path:
    """Write the data with some tables replaced."""
    raw: RawData = dataclasses.replace(site.raw, **tables)
    write_raw(raw, folder / "raw")
    return folder / "raw"


def test_data_that_lack_the_last_session_are_stale(decide: Decide, last: date) -> None:
    assert_refused(decide(), "stale data", f"--as-of {last}", "update-data", "XNYS")


@pytest.mark.parametrize("source", ["sample", "synthetic"])
def test_data_that_never_have_new_days_get_no_advice_to_update_them(
    source: str, decide: Decide, site: Site, last: date, tmp_path: Path
) -> None:
    held = site.today().market
    gone = [held.symbols[place] for place in held.slots[-1] if place >= 0][:2]
    is_gone = pl.col("symbol").is_in(gone) & (pl.col("date") == last)
    bars = site.raw.bars.filter(~is_gone)
    data_dir = changed_data(site, tmp_path, source=source, bars=bars)
    for options in ((), ("--as-of", last)):
        result = decide(*options, data_dir=data_dir)
        assert_refused(result, "give --as-of")
        assert "update-data" not in result[2]


def test_a_day_of_the_training_span_is_refused(decide: Decide, site: Site) -> None:
    train = site.config.market_profile.spans.train
    assert_refused(
        decide("--as-of", train.end), f"--as-of {train.end} lies in the training span", "first one"
    )


def test_a_day_without_a_session_is_refused(decide: Decide) -> None:
    assert_refused(decide("--as-of", "2007-07-01"), "no session of the data", "2007-06-29")


def test_missing_bars_are_refused_by_name_or_told(
    decide: Decide, site: Site, last: date, tmp_path: Path
) -> None:
    market = site.today().market
    gone = [market.symbols[place] for place in market.slots[-1] if place >= 0][:2]
    is_gone = (pl.col("symbol").is_in(gone)) & (pl.col("date") == last)
    data_dir = changed_data(site, tmp_path, bars=site.raw.bars.filter(~is_gone))
    result = decide("--as-of", last, data_dir=data_dir)
    assert_refused(result, "have no bar on", *gone, "max_missing_share", "update-data")
    code, out, err = decide(
        *("--as-of", last, "--json"), data_dir=data_dir, max_missing_share=0.5, warn_age_days=1
    )
    assert code == 0, err
    found = json.loads(out)
    assert sorted(found["without_a_bar"]) == sorted(gone)
    assert not {order["symbol"] for order in found["orders"]} & set(gone)
    assert len(found["warnings"]) == 1
    assert f"warning: {found['warnings'][0]}" in err
    assert {"psi", "worst_in_training", "outside", "drifted"} == set(found["drift"]["log close"])


def test_agents_older_than_the_settings_allow_are_refused(decide: Decide, last: date) -> None:
    result = decide("--as-of", last, max_age_days=1)
    assert_refused(result, "days before", "expected at most 1", "max_age_days", "--settings")


def test_another_universe_is_refused(
    decide: Decide, site: Site, last: date, tmp_path: Path
) -> None:
    other = ("Z" + pl.col("symbol")).alias("symbol")
    data_dir = changed_data(
        site,
        tmp_path,
        bars=site.raw.bars.with_columns(other),
        sectors=site.raw.sectors.with_columns(other),
    )
    result = decide("--as-of", last, data_dir=data_dir)
    assert_refused(result, "do not continue those of", "another universe", "A0")


def test_stocks_whose_files_did_not_come_are_named(
    decide: Decide, site: Site, last: date, tmp_path: Path
) -> None:
    market = site.today().market
    gone = market.symbols[0]
    rest = pl.col("symbol") != gone
    data_dir = changed_data(
        site, tmp_path, bars=site.raw.bars.filter(rest), sectors=site.raw.sectors.filter(rest)
    )
    result = decide("--as-of", last, data_dir=data_dir)
    assert_refused(result, f"1 of its {market.n_assets} stocks", f"({gone})", "did not come")


def test_features_that_the_data_no_longer_have_are_refused_by_name(
    decide: Decide, site: Site, last: date, tmp_path: Path
) -> None:
    none = pl.lit(None, dtype=pl.Float64).alias("volume")
    data_dir = changed_data(site, tmp_path, bars=site.raw.bars.with_columns(none))
    result = decide("--as-of", last, data_dir=data_dir)
    assert_refused(result, "stock features that the run has and the data lack", "amihud_20d (")
    assert "dollar_volume_log (" in result[2]
    assert "return_1d" not in result[2]


def test_a_series_that_has_stopped_is_refused(
    decide: Decide, site: Site, last: date, tmp_path: Path
) -> None:
    stop = last - timedelta(days=40)
    ended = (pl.col("series") == "VIX") & (pl.col("date") > stop)
    data_dir = changed_data(site, tmp_path, macro=site.raw.macro.filter(~ended))
    result = decide("--as-of", last, data_dir=data_dir)
    assert_refused(result, "VIX ends on", "update-data", "series_gap_factor")


EXCHANGED = sorted(
    {
        (name, other)
        for feature in MACRO_FEATURES.values()
        for name, other in itertools.combinations(feature.series, 2)
        if name in SERIES
    }
)


@pytest.mark.parametrize(("name", "other"), EXCHANGED)
def test_a_series_in_the_place_of_that_of_the_training_is_refused(
    name: str, other: str, decide: Decide, site: Site, last: date, tmp_path: Path
) -> None:
    renamed = pl.col("series").replace({name: other})
    data_dir = changed_data(site, tmp_path, macro=site.raw.macro.with_columns(renamed))
    result = decide("--as-of", last, data_dir=data_dir)
    if other in DAILY and name not in DAILY:  # months under the name of a daily series
        assert_refused(result, "macro_period_start", f"first: {other}")
        return
    assert_refused(result, "series that the run has and the data lack", f"from {name}")
    assert f"from {other}" in result[2].split("series that the run does not know")[1]


def test_an_index_in_the_place_of_that_of_the_training_is_refused(
    decide: Decide, site: Site, last: date, tmp_path: Path
) -> None:
    is_fund = pl.col("series").str.starts_with("ETF_")
    data_dir = changed_data(site, tmp_path, macro=site.raw.macro.filter(~is_fund))
    result = decide("--as-of", last, data_dir=data_dir)
    assert_refused(result, "index from equal weight of the sector funds", "index from 1/N")


def test_a_run_that_does_not_say_its_series_decides_by_those_of_the_data(site: Site) -> None:
    run = TrainedRun.read(site.run_dir)
    before = {name: fact for name, fact in run.origin.facts.items() if name != "series"}
    old = dataclasses.replace(run, origin=dataclasses.replace(run.origin, facts=before))
    assert read_today(old, site.whole, SETTINGS).day == site.later_days[-1]


def test_volumes_in_lots_are_refused_unless_the_drift_is_accepted(
    decide: Decide, site: Site, last: date, tmp_path: Path
) -> None:
    since = site.later_days[-20]
    volume = pl.when(pl.col("date") >= since).then(pl.col("volume") / 100.0)
    bars = site.raw.bars.with_columns(volume.otherwise(pl.col("volume")).alias("volume"))
    data_dir = changed_data(site, tmp_path, bars=bars)
    result = decide("--as-of", last, data_dir=data_dir)
    told = ("levels: log volume", "more than 5 times outside", "another unit?", "train again")
    assert_refused(result, *told, "--accept-drift")
    code, out, err = decide("--as-of", last, "--accept-drift", data_dir=data_dir)
    assert code == 0, err
    assert "Drift: the 10 of" in out
    assert "warning: drift accepted: 1 of 2 levels: log volume" in err


@pytest.mark.parametrize(
    ("row", "mentioned"),
    [
        ("a0,1", ("a0 (not in the data; is it A0?)", "correct the spelling")),
        ("QQQ,1", ("QQQ (not in the data)", "leave them out")),
        ("BRKB,1", ("BRKB (not in the data)",)),
        ("A0,-1", ("row 2: A0", "at least 0", "long only")),
    ],
)
def test_holdings_that_cannot_be_meant_are_refused(
    row: str, mentioned: tuple[str, ...], decide: Decide, last: date, tmp_path: Path
) -> None:
    path = tmp_path / "holdings.csv"
    path.write_text(f"symbol,shares\n{row}\nCASH,1000\n")
    assert_refused(decide("--as-of", last, "--holdings", path), str(path), *mentioned)


@pytest.mark.parametrize(
    ("written", "meant"), [("APPL", "AAPL"), ("BRKB", None), ("GOGL", "GOOGL"), ("XMO", None)]
)
def test_a_wrong_letter_is_likelier_than_a_missing_one(written: str, meant: str | None) -> None:
    assert _near(written, ["AAPL", "PPL", "BK", "GOOGL", "GL", "XOM"]) == meant


def test_a_capital_of_nothing_is_no_default(decide: Decide, last: date) -> None:
    assert_refused(decide("--as-of", last, "--capital", 0), "--capital", "above 0", code=2)


def test_runs_of_other_configurations_do_not_decide_as_one(
    decide: Decide, site: Site, last: date, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(site.run_dir, other)
    costs = site.config.market_profile.costs.model_copy(update={"buy_bps": 77.0})
    profile = site.config.market_profile.model_copy(update={"costs": costs})
    config = site.config.model_copy(update={"market_profile": profile})
    write_text(other / PHASES[0].folder / CONFIG, sealed(dump_config(config)))
    result = decide("--as-of", last, "--log-dir", other)
    assert_refused(result, "another configuration", "buy_bps", "77")


def test_phases_of_different_runs_are_refused(
    command: Command, site: Site, last: date, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(site.run_dir, mixed)
    macro, micro = best_file(mixed, 1), best_file(mixed, 2)
    shutil.copyfile(macro, micro)
    result = command(
        *("decide", "--log-dir", mixed, "--data-dir", site.whole, "--as-of", last),
        *("--output", tmp_path / "decisions"),
    )
    assert_refused(result, "expected a micro agent, found macro")
    assert not (tmp_path / "decisions").exists()


moments = st.integers(0, 214 * 24 * 60).map(
    lambda minutes: datetime(2007, 6, 1, tzinfo=UTC) + timedelta(minutes=minutes)
)


@cache
def closes_of_2007() -> list[tuple[date, datetime]]:
    """Return the sessions of New York with their closes."""
    calendar = exchange_calendars.get_calendar("XNYS", start="2007-01-01", end="2008-02-28")
    return [(day.date(), close) for day, close in calendar.schedule["close"].items()]


@settings(max_examples=25)  # each makes a calendar, which takes a while
@given(moments, st.integers(0, 40))
def test_a_session_counts_from_its_close_on(now: datetime, days_before: int) -> None:
    after = now.date() - timedelta(days=days_before)
    expected = [day for day, close in closes_of_2007() if day > after and close <= now]
    assert closed_sessions("XNYS", after, now).tolist() == expected


def test_a_half_day_counts_early_and_with_slack(site: Site, tmp_path: Path) -> None:
    # New York closed at 13:00 on the day before Independence Day of 2007: 17:00 in UTC
    run, half = TrainedRun.read(site.run_dir), date(2007, 7, 3)
    write_raw(as_of(site.raw, date(2007, 7, 2)), tmp_path / "raw")
    slack = timedelta(minutes=SETTINGS.close_slack_minutes)
    close = datetime(2007, 7, 3, 17, tzinfo=UTC)
    second = timedelta(seconds=1)
    require_timely(run, tmp_path / "raw", SETTINGS, None, close + slack - second)
    with pytest.raises(DataError, match=r"XNYS has closed 1 session since, .* 2007-07-03"):
        require_timely(run, tmp_path / "raw", SETTINGS, None, close + slack)
    patient = SETTINGS.model_copy(update={"max_stale_sessions": 1})
    require_timely(run, tmp_path / "raw", patient, None, close + slack)
    require_timely(run, site.whole, SETTINGS, half, close)
    with pytest.raises(DataError, match="2007-07-03 has not closed"):
        require_timely(run, site.whole, SETTINGS, half, close - second)


def test_the_schedule_of_the_guide_finds_the_data_of_yahoo_timely(
    site: Site, tmp_path: Path, repository: Path
) -> None:
    """Yahoo gives the days before today (UTC): an hour that is too early would be refused daily."""
    guide = (repository / "docs" / "daily.md").read_text()
    (hour,) = re.findall(r"OnCalendar=Tue\.\.Sat (\d\d:\d\d) UTC", guide)
    minutes, hours = hour.split(":")[1], hour.split(":")[0]
    assert f"{int(minutes)} {int(hours)} * * 2-6  cd" in guide
    run = TrainedRun.read(site.run_dir)
    for day in site.later_days[-7:-1]:  # with a week end in it
        data_dir = tmp_path / str(day) / "raw"
        write_raw(as_of(site.raw, day), data_dir)
        now = datetime.combine(day, time(int(hours), int(minutes)), UTC) + timedelta(days=1)
        require_timely(run, data_dir, SETTINGS, None, now)


@given(st.integers(-600, 80))
def test_only_days_after_the_training_span_are_decided(site: Site, days: int) -> None:
    run = TrainedRun.read(site.run_dir)
    end = date.fromisoformat(run.origin.spans["train"][1])
    day, now = end + timedelta(days=days), datetime(2026, 1, 1, tzinfo=UTC)
    if days > 0:
        require_timely(run, site.whole, SETTINGS, day, now)
        return
    first = next(s.item() for s in sessions(N_DAYS) if s.item() > end)
    with pytest.raises(CheckpointError, match=f"training span.*the first one is {first}"):
        require_timely(run, site.whole, SETTINGS, day, now)


WRONG_NUMBERS = st.one_of(
    st.floats(max_value=0.0, exclude_max=True).map(repr),
    st.sampled_from(["nan", "NaN", "inf", "-inf", "1_000", "1,000", "1.000,5", "1 000", "$5", "٣"]),
    st.sampled_from(["", "-0.5", "+-1", "0x10", "1e", "1e999", "ten", "1;0", "--", "½"]),
)
SYMBOLS = st.from_regex("[A-Z]{1,5}", fullmatch=True).filter(lambda symbol: symbol != CASH)


@given(
    good=st.dictionaries(SYMBOLS, st.integers(0, 999), max_size=4),
    bad=st.tuples(SYMBOLS | st.just(CASH), WRONG_NUMBERS),
    place=st.integers(0, 4),
    quote=st.booleans(),
)
def test_a_wrong_number_is_refused_with_its_row(
    tmp_path_factory: pytest.TempPathFactory,
    good: dict[str, int],
    bad: tuple[str, str],
    place: int,
    quote: bool,  # noqa: FBT001 -- drawn
) -> None:
    symbol, text = bad
    rows = [f"{name},{n}" for name, n in good.items() if name != symbol]
    cell = f'"{text}"' if quote else text
    place = min(place, len(rows))
    rows.insert(place, f"{symbol},{cell}")
    path = tmp_path_factory.mktemp("holdings") / "holdings.csv"
    path.write_text("\n".join(["symbol,shares", *rows, *([] if symbol == CASH else ["CASH,5"])]))
    with pytest.raises(DataError, match=f"row {place + 2}:") as refused:
        read_holdings(path)
    assert str(path) in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfes\x00y\x00m\x00",
        b"symbol;shares\nA;1\nCASH;5\n",
        b"symbol\tshares\nA\t1\n",
        b'symbol,shares\nA,"1\nCASH,5\n',
        b"symbol,shares\n" + b"A" * 200_000 + b",1\nCASH,5\n",
    ],
)
def test_a_file_that_is_no_such_csv_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "holdings.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"holdings\.csv: ") as refused:
        read_holdings(path)
    assert len(str(refused.value).splitlines()) == 1


def test_a_folder_is_no_file_of_holdings(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as text"):
        read_holdings(tmp_path)


@pytest.mark.parametrize("close", [pl.col("close") * 10, 0.0, -5.0, float("nan"), None])
def test_a_bar_that_validation_keeps_out_is_neither_traded_nor_valued(
    decide: Decide, site: Site, tmp_path: Path, last: date, close: Any
) -> None:
    """Else a misprint of the last close would become wealth, and every order would be too large."""
    before, held = site.later_days[-2], site.today().market.symbols[0]
    bad = (pl.col("symbol") == held) & (pl.col("date") == last)
    bars = site.raw.bars.with_columns(close=pl.when(bad).then(close).otherwise("close"))
    (tmp_path / "holdings.csv").write_text(f"symbol,shares\n{held},100\nCASH,50000\n")
    given = ("--as-of", last, "--holdings", tmp_path / "holdings.csv", "--json")
    data_dir = changed_data(site, tmp_path, bars=bars)
    code, out, err = decide(*given, data_dir=data_dir, max_missing_share=0.5)
    assert code == 0, err
    assert f"{held} (of {before})" in err
    found = json.loads(out)
    earlier = site.raw.bars.filter(pl.col("symbol") == held, pl.col("date") == before)
    assert found["account"]["wealth"] == pytest.approx(50000 + 100 * earlier["close"].item())
    assert held not in {order["symbol"] for order in found["orders"]}
    assert found["after"]["cash"] >= 0


def test_a_holding_that_is_gone_is_refused_and_not_counted_as_wealth(
    decide: Decide, site: Site, tmp_path: Path, last: date
) -> None:
    market = site.today().market
    gone = market.symbols[int((~market.listed[-1]).argmax())]
    end = site.raw.bars.filter(pl.col("symbol") == gone)["date"].max()
    (tmp_path / "holdings.csv").write_text(f"symbol,shares\n{gone},1000\nCASH,50000\n")
    given = ("--as-of", last, "--holdings", tmp_path / "holdings.csv")
    assert_refused(decide(*given), "holdings.csv", f"{gone} (last bar {end})", "add to CASH")


@pytest.mark.parametrize(("split", "is_told"), [(2.0, True), (0.1, True), (1.0, False)])
def test_a_split_of_a_holding_is_told(
    decide: Decide, site: Site, tmp_path: Path, last: date, split: float, *, is_told: bool
) -> None:
    """A file with the shares of before it would halve the account without a word."""
    held = site.today().market.symbols[0]
    on_day = (pl.col("symbol") == held) & (pl.col("date") == last)
    prices = ("open", "high", "low", "close")
    bars = site.raw.bars.with_columns(
        *(pl.when(on_day).then(pl.col(c) / split).otherwise(c).alias(c) for c in prices),
        split=pl.when(on_day).then(split).otherwise("split"),
    )
    (tmp_path / "holdings.csv").write_text(f"symbol,shares\n{held},100\nCASH,50000\n")
    given = ("--as-of", last, "--holdings", tmp_path / "holdings.csv")
    code, _, err = decide(*given, data_dir=changed_data(site, tmp_path, bars=bars))
    assert code == 0, err
    assert (f"{held} ({split:g} new shares" in err) == is_told


def test_a_run_that_is_given_twice_is_refused(decide: Decide, site: Site, last: date) -> None:
    again = site.run_dir.parent / "." / site.run_dir.name
    result = decide("--as-of", last, "--log-dir", again)
    assert_refused(result, "the same run is given", "each run once")
