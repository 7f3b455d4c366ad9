"""What a study must reach: one home for the thresholds of tests and benchmarks."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Line:
    """A figure of a study and the bound that its mean over seeds is held against."""

    figure: str
    side: Literal[">=", "<="]
    bound: float

    def is_met(self, value: float) -> bool:
        """Say whether a value is on the right side; the bound itself is."""
        return value >= self.bound if self.side == ">=" else value <= self.bound


def missed(lines: tuple[Line, ...], figures: dict[str, float]) -> list[str]:
    """Return one text per missed line, with the figure that missed it."""
    return [
        f"{line.figure} = {figures[line.figure]:.4g}, expected {line.side} {line.bound:g}"
        for line in lines
        if not line.is_met(figures[line.figure])
    ]
