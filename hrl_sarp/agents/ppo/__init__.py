"""The weekly agent: PPO over sector shares."""
