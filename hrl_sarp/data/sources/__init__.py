"""One module per origin of raw data; each ends in the same `RawData`."""
