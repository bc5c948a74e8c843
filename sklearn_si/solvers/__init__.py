"""Solvers of ODEs and SDEs, grids of times, and refinement of the solution row by row."""

from ._adaptive import odeint_adaptive
from ._denoising import denoising_steps
from ._grids import TIME_GRIDS, time_grid
from ._refinement import refine
from ._steps import ODE_SOLVERS, SDE_SOLVERS, SOLVERS, ButcherTableau, odeint, sdeint

__all__ = [
    "ODE_SOLVERS",
    "SDE_SOLVERS",
    "SOLVERS",
    "TIME_GRIDS",
    "ButcherTableau",
    "denoising_steps",
    "odeint",
    "odeint_adaptive",
    "refine",
    "sdeint",
    "time_grid",
]
