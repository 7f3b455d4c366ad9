"""Markets whose best policy is known: what agents must reach, and what luck does not."""
