"""Collects market data from Yahoo Finance, with retries and a cache of fetched tickers."""
