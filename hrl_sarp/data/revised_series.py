"""Which macro series are rewritten after their first print; the one list of them."""

REVISED = r"^(ANFCI|NFCI|STLFSI.*|CFNAI.*|USREC.*|GDP.*|M2.*|WM2NS)$"
"""Names as FRED has them: financial conditions, activity, recessions, national accounts, money.
Today's values were not known then, and without vintages no lag repairs that: sources leave such
series out, and features refuse them."""
