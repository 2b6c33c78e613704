"""Which library is the fastest on this machine: `tune` times the candidates of `kernels`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import xarray as xr
from torch.nn import functional

from neurodyn.layers.kernels import LIBRARIES, by_onednn, norm_by_numpy, norm_by_torch

_SECONDS = 0.35
"""How long each operation is timed."""
_TURN = 2e-3
"""How long a library has its turn, in seconds."""
_PAYS = 0.95
"""A library is recommended where it takes less than this part of PyTorch's time."""


@torch.no_grad()
def tune() -> xr.Dataset:
    """Time what `kernels` chooses among on this machine, in less than two seconds, and say which setting pays.

    The setting stays as it is: `neurodyn.kernels(neurodyn.tune().kernels)` adopts the recommended one here, and the
    environment variable `NEURODYN_KERNELS` on every machine that is to compute the same bits. Times depend on how many
    threads PyTorch uses (`torch.set_num_threads`), and on what else runs.

    Returns
    -------
    xarray.Dataset
        `seconds` over `operation` and `library`: the median time of a product (64 × 300 × 300 and 64 × 784 × 300), of
        tanh (64 × 300), and of a norm as an adaptive step takes it (64 × 600), in float32; NaN where a library does
        not offer it. The attribute `kernels` names the libraries that pay, as `neurodyn.kernels` takes them.

    Examples
    --------
    >>> import neurodyn as nd
    >>> advice = nd.tune()  # doctest: +SKIP
    """
    operations = _operations()
    seconds = np.full((len(operations), 3), np.nan)
    for row, ways in enumerate(operations.values()):
        found = _times(ways)
        for column, library in enumerate(("torch", "onednn", "numpy")):
            if library in found:
                seconds[row, column] = found[library]
    times = xr.Dataset(
        {"seconds": (("operation", "library"), seconds, {"units": "s", "long_name": "median time"})},
        {"operation": list(operations), "library": ["torch", "onednn", "numpy"]},
    )
    paying = [library for library in LIBRARIES if _pays(times.seconds, library)]
    return times.assign_attrs(kernels=", ".join(paying) or "torch", threads=torch.get_num_threads())


def _pays(seconds: xr.DataArray, library: str) -> bool:
    offered = seconds.sel(library=library).notnull()
    theirs, ours = (seconds.sel(library=name).where(offered).sum() for name in (library, "torch"))
    return bool(theirs < _PAYS * ours)


def _operations() -> dict[str, dict[str, Callable[[], object]]]:
    generator = torch.Generator().manual_seed(0)

    def product(inputs: int) -> dict[str, Callable[[], object]]:
        x, weight = torch.randn(64, inputs, generator=generator), torch.randn(300, inputs, generator=generator)
        bias = torch.randn(300, generator=generator)
        ways: dict[str, Callable[[], object]] = {"torch": lambda: functional.linear(x, weight, bias)}
        if "onednn" in LIBRARIES:
            ways["onednn"] = lambda: by_onednn(x, weight, bias)
        return ways

    h = torch.randn(64, 300, generator=generator)
    out = torch.empty_like(h)
    error, x, y, *work = torch.randn(5, 64 * 600, generator=generator)
    norms = {"torch": norm_by_torch, "numpy": norm_by_numpy}
    return {
        "product 64 × 300 × 300": product(300),
        "product 64 × 784 × 300": product(784),
        "tanh 64 × 300": {
            "torch": lambda: torch.tanh(h, out=out),
            "numpy": lambda: np.tanh(h.numpy(), out=out.numpy()),
        },
        "norm 64 × 600": {name: partial(norm, error, x, y, 1e-3, x[:0], work) for name, norm in norms.items()},
    }


def _times(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median seconds of each way, in rounds in which all take their turn."""
    turns: dict[str, int] = {}
    for name, way in ways.items():
        way()
        started = time.perf_counter()
        way()
        turns[name] = max(1, round(_TURN / max(time.perf_counter() - started, 1e-7)))
    found: dict[str, list[float]] = {name: [] for name in ways}
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        for name, way in ways.items():
            started = time.perf_counter()
            for _ in range(turns[name]):
                way()
            found[name].append((time.perf_counter() - started) / turns[name])
    return {name: statistics.median(times) for name, times in found.items()}
