"""Going on from a run: where its populations are, and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, cast

import torch
from torch import Tensor

from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.labelled import xr
from neurodyn.network.network import Network

Starts: TypeAlias = "Mapping[str, Tensor] | xr.Dataset"
"""Starts by population, or one moment of a run to go on from."""


def starts_of(
    network: Network, initial: Starts | None, like: Tensor | None, *, with_targets: bool
) -> tuple[dict[str, Tensor], float]:
    """Return the starts by population, and the time at which they are.

    Parameters
    ----------
    network
        The declaration.
    initial
        Starts, or one moment of a run, of which each dynamic population is taken.
    like
        A tensor on the run's device, of its dtype; None where nothing tells.
    with_targets
        Whether the run has targets, which hold what is clamped to them.

    Raises
    ------
    TypeError, ValueError
        If it is neither, or no single moment, or lacks a population.
    """
    if initial is None:
        return {}, 0.0
    if not isinstance(initial, xr.Dataset):
        if not isinstance(initial, Mapping):
            raise InvalidTypeError(
                f"initial must be a mapping {{population: tensor}}, or one moment of a run such as "
                f"run.isel(time=-1), not {type(initial).__name__}"
            )
        return dict(cast(Mapping[str, Tensor], initial)), 0.0
    for along in ("time", "step"):
        if along in initial.dims:
            raise InvalidValueError(
                f"initial: the run has {initial.sizes[along]} moments along {along!r}; choose one, such as "
                f".isel({along}=-1)"
            )
    starts: dict[str, Tensor] = {}
    for population in network.populations:
        clamp, name = population.clamp, population.name
        held = clamp is not None and not (clamp.optional and clamp.reads_targets and not with_targets)
        if population.instantaneous or held:
            continue
        if name not in initial.data_vars:
            raise InvalidValueError(
                f"initial: the run has not recorded population {name}; record it, or give a mapping of names to tensors"
            )
        starts[name] = _start(network, name, initial[name], like)
    return starts, float(initial.coords["time"]) if "time" in initial.coords else 0.0


def _start(network: Network, name: str, values: xr.DataArray, like: Tensor | None) -> Tensor:
    leading = [dim for dim in ("network", "sample") if dim in values.dims]
    tensor = torch.from_numpy(values.transpose(*leading, ...).to_numpy().copy())
    if like is not None:
        tensor = tensor.to(like.device)
        if like.dtype == torch.bfloat16 and tensor.dtype == torch.float32:  # in which such a run is recorded
            tensor = tensor.to(like.dtype)
    if "network" in values.dims:
        if len(tensor) != network.members:
            raise InvalidValueError(
                f"initial: the run is of {len(tensor)} networks, and this one of {network.members}; choose one with "
                ".isel(network=…), or run as many"
            )
        return tensor.flatten(0, 1) if "sample" in values.dims else tensor
    if "sample" in values.dims and network.members > 1:
        return tensor.repeat(network.members, *[1] * (tensor.ndim - 1))
    return tensor
