"""What agents observe of a stock beside its features: embeddings of its windows, and forecasts."""
