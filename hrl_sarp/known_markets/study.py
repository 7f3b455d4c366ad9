"""All known markets: how a seed of each is run, their lines, and the table over seeds."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hrl_sarp.config.loading import config_hash, load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.known_markets import kelly, no_trade_band, reachable_goals
from hrl_sarp.known_markets.two_level_study import (
    LEVELS_PLAN,
    PAIR_THRESHOLDS,
    hidden_study,
    prepare,
)
from hrl_sarp.known_markets.volatility.study import over_even_stocks, prepare_volatility
from hrl_sarp.reporting.table import NONE, Table
from hrl_sarp.run.session import configure_threads, seed_everything
from hrl_sarp.studies import Cell, Results, moments
from hrl_sarp.studies.summary import Threshold


@dataclass(frozen=True)
class KnownMarket:
    """One market: how a seed of it is run, and the thresholds for the mean over seeds."""

    experiment: str
    """Its configuration in `config/experiments/`, steps included."""
    run: Callable[[RunConfig, Path], dict[str, float]]
    """Computes the figures from a configuration with its seed and a folder for logs."""
    thresholds: tuple[Threshold, ...]


STUDIES = {
    "kelly": KnownMarket("kelly", lambda config, _: kelly.study(config), kelly.THRESHOLDS),
    "no_trade_band": KnownMarket(
        "no_trade_band", lambda config, _: no_trade_band.study(config), no_trade_band.THRESHOLDS
    ),
    "reachable_goals": KnownMarket(
        "reachable_goals",
        lambda config, _: reachable_goals.study(config),
        reachable_goals.THRESHOLDS,
    ),
    "two_level_macro": KnownMarket(
        "two_level",
        lambda config, folder: prepare(config, folder).macro_from_scratch(),
        (Threshold("macro_share", ">=", 0.60),),
    ),
    "two_level_micro": KnownMarket(
        "two_level",
        lambda config, folder: prepare(config, folder).micro_from_scratch(),
        (Threshold("micro_share", ">=", 0.60),),
    ),
    "two_level": KnownMarket(
        "two_level_pretrained",
        lambda config, folder: prepare(config, folder).pretrained(),
        PAIR_THRESHOLDS,
    ),
    "two_level_levels": KnownMarket(
        "two_level_levels", lambda config, folder: prepare(config, folder, LEVELS_PLAN).levels(), ()
    ),
    "two_level_no_drift": KnownMarket(
        "two_level_no_drift",
        lambda config, folder: prepare(config, folder, LEVELS_PLAN).flat(),
        (Threshold("flat", ">=", 0.60),),
    ),
    "two_level_shipped": KnownMarket(
        "two_level_shipped", lambda config, folder: prepare(config, folder).from_scratch(), ()
    ),
    "volatility_macro": KnownMarket(
        "volatility_regimes",
        lambda config, folder: prepare_volatility(
            over_even_stocks(config), folder
        ).macro_from_scratch(),
        (Threshold("macro_share", ">=", 0.60),),
    ),
    "volatility_micro": KnownMarket(
        "volatility_regimes",
        lambda config, folder: prepare_volatility(config, folder).micro_from_scratch(),
        (Threshold("micro_share", ">=", 0.60),),
    ),
    "volatility": KnownMarket(
        "volatility_regimes",
        lambda config, folder: prepare_volatility(config, folder).five_phases(),
        (Threshold("phase5", ">=", 0.80),),
    ),
    "volatility_controls": KnownMarket(
        "volatility_regimes",
        lambda config, folder: prepare_volatility(config, folder).controls(),
        (Threshold("growth", "<=", 0.0), Threshold("permuted", "<=", 0.05)),
    ),
    "hidden_regimes": KnownMarket(
        "hidden_regimes", hidden_study, (Threshold("macro_share", ">=", 0.80),)
    ),
}
"""Name of a market -> its study."""


@dataclass(frozen=True)
class KnownMarkets:
    """The study of all known markets; the setting of a cell is the name of its market."""

    folder: Path
    title: str = "known markets"

    def config(self, cell: Cell) -> RunConfig:
        """Return the configuration of a cell."""
        experiment = STUDIES[cell.setting].experiment
        return load_config(experiment=experiment, overrides={"seed": cell.seed})

    def identity(self, cell: Cell) -> dict[str, str]:
        """Return the hashes that a result depends on."""
        return {"config_hash": config_hash(self.config(cell))}

    def run(self, cell: Cell, folder: Path) -> dict[str, Any]:
        """Train and score one seed of a market."""
        config = self.config(cell)
        configure_threads(config.threads)
        seed_everything(config.seed)
        return STUDIES[cell.setting].run(config, folder)


def summarise(results: Results) -> list[dict[str, Any]]:
    """Aggregate figures over the seeds that finished."""
    rows = []
    for market in results.settings:
        thresholds = {line.figure: line for line in STUDIES[market].thresholds}
        first = next(cell for cell in results.found if cell.setting == market)
        for figure in results.found[first]:
            found = moments(list(results.by_seed(market, figure).values()))
            threshold = thresholds.get(figure)
            rows.append(
                {
                    "market": market,
                    "figure": figure,
                    **vars(found),
                    "half_width": found.half_width if len(found.values) > 1 else None,
                    "threshold": None if threshold is None else asdict(threshold),
                    "met": None if threshold is None else threshold.is_met(found.mean),
                }
            )
    return rows


def as_table(rows: list[dict[str, Any]]) -> Table:
    """Lay out the rows of `summarise`."""
    cells = []
    for row in rows:
        error, half, line = row["standard_error"], row["half_width"], row["threshold"]
        verdict = "" if line is None else f"{line['side']} {line['bound']:g} "
        verdict += "" if line is None else "met" if row["met"] else "MISSED"
        mean = row["mean"]
        interval = NONE if half is None else f"[{mean - half:.3g}, {mean + half:.3g}]"
        shown = (f"{mean:.4g}", NONE if error is None else f"{error:.2g}", interval)
        cells.append((row["market"], row["figure"], *shown, str(len(row["values"])), verdict))
    header = ("market", "figure", "mean", "standard error", "95 % over seeds", "seeds", "threshold")
    return Table("Known markets", header, cells, text_columns=frozenset({0, 1, 6}))
