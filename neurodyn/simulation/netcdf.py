"""NetCDF files whose damage is noticed.

Each chunk of a variable carries HDF5's Fletcher-32 checksum, which every reader verifies. After the end of what HDF5
knows of the file stands the SHA-256 of all before it, which is compared before HDF5 parses anything: it covers
attributes, scalars and HDF5's own structures, which can lead the library astray where they are damaged. Other programs
ignore it, and their files have none.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from neurodyn.errors import FileError
from neurodyn.labelled import xr
from neurodyn.simulation.encoding import chunk_lengths, intervals

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MARK = b"\nneurodyn sha256 "
_TRAILER = len(_MARK) + 2 * hashlib.sha256().digest_size
_END_OF_FILE = {0: 40, 1: 44, 2: 28, 3: 28}
"""Where a superblock, by its version, holds the end of HDF5's part (HDF5 File Format Specification, section II.A)."""


def write_netcdf(data: xr.Dataset, path: Path) -> None:
    """Write a dataset to a new file.

    Raises
    ------
    OSError
        If there is no space, or the file cannot be written for another reason.
    """
    with _Sink(path) as sink:
        try:
            data.to_netcdf(sink, engine="h5netcdf", encoding=_encoding(data))
        except Exception:
            if sink.error is None:
                raise
        if sink.error is not None:
            raise sink.error
        sink.seek(0)
        digest = hashlib.file_digest(sink, "sha256").hexdigest()
        sink.seek(0, os.SEEK_END)
        sink.write(_MARK + digest.encode())
        if sink.error is not None:
            raise sink.error


def _encoding(data: xr.Dataset) -> dict[Hashable, dict[str, Any]]:
    lengths = chunk_lengths(data)
    return {
        name: {"fletcher32": True, "chunksizes": lengths[name]}
        for name, variable in data.variables.items()
        if variable.size
        and variable.ndim
        and variable.dtype.kind not in "OSUT"  # HDF5 keeps text apart from its chunks
    }


class _Sink(io.FileIO):
    """A file that keeps its first error to itself, and from then on swallows what it is given.

    HDF5 does not survive a failed write: the process is killed when it tries again at its end.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.error: OSError | None = None

    def write(self, data: Any, /) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        while left and self.error is None:
            try:
                left = left[super().write(left) :]
            except OSError as error:
                self.error = error
        self.seek(len(left), os.SEEK_CUR)
        return size

    def truncate(self, size: int | None = None, /) -> int:
        try:
            if self.error is None:
                return super().truncate(size)
        except OSError as error:
            self.error = error
        return self.tell() if size is None else size


def read_netcdf(path: Path) -> xr.Dataset:
    """Return the dataset of a file, read whole.

    Raises
    ------
    OSError
        If the file is damaged, or none that HDF5 or xarray can read.
    """
    if not path.is_file():
        raise FileError(f"{path} is no file, and so no NetCDF file")
    _verify(path)
    try:
        return xr.load_dataset(path, engine="h5netcdf", decode_timedelta=intervals())
    except Exception as error:  # on a file that is not what it says, a reader may raise anything
        raise FileError(f"{path} is damaged, or no NetCDF file: {error}") from error


def _verify(path: Path) -> None:
    """Compare a file with its digest, if it has one."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TRAILER))
        trailer = file.read()
        file.seek(0)
        head = file.read(64)
        if not head.startswith(_SIGNATURE):
            raise FileError(f"{path} is damaged, or no NetCDF 4 file: it does not begin like one")
        if trailer.startswith(_MARK):
            file.seek(0)
            if _digest(file, size - _TRAILER) == trailer[len(_MARK) :]:
                return
            raise FileError(f"{path} is damaged: its checksum does not fit its content; put a copy in its place")
        version = head[len(_SIGNATURE)]
        if version in _END_OF_FILE:
            place = _END_OF_FILE[version]
            end = int.from_bytes(head[place : place + 8], "little")
            # What is left over looks like a digest that is itself damaged.
            if end < size <= end + _TRAILER:
                raise FileError(f"{path} is damaged at its end: its checksum is no longer one; put a copy in its place")


def _digest(file: io.BufferedReader, size: int) -> bytes:
    digest, block = hashlib.sha256(), 2**20
    for start in range(0, size, block):
        digest.update(file.read(min(block, size - start)))
    return digest.hexdigest().encode()
