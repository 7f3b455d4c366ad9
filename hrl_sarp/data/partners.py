"""Names what of one table has no partner in another, with the spelling that may be meant."""

import re
from collections.abc import Collection, Iterable

EXCHANGES = frozenset(
    (
        *("US", "UK", "DE", "F", "L", "LN", "LSE", "AS", "PA", "MI", "MC", "BR", "LS", "VI"),
        *("SW", "VX", "ST", "CO", "HE", "OL", "IR", "WA", "PR", "BD", "AT", "IS", "TA", "SZ"),
        *("SS", "SH", "XSHE", "XSHG", "HK", "TW", "TWO", "T", "TYO", "KS", "KQ", "SI", "BK"),
        *("JK", "KL", "NS", "BO", "NSE", "BSE", "AX", "NZ", "TO", "V", "CN", "NE", "SA", "MX"),
        *("BA", "SN", "NYSE", "NASDAQ", "XNYS", "XNAS", "XETR", "XLON", "XPAR", "N", "O"),
        *("PK", "OB", "OQ"),
    )
)
"""What stands for an exchange behind a symbol, or before it."""

_SHOWN = 10
_SIGNS = re.compile(r"[\s._/\\:-]+")
_ZEROS = re.compile(r"^0+(?=\d)")
_PERIOD = r"(?:19|20)\d\d(?:[-_.]?[01]\d(?:[-_.]?[0-3]\d(?:[0-2]\d[0-5]\d)?)?)?"
PERIODS = re.compile(rf"(?:[ _.-]+{_PERIOD})+$")
"""Years, months or days at the end of a file's name: "_2019-01", "_20190102_20191231"."""
_WORDS = re.compile(
    r"(?:\s*\(\d+\)|\s*\.csv|[\s_,-]+(?:historical (?:data|prices)|historic|stock price history"
    rf"|prices|daily|1d|d1|1440|[a-z]{{2}}_d|[a-z]{{2}} equity|{_PERIOD}))+\s*$",
    re.I,
)
"""What vendors and browsers put behind a symbol."""


def twin_of(name: str, others: Iterable[str]) -> str | None:
    """Return the first of other spellings that is nearly the same name, or None.

    Case, blanks, dots, dashes, slashes, leading zeros, a decimal ".0" and the suffix of an exchange
    do not count.

    Args:
        name: A symbol.
        others: Symbols of another table.

    Examples:
        >>> twin_of("BRK.B", ["AAPL", "BRK-B"])
        'BRK-B'
        >>> twin_of("000001.SZ", ["000001.XSHE"])
        '000001.XSHE'
        >>> twin_of("AAPL", ["MSFT"]) is None
        True
    """
    forms = _forms(name)
    return next((other for other in others if other != name and forms & _forms(other)), None)


def misspelt(names: Iterable[str], partners: Collection[str]) -> tuple[str, str] | None:
    """Return the first name without a partner that has a near twin among them, with the twin.

    Args:
        names: Symbols of one table.
        partners: Symbols of another, in which each should be found as it is spelt.

    Examples:
        >>> misspelt(["AAPL", "brk-b"], ["AAPL", "BRK.B"])
        ('brk-b', 'BRK.B')
        >>> misspelt(["AAPL", "MSFT"], ["AAPL"]) is None
        True
    """
    for name in sorted(set(names) - set(partners)):
        twin = twin_of(name, partners)
        if twin is not None:
            return name, twin
    return None


def without_partner(
    names: Collection[str], partners: Collection[str], here: str, there: str
) -> tuple[str, ...]:
    """Return the note that names what of one table has no partner in another.

    Args:
        names: Symbols of the one table.
        partners: Symbols of the other.
        here: The one table, in words.
        there: The other.

    Returns:
        No note if all have a partner, else one.
    """
    lonely = sorted(set(names) - set(partners))
    if not lonely:
        return ()
    free = sorted(set(partners) - set(names)) or sorted(partners)
    by_form: dict[str, str] = {}
    for other in free:
        for form in _forms(other):
            by_form.setdefault(form, other)
    texts, bare = [], []
    for name in lonely:
        twins = [by_form[form] for form in sorted(_forms(name)) if form in by_form]
        if twins:
            texts.append(f"{name!r} (is it {twins[0]!r}?)")
        else:
            bare.append(repr(name))
    listed = [*texts, *bare]
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return (f"{here} without a partner in {there}: {', '.join(listed[:_SHOWN])}{more}",)


def _forms(name: str) -> set[str]:
    """Return the forms under which spellings of one symbol meet."""
    text = _WORDS.sub("", name.strip()).upper()
    text = re.sub(r"^(\d+)\.0$", r"\1", text)
    forms = {_plain(text)}
    stem, sign, suffix = _last_part(text)
    if sign and suffix in EXCHANGES:
        forms.add(_plain(stem))
    leading = re.match(r"^([A-Z]{2,})[._:](.{2,})$", text)
    if leading and leading[1] in EXCHANGES:
        forms.add(_plain(leading[2]))
    return forms


def _last_part(text: str) -> tuple[str, str, str]:
    found = re.match(r"^(.+)([._: -])([A-Z]+)$", text)
    return (found[1], found[2], found[3]) if found else (text, "", "")


def _plain(text: str) -> str:
    return _ZEROS.sub("", _SIGNS.sub("", text))
