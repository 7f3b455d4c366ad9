"""The command line; `main` is what `hrl-sarp` and `python main.py` call."""

from hrl_sarp.cli.app import main

__all__ = ["main"]
