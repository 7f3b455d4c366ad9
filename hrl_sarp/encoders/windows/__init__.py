"""Windows of bars: where they begin, which split they belong to, in which unit they are read."""
