"""The studies of known markets: they train agents and score them on fresh paths.

The ordinary curriculum runs the phases. `from scratch` means that untrained agents, which follow
1/N, stand in for those of the earlier phases.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from hrl_sarp.agents import MacroAgent, MicroAgent, MicroSettings
from hrl_sarp.config.loading import config_hash, load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Regime
from hrl_sarp.envs.observations import MACRO_SCALARS
from hrl_sarp.envs.policies import FollowGoal, MacroPolicy, MicroPolicy, ProportionalGoal
from hrl_sarp.features.labels import regime_label
from hrl_sarp.graph import node_features
from hrl_sarp.known_markets import kelly, no_trade_band, reachable_goals
from hrl_sarp.known_markets.two_level import (
    MacroOracle,
    MicroOracle,
    PathPlan,
    PathScore,
    PlantedMarket,
    label_probabilities,
    planted_market,
    share_of_gap,
)
from hrl_sarp.reporting.table import NONE, Table
from hrl_sarp.run.session import StopFlag, configure_threads, seed_everything
from hrl_sarp.studies import Cell, Results, moments
from hrl_sarp.studies.summary import Threshold
from hrl_sarp.training.curriculum import make_context, run_phase
from hrl_sarp.training.phase import PHASES, PhaseContext, save_sector_table, with_sector_table

PAIR_THRESHOLDS = (
    Threshold("phase5", ">=", 0.65),
    Threshold("phase4_minus_calibrated_in_se", ">=", -1.0),
    Threshold("phase5_minus_phase4_in_se", ">=", -1.0),
    Threshold("regime_gain_share", ">=", 0.80),
)
ORACLE_SPEED = 0.8
"""The micro oracle's best speed on this market's costs, from a grid of 0.05 to 1."""


@dataclass(frozen=True)
class TwoLevelStudy:
    """One seed's market and its phases."""

    config: RunConfig
    planted: PlantedMarket
    log_dir: Path
    """Holds one folder per variant. Phases that have finished there do not run again."""

    def context(self, variant: str) -> PhaseContext:
        """Build the phases' context of a variant; an interrupted one continues."""
        device = torch.device("cpu")
        folder = self.log_dir / variant
        return make_context(
            self.config, self.planted.market, folder, device, StopFlag(), resume=True
        )

    def macro_from_scratch(self) -> dict[str, float]:
        """Train phase 3 on a fresh macro agent over a rule; return its share of the gap."""
        context = self.context("macro_from_scratch")
        write_untrained(context, (1, 2))
        run_phase(3, context)
        return {"macro_share": self._share(context, 3, "macro")}

    def macro_pretrained(self) -> dict[str, float]:
        """Train phases 1 and 3 over a rule; return the share of the gap after each."""
        context = self.context("macro_pretrained")
        run_phase(1, context)
        calibrated = self._share(context, 1, "macro")
        write_untrained(context, (2,))
        run_phase(3, context)
        return {"calibrated": calibrated, "macro_share": self._share(context, 3, "macro")}

    def micro_from_scratch(self) -> dict[str, float]:
        """Train phase 4 on a fresh micro agent, under a fresh macro agent whose goal is 1/N."""
        context = self.context("micro_from_scratch")
        write_untrained(context, (1, 2, 3))
        run_phase(4, context)
        return {"micro_share": self._share(context, 4, "micro")}

    def pretrained(self) -> dict[str, float]:
        """Train all five phases; return the share of the two-level gap after each stage."""
        context = self.context("pretrained")
        for number in range(1, 6):
            run_phase(number, context)
        context = with_sector_table(context)
        pairs = {
            "calibrated": (context.load_macro(1), context.load_micro(2)),
            "phase3": (context.load_macro(3), context.load_micro(2)),
            "phase4": (context.load_macro(3), context.load_micro(4)),
            "phase5": (context.load_macro(5), context.load_micro(5, which=1)),
        }
        score, tensors, risk = self.score(context), context.tensors, self.config.risk
        oracle = score.growth(
            MacroOracle(tensors, self.planted, risk), MicroOracle(tensors, risk, ORACLE_SPEED)
        )
        even = score.equal_weight()
        growth = {name: score.growth(*pair) for name, pair in pairs.items()}
        return {
            **{name: share_of_gap(earned, oracle, even) for name, earned in growth.items()},
            "macro_share": self._share(context, 3, "macro"),
            "micro_share": self._share(context, 4, "micro"),
            "phase4_minus_calibrated_in_se": _paired(growth["phase4"], growth["calibrated"]),
            "phase5_minus_phase4_in_se": _paired(growth["phase5"], growth["phase4"]),
            "regime_gain_share": self.regime_gain_share(context),
        }

    def score(self, context: PhaseContext) -> PathScore:
        """Score policies that read this context's market."""
        return PathScore(context.tensors, self.config, self.planted.plan)

    def regime_gain_share(self, context: PhaseContext) -> float:
        """Return the regime head's log-loss gain over the prior, as a share of the Bayes filter's.

        Both gains are measured at the week ends of the test paths. The prior is the class shares
        of the training span.
        """
        market, data = context.market, self.config.data
        label = regime_label(market, data.regime)
        rows = np.flatnonzero(market.is_week_end & (label >= 0))
        test = rows[rows >= market.split.test.start]
        train = rows[(rows >= market.split.train.start) & (rows < market.split.train.stop)]
        counts = np.bincount(label[train], minlength=len(Regime)) + 1
        prior = counts / counts.sum()
        beliefs = self.planted.beliefs[test]
        bayes = label_probabilities(beliefs, test, market, data.regime, self.planted.synthetic)
        agent = context.load_macro(1)
        cash = torch.zeros(len(test), agent.tensors.n_sectors + len(MACRO_SCALARS))
        asked = agent.goal({"day": torch.as_tensor(test)[:, None], "portfolio": cash})
        head = asked.regime_probabilities.double().numpy()
        truth = label[test]
        constant = -np.log(prior[truth]).mean()
        return float((constant - _log_loss(head, truth)) / (constant - _log_loss(bayes, truth)))

    def _share(self, context: PhaseContext, number: int, level: Literal["macro", "micro"]) -> float:
        """Return the share of the gap that one level's agent closes, the other following a rule."""
        context = with_sector_table(context)
        tensors, risk = context.tensors, self.config.risk
        agent: tuple[MacroPolicy, MicroPolicy]
        oracle: tuple[MacroPolicy, MicroPolicy]
        if level == "macro":
            rule = FollowGoal(tensors, risk)
            agent = (context.load_macro(number), rule)
            oracle = (MacroOracle(tensors, self.planted, risk), rule)
        else:
            even = ProportionalGoal(tensors)
            agent = (even, context.load_micro(number))
            oracle = (even, MicroOracle(tensors, risk, ORACLE_SPEED))
        score = self.score(context)
        return share_of_gap(score.growth(*agent), score.growth(*oracle), score.equal_weight())


