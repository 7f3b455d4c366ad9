"""Check the collected raw data: a table on the terminal, validation.json beside the data.

Exit code 0 if no rule fails (warnings are allowed), 1 if one does, 2 if there is nothing to check.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works in a checkout that is not installed, too

from hrl_sarp.run.terminal import accept_any_console  # noqa: E402 -- needs the path


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-dir", type=Path, default=Path("data/raw"), help="collected data (default data/raw)"
    )
    parser.add_argument("--market", help="profile that names the calendar (default: the config's)")
    options = parser.parse_args(arguments)
    return check(options.data_dir, options.market)


def check(data_dir: Path, market: str | None) -> int:
    """Check a folder and print the table and the verdict."""
    from rich.console import Console

    from hrl_sarp.config.loading import load_config
    from hrl_sarp.data.quality import validation
    from hrl_sarp.errors import HrlSarpError

    try:
        config = load_config(market=market)
        report = validation.validate_folder(data_dir, config)
    except HrlSarpError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, soft_wrap=True)
        return 2
    console = Console()
    console.print(validation.summary(report))
    verdict = "failed: correct the data" if report.has_failed else "passed"
    console.print(f"{verdict}; findings in {data_dir / validation.REPORT_NAME}")
    return int(report.has_failed)


if __name__ == "__main__":
    accept_any_console()
    sys.exit(main(sys.argv[1:]))
