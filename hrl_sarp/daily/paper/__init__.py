"""A paper account: what the decisions of every day would have earned, filled at the next opens."""
