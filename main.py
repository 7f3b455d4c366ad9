"""Entry point: `python main.py --help`."""

import sys

from hrl_sarp.cli import main

if __name__ == "__main__":
    sys.exit(main())
