"""Time neurodyn against backprop, plain torchdiffeq, loops by hand, and peers: `make bench`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tyro
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import neurodyn as nd
from benchmarks import cases, growth, plain, report
from benchmarks.measure import Line, Peer, machine, ratio, rounds
from neurodyn.checks import one_of, positive, usable_device, writable_file, writable_folder
from neurodyn.layers.kernels import LIBRARIES
from neurodyn.progress import Bar, show

PEERS = Path(".venv-peers/bin/python")
GROWTH = ("width", "depth", "batch")


@dataclass(frozen=True)
class Options:
    """What to measure, and where to put it."""

    device: str = "cpu"
    """Where to run: "cpu" or "cuda"."""
    kernels: str = "tuned"
    """What computes products on a CPU: "torch", "onednn", or "tuned" for what `nd.tune` recommends."""
    seconds: float = 6.0
    """About how long each line is repeated."""
    out: Path = Path("results/benchmarks")
    """The folder for the datasets and the figures."""
    page: Path | None = None
    """A page to write this processor's section into, with its figures beside it, such as docs/benchmarks.md."""
    quiet: bool = False
    """Show no progress."""

    def __post_init__(self) -> None:
        usable_device("device", self.device)
        one_of("kernels", self.kernels, ("tuned", *LIBRARIES))
        positive("seconds", self.seconds)
        writable_folder("out", self.out)
        if self.page is not None:
            writable_file("page", self.page)


def main(options: Options) -> xr.Dataset:
    """Measure every line, print the table, and save datasets and figures."""
    show(False)  # of what is timed
    _choose_kernels(options.kernels)
    lines = [(group, line) for group, made in cases.GROUPS.items() for each in made for line in each(options.device)]
    rows: list[Row] = []
    with _peers(options.device) as peers:
        for group, line in Bar(lines, wanted=not options.quiet, unit="line", desc="lines"):
            line = line.beside(peers.get(line.name, []))
            rows += [(group, *row) for row in _rows(line, rounds(line.ways, seconds=options.seconds, warm=line.warm))]
    table = _table(rows)
    gradients = _growth(options)
    options.out.mkdir(parents=True, exist_ok=True)
    nd.save(table, options.out / "table.nc")
    nd.save(gradients, options.out / "growth.nc")
    print(report.text(table))
    relaxations = growth.measured(options.device, _growing_peers, not options.quiet)
    nd.save(relaxations, options.out / "relaxations.nc")
    report.save_figures(table, gradients, relaxations, options.out)
    print(f"\nDatasets and figures are in {options.out}.")
    if options.page is not None:
        report.write_section(options.page, table, gradients, relaxations)
        print(f"This processor's section of {options.page} is written.")
    return table


def _choose_kernels(wanted: str) -> None:
    """Set the kernels, and print the machine, and each operation's time beside that of the fastest library."""
    tuned = nd.tune()
    chosen = tuned.attrs["kernels"] if wanted == "tuned" else wanted
    nd.kernels(chosen)
    for name, value in machine().items():
        print(f"{name:<12} {value}")
    print(f"\n{'operation':<26} {'setting':>12}  setting / best candidate")
    for operation, seconds in tuned.seconds.groupby("operation", squeeze=False):
        times = seconds.squeeze("operation").to_series()
        print(f"{operation:<26} {chosen:>12}  {times[chosen] / times.min():.2f}")
    print()


Row = tuple[str, str, str, float, float, float, float, float]
"""Group, line, way, median milliseconds, the ratio neurodyn/way with its quartiles, and the error."""


def _rows(line: Line, times: dict[str, np.ndarray]) -> list[tuple[str, str, float, float, float, float, float]]:
    ours = times["neurodyn"]
    if line.errors.get("neurodyn", 0.0) > line.tolerance:
        raise AssertionError(f"{line.name}: the error {line.errors['neurodyn']:.2g} exceeds {line.tolerance:g}")
    return [
        (line.name, way, 1e3 * float(np.median(t)), *ratio(ours, t), line.errors.get(way, np.nan))
        for way, t in times.items()
    ]


@contextmanager
def _peers(device: str) -> Iterator[dict[str, list[Peer]]]:
    """Start the peers in a process of their own, and give their ways for each line, which run when they are called."""
    if device != "cpu":
        print("Without the peers, which run on the CPU.")
        yield {}
        return
    x, t = cases.data(cases.INFERENCE, 64, "cpu")
    with _process(nd.mlp(cases.INFERENCE), x, t) as (ways, results):
        reference = cases.reference_inference("cpu") if ways else {}
        peers: dict[str, list[Peer]] = {}
        for name, way in ways.items():
            settled = "equilibrium" in name
            line, wanted = ("PC equilibrium", "settled") if settled else ("PC relaxation to t = 20", "relaxed")
            gaps = [np.abs(results[f"{name} {n}"] - reference[f"{wanted} {n}"]).max() for n in ("x1", "x2", "x3")]
            peers.setdefault(line, []).append((name.rsplit(" ", 1)[0], way, float(max(gaps))))
        yield peers


