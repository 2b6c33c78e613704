"""Observables: numbers that are read off the activity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from neurodyn.errors import InvalidTypeError
from neurodyn.network.maps import Activity
from neurodyn.network.names import check_name


@dataclass(frozen=True)
class Observable:
    """A number a sample that is read off the activity, such as an energy; recorded where `record` names it.

    Parameters
    ----------
    name
        Letters, digits and underscores; the name of its variable in a trajectory.
    value
        A function of every population's activity, a mapping by name, that returns shape (sample,): of each sample what
        it would return of it alone, without writing into the activity, and the same whenever it is asked.
    long_name
        What it is, for axes and tables.

    Examples
    --------
    >>> import neurodyn as nd
    >>> norm = nd.Observable("norm", lambda activity: activity["x"].square().sum(1), "‖x‖²")
    >>> net = nd.Network("leak", [nd.Population("x", 2, initial=1.0)], observables=[norm])
    >>> run = nd.simulate(net, None, duration=1.0, save_at=2, record="norm")
    >>> run.norm.values.astype(float).round(3).tolist()
    [[2.0], [0.271]]
    """

    name: str
    value: Callable[[Activity], Tensor]
    long_name: str

    def __post_init__(self) -> None:
        check_name("observable", self.name)
        if not callable(self.value):
            raise InvalidTypeError(
                f"observable {self.name}: its value is a function of the activity, not {type(self.value).__name__}"
            )
        if not isinstance(self.long_name, str):
            raise InvalidTypeError(
                f"observable {self.name}: its long_name is text, not {type(self.long_name).__name__}"
            )
