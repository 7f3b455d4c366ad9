"""Entry point: `python main.py --help`."""

import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while Python imports: no traceback

from hrl_sarp.cli import main

if __name__ == "__main__":
    sys.exit(main())
