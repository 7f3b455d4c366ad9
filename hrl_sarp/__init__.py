"""HRL-SARP: hierarchical reinforcement learning for sector-aware, risk-adaptive portfolios."""

import os

# Before torch is imported: spinning OpenMP threads cost up to 70x on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
