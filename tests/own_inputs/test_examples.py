"""The example that turns real tables into features works on them; skipped where they are absent."""

import os
from pathlib import Path

import polars as pl
import pytest

from examples.own_features import fundamentals, tweets
from hrl_sarp.data.sources.files.own_features import read_own_features

CASES = {
    "fundamentals": (fundamentals, "us_fundamentals/snapshots.parquet", "2012-12-27"),
    "tweets": (tweets, "alt_tweet_counts/counts.parquet", "2014-01-01"),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_converted_table_is_read_with_its_days(
    kind: str, tmp_path: Path, repository: Path
) -> None:
    convert, name, first = CASES[kind]
    data = Path(os.environ.get("HRL_SARP_DATA", repository.parent / "shared" / "data"))
    if not (data / name).is_file():
        pytest.skip(f"{data / name} is absent")
    table = convert(data / name)
    table.write_parquet(tmp_path / "features.parquet")
    found = read_own_features(tmp_path, ["AAPL", "MSFT", "XOM"], None)
    assert found is not None
    assert set(found.frame["symbol"]) == {"AAPL", "MSFT", "XOM"}
    assert str(found.frame["known_at"].min()) == first
    names = set(table.columns) - {"symbol", "date", "known_at"}
    assert set(found.frame["name"]) == names
    assert found.frame.filter(pl.col("value").is_infinite()).is_empty()


def test_apple_of_may_2014_has_the_yield_of_its_snapshot(repository: Path) -> None:
    data = Path(os.environ.get("HRL_SARP_DATA", repository.parent / "shared" / "data"))
    path = data / CASES["fundamentals"][1]
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    day = pl.date(2014, 5, 1)
    raw = pl.read_parquet(path).filter(symbol="AAPL").filter(pl.col("snapshot_commit_date") == day)
    row = fundamentals(path).filter(symbol="AAPL").filter(pl.col("date") == day)
    assert raw["price"].item() == 591.67
    assert row["earnings_yield"].item() == pytest.approx(raw["eps"].item() / 591.67)
    assert row["dividend_yield"].item() == pytest.approx(raw["dividend_yield"].item() / 100)


def test_a_day_without_tweets_counts_as_none(repository: Path) -> None:
    data = Path(os.environ.get("HRL_SARP_DATA", repository.parent / "shared" / "data"))
    path = data / CASES["tweets"][1]
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    table, counts = tweets(path), pl.read_parquet(path)
    assert table.height == counts["symbol"].n_unique() * (365 + 365)  # all days of both years
    assert table["log_tweets"].exp().sum() - table.height == pytest.approx(counts["tweets"].sum())
