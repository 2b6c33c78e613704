"""Sweeps: a function of parameters at every point of a grid, as one dataset with the parameters as dimensions."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from neurodyn.checks import file_path, flag, needed, one_of, whole
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.labelled import xr
from neurodyn.progress import Bar
from neurodyn.randomness import RandomStream
from neurodyn.simulation.blocks import AtOnce, Failure, Part, Point, Work
from neurodyn.simulation.digest import digest
from neurodyn.simulation.executors import Scheduler, shares_process
from neurodyn.simulation.fingerprint import of_function, versions_of_all
from neurodyn.simulation.grid import Grid, text
from neurodyn.simulation.side_by_side import COMPUTED, ERROR, POINTS, agreed, joined, refuse_other, spread, with_facts
from neurodyn.simulation.trajectory import versions

if TYPE_CHECKING:
    from neurodyn.simulation.sweep_store import SweepStore

_BLOCKS = 256
"""How many blocks a sweep is cut into, unless one says otherwise, where it has as many points."""
_AT_ONCE = 1_000, 10_000
"""How many networks run at once, at least and at most: to begin takes its time, and each takes memory."""


def sweep(
    point: Point,
    grid: Mapping[str, Iterable[Any]],
    *,
    at_once: AtOnce = None,
    scheduler: Any = None,
    progress: bool | None = None,
    store: str | os.PathLike[str] | None = None,
    block: int | None = None,
    on_error: Literal["raise", "record"] = "raise",
    share: tuple[int, int] | None = None,
) -> xr.Dataset:
    """Call a function at every point of a grid, and put the results side by side.

    With `store`, the results go to disk block by block, and no process holds more than one block: what is interrupted,
    however that happens, goes on from the blocks that are done as the same call is made again.

    Parameters
    ----------
    point
        A function of the grid's parameters, by name. It returns an `xarray.Dataset`, or a mapping of names to numbers,
        or to pairs (dimensions, array); of the same variables, dimensions and coordinates at every point. With
        `at_once`, it returns the network of that point. Random numbers that it draws from the generators of PyTorch,
        NumPy and Python depend on the point alone; where threads would share these, drawing is refused.
    grid
        The values of each parameter: numbers, text or booleans, all of one kind and each once.
    at_once
        A function that runs the networks of a block together, and returns a dataset with a dimension `network`, such
        as `lambda networks: nd.simulate(networks, inputs, targets, duration=10.0)`. Or True: then `point` takes a
        block's values, each parameter's as a tensor of shape (network,), text as a list, and returns as much with a
        dimension `network`; a tensor of that shape alone will do.
    scheduler
        What runs the blocks: None or "synchronous" one after the other; "threads" or "processes" on this machine, as
        many as Dask's configuration says (`num_workers`) or there are processors; "distributed", the running
        `dask.distributed` cluster, or the `Client` of one; or an executor with a method `submit`, as those of
        `concurrent.futures` have.
    progress
        Whether to show a bar, or in a log file a line every ten seconds, of a sweep over two seconds; by default on a
        terminal only.
    store
        A Zarr store (`….zarr`) for the results. Where it holds the same sweep, by a fingerprint of the grid, the
        functions with what they read, and the versions, what is missing is added; where it holds anything else, that
        is refused. Its numbers are floats, NaN where nothing has been computed; a variable `computed` tells where.
    block
        How many points a block has at most: one task, and one chunk of the store. By default, a 256th of all; with
        `at_once`, a hundredth, 1,000 at least and 10,000 at most, and all of them without `store` and `scheduler`.
    on_error
        Whether an error at a point is raised, after the blocks that run have been kept; or recorded, as text in a
        variable `error`, where NaN is the result, and the sweep goes on.
    share
        (i, n) for the i-th of n jobs, counted from 0, which divide the blocks among themselves; they write one store.

    Returns
    -------
    xarray.Dataset
        With the parameters as the first dimensions, in the order of the grid, and their values as coordinates. What a
        result's attributes say (`solver`, `converged`, `residual`, …) stays an attribute where it is the same at every
        point, and is a variable over the grid where it differs, called `<name>_of_run` where the name is taken. With
        `store`, it is the store's, read as it is used, in which all that a result says is over the grid, and variables
        keep `units` and `long_name`.

    Raises
    ------
    ValueError
        If the grid is empty; a parameter has no values, one twice, NaN, or values of several kinds; a parameter's name
        is a dimension of a result; variables, dimensions, coordinates or units differ between points; the scheduler is
        unknown; `at_once` returns a dataset without the networks' dimension; or the store is that of another sweep.
    TypeError
        If a value of a parameter is neither number nor text nor boolean, `point` returns neither a dataset nor a
        mapping, or with `at_once` no network, or `at_once` no dataset.
    FileExistsError
        If the store is something else, or another run writes the same share of it.
    OSError
        If the store cannot be written; the blocks that are done are kept.
    MemoryError
        If memory cannot hold a block.
    RuntimeError
        If processes that run blocks are killed again and again.
    Exception
        What `point` raises, with a note that says at which point.

    Examples
    --------
    >>> import neurodyn as nd
    >>> def end(tau):
    ...     net = nd.Network("leak", [nd.Population("x", 1, tau=tau, initial=1.0)])
    ...     return nd.simulate(net, None, duration=1.0, save_at=2).isel(time=-1)
    >>> nd.sweep(end, {"tau": [1.0, 2.0]}).x.values.ravel().astype(float).round(3).tolist()
    [0.368, 0.607]
    """
    for what, function in (("point", point), ("at_once", at_once)):
        if not callable(function) and not (what == "at_once" and (function is None or function is True)):
            raise InvalidTypeError(f"{what}: a function, not a {type(function).__name__}")
    if progress is not None:
        flag("progress", progress)
    one_of("on_error", on_error, ("raise", "record"))
    if block is not None:
        block = whole("block", block, least=1)
    path = None if store is None else _store_path(store)
    part = (0, 1) if share is None else _share(share)
    if share is not None and path is None:
        raise InvalidValueError("share: jobs that share a sweep write one store; give store=")
    runs: Scheduler[Any] = Scheduler(scheduler)
    if runs.threads and RandomStream.in_use():
        raise InvalidValueError("scheduler: within a point of another sweep there are no threads; leave it out")
    points = Grid(grid)
    for name in points.values:
        if name in ([COMPUTED] if path is not None else []) + ([ERROR] if on_error == "record" else []):
            raise InvalidValueError(f"grid: the sweep adds a variable {name!r} of its own; rename the parameter")
    _refuse_signature("point", point, points.values)
    if callable(at_once):
        _refuse_signature("at_once", at_once, None)
    if block is None and at_once is None:
        block = -(-points.size // _BLOCKS)
    elif block is None and not (path is None and runs.here):
        block = min(max(points.size // 100, _AT_ONCE[0]), _AT_ONCE[1])
    work = Work(point, at_once, Grid(points.values, block), on_error == "record")
    bar = Bar(total=points.size, unit="point", desc="sweep", wanted=progress)
    with bar:
        if path is None:
            return _in_memory(work, runs, bar)
        return _stored(work, runs, bar, path, part)


def _store_path(store: str | os.PathLike[str]) -> Path:
    path = Path(os.path.abspath(file_path("store", store)))
    if path.suffix != ".zarr" or "\0" in str(path):
        raise InvalidValueError(f"store must end in .zarr, not {path.name!r}")
    needed("zarr", extra="zarr")
    needed("dask.array", extra="zarr")
    return path


def _refuse_signature(what: str, function: Callable[..., Any], parameters: Iterable[str] | None) -> None:
    """Refuse a function that cannot be called with the parameters by name; or, where there are none, with one list."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # as some that are not written in Python have none
        return
    try:
        signature.bind(*([[]] if parameters is None else []), **dict.fromkeys(parameters or ()))
    except TypeError as error:
        given = "a list of networks" if parameters is None else f"{', '.join(parameters)} by name"
        raise InvalidTypeError(f"{what}: it is called with {given}, and that does not fit: {error}") from error


