"""Timing in rounds, so that the machine's noise falls on all alike."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from neurodyn.layers.kernels import kernels_in_use

Peer = tuple[str, Callable[[], object], float]
"""Another package's way: its name, what it does, and its error."""

_UNCOUNTED = 4
"""How many rounds do not count."""


@dataclass(frozen=True)
class Line:
    """One line of the table: ways to do the same work, and how wrong each is.

    Parameters
    ----------
    name
        What is done.
    ways
        What each way does, by its name; "neurodyn" is the first.
    errors
        The largest error of each way whose result can be checked, against a reference in double precision.
    tolerance
        What the error of "neurodyn" must not exceed.
    warm
        Whether each way runs once, uncounted, before each time that counts: after another process, whose threads spin
        for a while and whose data fill the caches, or after much memory was freed, the first run is slower than the
        next.
    """

    name: str
    ways: Mapping[str, Callable[[], object]]
    errors: Mapping[str, float] = field(default_factory=dict)
    tolerance: float = np.inf
    warm: bool = False

    def beside(self, peers: Sequence[Peer]) -> Line:
        """Return the line with peers' ways as well."""
        if not peers:
            return self
        ways = {name: way for name, way, _ in peers}
        errors = {name: error for name, _, error in peers}
        return replace(self, ways={**self.ways, **ways}, errors={**self.errors, **errors}, warm=True)


def rounds(
    ways: Mapping[str, Callable[[], object]], *, seconds: float, least: int = 3, warm: bool = False
) -> dict[str, NDArray[np.float64]]:
    """Time every way once a round, after rounds that do not count, in which neurodyn finds out what to repeat.

    Parameters
    ----------
    ways
        The functions, by name.
    seconds
        About how long to go on.
    least
        How many rounds at least.
    warm
        Whether each way runs once, uncounted, before each time that counts.

    Returns
    -------
    dict of str to array
        Seconds, shape (round,).
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in _UNCOUNTED * list(ways.values()):
        way()
    end = time.perf_counter() + seconds
    while len(next(iter(times.values()))) < least or time.perf_counter() < end:
        for name, way in ways.items():
            if warm:
                way()
            _wait()
            begin = time.perf_counter()
            way()
            _wait()
            times[name].append(time.perf_counter() - begin)
    return {name: np.array(values) for name, values in times.items()}


def ratio(times: NDArray[np.float64], reference: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the median of the ratios round by round, and their quartiles."""
    low, middle, high = np.percentile(times / reference, [25, 50, 75])
    return float(middle), float(low), float(high)


def machine() -> dict[str, str | int]:
    """Describe the machine, as attributes of a dataset."""
    return {
        "processor": f"{_processor()} ({torch.backends.cpu.get_cpu_capability()})",
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "blas": next(
            (line.strip(" -") for line in torch.__config__.show().splitlines() if "Math Kernel" in line), "other"
        ),
        "kernels": kernels_in_use(),
    }


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    except OSError:
        return platform.processor() or "unknown"
