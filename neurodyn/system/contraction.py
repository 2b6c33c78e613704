"""Whether a cycle of instantaneous populations contracts, so that it has one solution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from neurodyn.layers.activations import ACTIVATIONS
from neurodyn.layers.kinds import is_rewritten
from neurodyn.network.maps import Map
from neurodyn.network.pointwise import Identity
from neurodyn.network.stage_maps import Forward
from neurodyn.network.vectors import magnitude
from neurodyn.system.equation import Entry, Equation

_ITERATIONS = 100
_BELOW = 1.0 - 1e-6
"""How large a factor of contraction is at most."""
_LEAST = 1e-9
"""How small an entry of v is at least, beside the largest."""


@torch.no_grad()
def contracts(equations: Sequence[Equation], within: Sequence[Entry], activity: Mapping[str, Tensor]) -> bool:
    """Tell whether y = H(y) is known to contract, y being the activity of all populations of a cycle.

    With B_ij ≥ |∂H_i/∂y_j| everywhere and a v > 0 of all units with B v < v, H contracts in the norm max_i |y_i| / v_i
    (Collatz, Wielandt). Such a v is looked for by iterations of 1 + B.

    Parameters
    ----------
    equations
        Those of the cycle's populations.
    within
        Their entries that read the cycle.
    activity
        Any activity of the populations, shape (sample, …).
    """
    if any(type(entry.coupling.map) not in (Identity, Forward) for entry in within):
        return False  # nothing is known of their |J|, and of several sources some may be outside the cycle
    v = {equation.name: torch.ones_like(activity[equation.name][:1], dtype=torch.float64) for equation in equations}
    for _ in range(_ITERATIONS):
        image = {name: torch.zeros_like(block) for name, block in v.items()}
        for entry in within:
            bound = _bound(entry.coupling.map, v[entry.coupling.sources[0]])
            if bound is None:
                return False
            image[entry.coupling.target] += bound * magnitude(entry.coupling.gain)
        for equation in equations:
            image[equation.name] *= magnitude(equation.scale)
        if all(bool((image[name] < _BELOW * block).all()) for name, block in v.items()):
            return True
        total = {name: block + image[name] for name, block in v.items()}
        largest = max(float(block.max()) for block in total.values())
        v = {name: (block / largest).clamp_min(_LEAST) for name, block in total.items()}
    return False


def _bound(map_: Map, v: Tensor) -> Tensor | None:
    """Return |J| v with the largest |J| that an `Identity` or a `Forward` has; None where that is not known."""
    if type(map_) is Identity:
        return v
    for layer in map_.stages[0].layers:
        if is_rewritten(layer):
            return None  # a hook may make more of it
        if type(layer) is nn.Linear:
            v = v @ layer.weight.double().abs().t()
        elif type(layer) in ACTIVATIONS:
            v = ACTIVATIONS[type(layer)].steepest(layer) * v
        else:
            return None
    return v
