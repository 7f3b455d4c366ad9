"""Phases 1 and 2: what each agent learns before reinforcement, by labels or by the gradient."""
