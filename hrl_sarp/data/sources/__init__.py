"""Sources of raw data, a module each; all of them return `RawData`."""
