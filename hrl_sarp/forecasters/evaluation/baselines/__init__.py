"""What every forecaster is shown beside."""
