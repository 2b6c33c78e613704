"""A batch, bound to the drives of a network: what is held, where the rest starts, and what varies in time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.forward import ForwardPass
from neurodyn.network.drives import Constant, Data, Drive, ForwardValue, Input, Noisy, Target, without_noise
from neurodyn.network.network import Network
from neurodyn.network.pointwise import Identity
from neurodyn.network.population import Population
from neurodyn.system.bound import Given, check_block, of_integers
from neurodyn.system.driven import Driven
from neurodyn.system.numbers import check_finite, sums_are_finite
from neurodyn.system.own import look_at_data

_CHECKED = (Input, Target, ForwardValue)
"""Drives whose values have been checked: as data, or layer by layer."""


@dataclass(frozen=True)
class Batch:
    """What a batch brings to a plan."""

    given: Given
    """The batch, as it came in."""
    data: Data
    """Inputs, targets and the forward pass."""
    clamped: dict[str, Tensor]
    """The held populations' activity by name, shape (sample, …)."""
    starts: dict[str, Tensor]
    """The start of each dynamic population, likewise."""
    driven: dict[str, Driven]
    """What the clamped populations that vary in time are given."""


def brought(network: Network, given: Given, forward: ForwardPass | None) -> Batch:
    """Return what a network's drives make of a batch.

    Parameters
    ----------
    network, given
        The declaration, and the batch.
    forward
        The forward pass, which moves to the batch; None where there is none.

    Raises
    ------
    TypeError, ValueError
        If something does not fit, or is not finite.
    """
    if forward is not None:
        forward.move_to(given.inputs[network.inputs[0]])
        check_finite(network.name, [("output of the forward pass", forward.output)])
        if given.targets is not None and given.targets.shape != forward.output.shape:
            raise InvalidValueError(
                f"targets have the shape {tuple(given.targets.shape)}, and the network's output has "
                f"{tuple(forward.output.shape)}; give one target a sample and output unit"
            )
    data = Data(given.inputs, given.targets, forward, network.loss)
    look_at_data(network, data)
    clamped: dict[str, Tensor] = {}
    for population in network.populations:
        drive = population.clamp
        value = None if drive is None else _driven(population, drive, data, given)
        if drive is not None and value is not None:
            check_block(population, value, drive, given.samples)
            clamped[population.name] = value.detach()
    driven = _moved(network, given, clamped)
    for name in given.initial:
        if name in clamped:
            raise InvalidValueError(f"initial value of population {name}: it is clamped to {network[name].clamp}")
    starts: dict[str, Tensor] = {}
    for population in network.populations:
        if not population.instantaneous and population.name not in clamped:
            start = _start(network, population, data, given, (clamped, starts))
            population.check_within("its start", start)
            starts[population.name] = start
    return Batch(given, data, clamped, starts, driven)


def _moved(network: Network, given: Given, clamped: dict[str, Tensor]) -> dict[str, Driven]:
    """Return what the clamped populations that vary are given, each with an activity of its own in `clamped`."""
    if not given.signals:
        return {}
    varying, moved = given.varying, {}
    for name in clamped:
        drive = network[name].clamp
        signal = varying.get("" if isinstance(without_noise(drive), Target) else name)
        if signal is not None and isinstance(without_noise(drive), (Input, Target)):
            noise = given.noise.get(name)
            if isinstance(drive, Noisy) and noise is None:
                noise = clamped[name] - signal.start(given.samples, network.members, given.dtype, given.device)
            clamped[name] = clamped[name].clone(memory_format=torch.contiguous_format)
            moved[name] = Driven(signal, noise, clamped[name], network.members)
    return moved


def _driven(population: Population, drive: Drive, data: Data, given: Given) -> Tensor | None:
    """Return what a drive gives for a population."""
    if isinstance(drive, Noisy) and drive is population.clamp and population.name in given.inputs:
        return given.inputs[population.name]
    return _read_drive(population, drive, data, given)


def _start(
    network: Network, population: Population, data: Data, given: Given, known: Iterable[Mapping[str, Tensor]]
) -> Tensor:
    """Return where a dynamic population starts, given the activity that is known already."""
    name, shape = population.name, population.shape
    if name in given.initial:
        value = given.initial[name].detach()
        if shape is not None and tuple(value.shape) == shape:
            value = value.expand(given.samples, *shape)
        check_block(population, value, "initial value", given.samples)
        return value
    if isinstance(population.initial, Drive):
        driven = _driven(population, population.initial, data, given)
        if driven is None:
            raise InvalidValueError(f"population {name}: it starts from {population.initial}, which is not given")
        check_block(population, driven, population.initial, given.samples)
        return driven.detach()
    if shape is None:
        shapes = {name: tuple(value.shape[1:]) for values in known for name, value in values.items()}
        shape = shape_of_source(network, population, shapes)
    if isinstance(population.initial, Tensor):
        return population.initial.detach().expand(given.samples, *shape)
    return torch.full((given.samples, *shape), population.initial, dtype=given.dtype, device=given.device)


def shape_of_source(network: Network, population: Population, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Return the shape of a population that declares none: that of what it is a copy of.

    Raises
    ------
    ValueError
        If there is no such source.
    """
    for coupling in network.into(population.name):
        if isinstance(coupling.map, Identity) and coupling.sources[0] in shapes:
            return shapes[coupling.sources[0]]
    raise InvalidValueError(f"population {population.name}: its size is unknown; declare it with size=")


def _read_drive(population: Population, drive: Drive, data: Data, given: Given) -> Tensor | None:
    """Return what a drive gives a population; None if it is optional and absent."""
    value = drive.value(population.name, data)
    if value is not None and type(drive) in _CHECKED:
        return value
    if isinstance(drive, Constant):
        value = _constant(population, drive, given)
    if value is None and not drive.optional:
        raise InvalidValueError(
            f"population {population.name}: {drive} gives nothing; let it return a tensor, or say optional = True"
        )
    if value is None or of_integers(drive):
        return value
    if not isinstance(value, Tensor) or value.ndim == 0:
        kind = "tensor without axes" if isinstance(value, Tensor) else type(value).__name__
        raise InvalidTypeError(
            f"population {population.name}: {drive} gives a {kind}, and not a tensor (sample, units…)"
        )
    if value.dtype != given.dtype or value.device != given.device:
        raise InvalidTypeError(
            f"population {population.name}: {drive} gives {value.dtype} on {value.device}, and the run is in "
            f"{given.dtype} on {given.device}; bring it there with .to()"
        )
    bad = 0 if sums_are_finite([value.detach()]) else int((~torch.isfinite(value)).sum())
    if bad:
        raise InvalidValueError(
            f"population {population.name}: {drive} gives {bad} values that are NaN or infinite; all must be finite"
        )
    return value


def _constant(population: Population, drive: Constant, given: Given) -> Tensor:
    """Return a constant for each sample of a population."""
    value, shape = drive.constant, population.shape
    if shape is None:
        shape = tuple(value.shape) if isinstance(value, Tensor) else None
    if shape is None:
        raise InvalidValueError(f"population {population.name}: a constant number needs its size; declare size=")
    if isinstance(value, Tensor) and tuple(value.shape) != shape:
        raise InvalidValueError(
            f"population {population.name}: the constant has the shape {tuple(value.shape)}, and the population {shape}"
        )
    return torch.as_tensor(value, dtype=given.dtype, device=given.device).expand(given.samples, *shape).contiguous()
