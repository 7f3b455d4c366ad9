"""A study whose cells take no time, at the top of a module, so that other processes can read it."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrl_sarp.errors import DataError
from hrl_sarp.studies import Cell


@dataclass(frozen=True)
class Squares:
    """Squares its seed; some settings end badly."""

    folder: Path
    factor: float = 1.0
    seconds: float = 0.0
    title: str = "squares"

    def identity(self, cell: Cell) -> dict[str, Any]:
        return {"lengths": {"factor": self.factor, "steps": 3}, "setting": cell.setting}

    def run(self, cell: Cell, folder: Path) -> dict[str, Any]:
        with (folder / "visits.txt").open("a") as visits:
            visits.write("here\n")
        sys.stdout.write(f"cell {cell.name} runs\n")
        if cell.setting == "slow" and self.seconds:
            (folder / "process.txt").write_text(str(os.getpid()))
            time.sleep(self.seconds)
        if cell.setting == "greedy":
            return {"square": float(len(bytearray(8 * 2**30)))}
        if cell.setting == "refused":
            raise DataError("prices.csv, row 3: no close")
        if cell.setting == "crashed":
            os._exit(9)
        if cell.setting == "stopped":
            raise KeyboardInterrupt
        return {"square": self.factor * cell.seed**2}
