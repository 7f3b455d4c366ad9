"""The command `decide`: one account, one close, one folder of files."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from hrl_sarp.config.loading import name_changes
from hrl_sarp.config.study_schema import DailyConfig
from hrl_sarp.daily.decision.card import AgentCard, card_of
from hrl_sarp.daily.decision.checks import (
    NOTHING,
    Accepted,
    Checked,
    check_close,
    require_known,
    require_priced,
    require_timely,
)
from hrl_sarp.daily.decision.decide import Decided, account_clocks, decide, deployed
from hrl_sarp.daily.decision.orders import OrderList, make_orders
from hrl_sarp.daily.decision.reasons import Reasons, explain
from hrl_sarp.daily.drift import DriftMeter
from hrl_sarp.daily.market import Today, TrainedRun, agents_hash, read_today
from hrl_sarp.daily.portfolio import Holdings, Memory, Standing, read_holdings
from hrl_sarp.errors import CheckpointError, DataError, UsageError
from hrl_sarp.run.files import read_json

DECISION = "decision.json"
"""In the folder of a day."""
COMMAND = "hrl-sarp decide"


@dataclass(frozen=True)
class Account:
    """The account that is decided for, as the options name it.

    Examples:
        >>> Account(None, 1000.0, 1).lot_size
        1
    """

    holdings: Path | None
    """CSV of shares and cash; None is an account in cash."""
    capital: float
    """Cash in currency, where there are no holdings."""
    lot_size: int | None
    """Orders are multiples of it; None trades fractions of a share."""
    booked: tuple[Holdings, Standing] | None = None
    """Of an account that is kept, at its last close; it stands in place of the other two."""

    @property
    def is_kept(self) -> bool:
        """The account is one that `paper` keeps."""
        return self.booked is not None

    @property
    def file(self) -> str | None:
        """The holdings with their whole path; None where no file has them."""
        return None if self.holdings is None else str(self.holdings.resolve())

    def read(self) -> Holdings:
        """Return shares and cash.

        Raises:
            DataError: for a file that cannot be used.
            UsageError: for a capital that is not above 0.
        """
        if self.booked is not None:
            return self.booked[0]
        if self.holdings is not None:
            return read_holdings(self.holdings)
        if not (math.isfinite(self.capital) and self.capital > 0):
            raise UsageError(f"--capital: expected an amount above 0, found {self.capital:g}")
        return Holdings({}, self.capital)


@dataclass(frozen=True)
class DayDecision:
    """What `decide` found for one account at one close.

    Examples:
        >>> [field for field in DayDecision.__dataclass_fields__]
        ['todays', 'held', 'decided', 'orders', 'reasons', 'card', 'checked', 'account']
    """

    todays: tuple[Today, ...]
    """One for each run."""
    held: Holdings
    decided: Decided
    orders: OrderList
    reasons: Reasons
    card: AgentCard
    checked: Checked
    account: Account

    @property
    def today(self) -> Today:
        """The market, which all runs share."""
        return self.todays[0]


def read_runs(log_dirs: Sequence[Path]) -> list[TrainedRun]:
    """Read runs whose agents are to decide as one.

    Args:
        log_dirs: of the runs; at least one.

    Returns:
        The runs in their order.

    Raises:
        DataError: for a run that is given twice.
        CheckpointError: naming the first values in which runs differ, their seeds apart.
    """
    places = [folder.resolve() for folder in log_dirs]
    twice = [str(folder) for folder, place in zip(log_dirs, places, strict=True)
             if places.count(place) > 1]  # fmt: skip
    if twice:
        raise DataError(
            f"--log-dir: the same run is given as {' and '.join(twice)}: it would count twice in "
            "the mean; give each run once"
        )
    runs = [TrainedRun.read(folder) for folder in log_dirs]
    first, *others = runs
    kept = [run.config.model_dump(mode="json", exclude={"seed", "trackers"}) for run in runs]
    for run, values in zip(others, kept[1:], strict=True):
        changes = name_changes(kept[0], values)
        if changes:
            raise CheckpointError(
                f"{run.log_dir} is a run of another configuration than {first.log_dir} "
                f"({'; '.join(changes)}): only runs that differ in their seeds can decide as one"
            )
    return runs


def make_decision(
    runs: Sequence[TrainedRun],
    data_dir: Path,
    settings: DailyConfig,
    account: Account,
    folder: Path,
    studies: Path,
    now: datetime,
    day: date | None = None,
    accepted: Accepted = NOTHING,
) -> DayDecision:
    """Decide for an account after a close; nothing is written.

    Args:
        runs: as `read_runs` returns them.
        data_dir: `data/raw`, kept up to date.
        settings: of daily decisions.
        account: that is decided for.
        folder: of earlier decisions; the goal of the week is read there.
        studies: folder of studies, of which the card quotes the newest.
        now: with its zone; without `day` the data must have the last session that has closed.
        day: session of the decision; None is the last one of the data.
        accepted: what is told in place of refusing it.

    Returns:
        The decision with its orders.

    Raises:
        DataError: for holdings or data that cannot be used.
        CheckpointError: for data that are not those of the run, brought up to date, for a day of
            its training span, and for agents that are too old.
    """
    held = account.read()
    require_timely(runs[0], data_dir, settings, day, now)
    todays = tuple(read_today(run, data_dir, settings, day) for run in runs)
    today = todays[0]
    require_known(account.holdings, held, today)
    warnings = require_priced(account.holdings, held, today)
    meter = DriftMeter(today.market, today.raw.bars, settings.drift)
    checked = check_close(
        today,
        today.market.n_days - 1,
        meter,
        settings,
        held.shares,
        accepted,
        instead="give --as-of with an earlier session, or ",
    )
    checked = replace(checked, warnings=(*checked.warnings, *warnings))
    if account.booked is None:
        memory = last_memory(folder, today.day, agents_hash(runs), account)
        standing = held.standing(today.day, today.last_closes, memory)
    else:
        standing = _booked_today(account.booked[1], today)
    clocks = account_clocks(today.market, today.run.config, standing)
    decided = decide(deployed(todays), clocks, standing)
    orders = orders_of(today, held, decided, account.lot_size)
    card = card_of(todays, studies)
    reasons = explain(todays, decided)
    return DayDecision(todays, held, decided, orders, reasons, card, checked, account)


def orders_of(today: Today, held: Holdings, decided: Decided, lot_size: int | None) -> OrderList:
    """Make the orders that lead from the holdings to what was decided."""
    profile, risk = today.run.config.market_profile, today.run.config.risk
    market = today.market
    volumes = dict(zip(market.symbols, market.dollar_volume[-1].tolist(), strict=True))
    return make_orders(
        decided.standing,
        held.shares,
        decided.targets,
        today.closes,
        volumes,
        profile.costs,
        lot_size,
        risk.stock_cap,
    )


def _booked_today(standing: Standing, today: Today) -> Standing:
    if standing.day != today.day:
        cure = "`hrl-sarp paper step` books what is missing"
        if standing.day > today.day:
            cure = f"it has gone on since; --as-of {standing.day} decides for its last day"
        raise DataError(
            f"the account is booked to {standing.day}, the decision is for {today.day}: {cure}"
        )
    return standing


def last_memory(folder: Path, day: date, agents: str, account: Account) -> Memory:
    """Read the goal that the last decision of the same agents before a day left in force.

    Drawdown and growth are those of an account, which holdings do not tell, so they are not kept. A
    decision of an account that is kept by `paper` gives no goal to another one.

    Args:
        folder: with a folder for each day that was decided.
        day: of the decision that is to be made.
        agents: hash of the agents; a run that was trained again has others.
        account: that is decided for.

    Returns:
        A memory with the goal and its day; an empty one where there is no earlier decision.

    Raises:
        DataError: if that decision was for the holdings of another file.
    """
    names = [path.parent.name for path in folder.glob(f"*/{DECISION}")]
    earlier = sorted(name for name in names if name < day.isoformat())
    for name in reversed(earlier):
        found: dict[str, Any] = read_json(folder / name / DECISION, COMMAND)
        if found.get("agents_hash") == agents and not found["account"]["is_kept"]:
            other = found["account"].get("file")  # decisions of a version before do not say it
            if None not in (other, account.file) and other != account.file:
                raise DataError(
                    f"{folder / name}: the goal of the week there was set for {other}, not for "
                    f"{account.file}: give each account its own --output, and its file one name"
                )
            memory = Memory.from_json(found["memory"])
            return Memory(goal=memory.goal, goal_day=memory.goal_day)
    return Memory()


def weights_table(decision: DayDecision) -> pl.DataFrame:
    """Return what is held and wanted of each stock, as shares of wealth, largest target first."""
    decided, orders = decision.decided, decision.orders
    closes, held = decision.today.last_closes, decided.standing.weights
    market = decision.today.market
    sector = dict(
        zip(market.symbols, (market.sector_names[s] for s in market.sector_of), strict=True)
    )
    symbols = sorted({*decided.targets, *held})
    return pl.DataFrame(
        {
            "symbol": symbols,
            "sector": [sector[s] for s in symbols],
            "close": [closes[s] for s in symbols],
            "weight_now": [held.get(s, 0.0) for s in symbols],
            "target_weight": [decided.targets.get(s, 0.0) for s in symbols],
            "shares_now": [decision.held.shares.get(s, 0.0) for s in symbols],
            "shares_after": [orders.shares.get(s, 0.0) for s in symbols],
        }
    ).sort(["target_weight", "symbol"], descending=[True, False])


def orders_table(orders: OrderList) -> pl.DataFrame:
    """Return the orders, the largest first."""
    return pl.DataFrame(
        {
            "symbol": [order.symbol for order in orders.orders],
            "side": [order.side for order in orders.orders],
            "shares": [order.shares for order in orders.orders],
            "close": [order.close for order in orders.orders],
            "value": [order.value for order in orders.orders],
            "estimated_cost": [order.cost for order in orders.orders],
        },
        schema={
            "symbol": pl.String,
            "side": pl.String,
            **dict.fromkeys(("shares", "close", "value", "estimated_cost"), pl.Float64),
        },
    )
