"""What does certified deployment earn? Deploy always, by the best mean, certified, or never.

    python main.py collect-data --source files --input ../shared/data/us_daily --data-dir data/us
    python scripts/certified_deployment.py --data-dir data/us --seeds 0,1,2 --jobs 2

On each fold PPO trains the macro agent from the classical policy, without any selection. Mixtures
of the two are rolled out on the two years after training and on the span after those. The first
span decides the share, the second one shows what the decision earned. Settings are an objective and
a fold, for example `risk-2008`, and `planted`, where the best policy is known. `deployment.md` and
`deployment.json` hold the table, and how often noise is granted a share: differences of real
trainings, moved to a mean of 0 and resampled in blocks, evaluated 100 times. The same command again
skips the cells that have finished.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works in a checkout that is not installed, too

import numpy as np  # noqa: E402 -- needs the path
import torch  # noqa: E402

from hrl_sarp import load_market  # noqa: E402
from hrl_sarp.agents import MacroAgent  # noqa: E402
from hrl_sarp.config.loading import config_hash, load_config  # noqa: E402
from hrl_sarp.config.schema import AcceptanceConfig, RunConfig  # noqa: E402
from hrl_sarp.contracts import DayRange, Market  # noqa: E402
from hrl_sarp.envs import PortfolioVecEnv, make_level, make_starts  # noqa: E402
from hrl_sarp.envs.policies import ClassicalGoal, FollowGoal, MixedGoal  # noqa: E402
from hrl_sarp.envs.rollout import HierarchicalPolicy  # noqa: E402
from hrl_sarp.errors import HrlSarpError  # noqa: E402
from hrl_sarp.graph import with_node_features  # noqa: E402
from hrl_sarp.known_markets.two_level import PathPlan, planted_market  # noqa: E402
from hrl_sarp.market.tensors import MarketTensors  # noqa: E402
from hrl_sarp.metrics import SESSIONS_PER_YEAR  # noqa: E402
from hrl_sarp.reporting.table import Table  # noqa: E402
from hrl_sarp.resampling import stationary_bootstrap  # noqa: E402
from hrl_sarp.run.files import write_json, write_text  # noqa: E402
from hrl_sarp.run.session import configure_threads, seed_everything  # noqa: E402
from hrl_sarp.run.terminal import accept_any_console  # noqa: E402
from hrl_sarp.studies import Cell, Results, run_grid  # noqa: E402
from hrl_sarp.training.acceptance import PRIOR, PairedDays, accept  # noqa: E402
from hrl_sarp.training.selection.validation import daily_objective  # noqa: E402

STOPPED = 130
PLANTED = "planted"
FOLDS = {
    "2008": ((2001, 2008), (2009, 2010), (2011, 2011)),
    "2010": ((2001, 2010), (2011, 2012), (2013, 2013)),
    "2012": ((2001, 2012), (2013, 2014), (2015, 2015)),
    "2014": ((2001, 2014), (2015, 2016), (2017, 2019)),
}
"""Last year of training -> first and last years of training, of the evaluated and the next span."""
GROWTH_RATE = 1e-3
"""Learning rate under `growth`, as on synthetic markets. The default is for `risk`."""
PLAN = PathPlan(train_weeks=1560, validation_weeks=104, n_paths=1, path_weeks=52)
"""Lengths of the planted market."""
N_NOISE = 100
RULES = ("always", "best mean", "certified, own span", "certified, all folds so far", "never")
Gains = dict[float, np.ndarray]
"""Share -> objective of each session less that of the classical policy, % a day."""


@dataclass(frozen=True)
class Deployment:
    """The study; a cell is an objective and a fold, or the planted market."""

    data_dir: Path
    folder: Path
    steps: int
    title: str = "certified deployment"

    def config(self, cell: Cell) -> RunConfig:
        """Return the configuration of a cell."""
        if cell.setting == PLANTED:
            return load_config(experiment="two_level", overrides={"seed": cell.seed})
        objective, fold = cell.setting.split("-")
        names = ("train", "validation", "test")
        spans = {
            name: {"start": date(first, 1, 1), "end": date(last, 12, 31)}
            for name, (first, last) in zip(names, FOLDS[fold], strict=True)
        }
        changes: dict[str, Any] = {
            "seed": cell.seed,
            "objective": {"kind": objective},
            "market_profile": {"spans": spans},
        }
        if objective == "growth":
            changes["macro_agent"] = {"ppo": {"learning_rate": GROWTH_RATE}}
        return load_config(experiment="real_us", overrides=changes)

    def market(self, cell: Cell) -> Market:
        """Generate the planted market, or load that of the fold."""
        config = self.config(cell)
        if cell.setting == PLANTED:
            return planted_market(config, PLAN, cell.seed).market
        return load_market(self.data_dir, config=config)

    def identity(self, cell: Cell) -> dict[str, Any]:
        """Return what a cell's result depends on."""
        return {"config": config_hash(self.config(cell)), "steps": self.steps}

    def run(self, cell: Cell, folder: Path) -> dict[str, Any]:
        """Train one agent and roll out all shares on both spans."""
        config = self.config(cell)
        configure_threads(config.threads)
        seed_everything(config.seed)
        market = self.market(cell)
        seen = with_node_features(market, config.macro_agent.graph)
        tensors = MarketTensors(seen, torch.float32, "cpu")
        agent = _trained(tensors, config, self.steps)
        return {
            "evaluated": _gains(tensors, config, agent, market.split.validation),
            "next": _gains(tensors, config, agent, market.split.test),
        }


