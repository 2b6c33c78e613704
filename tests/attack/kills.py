"""Kills: training with checkpoints, streamed simulations and savings that end at a random moment, and what is left."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import nn

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from tests.attack.cases import Case, Expected, Mismatch

_SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
_WHAT = ("training", "stream", "training", "stream", "saving")
_PATIENCE = 60.0
"""How long a process may take to end after a signal, in seconds."""


def cases(seed: int, kills: int) -> Iterator[Case]:
    """Yield as many kills, of every kind and by every signal."""
    random = np.random.default_rng([seed, 2])
    for place in range(kills):
        what, how, when = _WHAT[place % len(_WHAT)], _SIGNALS[place % len(_SIGNALS)], random.uniform(0, 1.1)
        rule = f'"{list(RULES)[place % len(RULES)]}", ' if what == "training" else ""
        call = f'kills.{what}({rule}"{how}", {when:.4f})'
        yield Case(f"killed {what}", call, Expected.RIGHT, seconds=300.0)


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _begin(connection: Connection, work: Callable[..., object], arguments: tuple[object, ...]) -> None:
    connection.send("ready")
    work(*arguments)


def _killed(work: Callable[..., object], arguments: tuple[object, ...], how: str, after: float) -> None:
    """Run a function in a process of its own, and send it a signal after some seconds."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe()
    process = context.Process(target=_begin, args=(theirs, work, arguments))
    process.start()
    ours.recv()
    time.sleep(after)
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, signal.Signals[how])
    process.join(_PATIENCE)
    if process.is_alive():
        process.kill()
        raise Mismatch(f"it still runs {_PATIENCE:g} s after {how}")


# Training


def _module(seed: int = 0) -> nn.Sequential:
    return nd.mlp([8, 16, 16, 3], seed=seed)


def _dropping() -> nn.Sequential:
    return nn.Sequential(_module()[:2], nn.Dropout(0.3), _module()[2:])


RULES: Mapping[str, Callable[[], nd.Network | nn.Module | list[nd.Network]]] = {
    "backprop with dropout": _dropping,
    "feedback learned": lambda: ar.network(_module(), feedback="learned"),
    "noisy starts": lambda: pc.network(_module(), initial_noise=0.1, steps=5),
    "two seeds": lambda: [ar.network(_module(seed)) for seed in (0, 1)],
}


def _optimizer(parameters: list[nn.Parameter]) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)


def _train(rule: str, folder: Path) -> dict[str, np.ndarray]:
    """Train, and return all that the training leaves, by name."""
    random = torch.Generator().manual_seed(0)
    x, t = torch.randn(200, 8, generator=random), torch.randn(200, 3, generator=random)
    network = RULES[rule]()
    networks = network if isinstance(network, list) else [network]
    history = nd.train.fit(
        network,
        (x, t),
        (x[:50], t[:50]),
        epochs=4,
        batch_size=10,
        optimizer=_optimizer,
        seeds=[0, 1] if isinstance(network, list) else None,
        checkpoint=folder,
        checkpoint_minutes=1e-4,
        progress=False,
    )
    left = {name: values.to_numpy() for name, values in history.data_vars.items() if name != "seconds"}
    for place, each in enumerate(networks):
        parameters = list(each.parameters()) if isinstance(each, nn.Module) else _parameters(each)
        left |= {f"parameter {place}, {i}": p.detach().numpy() for i, p in enumerate(parameters)}
    return {str(name): values for name, values in left.items()}


def _parameters(network: nd.Network) -> list[torch.Tensor]:
    own = [parameter for stage in network.stages for parameter in stage.parameters]
    return [*own, *(parameter for _, parameter in network.feedback_parameters())]


@cache
def _whole_training(rule: str) -> tuple[dict[str, np.ndarray], float]:
    """Return what training leaves that nobody kills, and how long it takes, in seconds."""
    with _folder() as folder:
        _train(rule, folder / "first")
        start = time.perf_counter()
        return _train(rule, folder / "second"), time.perf_counter() - start


