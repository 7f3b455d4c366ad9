"""Decides how far something learned is deployed. All phases, temperatures and tilts use this rule.

A candidate is a number: the share of a learned policy in a mixture with its prior, a temperature,
the size of a tilt. Candidate 0 is the prior. Another candidate is accepted only if the mean of its
paired daily differences to the prior is positive with the configured confidence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr, stdtrit

from hrl_sarp.config.schema import AcceptanceConfig
from hrl_sarp.errors import MetricError
from hrl_sarp.metrics import SESSIONS_PER_YEAR
from hrl_sarp.reporting.table import Table, counted, signed
from hrl_sarp.resampling import draw_counts, stationary_bootstrap

PRIOR = 0.0
"""The candidate that is deployed when no other one is accepted."""
ROUNDING = 1e-12
"""Spread of means, as a share of the largest difference, that counts as none."""


@dataclass(frozen=True)
class PairedDays:
    """Daily differences of one training's candidates to the prior, on days it was not trained on.

    Examples:
        >>> days = PairedDays("2009-2010", seed=0, differences={1.0: np.array([0.02, -0.01])})
        >>> sorted(days.differences)
        [1.0]
    """

    fold: str
    """Span of the differences. Series of one fold are about the same dates."""
    seed: int
    """Seed of the training."""
    differences: Mapping[float, Float[np.ndarray, " T"]]
    """Candidate -> its objective less the prior's, % a day, NaN refused."""
    sessions_per_year: int = SESSIONS_PER_YEAR
    """Of the market's calendar."""


@dataclass(frozen=True)
class Evidence:
    """What speaks for a candidate."""

    candidate: float
    mean_pct: float
    """Mean difference to the prior, % a year."""
    lower_pct: float
    """Lower confidence bound of the mean, % a year."""


