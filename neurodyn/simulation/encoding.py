"""How a file keeps variables: the chunks, each read and checked by itself, and what is decoded."""

from __future__ import annotations

from collections.abc import Hashable
from math import prod

from neurodyn.labelled import xr

CHUNK_BYTES = 2 * 2**20
"""How much a chunk holds at most; a reduction holds some for each core of the machine."""


SHARD_CHUNKS = 16
"""How many chunks of a Zarr store share a file."""


def intervals() -> xr.coders.CFTimedeltaCoder:
    """Return how timedelta64 is known in a file: not by units such as "seconds", which numbers may have, too."""
    return xr.coders.CFTimedeltaCoder(decode_via_units=False)


def chunk_lengths(data: xr.Dataset) -> dict[Hashable, tuple[int, ...]]:
    """Return the shape of each variable's chunks.

    A dimension is cut in the same places for all variables, as Dask wants it; the first dimension, of a trajectory
    time, before the others. What labels a dimension is read at once, and stands apart.
    """
    lengths = {dim: max(1, length) for dim, length in data.sizes.items()}
    for name, variable in data.variables.items():
        if name in data.indexes:
            continue
        for dim in variable.dims:
            others = variable.dtype.itemsize * prod(lengths[other] for other in variable.dims if other != dim)
            lengths[dim] = max(1, min(lengths[dim], CHUNK_BYTES // max(1, others)))
    return {
        name: (max(1, min(variable.size, CHUNK_BYTES // variable.dtype.itemsize)),)
        if name in data.indexes
        else tuple(lengths[dim] for dim in variable.dims)
        for name, variable in data.variables.items()
    }