def _paired(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean difference in its standard errors; 0 where the growths are the same."""
    difference = first - second
    error = difference.std(ddof=1) / len(difference) ** 0.5
    return float(difference.mean() / error) if error > 0 else 0.0


def write_untrained(context: PhaseContext, numbers: tuple[int, ...]) -> None:
    """Write untrained agents as the results of these phases, unless there are results already.

    The sector table holds raw node features instead of a graph network's embeddings.
    """
    config = context.config
    nodes = node_features(context.market, config.macro_agent.graph)
    table = context.folder(1) / PHASES[0].best[1]
    if not table.is_file():
        table.parent.mkdir(parents=True, exist_ok=True)
        save_sector_table(table, context, nodes)
    seen = context.with_sector_embeddings(nodes)
    for number in numbers:
        path = context.folder(number) / PHASES[number - 1].best[0]
        if path.is_file():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if number in (1, 3):
            MacroAgent(seen.tensors, config, config.seed).save(path)
        else:
            MicroAgent(MicroSettings(seen.tensors, config), config.seed).save(path)


def _log_loss(probabilities: np.ndarray, truth: np.ndarray) -> float:
    chosen = torch.as_tensor(probabilities).clamp(min=1e-12).log()
    return float(nn.functional.nll_loss(chosen, torch.as_tensor(truth)))


def prepare(config: RunConfig, log_dir: Path) -> TwoLevelStudy:
    """Generate the market of the configuration's seed."""
    return TwoLevelStudy(config, planted_market(config, PathPlan(), config.seed), log_dir)


def hidden_study(config: RunConfig, log_dir: Path) -> dict[str, float]:
    """Train and score the macro level on the market where only returns reveal the regime."""
    study = prepare(config, log_dir)
    scratch = study.macro_from_scratch()["macro_share"]
    return {"from_scratch": scratch, **study.macro_pretrained()}


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
                    "threshold": None if threshold is None else asdict(threshold),
                    "met": None if threshold is None else threshold.is_met(found.mean),
                }
            )
    return rows


def as_table(rows: list[dict[str, Any]]) -> Table:
    """Lay out the rows of `summarise`."""
    cells = []
    for row in rows:
        error, line = row["standard_error"], row["threshold"]
        verdict = "" if line is None else f"{line['side']} {line['bound']:g} "
        verdict += "" if line is None else "met" if row["met"] else "MISSED"
        shown = (f"{row['mean']:.4g}", NONE if error is None else f"{error:.2g}")
        cells.append((row["market"], row["figure"], *shown, str(len(row["values"])), verdict))
    header = ("market", "figure", "mean", "standard error", "seeds", "threshold")
    return Table("Known markets", header, cells, text_columns=frozenset({0, 1, 5}))
