"""The one place that decides what integrates what, and how accurately.

By default a trajectory's error is to be below 1e-3 of its scale, whatever the structure; tests hold every choice to it.
Where neighbouring trajectories part, as in chaos, or for long stay apart, as in an oscillation, errors do so, too.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import torch

from neurodyn.errors import InvalidTypeError
from neurodyn.solvers.adaptive import Adaptive
from neurodyn.solvers.base import Solver, residual
from neurodyn.solvers.differentiable import refused_closed_form
from neurodyn.solvers.exact import Exact
from neurodyn.solvers.fixed import RK4, Euler, Heun
from neurodyn.solvers.pieces import refused_signals
from neurodyn.solvers.sliding import Sliding
from neurodyn.solvers.stabilized import Stabilized
from neurodyn.solvers.torchdiffeq import TorchDiffEq
from neurodyn.structure.structure import Structure
from neurodyn.system.system import System

_SPELLINGS = {kind.__name__: f"{kind.__name__}(0.1)" for kind in (Euler, Heun, RK4)}
_SPELLINGS |= {kind.__name__: f"{kind.__name__}()" for kind in (Adaptive, Stabilized, Sliding, Exact, TorchDiffEq)}
"""How each solver is made; those of fixed step need one."""
_LOCAL = {"dopri5": 1e-4, "heun_euler": 5e-4, "stabilized": 4e-4, "sliding": 1e-4}
"""The error a step that keeps the error of usual trajectories below 1e-3, relative to the activity."""
_CYCLIC = 3e-6
"""The same of dopri5 in a cyclic network, which may oscillate, so that the errors of all steps add up."""
_FLOOR = 0.1
"""The absolute tolerance, in units of the relative one times the scale of the trajectory."""
_RELAXING = 1e-7
"""The error a step, relative to the activity, of a relaxation that has to stay in the basin of its start."""


@dataclass(frozen=True)
class Choice:
    """A solver, and why it is this one."""

    solver: Solver
    reason: str


def check_solver(solver: object) -> None:
    """Refuse what is no solver, such as the name of one or its class.

    Raises
    ------
    TypeError
        If it is none; the message says how it is spelled.
    """
    if isinstance(solver, Solver):
        return
    if isinstance(solver, str):
        lower = {name.lower(): spelling for name, spelling in _SPELLINGS.items()}
        near = difflib.get_close_matches(solver.lower(), lower, 1)
        named = f"{lower[near[0]]}" if near else ", ".join(_SPELLINGS.values())
        raise InvalidTypeError(f"solver must be a solver, not the name {solver!r}; give nd.{named}")
    if isinstance(solver, type) and issubclass(solver, Solver):
        spelling = _SPELLINGS.get(solver.__name__, f"{solver.__name__}(…)")
        raise InvalidTypeError(f"solver must be a solver, not the class {solver.__name__}; give nd.{spelling}")
    raise InvalidTypeError(f"solver must be a solver such as Euler(0.1), not {type(solver).__name__}")


def for_trajectory(system: System, *, steps: bool = False) -> Choice:
    """Choose what integrates a trajectory from the system's start.

    Parameters
    ----------
    system
        The system.
    steps
        Whether something asks for steps: a stop condition, or the steps themselves.
    """
    structure = system.structure
    if system.echoes:
        return Choice(Adaptive("dopri5", *_tolerances(system, "dopri5")), "delays: adaptive Runge–Kutta")
    if structure.linear and not steps and refused_signals(system) is None:
        return Choice(Exact(), "linear: the closed form")
    if structure.kinks_at_units:
        kind = "a gradient flow with kinks" if structure.gradient_flow else "kinks"
        sliding = Sliding(*_tolerances(system, "sliding"))
        return Choice(sliding, f"{kind} where {_places(structure)}: Runge–Kutta that slides along them")
    if not structure.gradient_flow:
        kind = "linear, where no closed form serves" if structure.linear else "no structure to use"
        return Choice(Adaptive("dopri5", *_tolerances(system, "dopri5")), f"{kind}: adaptive Runge–Kutta")
    if structure.smooth:
        stabilized = Stabilized(*_tolerances(system, "stabilized"))
        return Choice(stabilized, "a smooth gradient flow: stabilised Runge–Kutta")
    # Where F jumps, the error of the jump decides on the step, which more stages do not make longer.
    pair = Adaptive("heun_euler", *_tolerances(system, "heun_euler"))
    return Choice(pair, "a gradient flow with kinks: Heun's pair")


def for_gradients(system: System, *, steps: bool, backwards: bool) -> Solver:
    """Choose what integrates a trajectory through which gradients go.

    Parameters
    ----------
    system
        The system.
    steps
        Whether the steps themselves are asked for.
    backwards
        Whether the adjoint is to be integrated backwards in time.
    """
    if backwards:
        return TorchDiffEq("dopri5", *_tolerances(system, "dopri5"))
    if not steps and refused_closed_form(system) is None:
        return Exact()
    return Adaptive("dopri5", *_tolerances(system, "dopri5"))


def for_relaxation(system: System, tolerance: float, *, late: bool) -> Choice:
    """Choose what relaxes a system to an equilibrium in the basin of its start.

    Parameters
    ----------
    system
        The system, whose network is cyclic.
    tolerance
        On max |τ dx/dt| at the equilibrium, in units of activity.
    late
        Whether the relaxation itself has to meet it, as acceleration has not done so for long.
    """
    structure = system.structure
    smallest = 4 * torch.finfo(system.dtype).eps
    if structure.kinks_at_units:
        rtol = max(min(_LOCAL["sliding"], tolerance) if late else _LOCAL["sliding"], smallest)
        reason = f"kinks where {_places(structure)}: relaxed in time, sliding along them"
        return Choice(Sliding(rtol, 0.1 * tolerance), reason)
    if structure.gradient_flow and (late or not structure.smooth):
        # The stabilised method stays stable by its stages, however long its steps; where it chatters about kinks that
        # no method slides along, or follows a valley that was chosen long ago, accuracy buys nothing.
        rtol = 1e-3 if structure.smooth else max(min(1e-3, tolerance), smallest)
        kind = "slow" if structure.smooth else "with kinks"
        return Choice(Stabilized(rtol=rtol, atol=0.1 * tolerance), f"a gradient flow {kind}: relaxed in time")
    scale = _scale(system)
    # Where stability limits the step, the error of a step is what keeps the activity moving.
    rtol = max(min(_RELAXING, 0.01 * tolerance / max(scale, 1.0)) if late else _RELAXING, smallest)
    return Choice(
        Adaptive(rtol=rtol, atol=max(1e-3 * rtol, smallest) * scale), "relaxed in time, into the basin of its start"
    )


def _places(structure: Structure) -> str:
    """Return where F jumps at units' kinks."""
    return "units meet" if structure.windows else "units pass 0"


def _tolerances(system: System, method: str) -> tuple[float, float]:
    """Return the relative and the absolute tolerance, as far as the dtype resolves them."""
    local = _CYCLIC if method == "dopri5" and not system.structure.acyclic else _LOCAL[method]
    rtol = max(local, 4 * torch.finfo(system.dtype).eps)
    return rtol, _FLOOR * rtol * _scale(system)


def _scale(system: System) -> float:
    """Return the size of the activity, max |x₀| + max |τ F(x₀)|; 1 where both are 0."""
    state, slope = system.initial_state(), system.new_state()
    if not state.flat.numel():
        return 1.0
    system.field(state, slope, 0.0)
    size = float(state.flat.abs().max()) + residual(system, slope)
    return size if 0.0 < size < float("inf") else 1.0
