"""Arrays of a Zarr store that grow along their first dimension, whose files are encoded here.

They are those that Zarr would write, by its codecs "sharding_indexed", "zstd" and "crc32c", byte for byte; but each is
encoded and written once, without the copies and the threads in between, in less than half of the processor's time: what
else the machine computes is slowed down by less.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs import Zstd
from numpy.typing import NDArray

from neurodyn.simulation.partial import sync
from neurodyn.simulation.stores import LEVEL, Fingerprints

_ZSTD = Zstd(level=LEVEL)
_NO_CHUNK = 2**64 - 1
"""Where the index of a shard says that there is none."""


class Growing:
    """An array, stored as `stores.encoding_of` says, that is added to.

    Its metadata keep the shape that they have, until they are changed.

    Parameters
    ----------
    store
        The store.
    name
        The array.
    length
        How much there is of it along its first dimension.
    """

    def __init__(self, store: Path, name: str, length: int) -> None:
        array = zarr.open_array(store / name, mode="r")
        self._store, self._name = store, name
        self._chunk, self._file = array.chunks, array.shards or array.chunks
        self._sharded = array.shards is not None
        self._dtype, self._fill = array.dtype.newbyteorder("<"), array.fill_value
        self._files, begun = divmod(length, self._file[0])
        self._begun: NDArray[Any] = np.asarray(array[length - begun : length])
        """What the last file holds, which is written anew."""

    def append(self, values: NDArray[Any]) -> Fingerprints:
        """Add what comes next along the first dimension; return the fingerprints of the files that hold it."""
        if len(self._begun):
            values = np.concatenate([self._begun, values])
        grid = [-(-length // along) for length, along in zip(values.shape, self._file, strict=True)]
        found: Fingerprints = {}
        for place in np.ndindex(*grid):
            block = values[tuple(slice(i * along, (i + 1) * along) for i, along in zip(place, self._file, strict=True))]
            key = "/".join([self._name, "c", str(self._files + place[0]), *map(str, place[1:])])
            found[key] = _write(self._store / key, self._shard(block) if self._sharded else self._chunk_of(block))
        whole = len(values) // self._file[0]
        self._files += whole
        self._begun = values[whole * self._file[0] :].copy()
        return found

    def _shard(self, block: NDArray[Any]) -> Iterator[bytes]:
        """Yield what a file holds: chunks that follow each other along the first dimension, and where each lies."""
        index = np.full((self._file[0] // self._chunk[0], 2), _NO_CHUNK, "<u8")
        end = 0
        for number, begin in enumerate(range(0, len(block), self._chunk[0])):
            size = 0
            for content in self._chunk_of(block[begin : begin + self._chunk[0]]):
                yield content
                size += len(content)
            index[number] = end, size
            end += size
        yield from _checked(index.tobytes())

    def _chunk_of(self, block: NDArray[Any]) -> Iterator[bytes]:
        """Yield an encoded chunk, filled up where the array ends within it."""
        if block.shape != self._chunk:
            filled = np.full(self._chunk, self._fill, self._dtype)
            filled[tuple(map(slice, block.shape))] = block
            block = filled
        return _checked(_ZSTD.encode(np.ascontiguousarray(block, self._dtype)))


def _checked(content: bytes) -> Iterator[bytes]:
    yield content
    yield google_crc32c.value(content).to_bytes(4, "little")


def _write(file: Path, contents: Iterator[bytes]) -> list[int | str]:
    """Write a file in place of the one before, in one stroke, have the disk hold it, and return its fingerprint."""
    digest, size = hashlib.sha256(), 0
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    with partial.open("wb") as opened:
        for content in contents:
            opened.write(content)
            digest.update(content)
            size += len(content)
    sync(partial)
    os.replace(partial, file)
    return [size, digest.hexdigest()]