def _trained(tensors: MarketTensors, config: RunConfig, steps: int) -> MacroAgent:
    ppo = config.macro_agent.ppo
    level = make_level(tensors, config, "macro", ppo.n_envs)
    starts = make_starts(tensors, config, "macro", None)
    env = PortfolioVecEnv(level, starts, group=ppo.envs_per_group)
    return MacroAgent(tensors, config, config.seed).learn(env, steps)


def _gains(
    tensors: MarketTensors, config: RunConfig, agent: MacroAgent, span: DayRange
) -> dict[str, list[float]]:
    """Return the gains of each share; the names of shares are text, as JSON wants it."""
    shares, follow = config.curriculum.acceptance.shares, FollowGoal(tensors, config.risk)
    parts = ClassicalGoal(tensors), agent
    policies = [
        HierarchicalPolicy(f"{share:g}", MixedGoal(parts, (1 - share, share)), follow)
        for share in shares
    ]
    earned = daily_objective(tensors, config, policies, span)
    gains = earned - earned[shares.index(PRIOR)]
    return {f"{share:g}": row.tolist() for share, row in zip(shares, gains, strict=True)}


def main(arguments: list[str]) -> int:
    """Run the script and return its exit code."""
    options = _options(arguments)
    study = Deployment(options.data_dir, options.output, options.steps)
    settings = [f"{objective}-{fold}" for fold in FOLDS for objective in options.objectives]
    settings = [PLANTED, *settings] if options.planted else settings
    cells = [Cell(setting, seed) for setting in settings for seed in options.seeds]
    try:
        for setting in settings:  # once for all seeds, because they start side by side
            study.market(Cell(setting, 0))
        results = run_grid(study, cells, options.jobs)
        report(study, results)
    except HrlSarpError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command continues\n")
        return STOPPED
    return 1 if results.failed else 0


def report(study: Deployment, results: Results) -> None:
    """Write `deployment.md` and `deployment.json`, and name the cells that failed."""
    for cell, reason in results.failed.items():
        sys.stderr.write(f"{cell.name} failed: {reason}\n")
    rule = load_config(experiment="real_us").curriculum.acceptance
    found, tables = {}, []
    for objective in dict.fromkeys(name.split("-")[0] for name in results.settings):
        folds = [name for name in results.settings if name.split("-")[0] == objective]
        found[objective] = summarise(results, folds, rule)
        tables.append(as_table(f"Objective {objective}", found[objective]))
    write_json(study.folder / "deployment.json", found)
    page = "\n\n".join(f"{table.title}\n\n{table.markdown()}\n\n{table.note}" for table in tables)
    write_text(study.folder / "deployment.md", page + "\n")
    sys.stdout.write(page + "\n")


