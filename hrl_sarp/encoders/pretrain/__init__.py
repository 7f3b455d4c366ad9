"""Masked pretraining: hidden bars are rebuilt, on a file of bars or on the stocks of a market."""
