"""The store of a sweep: written block by block by any number of processes, and gone on with after a crash.

The template comes first: every variable over the grid, without values. A block is one chunk of each variable along the
parameters; it is written by its region, and then marked in the variable `computed`. What has no mark has to be done.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from neurodyn.checks import needed
from neurodyn.errors import ExistingFileError, InvalidTypeError, InvalidValueError
from neurodyn.labelled import xr
from neurodyn.simulation.blocks import Part
from neurodyn.simulation.encoding import CHUNK_BYTES
from neurodyn.simulation.files import storable
from neurodyn.simulation.fingerprint import refuse_other
from neurodyn.simulation.grid import Block, Grid
from neurodyn.simulation.partial import Lock, replacing, sync, system_errors
from neurodyn.simulation.side_by_side import COMPUTED, ERROR, Attributes, alike, fact_name, refuse_rounding, spread
from neurodyn.simulation.stores import consolidate, read_store, to_zarr
from neurodyn.simulation.trajectory import versions

_ABOUT = "neurodyn_sweep"
"""The attribute that makes a store that of a sweep."""
_TEXT = np.dtype("O", metadata={"element_type": str})  # as xarray knows text of any length
_OF_ALL = ("diagram", "equations", "inference_not_run")
"""What a run of several networks says of all of them."""
_PAUSE = 0.1
_SHARE = re.compile(r"\.(.+)\.share-(\d+)-of-(\d+)\.lock")


class SweepStore:
    """A sweep over a grid in a Zarr store that exists.

    Raises
    ------
    FileExistsError
        If it is something else.
    """

    def __init__(self, path: Path, grid: Grid) -> None:
        self._path, self._grid = path, grid
        try:
            about = json.loads((path / "zarr.json").read_bytes())["attributes"][_ABOUT]
            self._about: dict[str, Any] = json.loads(about)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ExistingFileError(f"store {path} exists, and holds no sweep; choose another name") from error

    @classmethod
    def create(cls, path: Path, grid: Grid, part: Part, fingerprint: Mapping[str, str | None], *, alone: bool) -> None:
        """Make a store whose variables are those of a first block.

        Parameters
        ----------
        path
            The store, which does not exist.
        grid
            The grid.
        part
            What came of the first block.
        fingerprint
            What the sweep depends on.
        alone
            Whether each point is a run of its own, whose texts are kept.
        """
        assert part.data is not None
        attributes = next(each for each in part.attributes if each is not None)
        # What many at once say of themselves in text is the same in all blocks, or the values would depend on these.
        constant = {
            name: value
            for name, value in attributes.items()
            if name in versions() or not (alone or name in _OF_ALL or isinstance(value, (int, float)))
        }
        facts = {
            name: fact_name(name, part.data, grid.values)
            for name in attributes
            if name not in constant and (alone or name not in _OF_ALL)
        }
        da = needed("dask.array", extra="zarr")
        variables: dict[str, xr.Variable] = {}
        encoding: dict[str, Any] = {}

        def add(name: str, dims: Sequence[Any], sizes: Sequence[int], dtype: np.dtype[Any], **attrs: Any) -> None:
            kind, fill = (dtype, False) if name == COMPUTED else _kind_of(dtype)
            own = _own_chunks(sizes, kind.itemsize * math.prod(grid.chunks.values()))
            chunks = (*grid.chunks.values(), *own)
            whole = (*grid.sizes.values(), *sizes)
            values = da.full(whole, fill, chunks=chunks, dtype=kind)
            variables[name] = xr.Variable((*grid.sizes, *dims), values, attrs)
            encoding[name] = {"chunks": chunks, "compressors": [ZstdCodec(), Crc32cCodec()]}

        for name, variable in part.data.data_vars.items():
            known = {key: variable.attrs[key] for key in ("units", "long_name") if key in variable.attrs}
            add(str(name), variable.dims[1:], variable.shape[1:], variable.dtype, **known)
        for name, called in facts.items():
            add(called, (), (), _kind_of_fact(name, attributes[name]))
        if part.errors is not None:
            add(ERROR, (), (), _TEXT, long_name="what went wrong at this point")
        add(COMPUTED, (), (), np.dtype(bool), long_name="whether this point has been computed")
        added = [COMPUTED] if part.errors is None else [COMPUTED, ERROR]
        about = {"facts": facts, "constant": list(constant), "added": added, "fingerprint": dict(fingerprint)}
        described = {name: xr.Variable((), 0.0, variable.attrs) for name, variable in variables.items()}
        template = xr.Dataset(
            described, {**part.data.coords, **grid.coordinates()}, {**constant, _ABOUT: json.dumps(about)}
        )
        template = storable(template).assign(variables)
        with replacing(path) as partial:
            to_zarr(template, partial, mode="w-", compute=False, encoding=encoding)
            consolidate(partial, template.variables)

    def refuse_other(self, fingerprint: Mapping[str, str | None]) -> None:
        """Refuse to go on with what is another sweep."""
        refuse_other(self._path, "sweep", self._about["fingerprint"], fingerprint)

    @cached_property
    def form(self) -> xr.Dataset:
        """What the result of a point is like."""
        data = read_store(self._path).drop_vars([*self._about["added"], *self._about["facts"].values()])
        return data.isel(dict.fromkeys(self._grid.values, 0), drop=True)

    def clear(self) -> None:
        """Remove what killed processes have begun to write; no other may be writing."""
        for file in self._path.rglob("*.partial"):
            file.unlink()

    @property
    def missing(self) -> list[int]:
        """The blocks that are to be done."""
        computed = zarr.open_array(self._path / COMPUTED, mode="r")
        places = tuple(slice(None, None, length) for length in self._grid.chunks.values())
        return np.flatnonzero(np.asarray(computed[places]) == 0).tolist()  # which some releases of xarray keep as bytes

    def write(self, block: Block, part: Part) -> None:
        """Write what came of a block, and then its mark.

        Raises
        ------
        TypeError, ValueError
            If it does not fit into the variables of the store.
        OSError
            If the disk is full, say; the blocks written before stay.
        """
        variables: dict[Any, Any] = {}
        for name, variable in self.form.data_vars.items():
            dims = (*block.region, *variable.dims)
            whole = (*block.sizes, *variable.shape)
            kind, fill = _kind_of(variable.dtype)
            if part.data is None:
                variables[name] = (dims, np.full(whole, fill, kind))
                continue
            values = part.data[name].to_numpy()
            if part.errors is None:
                values = spread(str(name), values, np.ones(block.points, bool))
            if not np.can_cast(values.dtype, kind):
                raise InvalidValueError(
                    f"sweep: {name!r} is {values.dtype} here, and {kind} in the store; return the same kind everywhere"
                )
            variables[name] = (dims, values.astype(kind).reshape(whole))
        for name, values in self._facts(part).items():
            variables[name] = (tuple(block.region), values.reshape(block.sizes))
        if part.errors is not None:
            variables[ERROR] = (tuple(block.region), np.array(part.errors, object).reshape(block.sizes))
        with system_errors(
            f"could not write to store {self._path}; the blocks that are done are kept: make room, and run it again"
        ):
            to_zarr(xr.Dataset(variables), self._path, region=dict(block.region), safe_chunks=True, mode="r+")
            for name, (_, values) in variables.items():
                if values.size:  # else it has no chunks
                    sync(self._chunks(str(name), block))
            computed = zarr.open_array(self._path / COMPUTED, mode="r+")
            computed[tuple(block.region.values())] = True

    def _chunks(self, name: str, block: Block) -> Path:
        along = [
            place.start // length
            for place, length in zip(block.region.values(), self._grid.chunks.values(), strict=True)
        ]
        return self._path.joinpath(name, "c", *map(str, along))

    def _facts(self, part: Part) -> dict[str, NDArray[Any]]:
        facts: dict[str, str] = self._about["facts"]
        constant = {name: self.form.attrs.get(name) for name in self._about["constant"]}
        runs: list[Attributes] = []
        points: list[int] = []
        for each in part.attributes:  # those that ran at once have theirs in common
            if not (runs and runs[-1] is each):
                runs.append(each)
                points.append(0)
            points[-1] += 1
        for run in runs:
            if run is not None:
                self._refuse_facts(run, constant)
        said = {name: [None if run is None else run.get(name) for run in runs] for name in facts}
        return {
            called: np.repeat(_array_of(name, self._kinds[called], said[name]), points)
            for name, called in facts.items()
        }

    @cached_property
    def _kinds(self) -> dict[Hashable, np.dtype[Any]]:
        return {name: variable.dtype for name, variable in read_store(self._path).data_vars.items()}

    def _refuse_facts(self, run: Mapping[Any, Any], constant: Mapping[str, Any]) -> None:
        for name, value in constant.items():
            if not alike(run.get(name), value):
                raise InvalidValueError(
                    f"sweep: {name!r} is {run.get(name)!r} in this block, and {value!r} in the first: results would "
                    "depend on what runs together; say what is to be done, such as solver="
                )
        if unknown := [name for name in run if name not in {*self._about["facts"], *constant, *_OF_ALL}]:
            raise InvalidValueError(
                f"sweep: a result has an attribute {unknown[0]!r}, which those of the first block had not; make it a "
                "variable, or give it to all"
            )

    def dataset(self) -> xr.Dataset:
        """Return what there is, read chunk by chunk as it is used."""
        data = read_store(self._path)
        del data.attrs[_ABOUT]
        return data


def opened(path: Path, grid: Grid) -> SweepStore:
    """Return the sweep in a store, which a process opens once, and not for every block."""
    return _opened(path, grid, (path / "zarr.json").stat().st_mtime_ns)


@lru_cache(1)
def _opened(path: Path, grid: Grid, changed: int) -> SweepStore:
    return SweepStore(path, grid)


@contextmanager
def creating(path: Path) -> Iterator[None]:
    """Be the only process that makes a store; others wait until it is there."""
    while True:
        try:
            lock = Lock(path.with_name(f".{path.stem}.create.lock"))
            break
        except BlockingIOError:
            time.sleep(_PAUSE)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def sharing(path: Path, share: tuple[int, int]) -> Iterator[None]:
    """Hold a share of a sweep.

    Raises
    ------
    FileExistsError
        If a living run holds it, or another one that has blocks of it.
    """
    own, of = share
    with ExitStack() as stack, system_errors(f"could not write store {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = Lock(path.with_name(f".{path.stem}.share-{own}-of-{of}.lock"))
        except BlockingIOError as error:
            raise _refused(path, share) from error
        stack.callback(lock.release)
        for file in path.parent.iterdir():
            match = _SHARE.fullmatch(file.name)
            if match is None or match[1] != path.stem:
                continue
            other = int(match[2]), int(match[3])
            if other == share or (other[0] - own) % math.gcd(other[1], of):
                continue
            try:
                Lock(file).release()
            except BlockingIOError as error:
                raise _refused(path, other) from error
        yield


def _refused(path: Path, share: tuple[int, int]) -> ExistingFileError:
    return ExistingFileError(
        f"store {path} is being written by another run, with share={share}; wait until it ends, or take another share"
    )


def _kind_of(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], Any]:
    """Return what a store holds values as, and what stands where there are none."""
    if dtype.kind in "OSTU":
        return _TEXT, ""
    return (dtype if dtype.kind in "fc" else np.dtype(np.float64)), np.nan


def _kind_of_fact(name: str, value: Any) -> np.dtype[Any]:
    """Return what a store holds an attribute of results as, each a number or each a text."""
    if isinstance(value, str):
        return _TEXT
    if isinstance(value, (bool, int, float, np.number, np.bool_)):
        return np.dtype(np.float64)
    raise InvalidTypeError(
        f"sweep: the attribute {name!r} of a result is {value!r}, neither a number nor a text; with store=, make it a "
        "variable"
    )


def _array_of(name: str, kind: np.dtype[Any], fact: Sequence[Any]) -> NDArray[Any]:
    """Return what attributes say as a store holds it, NaN or no text where one says nothing."""
    text = kind.kind in "OSTU"
    for each in fact:
        if each is not None and (_kind_of_fact(name, each) == _TEXT) != text:
            raise InvalidTypeError(
                f"sweep: the attribute {name!r} is {each!r} here, and a {'text' if text else 'number'} at the first "
                "point; give all points the same kind"
            )
    if text:
        return np.array(["" if each is None else each for each in fact], object)
    refuse_rounding(name, np.array([each for each in fact if isinstance(each, (int, np.integer))], object))
    return np.array([np.nan if each is None else float(each) for each in fact])


def _own_chunks(sizes: Sequence[int], row: int) -> tuple[int, ...]:
    """Return the lengths of chunks along the dimensions of a result, of which one of length 1 takes `row` bytes."""
    lengths = list(sizes)
    for axis in range(len(lengths)):
        others = row * math.prod(length for place, length in enumerate(lengths) if place != axis)
        lengths[axis] = max(1, min(lengths[axis], 8 * CHUNK_BYTES // max(1, others)))
    return tuple(lengths)
