"""`update-data` on a folder: what is written, the chain of the manifest, kills, exit codes."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.data.collect import collect
from hrl_sarp.data.store import is_same, read_manifest, read_raw, write_raw
from hrl_sarp.data.update.folder import update_folder
from hrl_sarp.errors import DataError
from hrl_sarp.run.files import sha256_plain, write_json
from tests.command_line import Command, assert_refused
from tests.data.raw_factories import clean_raw
from tests.data.update.growing_market import N_DAYS, drawn
from tests.data.update.growing_market import day as day_of

CONFIG = load_config(market="own")
MARKET = drawn(1)
LAST = N_DAYS - 1


def write_input(folder: Path, last: int, first: int = 0, vintage: int | None = None) -> Path:
    """Write files as a user's job leaves them, with all tables."""
    seen = MARKET.seen(last, first, vintage)
    folder.mkdir(parents=True, exist_ok=True)
    seen.bars.write_csv(folder / "prices.csv")
    seen.sectors.write_csv(folder / "sectors.csv")
    seen.index.write_csv(folder / "index.csv")
    seen.macro.write_csv(folder / "macro.csv")
    assert seen.membership is not None
    seen.membership.write_csv(folder / "membership.csv")
    assert seen.own_features is not None
    seen.own_features.drop("symbol").write_csv(folder / "macro_features.csv")
    return folder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A folder of data collected up to row 30."""
    data_dir = tmp_path / "data" / "raw"
    collect("files", data_dir, CONFIG, write_input(tmp_path / "first", 30))
    return data_dir


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_daily_updates_leave_what_one_collection_leaves(tmp_path: Path, raw: Path) -> None:
    for row in range(31, N_DAYS):
        # each day's files are adjusted as of that day, and repeat the day before
        update_folder(raw, CONFIG, write_input(tmp_path / f"day{row}", row, row - 1))
    whole = tmp_path / "whole"
    collect("files", whole, CONFIG, write_input(tmp_path / "all", LAST))
    found, expected = read_raw(raw), read_raw(whole)
    levels = found.bars["adj_close"].to_list(), expected.bars["adj_close"].to_list()
    assert levels[0] == pytest.approx(levels[1], rel=1e-6)
    assert is_same(replace(found, bars=expected.bars), expected)
    assert found.bars.drop("adj_close").equals(expected.bars.drop("adj_close"))
    assert set(content(raw)) == set(content(whole))


def test_files_of_single_days_are_enough(tmp_path: Path, raw: Path) -> None:
    folder = tmp_path / "days"
    folder.mkdir()
    whole = MARKET.seen(LAST)
    for row in range(29, N_DAYS):
        bars = whole.bars.filter(pl.col("date") == day_of(row))
        bars.write_csv(folder / f"{day_of(row)}.csv")
    made = update_folder(raw, CONFIG, folder)
    assert made.status == "updated"
    assert made.made.added == {
        "bars": whole.bars.filter(pl.col("date") > day_of(30)).height,
        **dict.fromkeys(("sectors", "index", "macro", "own_features", "membership"), 0),
        "import_findings": 0,
    }
    assert read_raw(raw).bars.drop("adj_close").equals(whole.bars.drop("adj_close"))


def test_new_days_alone_are_taken_with_a_word_of_warning(tmp_path: Path, raw: Path) -> None:
    alone = update_folder(raw, CONFIG, write_input(tmp_path / "alone", 31, 31))
    assert alone.made.repeated == 0
    assert "no collected bar is repeated" in alone.sentences()[0]
    repeating = update_folder(raw, CONFIG, write_input(tmp_path / "next", 32, 31))
    assert repeating.made.repeated > 0
    assert not any("is repeated" in line for line in repeating.sentences())


def test_prices_under_the_names_of_a_profile_need_no_other_table(tmp_path: Path) -> None:
    tables = {
        "survivorship": "drawn",
        "prices": {"table": "quotes", "columns": {"close": "LAST"}},
        "sectors": {
            "table": "industries",
            "symbol": "symbol",
            "sector": "sector",
            "renamed_symbols": {},
            "sectors": {},
        },
        "index": {"table": "benchmark", "close": "close", "only": None},
        "series": [
            {
                "table": "rates",
                "values": {"VIX": "VIX"},
                "only": None,
                "day_month_swapped_until": None,
            }
        ],
    }
    config = load_config(market="own", overrides={"data": {"named_tables": tables}})
    folder, later = tmp_path / "named", tmp_path / "later"
    for path, seen in ((folder, MARKET.seen(30)), (later, MARKET.seen(32, 30))):
        path.mkdir()
        seen.bars.rename({"close": "LAST"}).write_csv(path / "quotes.csv")
    seen = MARKET.seen(30)
    seen.sectors.write_csv(folder / "industries.csv")
    seen.index.write_csv(folder / "benchmark.csv")
    seen.macro.select("date", VIX="value").write_csv(folder / "rates.csv")
    raw = tmp_path / "data" / "raw"
    collect("files", raw, config, folder)
    assert update_folder(raw, config, later).status == "updated"
    found = read_raw(raw)
    assert found.bars["close"].equals(MARKET.seen(32).bars["close"])
    assert found.index.height == 31


def test_an_update_with_other_tables_alone_is_taken(tmp_path: Path, raw: Path) -> None:
    folder = write_input(tmp_path / "next", 31, 30)
    MARKET.seen(30, 30).bars.write_csv(folder / "prices.csv")
    made = update_folder(raw, CONFIG, folder)
    assert {name: rows for name, rows in made.made.added.items() if rows} == {
        "index": 1,
        "macro": 1,
        "own_features": 1,
    }


def test_the_same_input_twice_changes_nothing(tmp_path: Path, raw: Path, command: Command) -> None:
    folder = write_input(tmp_path / "next", 33, 29)
    options = ("--input", folder, "--data-dir", raw, "--market", "own")
    code, out, err = command("update-data", *options)
    assert code == 0, err
    assert f"{raw}: updated" in out
    assert str(day_of(33)) in out
    before = content(raw)
    code, out, err = command("update-data", *options)
    assert (code, out.splitlines()[-1]) == (0, f"{raw}: up to date")
    assert content(raw) == before


def test_json_is_one_object_and_all_else_goes_to_stderr(
    tmp_path: Path, raw: Path, command: Command
) -> None:
    folder = write_input(tmp_path / "next", 33, 29)
    code, out, err = command(
        "update-data", "--input", folder, "--data-dir", raw, "--market", "own", "--json"
    )
    assert code == 0
    found = json.loads(out)
    assert found["status"] == "updated"
    assert (found["first_day"], found["last_day"]) == (str(day_of(31)), str(day_of(33)))
    assert found["added"]["macro"] == 3
    assert "updated" in err


def spoil(folder: Path, row: int) -> None:
    """Raise the volume of S0 on a day."""
    bars = pl.read_csv(folder / "prices.csv")
    is_row = (pl.col("symbol") == "S0") & (pl.col("date") == str(day_of(row)))
    assert bars.filter(is_row).height == 1
    bars = bars.with_columns(pl.when(is_row).then(77.0).otherwise("volume").alias("volume"))
    bars.write_csv(folder / "prices.csv")


def test_changed_history_is_refused_then_accepted_and_recorded(
    tmp_path: Path, raw: Path, command: Command
) -> None:
    folder = write_input(tmp_path / "next", 33, 25)
    spoil(folder, 25)
    options = ("--input", folder, "--data-dir", raw, "--market", "own")
    before = content(raw)
    code, out, err = command("update-data", *options, "--json")
    assert code == 1
    (change,) = json.loads(out)["changes"]
    assert (change["name"], change["column"], change["after"]) == ("S0", "volume", "77")
    last = err.splitlines()[-1]
    assert re.search(rf"bars S0 volume, {day_of(25)} \(1 rows\): \d+ -> 77", last)
    assert last.endswith("nothing was written, --accept-changes takes them")
    assert content(raw) == before
    code, _, err = command("update-data", *options, "--accept-changes")
    assert code == 0, err
    (entry,) = read_manifest(raw)["updates"]
    assert entry["changed"] == {"bars": 1}
    assert len(entry["accepted"]) == 1
    bars = read_raw(raw).bars
    taken = bars.filter((pl.col("symbol") == "S0") & (pl.col("date") == day_of(25)))
    assert taken["volume"].to_list() == [77.0]


def test_provisional_values_are_taken_and_named(
    tmp_path: Path, raw: Path, command: Command
) -> None:
    """A vendor completes volumes and series for days, and a scheduled run must not stop for it."""
    folder = write_input(tmp_path / "next", 33, 25)
    spoil(folder, 26)  # the fifth session before the end of the collected ones
    macro = pl.read_csv(folder / "macro.csv", try_parse_dates=True)
    late = pl.when(pl.col("date") == day_of(29)).then(7.0).otherwise("value")
    macro.with_columns(value=late).write_csv(folder / "macro.csv")
    options = ("--input", folder, "--data-dir", raw, "--market", "own")
    strict = tmp_path / "strict.yaml"
    strict.write_text("provisional_sessions: 4")
    before = content(raw)
    result = command("update-data", *options, "--settings", strict, "--json")
    assert result[0] == 1
    found = json.loads(result[1])
    assert [c["column"] for c in found["changes"]] == ["volume"]
    assert [c["column"] for c in found["restated"]] == ["value"]
    assert content(raw) == before
    code, out, err = command("update-data", *options, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["status"], found["changes"]) == ("updated", [])
    told = [(c["name"], c["column"], c["first"], c["after"]) for c in found["restated"]]
    assert told == [
        ("S0", "volume", str(day_of(26)), "77"),
        ("VIX", "value", str(day_of(29)), "7"),
    ]
    assert "provisional values were restated" in err
    (entry,) = read_manifest(raw)["updates"]
    assert len(entry["restated"]) == 2
    assert (entry["accepted"], entry["changed"]) == ([], {})
    taken = read_raw(raw)
    volume = taken.bars.filter(symbol="S0", date=day_of(26))["volume"].to_list()
    assert volume == [77.0]
    assert taken.macro.filter(date=day_of(29))["value"].to_list() == [7.0]


def test_a_restated_value_alone_is_an_update(tmp_path: Path, raw: Path) -> None:
    folder = write_input(tmp_path / "again", 30, 27)
    spoil(folder, 30)
    made = update_folder(raw, CONFIG, folder, provisional_sessions=1)
    assert (made.status, made.made.is_empty) == ("updated", False)
    assert update_folder(raw, CONFIG, folder, provisional_sessions=1).status == "up to date"


def test_a_price_is_never_provisional(tmp_path: Path, raw: Path) -> None:
    folder = write_input(tmp_path / "again", 32, 27)
    bars = pl.read_csv(folder / "prices.csv", try_parse_dates=True)
    own = (pl.col("symbol") == "S0") & (pl.col("date") == day_of(30))
    high = pl.when(own).then(pl.col("high") * 1.01).otherwise("high")
    bars.with_columns(high=high).write_csv(folder / "prices.csv")
    made = update_folder(raw, CONFIG, folder, provisional_sessions=N_DAYS)
    assert made.status == "refused"
    assert [change.column for change in made.made.changes] == ["high"]


def test_each_update_names_what_stood_before(tmp_path: Path, raw: Path) -> None:
    collected = read_manifest(raw)
    for row in (31, 32, 33):
        update_folder(raw, CONFIG, write_input(tmp_path / f"day{row}", row, row - 1))
    manifest = read_manifest(raw)
    first, second, third = manifest["updates"]
    assert first["parent"] == sha256_plain(collected["files"])
    assert second["parent"] == sha256_plain(first)
    assert third["parent"] == sha256_plain(second)
    assert third["files"] == sha256_plain(manifest["files"])
    assert [entry["last_day"] for entry in (first, second, third)] == [
        str(day_of(row)) for row in (31, 32, 33)
    ]
    assert manifest["created_by"] == collected["created_by"]
    assert manifest["notes"] == collected["notes"]


def cut_out(manifest: dict[str, Any]) -> None:
    del manifest["updates"][1]


def alter(manifest: dict[str, Any]) -> None:
    manifest["updates"][0]["added"]["bars"] = 1


def forget(manifest: dict[str, Any]) -> None:
    del manifest["updates"][-1]


@pytest.mark.parametrize(
    ("damage", "words"),
    [(cut_out, "update 2 of 2"), (alter, "update 2 of 3"), (forget, "do not|does not belong")],
)
def test_a_broken_chain_is_refused(
    tmp_path: Path, raw: Path, damage: Callable[[dict[str, Any]], None], words: str
) -> None:
    for row in (31, 32, 33):
        update_folder(raw, CONFIG, write_input(tmp_path / f"day{row}", row, row - 1))
    manifest = read_manifest(raw)
    damage(manifest)
    write_json(raw / "manifest.json", manifest)
    with pytest.raises(DataError, match=rf"manifest\.json: .*({words}).*--overwrite"):
        update_folder(raw, CONFIG, write_input(tmp_path / "next", 34, 33))


class KilledError(BaseException):
    """Stands for the end of the process."""


def die_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every change of a file's name fail from the one after `steps` on, as after a kill."""
    done: list[str] = []

    def counted(kind: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def step(path: Path, *given: Any, **options: Any) -> Any:
            if path.name == "run.lock" or (kind == "unlink" and not path.exists()):
                return act(path, *given, **options)
            if len(done) >= steps:
                raise KilledError
            done.append(f"{kind} {path.name}")
            return act(path, *given, **options)

        return step

    monkeypatch.setattr(Path, "replace", counted("replace", Path.replace))
    monkeypatch.setattr(Path, "unlink", counted("unlink", Path.unlink))
    return done


def test_a_kill_at_any_step_leaves_the_old_data_or_the_new(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = read_raw(raw)
    folder = write_input(tmp_path / "next", 33, 25)
    # a table that goes, and one that comes, are written at other steps
    write_raw(replace(old, own_features=None), raw)
    old = read_raw(raw)
    start = content(raw)
    seen = set()
    for steps in range(60):
        for path in [path for path in raw.rglob("*") if path.is_file()]:
            path.unlink()
        for name, told in start.items():
            (raw / name).write_bytes(told)
        with monkeypatch.context() as patch:
            done = die_after(steps, patch)
            try:
                update_folder(raw, CONFIG, folder)
            except KilledError:
                is_killed = True
            else:
                is_killed = False
        found = read_raw(raw)
        is_old = is_same(found, old)
        seen.add(is_old)
        update_folder(raw, CONFIG, folder)
        whole = read_raw(raw)
        assert is_old or is_same(found, whole), done
        write_raw(whole, raw, read_manifest(raw)["updates"])  # any write clears up what was left
        assert not [path for path in raw.rglob("*") if ".next" in path.name or ".tmp" in path.name]
        if not is_killed:
            break
    assert seen == {True, False}
    assert not is_killed
    assert steps >= 2 * 6  # six tables and the manifest are written, six take their place


def test_options_of_another_source_are_refused(tmp_path: Path, raw: Path, command: Command) -> None:
    options = ("update-data", "--data-dir", raw, "--market", "own")
    assert_refused(command(*options), "was collected from files", "expected --input PATH")
    result = command(*options, "--input", tmp_path / "first", "--start", "2020-01-02")
    assert_refused(result, "no --symbols, --start or --end")
    missing = command("update-data", "--data-dir", tmp_path / "none", "--input", tmp_path)
    assert_refused(missing, "manifest.json does not exist", "collect-data")
    made_up = tmp_path / "made_up"
    write_raw(replace(clean_raw(), source="sample"), made_up)
    result = command("update-data", "--data-dir", made_up, "--input", tmp_path / "first")
    assert_refused(result, "was collected from the source sample, which never has new days")


def test_late_actions_beside_new_prices_are_refused(tmp_path: Path, raw: Path) -> None:
    folder = write_input(tmp_path / "next", 33, 30)
    stated = MARKET.seen(33).bars.select("date", "symbol", "split", "dividend")
    bars = pl.read_csv(folder / "prices.csv").drop("split", "dividend")
    bars.write_csv(folder / "prices.csv")
    stated.write_csv(folder / "actions.csv")
    assert update_folder(raw, CONFIG, folder).status == "updated"
    is_late = (pl.col("symbol") == "S0") & (pl.col("date") == day_of(5))
    assert stated.filter(is_late)["split"].to_list() == [1.0]
    late = stated.with_columns(pl.when(is_late).then(2.0).otherwise("split").alias("split"))
    late.write_csv(folder / "actions.csv")
    line = rf"actions\.csv: expected split 1\.0 dividend .* as collected for S0 on {day_of(5)}"
    with pytest.raises(DataError, match=line):
        update_folder(raw, CONFIG, folder)


def test_a_symbol_of_its_own_sector_joins_a_market_without_sectors(tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    folder.mkdir()
    MARKET.seen(30).bars.filter(pl.col("symbol") != "S3").write_csv(folder / "prices.csv")
    raw = tmp_path / "data" / "raw"
    collect("files", raw, CONFIG, folder)
    MARKET.seen(31).bars.write_csv(folder / "prices.csv")
    made = update_folder(raw, CONFIG, folder)
    assert made.made.new_symbols == ("S3",)
    assert any("new symbols: S3" in line for line in made.sentences())
    assert set(read_raw(raw).sectors["symbol"]) == set(read_raw(raw).bars["symbol"])


def test_cached_markets_of_the_data_before_are_removed(
    tmp_path: Path, raw: Path, command: Command
) -> None:
    """Else every evening would leave another market of 100 MB."""
    cached = raw.parent / "market"
    cached.mkdir()
    own, other = cached / "own-0123.npz", cached / "us-0123.npz"
    options = ("--data-dir", raw, "--market", "own", "--input")
    for row, is_kept in ((30, True), (31, False)):
        for path in (own, other):
            path.write_bytes(b"")
        code, _, err = command("update-data", *options, write_input(tmp_path / str(row), row, 29))
        assert code == 0, err
        assert (own.exists(), other.exists()) == (is_kept, True)
