"""The grid of a sweep: its values, its points, the random numbers of each, and the blocks that it is cut into."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.labelled import xr

Where = Mapping[str, Any]
"""A point of a grid: the values of its parameters."""


@dataclass(frozen=True)
class Block:
    """A box of a grid: the places along each parameter that it covers."""

    region: Mapping[str, slice]

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many values of each parameter it has."""
        return tuple(places.stop - places.start for places in self.region.values())

    @property
    def points(self) -> int:
        """How many points it has."""
        return prod(self.sizes)


class Grid:
    """The points of a grid, the last parameter running fastest, in blocks.

    Parameters
    ----------
    given
        The values of each parameter.
    block
        How many points a block has at most; None for one block of all.

    Raises
    ------
    TypeError, ValueError
        If there are no values, or they would not make a coordinate in which each is found again.
    """

    def __init__(self, given: Mapping[str, Iterable[Any]], block: int | None = None) -> None:
        if not isinstance(given, Mapping):
            raise InvalidTypeError(f"grid: a mapping of parameters to their values, not a {type(given).__name__}")
        if not given:
            raise InvalidValueError("grid: name at least one parameter and its values")
        self.values = {name: _values(name, values) for name, values in given.items()}
        self.sizes = {name: len(values) for name, values in self.values.items()}
        self.chunks = self._box(self.size if block is None else block)
        """How many values of each parameter a block has, but for the last blocks along it."""

    def _box(self, points: int) -> dict[str, int]:
        lengths = {}
        for name, size in reversed(self.sizes.items()):
            lengths[name] = max(1, min(size, points))
            points //= lengths[name]
        return {name: lengths[name] for name in self.sizes}

    @property
    def size(self) -> int:
        """How many points there are."""
        return prod(self.sizes.values())

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return prod(self._along)

    @cached_property
    def _along(self) -> tuple[int, ...]:
        return tuple(-(-size // self.chunks[name]) for name, size in self.sizes.items())

    def block(self, number: int) -> Block:
        """Return a block by its number, the last parameter running fastest."""
        region = {}
        for name, place in zip(self.sizes, np.unravel_index(number, self._along), strict=True):
            start = int(place) * self.chunks[name]
            region[name] = slice(start, min(start + self.chunks[name], self.sizes[name]))
        return Block(region)

    def points(self, block: Block) -> Iterator[dict[str, Any]]:
        """Iterate over the points of a block."""
        names = tuple(block.region)
        for combination in product(*(self.values[name][places] for name, places in block.region.items())):
            yield dict(zip(names, combination, strict=True))

    def seeds(self, block: Block) -> Iterator[int]:
        """Iterate over seeds of a block's points, each of which depends on its point alone."""
        for parts in product(*(self._bytes[name][places] for name, places in block.region.items())):
            yield int.from_bytes(hashlib.sha256(b"".join(parts)).digest()[:8], "little") >> 1

    @cached_property
    def _bytes(self) -> dict[str, list[bytes]]:
        return {name: [_own_bytes(name, value) for value in values] for name, values in self.values.items()}

    def columns(self, block: Block) -> dict[str, Any]:
        """Return the values of each parameter at the points of a block: tensors, shape (network,), or lists of text."""
        own = [_coordinate(self.values[name])[places] for name, places in block.region.items()]
        each = np.meshgrid(*own, indexing="ij")
        return {
            name: values.ravel().tolist() if values.dtype.kind == "U" else torch.from_numpy(values.ravel())
            for name, values in zip(self.values, each, strict=True)
        }

    def order(self) -> NDArray[np.intp]:
        """Return where, among the points of all blocks one after the other, each point of the grid is."""
        places = np.arange(self.size).reshape(tuple(self.sizes.values()))
        regions = (tuple(self.block(number).region.values()) for number in range(self.blocks))
        order = np.empty(self.size, np.intp)
        order[np.concatenate([places[region].ravel() for region in regions])] = np.arange(self.size)
        return order

    def coordinates(self) -> dict[str, NDArray[Any]]:
        """Return the values of each parameter as an array."""
        return {name: _coordinate(values) for name, values in self.values.items()}


def text(where: Where) -> str:
    """Return a point as text."""
    return ", ".join(f"{name} = {value}" for name, value in where.items())


def seed_by(seed: int) -> None:
    """Seed the generators of PyTorch, NumPy and Python."""
    torch.default_generator.manual_seed(seed)
    for generator in torch.cuda.default_generators:  # none before the first use
        generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - what a point may draw from
    random.seed(seed)


def _own_bytes(name: str, value: Any) -> bytes:
    plain = value.item() if isinstance(value, np.generic) else value
    return hashlib.sha256(repr((name, plain)).encode()).digest()


def _values(name: str, given: Iterable[Any]) -> list[Any]:
    if not isinstance(name, str):
        raise InvalidTypeError(f"grid: the name of a parameter is text, not {name!r}")
    if isinstance(given, (Tensor, xr.DataArray)):
        given = given.tolist() if isinstance(given, Tensor) else given.to_numpy()
    single = isinstance(given, np.ndarray) and given.ndim == 0
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable) or single:
        raise InvalidTypeError(f"grid: parameter {name!r} has several values; give a list of them, not {given!r}")
    if isinstance(given, Iterator):
        raise InvalidTypeError(
            f"grid: parameter {name!r} is a {type(given).__name__}, which gives its values only once; give a list"
        )
    values = list(given)
    if not values:
        raise InvalidValueError(f"grid: parameter {name!r} has no values")
    kinds = {_kind(name, value) for value in values}
    if len(kinds) > 1:
        raise InvalidValueError(
            f"grid: parameter {name!r} has values of several kinds, {' and '.join(sorted(kinds))}, which one "
            "coordinate does not keep apart; give all as one kind"
        )
    if isinstance(given, (set, frozenset)):
        values.sort()  # of text, each process has an order of its own
    coordinate = _coordinate(values)
    if coordinate.dtype.kind not in "biufU":
        raise InvalidValueError(f"grid: parameter {name!r} has numbers that 64 bits do not hold; give others")
    if len(np.unique(coordinate)) < len(values):
        raise InvalidValueError(f"grid: parameter {name!r} has a value twice; give each once")
    for held, value in zip(coordinate.tolist(), values, strict=True):
        if held != value:
            raise InvalidValueError(
                f"grid: parameter {name!r} has {value!r} among its values, which would be {held!r} in the coordinate "
                "that holds them all; give others"
            )
    return values


def _coordinate(values: list[Any]) -> NDArray[Any]:
    """Return values as an array of a dtype that xarray and Zarr know."""
    coordinate = np.asarray(values)
    if coordinate.dtype.kind == "f" and coordinate.dtype.itemsize not in (4, 8):
        return coordinate.astype(np.float64)
    return coordinate.astype(coordinate.dtype.str)  # NumPy has two of 64 bits


def _kind(name: str, value: object) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "booleans"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Real):
        if math.isnan(value):
            raise InvalidValueError(
                f"grid: parameter {name!r} has NaN among its values, which no coordinate finds again; leave it out"
            )
        return "numbers"
    raise InvalidTypeError(
        f"grid: parameter {name!r} has {value!r} among its values; they are numbers, text or booleans, of which a "
        "function of your own may make anything else"
    )