def summarise(results: Results, folds: Sequence[str], rule: AcceptanceConfig) -> dict[str, Any]:
    """Decide by each rule and say what it earned on the span after the one that decided."""
    evaluated = {name: _by_seed(results, name, "evaluated") for name in folds}
    later = {name: _by_seed(results, name, "next") for name in folds}
    rows: dict[str, dict[str, float]] = {}
    decisions = {
        name: _decide(evaluated, folds[: number + 1], rule) for number, name in enumerate(folds)
    }
    for chosen in RULES:
        cells = [
            (decisions[name][chosen][seed], gains[decisions[name][chosen][seed]])
            for name in folds
            for seed, gains in later[name].items()
        ]
        earned = [SESSIONS_PER_YEAR * float(days.mean()) for _, days in cells]
        rows[chosen] = {
            "mean_pct": float(np.mean(earned)),
            "worst_pct": min(earned),
            "deployed": float(np.mean([share for share, _ in cells])),
        }
    pooled = accept(_series(evaluated, folds), rule, 0)
    noise = noise_share(_series(evaluated, folds), rule)
    return {"rules": rows, "pooled": pooled.as_dict(), "noise_granted": noise, "folds": list(folds)}


def _decide(
    evaluated: Mapping[str, Mapping[int, Gains]], so_far: Sequence[str], rule: AcceptanceConfig
) -> dict[str, dict[int, float]]:
    """Return the share of each seed of the last fold by each rule."""
    name = so_far[-1]
    pooled = accept(_series(evaluated, so_far), rule, 0).granted
    decided: dict[str, dict[int, float]] = {chosen: {} for chosen in RULES}
    for seed, gains in evaluated[name].items():
        own = accept([PairedDays(name, seed, gains)], rule, 0)
        shares = (max(gains), own.asked, own.granted, pooled, PRIOR)
        for chosen, share in zip(RULES, shares, strict=True):
            decided[chosen][seed] = share
    return decided


def _by_seed(results: Results, setting: str, span: str) -> dict[int, Gains]:
    return {
        cell.seed: {float(share): np.array(days) for share, days in measures[span].items()}
        for cell, measures in results.found.items()
        if cell.setting == setting
    }


def _series(evaluated: Mapping[str, Mapping[int, Gains]], folds: Sequence[str]) -> list[PairedDays]:
    return [
        PairedDays(name, seed, gains) for name in folds for seed, gains in evaluated[name].items()
    ]


def noise_share(series: Sequence[PairedDays], rule: AcceptanceConfig) -> float:
    """Return how often a study whose true gains are all 0 is granted a share above 0.

    Gains of real trainings less their means are resampled in blocks of dates, alike for the
    candidates and the seeds of a fold.
    """
    granted = []
    for study in range(N_NOISE):
        drawn = []
        for days in series:
            rng = np.random.default_rng([study, *days.fold.encode()])
            length = len(days.differences[PRIOR])
            (rows,) = stationary_bootstrap(length, rule.block_days, 1, rng)
            gains = {share: (v - v.mean())[rows] for share, v in days.differences.items()}
            drawn.append(PairedDays(days.fold, days.seed, gains))
        granted.append(accept(drawn, rule, study).granted)
    return float(np.mean(np.array(granted) > PRIOR))


def as_table(title: str, found: Mapping[str, Any]) -> Table:
    """Lay out what each rule earned."""
    rows = [
        (name, f"{row['mean_pct']:+.2f}", f"{row['worst_pct']:+.2f}", f"{row['deployed']:.0%}")
        for name, row in found["rules"].items()
    ]
    header = ("share deployed", "mean of the next span, % a year", "worst", "share")
    pooled = found["pooled"]
    note = (
        f"{len(found['folds'])} folds, {pooled['n_series']} trainings; objective over the "
        f"classical policy. Over all folds together {pooled['granted']:g} is granted. Noise of "
        f"these trainings is granted a share in {found['noise_granted']:.0%} of {N_NOISE} studies."
    )
    return Table(title, header, rows, note)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data/raw"))
    parser.add_argument("--output", type=Path, default=Path("logs/deployment"))
    parser.add_argument("--objectives", type=lambda text: text.split(","), default="risk,growth")
    parser.add_argument("--planted", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seeds", type=_numbers, default="0,1,2")
    parser.add_argument("--steps", type=int, default=40_960, help="of PPO, in weeks")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time")
    return parser.parse_args(arguments)


def _numbers(text: str) -> list[int]:
    return list(dict.fromkeys(int(part) for part in text.split(",")))


if __name__ == "__main__":
    accept_any_console()
    sys.exit(main(sys.argv[1:]))
