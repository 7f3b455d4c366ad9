"""scripts/label_expansions.py: the file it writes can be trained on, twice the same."""

import json
from pathlib import Path

import polars as pl
import pytest

from hrl_sarp.price_action.expansions.windows import read_labelled
from hrl_sarp.run.files import sha256_file
from scripts.label_expansions import main
from tests.price_action.expansions.test_windows import DAY, series


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    made = series(2 * DAY)
    columns = {name: getattr(made, name) for name in ("open", "high", "low", "close")}
    path = tmp_path / "bars.parquet"
    pl.DataFrame({"ts": made.timestamps, **columns}).write_parquet(path)
    return path


def test_file_has_the_documented_schema_and_its_base_rates(bars: Path, tmp_path: Path) -> None:
    output = tmp_path / "labelled.parquet"
    assert main(["--data", str(bars), "--output", str(output), "--stride", "10"]) == 0
    frame = pl.read_parquet(output)
    assert frame.schema == {
        "window_id": pl.String,
        "group": pl.String,
        "time": pl.Datetime("us"),
        "features": pl.List(pl.List(pl.Float64)),
        "label": pl.String,
        "expansion_start": pl.Int64,
        "expansion_end": pl.Int64,
    }
    report = json.loads(output.with_suffix(".json").read_text())
    (rates,) = report["files"].values()
    assert rates["labelled"] == report["written"] == frame.height
    assert rates["data_hash"] == sha256_file(bars)
    found = read_labelled(output, 105)
    assert len(found) == frame.height
    assert set(found.group.tolist()) == {0, 1}


def test_same_command_writes_the_same_file(bars: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / f"{name}.parquet" for name in ("one", "two")]
    for output in outputs:
        options = ["--stride", "10", "--max-windows", "20", "--seed", "3"]
        assert main(["--data", str(bars), "--output", str(output), *options]) == 0
    frames = [pl.read_parquet(output) for output in outputs]
    assert frames[0].equals(frames[1])
    assert frames[0].height == 20


def test_files_of_bars_are_put_together(bars: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.parquet"
    second.write_bytes(bars.read_bytes())
    output = tmp_path / "labelled.parquet"
    days = ["--start", "2018-03-01", "--end", "2018-03-01"]
    assert main(["--data", str(bars), str(second), "--output", str(output), *days]) == 0
    frame = pl.read_parquet(output)
    assert frame["group"].unique().to_list() == ["2018-03-01"]
    assert {name.split()[0] for name in frame["window_id"]} == {"bars", "second"}


def test_missing_bars_are_one_line_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "labelled.parquet"
    missing = tmp_path / "none.parquet"
    assert main(["--data", str(missing), "--output", str(output)]) == 1
    assert str(missing) in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
