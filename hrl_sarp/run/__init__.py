"""How a run lives on disk and on the screen: files, checkpoints, session, terminal."""
