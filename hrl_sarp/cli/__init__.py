"""The command line. `hrl-sarp` and `python main.py` call `main`."""

from hrl_sarp.cli.entry import main

__all__ = ["main"]
