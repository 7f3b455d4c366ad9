"""Features of stocks and of the market, known on each day, and labels, which look ahead."""
