"""Shows an audit: a table, a JSON file and a page."""

from collections import Counter
from pathlib import Path

from hrl_sarp.reporting.page import Section, page
from hrl_sarp.reporting.table import Table
from hrl_sarp.run.files import write_json, write_text
from hrl_sarp.studies.audit.run import Audit

JSON_NAME, PAGE_NAME = "audit.json", "audit.html"


def audit_table(audit: Audit, *, whole: bool = False) -> Table:
    """Lay out an audit, a row a check.

    Args:
        audit: of data and agents.
        whole: list all places, not the first ones alone.

    Returns:
        What was tried, the result, and where.
    """
    rows = [
        (c.name, c.result, "; ".join(c.places) if whole else c.where, c.tried) for c in audit.checks
    ]
    leaks = frozenset(check.name for check in audit.checks if check.result == "leak")
    return Table(
        f"Audit of {_subject(audit)}",
        ("check", "result", "where", "tried"),
        rows,
        note="Whatever comes after a day t may not move what is known, seen or done at its close. "
        f"t = {', '.join(audit.days)}. A note is for the reader to decide.",
        emphasised=leaks,
        text_columns=frozenset(range(4)),
    )


def verdict(audit: Audit) -> str:
    """Say what an audit came to.

    Args:
        audit: of data and agents.

    Returns:
        A sentence or two.
    """
    counts = Counter(check.result for check in audit.checks)
    found = f"{audit.n_leaks} of {len(audit.checks)} checks found a leak."
    if not audit.n_leaks:
        found = f"No leak was found in {len(audit.checks)} checks."
    notes = counts["note"]
    return f"{found} {notes} left a note." if notes else found


def write_audit(audit: Audit, folder: Path) -> Path:
    """Write `audit.json` and `audit.html`.

    Args:
        audit: of data and agents.
        folder: is made where it is missing.

    Returns:
        The path of the page.
    """
    content = {
        "data": audit.data,
        "run": audit.run,
        "days": list(audit.days),
        "n_leaks": audit.n_leaks,
        "checks": [
            {"check": c.name, "tried": c.tried, "result": c.result, "where": list(c.places)}
            for c in audit.checks
        ],
    }
    write_json(folder / JSON_NAME, content)
    lead = [verdict(audit), "docs/audit.md says how to read this page and what it cannot find."]
    table = audit_table(audit, whole=True)
    write_text(
        folder / PAGE_NAME, page("Audit", _subject(audit), lead, [Section("Checks", [table])])
    )
    return folder / PAGE_NAME


def _subject(audit: Audit) -> str:
    return audit.data if audit.run is None else f"{audit.data} and {audit.run}"
