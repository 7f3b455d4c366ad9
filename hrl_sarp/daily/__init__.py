"""Tomorrow's portfolio: the decision after the last close, its orders, and a paper account."""
