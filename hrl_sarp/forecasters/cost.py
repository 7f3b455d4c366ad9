"""What a forecast costs, before any is made."""

from dataclasses import dataclass

from torch import nn

from hrl_sarp.forecasters.contract import Forecaster
from hrl_sarp.forecasters.kronos.forecaster import KronosForecaster
from hrl_sarp.forecasters.toto.forecaster import Toto2Forecaster, TotoForecaster


@dataclass(frozen=True)
class Cost:
    """Size of a forecast of one series.

    Examples:
        >>> Cost(parameters=1_000, tokens=30).flop
        60000
    """

    parameters: int
    """Of all networks; 0 for a rule."""
    tokens: int
    """That they read and draw; patches of Toto, rows of Kronos."""

    @property
    def flop(self) -> int:
        """Operations: one product and one sum for each parameter and token."""
        return 2 * self.parameters * self.tokens


def networks_of(forecaster: Forecaster) -> tuple[nn.Module, ...]:
    """Return the networks of a forecaster; a rule has none."""
    if isinstance(forecaster, TotoForecaster | Toto2Forecaster):
        return (forecaster.model,)
    if isinstance(forecaster, KronosForecaster):
        return forecaster.tokenizer, forecaster.predictor
    return ()


def cost_of(forecaster: Forecaster, steps: int) -> Cost:
    """Count what a forecast of the longest context costs.

    Args:
        forecaster: any; only those of this package cost anything that is counted.
        steps: that are forecast.

    Returns:
        Parameters and tokens.
    """
    tokens = 0
    if isinstance(forecaster, TotoForecaster | Toto2Forecaster):
        patches = -(-steps // forecaster.least_rows)
        drawn = forecaster.n_paths if isinstance(forecaster, TotoForecaster) else 1
        tokens = forecaster.context_patches + drawn * (patches - 1)
    elif isinstance(forecaster, KronosForecaster):
        tokens = forecaster.context_rows + forecaster.sampling.n_paths * steps
    parameters = sum(p.numel() for net in networks_of(forecaster) for p in net.parameters())
    return Cost(parameters, tokens)
