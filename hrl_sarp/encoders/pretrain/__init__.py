"""Masked pretraining: an autoencoder reconstructs hidden bars of a file or of a market."""
