"""What is the user's own: profiles that the data complete, and whether own features look ahead."""
