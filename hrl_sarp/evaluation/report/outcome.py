"""The result of `hrl_sarp.backtest`, which can be printed, drawn and written."""

from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from rich.console import Console

from hrl_sarp.contracts import Trajectory
from hrl_sarp.errors import HrlSarpError
from hrl_sarp.evaluation.backtest import BacktestResult
from hrl_sarp.evaluation.report.analysis import Analysis
from hrl_sarp.evaluation.report.figures import wealth_and_drawdown
from hrl_sarp.evaluation.report.files import REPORT_NAME
from hrl_sarp.evaluation.report.page import headline, print_summary, write_backtest
from hrl_sarp.evaluation.report.tables import main_table
from hrl_sarp.reporting.page import Drawing, Facts, block_html

WIDTH = 100
"""Characters of a printed table."""


@dataclass(frozen=True)
class Backtest:
    """A finished backtest: policies, baselines, and every figure about them.

    Examples:
        >>> import hrl_sarp
        >>> from hrl_sarp.config.loading import load_config
        >>> few = {"baselines": [], "random_portfolios": 0, "bootstrap_samples": 20}
        >>> config = load_config(overrides={"evaluation": few})
        >>> found = hrl_sarp.backtest(
        ...     lambda view: view.usable / view.usable.sum(), hrl_sarp.load_market(), config
        ... )
        >>> found.trajectory.names
        ('index', '1/N', '<lambda>')
    """

    result: BacktestResult
    """Ledgers of all rows, at the market's costs and under other frictions."""
    analysis: Analysis
    """Figures computed from the ledgers."""

    @property
    def trajectory(self) -> Trajectory:
        """The ledger at the market's costs: index, baselines and policies, session by session."""
        return self.result.main

    def __repr__(self) -> str:
        """The rows and the span in one line."""
        names = ", ".join(self.result.policy_names)
        return f"<Backtest of {names} on the {self.result.span_name} span>"

    def __str__(self) -> str:
        """The main table and the sentences of the summary."""
        screen = StringIO()
        print_summary(self.result, self.analysis, Console(file=screen, width=WIDTH))
        return screen.getvalue()

    def _repr_html_(self) -> str:
        """The main table, wealth and the summary, as a notebook shows them."""
        wealth = wealth_and_drawdown(self.result, self.analysis)
        sentences = headline(self.result, self.analysis)
        blocks = (
            main_table(self.result, self.analysis),
            Drawing(wealth, "wealth", "Wealth and drawdown, net of costs"),
            Facts([("what it says" if i == 0 else "", text) for i, text in enumerate(sentences)]),
        )
        return "".join(block_html(block) for block in blocks)

    def write_report(self, folder: Path | str) -> Path:
        """Write `report.html`, `ledger.parquet`, `daily.parquet` and `metrics.json`.

        Args:
            folder: made if needed.

        Returns:
            The page.

        Raises:
            HrlSarpError: if the folder is a file.
        """
        if Path(folder).is_file():
            raise HrlSarpError(f"{folder} is a file; name a folder for the report")
        write_backtest(self.result, Path(folder))
        return Path(folder) / REPORT_NAME
