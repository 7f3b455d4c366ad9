"""HRL-SARP: hierarchical reinforcement learning for sector-aware, risk-adaptive portfolios."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before torch is imported: spinning OpenMP threads cost up to 70x on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hrl_sarp.config.schema import RunConfig
    from hrl_sarp.contracts import Market
    from hrl_sarp.envs.rollout import HierarchicalPolicy, Policy
    from hrl_sarp.evaluation.own_policy import PastView, Weights
    from hrl_sarp.evaluation.policies import Run
    from hrl_sarp.evaluation.report import Backtest

__all__ = ["backtest", "load_agents", "load_market", "load_run", "train"]

# Every function imports what it needs itself, so that `import hrl_sarp` is instant: torch and numba
# take seconds.


def load_market(
    data_dir: Path | str | None = None,
    market: str = "sample",
    config: "RunConfig | None" = None,
) -> "Market":
    """Assemble the market of a collected data folder, or take it from the cache beside it.

    It carries the embeddings and forecasts that `encoders.observe` and `forecasters.observe` of the
    configuration name.

    Args:
        data_dir: `data/raw` as written by collect-data; None takes the bundled sample, offline.
        market: profile of `config/markets/`, used where no configuration is given.
        config: run configuration; it names its own market.

    Returns:
        Everything that agents may trade and see, row t known at the close of day t.

    Raises:
        HrlSarpError: naming file, row, cause and cure if the data cannot be used.

    Examples:
        >>> market = load_market()
        >>> market.n_assets, len(market.sector_names)
        (20, 11)
    """
    from hrl_sarp.config.loading import load_config
    from hrl_sarp.market.cache import assembled_market, bundled_sample
    from hrl_sarp.observed.stocks import with_stock_embeddings
    from hrl_sarp.run.session import resolve_device

    chosen = config or load_config(market=market)
    if data_dir is None:
        return bundled_sample(chosen)
    folder = Path(data_dir)
    assembled = assembled_market(folder, chosen)
    return with_stock_embeddings(assembled, folder, chosen, resolve_device("auto"))


def train(
    market: "Market",
    config: "RunConfig | None" = None,
    log_dir: Path | str = "logs",
    *,
    seeds: "Sequence[int] | None" = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
) -> "HierarchicalPolicy":
    """Train both agents in all five phases, and certify how far they are deployed.

    Args:
        market: of `load_market`.
        config: of `hrl_sarp.config.loading.load_config`; None takes the defaults of the market's
            profile.
        log_dir: gets a folder per phase with agents, metrics and TensorBoard.
        seeds: train each of these in a folder of its own, and deploy their mean; None trains the
            seed of the configuration alone.
        resume: continue what the folder holds; the weights end bit-identical.
        overwrite: replace the run that the folder holds, with its reports.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        The certified pair, ready for `backtest`.

    Raises:
        OverwriteError: if the folder holds a run, and neither `resume` nor `overwrite` is given.
        HrlSarpError: in one line with the cure, for example for checkpoints of another market.
        StoppedEarly: at Ctrl-C, after a checkpoint. A second Ctrl-C, or five seconds without a safe
            moment, give a KeyboardInterrupt. `resume=True` goes on in both cases.
    """
    from hrl_sarp.config.loading import load_config
    from hrl_sarp.run.phases import require_free_folder
    from hrl_sarp.run.session import RunFolder, StopFlag, resolve_device
    from hrl_sarp.run.terminal import run_progress
    from hrl_sarp.run.trials import TrialLog
    from hrl_sarp.training import make_context
    from hrl_sarp.training.certify import train_and_certify

    chosen, folder = config or load_config(market=market.name), Path(log_dir)
    with RunFolder(folder).lock(), StopFlag() as stop:
        require_free_folder(folder, None, resume=resume, overwrite=overwrite)
        context = make_context(chosen, market, folder, resolve_device(device), stop, resume=resume)
        with run_progress():
            train_and_certify(context, seeds, TrialLog(), overwrite=overwrite)
    return load_agents(folder, market, chosen)


def load_agents(
    log_dir: Path | str, market: "Market", config: "RunConfig | None" = None
) -> "HierarchicalPolicy":
    """Load the trained pair that a run has left.

    Args:
        log_dir: of the run.
        market: that the agents are to read; with the columns and sectors that they were trained on.
        config: of the run; None reads the one that the run wrote beside its first phase, of the
            first seed where there are several.

    Returns:
        The certified pair: each agent as far from the classical policy as evidence granted. Without
        a certification, the pair of the last phase that has finished. Of a run of several seeds it
        is their mean. On the CPU.

    Raises:
        MissingArtifactError: if phases 1 and 2 have not finished.
        CheckpointError: if a file is damaged or belongs to another market.
    """
    import torch

    from hrl_sarp.evaluation.policies import CERTIFIED, trained_policies
    from hrl_sarp.run.phases import config_of_run
    from hrl_sarp.run.session import StopFlag
    from hrl_sarp.training import make_context

    folder = Path(log_dir)
    chosen = config or config_of_run(folder)
    context = make_context(chosen, market, folder, torch.device("cpu"), StopFlag(), resume=False)
    policies, swaps = trained_policies(context)
    named = {policy.name: policy for policy in policies}
    return named.get(CERTIFIED, named[swaps.both])


def load_run(log_dir: Path | str, data_dir: Path | str | None = None) -> "Run":
    """Load a run by its folder: its own configuration, its market and its agents.

    Args:
        log_dir: of `train`.
        data_dir: the collected data that it was trained on; None takes the bundled sample, and is
            refused for a run on another market.

    Returns:
        What `backtest` needs: `hrl_sarp.backtest(run.agents, run.market, run.config)`.

    Raises:
        MissingArtifactError: if there is no run in the folder.
        CheckpointError: if a file is damaged, or the run was trained on other data.
    """
    from hrl_sarp.evaluation.policies import Run
    from hrl_sarp.run.phases import config_of_run

    folder = Path(log_dir)
    config = config_of_run(folder)
    market = load_market(data_dir, config=config)
    return Run(folder, config, market, load_agents(folder, market, config))


def backtest(
    policy: "Policy | Callable[[PastView], Weights] | Sequence[Any]",
    market: "Market",
    config: "RunConfig | None" = None,
    span: str = "test",
    n_trials: int = 0,
    trial_log: Path | str | None = None,
) -> "Backtest":
    """Backtest policies beside all baselines, net of costs, in the simulator that trains.

    Args:
        policy: a function from a `PastView` to weights, an object with `name` and `decide`, trained
            agents, or several of them.
        market: of `load_market`.
        config: costs, limits and baselines; None takes the defaults of the market's profile.
        span: `train`, `validation` or `test`.
        n_trials: further policies that you have tried on this span elsewhere. The deflated Sharpe
            ratio allows for them, for the policies given, and for those that the trial log holds.
        trial_log: file that gets a line for each row of the table, so that every look at a span is
            counted; None takes the environment variable `HRL_SARP_TRIAL_LOG`, else
            `logs/trials.jsonl`.

    Returns:
        A backtest that can be printed, drawn, compared and written. Warnings name a policy that
        never sent an order (a function that forgets to return looks like one that stays in cash),
        and one that limits cut: how often, and how much of its wealth lies elsewhere.

    Raises:
        HrlSarpError: for an unknown span, what is no market, or a policy that returns what cannot
            be meant.

    Examples:
        >>> from hrl_sarp.config.loading import load_config
        >>> few = {"baselines": ["momentum"], "random_portfolios": 0, "bootstrap_samples": 20}
        >>> def equal(view):
        ...     return view.usable / view.usable.sum()
        >>> found = backtest(equal, load_market(), load_config(overrides={"evaluation": few}))
        >>> "equal" in str(found)
        True
    """
    from loguru import logger

    from hrl_sarp.config.loading import load_config
    from hrl_sarp.contracts import Market
    from hrl_sarp.errors import HrlSarpError
    from hrl_sarp.evaluation.backtest import run_backtest
    from hrl_sarp.evaluation.own_policy import as_policies
    from hrl_sarp.evaluation.report import Backtest, analyse
    from hrl_sarp.evaluation.report.page import SELDOM, limits_sentence
    from hrl_sarp.run.trials import TrialLog

    if span not in ("train", "validation", "test"):
        raise HrlSarpError(f"span must be train, validation or test, found '{span}'")
    if not isinstance(market, Market):
        raise HrlSarpError(
            f"market: expected what load_market returns, found {type(market).__name__}; "
            "the order is backtest(policy, market)"
        )
    chosen = config or load_config(market=market.name)
    result = run_backtest(market, as_policies(policy), span, chosen, n_trials, TrialLog(trial_log))
    for name in result.policy_names:
        if not result.main.turnover[:, result.main.names.index(name)].any():
            logger.warning(f"{name} never traded: does it return its weights?")
    analysis = analyse(result)
    for name in result.policy_names:
        if analysis.performances[name]["moved_by_limits"] > SELDOM:
            logger.warning(limits_sentence(result, analysis, name))
    return Backtest(result, analysis)
