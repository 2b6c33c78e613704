"""Stop conditions: one of someone's own, watched as it is asked, and rest under delays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.network.maps import Activity
from neurodyn.solvers.base import steady
from neurodyn.system.probe import same


@dataclass(frozen=True)
class Lasting(steady):
    """The stop condition `steady` of a network with delays: it has to hold for as long as the longest of them.

    Until then, what moved before may still be on its way.
    """

    duration: float = field(kw_only=True)
    _since: list[float] = field(default_factory=list, init=False, repr=False)

    def kept(self) -> dict[str, Any]:
        """Return since when it has held."""
        return {"since": list(self._since)}

    def load(self, kept: Mapping[str, Any]) -> None:
        """Go on from what `kept` returned."""
        self._since[:] = kept["since"]

    def __call__(self, time: float, activity: Activity, velocity: Activity) -> bool:
        """Tell whether the run may stop."""
        if not super().__call__(time, activity, velocity):
            self._since.clear()
            return False
        self._since.append(time)
        del self._since[1:]
        return time - self._since[0] >= self.duration * (1 - 1e-9)


class Watched:
    """A stop condition of one's own, which must leave the activity as it is, and tell yes or no."""

    def __init__(self, until: Callable[[float, Activity, Activity], Any], begins: float = 0.0) -> None:
        self._until, self._first, self._begins = until, True, begins

    def __call__(self, time: float, activity: Activity, velocity: Activity) -> bool:
        """Tell whether the run may stop.

        Raises
        ------
        TypeError, ValueError
            If the condition does not tell, or writes into what it is given.
        """
        tensors = [*activity.values(), *velocity.values()]
        versions = [tensor._version for tensor in tensors]
        copies = (
            [tensor.clone() for tensor in tensors] if self._first else tensors
        )  # the rest is beyond versions' reach
        self._first = False
        stop = self._until(self._begins + time, activity, velocity)
        written = versions != [tensor._version for tensor in tensors]
        if written or not all(map(same, tensors, copies) if copies is not tensors else ()):
            raise InvalidValueError("until writes into the activity or the velocity; let it work on a copy")
        if isinstance(stop, (bool, int, np.bool_)) or (
            isinstance(stop, (Tensor, np.ndarray)) and math.prod(stop.shape) == 1
        ):
            return bool(stop)
        shape = f" of shape {tuple(stop.shape)}" if isinstance(stop, (Tensor, np.ndarray)) else ""
        raise InvalidTypeError(
            f"until returns a {type(stop).__name__}{shape}; it has to tell True or False, as by bool((…).all())"
        )
