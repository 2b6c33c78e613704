"""The seed of a run's noise."""

from __future__ import annotations

import torch

from neurodyn.errors import InvalidValueError
from neurodyn.solvers import Solver
from neurodyn.system.noise import Seed
from neurodyn.system.system import System


def take_seed(system: System, seed: Seed, solver: Solver | None) -> Seed:
    """Give a system that has noise its seed, and return it; refuse solvers that do not integrate noise."""
    if seed is not None:
        system.seed(seed)
    if not system.noisy:
        return seed
    if solver is None or not solver.takes_noise:
        why = "under which no step can be chosen for you" if solver is None else f"which {solver!r} does not integrate"
        raise InvalidValueError(
            f"solver: population {system.noisy[0]} has noise, {why}; give nd.Euler(step) or nd.Heun(step)"
        )
    if seed is None:
        seed = int(torch.randint(2**53, (), device="cpu"))  # which floats hold, as the stores of sweeps have them
        system.seed(seed)
    return seed
