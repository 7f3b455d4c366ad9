"""From a folder of broken downloads, us_messy, to a backtest: nothing crashes, all is named."""

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from hrl_sarp.config.loading import load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market
from hrl_sarp.data.collect import collect
from hrl_sarp.data.quality.validation import REPORT_NAME, validate_folder
from hrl_sarp.evaluation.backtest import backtest
from hrl_sarp.evaluation.baselines import make_baselines
from hrl_sarp.market.cache import assembled_market

SECTORS = {
    "Consumer Discretionary": "AMZN CCL TSLA",
    "Consumer Staples": "KMB MNST",
    "Communication Services": "ATVI DISCA DISCK DISH FB GOOG GOOGL TWTR VIAC",
    "Energy": "PXD XOM",
    "Financials": "CINF FRC PBCT RE SIVB",
    "Health Care": "ABC ABMD ANTM CERN DXCM JNJ MRK PKI SGEN",
    "Industrials": "CDAY FBHS FLT INFO MMM NLSN",
    "Information Technology": "AAPL CTXS MSFT NLOK NVDA PANW SPLK",
    "Materials": "BLL SHW WRK",
    "Real Estate": "DRE PEAK",
}
"""GICS sectors of the 48 stocks of us_messy while they were listed."""
SPANS = {
    "train": {"start": date(2019, 1, 1), "end": date(2021, 12, 31)},
    "validation": {"start": date(2022, 1, 1), "end": date(2022, 12, 31)},
    "test": {"start": date(2023, 1, 1), "end": date(2024, 8, 8)},
}


@dataclass(frozen=True)
class Run:
    """What the commands left behind."""

    manifest: dict[str, Any]
    report: dict[str, Any]
    market: Market
    config: RunConfig

    def found(self, rule: str, symbol: str) -> list[dict[str, Any]]:
        """Findings of a rule about a symbol, as validation.json has them."""
        rows = self.report["findings"]
        return [row for row in rows if (row["rule"], row["symbol"]) == (rule, symbol)]

    def total_return(self, symbol: str, day: str) -> float:
        row = int(np.searchsorted(self.market.dates, np.datetime64(day)))
        column = self.market.symbols.index(symbol)
        night, session = self.market.overnight_return, self.market.intraday_return
        return float((1 + night[row, column]) * (1 + session[row, column])) - 1


