"""What a walk-forward came to, as tables, figures and pages."""

from hrl_sarp.studies.walk_forward.report.summary import CARD, FIGURES, PAGE, TABLE, summarise

__all__ = ["CARD", "FIGURES", "PAGE", "TABLE", "summarise"]
