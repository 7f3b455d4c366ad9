"""What every run needs: its files, checkpoints, session and terminal."""