@pytest.fixture(scope="module")
def run(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    source, work = data_folder / "us_messy", tmp_path_factory.mktemp("work")
    if not source.is_dir():
        pytest.skip("the data folder has no us_messy")
    write_downloads(source, work / "downloads")
    config = messy_config()
    data_dir = work / "data" / "raw"
    manifest = collect("files", data_dir, config, work / "downloads")
    assert not validate_folder(data_dir, config).has_failed
    report = json.loads((data_dir / REPORT_NAME).read_text())
    return Run(manifest, report, assembled_market(data_dir, config), config)


def write_downloads(source: Path, folder: Path) -> None:
    """Lay out what the job left: twelve files byte for byte, the others from their lines."""
    folder.mkdir()
    for path in (source / "raw").glob("*.csv.gz"):
        (folder / path.name).write_bytes(path.read_bytes())
    lines = pl.read_parquet(source / "prices.parquet").sort("symbol", "line_no")
    columns = ["date", "open", "high", "low", "close", "adj_close", "volume"]
    for (symbol,), rows in lines.partition_by("symbol", as_dict=True).items():
        if not (folder / f"{symbol}.csv.gz").exists():
            titles = {name: name.replace("_", " ").title() for name in columns}
            table = rows.select(columns).rename(titles)
            table.write_csv(folder / f"{symbol}.csv", null_value="null")
    table = [f"{symbol},{name}" for name, text in SECTORS.items() for symbol in text.split()]
    (folder / "sectors.csv").write_text("\n".join(["symbol,sector", *table]))


def messy_config() -> RunConfig:
    """The us profile over the years of us_messy, with macro features that prices alone give."""
    without_series = load_config(market="sample").market_profile.macro_features
    profile = {
        "spans": SPANS,
        "macro_features": without_series,
        # nine files begin in April 2022: 139 to 146 bars before the choice of 2023
        "universe": {"stocks_per_sector": 9, "lookback_days": 252, "min_bars": 120},
    }
    evaluation = {"baselines": ["equal_weight", "inverse_volatility", "momentum"]}
    return load_config(market="us", overrides={"market_profile": profile, "evaluation": evaluation})


@pytest.mark.parametrize(
    ("rule", "symbol", "day", "value"),
    [
        ("junk_lines", "CCL", "2022-07-07", 5705),  # a page after the row of that day
        ("junk_lines", "XOM", None, 1),
        ("no_header", "XOM", "2022-04-06", 338),
        ("no_usable_row", "BRK.B", None, 1),
        ("missing_value", "AAPL", "2022-01-27", None),
        ("duplicate_row", "TWTR", "2022-10-27", 140_362_225),
        ("duplicate_row", "ABC", "2022-02-07", None),
        ("undeclared_split", "AMZN", "2022-06-06", 125.25 / 2447 - 1),
        ("undeclared_split", "NVDA", "2024-06-10", 120.370003 / 1208.880005 - 1),
        ("ends_early", "FB", "2022-08-10", 178.339996),
        ("ends_early", "FRC", "2023-06-30", 0.55),
        ("no_trade", "DRE", "2022-10-03", 48.200001),
        ("no_trade", "SIVB", "2023-03-10", 106.040001),
        ("large_return", "SIVB", "2023-03-28", 0.4 / 106.040001 - 1),
        ("stale_repeat", "SIVB", "2024-03-19", 106.040001),
        ("ohlc_inconsistent", "AAPL", "2022-05-23", 1 - 137.789993 / 137.860107),
        ("calendar_gap", "CCL", "2022-07-08", 9.33),
    ],
)
def test_each_kind_of_defect_is_named_with_symbol_date_and_value(
    run: Run, rule: str, symbol: str, day: str | None, value: float | None
) -> None:
    (found,) = [row for row in run.found(rule, symbol) if row["date"] == day][:1]
    if value is not None:
        assert found["value"] == pytest.approx(value)


def test_the_summary_says_what_was_left_out(run: Run) -> None:
    assert len(run.manifest["symbols"]) == 48
    summary = run.manifest["notes"][-1]
    assert summary.startswith("left out: ")
    assert "2 no_usable_row; without any usable row: BF.B (BF.B.csv.gz line 1: 404 N" in summary
    assert "BRK.B (BRK.B.csv.gz line 1: 404 N" in summary


def test_the_rest_is_a_usable_market(run: Run) -> None:
    market = run.market
    assert market.n_assets >= 40
    served = (market.slots >= 0).sum(axis=1)
    # 35 files have the bars, but DRE was taken over in 2022 and NLOK renamed on 9 January 2023;
    # of 25 in January 2024 takeovers and renames leave 18 to the end
    assert served[market.split.test.start] == 33
    assert served[-1] == 18
    for name in ("overnight_return", "intraday_return", "stock_features", "macro_features"):
        assert np.isfinite(getattr(market, name)).all()


def test_splits_are_gone_from_the_returns_and_crashes_are_not(run: Run) -> None:
    assert run.total_return("AMZN", "2022-06-06") == pytest.approx(124.790001 / 125.25 - 1)
    assert run.total_return("NVDA", "2024-06-10") == pytest.approx(121.790001 / 120.370003 - 1)
    assert run.total_return("SIVB", "2023-03-28") == pytest.approx(0.4 / 106.040001 - 1)
    assert run.total_return("DXCM", "2024-07-26") == pytest.approx(64.0 / 107.849998 - 1)


def test_baselines_trade_it_and_bear_its_delistings(run: Run) -> None:
    market = run.market
    assert market.eligible[market.split.test.start, market.symbols.index("SIVB")]
    ledger = backtest(market, make_baselines(market, run.config), market.split.test, run.config)
    assert ledger.names[:2] == ("index", "1/N")
    assert len(ledger.names) == 4
    for name in ("net_return", "wealth", "cost"):
        assert np.isfinite(getattr(ledger, name)).all()
    assert (ledger.wealth > 0.3).all()
    assert (ledger.wealth < 3.0).all()
    # SGEN, ATVI, FRC and others were held when they ended
    assert ledger.delisted_value[:, 1].max() > 0
