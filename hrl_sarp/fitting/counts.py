"""Terms of a loss that are counts, and what they come to over an epoch."""

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
