"""Writes tables of features for `collect-data`: fundamentals of dated snapshots, counts of tweets.

Run: `python examples/own_features.py fundamentals SNAPSHOTS PRICES_DIR OUT_DIR` (or `tweets
COUNTS ...`). OUT_DIR gets prices and sectors of the stocks that both have, and features.parquet.
Then `python main.py collect-data --source files --input OUT_DIR --market own`, and `train`.
"""

import sys
from pathlib import Path

import polars as pl


def fundamentals(path: Path) -> pl.DataFrame:
    """Turn snapshots of ratios into yields, public on the day of the snapshot.

    Yields are of any unit and also exist for companies that lose money; a price-earnings ratio
    does not. Values beyond +-100 % are errors of the source and left out.
    """
    day = pl.col("snapshot_commit_date")
    return (
        pl.read_parquet(path)
        .select(
            "symbol",
            date=day,
            known_at=day,
            earnings_yield=pl.col("eps") / pl.col("price"),
            book_yield=1.0 / pl.col("price_book"),
            dividend_yield=pl.col("dividend_yield") / 100.0,
        )
        .with_columns(
            pl.when(pl.col(name).abs() < 1.0).then(pl.col(name))
            for name in ("earnings_yield", "book_yield", "dividend_yield")
        )
        .unique(["symbol", "date"], keep="first", maintain_order=True)
    )


def tweets(path: Path) -> pl.DataFrame:
    """Turn counts of a calendar day into a feature; the day's count is complete when it has ended.

    A day without a row had no tweet, so it gets 0: otherwise the count before would be carried
    forward. The package shows a value from the session after `known_at` on, so weekends need no
    care.
    """
    counts = pl.read_parquet(path).select("symbol", "date", "tweets")
    first, last = counts["date"].min(), counts["date"].max()
    days = pl.DataFrame({"date": pl.date_range(first, last, eager=True)})
    every = counts.select("symbol").unique().join(days, how="cross")
    return (
        every.join(counts, on=["symbol", "date"], how="left")
        .sort("symbol", "date")
        .select(
            "symbol",
            "date",
            known_at="date",
            log_tweets=(1.0 + pl.col("tweets").fill_null(0)).log(),
        )
    )


def write(features: pl.DataFrame, prices_dir: Path, out_dir: Path) -> Path:
    """Write the features with the prices and sectors of their stocks; return the table's path.

    Prices begin two years before the first value, for the look-back of the other features.
    """
    known = features["known_at"]
    years = pl.lit(known.min()).dt.offset_by("-2y"), pl.lit(known.max()).dt.offset_by("1mo")
    prices = pl.read_parquet(prices_dir / "prices.parquet")
    prices = prices.filter(pl.col("date").is_between(*years))
    sectors = pl.read_csv(prices_dir / "sectors.csv", null_values=[])
    both = set(features["symbol"]) & set(prices["symbol"]) & set(sectors["symbol"])
    out_dir.mkdir(parents=True, exist_ok=True)
    is_kept = pl.col("symbol").is_in(sorted(both))
    prices.filter(is_kept).write_parquet(out_dir / "prices.parquet")
    sectors.filter(is_kept).write_csv(out_dir / "sectors.csv")
    target = out_dir / "features.parquet"
    features.filter(is_kept).write_parquet(target)
    return target


def main() -> None:
    """Convert one table."""
    kind, path, prices_dir, out_dir = sys.argv[1:]
    convert = {"fundamentals": fundamentals, "tweets": tweets}[kind]
    write(convert(Path(path)), Path(prices_dir), Path(out_dir))


if __name__ == "__main__":
    main()
