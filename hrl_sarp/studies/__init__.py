"""Studies: grids of resumable runs over settings and seeds, and their summaries."""

from hrl_sarp.studies.cell import Cell, Study
from hrl_sarp.studies.grid import Results, run_grid
from hrl_sarp.studies.summary import Moments, Threshold, moments, paired_difference

__all__ = [
    "Cell",
    "Moments",
    "Results",
    "Study",
    "Threshold",
    "moments",
    "paired_difference",
    "run_grid",
]
