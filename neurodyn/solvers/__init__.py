"""Solvers, one file a family."""

from neurodyn.errors import DivergenceError
from neurodyn.solvers.adaptive import Adaptive
from neurodyn.solvers.base import Report, Solver, steady
from neurodyn.solvers.exact import Exact
from neurodyn.solvers.fixed import RK4, Euler, Heun
from neurodyn.solvers.sliding import Sliding
from neurodyn.solvers.stabilized import Stabilized
from neurodyn.solvers.torchdiffeq import TorchDiffEq

__all__ = [
    "RK4",
    "Adaptive",
    "DivergenceError",
    "Euler",
    "Exact",
    "Heun",
    "Report",
    "Sliding",
    "Solver",
    "Stabilized",
    "TorchDiffEq",
    "steady",
]
