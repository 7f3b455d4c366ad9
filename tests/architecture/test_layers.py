"""The flow is one way; the contract itself stands in pyproject.toml."""

import contextlib
import io

from importlinter.cli import lint_imports


def test_every_stage_imports_earlier_stages_only() -> None:
    report = io.StringIO()
    with contextlib.redirect_stdout(report):
        status = lint_imports()
    assert status == 0, report.getvalue()
