"""Measures of stocks and of the market as of each day, and the labels that follow it."""
