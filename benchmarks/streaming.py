"""Streaming to Zarr: what it adds to the time of a run that is not recorded, and how much memory it takes.

Two runs: one network of 10⁵ units with ten synapses each, and 10⁴ samples of a network of 20 units, whose times lie at
ends of steps. Each is run with nothing saved but its end, streamed, and by hand: with a stop condition that copies the
activity, and a thread that writes it to plain files meanwhile, neither compressed nor checked, nor kept to go on from.
They take turns in one process, as where its memory happens to lie decides more than what is measured; medians over the
rounds of the time, of how much longer the other runs of a round took, of the processor's time beside the thread that
computes, and of the largest memory.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import neurodyn as nd
from benchmarks.arguments import count, folder
from neurodyn.progress import Bar

SYNAPSES = 10
PART_BYTES = 8 * 2**20
"""How much is written at once by hand, as much as `simulate` does."""


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


def by_hand(times: NDArray[np.float64], folder: Path, **settings: Any) -> None:
    """Run, and write the activity of x at some times to plain files.

    Parameters
    ----------
    times
        The times, each at the end of a step.
    folder
        Where to write.
    settings
        Those of `simulate`.
    """
    folder.mkdir(parents=True)
    with ThreadPoolExecutor(1) as writer:
        parts: list[NDArray[np.float32]] = []
        writing: list[Future[None]] = []
        saved = 0

        def copy(time: float, activity: Mapping[str, Tensor], velocity: Any) -> bool:
            nonlocal saved
            if saved == len(times) or time < times[saved] - 1e-6:
                return False
            x = activity["x"].numpy()
            rows = max(1, PART_BYTES // x.nbytes)
            if not parts:
                parts.extend(np.empty((rows, *x.shape), x.dtype) for _ in range(2))
            filling = parts[saved // rows % 2]
            filling[saved % rows] = x
            saved += 1
            if saved % rows == 0 or saved == len(times):
                for each in writing:
                    each.result()
                writing[:] = [writer.submit(filling.tofile, folder / f"{saved}.bin")]
            return False

        nd.simulate(**settings, save_at=times[-1:], until=copy)


CASES: dict[str, tuple[Callable[[int], dict[str, Any]], int]] = {"units": (units, 10**5), "samples": (samples, 10**4)}


def run(case: str, rounds: int, store: Path, progress: bool) -> list[dict[str, dict[str, float]]]:
    """Run a case in this process, not recorded, streamed and by hand in turn.

    Parameters
    ----------
    case
        Which.
    rounds
        How many times each; the time of the first ones is not counted, as it loads libraries.
    store
        Where to stream, in a folder of its own, which is removed before each.
    progress
        Whether to show it.

    Returns
    -------
    list
        Of each round, from the one not counted on, and of each run the seconds that it took, those of the processor
        beside the thread that computes, and the largest memory in MiB (VmHWM).
    """
    torch.set_num_threads(1)
    declare, number = CASES[case]
    settings = declare(number)
    duration, count = settings["duration"], settings.pop("times")
    times = np.linspace(duration / count, duration, count)
    choices: dict[str, Callable[[], object]] = {
        "alone": partial(nd.simulate, **settings, save_at=times[-1:]),
        "streamed": partial(nd.simulate, **settings, save_at=times, store=store),
        "by hand": partial(by_hand, times, store.parent, **settings),
    }
    for module in ("neurodyn.simulation.stream", "dask.array"):  # whose memory is no part of either
        import_module(module)
    found: list[dict[str, dict[str, float]]] = []
    for _ in Bar(range(rounds + 1), wanted=progress, unit="round", desc=case):
        found.append({})
        for label, choice in choices.items():
            shutil.rmtree(store.parent, ignore_errors=True)
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM from here on
            start = time.perf_counter()
            others = time.process_time() - time.thread_time()
            choice()
            seconds = time.perf_counter() - start
            others = time.process_time() - time.thread_time() - others
            found[-1][label] = {"seconds": seconds, "others": others, "MiB": _memory()}
    return found


def _more(found: list[dict[str, dict[str, float]]], label: str) -> str:
    more = [100 * (each[label]["seconds"] / each["alone"]["seconds"] - 1) for each in found]
    low, middle, high = np.percentile(more, [25, 50, 75])
    return f"{middle:.0f} % ({low:.0f} to {high:.0f})"


def _memory() -> float:
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=count, default=7)
    parser.add_argument("--out", type=folder, default=Path("results/streaming"))
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print("| run | not recorded | streamed | more, with its quartiles | by hand | processor beside it | memory more |")
    print("| :-- | --: | --: | --: | --: | --: | --: |")
    for case, (_, number) in CASES.items():
        with (
            TemporaryDirectory(dir=options.out) as scratch,
            ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        ):
            store = Path(scratch) / "run" / "run.zarr"
            found = pool.submit(run, case, options.rounds, store, not options.quiet).result()
        (first, *found) = found
        memory = first["streamed"]["MiB"] - first["alone"]["MiB"]  # later ones find memory that has been kept
        alone, streamed = (median(each[label]["seconds"] for each in found) for label in ("alone", "streamed"))
        others = median(each["streamed"]["others"] for each in found)
        print(
            f"| {number:,} {case} | {alone:.1f} s | {streamed:.1f} s | {_more(found, 'streamed')} | "
            f"{_more(found, 'by hand')} | {others:.1f} s | {memory:.0f} MiB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
