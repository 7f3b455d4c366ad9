"""The daily agent: TD3 over the weights of stocks, with hindsight goals."""
