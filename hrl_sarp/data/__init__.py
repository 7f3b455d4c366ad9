"""Raw market data: where they come from, how they are stored and what is wrong with them."""
