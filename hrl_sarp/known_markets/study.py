"""The studies of known markets: they train agents and score them on fresh paths.

The ordinary curriculum runs the phases. `from scratch` means that untrained agents, which follow
1/N, stand in for those of the earlier phases.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from hrl_sarp.agents import MacroAgent, MicroAgent, MicroSettings
from hrl_sarp.config.loading import config_hash, load_config
from hrl_sarp.config.schema import RunConfig
from hrl_sarp.contracts import Market, Regime
from hrl_sarp.envs.observations import MACRO_SCALARS
from hrl_sarp.envs.policies import (
    ClassicalGoal,
    FollowGoal,
    MacroPolicy,
    MicroPolicy,
    ProportionalGoal,
)
from hrl_sarp.features.labels import regime_label
from hrl_sarp.graph import node_features
from hrl_sarp.known_markets import (
    kelly,
    no_trade_band,
    reachable_goals,
    volatility_optimum,
    volatility_regimes,
)
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
from hrl_sarp.known_markets.volatility_optimum import path_score
from hrl_sarp.known_markets.volatility_regimes import VolatilityMarket
from hrl_sarp.reporting.table import NONE, Table
from hrl_sarp.risk import risk_tables
from hrl_sarp.run.phases import PHASES
from hrl_sarp.run.session import StopFlag, configure_threads, derive_seed, seed_everything
from hrl_sarp.studies import Cell, Results, moments
from hrl_sarp.studies.summary import Threshold
from hrl_sarp.training.curriculum import make_context, run_phase
from hrl_sarp.training.phase import PhaseContext, save_sector_table, with_sector_table

PAIR_THRESHOLDS = (
    Threshold("phase5", ">=", 0.65),
    Threshold("phase4_minus_calibrated_in_se", ">=", -1.0),
    Threshold("phase5_minus_phase4_in_se", ">=", -1.0),
    Threshold("regime_gain_share", ">=", 0.80),
)
Pair = tuple[MacroPolicy, MicroPolicy]
PERMUTED = 1
"""Role of the seed that permutes the training sessions."""
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

    def from_scratch(self) -> dict[str, float]:
        """Train each level alone on a fresh agent; return the share of the gap of each."""
        return {**self.macro_from_scratch(), **self.micro_from_scratch()}

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


@dataclass(frozen=True)
class VolatilityStudy:
    """One seed of the market that differs in risk alone, and its phases.

    A share of 0 is the classical portfolio that untrained agents hold, and 1 the best policy.
    """

    config: RunConfig
    planted: VolatilityMarket
    """Its market carries risk tables."""
    plan: PathPlan
    log_dir: Path
    """Holds one folder per variant. Phases that have finished there do not run again."""

    def context(self, variant: str, market: Market | None = None) -> PhaseContext:
        """Build the phases' context of a variant, on another market where one is given."""
        folder, device = self.log_dir / variant, torch.device("cpu")
        return make_context(
            self.config, market or self.planted.market, folder, device, StopFlag(), resume=True
        )

    def five_phases(self) -> dict[str, float]:
        """Train all five phases; return the share of the gap of both levels after each stage."""
        context = self.context("five_phases")
        for number in range(1, 6):
            run_phase(number, context)
        context = with_sector_table(context)
        return self.shares(
            context,
            {
                "calibrated": (context.load_macro(1), context.load_micro(2)),
                "phase3": (context.load_macro(3), context.load_micro(2)),
                "phase4": (context.load_macro(3), context.load_micro(4)),
                "phase5": (context.load_macro(5), context.load_micro(5, which=1)),
            },
            "optimum",
        )

    def macro_from_scratch(self) -> dict[str, float]:
        """Train phase 3 on a fresh macro agent; return its share of the macro level's gap.

        The configuration is that of `over_even_stocks`.
        """
        context = self.context("macro_from_scratch")
        write_untrained(context, (1, 2))
        run_phase(3, context)
        context = with_sector_table(context)
        rule = FollowGoal(context.tensors, self.config.risk)
        return self.shares(context, {"macro_share": (context.load_macro(3), rule)}, "macro optimum")

    def micro_from_scratch(self) -> dict[str, float]:
        """Train phase 4 on a fresh micro agent; return its share of the micro level's gap."""
        context = self.context("micro_from_scratch")
        write_untrained(context, (1, 2, 3))
        run_phase(4, context)
        context = with_sector_table(context)
        pair = (ProportionalGoal(context.tensors), context.load_micro(4))
        return self.shares(context, {"micro_share": pair}, "micro optimum")

    def gradient(self, market: Market | None = None, variant: str = "gradient") -> dict[str, float]:
        """Train phases 1 and 2, on another market where one is given; return the pair's share."""
        context = self.context(variant, market)
        for number in (1, 2):
            run_phase(number, context)
        context = with_sector_table(context)
        pair = (context.load_macro(1), context.load_micro(2))
        return self.shares(context, {variant: pair}, "optimum")

    def controls(self) -> dict[str, float]:
        """Return the shares of what must not reach the line of the agents."""
        return {**self.growth(), **self.permuted()}

    def growth(self) -> dict[str, float]:
        """Train phase 3 on log growth over 1/N, by a fresh agent; return its share."""
        objective = self.config.objective.model_copy(update={"kind": "growth"})
        growing = replace(self, config=self.config.model_copy(update={"objective": objective}))
        context = growing.context("growth")
        write_untrained(context, (1, 2))
        run_phase(3, context)
        context = with_sector_table(context)
        rule = FollowGoal(context.tensors, self.config.risk)
        return self.shares(context, {"growth": (context.load_macro(3), rule)}, "optimum")

    def permuted(self) -> dict[str, float]:
        """Train phases 1 and 2 on returns that no observation can tell; return the pair's share.

        Whole sessions change places inside the training span. What agents see stays.
        """
        market, span = self.planted.market, self.planted.market.split.train
        order = np.arange(market.n_days)
        rng = np.random.default_rng(derive_seed(self.config.seed, PERMUTED))
        order[span.start : span.stop] = rng.permutation(order[span.start : span.stop])
        moved = replace(
            market,
            overnight_return=market.overnight_return[order],
            intraday_return=market.intraday_return[order],
        )
        return self.gradient(moved, "permuted")

    def shares(
        self, context: PhaseContext, pairs: dict[str, Pair], optimum: str
    ) -> dict[str, float]:
        """Return the share of the gap between the classical prior and `optimum` of each pair."""
        tensors = context.tensors
        rule = FollowGoal(tensors, self.config.risk)
        goal = ProportionalGoal if optimum == "micro optimum" else ClassicalGoal
        best = volatility_optimum.best_pairs(tensors, self.planted.beliefs, self.config)[optimum]
        found = path_score(
            tensors,
            self.config,
            self.plan,
            {**pairs, "optimum": best, "prior": (goal(tensors), rule)},
        )
        return {name: share_of_gap(found[name], found["optimum"], found["prior"]) for name in pairs}


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


def prepare_volatility(
    config: RunConfig, log_dir: Path, plan: PathPlan | None = None
) -> VolatilityStudy:
    """Draw the market of the configuration's seed, with its risk tables."""
    plan = plan or PathPlan()
    planted = volatility_regimes.volatility_market(plan, config.seed)
    market = replace(planted.market, risk=risk_tables(planted.market, config))
    return VolatilityStudy(config, replace(planted, market=market), plan, log_dir)


def over_even_stocks(config: RunConfig) -> RunConfig:
    """Return the configuration with equal weights as classical portfolio inside the sectors.

    The best sector weights of the macro level alone are known over these.
    """
    model = config.risk_model.model_copy(update={"stock_prior": "equal_weight"})
    return config.model_copy(update={"risk_model": model})


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
