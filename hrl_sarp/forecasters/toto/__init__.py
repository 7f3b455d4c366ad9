"""Toto: forecasts of many series by patches. 1.0 learns and forecasts, 2.0 forecasts."""

from hrl_sarp.forecasters.toto.decoding import (
    forecast_mean,
    forecast_paths,
    forecast_quantiles,
    prepare,
)
from hrl_sarp.forecasters.toto.forecaster import Toto2Forecaster, TotoForecaster
from hrl_sarp.forecasters.toto.learning import toto_loss
from hrl_sarp.forecasters.toto.mixture import StudentTMixture
from hrl_sarp.forecasters.toto.model import Toto, TotoConfig, load_toto, save_toto
from hrl_sarp.forecasters.toto.scaler import SeriesBatch
from hrl_sarp.forecasters.toto.second import Toto2, Toto2Config, load_toto2, save_toto2

__all__ = [
    "SeriesBatch",
    "StudentTMixture",
    "Toto",
    "Toto2",
    "Toto2Config",
    "Toto2Forecaster",
    "TotoConfig",
    "TotoForecaster",
    "forecast_mean",
    "forecast_paths",
    "forecast_quantiles",
    "load_toto",
    "load_toto2",
    "prepare",
    "save_toto",
    "save_toto2",
    "toto_loss",
]
