"""Forecasts with Kronos: histories in, paths, quantiles and means out."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hrl_sarp.errors import ForecastError
from hrl_sarp.forecasters.contract import CLOSE, Forecast, History, require_histories
from hrl_sarp.forecasters.kronos.bars import CLIP, Scale, bars_of, scale_of, stamps_of
from hrl_sarp.forecasters.kronos.predictor import KronosPredictor
from hrl_sarp.forecasters.kronos.sampling import (
    CachedSteps,
    Context,
    RecomputedSteps,
    Sampling,
    draw_paths,
)
from hrl_sarp.forecasters.kronos.sizes import (
    CONTEXTS,
    DEFAULT_CONTEXT,
    N_COLUMNS,
    published_name,
)
from hrl_sarp.forecasters.kronos.tokenizer import KronosTokenizer

LEAST_ROWS = 2
"""One row has no deviation."""
MEMORY_BYTES = 2**31
"""Keys and values that one batch may keep."""


@dataclass(frozen=True)
class _Rows:
    """What is read of one history."""

    index: int
    """Place among the histories."""
    scale: Scale
    bars: Float[np.ndarray, "C 6"]
    """Normalised."""
    stamps: Int[np.ndarray, "C 5"]
    future_stamps: Int[np.ndarray, "h 5"]
    uniforms: Float[np.ndarray, "h S 2"]


class KronosForecaster:
    """Draws paths of bars; quantiles and means are those of the closes of the paths.

    A path depends on its history, the seed, the symbol and the origin only, not on the histories
    beside it. Prices are read in the unit of the context, so a history that is scaled has a
    forecast that is scaled alike.

    Args:
        tokenizer: from bars to tokens.
        predictor: of the same tokens.
        sampling: how paths are drawn.
        max_context: tokens that the predictor reads at most. None takes that of the published size,
            512 for others.
        context: rows of a history that are read. None leaves room for the steps, `max_context` less
            the horizon, so that nothing is computed twice. Beyond that the window slides.
        clip: normalised bars are cut to plus and minus this, as in the training.
        is_cached: whether a step reads its new token only, where the window need not slide. The
            result is the same without, up to rounding, and slower.

    Raises:
        ForecastError: if the networks do not go together, or the context has no room.

    Examples:
        >>> from hrl_sarp.forecasters.kronos.sizes import PREDICTORS, TOKENIZER_2K
        >>> networks = KronosTokenizer(TOKENIZER_2K), KronosPredictor(PREDICTORS["mini"])
        >>> forecaster = KronosForecaster(*networks, Sampling(n_paths=2))
        >>> days = np.datetime64("2024-01-01") + np.arange(12)
        >>> history = History("A", days[:10], np.linspace(9.0, 10.0, 10), days[10:])
        >>> forecaster.forecast([history], [0.5], seed=1).quantiles.shape
        (1, 2, 1)
    """

    def __init__(
        self,
        tokenizer: KronosTokenizer,
        predictor: KronosPredictor,
        sampling: Sampling | None = None,
        *,
        max_context: int | None = None,
        context: int | None = None,
        clip: float = CLIP,
        is_cached: bool = True,
    ) -> None:
        _require_pair(tokenizer, predictor)
        published = published_name(predictor.size)
        self.tokenizer, self.predictor = tokenizer, predictor
        self.sampling = sampling or Sampling()
        if max_context is None:
            max_context = CONTEXTS.get(published or "", DEFAULT_CONTEXT)
        self.max_context = max_context
        self.context, self.clip, self.is_cached = context, clip, is_cached
        self._name = "kronos" if published is None else f"kronos-{published}"
        least = LEAST_ROWS if context is None else min(context, self.max_context - 1)
        if least < LEAST_ROWS or self.max_context <= LEAST_ROWS:
            raise ForecastError(
                f"{self._name}: expected a context of at least {LEAST_ROWS} rows, and a "
                f"max_context above that, found context {context} and max_context "
                f"{self.max_context}"
            )

    @property
    def name(self) -> str:
        """Name in tables: "kronos", and the name of a published size."""
        return self._name

    @property
    def context_rows(self) -> int:
        """Rows of a history that it reads at most, the newest ones."""
        return self.context or self.max_context - 1

    @property
    def least_rows(self) -> int:
        """Rows that a history must have."""
        return LEAST_ROWS

    def forecast(
        self, histories: Sequence[History], levels: Sequence[float], seed: int
    ) -> Forecast:
        """Forecast the steps `future` of each history.

        Args:
            histories: with the same number of steps; their bars are read where they have them.
            levels: ascending quantile levels.
            seed: seed of draws.

        Returns:
            Quantiles, mean and paths of the target. The variance of logs is NaN where a series or
            one of its paths is not positive; a single path has none.

        Raises:
            ForecastError: if a history cannot be forecast.
        """
        require_histories(histories, self.least_rows, levels)
        paths = self.draw_bars(histories, seed)[..., CLOSE].astype(np.float64)
        last = np.array([history.target[-1] for history in histories])
        quantiles = np.moveaxis(np.quantile(paths, levels, axis=0), 0, -1)
        variance = _log_variance(paths, last) if len(paths) > 1 else None
        return Forecast(tuple(levels), quantiles, paths.mean(axis=0), variance, paths)

    def draw_bars(self, histories: Sequence[History], seed: int) -> Float[np.ndarray, "S B h 6"]:
        """Draw paths of whole bars.

        Args:
            histories: checked by `require_histories`.
            seed: seed of draws.

        Returns:
            Open, high, low, close, volume and amount of each path, in the units of the history. As
            the networks give them: a high may lie below a low, and a volume below 0.

        Raises:
            ForecastError: if there are more steps than the predictor can read.
        """
        n_steps = len(histories[0].future)
        if n_steps > self.max_context - LEAST_ROWS:
            raise ForecastError(
                f"{histories[0].symbol}: expected at most {self.max_context - LEAST_ROWS} steps of "
                f"a predictor that reads {self.max_context} rows, found {n_steps}"
            )
        rows = [self._rows(index, history, seed) for index, history in enumerate(histories)]
        # series of about the same length share a batch, so there is little padding
        rows.sort(key=lambda read: len(read.bars))
        drawn = np.empty(
            (self.sampling.n_paths, len(histories), n_steps, N_COLUMNS), dtype=np.float32
        )
        at_once = self._series_at_once(len(rows[-1].bars), n_steps)
        with torch.inference_mode(), _evaluating(self.tokenizer, self.predictor):
            for first in range(0, len(rows), at_once):
                batch = rows[first : first + at_once]
                normalised = self._draw(batch).cpu().numpy()
                for read, bars in zip(batch, normalised, strict=True):
                    drawn[:, read.index] = read.scale.restore(bars)
        return drawn

    def _rows(self, index: int, history: History, seed: int) -> _Rows:
        n_steps = len(history.future)
        read = history.last(self.context or self.max_context - n_steps)
        with np.errstate(over="ignore"):  # what overflows is refused in the next line
            bars = bars_of(read)
            scale = scale_of(bars)
        if not np.isfinite([scale.mean, scale.deviation]).all():
            raise ForecastError(
                f"{history.symbol}: expected bars whose squares float32 can hold, found values up "
                f"to {np.abs(bars).max():.3g}; give prices and volumes in larger units"
            )
        # a generator for each history: its draws do not depend on the histories beside it
        name = f"{seed}/{history.symbol}/{history.origin.astype('datetime64[s]')}"
        digest = hashlib.sha256(name.encode()).digest()
        rng = np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
        uniforms = rng.random((n_steps, self.sampling.n_paths, 2))
        stamps = stamps_of(read.timestamps), stamps_of(history.future)
        return _Rows(index, scale, scale.normalise(bars, self.clip), *stamps, uniforms)

    def _draw(self, batch: list[_Rows]) -> Float[Tensor, "B S h 6"]:
        """Draw normalised bars for histories that fit into one batch."""
        device = next(self.predictor.parameters()).device
        lengths = [len(read.bars) for read in batch]
        longest, n_steps = max(lengths), len(batch[0].future_stamps)
        bars, stamps = (
            torch.from_numpy(np.stack([_filled_up(part, longest) for part in parts])).to(device)
            for parts in ([read.bars for read in batch], [read.stamps for read in batch])
        )
        is_padding = None
        if min(lengths) < longest:
            missing = torch.tensor([longest - length for length in lengths], device=device)
            is_padding = torch.arange(longest, device=device) < missing[:, None]
        context = Context(*self.tokenizer.encode(bars, is_padding), stamps, is_padding)
        fits = longest + n_steps <= self.max_context
        steps = (
            CachedSteps(self.predictor, context, self.sampling, n_steps)
            if self.is_cached and fits
            else RecomputedSteps(self.predictor, context, self.sampling, self.max_context)
        )
        future, uniforms = (
            torch.from_numpy(np.stack(parts)).to(device)
            for parts in ([r.future_stamps for r in batch], [r.uniforms for r in batch])
        )
        paths = draw_paths(steps, future, uniforms, self.sampling)
        window = context.last(self.max_context - n_steps)
        return self.tokenizer.decode_paths((window.s1, window.s2), paths, window.is_padding)

    def _series_at_once(self, context: int, n_steps: int) -> int:
        """Return how many series keep their keys and values within `MEMORY_BYTES`."""
        size = self.predictor.size
        fits = context + n_steps <= self.max_context
        rows = context + self.sampling.n_paths * (n_steps if fits else self.max_context)
        per_row = 2 * 4 * size.d_model * size.n_layers
        return max(1, MEMORY_BYTES // (rows * per_row))


def _require_pair(tokenizer: KronosTokenizer, predictor: KronosPredictor) -> None:
    expected = tokenizer.size.s1_bits, tokenizer.size.s2_bits
    found = predictor.size.s1_bits, predictor.size.s2_bits
    if expected != found:
        raise ForecastError(
            f"the tokenizer makes tokens of {expected[0]} + {expected[1]} bits, so expected a "
            f"predictor of as many, found {found[0]} + {found[1]} (embedding.emb_s1, emb_s2); use "
            "the tokenizer that belongs to the predictor"
        )
    if tokenizer.size.d_in != N_COLUMNS:
        raise ForecastError(
            f"expected a tokenizer of {N_COLUMNS} columns (embed.weight), found "
            f"{tokenizer.size.d_in}; bars have open, high, low, close, volume and amount"
        )


def _log_variance(
    paths: Float[np.ndarray, "S B h"], last: Float[np.ndarray, " B"]
) -> Float[np.ndarray, "B h"]:
    ratio = paths / np.where(last > 0, last, np.nan)[:, None]
    logs = np.log(ratio, out=np.full_like(ratio, np.nan), where=ratio > 0)
    return logs.var(axis=0, ddof=1)


def _filled_up(rows: Float[np.ndarray, "T n"] | Int[np.ndarray, "T n"], n_rows: int) -> np.ndarray:
    """Repeat the first row on the left; nobody reads it there."""
    return np.concatenate([np.repeat(rows[:1], n_rows - len(rows), axis=0), rows])


@contextmanager
def _evaluating(*modules: nn.Module) -> Iterator[None]:
    """Turn dropout off, and leave each network as it was."""
    before = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, was_training in zip(modules, before, strict=True):
            module.train(was_training)
