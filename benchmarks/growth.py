"""How relaxations grow with width, depth and batch: time, evaluations and memory, beside torchdiffeq and diffrax."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import FrameType

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.profiler import profile, record_function

import neurodyn as nd
from benchmarks import cases, plain
from benchmarks.measure import machine
from neurodyn.models import predictive_coding as pc
from neurodyn.models import target_propagation as tp
from neurodyn.progress import Bar

SIZES = ("width", "depth", "batch")
RELAXATIONS = ("PC to t = 20", "PC equilibrium", "weak feedback", "GAIT")
WAYS = ("neurodyn", "torchdiffeq", "diffrax", "backprop")
TOLERANCE = 1e-3
"""The relative tolerance of the trajectories."""
LONGEST = 5.0
"""After how many seconds of the processor a run is given up, and counts as none; of another process, on the clock."""
BUDGET = 0.2
"""For how many seconds a run is repeated."""
FEWEST = 5
"""How often a run is repeated at least, unless it takes long: what is found out once is then not in the median."""

_SECOND = "the second run"
"""What the one is called whose memory counts."""
_SMALLEST = 1e-30
"""What γ to the power of the depth is to be at least, of numbers of single precision."""

Where = dict[str, int]
Run = Callable[[], int | None]
"""A function that runs a way and returns its evaluations; None where it tells of none."""
Ways = dict[str, Run]
Peers = Callable[[nn.Sequential, Tensor, Tensor], AbstractContextManager[Mapping[str, Run]]]
"""diffrax' ways to relax a network on its data, by relaxation."""


def sizes() -> Iterator[tuple[Where, list[int]]]:
    """Return the sizes, and the units of the layers from the input on."""
    for width in (64, 256, 1024, 2048):
        yield {"width": width, "depth": 3, "batch": 64}, [width] * 4
    for depth in (2, 5, 10, 30, 100):
        yield {"width": 128, "depth": depth, "batch": 64}, [128] * (depth + 1)
    for batch in (1, 16, 256, 1024):
        yield {"width": 300, "depth": 4, "batch": batch}, [300] * 5


def measured(device: str, peers: Peers, progress: bool) -> xr.Dataset:
    """Run every relaxation in every way at every size.

    Parameters
    ----------
    device
        Where to run.
    peers
        What gives the ways of other packages.
    progress
        Whether to show how far it is.

    Returns
    -------
    xarray.Dataset
        `seconds`, `evaluations` and `memory` over point, relaxation and way; NaN where a way has none, or is given up.
    """
    points = list(sizes())
    found = np.full((3, len(points), len(RELAXATIONS), len(WAYS)), np.nan)
    for place, (where, layers) in enumerate(Bar(points, wanted=progress, unit="size", desc="relaxations")):
        for relaxation, ways in _relaxations(layers, where["batch"], device, peers):
            for name, way in ways.items():
                found[:, place, RELAXATIONS.index(relaxation), WAYS.index(name)] = _costs(way, apart=name == "diffrax")
    dims = ("point", "relaxation", "way")
    names = [("seconds", "s", "time of a run"), ("evaluations", "1", "evaluations of the vector field")]
    names.append(("memory", "B", "memory of tensors at most, beyond what was there before"))
    data = {
        name: (dims, values, {"units": units, "long_name": text})
        for (name, units, text), values in zip(names, found, strict=True)
    }
    coordinates = {name: ("point", [where[name] for where, _ in points]) for name in SIZES}
    return xr.Dataset(data, {"relaxation": list(RELAXATIONS), "way": list(WAYS), **coordinates}, machine())


