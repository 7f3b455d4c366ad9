"""Grants the shares of the learned agents that are deployed, by trainings inside the training span.

The pair that is deployed mixes the classical policy with the learned one. How far it may go is
measured on inner folds: short trainings of the same recipe, evaluated on the sessions after them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from hrl_sarp.config.schema import RunConfig
from hrl_sarp.config.study_schema import CertificationConfig
from hrl_sarp.contracts import DayRange, Market, Split
from hrl_sarp.envs.gym_env import starts_in
from hrl_sarp.envs.policies import (
    ClassicalGoal,
    FollowGoal,
    MacroPolicy,
    MicroPolicy,
    MixedGoal,
    MixedTarget,
    mixed_pair,
)
from hrl_sarp.envs.rollout import HierarchicalPolicy
from hrl_sarp.errors import MarketError, StoppedEarly
from hrl_sarp.market.sector_table import market_fingerprint
from hrl_sarp.market.tensors import MarketTensors
from hrl_sarp.reporting.table import Table
from hrl_sarp.risk import risk_tables
from hrl_sarp.run.files import read_json, write_json
from hrl_sarp.run.phases import CERTIFICATION, remove_run, require_kind
from hrl_sarp.run.session import derive_seed
from hrl_sarp.run.terminal import expect_seconds, stretch
from hrl_sarp.run.trials import Span, TrialLog, distinct, prices_hash
from hrl_sarp.training.acceptance import PRIOR, Acceptance, PairedDays, accept
from hrl_sarp.training.curriculum import SECONDS, phase_seconds, run_curriculum, run_phase
from hrl_sarp.training.phase import PhaseContext, with_sector_table
from hrl_sarp.training.seeds import members, train_seeds
from hrl_sarp.training.selection.selector import SPAN
from hrl_sarp.training.selection.validation import daily_objective

STREAM = 6
"""Number of the stream of seeds, after those of the phases."""
SHORTEST = 3
"""Least length of a part of a fold, in lengths of the purge: decisions need labels and holdings."""
CERTIFYING = 6
"""Seconds of a certification without inner trainings, in validation rollouts, for the time left."""
LEVELS = 2
"""Levels that are tested, each at its part of the error."""
LENGTHS: dict[str, dict[str, tuple[str, ...]]] = {
    "macro_agent": {
        "pretrain": ("epochs",),
        "gradient": ("epochs",),
        "ppo": ("total_timesteps", "critic_warmup_steps", "eval_every_steps"),
    },
    "micro_agent": {
        "pretrain": ("epochs",),
        "gradient": ("epochs",),
        "td3": (
            "total_timesteps",
            "learning_starts",
            "critic_warmup_updates",
            "eval_every_steps",
        ),
    },
    "curriculum": {"joint": ("macro_steps", "micro_steps")},
}
"""Values that `certification.length` scales."""


@dataclass(frozen=True)
class Certification:
    """The shares of the learned agents that are deployed, with the evidence for them."""

    macro: Acceptance
    """Of the macro agent over the classical goal, under the rule as micro policy."""
    micro: Acceptance
    """Of the micro agent over the rule, under the goals that are deployed."""
    is_inner: bool
    """False: evaluated on the validation span alone, which also chose the networks."""
    n_tuned: int = 0
    """Configurations that were tuned on sessions of training or validation before."""

    def sentences(self) -> list[str]:
        """Say what was evaluated, what was asked for and what was granted."""
        found = self.macro
        basis = (
            f"evaluated on {found.n_folds} inner folds of the training span, {found.n_series} "
            f"trainings and {found.n_sessions} sessions"
            if self.is_inner
            else f"evaluated on the {found.n_sessions} sessions of validation alone, which also "
            "chose the networks; set curriculum.certification.folds for a test on inner folds"
        )
        tuned = (
            f" The error is split among {self.n_tuned} configurations that were tuned on these "
            "sessions before."
            if self.n_tuned > 1
            else ""
        )
        return [
            f"Certified deployment, {basis}.{tuned}",
            self.macro.sentence("macro agent", "share"),
            self.micro.sentence("micro agent", "share"),
        ]

    def tables(self) -> list[Table]:
        """Return the evidence of both levels."""
        title = "certification: shares of the {} agent asked for and granted"
        return [self.macro.table(title.format("macro")), self.micro.table(title.format("micro"))]

    def policy(
        self,
        name: str,
        tensors: MarketTensors,
        config: RunConfig,
        macro: MacroPolicy,
        micro: MicroPolicy,
    ) -> HierarchicalPolicy:
        """Return the pair that is deployed: each level goes as far as it was granted."""
        goal = MixedGoal((ClassicalGoal(tensors), macro), _both(self.macro.granted))
        target = MixedTarget((FollowGoal(tensors, config.risk), micro), _both(self.micro.granted))
        return HierarchicalPolicy(name, goal, target)


@dataclass(frozen=True)
class Learned:
    """A trained pair, and sessions that it was not trained on."""

    fold: str
    seed: int
    tensors: MarketTensors
    span: DayRange
    macro: MacroPolicy
    micro: MicroPolicy

    @classmethod
    def of(cls, context: PhaseContext, fold: str, span: DayRange) -> "Learned":
        """Load the last agents of a run."""
        seen = with_sector_table(context)
        phases = [number for number in (5, 4, 3, 2, 1) if seen.has(number)]
        macro = next(number for number in phases if number in (5, 3, 1))
        micro = next(number for number in phases if number in (5, 4, 2))
        agents = seen.load_macro(macro), seen.load_micro(micro, which=1 if micro == 5 else 0)
        return cls(fold, seen.config.seed, seen.tensors, span, *agents)


def train_and_certify(
    context: PhaseContext,
    seeds: Sequence[int] | None,
    log: TrialLog | None = None,
    *,
    overwrite: bool = False,
) -> Certification:
    """Train all phases, of one seed or of several, and grant the shares that are deployed.

    Args:
        context: of the run.
        seeds: each trains in a folder of its own; None trains the seed of the configuration alone.
        log: tells how many configurations were tuned before; None knows of none.
        overwrite: remove the run that the folder holds, with its reports.

    Returns:
        What was granted.

    Raises:
        HrlSarpError: for a folder of the other kind of run, and for seeds that cannot be meant.
        MarketError: if the training span is too short.
        StoppedEarly: after a checkpoint, if a stop was requested.
    """
    require_room(context.market, context.config)
    if overwrite:
        remove_run(context.log_dir)
    trained, certifying = run_seconds(context, len(seeds or [0]))
    expect_seconds(trained + certifying)
    share = trained / (trained + certifying)
    with stretch(0.0, share):
        if seeds is None:
            require_kind(context.log_dir, several=False)
            run_curriculum(context)
        else:
            train_seeds(context, seeds)
    with stretch(share, 1.0, "certification"):
        granted = certify(context, log)
    if context.stop.is_set:  # asked for after the last boundary: a backtest must not begin
        raise StoppedEarly
    return granted


def run_seconds(context: PhaseContext, n_seeds: int) -> tuple[float, float]:
    """Return about how long the phases of all seeds and the certification take on one core.

    Args:
        context: of the run.
        n_seeds: that train one after the other.

    Returns:
        Seconds of both.
    """
    config, split = context.config, context.market.split
    settings = config.curriculum.certification
    inner = shortened(config, config.seed, settings)
    spans, _ = _spans_with_room(context)
    parts = [list(phase_seconds(inner, span).values())[: settings.phases] for span in spans]
    alone = CERTIFYING * SECONDS["day"] * len(split.validation)
    trained = n_seeds * sum(phase_seconds(config, split).values())
    return trained, alone + settings.seeds * sum(map(sum, parts))


def certify(context: PhaseContext, log: TrialLog | None = None) -> Certification:
    """Grant both shares and write them with their evidence; a finished result is read again.

    Pairs are trained inside the training span, on as many of the folds that
    `curriculum.certification.folds` asks for as it has room for, in folders of their own. An
    interrupted run goes on where it was. Without a fold the pair of the run itself is evaluated on
    its validation span.
    """
    path, identity = context.log_dir / CERTIFICATION, context.run_identity()
    if context.resume and path.is_file():
        found = read_json(path, "hrl-sarp train")
        context.state(1).require_same(found, str(path))
        return _from_dict(found)
    spans = splits_with_room(context)
    learned = list(inner_pairs(context, spans)) if spans else [_own_pair(context)]
    n_tuned = 0 if log is None else tuned_before(context.market, log)
    found = grant(learned, context.config, is_inner=bool(spans), n_tuned=n_tuned)
    for sentence in found.sentences():
        logger.info(sentence)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**identity, **_as_dict(found, learned)})
    return found


def read_certification(log_dir: Path) -> Certification | None:
    """Read what a run was granted; None if it has not been certified."""
    path = log_dir / CERTIFICATION
    return _from_dict(read_json(path, "hrl-sarp train")) if path.is_file() else None


def tuned_before(market: Market, log: TrialLog) -> int:
    """Count the configurations that were tuned on sessions of training or validation.

    Args:
        market: of the run.
        log: of all trials.

    Returns:
        Their number; any of them may be the one that is certified.
    """
    split = market.split
    rows = DayRange(split.train.start, split.validation.stop)
    seen = log.trials(Span.of_rows(market, rows, "certification"), prices_hash(market))
    return len(distinct(trial for trial in seen if trial.kind == "tuning"))


def grant(
    learned: Sequence[Learned], config: RunConfig, *, is_inner: bool, n_tuned: int = 0
) -> Certification:
    """Roll out every share of both levels and accept what the evidence supports.

    The macro agent comes first; the micro agent is evaluated under the goals that were granted.
    Each level is tested at half the error, so that any share above 0 is luck no more often than
    `acceptance.confidence` says. That holds for every configuration that was tuned on the same
    sessions together, because the best of them was chosen there.
    """
    rule, seed = config.curriculum.acceptance, config.seed
    part = (1 - rule.confidence) / LEVELS / max(1, n_tuned)
    each = rule.model_copy(update={"confidence": 1 - part})
    macro = accept([_macro_gains(pair, config) for pair in learned], each, seed)
    micro = accept([_micro_gains(pair, config, macro.granted) for pair in learned], each, seed)
    return Certification(macro, micro, is_inner, n_tuned)


def _macro_gains(pair: Learned, config: RunConfig) -> PairedDays:
    tensors, follow = pair.tensors, FollowGoal(pair.tensors, config.risk)
    policies = {
        share: HierarchicalPolicy(
            f"macro {share:g}",
            MixedGoal((ClassicalGoal(tensors), pair.macro), _both(share)),
            follow,
        )
        for share in _candidates(config)
    }
    return _gains(pair, config, policies)


def _micro_gains(pair: Learned, config: RunConfig, macro_share: float) -> PairedDays:
    tensors, follow = pair.tensors, FollowGoal(pair.tensors, config.risk)
    goal = MixedGoal((ClassicalGoal(tensors), pair.macro), _both(macro_share))
    policies = {
        share: HierarchicalPolicy(
            f"micro {share:g}", goal, MixedTarget((follow, pair.micro), _both(share))
        )
        for share in _candidates(config)
    }
    return _gains(pair, config, policies)


def _both(share: float) -> tuple[float, float]:
    """Return the shares of the prior and of the learned policy."""
    return 1 - share, share


def _candidates(config: RunConfig) -> list[float]:
    return sorted({PRIOR, *config.curriculum.acceptance.shares})


def _gains(pair: Learned, config: RunConfig, policies: dict[float, Any]) -> PairedDays:
    earned = daily_objective(pair.tensors, config, list(policies.values()), pair.span)
    gains = {share: row - earned[0] for share, row in zip(policies, earned, strict=True)}
    return PairedDays(pair.fold, pair.seed, gains, pair.tensors.market.sessions.year)


def _own_pair(context: PhaseContext) -> Learned:
    span = context.market.split.validation
    pairs = [Learned.of(member, SPAN, span) for member in members(context)]
    macro, micro = mixed_pair([(pair.macro, pair.micro) for pair in pairs])
    return replace(pairs[0], macro=macro, micro=micro)


def inner_pairs(context: PhaseContext, spans: Sequence[Split]) -> Iterator[Learned]:
    """Train the pairs of all inner folds and seeds."""
    settings = context.config.curriculum.certification
    for number, split in enumerate(spans):
        market = inner_market(context.market, split, context.config)
        seen = replace(context.with_market(market), fingerprint=market_fingerprint(market))
        first, last = market.dates[split.test.start], market.dates[split.test.stop - 1]
        for draw in range(settings.seeds):
            seed = derive_seed(context.config.seed, STREAM, draw)
            folder = context.log_dir / CERTIFICATION.parent / f"fold_{number}_seed_{draw}"
            inner = replace(seen, config=shortened(context.config, seed, settings), log_dir=folder)
            logger.info(f"certification: fold {first} to {last}, training {draw + 1}")
            done, total = number * settings.seeds + draw, len(spans) * settings.seeds
            with stretch(done / total, (done + 1) / total, f"{done + 1} of {total}"):
                _run_phases(inner, settings.phases)
            yield Learned.of(inner, f"{first} to {last}", split.test)


def _run_phases(context: PhaseContext, n_phases: int) -> None:
    for phase in range(1, n_phases + 1):
        with stretch((phase - 1) / n_phases, phase / n_phases):
            run_phase(phase, context)


def require_room(market: Market, config: RunConfig) -> None:
    """Refuse a training span that is too short for the episodes of a run.

    It is called before the first phase, because episodes are drawn hours later.

    Args:
        market: of the run.
        config: of the run.

    Raises:
        MarketError: naming the span, and what to shorten.
    """
    _require_episodes(market, config, market.split.train)


def splits_with_room(context: PhaseContext) -> list[Split]:
    """Return the inner folds of a run: as many as asked for, or as a short training span holds.

    Args:
        context: of the run.

    Returns:
        The folds; none where the span has no room for a single one, which is said as a warning.
    """
    splits, reason = _spans_with_room(context)
    if reason and splits:
        logger.warning(f"certification: {len(splits)} inner folds, not more: {reason}")
    elif reason:
        logger.warning(f"certification: no inner fold, the validation span decides: {reason}")
    return splits


def _spans_with_room(context: PhaseContext) -> tuple[list[Split], str]:
    """Return the inner folds, and why there are not as many as were asked for, else nothing."""
    config, train = context.config, context.market.split.train
    settings, reason = config.curriculum.certification, ""
    for n_folds in range(settings.folds, 0, -1):
        fewer = settings.model_copy(update={"folds": n_folds})
        try:
            splits = inner_splits(train, fewer, config.data.purge_days)
            for split in splits:
                _require_episodes(context.market, config, split.train)
        except MarketError as error:
            reason = reason or str(error)
        else:
            return splits, reason
    return [], reason


def _require_episodes(market: Market, config: RunConfig, span: DayRange) -> None:
    starts_in(market, config, "macro", span)
    starts_in(market, config, "micro", span)


def inner_splits(train: DayRange, settings: CertificationConfig, purge_days: int) -> list[Split]:
    """Cut a training span into expanding folds; nothing reaches past the span.

    The tests of the folds follow each other and have equal lengths. What lies before a test is
    training, then validation, each without its last `purge_days` sessions.
    """
    first = train.start + round(settings.first_share * len(train))
    edges = np.linspace(first, train.stop, settings.folds + 1).round().astype(int).tolist()
    splits = []
    for start, stop in pairwise(edges):
        middle = train.start + round((1 - settings.validation_share) * (start - train.start))
        split = Split(
            DayRange(train.start, middle - purge_days),
            DayRange(middle, start - purge_days),
            DayRange(start, stop),
        )
        shortest = SHORTEST * purge_days
        if min(len(split.train), len(split.validation), len(split.test)) < shortest:
            raise MarketError(
                f"curriculum.certification: {settings.folds} folds of a training span of "
                f"{len(train)} sessions leave {len(split.train)} to train, "
                f"{len(split.validation)} to validate and {len(split.test)} to test: expected at "
                f"least {shortest} each; take fewer folds (0 judges on validation) or a longer "
                "span"
            )
        splits.append(split)
    return splits


def inner_market(market: Market, split: Split, config: RunConfig) -> Market:
    """Return the market of an inner fold: its split, and risk inputs scaled by its training span.

    The HMM of the filtered regime and stock embeddings stay; they were fitted on the whole training
    span.
    """
    bare = replace(market, split=split, sector_embeddings=None, risk=None)
    return bare if market.risk is None else replace(bare, risk=risk_tables(bare, config))


def shortened(config: RunConfig, seed: int, settings: CertificationConfig) -> RunConfig:
    """Return the configuration of an inner training: another seed and scaled lengths."""
    values = config.model_dump()
    for section, parts in LENGTHS.items():
        for part, names in parts.items():
            lengths = values[section][part]
            for name in names:
                lengths[name] = max(1, round(settings.length * lengths[name]))
    return RunConfig.model_validate({**values, "seed": seed})


def _as_dict(found: Certification, learned: Sequence[Learned]) -> dict[str, Any]:
    return {
        "granted": {"macro": found.macro.granted, "micro": found.micro.granted},
        "sentences": found.sentences(),
        "is_inner": found.is_inner,
        "n_tuned": found.n_tuned,
        "trainings": [{"fold": pair.fold, "seed": pair.seed} for pair in learned],
        "macro": found.macro.as_dict(),
        "micro": found.micro.as_dict(),
    }


def _from_dict(values: dict[str, Any]) -> Certification:
    macro, micro = (Acceptance.from_dict(values[level]) for level in ("macro", "micro"))
    return Certification(macro, micro, values["is_inner"], values.get("n_tuned", 0))
