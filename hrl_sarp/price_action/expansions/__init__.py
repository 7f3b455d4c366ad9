"""Finding expansions: label windows of bars, fine-tune Jade on them, measure what it finds."""
