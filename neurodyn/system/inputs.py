"""Inputs and targets as they are given: tensors and what varies in time, by population."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from neurodyn.checks import tensor_hint
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.labelled import xr
from neurodyn.network.network import Network
from neurodyn.network.signals import Signal
from neurodyn.system.continued import Starts

Series: TypeAlias = "Tensor | Signal | xr.DataArray | Callable[[float], Any]"
"""What stands still, a tensor, or varies in time."""
Inputs: TypeAlias = "Series | Mapping[str, Series] | None"
"""Those of the one population clamped to `Input()`, by name where there are several, or None where there is none."""
Targets: TypeAlias = "Series | None"


def inputs_by_name(network: Network, inputs: Inputs) -> dict[str, Series]:
    """Return the inputs by population.

    Raises
    ------
    TypeError
        If they are neither a tensor nor a mapping.
    ValueError
        If a population that is clamped to inputs is missing, or another is named.
    """
    names = network.inputs
    if inputs is None:
        inputs = {}
    elif not isinstance(inputs, Mapping):
        if len(names) != 1:
            raise InvalidValueError(
                f"network {network.name!r} has {len(names)} populations clamped to inputs "
                f"({', '.join(names) or 'none'}); "
                + ("give a mapping {population: tensor}" if names else "give None as its inputs")
            )
        if not isinstance(inputs, (Tensor, Signal, xr.DataArray)) and not _function(inputs):
            pairs = isinstance(inputs, (Dataset, DataLoader)) or (
                isinstance(inputs, (tuple, list)) and any(isinstance(part, Tensor) for part in inputs)
            )
            hint = "; pass the inputs and the targets of a batch one after the other" if pairs else tensor_hint(inputs)
            raise InvalidTypeError(
                f"inputs of population {names[0]} must be a torch tensor, not {type(inputs).__name__}{hint}"
            )
        inputs = {names[0]: inputs}
    unknown = [name for name in inputs if name not in names]
    missing = [name for name in names if name not in inputs]
    if unknown:
        raise InvalidValueError(
            f"inputs name {', '.join(unknown)}; the populations clamped to inputs are {', '.join(names) or 'none'}"
        )
    if missing:
        raise InvalidValueError(
            f"population {missing[0]} is clamped to inputs, and none are given; pass inputs of shape (sample, units)"
        )
    return dict(inputs)


def _function(given: object) -> bool:
    return callable(given) and not isinstance(given, (type, nn.Module, DataLoader, Dataset))


def refuse_gradients(inputs: Inputs, targets: Targets, initial: Starts | None = None) -> None:
    """Refuse data that require a gradient, of a run that keeps no graph."""
    named: dict[str, object] = {"inputs": inputs, "targets": targets}
    for what, given in (("inputs", inputs), ("initial value", initial)):
        if isinstance(given, Mapping) and not isinstance(given, xr.Dataset):
            named |= {f"{what} of population {name}": value for name, value in given.items()}
    for what, value in named.items():
        tensor = value.values if isinstance(value, Signal) else value
        if isinstance(tensor, Tensor) and tensor.requires_grad:
            raise InvalidValueError(
                f"{what}: the tensor requires a gradient, and no graph is kept here; nd.activity keeps one, and "
                ".detach() leaves it out"
            )
