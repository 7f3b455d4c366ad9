"""Schema of the configuration, and the functions that read and check it."""
