"""What forecasts are worth: measures, baselines, and forecasts from origins that roll on."""