def training(rule: str, how: str, when: float) -> None:
    """Kill training after a part of the time that it takes, go on, and compare the ends, bit for bit.

    Raises
    ------
    Mismatch
        If they differ.
    """
    wanted, seconds = _whole_training(rule)
    with _folder() as folder:
        _killed(_train, (rule, folder / "run"), how, when * seconds)
        found = _train(rule, folder / "run")
        differing = [name for name in wanted if not np.array_equal(wanted[name], found[name], equal_nan=True)]
        if differing or wanted.keys() != found.keys():
            raise Mismatch(f"after {how}, {', '.join(differing) or 'the names'} differ from those of an unbroken run")
        _refuse_leftovers(folder / "run", {"checkpoint.pt"})


def _refuse_leftovers(folder: Path, expected: set[str]) -> None:
    left = {path.name for path in folder.iterdir() if not path.name.endswith("lock")} - expected
    if left:
        raise Mismatch(f"left behind: {', '.join(sorted(left))}")


# Streams and files


def _simulate(store: Path | None, *, resume: bool = False) -> xr.Dataset:
    """Run a network whose trajectory comes in several chunks."""
    network = nd.Network(
        "wide",
        [nd.Population("s", 512, clamp=nd.Input()), nd.Population("a", 512), nd.Population("b", 512, tau=2.0)],
        [nd.Coupling("s", "a"), nd.Coupling("a", "b", nd.Forward(nn.Tanh())), nd.Coupling("b", "a", gain=-1.0)],
    )
    inputs = torch.linspace(-1, 1, 32 * 512).view(32, 512)
    return nd.simulate(network, inputs, duration=50.0, solver=nd.Euler(0.05), store=store, resume=resume)


def _stream(store: Path) -> None:
    _simulate(store)


@cache
def _whole_stream() -> tuple[xr.Dataset, float]:
    with _folder() as folder:
        start = time.perf_counter()
        _simulate(folder / "run.zarr")
        seconds = time.perf_counter() - start
    return _simulate(None), seconds


def stream(how: str, when: float) -> None:
    """Kill a streamed simulation, and look at what stands under its name, and what comes of it as it goes on.

    Raises
    ------
    Mismatch
        If a damaged store stands there, or the run that goes on is another one or leaves more behind than its store.
    """
    wanted, seconds = _whole_stream()
    with _folder() as folder:
        _killed(_stream, (folder / "run.zarr",), how, when * seconds)
        ended = (folder / "run.zarr").exists()
        if ended:
            _compare(wanted, nd.load(folder / "run.zarr"), f"what stands under its name after {how}")
        _compare(wanted, _simulate(folder / "run.zarr", resume=True), f"the run that goes on after {how}")
        _refuse_leftovers(folder, {"run.zarr"})


def _compare(wanted: xr.Dataset, found: xr.Dataset, what: str) -> None:
    try:
        xr.testing.assert_identical(wanted, found.load())
    except AssertionError as error:
        raise Mismatch(f"{what} differs: {str(error)[:200]}") from error


def _content(value: float) -> xr.Dataset:
    return xr.Dataset({"a": (("time", "unit"), np.full((2000, 500), value)), "b": ("time", np.arange(2000.0) + value)})


def _save(path: Path) -> None:
    for _ in range(20):
        nd.save(_content(2.0), path)


@cache
def _saving_seconds() -> float:
    with _folder() as folder:
        start = time.perf_counter()
        _save(folder / "a.nc")
        return time.perf_counter() - start


def saving(how: str, when: float) -> None:
    """Kill savings in place of a file, and look at what stands there, and what the next saving leaves.

    Raises
    ------
    Mismatch
        If neither the file before nor the one after stands there, or more than the file is left behind.
    """
    seconds = _saving_seconds()
    with _folder() as folder:
        path = folder / "a.nc"
        nd.save(_content(1.0), path)
        _killed(_save, (path,), how, when * seconds)
        found = nd.load(path).load()
        _compare(_content(1.0 if float(found.a[0, 0]) == 1.0 else 2.0), found, f"what stands there after {how}")
        nd.save(_content(3.0), path)
        _compare(_content(3.0), nd.load(path), "what was saved next")
        _refuse_leftovers(folder, {path.name})
