"""What a scheduler with one process can feed: blocks on many workers, simulated event by event.

Each block waits for the scheduler, which takes a fixed time for each, one after the other, and then for its worker. The
time of a block is drawn from a gamma distribution, whose spread a third of its mean is.
"""

from __future__ import annotations

import argparse
import heapq
from itertools import product

import numpy as np

from neurodyn.progress import Bar

OVERHEADS = (0.2e-3, 1e-3)
"""What Dask's scheduler takes for a task, in seconds."""
WORKERS = (2, 64, 1_000, 10_000)
SECONDS = (0.01, 0.1, 1.0, 10.0)
SPREAD = 1 / 3


def efficiency(workers: int, seconds: float, overhead: float, random: np.random.Generator, rounds: int = 20) -> float:
    """Return the part of the workers' time that is spent on blocks.

    Parameters
    ----------
    workers
        How many there are, each with one block at a time.
    seconds
        How long a block takes, on average.
    overhead
        How long the scheduler takes for a block.
    random
        What draws the blocks' times.
    rounds
        How many blocks each worker gets, on average.
    """
    times = random.gamma(1 / SPREAD**2, seconds * SPREAD**2, workers * rounds)
    free = [0.0] * workers
    scheduler = 0.0
    for duration in times:
        scheduler = max(scheduler, heapq.heappop(free)) + overhead
        heapq.heappush(free, scheduler + duration)
    return float(times.sum() / (workers * max(free)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    options = parser.parse_args()
    random = np.random.default_rng(0)
    cases = Bar(list(product(OVERHEADS, WORKERS, SECONDS)), wanted=not options.quiet, unit="case", desc="schedulers")
    found = {case: efficiency(case[1], case[2], case[0], random) for case in cases}
    print("| the scheduler takes | workers |" + "".join(f" blocks of {seconds:g} s |" for seconds in SECONDS))
    print("| :-- | --: |" + " --: |" * len(SECONDS))
    for overhead, workers in product(OVERHEADS, WORKERS):
        cells = "".join(f" {100 * found[overhead, workers, seconds]:.0f} % |" for seconds in SECONDS)
        print(f"| {1e3 * overhead:g} ms | {workers:,} |{cells}")


if __name__ == "__main__":
    main()
