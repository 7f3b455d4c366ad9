"""Schema of the configuration and its only reader."""
