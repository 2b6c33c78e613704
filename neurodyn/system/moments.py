"""Many moments of a driven network side by side: its samples, repeated once a moment."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neurodyn.system.bound import Given
from neurodyn.system.plan import Plan
from neurodyn.system.state import State
from neurodyn.system.system import System


def repeated_at(system: System, moments: Sequence[tuple[float, float]]) -> System:
    """Return the system with its samples repeated once a moment, at which what varies stands still.

    Parameters
    ----------
    moments
        When, each after the time at which the step that it is in begins.
    """
    members, count = system.network.members, len(moments)

    def repeat(value: Tensor) -> Tensor:
        own = value.view(members, 1, -1, *value.shape[1:])
        return own.expand(members, count, *own.shape[2:]).reshape(-1, *value.shape[1:])

    held = {name: repeat(value) for name, value in system.clamped.items() if name not in system.timeline.driven}
    for name, values in system.timeline.over(moments).items():
        own = values.view(count, members, -1, *system.shapes[name]).transpose(0, 1)
        held[name] = own.reshape(-1, *system.shapes[name])
    held = {name: held[name] for name in system.clamped}
    data, samples = system.data, system.samples * count
    given = Given(
        {name: held[name] if name in held else repeat(value) for name, value in data.inputs.items()},
        None if data.targets is None else repeat(data.targets),
        {name: system.instant.new_zeros(()).expand(samples, *system.shapes[name]) for name in system.dynamic},
        system.dtype,
        system.device,
        samples,
        held=held,
    )
    return System.planned(system.network, Plan(system.network, given))


def first_of(system: System, flat: Tensor, count: int) -> Tensor:
    """Return the first moment of a flat state of a system that is `repeated_at` moments, shape (n,)."""
    members = system.network.members
    blocks = flat.split_with_sizes([count * system.plan.sizes[name] for name in system.dynamic])
    return torch.cat([block.view(members, count, -1)[:, 0].flatten() for block in blocks])


def write_apart(system: System, flat: Tensor, count: int, onto: Tensor, out: Tensor, first: int = 0) -> None:
    """Write moments of a flat state of a system that is `repeated_at` so many, plus one of the system, into `out`.

    Parameters
    ----------
    flat, count
        The flat state, and how many moments it is of.
    onto
        The flat state to add, shape (n,).
    out
        Shape (moment, n), for the moments from the first to write on.
    first
        Which one that is.
    """
    members = system.network.members
    blocks = flat.split_with_sizes([count * system.plan.sizes[name] for name in system.dynamic])
    for (_, place), block in zip(system.places(), blocks, strict=True):
        own = out[:, place].view(len(out), members, -1)
        some = block.view(members, count, -1)[:, first : first + len(out)]
        torch.add(some.transpose(0, 1), onto[place].view(members, -1), out=own)


def put_together(system: System, states: Tensor, out: State) -> None:
    """Write flat states moment by moment, shape (moment, n), into a state of a system that is `repeated_at` moments."""
    members, count = system.network.members, len(states)
    for name, place in system.places():
        own = states[:, place].view(count, members, -1).transpose(0, 1)
        out.activity[name].view(members, count, -1).copy_(own)


def take_off(system: System, flat: Tensor, state: State, count: int) -> None:
    """Subtract a flat state from each moment of a state of a system that is `repeated_at` moments."""
    members = system.network.members
    for name, place in system.places():
        state.activity[name].view(members, count, -1).sub_(flat[place].view(members, 1, -1))