def _relaxations(layers: list[int], batch: int, device: str, peers: Peers) -> Iterator[tuple[str, Ways]]:
    module = nd.mlp(layers, device=device)
    x, t = cases.data(layers, batch, device)
    inference = pc.network(module, steps="equilibrium")
    backprop = _uncounted(cases.backprop(module, x, t))
    with peers(module, x, t) as found:
        others = {relaxation: {"diffrax": way} for relaxation, way in found.items()}
        relax = partial(nd.simulate, inference, x, t, duration=cases.DURATION, save_at=[cases.DURATION])
        by_hand = partial(_by_hand, module, x, t)
        ours = {"neurodyn": partial(_evaluations, relax), "torchdiffeq": partial(by_hand, cases.DURATION, TOLERANCE)}
        yield RELAXATIONS[0], {**ours, **others.get(RELAXATIONS[0], {}), "backprop": backprop}
        settle = partial(nd.equilibrium, inference, x, t, tolerance=cases.RESIDUAL)
        ours = {"neurodyn": partial(_evaluations, settle)}
        arrival = _arrival(inference, x, t)
        if arrival is not None:
            ours["torchdiffeq"] = partial(by_hand, arrival, cases.RESIDUAL)
        yield RELAXATIONS[1], {**ours, **others.get(RELAXATIONS[1], {}), "backprop": backprop}
    tower = tp.tower(layers[:-1], outputs=layers[-1], weights="orthogonal", device=device)
    circuit = tp.weak_feedback(tower)
    reference = _uncounted(cases.backprop(tower, x, t))
    solver = nd.TorchDiffEq("adaptive_heun", rtol=1e-4, atol=1e-5)
    flow = partial(nd.simulate, circuit, x, t, duration=cases.DURATION, save_at=[cases.DURATION], solver=solver)
    settle = partial(nd.equilibrium, circuit, x, t)
    ours = {"neurodyn": partial(_evaluations, settle), "torchdiffeq": partial(_evaluations, flow)}
    yield RELAXATIONS[2], {**ours, "backprop": reference}
    gamma = max(1e-5, _SMALLEST ** (1 / len(layers)))
    gait = cases.backward(tp.network(tower, rule="gait", gamma=gamma), tower, x, t)
    yield RELAXATIONS[3], {"neurodyn": _uncounted(gait), "backprop": reference}


def _evaluations(run: Callable[[], xr.Dataset]) -> int:
    return int(run().attrs["evaluations"])


def _by_hand(module: nn.Sequential, x: Tensor, t: Tensor, duration: float, tolerance: float) -> int:
    hand = plain.Inference(module, x, t)
    with torch.no_grad():
        hand.relax(duration, "adaptive_heun", tolerance, 0.1 * tolerance)
    return hand.evaluations


def _arrival(network: nd.Network, x: Tensor, t: Tensor) -> float | None:
    """Return when the relaxation meets the tolerance of the equilibrium; None if it does not, or takes too long to."""
    try:
        with limited(LONGEST, apart=False):
            run = nd.simulate(network, x, t, duration=500.0, save_at=[0.0], until=nd.steady(cases.RESIDUAL))
    except TimeoutError:
        return None
    return float(run["time"].values[-1]) or None  # only where it has stopped is a time after 0 saved


def _uncounted(way: Callable[[], object]) -> Run:
    def run() -> None:
        way()

    return run


def _costs(way: Run, *, apart: bool) -> tuple[float, float, float]:
    """Return the seconds, evaluations and bytes of a run, whose memory is not seen where it is `apart`."""
    nothing = np.nan, np.nan, np.nan
    seconds: list[float] = []
    try:
        with limited(LONGEST, apart=apart):
            evaluations = None if apart else way()  # which finds out what is repeated; the peers have done so
        while not seconds or sum(seconds) < BUDGET or (len(seconds) < FEWEST and sum(seconds) < FEWEST * BUDGET):
            with limited(LONGEST, apart=apart):
                seconds.append(_timed(way))
        memory = np.nan if apart else _memory(way)
    except (TimeoutError, nd.NeurodynError):
        return nothing
    return float(np.median(seconds)), np.nan if evaluations is None else float(evaluations), memory


def _timed(way: Run) -> float:
    _wait()
    begin = time.perf_counter()
    way()
    _wait()
    return time.perf_counter() - begin


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _memory(way: Run) -> float:
    """Return how many bytes tensors take at most in a run, beyond what they took before."""
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        way()
        return float(torch.cuda.max_memory_allocated() - before)
    with profile(profile_memory=True) as seen:
        way()  # of which a second run frees the gradients: of older ones, the profiler would not tell
        with record_function(_SECOND):
            way()
    assert seen.profiler is not None
    events = sorted(seen.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    begin = [event.name() for event in events].index(_SECOND)
    taken: NDArray[np.int64] = np.cumsum([event.nbytes() for event in events[begin:] if event.name() == "[memory]"])
    return float(taken.max(initial=0))


@contextmanager
def limited(seconds: float, *, apart: bool) -> Iterator[None]:
    """Raise a TimeoutError once a block of code takes too long; on the clock where it waits for a process `apart`."""
    timer, number = (signal.ITIMER_REAL, signal.SIGALRM) if apart else (signal.ITIMER_PROF, signal.SIGPROF)

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(number, give_up)
    signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        signal.setitimer(timer, 0)
        signal.signal(number, before)
