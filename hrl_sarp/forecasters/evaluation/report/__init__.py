"""The page of an evaluation of forecasts."""
