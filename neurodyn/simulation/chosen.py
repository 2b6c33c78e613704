"""What a run records of each population: all of it, some of its units, or what its samples come to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from neurodyn.checks import listed
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.network.network import Network
from neurodyn.system.system import System

Record = Iterable[str] | Mapping[str, Sequence[int] | None] | None
"""Names; or units by name, None for all."""

_REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {  # of (network, sample, …)
    "mean": lambda x: x.mean(1),
    "std": lambda x: x.std(1, correction=0),
    "min": lambda x: x.amin(1),
    "max": lambda x: x.amax(1),
}


@dataclass(frozen=True)
class Chosen:
    """What is recorded of one population, or of an observable.

    Parameters
    ----------
    shape
        The shape of one sample of it all.
    units
        The numbers of its units, increasing or not; None for all.
    reduction
        What is made of its samples; None to keep each.
    members
        How many networks are stacked, each with its own samples.
    """

    shape: tuple[int, ...]
    units: tuple[int, ...] | None = None
    reduction: str | None = None
    members: int = 1

    @property
    def whole(self) -> bool:
        """Whether it is all of it, sample by sample."""
        return self.units is None and self.reduction is None

    def size(self, samples: int) -> tuple[int, ...]:
        """Return the shape of what is recorded at one time."""
        shape = self.shape if self.units is None else (len(self.units),)
        if self.reduction is None:
            return (samples, *shape)
        return shape if self.members == 1 else (self.members, *shape)

    def bytes(self, system: System) -> int:
        """Return how many bytes it takes in a dataset, at one time."""
        itemsize = 4 if system.dtype == torch.bfloat16 else system.dtype.itemsize  # NumPy lacks bfloat16
        return prod(self.size(system.samples)) * itemsize

    def of(self, activity: Tensor) -> Tensor:
        """Return what is recorded of the activity at one time, shape (sample, …)."""
        if self.units is not None:
            activity = activity[:, torch.tensor(self.units, device=activity.device)]
        if self.reduction is None:
            return activity
        found = _REDUCTIONS[self.reduction](activity.reshape(self.members, -1, *activity.shape[1:]))
        return found if self.members > 1 else found[0]

    def described(self, text: str) -> str:
        """Say in the description of a variable what is made of the samples."""
        return text if self.reduction is None else f"{text}, {self.reduction} over samples"


def recorded_names(network: Network, record: Iterable[str] | None, *, inputs: bool = False) -> list[str]:
    """Return what a run records, each once: what is asked for, or all populations, with the inputs or without.

    Raises
    ------
    TypeError, ValueError
        If what is asked for is no names, or nothing, or unknown.
    """
    if record is None:
        return [p.name for p in network.populations if inputs or p.name not in network.inputs]
    names = [record] if isinstance(record, str) else listed("record", record)
    known = [*(p.name for p in network.populations), *network.observables]
    unknown = [name for name in names if not isinstance(name, str) or name not in known]
    if unknown:
        raise InvalidValueError(
            f"record: there is no population or observable {unknown[0]!r} in network {network.name!r}; there are "
            f"{', '.join(known)}"
        )
    if not names:
        raise InvalidValueError("record: name at least one population, or leave it out to record all")
    return list(dict.fromkeys(names))


def chosen_of(system: System, record: Record, reduce: Mapping[str, str] | None, members: int = 1) -> dict[str, Chosen]:
    """Return what is recorded of each population and observable, where so many networks are stacked.

    Raises
    ------
    TypeError, ValueError
        If units or reductions are none, or of what is not recorded.
    """
    names = recorded_names(system.network, list(record) if isinstance(record, Mapping) else record)
    reductions = {} if reduce is None else reduce
    if not isinstance(reductions, Mapping):
        raise InvalidTypeError(f"reduce: a mapping {{population: 'mean'}}, not {reductions!r}")
    for name, reduction in reductions.items():
        if name not in names:
            raise InvalidValueError(f"reduce: {name!r} is not recorded; recorded are {', '.join(names)}")
        if not isinstance(reduction, str) or reduction not in _REDUCTIONS:
            raise InvalidValueError(f"reduce: {name}: one of {', '.join(_REDUCTIONS)}, not {reduction!r}")
    units = record if isinstance(record, Mapping) else {}
    return {
        name: Chosen(system.shape(name), _units(system, name, units.get(name)), reductions.get(name), members)
        for name in names
    }


def _units(system: System, name: str, units: object) -> tuple[int, ...] | None:
    if units is None:
        return None
    shape = system.shape(name)
    if len(shape) != 1:
        kind = "an observable" if name in system.network.observables else f"of the shape {shape}"
        raise InvalidValueError(f"record: {name} is {kind}; only the units of a population of one axis can be chosen")
    numbers = np.asarray(units)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not len(numbers):
        raise InvalidTypeError(f"record: {name}: the numbers of its units, such as [0, 5, 7], or None, not {units!r}")
    if numbers.min() < 0 or numbers.max() >= shape[0] or len(set(numbers.tolist())) < len(numbers):
        raise InvalidValueError(
            f"record: {name}: each unit once, of those from 0 to {shape[0] - 1}, not {numbers.tolist()}"
        )
    return tuple(numbers.tolist())
