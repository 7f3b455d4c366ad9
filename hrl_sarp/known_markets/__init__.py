"""Generated markets whose best policy is known, to test whether agents learn it."""