@contextmanager
def _growing_peers(module: nn.Sequential, x: Tensor, t: Tensor) -> Iterator[Mapping[str, growth.Run]]:
    """Give diffrax' ways to relax a network on its data, by relaxation; none on a GPU, or where it is missing."""
    if not x.is_cpu or not PEERS.exists():
        yield {}
        return
    names = {"diffrax Heun relaxation": "PC to t = 20", "diffrax Heun equilibrium": "PC equilibrium"}
    with _process(module, x, t, only="diffrax with JAX", patience=6 * growth.LONGEST) as (ways, _):
        yield {relaxation: ways[name] for name, relaxation in names.items() if name in ways}


@contextmanager
def _process(
    module: nn.Sequential, x: Tensor, t: Tensor, only: str = "", patience: float = 300.0
) -> Iterator[tuple[dict[str, Callable[[], None]], dict[str, NDArray[np.float32]]]]:
    """Start the peers, or one of them, and give their ways, which run when they are called, and what they found.

    They are given up where they have not run once within the seconds of one's `patience`.
    """
    problem = {"x": x.numpy(), "t": t.numpy(), "duration": cases.DURATION, "tolerance": cases.RESIDUAL, "only": only}
    layers = plain.weights(module)
    for i, (w, b) in enumerate(layers):
        problem |= {f"w{i}": w.numpy(), f"b{i}": b.numpy()}
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "problem.npz", Path(folder) / "result.npz"
        np.savez(given, layers=len(layers), **problem)  # type: ignore[arg-type]
        command = [str(PEERS), str(Path(__file__).with_name("peers.py")), str(given), str(found)]
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        except OSError as error:
            print(f"Without diffrax with JAX and torchode ({error}); `make peers` installs them.")
            yield {}, {}
            return
        with process as running:
            assert running.stdin is not None
            assert running.stdout is not None
            try:
                with growth.limited(patience, apart=True):
                    names = [name for name in running.stdout.readline().strip().split("\t") if name]
            except TimeoutError:
                running.kill()
                yield {}, {}
                return
            if not found.exists():
                print(f"Without diffrax with JAX and torchode ({PEERS} failed); `make peers` installs them anew.")
                yield {}, {}
                return

            def way(name: str) -> None:
                if running.poll() is not None:
                    raise TimeoutError(f"the peers' process was ended before {name}, as it took too long")
                try:
                    print(name, file=running.stdin, flush=True)
                    answer = running.stdout.readline() if running.stdout else ""
                except TimeoutError:  # its answer would be taken for that of the next
                    running.kill()
                    raise
                if not answer:
                    raise RuntimeError(f"the peers' process ended while it ran {name}")

            yield {name: partial(way, name) for name in names}, dict(np.load(found))
            if running.poll() is None:
                running.stdin.close()


def _table(rows: list[Row]) -> xr.Dataset:
    columns = list(zip(*rows, strict=True))
    return xr.Dataset(
        {
            "milliseconds": ("row", np.array(columns[3]), {"long_name": "median time", "units": "ms"}),
            "ratio": ("row", np.array(columns[4]), {"long_name": "median of neurodyn / this", "units": "1"}),
            "ratio_low": ("row", np.array(columns[5]), {"long_name": "its first quartile", "units": "1"}),
            "ratio_high": ("row", np.array(columns[6]), {"long_name": "its third quartile", "units": "1"}),
            "error": ("row", np.array(columns[7]), {"long_name": "largest error", "units": "1"}),
        },
        {name: ("row", list(columns[place])) for place, name in enumerate(("group", "line", "way"))},
        machine(),
    )


def _growth(options: Options) -> xr.Dataset:
    points = list(cases.sizes(options.device))
    names = [name for name in points[0][1] if name != "backprop"]
    found = np.empty((len(points), len(names)))
    for i, (_, ways) in enumerate(Bar(points, wanted=not options.quiet, unit="size", desc="sizes")):
        times = rounds(ways, seconds=options.seconds / 4)
        found[i] = [ratio(times[name], times["backprop"])[0] for name in names]
    coordinates = {name: ("point", [where[name] for where, _ in points]) for name in GROWTH}
    data = {"ratio": (("point", "rule"), found, {"long_name": "time / backprop's", "units": "1"})}
    return xr.Dataset(data, {"rule": names, **coordinates}, machine())


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
