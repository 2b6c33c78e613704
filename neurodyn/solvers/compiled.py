"""Many steps of a fixed size as one function, which `torch.compile` makes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from types import FunctionType
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.errors import InvalidValueError
from neurodyn.network.network import Network
from neurodyn.solvers.base import Until
from neurodyn.solvers.tableaux import Tableau
from neurodyn.system.state import State
from neurodyn.system.system import System

STEPS_COMPILED = 20
"""How many steps are compiled into one function."""


def check_compilable(step: float, times: NDArray[np.float64] | None, duration: float, until: Until | None) -> None:
    """Refuse a run in which no steps can be taken at once."""
    if until is not None:
        why = "until is asked after every step; leave one of the two out"
    elif times is None:
        why = "every step is saved; save fewer, e.g. save_at=[duration]"
    else:
        ends = np.concatenate([[0.0], times, [duration]])
        steps = math.floor(np.diff(ends).max() / step + 1e-9)
        if steps > STEPS_COMPILED:
            return
        why = f"at most {steps} steps lie between what is saved; save fewer, or leave compile out"
    raise InvalidValueError(f"compile: it joins {STEPS_COMPILED} steps into one function, and {why}")


def advance_compiled(
    step: float, tableau: Tableau, system: System, state: State, slopes: list[State], work: State, time: float
) -> bool:
    """Take several steps at once from `state`, whose slope stands in slopes[0]; False where that is impossible."""
    nodes = [*tableau.nodes[1:], 1.0]
    moments = [time + (place + node) * step for place in range(STEPS_COMPILED) for node in nodes]
    try:
        _compiled_steps(system.network)(step, tableau, system, state, slopes, work, system.timeline.ahead(moments))
    except Exception as error:  # whatever the compiler raises
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        warnings.warn(
            f"compile: network {system.network.name!r} cannot be compiled, and runs as it is ({reason})",
            RuntimeWarning,
            stacklevel=5,
        )
        return False
    return True


def _several_steps(
    h: float,
    tableau: Tableau,
    system: System,
    state: State,
    slopes: list[State],
    work: State,
    ahead: Mapping[str, Tensor],
) -> None:
    stages = len(slopes) - 1
    for step in range(STEPS_COMPILED):
        first = step * (stages + 1)
        for row, place in zip(tableau.a[1:], range(stages), strict=True):
            earlier = zip(row, slopes[: len(row)], strict=True)
            work.combine(state, [(h * weight, its) for weight, its in earlier])
            system.timeline.take(ahead, first + place)
            system.field(work, slopes[place + 1], "held")
        weights = zip(tableau.b, slopes, strict=True)
        state.combine(state, [(h * weight, slope) for weight, slope in weights])
        if step < STEPS_COMPILED - 1:
            system.timeline.take(ahead, first + stages)
            system.field(state, slopes[0], "held")


_COMPILED: WeakKeyDictionary[Network, Callable[..., None]] = WeakKeyDictionary()


def _compiled_steps(network: Network) -> Callable[..., None]:
    """Return `_several_steps`, compiled for a network.

    Each network has a code object of its own, because PyTorch keeps but a few compilations of one.
    """
    if network not in _COMPILED:
        own = FunctionType(_several_steps.__code__.replace(), globals())
        # PyTorch 2.8 would bring a reader forward, to before a step has written in place what it reads.
        _COMPILED[network] = torch.compile(own, fullgraph=True, dynamic=False, options={"reorder_for_locality": False})
    return _COMPILED[network]
