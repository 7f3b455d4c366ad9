"""Judging policies: one rollout, its baselines, its uncertainty and its report."""
