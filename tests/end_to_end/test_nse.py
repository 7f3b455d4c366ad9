"""The nse market from the user's folder to the report, as the commands of README run it."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from hrl_sarp.config.loading import load_config

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 3600.0


@pytest.fixture(scope="module")
def folder(data_folder: Path) -> Path:
    if not (data_folder / "india_daily").is_dir():
        pytest.skip("the data folder has no india_daily")
    return data_folder / "india_daily"


def run(repository: Path, command: str, *options: object) -> None:
    arguments = [sys.executable, "main.py", command, "--market", "nse", *map(str, options)]
    done = subprocess.run(  # noqa: S603 -- our own command line
        arguments,
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_collected_validated_trained_and_judged(
    folder: Path, tmp_path: Path, repository: Path
) -> None:
    raw, logs = tmp_path / "raw", tmp_path / "logs"
    run(repository, "collect-data", "--source", "files", "--input", folder, "--data-dir", raw)
    run(repository, "validate-data", "--data-dir", raw)
    counts = json.loads((raw / "validation.json").read_text())["findings_by_rule"]
    assert counts["undeclared_split"] == 90
    assert counts["day_month_exchanged"] == 2
    where = ("--data-dir", raw, "--log-dir", logs)
    run(repository, "train", "--experiment", "smoke", *where)
    ledger = pl.read_parquet(logs / "backtest" / "ledger.parquet")
    days = ledger["date"].unique().sort()
    assert days[0].year == 2017
    assert str(days[-1]) == "2019-12-31"
    traded = set(ledger["sector"].cast(pl.String).unique())
    assert traded == set(load_config(market="nse").market_profile.sectors) - {"Realty"}
    assert (logs / "backtest" / "report.html").is_file()
    metrics = json.loads((logs / "backtest" / "metrics.json").read_text())
    assert metrics["provenance"]["market"] == "nse"
    assert {"joint", "1/N", "index"} <= set(metrics["performances"])
