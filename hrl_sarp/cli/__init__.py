"""The command line. `hrl-sarp` and `python main.py` call `main`."""

from hrl_sarp.cli.app import main

__all__ = ["main"]
