"""Which library is the fastest on this machine: `tune` times the candidates of `kernels`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from timeit import timeit

import torch
from torch.nn import functional

from neurodyn.labelled import xr
from neurodyn.layers.kernels import LIBRARIES, by_onednn

_SECONDS = 0.7
"""How long each operation is timed."""
_TURN = 10
"""How many products a library makes in its turn."""
_PAYS = 0.9
"""A library is recommended where each operation takes less than this part of PyTorch's time: where the two are about as
fast alone, PyTorch's own is faster in a network."""


@torch.no_grad()
def tune() -> xr.Dataset:
    """Time what `kernels` chooses between on this machine, in less than two seconds, and say which setting pays.

    The setting stays as it is: `neurodyn.kernels(neurodyn.tune().kernels)` adopts the recommended one here, and the
    environment variable `NEURODYN_KERNELS` on every machine that is to compute the same bits. Times depend on how many
    threads PyTorch uses (`torch.set_num_threads`), and on what else runs.

    Returns
    -------
    xarray.Dataset
        `seconds` over `operation` and `library`: the median time of a product (64 × 300 × 300 and 64 × 784 × 300) in
        float32. The attribute `kernels` names the library that pays, as `neurodyn.kernels` takes it: one that takes
        less than nine tenths of PyTorch's own time for each.

    Examples
    --------
    >>> import neurodyn as nd
    >>> advice = nd.tune()  # doctest: +SKIP
    """
    found = {f"product 64 × {inputs} × 300": _times(_product(inputs)) for inputs in (300, 784)}
    times = xr.Dataset(
        {
            "seconds": (
                ("operation", "library"),
                [[seconds[library] for library in LIBRARIES] for seconds in found.values()],
                {"units": "s", "long_name": "median time"},
            )
        },
        {"operation": list(found), "library": list(LIBRARIES)},
    )
    ratio = (times.seconds / times.seconds.sel(library="torch")).max("operation")
    paying = [library for library in LIBRARIES if ratio.sel(library=library) < _PAYS]
    return times.assign_attrs(kernels=paying[0] if paying else "torch", threads=torch.get_num_threads())


def _product(inputs: int) -> dict[str, Callable[[], object]]:
    generator = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(64, inputs, generator=generator, device="cpu"),
        torch.randn(300, inputs, generator=generator, device="cpu"),
    )
    bias = torch.randn(300, generator=generator, device="cpu")
    ways: dict[str, Callable[[], object]] = {
        "torch": lambda: functional.linear(x, weight, bias),
        "onednn": lambda: by_onednn(x, weight, bias),
    }
    return {library: ways[library] for library in LIBRARIES}


def _times(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median seconds of each way, in rounds in which all take their turn."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        for name, way in ways.items():
            found[name].append(timeit(way, number=_TURN) / _TURN)
    return {name: statistics.median(times) for name, times in found.items()}
