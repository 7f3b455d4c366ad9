"""What an autoencoder is asked for: the hidden bars, or how far price moves to both sides of bars.

Rebuilding single bars asks for local facts. Moves ask where price goes over many bars. An encoder
can only tell the moves ahead of a bar if it carries what later bars say back to it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hrl_sarp.config.encoder_schema import RebuildKind
from hrl_sarp.encoders.pretrain.reconstruction import MaskRule
from hrl_sarp.errors import ConfigError
from hrl_sarp.features.relativity import DISPLACEMENT


class Wanted(NamedTuple):
    """The values that an autoencoder should give for some windows."""

    values: Float[Tensor, "B L T"]
    counted: Bool[Tensor, "B L #T"]
    """Which of them the loss counts; as many in every window."""
    unseen: Bool[Tensor, "B L #T"]
    """Which of them no visible bar holds. Baselines rebuild these from the others."""


@dataclass(frozen=True)
class HiddenBars:
    """The columns of the hidden bars themselves.

    Examples:
        >>> rule = MaskRule("block", ratio=0.25, warmup_bars=4, patch_bars=3)
        >>> HiddenBars(("a", "b")).count(rule, 20)  # four bars of two columns
        8
    """

    names: tuple[str, ...]
    """Columns of a bar."""

    def wanted(self, bars: Float[Tensor, "B L F"], hidden: Bool[Tensor, "B L"]) -> Wanted:
        """Return the bars; the hidden ones count.

        Args:
            bars: windows of L bars, scaled.
            hidden: True where a bar is hidden from the encoder.

        Returns:
            The bars themselves.
        """
        return Wanted(bars, hidden.unsqueeze(-1), hidden.unsqueeze(-1))

    def count(self, rule: MaskRule, length: int) -> int:
        """Count the hidden values of a window.

        Args:
            rule: how bars are hidden.
            length: bars of a window.

        Returns:
            Hidden bars times columns.
        """
        return rule.count(length) * len(self.names)


@dataclass(frozen=True)
class MovesToBothSides:
    """How far the close moved over k bars up to a bar, and how far it moves over k bars from it.

    Both come from the columns of displacements, so the unit is that of the scaled columns. The
    move ahead of a bar stands k bars later in the window. All bars count, hidden or not, except the
    warm-up and moves that leave the window. So visible bars are embedded with their path, too.

    Examples:
        >>> moves = MovesToBothSides(("range_z", "displacement_2"), warmup_bars=1)
        >>> moves.names
        ('displacement_2 up to the bar', 'displacement_2 from the bar')
        >>> bars = torch.tensor([[[0.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 3.0]]])
        >>> moves.wanted(bars, torch.zeros(1, 4, dtype=torch.bool)).values[0, 1].tolist()
        [1.0, 3.0]
    """

    columns: tuple[str, ...]
    """All columns of a bar."""
    warmup_bars: int
    """First bars of a window, which do not count."""

    @property
    def spans(self) -> dict[int, int]:
        """Column -> the bars that its move takes."""
        return {
            place: int(name.removeprefix(DISPLACEMENT))
            for place, name in enumerate(self.columns)
            if name.startswith(DISPLACEMENT)
        }

    @property
    def names(self) -> tuple[str, ...]:
        """Moves up to the bar, then moves from it."""
        moves = [self.columns[place] for place in self.spans]
        return tuple(f"{name} {side} the bar" for side in ("up to", "from") for name in moves)

    def wanted(self, bars: Float[Tensor, "B L F"], hidden: Bool[Tensor, "B L"]) -> Wanted:
        """Return the moves up to each bar and from it.

        Args:
            bars: windows of L bars, scaled.
            hidden: True where a bar is hidden from the encoder.

        Returns:
            Moves in the order of `names`; 0 where a move leaves the window.
        """
        length, spans = bars.shape[1], self.spans
        seen_at = torch.stack([hidden] * len(spans), dim=2)
        before, ahead = bars[..., list(spans)], torch.zeros_like(bars[..., : len(spans)])
        unseen_ahead = torch.ones_like(seen_at)
        for number, (place, k) in enumerate(spans.items()):
            ahead[:, : length - k, number] = bars[:, k:, place]
            unseen_ahead[:, : length - k, number] = hidden[:, k:]
        counted = self._counted(length).to(bars.device).expand(len(bars), -1, -1)
        return Wanted(
            torch.cat([before, ahead], dim=2), counted, torch.cat([seen_at, unseen_ahead], dim=2)
        )

    def count(self, rule: MaskRule, length: int) -> int:
        """Count the moves of a window.

        Args:
            rule: not read, because hidden and visible bars count.
            length: bars of a window.

        Returns:
            The number of moves inside the window, after the warm-up.
        """
        return int(self._counted(length).sum())

    def _counted(self, length: int) -> Bool[Tensor, "L T"]:
        bar, spans = torch.arange(length).unsqueeze(1), torch.tensor(list(self.spans.values()))
        warm = bar >= self.warmup_bars
        return torch.cat([warm & (bar >= spans), warm & (bar + spans < length)], dim=1)


Rebuild = HiddenBars | MovesToBothSides


def rebuild_of(kind: RebuildKind, columns: tuple[str, ...], warmup_bars: int) -> Rebuild:
    """Return what `encoders.pretraining.rebuilds` asks for.

    Args:
        kind: `bars` or `moves`.
        columns: columns of a bar.
        warmup_bars: first bars of a window, which do not count.

    Returns:
        What the autoencoder is asked for.

    Raises:
        ConfigError: if moves are asked for and no column holds any.
    """
    if kind == "bars":
        return HiddenBars(columns)
    moves = MovesToBothSides(columns, warmup_bars)
    if not moves.spans:
        raise ConfigError(
            "encoders.pretraining.rebuilds: moves needs columns of displacements, found "
            f"{', '.join(columns)}; set windowed.feature_config.displacement_bars, for example to "
            "[4, 8, 16]"
        )
    return moves
