"""Whether agents reach the best policy where it is known: full studies, several seeds, one table.

Run: `python benchmarks/learning.py [--markets kelly,...] [--seeds 5] [--jobs 1]`. Each finished
(market, seed) is a folder below `logs/benchmarks/learning/` and is not run again. The table goes to
`logs/benchmarks/learning.json`. Hours for all: `make bench` leaves it out, `make learning` runs it.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from hrl_sarp.known_markets.study import STUDIES, KnownMarkets, as_table, summarise  # noqa: E402
from hrl_sarp.run.files import write_json  # noqa: E402
from hrl_sarp.run.terminal import accept_any_console  # noqa: E402
from hrl_sarp.studies import Cell, run_grid  # noqa: E402 -- needs the path

FOLDER = ROOT / "logs" / "benchmarks" / "learning"
TABLE = ROOT / "logs" / "benchmarks" / "learning.json"


def main() -> int:
    """Run what is missing, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--markets", default=",".join(STUDIES), help="comma-separated names")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0, 1, ... of each market")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    options = parser.parse_args()
    markets = options.markets.split(",")
    if unknown := set(markets) - set(STUDIES):
        parser.error(f"no market {', '.join(sorted(unknown))}; choose of {', '.join(STUDIES)}")
    cells = [Cell(market, seed) for market in markets for seed in range(options.seeds)]
    results = run_grid(KnownMarkets(FOLDER), cells, options.jobs)
    for cell, reason in results.failed.items():
        print(f"{cell.name} failed: {reason}")
    rows = summarise(results)
    print(as_table(rows).markdown())
    write_json(TABLE, {"rows": rows})
    return 1 if results.failed else 0


if __name__ == "__main__":
    accept_any_console()
    sys.exit(main())
