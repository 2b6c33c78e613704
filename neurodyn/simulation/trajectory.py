"""A trajectory: what a run records, as a labelled xarray dataset, in memory or streamed to Zarr."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from importlib.metadata import version
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurodyn.labelled import xr
from neurodyn.layers.kernels import kernels_in_use
from neurodyn.network.axes import unit_dims
from neurodyn.network.network import Network
from neurodyn.network.sketch import sketch
from neurodyn.network.vectors import text_of
from neurodyn.simulation.apart import apart, facts
from neurodyn.simulation.chosen import Chosen
from neurodyn.simulation.encoding import CHUNK_BYTES, SHARD_CHUNKS
from neurodyn.simulation.memory import refuse_too_large
from neurodyn.simulation.watched import Lasting
from neurodyn.solvers.base import Kept, Report, Solver, Until, Write
from neurodyn.solvers.fixed import FixedStep
from neurodyn.system.state import State
from neurodyn.system.system import System

if TYPE_CHECKING:
    from neurodyn.simulation.stream import ZarrStream

_AXIS_NAMES = {"unit": "unit", "channel": "channel", "row": "row of units", "column": "column of units"}
_ALONG = {
    "time": {"units": "tau", "long_name": "time"},
    "step": {"units": "1", "long_name": "step of discrete inference"},
}
_SAMPLE = {"units": "1", "long_name": "sample of the batch"}
_HELD_BYTES = 8 * 2**20
"""How much of a streamed trajectory is held in memory as it is computed, and as much as it is written; encoding takes a
chunk more."""
_TIME_BYTES = 48
"""What a time takes in memory: in the array, and in the list that it is collected in."""
_FEW_LABELS = 10_000
"""Up to how many labels datasets are made as copies of earlier ones."""


def unit_coordinates(
    name: str, shape: Sequence[int], units: Sequence[int] | None = None
) -> dict[str, tuple[str, NDArray[Any], dict[str, str]]]:
    """Return the coordinates of a population's own dimensions, by their names; parameters as of `unit_dims`.

    Where `units` are given, they are those of these units alone.
    """
    coordinates = {}
    for dim, length in zip(unit_dims(name, shape), shape, strict=True):
        kind = dim.removeprefix(f"{name}_")
        described = {"units": "1", "long_name": f"{_AXIS_NAMES.get(kind, kind)} of {name}"}
        coordinates[dim] = (dim, np.arange(length) if units is None else np.array(units), described)
    return coordinates


class TrajectoryRecorder:
    """Collects the states that a solver saves, in memory or, with a store, in chunks streamed to Zarr.

    Parameters
    ----------
    system
        The system that runs.
    chosen
        What to record of which populations and observables.
    times
        The times to save at, or None for every step.
    expected
        How many states will come, where that is known.
    stream
        The store to stream to, or None.
    solver
        What integrates.
    until
        The stop condition.
    members
        The networks that are stacked, of which each has its part; None for one alone.
    """

    def __init__(
        self,
        system: System,
        chosen: Mapping[str, Chosen],
        times: NDArray[np.float64] | None,
        expected: int | None,
        stream: ZarrStream | None,
        solver: Solver,
        until: Until | None = None,
        members: Sequence[Network] | None = None,
    ) -> None:
        self.times, self._solver, self._members = times, solver, members
        self._system, self._chosen = system, chosen
        held = [name for name in chosen if name in system.clamped and name not in system.timeline.driven]
        self._names = [name for name in chosen if name not in held]
        # Copied, because a clamp may be the caller's own tensor.
        self._held = {name: to_numpy(chosen[name].of(system.clamped[name])).copy() for name in held}
        self._dynamic_alone = set(self._names) <= set(system.dynamic)
        sizes = [each.bytes(system) for each in chosen.values()]
        self._row = sum(chosen[name].bytes(system) for name in self._names) + _TIME_BYTES
        most = self._capacity = expected or 64
        remedy = "record= fewer populations, take fewer times by save_at=, or stream to disk with store='….zarr'"
        if stream is not None:
            # Whole chunks, so that each is written once, and as many as share a file.
            rows = max(1, min(CHUNK_BYTES // max(sizes), _HELD_BYTES // sum(sizes)))
            chunks = max(1, min(SHARD_CHUNKS, _HELD_BYTES // (rows * sum(sizes))))
            self._capacity = min(expected or rows * chunks, rows * chunks)
            most, remedy = 2 * self._capacity, "record= fewer populations, or simulate fewer samples at once"
        self._refuse_too_large(f"a trajectory of {self._capacity:,} times", most, remedy)
        self._stream, self._until = stream, until if isinstance(until, Lasting) else None
        self.resumed: Kept | None = None
        self._known: dict[str, Any] = {"solver": None, "recorded": 0, "until": None, "part": self._capacity}
        """Where the run stood, how many times had been recorded by then, and how many a part has."""
        self._passed_over = 0
        """How many times that the run comes by are in the store already."""
        kept = None if stream is None else stream.begin()
        if stream is not None and kept is not None:
            self._known = {name: kept[name] for name in self._known}
            self.resumed, self._capacity = kept["solver"], kept["part"]
            self._passed_over = stream.times - kept["recorded"]
            if self._until is not None and kept["until"] is not None:
                self._until.load(kept["until"])
        self._buffers = {name: self._buffer(name, self._capacity) for name in self._names}
        self._written: dict[str, Tensor] = {}
        """What the store is writing."""
        self._moments: list[float] = []

    def _buffer(self, name: str, capacity: int) -> Tensor:
        shape = (capacity, *self._chosen[name].size(self._system.samples))
        if self._system.device.type == "cpu":
            # NumPy asks for huge pages, which makes the first write to a large buffer several times faster.
            return torch.from_numpy(
                np.empty(shape, to_numpy(torch.empty(0, dtype=self._system.dtype, device="cpu")).dtype)
            )
        return torch.empty(shape, dtype=self._system.dtype, device=self._system.device)

    def _refuse_too_large(self, what: str, count: int, remedy: str) -> None:
        for device in {torch.device("cpu"), self._system.device}:  # a run on a device ends on the host
            refuse_too_large(what, count * self._row, remedy, device)

    def record(self, time: float, state: State, *, settled: bool = False) -> None:
        """Save a state; `settled` if the instantaneous populations are already at their activity there."""
        if not settled and self._dynamic_alone:
            self._system.confine(state)
        elif not settled:
            self._system.settle(state, time)
        if self._passed_over:
            self._passed_over -= 1
            return
        if len(self._moments) == self._capacity:
            self._make_room()
        for name in self._names:
            self._buffers[name][len(self._moments)].copy_(self._chosen[name].of(self._system.read(name, state)))
        self._moments.append(self._system.timeline.origin + time)

    def fill(self, times: NDArray[np.float64], write: Write, starts: NDArray[np.float64] | None = None) -> None:
        """Save the states at several times, in steps that start at times of `starts`, where signals drive them."""
        if not self._dynamic_alone:
            begun = None
            for number, time in enumerate(times.tolist()):
                if starts is not None and starts[number] != begun:
                    begun = float(starts[number])
                    self._system.timeline.enter(begun, idle=not self._system.instantaneous)
                state = self._system.new_state()
                write(slice(number, number + 1), slice(None), state.flat[None])
                self.record(time, state)
            return
        for given, place, chosen, block in self._parts(times):
            if chosen.whole and block.dtype == self._system.dtype:
                write(given, place, block.view(len(block), -1))
                continue
            # One by one, as memory may not hold what is reduced. NumPy lacks bfloat16.
            found = self._system.new_state().flat[None, place]
            for number, one in enumerate(block, given.start):
                write(slice(number, number + 1), place, found)
                one.copy_(chosen.of(found.view(self._system.samples, *chosen.shape)))

    def _parts(self, times: NDArray[np.float64]) -> Iterator[tuple[slice, slice, Chosen, Tensor]]:
        """Yield which of some times, and of a state's numbers, go into which room, and take up the times' moments."""
        saved = min(self._passed_over, len(times))
        self._passed_over -= saved
        while saved < len(times):
            if len(self._moments) == self._capacity:
                self._make_room()
            here = len(self._moments)
            count = min(self._capacity - here, len(times) - saved)
            for name, place in self._system.places():
                if name in self._buffers:
                    room = self._buffers[name][here : here + count]
                    yield slice(saved, saved + count), place, self._chosen[name], room
            self._moments.extend((self._system.timeline.origin + times[saved : saved + count]).tolist())
            saved += count

    @property
    def due(self) -> bool:
        """Whether the solver is to `keep` where it stands: at the end of a part, or since one ended within a step."""
        if self._stream is None or self._passed_over:
            return False
        return len(self._moments) == self._capacity or self._known["recorded"] < self._stream.times

    def keep(self, kept: Kept) -> None:
        """Take where the run stands, after what has been recorded so far."""
        assert self._stream is not None, "it is due"
        until = None if self._until is None else self._until.kept()
        recorded = self._stream.times + len(self._moments)
        self._known = {"solver": kept, "recorded": recorded, "until": until, "part": self._capacity}
        if len(self._moments) == self._capacity:
            self._make_room()

    def _make_room(self) -> None:
        if self._stream is not None:
            self._stream.append(self._dataset(), self._known)
            free = self._written or {name: self._buffer(name, self._capacity) for name in self._names}
            self._written, self._buffers = self._buffers, free
            self._moments.clear()
            return
        self._refuse_too_large(
            f"the trajectory has {len(self._moments):,} times at {self._moments[-1]:g}, and room for twice as many",
            2 * self._capacity,
            "take fewer times by save_at=, record= fewer populations, or stream to disk with store='….zarr'",
        )
        self._capacity *= 2
        for name, buffer in self._buffers.items():
            larger = self._buffer(name, self._capacity)
            larger[: len(buffer)].copy_(buffer)
            self._buffers[name] = larger

    def _dataset(self, attributes: Mapping[str, Any] | None = None) -> xr.Dataset:
        count = len(self._moments)
        values: dict[str, NDArray[Any]] = {}
        for name in self._chosen:
            if name in self._held:
                values[name] = np.broadcast_to(self._held[name], (count, *self._held[name].shape))
            else:
                values[name] = to_numpy(self._buffers[name][:count])
        found = dataset(
            self._system, values, np.array(self._moments), attributes, solver=self._solver, chosen=self._chosen
        )
        return found if self._members is None else apart(found, self._members)

    def finish(self, attributes: dict[str, Any]) -> xr.Dataset:
        """Return the trajectory, with the attributes that tell what ran; a streamed one is reopened from its store."""
        if self._stream is None:
            return self._dataset(attributes)
        if self._moments:
            self._stream.append(self._dataset(), None)
        return self._stream.close(attributes if self._members is None else facts(attributes, self._members))


def dataset(
    system: System,
    values: dict[str, NDArray[Any]],
    times: NDArray[Any] | None = None,
    attributes: Mapping[str, Any] | None = None,
    *,
    along: Literal["time", "step"] = "time",
    solver: Solver | None = None,
    chosen: Mapping[str, Chosen] = MappingProxyType({}),
) -> xr.Dataset:
    """Label the activity of populations, and observables.

    Parameters
    ----------
    system
        The system that they belong to.
    values
        What they hold by name, shape (time, sample, …), or (sample, …) where `times` is None.
    times
        The times, or the numbers of the steps, shape (time,).
    attributes
        Those of the dataset.
    along
        What `times` are.
    solver
        What integrated; each population's variable tells, and so does its step, and that of a declared inference.
    chosen
        What the values are of which populations and observables, where these are not all of them.

    Returns
    -------
    xarray.Dataset
        One variable a population, with dimensions `time` or `step`, `sample` and the population's own.
    """
    coordinates: dict[str, Any] = {}
    ahead: tuple[str, ...] = ()
    if times is not None:
        coordinates[along] = (along, times, _ALONG[along])
        ahead = (along,)
    integrated = {} if solver is None else _integration(system.network, solver)
    variables: dict[str, Any] = {}
    for name, value in values.items():
        own = chosen.get(name) or Chosen(system.shape(name))
        leading = ahead if own.reduction is not None else (*ahead, "sample")
        if own.reduction is not None and own.members > 1:
            leading = (*ahead, "network")
        if own.reduction is None:
            coordinates["sample"] = ("sample", np.arange(system.samples), _SAMPLE)
        if name in system.network.observables:
            long_name = own.described(system.network.observables[name].long_name)
            variables[name] = (leading, value, {"units": "1", "long_name": long_name})
            continue
        population, shape = system.network[name], system.shape(name)
        units = unit_coordinates(name, shape, own.units)
        coordinates.update(units)
        role = "clamped" if name in system.clamped else "instantaneous" if population.instantaneous else "dynamic"
        described = {"units": "1", "long_name": own.described(f"activity of population {name}"), "role": role}
        numbers = {"tau": population.tau, "leak": population.leak}
        paces = {what: text_of(value) if isinstance(value, Tensor) else value for what, value in numbers.items()}
        variables[name] = ((*leading, *units), value, {**described, **paces, **integrated})
    return _labelled(variables, coordinates, attributes or {})


def _labelled(
    variables: Mapping[str, tuple[tuple[str, ...], NDArray[Any], dict[str, Any]]],
    coordinates: Mapping[str, tuple[str, NDArray[Any], dict[str, str]]],
    attributes: Mapping[str, Any],
) -> xr.Dataset:
    """Return `xr.Dataset` of these; by a copy of one whose few labels are the same, which is several times as fast."""
    if sum(len(labels) for _, labels, _ in coordinates.values()) > _FEW_LABELS:
        return xr.Dataset(variables, coordinates, attributes)
    blank = _blank(
        tuple((name, dims, value.shape, *of.items()) for name, (dims, value, of) in variables.items()),
        tuple((dim, labels.dtype, labels.tobytes(), *of.items()) for dim, labels, of in coordinates.values()),
    )
    found = blank.copy(data={name: value for name, (_, value, _) in variables.items()})
    found.attrs = dict(attributes)
    return found


@lru_cache(maxsize=32)
def _blank(variables: tuple[tuple[Any, ...], ...], coordinates: tuple[tuple[Any, ...], ...]) -> xr.Dataset:
    """Return a dataset of zeros that take no memory, whose labels, as copies share them, cannot be written to."""
    return xr.Dataset(
        {name: (dims, np.broadcast_to(0.0, shape), dict(of)) for name, dims, shape, *of in variables},
        {dim: (dim, np.frombuffer(labels, dtype), dict(of)) for dim, dtype, labels, *of in coordinates},
    )


def _integration(network: Network, solver: Solver) -> dict[str, str | float]:
    """Return what integrated a population, and by which step, as attributes of its variable."""
    attributes: dict[str, str | float] = {"solver": repr(solver)}
    if isinstance(solver, FixedStep):
        attributes["step"] = float(solver.step)
    if network.inference is not None:
        attributes["inference_step"] = float(network.inference.step)
    return attributes


def row_bytes(system: System, names: Sequence[str]) -> int:
    """Return how many bytes populations and observables take in a dataset, all samples at one time."""
    return sum(Chosen(system.shape(name)).bytes(system) for name in names)


def run_attributes(system: System, report: Report) -> dict[str, Any]:
    """Return what ran, as the attributes of a dataset: text and numbers that NetCDF and Zarr keep unchanged."""
    inference = system.network.inference
    equations, diagram = _described(system.network)
    stable = {} if report.stable is None else {"stable": int(report.stable)}
    return {
        "network": system.network.name,
        "equations": equations,
        "diagram": diagram,
        **({} if inference is None else {"inference_not_run": str(inference)}),
        "solver": report.solver,
        "solver_reason": report.reason,
        "evaluations": report.evaluations,
        "accepted_steps": report.accepted,
        "rejected_steps": report.rejected,
        "residual": report.residual,
        "converged": int(report.converged),
        **stable,
        **versions(),
    }


_DESCRIBED: WeakKeyDictionary[Network, tuple[str, str]] = WeakKeyDictionary()


def _described(network: Network) -> tuple[str, str]:
    """Return a network's equations and diagram, which take as long as a small relaxation."""
    described = _DESCRIBED.get(network)
    if described is None:
        described = network.equations(), sketch(network).text()
        if not network.tensors:  # whose numbers may be changed, and are shown
            _DESCRIBED[network] = described
    return described


def versions() -> dict[str, str]:
    """Return the versions and the kernels that a run depends on, as attributes of its dataset."""
    return {**_versions(), "kernels": kernels_in_use()}


@cache
def _versions() -> Mapping[str, str]:
    return {"neurodyn_version": version("neurodyn"), "torch_version": str(torch.__version__)}


def to_numpy(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor's values as an array on the host, sharing memory where it can; bfloat16 becomes float32."""
    if tensor.dtype == torch.bfloat16:  # which NumPy lacks
        tensor = tensor.float()
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array