def _share(share: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(share, (tuple, list)) or len(share) != 2:
        raise InvalidTypeError(f"share is a pair (i, n), the i-th of n jobs, not {share!r}")
    i, n = whole("share: i", share[0], least=0), whole("share: n", share[1], least=1)
    if i >= n:
        raise InvalidValueError(f"share: of {n} jobs, the last one is ({n - 1}, {n}), not {share!r}")
    return i, n


@dataclass(frozen=True)
class _Task:
    """What a worker does with the number of a block."""

    work: Work
    shared: bool
    store: Path | None = None
    form: xr.Dataset | None = None

    def __call__(self, number: int) -> tuple[int, Part | Failure | None]:
        """Return what came of a block; None where that is in the store."""
        block, store = self.work.grid.block(number), self._open()
        shared = self.shared or shares_process()
        part = self.work.do(block, shared=shared, form=self.form if store is None else store.form)
        if store is None or isinstance(part, Failure):
            return number, part
        try:
            store.write(block, part)
        except Exception as error:
            where = next(self.work.grid.points(block))
            return number, Failure(f"the block from {text(where)} on", error)
        return number, None

    def _open(self) -> SweepStore | None:
        if self.store is None:
            return None
        from neurodyn.simulation.sweep_store import opened

        return opened(self.store, self.work.grid)


def _in_memory(work: Work, runs: Scheduler[Any], bar: Bar) -> xr.Dataset:
    parts: dict[int, Part] = {}
    for number, part in _parts(_Task(work, runs.threads), runs, range(work.grid.blocks)):
        parts[number] = part
        bar.update(work.grid.block(number).points)
    present = [number for number in sorted(parts) if parts[number].data is not None]
    if not present:
        raise _all_failed(work, parts[0])
    first = present[0]
    form = _form(parts[first])
    unlike: list[int] = []
    for number in present[1:]:
        try:
            refuse_other(form, _form(parts[number]), _beginning(work, number), _beginning(work, first))
        except InvalidValueError:
            if not work.records:
                raise
            unlike.append(number)  # it is compared within itself alone, and what is wrong there depends on the first
    parts |= dict(_parts(_Task(work, runs.threads, form=form), runs, unlike))
    return _over_grid(work, [parts[number] for number in range(work.grid.blocks)], parts[first])


def _form(part: Part) -> xr.Dataset:
    """Return what the result of a point is like."""
    assert part.data is not None
    return part.data.isel({POINTS: 0}, drop=True)


def _parts(task: _Task, runs: Scheduler[Any], numbers: Sequence[int]) -> Iterator[tuple[int, Part]]:
    with closing(runs.map(task, numbers)) as done:
        for number, part in done:
            if isinstance(part, Failure):
                raise part.raised()
            yield number, part


def _over_grid(work: Work, parts: Sequence[Part], first: Part) -> xr.Dataset:
    """Return what came of all blocks as one dataset, whose variables are those of the first block that has any."""
    grid, form = work.grid, first.data
    assert form is not None
    datas = [
        _nothing_like(form, grid.block(number).points) if part.data is None else part.data
        for number, part in enumerate(parts)
    ]
    order = grid.order()
    variables: dict[Any, Any] = {}
    for name, variable in form.data_vars.items():
        values = joined(str(name), [data[name].to_numpy() for data in datas])[order]
        variables[name] = (variable.dims, values, agreed([data[name].attrs for data in datas]))
    if work.records:
        _refuse_taken(form, ERROR)
        told = np.array([error for part in parts for error in part.errors or ()])
        variables[ERROR] = (POINTS, told[order], {"long_name": "what went wrong at this point"})
    attributes = [each for part in parts for each in part.attributes]
    points = [where for number in range(grid.blocks) for where in grid.points(grid.block(number))]
    flat = with_facts(
        xr.Dataset(variables, form.coords), [attributes[place] for place in order], [points[place] for place in order]
    )
    sizes = tuple(grid.sizes.values())
    over = {
        name: ((*grid.sizes, *each.dims[1:]), each.to_numpy().reshape(*sizes, *each.shape[1:]), each.attrs)
        for name, each in flat.data_vars.items()
    }
    return xr.Dataset(over, {**grid.coordinates(), **form.coords}, flat.attrs)


def _nothing_like(form: xr.Dataset, points: int) -> xr.Dataset:
    """Return a block all of whose points failed."""
    nothing = {
        name: (variable.dims, spread(str(name), variable.to_numpy()[:0], np.zeros(points, bool)), variable.attrs)
        for name, variable in form.data_vars.items()
    }
    return xr.Dataset(nothing, form.coords)


def _stored(work: Work, runs: Scheduler[Any], bar: Bar, path: Path, share: tuple[int, int]) -> xr.Dataset:
    from neurodyn.simulation.sweep_store import SweepStore, creating, sharing

    fingerprint = _fingerprint(work)
    with sharing(path, share):
        if not path.exists():
            with creating(path):
                if not path.exists():
                    _create(work, runs, path, fingerprint)
        store = SweepStore(path, work.grid)
        store.refuse_other(fingerprint)
        if share == (0, 1):
            store.clear()
        own = range(share[0], work.grid.blocks, share[1])
        missing = [number for number in store.missing if number in own]
        bar.reset(sum(work.grid.block(number).points for number in missing))
        with closing(runs.map(_Task(work, runs.threads, path), missing)) as done:
            for number, part in done:
                if isinstance(part, Failure):
                    raise part.raised(f"; the blocks that are done are kept in {path}")
                bar.update(work.grid.block(number).points)
    return store.dataset()


def _create(work: Work, runs: Scheduler[Any], path: Path, fingerprint: dict[str, str | None]) -> None:
    """Make the store, with the first block at whose points something came out."""
    from neurodyn.simulation.sweep_store import SweepStore

    parts: dict[int, Part] = {}
    while not any(part.data is not None for part in parts.values()):
        if len(parts) == work.grid.blocks:
            raise _all_failed(work, parts[0])
        more = range(len(parts), min(2 * len(parts) + 1, work.grid.blocks))
        parts |= dict(_parts(_Task(work, runs.threads), runs, more))
    number, part = next((number, part) for number, part in sorted(parts.items()) if part.data is not None)
    assert part.data is not None
    if runs.here:  # what the points themselves change, such as a count of calls, is not what they depend on
        now = _fingerprint(work)
        fingerprint |= {what: None for what in fingerprint if now[what] != fingerprint[what]}
    if work.records:
        _refuse_taken(part.data, ERROR)
    _refuse_taken(part.data, COMPUTED)
    SweepStore.create(path, work.grid, part, fingerprint, alone=work.at_once is None)
    SweepStore(path, work.grid).write(work.grid.block(number), part)


def _fingerprint(work: Work) -> dict[str, str | None]:
    """Return what the results depend on, as digests by what they are of."""
    parts: dict[str, str | None] = {  # as a refusal names the first that differs, what changes others comes before them
        "the version of neurodyn, PyTorch, NumPy or Python": f"{versions_of_all()}, {versions()['neurodyn_version']}",
        "the grid": digest(work.grid.coordinates()),
        **of_function("point", work.point),
        "at_once": str(work.at_once),
    }
    if callable(work.at_once):
        parts |= of_function("at_once", work.at_once)
    return {**parts, "block": str(work.grid.chunks), "on_error": str(work.records)}


def _refuse_taken(data: xr.Dataset, name: str) -> None:
    if name in data.variables or name in data.dims:
        raise InvalidValueError(f"sweep: the result has a variable {name!r}, which the sweep adds; rename it")


def _beginning(work: Work, number: int) -> str:
    return f"at {text(next(work.grid.points(work.grid.block(number))))}"


def _all_failed(work: Work, part: Part) -> InvalidValueError:
    return InvalidValueError(f"sweep: every point failed; {_beginning(work, 0)}: {(part.errors or [''])[0]}")
