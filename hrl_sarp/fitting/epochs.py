"""What an epoch measured, and what tasks may say beside their loss: counts, slower weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn


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


@runtime_checkable
class SlowsWeights(Protocol):
    """A task with weights that learn at a share of the rate, or wait for the others at first.

    Examples:
        >>> class HeadsFirst:
        ...     encoder = nn.Linear(1, 1)
        ...
        ...     def slow_weights(self):
        ...         return list(self.encoder.parameters())
        ...
        ...     def slow_share(self, epoch):
        ...         return 0.0 if epoch < 3 else 0.1
        >>> isinstance(HeadsFirst(), SlowsWeights)
        True
    """

    def slow_weights(self) -> Sequence[nn.Parameter]:
        """Name the weights, among those that are trained.

        Returns:
            None or some of the weights of the module that require a gradient.
        """
        ...

    def slow_share(self, epoch: int) -> float:
        """Return the share of the learning rate that they have.

        Args:
            epoch: from 0.

        Returns:
            The share; 0 keeps them as they are, without gradients.
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
