"""The audit: looks for the future in a user's own data, features, rewards, policies and agents."""

from hrl_sarp.studies.audit.checks import Check
from hrl_sarp.studies.audit.report import audit_table, verdict, write_audit
from hrl_sarp.studies.audit.run import Audit, run_audit

__all__ = ["Audit", "Check", "audit_table", "run_audit", "verdict", "write_audit"]
