"""Streaming to Zarr: what it adds to the time of a run that is not recorded, and how much memory it takes.

Two runs: one network of 10⁵ units with ten synapses each, and 10⁴ samples of a network of 20 units. Each is run with
nothing saved but its end, and streamed, in turn, every time in a process of its own; medians of the time, of the
processor's time, which tells the work where others share the machine, and the largest memory (VmHWM) less that of the
run that is not recorded.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

import neurodyn as nd

SYNAPSES = 10


def units(number: int) -> dict[str, Any]:
    """Return a run of one network of many units, whose trajectory has 400 times."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.arange(number).repeat_interleave(SYNAPSES)
    columns = torch.randint(number, (number * SYNAPSES,), generator=generator)
    weights = torch.randn(number * SYNAPSES, generator=generator) * 1.5 / SYNAPSES**0.5
    matrix = torch.sparse_coo_tensor(torch.stack([rows, columns]), weights, (number, number)).coalesce()
    layer = nd.SparseLinear(matrix)
    start = torch.randn(number, generator=generator)
    network = nd.Network(
        "many units",
        [nd.Population("x", number, initial=start)],
        [nd.Coupling("x", "x", nd.Forward(nn.Sequential(nn.Tanh(), layer)))],
    )
    return {"network": network, "inputs": None, "solver": nd.RK4(0.05), "duration": 20.0, "times": 400}


def samples(number: int) -> dict[str, Any]:
    """Return a run of many samples, whose trajectory has 200 times."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(number, 20, generator=generator)
    layer = nn.Linear(20, 20, bias=False)
    nn.init.normal_(layer.weight, std=1.5 / 20**0.5, generator=generator)
    network = nd.Network(
        "many samples",
        [nd.Population("u", 20, clamp=nd.Input()), nd.Population("x", 20)],
        [nd.Coupling("u", "x"), nd.Coupling("x", "x", nd.Forward(nn.Sequential(nn.Tanh(), layer)))],
    )
    return {"network": network, "inputs": inputs, "solver": nd.RK4(0.05), "duration": 40.0, "times": 200}


CASES: dict[str, tuple[Callable[[int], dict[str, Any]], int]] = {"units": (units, 10**5), "samples": (samples, 10**4)}


def run(case: str, store: Path | None) -> dict[str, float]:
    """Run a case in this process; return the seconds that it took, the processor's, and the largest memory in MiB."""
    torch.set_num_threads(1)
    declare, number = CASES[case]
    settings = declare(number)
    times = np.linspace(0.0, settings["duration"], settings.pop("times"))
    for module in ("neurodyn.simulation.stream", "dask.array"):  # whose time and memory are no part of either
        import_module(module)
    start, worked = time.perf_counter(), time.process_time()
    nd.simulate(**settings, save_at=times[-1:] if store is None else times, store=store)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return {"seconds": seconds, "worked": worked, "MiB": int(peak) / 2**10}


def apart(case: str, store: Path | None) -> dict[str, float]:
    """Run a case in a process of its own."""
    arguments = ["--case", case, *(["--store", str(store)] if store is not None else [])]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.streaming", *arguments], check=True, capture_output=True, text=True
    )
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/streaming"))
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(run(options.case, options.store)))
        return
    print("| run | not recorded | streamed | more | processor's time more | memory more |")
    print("| :-- | --: | --: | --: | --: | --: |")
    for case in CASES:
        found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
        for _ in range(options.rounds):
            for streamed, each in found.items():
                shutil.rmtree(options.out, ignore_errors=True)
                each.append(apart(case, options.out / "run.zarr" if streamed else None))
        alone, wrote = (median(each["seconds"] for each in found[kind]) for kind in (False, True))
        without, with_it = (median(each["worked"] for each in found[kind]) for kind in (False, True))
        memory = median(each["MiB"] for each in found[True]) - median(each["MiB"] for each in found[False])
        print(
            f"| {CASES[case][1]:,} {case} | {alone:.1f} s | {wrote:.1f} s | {100 * (wrote / alone - 1):.0f} % | "
            f"{with_it - without:.1f} of {without:.1f} s | {memory:.0f} MiB |",
            flush=True,
        )
    shutil.rmtree(options.out, ignore_errors=True)


if __name__ == "__main__":
    main()
