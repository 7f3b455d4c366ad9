"""What an epoch measured, and tasks whose terms are counts."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@runtime_checkable
class SummarisesTerms(Protocol):
    """A task whose terms are counts, which become measures once an epoch is over.

    Examples:
        >>> class Counts:
        ...     def summarise(self, terms):
        ...         return {"share": terms["hits"] / terms["tries"]}
        >>> isinstance(Counts(), SummarisesTerms)
        True
    """

    def summarise(self, terms: dict[str, float]) -> dict[str, float]:
        """Turn means over the rows of an epoch into what is logged.

        Args:
            terms: `total_loss`, what `loss` returned, `grad_norm` and `clipped`.

        Returns:
            The same with other terms of the task.
        """
        ...


@dataclass(frozen=True)
class Epoch:
    """The losses and measures of a finished epoch.

    Examples:
        >>> terms = {"total_loss": 0.9, "grad_norm": 1.2, "clipped": 0.0}
        >>> Epoch(0, terms, 0.8, {}, {}, rate=0.01, seconds=2.5, is_best=True).loss
        0.8
    """

    number: int
    """From 0."""
    terms: dict[str, float]
    """Means over the training rows: `total_loss`, the task's terms, `grad_norm` and `clipped`
    (share of updates whose gradient was scaled down)."""
    loss: float
    """Validation loss."""
    measures: dict[str, float]
    """Validation measures of the task."""
    gradients: dict[str, float]
    """Norm of each weight's gradient in the first batch, before it was scaled down."""
    rate: float
    """Learning rate."""
    seconds: float
    """Duration; the parts of a resumed epoch are added up."""
    is_best: bool
