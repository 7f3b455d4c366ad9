"""The decision of a day: what it is, its orders, its reasons, and when it is refused."""
