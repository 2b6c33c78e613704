"""A sweep over a million points: how long it takes, how much of that is the sweep's own, and how much memory.

The network has two units that excite and inhibit each other; blocks of it run stacked for 100 Euler steps. What the
sweep adds is measured first, on 20 blocks in this process: its time, less that within the functions that it calls.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import neurodyn as nd
from benchmarks.arguments import count, folder

OWN_BLOCKS = 20


def declare(excitation: float, inhibition: float) -> nd.Network:
    """Two units: x excites y, and y inhibits x."""
    populations = [nd.Population("x", 1, initial=1.0), nd.Population("y", 1)]
    couplings = [nd.Coupling("x", "y", gain=excitation), nd.Coupling("y", "x", gain=-inhibition)]
    return nd.Network("oscillator", populations, couplings)


def run(networks: list[nd.Network]) -> xr.Dataset:
    """Run 100 Euler steps, and keep the end."""
    return nd.simulate(networks, None, duration=1.0, solver=nd.Euler(0.01), save_at=[1.0])


def grid(points: int) -> dict[str, Any]:
    side = round(points**0.5)
    return {"excitation": np.linspace(0.5, 2.0, side), "inhibition": np.linspace(0.5, 2.0, side)}


def own_share(points: int, folder: Path) -> tuple[float, float]:
    """Return how much of the processor's time is the sweep's own, and how long it takes a point, in seconds."""
    within = [0.0]
    calls = [0]

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **parameters: Any) -> Any:
            calls[0] += 1
            start = time.process_time()
            try:
                return function(*arguments, **parameters)
            finally:
                within[0] += time.process_time() - start

        return call

    block = max(1_000, min(points // 100, 10_000))
    few = {"excitation": np.linspace(0.5, 2.0, OWN_BLOCKS), "inhibition": np.linspace(0.5, 2.0, block)}
    nd.sweep(timed(declare), {**few, "inhibition": [1.0]}, at_once=timed(run), store=folder / "warm.zarr")
    within[0], calls[0], start = 0.0, 0, time.process_time()
    nd.sweep(timed(declare), few, at_once=timed(run), store=folder / "own.zarr", block=block)
    total, called, inside = time.process_time() - start, calls[0], within[0]
    nothing, start = timed(lambda excitation, inhibition: None), time.process_time()
    for _ in range(called):
        nothing(excitation=0.5, inhibition=0.5)
    total -= time.process_time() - start  # what it takes to time so many calls
    return 1 - inside / total, total / (OWN_BLOCKS * block)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=count, default=1_000_000)
    parser.add_argument("--workers", type=count, default=2)
    parser.add_argument("--out", type=folder, default=Path("results/sweep"))
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in ("warm", "own", "sweep"):
        shutil.rmtree(options.out / f"{name}.zarr", ignore_errors=True)
    share, each = own_share(options.points, options.out)
    print(f"{100 * share:.1f} % of the processor's time is the sweep's own; {1e6 * each:.0f} µs a point")
    start = time.perf_counter()
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as executor:
        store = options.out / "sweep.zarr"
        shown = not options.quiet
        swept = nd.sweep(declare, grid(options.points), at_once=run, store=store, scheduler=executor, progress=shown)
    seconds = time.perf_counter() - start
    usage = {who: resource.getrusage(getattr(resource, f"RUSAGE_{who}")) for who in ("SELF", "CHILDREN")}
    print(f"{swept.x.sizes} in {seconds:.0f} s; all computed: {bool(swept.computed.all())}")
    for who, used in usage.items():
        print(
            f"{who}: {used.ru_utime + used.ru_stime:.0f} s of processor time, at most {used.ru_maxrss / 2**10:.0f} MiB"
        )


if __name__ == "__main__":
    main()
