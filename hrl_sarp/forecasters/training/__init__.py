"""Trains Toto and Kronos: windows, the tasks of the training loop, and the run."""
