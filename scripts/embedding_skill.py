"""What do embeddings and forecasts say of stocks? A minute's look before the hours of a study.

    python scripts/embedding_skill.py --data-dir data/us/raw --experiment real_us --observe toto

Fits ridge regressions of the next sessions' cross-sectional returns on the training span: on the
stock features, on the embeddings, and on both. Prints the mean daily rank correlation (rank IC)
with what followed on the validation span, with its Newey-West standard error over overlapping
labels. Features, embeddings and labels are centred across the stocks of each day. Then it prints
how well a linear head on all that agents observe tells next week's volatility on validation, and
how well a forecast alone does: QLIKE, and log-loss of the tercile. `--shows volatility` puts what a
linear head says of each embedding in its place. The test span is not read.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works in a checkout that is not installed, too

from hrl_sarp.run.terminal import accept_any_console  # noqa: E402 -- needs the path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hrl_sarp.contracts import DayRange, Market

FEATURES = "features"


def main(arguments: list[str]) -> int:
    """Run the script and return its exit code."""
    from hrl_sarp import load_market
    from hrl_sarp.config.loading import load_config
    from hrl_sarp.encoders.stock_embeddings import OBSERVED
    from hrl_sarp.errors import HrlSarpError
    from hrl_sarp.studies.walk_forward.risk_seen import volatility_skill

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data/raw"))
    parser.add_argument("--experiment")
    parser.add_argument("--market")
    parser.add_argument("--observe", nargs="+", default=["jade", "transformer"])
    parser.add_argument("--shows", default="embeddings", choices=["embeddings", "volatility"])
    options = parser.parse_args(arguments)
    try:
        for observe in options.observe:
            section = "encoders" if observe in OBSERVED else "forecasters"
            changes = {section: {"observe": observe}}
            if OBSERVED.get(observe):
                changes["encoders"]["shows"] = options.shows
            config = load_config(
                market=options.market, experiment=options.experiment, overrides=changes
            )
            market = load_market(options.data_dir, config=config)
            horizon, penalty = config.data.micro_label_days, config.evaluation.ridge_penalty
            show(observe, skills(market, horizon, penalty), horizon)
            show_volatility(volatility_skill(market))
    except HrlSarpError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


def skills(market: "Market", horizon: int, penalty: float) -> dict[str, tuple[float, float]]:
    """Return the rank IC on validation and its error: features, what is observed, both, gain.

    The last is the difference of both to the features alone, day by day.
    """
    from hrl_sarp.agents.measures import daily_rank_ic, fit_ridge, mean_with_error

    split, n_features = market.split, market.stock_features.shape[2]
    train, validation = (rows_of(market, span, horizon) for span in (split.train, split.validation))
    width = train[0].shape[2]
    chosen = {
        FEATURES: slice(0, n_features),
        "embeddings": slice(n_features, width),
        "both": slice(0, width),
    }
    series = {}
    for name, columns in chosen.items():
        weights = fit_ridge(train[0][..., columns], train[1], train[2], penalty)
        scores = validation[0][..., columns] @ weights
        series[name] = daily_rank_ic(scores, validation[1], validation[2])
    series["both minus features"] = series["both"] - series[FEATURES]
    return {name: mean_with_error(daily, horizon) for name, daily in series.items()}


def rows_of(
    market: "Market", span: "DayRange", horizon: int
) -> tuple[Float[np.ndarray, "D N F"], Float[np.ndarray, "D N"], Bool[np.ndarray, "D N"]]:
    """Return what the slots of a span show and earn, centred each day, and which count."""
    from hrl_sarp.features.labels import standardise_cross_section, stock_label

    label, complete = stock_label(market, horizon)
    rows = np.arange(span.start, span.stop - 1 - horizon)
    rows = rows[complete[rows]]
    day, slots = rows[:, None], np.maximum(market.slots[rows], 0)
    mask = (market.slots[rows] >= 0) & market.tradable[day, slots] & np.isfinite(label[day, slots])
    tables = [market.stock_features]
    if market.stock_embeddings is not None:
        tables.append(market.stock_embeddings)
    seen = np.concatenate([table[day, slots] for table in tables], axis=2, dtype=np.float32)
    counts = np.maximum(mask.sum(axis=1), 1)[:, None, None]
    seen -= (seen * mask[..., None]).sum(axis=1, keepdims=True) / counts
    target = standardise_cross_section(np.where(mask, label[day, slots], 0.0), mask)
    return seen * mask[..., None], target, mask


def show(observe: str, found: dict[str, tuple[float, float]], horizon: int) -> None:
    """Print one block."""
    write = sys.stdout.write
    write(f"{observe}: rank IC of a ridge with the next {horizon} sessions, on validation\n")
    for name, (mean, error) in found.items():
        write(f"  {name:22s}{mean:9.4f} +- {error:.4f}\n")


def show_volatility(found: "Mapping[str, Mapping[str, list[float]]]") -> None:
    """Print a line for each way of forecasting."""
    for way, measures in found.items():
        told = ", ".join(f"{name} {np.mean(weeks):.4f}" for name, weeks in measures.items())
        sys.stdout.write(f"  volatility, {way}: {told}\n")


if __name__ == "__main__":
    accept_any_console()
    sys.exit(main(sys.argv[1:]))
