"""Cells on a Ray cluster of two machines: the table of one machine, also after one was lost."""

import pytest

from hrl_sarp.run.session import StopFlag  # noqa: F401

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
