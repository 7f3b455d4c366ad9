"""What is wrong with raw data: rules for bars, rules for series, and the report of both."""
