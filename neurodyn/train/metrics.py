"""What a user's functions measure of the networks that a run trains, before it begins and after each epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.labelled import xr
from neurodyn.network.network import Network
from neurodyn.randomness import seeded
from neurodyn.train.learners import Learner, ModuleLearner, evaluating

Metric = Callable[[Any], Any]
"""A function of a network or module, that returns a number, an array, or a `DataArray`."""

Labels = dict[str, Any]
"""What an array is labelled with, in containers of Python's: "dims", "shape", "coords" and "attrs"."""


@dataclass(frozen=True)
class Measurement:
    """What a metric found.

    Parameters
    ----------
    values
        Shape (seed, …), float64.
    labels
        Of the axes after the first.
    """

    values: Tensor
    labels: Labels


def check_metrics(functions: Mapping[str, Metric] | None, taken: Sequence[str]) -> dict[str, Metric]:
    """Return metrics by their names.

    Parameters
    ----------
    functions
        As given to `fit`.
    taken
        The names that a history has itself.

    Raises
    ------
    TypeError
        If they are no mapping from text to functions.
    ValueError
        If a name is empty or taken.
    """
    if functions is not None and not isinstance(functions, Mapping):
        raise InvalidTypeError(
            "metrics is a mapping from names to functions of the network, such as {'norm': lambda network: …}, not a "
            f"{type(functions).__name__}"
        )
    for name, function in (functions or {}).items():
        if not isinstance(name, str):
            raise InvalidTypeError(f"metrics: a name is text, not {name!r}")
        if not callable(function):
            raise InvalidTypeError(f"metrics: {name!r} is a function of the network, not {function!r}")
        if not name or name in taken:
            raise InvalidValueError(f"metrics: {name!r} is a name that the history has itself; give another")
    return dict(functions or {})


class Metrics:
    """Functions that measure the networks which a run trains.

    Parameters
    ----------
    functions
        By the names of what they measure.
    networks, learners, seeds
        What is trained, one a seed.
    layers
        The labels that a history itself has for a dimension `layer`, if it has one.
    """

    def __init__(
        self,
        functions: Mapping[str, Metric],
        networks: Sequence[Network | nn.Module],
        learners: Sequence[Learner],
        seeds: Sequence[int],
        layers: Sequence[str] | None,
    ) -> None:
        self.functions, self._layers = functions, None if layers is None else list(layers)
        self._members = list(zip(networks, learners, seeds, strict=True))

    def measure(self) -> dict[str, Measurement]:
        """Call every function with every network.

        A module is in evaluation mode meanwhile, as when it is tested; random numbers are those of the seed each time.

        Raises
        ------
        TypeError, ValueError
            If a function returns anything but real numbers, or another shape or other labels for one seed than for
            another, or changes the network; or if two of them label a dimension differently.
        """
        found = {name: self._measure(name) for name in self.functions}
        self._check_labels({name: each.labels for name, each in found.items()})
        return found

    def _measure(self, name: str) -> Measurement:
        values: list[Tensor] = []
        labels: list[Labels] = []
        for network, learner, seed in self._members:
            before = [tensor.detach().clone() for tensor in learner.tensors.values()]
            with ExitStack() as context:
                context.enter_context(seeded(seed, learner.parameters[0].device))
                if isinstance(learner, ModuleLearner):
                    context.enter_context(evaluating(learner.module))
                array = _array(name, self.functions[name](network))
            if not all(torch.equal(was, now) for was, now in zip(before, learner.tensors.values(), strict=True)):
                raise InvalidValueError(f"metrics: {name!r} changed the weights that it measures; let it change a copy")
            values.append(torch.from_numpy(array.to_numpy()))
            labels.append(_labels(array))
            check_alike(name, labels[0], labels[-1], f"for seed {self._members[0][2]}", f"for seed {seed}")
        return Measurement(torch.stack(values), labels[0])

    def _check_labels(self, labels: Mapping[str, Labels]) -> None:
        """Refuse dimensions and coordinates that a history has itself, or that two metrics label differently."""
        known = {} if self._layers is None else {"layer": ("the history", self._layers)}
        for name, each in labels.items():
            for label in {*each["dims"], *each["coords"]}.intersection(["epoch", "iteration", "seed", *labels]):
                raise InvalidValueError(f"metrics: {name!r} has a dimension or coordinate {label!r}; rename that")
            for coord, content in each["coords"].items():
                owner, same = known.setdefault(coord, (repr(name), content["data"]))
                if repr(content["data"]) != repr(same):
                    raise InvalidValueError(
                        f"metrics: {name!r} has other labels for {coord!r} than {owner}; rename that dimension"
                    )


def _array(name: str, value: Any) -> xr.DataArray:
    """Return what a metric found in float64, in memory of its own."""
    array = value.detach().cpu() if isinstance(value, Tensor) else value
    if isinstance(array, Tensor) and not array.is_complex():
        array = array.double()
    if not isinstance(array, xr.DataArray):
        try:
            array = np.asarray(array)
        except (TypeError, ValueError):  # such as a Dataset, or rows of different lengths
            array = np.asarray(None)
        array = xr.DataArray(array, dims=[f"{name}_dim_{axis}" for axis in range(array.ndim)])
    if array.dtype.kind not in "biuf":
        what = f"a {type(value).__name__}" + (f" of {value.dtype}" if hasattr(value, "dtype") else "")
        raise InvalidTypeError(f"metrics: {name!r} returns a real number, or an array or DataArray of such, not {what}")
    return array.astype(np.float64, copy=True)


def _labels(array: xr.DataArray) -> Labels:
    described = array.to_dict(data=False)
    coords = array.coords.to_dataset().to_dict()["coords"]
    return {"dims": array.dims, "shape": array.shape, "coords": coords, "attrs": described["attrs"]}


def check_alike(name: str, first: Labels, other: Labels, whose: str, others: str) -> None:
    """Refuse what a metric found if its shape or labels are not those that it had before."""
    for part, what in (("dims", "dimensions"), ("shape", "shape"), ("coords", "coordinates")):
        if repr(first[part]) != repr(other[part]):  # where, unlike without repr, NaN equals NaN
            raise InvalidValueError(
                f"metrics: {name!r} has the {what} {first[part]} {whose}, and {other[part]} {others}; they must stay "
                "the same"
            )
