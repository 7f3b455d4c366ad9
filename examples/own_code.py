"""Features, a reward term, a baseline and a policy of your own, as `own_code.yaml` names them.

Each is a plain function. Row t of a feature may read rows up to t; training refuses a feature whose
past changes when the future is cut off.
"""

import numpy as np
from torch import Tensor

from hrl_sarp.contracts import StepResult
from hrl_sarp.evaluation.own_policy import PastView
from hrl_sarp.features.macro import MacroSources
from hrl_sarp.features.prices import PricePanel
from hrl_sarp.market.tensors import MarketTensors


def up_days(panel: PricePanel) -> np.ndarray:
    """Feature of stocks (T, A): share of the last ten sessions that closed higher; NaN at first."""
    rose = np.nan_to_num(panel.log_return) > 0
    counts = np.cumsum(rose, axis=0)
    share = np.full(counts.shape, np.nan)
    share[10:] = (counts[10:] - counts[:-10]) / 10
    return share


up_days.lookback_days = 10  # type: ignore[attr-defined]


def bear_change(sources: MacroSources) -> np.ndarray:
    """Feature of the market (T,): change of the probability of the bear state over a week."""
    bear = np.asarray(sources.filtered_regime)[:, 0]
    change = np.full(len(bear), np.nan)
    change[5:] = bear[5:] - bear[:-5]
    return change


def less_trading(result: StepResult, tensors: MarketTensors) -> Tensor:
    """Reward term (B,) in % a session: half a basis point less for 1 % of wealth that is traded."""
    return -0.5 * result.turnover


def calm(view: PastView) -> np.ndarray:
    """Weights (A,) at a close: the usable stocks whose last 20 sessions were the calmest third."""
    deviation = view.past_returns(20).std(axis=0)
    usable = view.usable
    if not usable.any():
        return np.zeros(len(usable))
    chosen = usable & (deviation <= np.quantile(deviation[usable], 1 / 3))
    return chosen / chosen.sum()
