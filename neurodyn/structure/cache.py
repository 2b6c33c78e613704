"""What is read off a declaration, kept for as long as the network lives."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast
from weakref import WeakKeyDictionary

from neurodyn.network.network import Network
from neurodyn.structure.causality import Schedule, Start, common_start, read_start
from neurodyn.structure.structure import Structure, structure_in_common

Value = TypeVar("Value")

# Weakly keyed, and no value refers to its network: what is kept does not keep the network.
_KEPT: WeakKeyDictionary[Network, dict[tuple[object, ...], object]] = WeakKeyDictionary()


def kept(network: Network, key: tuple[object, ...], read: Callable[[], Value]) -> Value:
    """Return what has been read off a network before under a key, or else is now; it must not refer to the network."""
    values = _KEPT.setdefault(network, {})
    if key not in values:
        values[key] = read()
    return cast(Value, values[key])


def structure_of(network: Network, clamped: frozenset[str]) -> Structure:
    """Return the structure of a network's dynamics with the populations called `clamped` held."""
    return kept(
        network,
        ("structure", clamped, *(tensor._version for _, tensor in network.tensors)),
        lambda: structure_in_common(network.stacked or (network,), clamped),
    )


def start_of(network: Network, clamped: frozenset[str], overridden: frozenset[str]) -> Start:
    """Return what balances before the first step, with `clamped` held and `overridden` starting elsewhere."""
    return kept(
        network,
        ("start", clamped, overridden),
        lambda: common_start([read_start(each, clamped, overridden) for each in network.stacked or (network,)]),
    )


def schedule_of(network: Network, clamped: frozenset[str], overridden: frozenset[str], steps: int) -> Schedule:
    """Return what each step of discrete inference has to evaluate."""
    return kept(
        network,
        ("schedule", clamped, overridden, steps),
        lambda: Schedule(network, clamped, start_of(network, clamped, overridden), steps),
    )
