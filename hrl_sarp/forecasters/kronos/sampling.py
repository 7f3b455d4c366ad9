"""Draws paths of tokens: s1 of a step, then s2 given s1, then the next step.

`CachedSteps` reads the context once for all paths and then one token a step. `RecomputedSteps`
reads the whole window again at every step. Both give the same up to rounding while everything fits
into `max_context` tokens. Beyond that the window slides, and only recomputation is right, because
what a token means depends on the tokens that have left the window.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hrl_sarp.errors import ForecastError
from hrl_sarp.forecasters.contract import DEFAULT_PATHS
from hrl_sarp.forecasters.kronos.predictor import KronosPredictor

S2Positions = Literal["reference", "trained"]


@dataclass(frozen=True)
class Sampling:
    """How paths are drawn; the defaults but `n_paths` are the published ones.

    Raises:
        ForecastError: if a value is outside its range.

    Examples:
        >>> Sampling(temperature=0.8).top_p
        0.9
    """

    n_paths: int = DEFAULT_PATHS
    """Paths of each series. The published code draws one unless it is asked for more."""
    temperature: float = 1.0
    """Logits are divided by it: below 1 likely tokens become likelier."""
    top_p: float = 0.9
    """Only the likeliest tokens that together reach this probability are drawn."""
    top_k: int | None = None
    """Only so many of the likeliest tokens are drawn, instead of `top_p`."""
    s2_positions: S2Positions = "reference"
    """In training the query for s2 and its keys have positions ("trained"). The published decoding
    leaves them out ("reference")."""

    def __post_init__(self) -> None:
        problems = {
            "n_paths of at least 1": self.n_paths >= 1,
            "temperature above 0": self.temperature > 0,
            "top_p in (0, 1]": 0 < self.top_p <= 1,
            "top_k of at least 1, or None": self.top_k is None or self.top_k >= 1,
            f"s2_positions in {get_args(S2Positions)}": self.s2_positions in get_args(S2Positions),
        }
        wrong = [wanted for wanted, is_met in problems.items() if not is_met]
        if wrong:
            raise ForecastError(f"sampling: expected {'; '.join(wrong)}, found {self}")

    def probabilities(
        self, logits: Float[Tensor, "*axes vocabulary"]
    ) -> Float[Tensor, "*axes vocabulary"]:
        """Return the probabilities that are drawn from.

        Args:
            logits: of one half of a token.

        Returns:
            Probabilities; tokens that are left out have 0.
        """
        logits = logits / self.temperature
        if self.top_k is not None:
            least = logits.topk(min(self.top_k, logits.shape[-1]), dim=-1).values[..., -1:]
            return logits.masked_fill(logits < least, -torch.inf).softmax(dim=-1)
        if self.top_p == 1:
            return logits.softmax(dim=-1)
        descending, order = logits.sort(dim=-1, descending=True)
        before = descending.softmax(dim=-1).cumsum(dim=-1).roll(1, dims=-1)
        before[..., 0] = 0.0  # the likeliest token always stays
        kept = descending.masked_fill(before > self.top_p, -torch.inf).softmax(dim=-1)
        return torch.zeros_like(logits).scatter(-1, order, kept)

    def draw(
        self, logits: Float[Tensor, "*axes vocabulary"], uniforms: Float[Tensor, "*axes"]
    ) -> Int[Tensor, "*axes"]:
        """Turn uniform draws into tokens.

        Args:
            logits: of one half of a token.
            uniforms: in [0, 1), one for each draw.

        Returns:
            Tokens; small draws give late ones.
        """
        cumulated = self.probabilities(logits).double().cumsum(dim=-1)
        # in (0, total]: rounding can neither reach a token of probability 0 nor pass the last
        wanted = (1 - uniforms.double()[..., None]) * cumulated[..., -1:]
        return (cumulated < wanted).sum(dim=-1)


@dataclass(frozen=True)
class Context:
    """Tokens of a batch of contexts, and their times. Shorter ones are filled up on the left."""

    s1: Int[Tensor, "B C"]
    s2: Int[Tensor, "B C"]
    stamps: Int[Tensor, "B C 5"]
    is_padding: Bool[Tensor, "B C"] | None
    """Tokens that belong to no series; None if all series are equally long."""

    def last(self, n_tokens: int) -> "Context":
        """Keep the newest tokens; all if there are fewer."""
        s1, s2, stamps = (part[:, -n_tokens:] for part in (self.s1, self.s2, self.stamps))
        padding = None if self.is_padding is None else self.is_padding[:, -n_tokens:]
        return Context(s1, s2, stamps, padding)

    def followed_by(
        self, s1: Int[Tensor, "B S"], s2: Int[Tensor, "B S"], stamps: Int[Tensor, "B 5"]
    ) -> "Context":
        """Return one row for each path: its context and its next token."""
        n_paths, padding = s1.shape[1], None

        def extended(old: Tensor, new: Tensor) -> Tensor:
            return torch.cat([old.repeat_interleave(n_paths, dim=0), new[:, None]], dim=1)

        if self.is_padding is not None:
            padding = extended(self.is_padding, torch.zeros_like(s1, dtype=torch.bool).flatten())
        times = extended(self.stamps, stamps.repeat_interleave(n_paths, dim=0))
        return Context(
            extended(self.s1, s1.flatten()), extended(self.s2, s2.flatten()), times, padding
        )


@runtime_checkable
class Steps(Protocol):
    """Where S paths of each series stand."""

    def s1_logits(self) -> Float[Tensor, "B S vocabulary"]:
        """Return the logits of the next s1 of each path."""
        ...

    def s2_logits(self, s1: Int[Tensor, "B S"]) -> Float[Tensor, "B S vocabulary"]:
        """Return the logits of the next s2 of each path, given its s1."""
        ...

    def advance(
        self, s1: Int[Tensor, "B S"], s2: Int[Tensor, "B S"], stamps: Int[Tensor, "B 5"]
    ) -> None:
        """Add a token to each path."""
        ...


class CachedSteps:
    """Reads the context once, and then one token of each path a step.

    Args:
        predictor: in evaluation mode.
        context: tokens that all paths begin with.
        sampling: number of paths, and positions of s2.
        n_steps: steps that will be made at most.
    """

    def __init__(
        self, predictor: KronosPredictor, context: Context, sampling: Sampling, n_steps: int
    ) -> None:
        self._predictor = predictor
        embedded = predictor.embed(context.s1, context.s2, context.stamps)
        size = context.is_padding, sampling.n_paths, n_steps
        read, self._memories = predictor.transformer.begin(embedded, *size)
        hidden = predictor.norm(read)
        is_turned = sampling.s2_positions == "trained"
        self._s2_memory = predictor.dep_layer.begin(hidden, *size, is_turned=is_turned)
        self._newest = hidden[:, None, -1:].expand(-1, sampling.n_paths, -1, -1)

    def s1_logits(self) -> Float[Tensor, "B S vocabulary"]:
        """Return the logits of the next s1 of each path."""
        return self._predictor.s1_logits(self._newest)[:, :, 0]

    def s2_logits(self, s1: Int[Tensor, "B S"]) -> Float[Tensor, "B S vocabulary"]:
        """Return the logits of the next s2 of each path, given its s1."""
        given = s1[:, :, None]
        return self._predictor.next_s2_logits(self._newest, given, self._s2_memory)[:, :, 0]

    def advance(
        self, s1: Int[Tensor, "B S"], s2: Int[Tensor, "B S"], stamps: Int[Tensor, "B 5"]
    ) -> None:
        """Add a token to each path."""
        predictor = self._predictor
        times = stamps[:, None].expand(-1, s1.shape[1], -1)
        embedded = predictor.embed(s1, s2, times)[:, :, None]
        self._newest = predictor.norm(predictor.transformer.follow(embedded, self._memories))
        predictor.dep_layer.cross_attn.append(self._newest, self._s2_memory)


class RecomputedSteps:
    """Reads the newest `max_context` tokens of every path again at each step.

    Args:
        predictor: in evaluation mode.
        context: tokens that all paths begin with.
        sampling: number of paths, and positions of s2.
        max_context: tokens that are read at most.
    """

    def __init__(
        self, predictor: KronosPredictor, context: Context, sampling: Sampling, max_context: int
    ) -> None:
        self._predictor, self._sampling, self._max_context = predictor, sampling, max_context
        self._read(context, n_paths=sampling.n_paths)

    def s1_logits(self) -> Float[Tensor, "B S vocabulary"]:
        """Return the logits of the next s1 of each path."""
        return self._by_series(self._predictor.s1_logits(self._newest))

    def s2_logits(self, s1: Int[Tensor, "B S"]) -> Float[Tensor, "B S vocabulary"]:
        """Return the logits of the next s2 of each path, given its s1."""
        by_row = s1.reshape(self._newest.shape[:3])
        return self._by_series(
            self._predictor.next_s2_logits(self._newest, by_row, self._s2_memory)
        )

    def advance(
        self, s1: Int[Tensor, "B S"], s2: Int[Tensor, "B S"], stamps: Int[Tensor, "B 5"]
    ) -> None:
        """Add a token to each path."""
        n_rows, paths_of_row = self._newest.shape[:2]  # one row a path after the first step
        by_row = s1.reshape(n_rows, paths_of_row), s2.reshape(n_rows, paths_of_row)
        times = stamps.repeat_interleave(n_rows // len(stamps), dim=0)
        self._read(self._window.followed_by(*by_row, times), n_paths=1)

    def _read(self, context: Context, n_paths: int) -> None:
        """Read the newest tokens of each row, from which `n_paths` paths go on."""
        window = self._window = context.last(self._max_context)
        hidden = self._predictor.read(window.s1, window.s2, window.stamps, window.is_padding)
        self._newest = hidden[:, None, -1:].expand(-1, n_paths, -1, -1)
        is_turned = self._sampling.s2_positions == "trained"
        self._s2_memory = self._predictor.dep_layer.begin(
            hidden, window.is_padding, n_paths, 0, is_turned=is_turned
        )

    def _by_series(self, logits: Float[Tensor, "rows S 1 V"]) -> Float[Tensor, "B paths V"]:
        return logits.reshape(-1, self._sampling.n_paths, logits.shape[-1])


def draw_paths(
    steps: Steps,
    future_stamps: Int[Tensor, "B h 5"],
    uniforms: Float[Tensor, "B h S 2"],
    sampling: Sampling,
) -> tuple[Int[Tensor, "B S h"], Int[Tensor, "B S h"]]:
    """Draw the tokens of all paths.

    Args:
        steps: after the contexts.
        future_stamps: times of the steps.
        uniforms: in [0, 1), two for each step of each path.
        sampling: how uniform draws become tokens.

    Returns:
        s1 and s2 of the steps.
    """
    drawn: list[tuple[Tensor, Tensor]] = []
    n_steps = future_stamps.shape[1]
    for step in range(n_steps):
        s1 = sampling.draw(steps.s1_logits(), uniforms[:, step, :, 0])
        s2 = sampling.draw(steps.s2_logits(s1), uniforms[:, step, :, 1])
        drawn.append((s1, s2))
        if step + 1 < n_steps:
            steps.advance(s1, s2, future_stamps[:, step])
    s1_steps, s2_steps = zip(*drawn, strict=True)
    return torch.stack(s1_steps, dim=-1), torch.stack(s2_steps, dim=-1)
