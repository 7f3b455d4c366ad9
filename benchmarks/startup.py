"""Seconds until `python main.py --help` has printed and ended.

Run: `python -m benchmarks.startup`. Writes `logs/benchmarks/startup.json`.
"""

import subprocess
import sys

from benchmarks import timing

REPEATS = 7
TARGET_SECONDS = 1.0


def show_help() -> None:
    """Start the command line in a process of its own."""
    command = [sys.executable, "main.py", "--help"]
    subprocess.run(command, cwd=timing.ROOT, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 -- our own


def main() -> None:
    """Measure and print."""
    rates = timing.alternate({"--help": (show_help, 1)}, REPEATS)
    seconds = rates["--help"].seconds_spent()
    timing.publish("startup", rates, "starts", seconds=seconds, target_seconds=TARGET_SECONDS)


if __name__ == "__main__":
    main()
