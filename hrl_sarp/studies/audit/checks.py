"""What a check of the audit came to: what was tried, the result, and where."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Result = Literal["ok", "leak", "note", "not applicable"]
"""`note`: the data leave open whether the future is in them, and the reader has to decide."""
SHOWN = 6
"""Places that a check lists; its file has all of them."""


@dataclass(frozen=True)
class Check:
    """One check.

    Examples:
        >>> found = Check("truncated", "cut the data after 2 days", "leak", ("return_5d",) * 9)
        >>> found.where
        'return_5d; return_5d; return_5d; return_5d; return_5d; return_5d; and 3 more'
    """

    name: str
    tried: str
    result: Result
    places: tuple[str, ...] = ()
    """Each leak with its place; the reason of a note or of what is not applicable."""

    @classmethod
    def of(cls, name: str, tried: str, leaks: Sequence[str], fine: str = "") -> "Check":
        """Make a check that found leaks, or none.

        Args:
            name: of the check.
            tried: what was done.
            leaks: each with its place.
            fine: what was seen where there is none.

        Returns:
            A leak where there are leaks, else ok.
        """
        if leaks:
            return cls(name, tried, "leak", tuple(leaks))
        return cls(name, tried, "ok", (fine,) if fine else ())

    @property
    def where(self) -> str:
        """The places in one line."""
        more = len(self.places) - SHOWN
        return "; ".join([*self.places[:SHOWN], *([f"and {more} more"] if more > 0 else [])])