@dataclass(frozen=True)
class Acceptance:
    """What was asked for and what the evidence granted.

    Examples:
        >>> rows = (Evidence(0.0, 0.0, 0.0), Evidence(0.5, 1.0, 0.2), Evidence(1.0, 1.5, -0.4))
        >>> found = Acceptance(rows, confidence=0.9, n_folds=4, n_series=12, n_sessions=2000)
        >>> found.asked, found.granted
        (1.0, 0.5)
    """

    evidence: tuple[Evidence, ...]
    """One entry for each candidate in ascending order; the first is the prior."""
    confidence: float
    """Confidence of the lower bounds, for all candidates together."""
    n_folds: int
    n_series: int
    """Trainings: folds x seeds."""
    n_sessions: int
    """Sessions of all folds."""
    kept: float | None = None
    """Candidate that is deployed where only one could be kept before all were in."""

    @property
    def asked(self) -> float:
        """Candidate with the largest mean: what would be deployed without a test."""
        return max(self.evidence, key=lambda row: (row.mean_pct, -row.candidate)).candidate

    @property
    def granted(self) -> float:
        """Candidate with the largest lower bound if that is above 0, else the prior.

        If one was kept before, it is that one or the prior.
        """
        if self.kept is not None:
            bound = next(row.lower_pct for row in self.evidence if row.candidate == self.kept)
            return self.kept if bound > 0 else PRIOR
        return max(self.evidence, key=lambda row: (row.lower_pct, -row.candidate)).candidate

    def sentence(self, what: str, kind: str, prior: str = "the prior") -> str:
        """Say what was granted.

        Args:
            what: where it is deployed, for example "phase 1".
            kind: of thing that the candidates number, for example "temperature".
            prior: name of candidate 0.

        Returns:
            One sentence with the means and bounds that decided.

        Examples:
            >>> rows = (Evidence(0.0, 0.0, 0.0), Evidence(0.5, 1.0, 0.2), Evidence(1.0, 1.5, -0.4))
            >>> found = Acceptance(rows, confidence=0.9, n_folds=4, n_series=12, n_sessions=2000)
            >>> print(found.sentence("macro agent", "share"))
            macro agent: share 0.5 granted, at least +0.20 % a year over the prior at 90% confidence
            (mean +1.00); asked for was share 1 (mean +1.50)
        """
        at = {row.candidate: row for row in self.evidence}
        asked, granted = at[self.asked], at[self.granted]
        sure = f"at {100 * self.confidence:.4g}% confidence"
        wanted = f"asked for was {kind} {asked.candidate:g} (mean {signed(asked.mean_pct)}"
        if granted.candidate != PRIOR:
            told = (
                f"{what}: {kind} {granted.candidate:g} granted, at least "
                f"{signed(granted.lower_pct)} % a year over {prior} {sure} "
                f"(mean {signed(granted.mean_pct)})"
            )
            return told if asked is granted else f"{told}; {wanted})"
        if asked.candidate == PRIOR:
            return f"{what}: {prior} stays, no {kind} gained on average"
        tested = [row for row in self.evidence[1:] if self.kept in (None, PRIOR, row.candidate)]
        best = max(row.lower_pct for row in tested)
        return (
            f"{what}: {prior} stays, a gain over it is not sure (at least {signed(best)} % a year "
            f"{sure}); {wanted})"
        )

    def table(self, title: str) -> Table:
        """Return the evidence, one row a candidate.

        Args:
            title: of the table.

        Returns:
            A table that names the candidates that were asked for and granted, or that 0 stays.
        """
        marks = {self.asked: "asked", self.granted: "granted"}
        if self.asked == self.granted:
            marks = {self.asked: "asked, granted"}
        if self.granted == PRIOR:
            marks[PRIOR] = "stays"  # "granted" beside a gain of 0 reads as if something were
        rows = [
            (
                f"{row.candidate:g}",
                signed(row.mean_pct),
                signed(row.lower_pct),
                marks.get(row.candidate, ""),
            )
            for row in self.evidence
        ]
        note = (
            f"Objective less that of 0, the policy it began with, over "
            f"{counted(self.n_sessions, 'session')} in {counted(self.n_folds, 'fold')} and "
            f"{counted(self.n_series, 'training')}; bounds hold together at "
            f"{100 * self.confidence:.4g}%."
        )
        header = ("candidate", "mean, % a year", "lower bound", "decision")
        return Table(title, header, rows, note, text_columns=frozenset({0, 3}))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Acceptance":
        """Read what `as_dict` wrote.

        Args:
            values: as they came from JSON.

        Returns:
            The same evidence.
        """
        rows = tuple(Evidence(**row) for row in values["evidence"])
        names = ("confidence", "n_folds", "n_series", "n_sessions")
        return cls(rows, **{name: values[name] for name in names}, kept=values.get("kept"))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON and checkpoints.

        Returns:
            The fields, `asked` and `granted`; `evidence` is a list of mappings.
        """
        rows = [asdict(row) for row in self.evidence]
        return {**asdict(self), "evidence": rows, "asked": self.asked, "granted": self.granted}


def accept(series: Sequence[PairedDays], config: AcceptanceConfig, seed: int) -> Acceptance:
    """Find the candidate whose gain over the prior the evidence supports best.

    Seeds of a fold are averaged first, because they share their dates. Each fold is a history of
    its own. Its dates are resampled in blocks of random length, for all candidates together. The
    lower bound of a candidate is its mean less a multiple of its standard error. The multiple is
    the same for all and such that all bounds hold together. With one candidate, or with candidates
    whose differences are proportional, it is the quantile of the resampled means, but for a small
    correction of short histories.

    Args:
        series: differences of each training; all have the same candidates. Zero differences of
            candidate 0 may be among them.
        config: section `curriculum.acceptance`.
        seed: of the resampling.

    Returns:
        The evidence for each candidate, and what it grants.

    Raises:
        MetricError: if a series is missing, empty, not finite, or of another length or of other
            candidates than those beside it.

    Source:
        Politis and Romano (1994) for the resampling; Romano and Wolf (2005), "Stepwise multiple
        testing as formalized data snooping", for bounds that hold together.

    Examples:
        >>> config = AcceptanceConfig(
        ...     shares=[0.0, 0.5, 1.0], confidence=0.9, block_days=20, samples=500
        ... )
        >>> gain = 0.05 + 0.1 * np.sin(np.arange(500))  # % a day
        >>> days = PairedDays("2009-2010", seed=0, differences={0.5: gain / 2, 1.0: gain})
        >>> accept([days], config, seed=0).granted
        1.0
    """
    candidates = sorted({c for days in series for c in days.differences if c != PRIOR})
    if not candidates:
        raise MetricError(
            "acceptance: no candidate beside the prior in the series; give the differences of one "
            "training or more"
        )
    folds = _pooled(series, candidates)
    n_sessions = sum(map(len, folds))
    mean = np.concatenate(folds).mean(axis=0)
    deviations = np.zeros((config.samples, len(candidates)))
    for number, table in enumerate(folds):
        rng = np.random.default_rng([seed, number])
        deviations += _resampled_sums(table, config, rng) / n_sessions
    lower = mean - _margin(deviations, folds, config)
    rows, year = [Evidence(PRIOR, 0.0, 0.0)], series[0].sessions_per_year
    for candidate, found, bound in zip(candidates, mean, lower, strict=True):
        annual = year * float(found), year * float(bound)
        rows.append(Evidence(candidate, *annual))
    return Acceptance(tuple(rows), config.confidence, len(folds), len(series), n_sessions)


def _pooled(
    series: Sequence[PairedDays], candidates: list[float]
) -> list[Float[np.ndarray, "_ candidates"]]:
    """Check the series and average the seeds of each fold."""
    by_fold: dict[str, list[np.ndarray]] = {}
    for days in series:
        where = f"acceptance: fold '{days.fold}', seed {days.seed}"
        found = sorted(c for c in days.differences if c != PRIOR)
        if found != candidates:
            raise MetricError(
                f"{where}: candidates {found}, expected {candidates} as in the other series; roll "
                "out the same candidates everywhere"
            )
        for candidate, values in days.differences.items():
            _require_usable(f"{where}, candidate {candidate:g}", candidate, values)
        rows = [days.differences[candidate] for candidate in candidates]
        tables = by_fold.setdefault(days.fold, [])
        lengths = sorted({len(row) for row in [*days.differences.values(), *tables[:1]]})
        if len(lengths) > 1:
            raise MetricError(
                f"{where}: series of {lengths} sessions; candidates and seeds of a fold must cover "
                "the same dates"
            )
        tables.append(np.stack(rows, axis=1))
    return [np.mean(tables, axis=0) for tables in by_fold.values()]


def _require_usable(where: str, candidate: float, values: np.ndarray) -> None:
    if len(values) < 2:
        raise MetricError(
            f"{where} has {len(values)} sessions: expected at least 2; choose a longer span"
        )
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise MetricError(
            f"{where} is {values[wrong[0]]} in session {wrong[0]}: expected finite differences; "
            "the rollout or the training behind it diverged"
        )
    if candidate == PRIOR and values.any():
        raise MetricError(f"{where} differs from the prior, which it is; check what was rolled out")


def _resampled_sums(
    table: Float[np.ndarray, "T candidates"], config: AcceptanceConfig, rng: np.random.Generator
) -> Float[np.ndarray, "samples candidates"]:
    """Resample the dates of a fold; return the sums' deviations from the sum.

    A short history is compared with its own mean, so its resampled sums vary too little. They are
    widened by the share that is known to be missing: the effective length of a block over T.
    """
    n_sessions = len(table)
    counts = draw_counts(stationary_bootstrap(n_sessions, config.block_days, config.samples, rng))
    lag = np.arange(1, n_sessions)
    effective_block = 1 + 2 * ((1 - lag / n_sessions) * (1 - 1 / config.block_days) ** lag).sum()
    widening = 1 / np.sqrt(1 - effective_block / n_sessions)
    deviations: np.ndarray = counts @ (table - table.mean(axis=0)) * widening
    return deviations


def _margin(
    deviations: Float[np.ndarray, "samples candidates"],
    folds: list[np.ndarray],
    config: AcceptanceConfig,
) -> Float[np.ndarray, " candidates"]:
    """Return how far each candidate's lower bound is below its mean.

    It is the standard error times the quantile of the worst standardised mean. A standard error
    from few blocks is uncertain itself, so Student's distribution with as many degrees of freedom
    as there are blocks takes the place of the normal one.
    """
    days = np.concatenate(folds)
    spread = deviations.std(axis=0)
    moves = spread > ROUNDING * np.abs(days).max(axis=0)
    if not moves.any():
        return np.zeros_like(spread)
    worst = (deviations[:, moves] / spread[moves]).min(axis=1)
    level = ndtr(np.quantile(worst, 1 - config.confidence))
    found: np.ndarray = np.where(moves, -stdtrit(len(days) / config.block_days, level), 0.0)
    return found * spread
