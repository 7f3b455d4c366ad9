"""The pages build as `make docs` builds them: a broken link or a wrong docstring is an error."""

import os
import subprocess
import sys
from pathlib import Path


def test_the_pages_build_without_a_warning(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(  # noqa: S603 -- our own command
        command, cwd=repository, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    front_door = (tmp_path / "api" / "front_door" / "index.html").read_text(encoding="utf-8")
    assert "hrl_sarp.load_market" in front_door
