"""The result of `hrl_sarp.backtest`, which can be printed, drawn and written."""

from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from shutil import get_terminal_size

import polars as pl
from matplotlib.figure import Figure
from rich.console import Console

from hrl_sarp.contracts import Trajectory
from hrl_sarp.errors import HrlSarpError
from hrl_sarp.evaluation.backtest import BacktestResult
from hrl_sarp.evaluation.performance import column
from hrl_sarp.evaluation.report.analysis import Analysis
from hrl_sarp.evaluation.report.figures import wealth_and_drawdown
from hrl_sarp.evaluation.report.files import REPORT_NAME, daily_ledger, stock_ledger
from hrl_sarp.evaluation.report.page import headline, print_summary, write_backtest
from hrl_sarp.evaluation.report.tables import main_table
from hrl_sarp.evaluation.statistics import Interval
from hrl_sarp.reporting.page import Drawing, Facts, block_html

WIDTH = 100
"""Characters of a printed table where there is no terminal."""


@dataclass(frozen=True)
class Backtest:
    """A finished backtest: policies, baselines, and every figure about them.

    Print it, or read its tables: `summary`, `daily` and `holdings` are polars frames, on which
    `.to_pandas()` works. `plot` draws it, `report` writes all of it into a folder.

    Examples:
        >>> import hrl_sarp
        >>> from hrl_sarp.config.loading import load_config
        >>> few = {"baselines": [], "random_portfolios": 0, "bootstrap_samples": 20}
        >>> config = load_config(overrides={"evaluation": few})
        >>> found = hrl_sarp.backtest(
        ...     lambda view: view.usable / view.usable.sum(), hrl_sarp.load_market(), config
        ... )
        >>> found.summary()["policy"].to_list()
        ['<lambda>', '1/N', 'index']
        >>> found.holdings().select("symbol").n_unique()
        20
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
        """The main table and the sentences of the summary, as wide as the terminal."""
        screen = StringIO()
        width = get_terminal_size((WIDTH, 0)).columns
        print_summary(self.result, self.analysis, Console(file=screen, width=width))
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

    def summary(self) -> pl.DataFrame:
        """Return every measure of every policy as numbers.

        Returns:
            A row for each policy, the given ones first. A measure with an interval has two columns
            more, `_low` and `_high`. Returns, shares and volatilities are fractions, a year, net of
            costs.
        """
        rows = []
        for name, performance in self.analysis.performances.items():
            row: dict[str, str | float | int | None] = {"policy": name}
            for measure, figure in performance.items():
                if isinstance(figure, Interval):
                    row |= {measure: figure.value, f"{measure}_low": figure.low}
                    row[f"{measure}_high"] = figure.high
                else:
                    row[measure] = figure
            rows.append(row)
        return pl.DataFrame(rows, infer_schema_length=None)

    def daily(self) -> pl.DataFrame:
        """Return every policy's sessions: returns, cost, turnover, wealth and goal.

        Returns:
            What `daily.parquet` holds, a row for each policy and session.
        """
        return daily_ledger(self.result)

    def holdings(self, policy: str | None = None) -> pl.DataFrame:
        """Return what a policy wanted, held and traded, stock by stock.

        Args:
            policy: a name of `summary()`; None takes the policy that the report is about.

        Returns:
            What `ledger.parquet` holds of it, a row for each session and stock. `weight` is the
            share of wealth just after the trade, `traded` is signed, `return` is the stock's.

        Raises:
            MetricError: for a policy that was not backtested, naming those that were.
        """
        name = self.analysis.headline_name if policy is None else policy
        column(self.result.main, name)
        costs = self.result.config.market_profile.costs
        ledger = stock_ledger(self.result.main, self.result.market, costs)
        return ledger.filter(pl.col("policy") == name)

    def plot(self) -> Figure:
        """Draw wealth and drawdown of all policies.

        Returns:
            A matplotlib figure, which a notebook shows and `savefig` writes.
        """
        return wealth_and_drawdown(self.result, self.analysis)

    def report(self, folder: Path | str) -> Path:
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
