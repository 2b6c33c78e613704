"""A trajectory on its way to a Zarr store, and what it is gone on from where the run has been interrupted.

The store grows under a temporary name, a part after the other, each of whole chunks. After each part, a file beside it
says where the run stood, and what had been written by then; whatever comes later is cut off as the run goes on.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import zarr
from torch import Tensor

from neurodyn.checks import needed
from neurodyn.errors import DivergenceError, ExistingFileError, InvalidValueError
from neurodyn.labelled import xr
from neurodyn.randomness import generators
from neurodyn.simulation.encoding import CHUNK_BYTES
from neurodyn.simulation.fingerprint import UNTIL, refuse_other
from neurodyn.simulation.growing import Growing
from neurodyn.simulation.partial import Partial, remove, sync, system_errors
from neurodyn.simulation.states import StateFile
from neurodyn.simulation.stores import (
    Fingerprints,
    encoding_of,
    read_store,
    refuse_damage,
    run_of,
    seal,
    to_zarr,
    unsealed,
)

_CONTENT: dict[str, type | tuple[type, ...]] = {
    "run": dict,
    "random": list,
    "variables": list,
    "times": int,
    "files": dict,
    "solver": (dict, type(None)),
    "recorded": int,
    "part": int,
    "until": (dict, type(None)),
}
"""What the state of a run holds."""


class ZarrStream:
    """A Zarr store that grows along `time` under a temporary name, and takes its own name when it is closed.

    Within `with`, it is this run's alone. A run that fails leaves what it has written and where it stood, if it has
    come that far, unless it has diverged.

    Parameters
    ----------
    path
        The store; must end in `.zarr`, and not exist but to `resume`.
    resume
        Whether to go on from where an interrupted run stood, if there is one.

    Raises
    ------
    ValueError
        If the name does not end in `.zarr`, or the interrupted run's state is damaged.
    FileExistsError
        If it exists, or another run is writing it.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        needed("dask.array", extra="zarr")  # to read what has been written, in the end
        if path.suffix != ".zarr":
            raise InvalidValueError(
                f"store must end in .zarr, not {path.name!r}: only Zarr can grow while a run goes on"
            )
        if path.exists() and not resume:
            raise ExistingFileError(f"store {path} exists; remove it or choose another name")
        self._path, self._resume = path, resume
        self._run: Mapping[str, str | None] = {}
        self._variables: list[Hashable] = []
        self._complete: Fingerprints = {}
        self._growing: dict[Hashable, Growing] = {}
        self.times = 0
        """How many times have been handed over."""
        self._begun = False
        self._writing: list[Future[None]] = []

    def __enter__(self) -> ZarrStream:
        with self._named_errors():
            try:
                self._partial = Partial(self._path, lasting=True)
            except BlockingIOError as error:
                raise self._contested() from error
        try:
            if self._partial.contested:
                raise self._contested()
            self.complete = self._path.exists()
            """Whether the run has ended already."""
            remedy = "leave out resume= to begin anew"
            self._file = StateFile(self._partial.beside(".pt"), "run", 1, _CONTENT, remedy)
            self.kept: dict[str, Any] | None = None
            """Where an interrupted run stood that is gone on with, as `append` was told; None for a new one."""
            if self._resume and not self.complete and self._file.path.exists():
                self.kept = self._file.load()
            self._random = generators() if self.kept is None else self.kept["random"]
            self._writer = ThreadPoolExecutor(1)
        except BaseException:
            self._partial.leave()
            raise
        return self

    def _contested(self) -> ExistingFileError:
        return ExistingFileError(f"store {self._path} is being written by another run; choose another name")

    @property
    def random(self) -> Sequence[Tensor] | None:
        """What the generators of random numbers were as the interrupted run began; None for a new one."""
        return None if self.kept is None else self._random

    def refuse_other(self, run: Mapping[str, str | None]) -> None:
        """Refuse to go on with, or to return, what is another run.

        Raises
        ------
        FileExistsError
            If the store is something else.
        ValueError
            If it is another run; the message says in what it differs.
        """
        self._run = run
        theirs: Mapping[str, str | None] | None = None if self.kept is None else self.kept["run"]
        if self.complete:
            theirs = run_of(self._path)
            if theirs is None:
                raise ExistingFileError(
                    f"store {self._path} exists, and holds no run that simulate has streamed; choose another name"
                )
        if theirs is not None:
            free = {} if self.complete else {UNTIL: None}
            refuse_other(self._path, "run", theirs, {**run, **free})

    def begin(self) -> Mapping[str, Any] | None:
        """Return where to go on from, with the store as it was there; None to begin, with no store."""
        with self._named_errors():
            self._begun = True
            if self.kept is None:
                remove(self._partial.path)
                remove(self._file.path)
                return None
            folder = self._partial.path
            self._variables, self.times = self.kept["variables"], self.kept["times"]
            self._complete = self.kept["files"]
            for file in folder.rglob("*.partial"):  # as they are left where it is killed
                file.unlink()
            refuse_damage(folder, self._complete)
            unsealed(folder)
            for array in self._arrays():
                along = (array.shards or array.chunks)[0]
                for place in Path(folder, array.name.strip("/"), "c").iterdir():
                    if int(place.name) * along >= self.times:
                        remove(place)
                array.resize((self.times, *array.shape[1:]))
            return self.kept

    def _arrays(self) -> Iterator[zarr.Array[Any]]:
        """Iterate over what grows."""
        for name in self._variables:
            array = zarr.open_array(self._partial.path, path=str(name), mode="r+")
            if (array.metadata.dimension_names or [None])[0] == "time":  # type: ignore[union-attr]
                yield array

    def _named_errors(self) -> AbstractContextManager[None]:
        return system_errors(f"could not write store {self._path}")

    def append(self, part: xr.Dataset, kept: Mapping[str, Any] | None) -> None:
        """Write the next part along `time`, all but the last as long as the first, at most `SHARD_CHUNKS` chunks.

        It is written while the caller goes on, who must leave it as it is until the next call returns.

        Parameters
        ----------
        part
            The part.
        kept
            From where the run goes on if it is interrupted, which will not change; None for the last part.
        """
        with self._named_errors():
            self._finish()
            self.times += part.sizes["time"]
            self._writing.append(self._writer.submit(self._append, part, kept, self.times))

    def _finish(self) -> None:
        while self._writing:
            self._writing.pop().result()

    def _append(self, part: xr.Dataset, kept: Mapping[str, Any] | None, times: int) -> None:
        self._grow(part, times)
        if kept is not None:
            written = {"variables": self._variables, "times": times, "files": self._complete}
            self._file.save({"run": dict(self._run), "random": self._random, **written, **kept})

    def _grow(self, part: xr.Dataset, times: int) -> None:
        if not self._variables:
            self._create(part)
        for name, variable in part.variables.items():
            if variable.dims[:1] != ("time",):
                continue
            if name not in self._growing:
                self._growing[name] = Growing(self._partial.path, str(name), times - part.sizes["time"])
            written = self._growing[name].append(variable.to_numpy())
            if name in part.data_vars:  # what labels a dimension is still added to; what holds activity is whole
                self._complete |= written

    def _create(self, part: xr.Dataset) -> None:
        """Write all of a part that does not grow."""
        folder = self._partial.path
        encoding = encoding_of(part)
        encoding["time"]["chunks"] = (CHUNK_BYTES // part["time"].dtype.itemsize,)  # many parts fit into one
        to_zarr(part.isel(time=slice(0)), folder, mode="w", encoding=encoding)
        sync(folder)
        self._variables = [str(name) for name in part.variables]

    def close(self, attributes: Mapping[str, Any]) -> xr.Dataset:
        """Add the attributes, move the store to its name and reopen it; a complete one is as it is."""
        if self.complete:
            return read_store(self._path)
        with self._named_errors():
            self._finish()
            for array in self._arrays():
                array.resize((self.times, *array.shape[1:]))
            seal(self._partial.path, self._variables, self._complete, attributes, self._run)
            self._partial.commit()
            remove(self._file.path)
        return read_store(self._path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wait(self._writing)
        self._writer.shutdown()
        if error is None and not self.complete:
            return
        kept = not self.complete and self._file.path.exists()
        if kept and self._begun and isinstance(error, DivergenceError):
            kept = False  # as it would again
        if not kept:
            remove(self._file.path)
            self._partial.discard()
            return
        if error is not None and self._begun:
            error.add_note(f"simulate: what was written of {self._path} is kept, and resume=True goes on from there")
        self._partial.leave()
