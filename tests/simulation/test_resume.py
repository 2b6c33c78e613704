"""Interrupted runs that go on, bit by bit as an unbroken one: by exceptions anywhere, and by SIGKILL in the writing."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial, partialmethod
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import neurodyn as nd
from neurodyn.simulation import growing, trajectory
from neurodyn.simulation.stream import ZarrStream
from tests import processes
from tests.files import assert_same, names
from tests.problems import random


class Stopped(Exception):
    """What stops a run in the middle."""


def values(*shape: int, seed: int = 0, dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(random(*shape, seed=seed)).to(dtype)


def weights(out: int, into: int, dtype: torch.dtype) -> nn.Module:
    layer = nn.Linear(into, out, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(values(out, into, seed=1, dtype=dtype))
        layer.bias.copy_(values(out, seed=2, dtype=dtype))
    return layer


def network(
    dtype: torch.dtype, *, noise: float = 0.0, delay: float = 0.0, gain: float = -2.0, **settings: Any
) -> nd.Network:
    """U → x ⇄ y → i, with i instantaneous."""
    populations = [
        nd.Population("u", 3, clamp=nd.Input()),
        nd.Population("x", 3, tau=0.5, noise=noise, **settings),
        nd.Population("y", 4),
        nd.Population("i", 4, tau=0.0),
    ]
    couplings = [
        nd.Coupling("u", "x"),
        nd.Coupling("x", "y", nd.Forward(nn.Sequential(nn.Tanh(), weights(4, 3, dtype))), delay=delay),
        nd.Coupling("y", "x", nd.Forward(nn.Sequential(weights(3, 4, dtype), nn.Tanh())), gain=gain, delay=1.7 * delay),
        nd.Coupling("y", "i", nd.Forward(nn.ReLU())),
    ]
    return nd.Network("net", populations, couplings)


def chain(dtype: torch.dtype) -> nd.Network:
    """A linear network of one rate, without cycles."""
    populations = [nd.Population("u", 3, clamp=nd.Input()), nd.Population("x", 3), nd.Population("y", 4)]
    return nd.Network(
        "chain", populations, [nd.Coupling("u", "x"), nd.Coupling("x", "y", nd.Forward(weights(4, 3, dtype)))]
    )


def ring(dtype: torch.dtype) -> nd.Network:
    """A linear cycle."""
    populations = [nd.Population("u", 3, clamp=nd.Input()), nd.Population("x", 3), nd.Population("y", 3, tau=0.7)]
    couplings = [nd.Coupling("u", "x"), nd.Coupling("x", "y"), nd.Coupling("y", "x", gain=-1.5)]
    return nd.Network("ring", populations, couplings)


def pooled(dtype: torch.dtype) -> nd.Network:
    """Predictive coding with ReLU and max pooling, whose units slide along kinks and along maxima."""
    convolution = nn.Conv1d(1, 2, 3, padding=1, bias=False, dtype=dtype)
    with torch.no_grad():
        convolution.weight.copy_(values(2, 1, 3, seed=3, dtype=dtype))
    module = nn.Sequential(convolution, nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), weights(3, 6, dtype))
    return nd.models.predictive_coding.network(module, steps="equilibrium")


def solved(dtype: torch.dtype) -> nd.Network:
    """A cycle of instantaneous populations, solved from the last solution on."""
    populations = [
        nd.Population("u", 3, clamp=nd.Input()),
        nd.Population("x", 3),
        nd.Population("a", 3, tau=0.0),
        nd.Population("b", 3, tau=0.0),
    ]
    couplings = [
        nd.Coupling("u", "x"),
        nd.Coupling("a", "x", gain=-1.0),
        nd.Coupling("x", "a"),
        nd.Coupling("b", "a", nd.Forward(nn.Tanh()), gain=0.6),
        nd.Coupling("a", "b", gain=0.5),
    ]
    return nd.Network("solved", populations, couplings, algebraic="solve")


def steps(dtype: torch.dtype) -> nd.Signal:
    return nd.Signal(np.linspace(0.0, 3.0, 8), values(8, 2, 3, seed=5, dtype=dtype), "previous")


def smooth(dtype: torch.dtype) -> nd.Signal:
    return nd.Signal(np.linspace(0.0, 3.0, 8), values(8, 2, 3, seed=5, dtype=dtype), "cubic")


def still(dtype: torch.dtype) -> torch.Tensor:
    return values(2, 3, seed=6, dtype=dtype)


DURATION = 3.0
TIMES = np.sort(np.random.default_rng(0).uniform(0, DURATION, 60))
Make = Callable[[torch.dtype], dict[str, Any]]
CASES: dict[str, Make] = {
    "Euler": lambda t: {"network": network(t), "inputs": still(t), "solver": nd.Euler(0.05)},
    "RK4 between steps": lambda t: {
        "network": network(t), "inputs": smooth(t), "solver": nd.RK4(0.17), "save_at": TIMES,
    },
    "many times a step": lambda t: {
        "network": network(t), "inputs": still(t), "solver": nd.Heun(0.7), "save_at": TIMES,
    },
    "jumps": lambda t: {"network": network(t), "inputs": steps(t), "solver": nd.Heun(0.1)},
    "noise": lambda t: {"network": network(t, noise=0.3), "inputs": steps(t), "solver": nd.Heun(0.07), "seed": 3},
    "noise between steps": lambda t: {
        "network": network(t, noise=0.3), "inputs": still(t), "solver": nd.Euler(0.15), "save_at": TIMES,
        "seed": [3, 9],
    },
    "delays": lambda t: {"network": network(t, delay=0.4), "inputs": steps(t), "solver": nd.RK4(0.09)},
    "delays of order 1": lambda t: {"network": network(t, delay=0.4), "inputs": still(t), "solver": nd.Euler(0.09)},
    "adaptive": lambda t: {
        "network": network(t), "inputs": steps(t), "solver": nd.Adaptive(rtol=1e-5, atol=1e-6), "save_at": TIMES,
    },
    "every adapted step": lambda t: {
        "network": network(t), "inputs": smooth(t), "solver": nd.Adaptive("bosh3", rtol=1e-4), "save_at": "steps",
    },
    "adaptive with delays": lambda t: {
        "network": network(t, delay=0.4), "inputs": steps(t), "solver": nd.Adaptive("tsit5", 1e-5), "save_at": TIMES,
    },
    "stabilized": lambda t: {
        "network": network(t), "inputs": still(t), "solver": nd.Stabilized(rtol=1e-5, atol=1e-6), "save_at": TIMES,
    },
    "every stabilized step": lambda t: {
        "network": network(t), "inputs": still(t), "solver": nd.Stabilized(rtol=1e-6, atol=1e-6), "save_at": "steps",
    },
    "bounds": lambda t: {"network": network(t, bounds=(-0.2, 0.5)), "inputs": steps(t), "solver": nd.RK4(0.1)},
    "solved cycles": lambda t: {"network": solved(t), "inputs": steps(t), "solver": nd.Heun(0.1)},
    "adaptive solved cycles": lambda t: {
        "network": solved(t), "inputs": steps(t), "solver": nd.Adaptive(rtol=1e-5, atol=1e-6), "save_at": TIMES,
    },
    "some units, and reductions": lambda t: {
        "network": network(t), "inputs": steps(t), "solver": nd.Adaptive(rtol=1e-6), "save_at": TIMES,
        "record": {"y": [3, 1], "x": None, "i": None}, "reduce": {"i": "std"},
    },
    "several networks": lambda t: {
        "network": [network(t), network(t, gain=-1.5)], "inputs": steps(t), "solver": nd.Adaptive("bosh3", rtol=1e-4),
        "save_at": TIMES, "reduce": {"i": "mean"},
    },
    "sliding": lambda t: {
        "network": pooled(t), "inputs": values(2, 1, 6, seed=6, dtype=t), "targets": still(t), "save_at": TIMES,
        "solver": nd.Sliding(1e-4),
    },
    "until at rest": lambda t: {
        "network": network(t, delay=0.4), "inputs": 0.1 * still(t), "solver": nd.Heun(0.1), "until": nd.steady(0.5),
    },
}  # fmt: skip
CLOSED: dict[str, Make] = {
    "closed form": lambda t: {"network": chain(t), "inputs": still(t), "save_at": TIMES},
    "closed form of iterates": lambda t: {"network": chain(t), "inputs": still(t), "solver": nd.Exact(0.05)},
    "closed form of a cycle": lambda t: {"network": ring(t), "inputs": still(t), "save_at": TIMES},
    "closed form along jumps": lambda t: {"network": ring(t), "inputs": steps(t), "save_at": TIMES},
    "torchdiffeq": lambda t: {"network": network(t), "inputs": still(t), "solver": nd.TorchDiffEq(), "save_at": TIMES},
}  # fmt: skip


def simulate(case: str, dtype: torch.dtype, store: Path | None, **settings: Any) -> xr.Dataset:
    return nd.simulate(**{"duration": DURATION, "store": store, **(CASES | CLOSED)[case](dtype), **settings})


@contextmanager
def stopped_after(calls: int) -> Iterator[list[int]]:
    """Stop a run when F has been evaluated so many times; yield how often it has been."""
    counted = [0]

    def counting(field: Callable[..., None], *arguments: Any, **settings: Any) -> None:
        counted[0] += 1
        if counted[0] > calls:
            raise Stopped
        field(*arguments, **settings)

    with pytest.MonkeyPatch.context() as patch:
        for field in (nd.System.field, nd.System.field_with_jump):
            patch.setattr(nd.System, field.__name__, partialmethod(partial(counting, field)))
        yield counted


@contextmanager
def stopped_writing(part: int) -> Iterator[None]:
    """Stop a run as a part of it is written."""
    written = [0]

    def counting(*arguments: Any) -> None:
        written[0] += 1
        grow(*arguments)
        if written[0] >= part:
            raise Stopped

    grow = ZarrStream._grow
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ZarrStream, "_grow", counting)
        yield


def in_parts_of(times: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have parts of so many times, of `network` with all its populations recorded."""
    monkeypatch.setattr(trajectory, "_HELD_BYTES", times * 2 * 11 * dtype.itemsize)


KINDS = cycle([torch.float32, torch.float64])


@pytest.mark.parametrize(("case", "dtype"), [*zip(CASES, KINDS, strict=False)])
def test_a_run_that_is_stopped_goes_on_to_the_same_bits(
    case: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_parts_of(11, dtype, monkeypatch)
    with stopped_after(10**9) as evaluations:
        whole = simulate(case, dtype, None)
    draw = Random(f"{case} {dtype}")
    first, last = (draw.uniform(*within) for within in ((0.5, 0.7), (0.7, 1.0)))
    with stopped_after(int(first * evaluations[0])), pytest.raises(Stopped):
        simulate(case, dtype, tmp_path / "run.zarr")
    with stopped_after(int(last * evaluations[0])), suppress(Stopped):
        simulate(case, dtype, tmp_path / "run.zarr", resume=True)
    with stopped_after(10**9) as counted:
        found = simulate(case, dtype, tmp_path / "run.zarr", resume=True)
    assert counted[0] < evaluations[0]
    assert_same(found, whole)
    assert names(tmp_path) == ["run.zarr"]


@pytest.mark.parametrize(("case", "dtype"), [*zip(CLOSED, KINDS, strict=False)])
def test_what_takes_no_steps_goes_on_writing(
    case: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_parts_of(11, dtype, monkeypatch)
    with stopped_writing(3), pytest.raises(Stopped):
        simulate(case, dtype, tmp_path / "run.zarr")
    found = simulate(case, dtype, tmp_path / "run.zarr", resume=True)
    assert_same(found, simulate(case, dtype, None))
    assert names(tmp_path) == ["run.zarr"]


def simulate_until_killed(case: str, store: Path, left: int) -> None:
    """Simulate until so many files of what is unfinished have been opened, renamed or removed."""

    def hook(event: str, arguments: Any) -> None:
        nonlocal left
        if event in ("open", "os.rename", "os.remove") and "unfinished" in str(arguments[0]):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    in_parts_of(11, torch.float64, pytest.MonkeyPatch())
    sys.addaudithook(hook)
    simulate(case, torch.float64, store, resume=True)


def test_a_run_that_is_killed_as_it_writes_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = "adaptive with delays"
    in_parts_of(11, torch.float64, monkeypatch)
    whole = simulate(case, torch.float64, None)
    opened = Random(case).randrange(116, 195)  # files, of some 18 for a part
    ended, raised = processes.call(simulate_until_killed, case, tmp_path / "run.zarr", opened)
    assert ended == -signal.SIGKILL, raised
    assert (tmp_path / ".run.unfinished.partial.pt").exists()
    assert_same(simulate(case, torch.float64, tmp_path / "run.zarr", resume=True), whole)
    assert names(tmp_path) == ["run.zarr"]


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the store of a run that has been stopped."""
    in_parts_of(11, torch.float64, monkeypatch)
    store = tmp_path / "run.zarr"
    with stopped_writing(3), pytest.raises(Stopped) as error:
        simulate("Euler", torch.float64, store)
    assert error.value.__notes__ == [
        f"simulate: what was written of {store} is kept, and resume=True goes on from there"
    ]
    return store


def test_another_stop_condition_is_asked_from_there_on(stopped: Path) -> None:
    whole = simulate("Euler", torch.float64, None)
    found = simulate("Euler", torch.float64, stopped, resume=True, until=lambda time, x, v: time >= 2.499)
    xr.testing.assert_equal(found, whole.isel(time=slice(len(found.time))))
    assert float(found.time[-1]) == pytest.approx(2.5)


def test_files_of_what_does_not_come_again_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neurodyn.simulation.stream.CHUNK_BYTES", 8 * 8)  # of 8 times, of which a part has 11
    in_parts_of(11, torch.float64, monkeypatch)
    store = tmp_path / "run.zarr"
    with stopped_writing(3), pytest.raises(Stopped):
        simulate("Euler", torch.float64, store)
    found = simulate("Euler", torch.float64, store, resume=True, until=lambda time, x, v: time >= 1.099)
    assert len(found.time) == 23
    assert names(store / "time" / "c") == ["0", "1", "2"]
    xr.testing.assert_equal(found, simulate("Euler", torch.float64, None).isel(time=slice(23)))


def test_without_resume_a_run_begins_anew(stopped: Path) -> None:
    with stopped_after(10**9) as counted:
        simulate("Euler", torch.float64, stopped)
    assert counted[0] >= 60
    assert names(stopped.parent) == ["run.zarr"]


OTHERS: list[tuple[dict[str, Any], str]] = [
    ({"network": lambda: network(torch.float64, bounds=(-9.0, 9.0))}, "an equation of the network"),
    ({"inputs": lambda: 2 * still(torch.float64)}, "inputs"),
    ({"solver": lambda: nd.Euler(0.04)}, "solver"),
    ({"save_at": lambda: TIMES}, "save_at"),
    ({"duration": lambda: 2.0}, "save_at|duration"),
    ({"seed": lambda: 1}, "seed"),
    ({"record": lambda: ["x", "y"]}, "what is recorded"),
    ({"initial": lambda: {"x": torch.ones(2, 3, dtype=torch.float64)}}, "initial"),
    (
        {"network": lambda: network(torch.float32), "inputs": lambda: still(torch.float32)},
        "a weight of the network",
    ),
]
"""Settings of another run than that of the fixture `stopped`, and what differs."""


def test_another_run_is_refused_and_what_is_kept_stays(stopped: Path) -> None:
    before = names(stopped.parent)
    for other, what in OTHERS:
        settings = {name: make() for name, make in other.items()}
        with pytest.raises(ValueError, match=rf"run\.zarr is of another run: ({what}) is not what it was there"):
            simulate("Euler", torch.float64, stopped, resume=True, **settings)
        assert names(stopped.parent) == before
    whole = simulate("Euler", torch.float64, None)
    assert_same(simulate("Euler", torch.float64, stopped, resume=True), whole)


def test_weights_threads_and_kernels_are_told_apart(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = CASES["Euler"](torch.float64)
    with torch.no_grad():
        next(iter(changed["network"].stages)).layers[-1].weight.add_(1e-9)
    with pytest.raises(ValueError, match="a weight of the network is not what it was there"):
        nd.simulate(**changed, duration=DURATION, store=stopped, resume=True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    with pytest.raises(ValueError, match=r"what computes .* is not what it was there \(.* and now .* 99 threads"):
        simulate("Euler", torch.float64, stopped, resume=True)


def test_a_complete_store_is_returned_as_it_is(tmp_path: Path) -> None:
    store = tmp_path / "run.zarr"
    run = simulate("Euler", torch.float64, store, resume=True).load()
    with stopped_after(0):
        assert_same(simulate("Euler", torch.float64, store, resume=True), run)
    with pytest.raises(ValueError, match=r"of another run: until is not what it was there"):
        simulate("Euler", torch.float64, store, resume=True, until=nd.steady(0.1))
    with pytest.raises(FileExistsError, match=r"run\.zarr exists"):
        simulate("Euler", torch.float64, store)
    assert names(tmp_path) == ["run.zarr"]


@pytest.mark.parametrize(
    "make", [lambda p: p.touch(), lambda p: p.mkdir(), lambda p: nd.save(xr.Dataset({"a": 1.0}), p)]
)
def test_something_else_is_refused(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "run.zarr")
    with pytest.raises(FileExistsError, match=r"run\.zarr exists, and holds no run that simulate has streamed"):
        simulate("Euler", torch.float64, tmp_path / "run.zarr", resume=True)
    assert names(tmp_path) == ["run.zarr"]


def test_without_a_store_there_is_nothing_to_resume() -> None:
    with pytest.raises(ValueError, match="resume: a run goes on from what it has streamed; give store="):
        simulate("Euler", torch.float64, None, resume=True)


def test_two_runs_at_once_are_refused(stopped: Path) -> None:
    def until(time: float, activity: Any, velocity: Any) -> bool:
        for resume in (False, True):
            with pytest.raises(FileExistsError, match=r"run\.zarr is being written by another run"):
                simulate("Euler", torch.float64, stopped, resume=resume)
        return True

    simulate("Euler", torch.float64, stopped, resume=True, until=until)
    assert names(stopped.parent) == ["run.zarr"]


def test_damage_is_told_and_nothing_is_lost(stopped: Path) -> None:
    state, folder = (stopped.with_name(f".run.unfinished.partial.{kind}") for kind in ("pt", "zarr"))
    content = state.read_bytes()
    state.write_bytes(content[:-9] + b"?" + content[-8:])
    with pytest.raises(ValueError, match="is damaged: its checksum does not fit"):
        simulate("Euler", torch.float64, stopped, resume=True)
    state.write_bytes(content)
    chunk = folder / "x" / "c" / "0" / "0" / "0"
    chunk.rename(folder.with_name("aside"))
    with pytest.raises(OSError, match="of variable x is missing"):
        simulate("Euler", torch.float64, stopped, resume=True)
    folder.with_name("aside").rename(chunk)
    assert_same(simulate("Euler", torch.float64, stopped, resume=True), simulate("Euler", torch.float64, None))


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_parts_of(11, torch.float64, monkeypatch)
    written = [0]

    def full(*arguments: Any) -> list[int | str]:
        written[0] += 1
        if written[0] == 6:  # in the midst of the second part
            raise OSError(28, "No space left on device")
        return write(*arguments)

    write = growing._write
    monkeypatch.setattr(growing, "_write", full)
    with pytest.raises(OSError, match=r"could not write store .*run\.zarr: .*No space left") as failed:
        simulate("noise", torch.float64, tmp_path / "run.zarr")
    assert "resume=True goes on from there" in failed.value.__notes__[0]
    found = simulate("noise", torch.float64, tmp_path / "run.zarr", resume=True)
    assert_same(found, simulate("noise", torch.float64, None))


def test_numbers_that_no_seed_was_given_for_are_those_of_the_interrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_parts_of(11, torch.float64, monkeypatch)
    populations = [
        nd.Population("u", 3, clamp=nd.Noisy(nd.Input(), 0.5)),
        nd.Population("x", 3, noise=0.2),
        nd.Population("y", 8),
    ]
    noisy = nd.Network("noisy", populations, [nd.Coupling("u", "x")])

    def run(store: Path | None, **settings: Any) -> xr.Dataset:
        settings = {"duration": DURATION, "solver": nd.Euler(0.05), "store": store, **settings}
        return nd.simulate(noisy, still(torch.float64), **settings)

    torch.manual_seed(5)
    whole = run(None)
    torch.manual_seed(5)
    with stopped_writing(3), pytest.raises(Stopped):
        run(tmp_path / "run.zarr")
    torch.manual_seed(77)
    before = torch.get_rng_state()
    assert_same(run(tmp_path / "run.zarr", resume=True), whole)
    np.testing.assert_array_equal(torch.get_rng_state(), before)


def test_a_run_that_diverges_does_so_after_an_interruption_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trajectory, "_HELD_BYTES", 4 * 30)
    growing = nd.Network("n", [nd.Population("x", 1, initial=1.0)], [nd.Coupling("x", "x", gain=3.0, delay=0.5)])

    def run(store: Path | None, **settings: Any) -> xr.Dataset:
        return nd.simulate(growing, None, duration=400.0, solver=nd.Euler(0.5), store=store, **settings)

    with pytest.raises(nd.DivergenceError) as unbroken:
        run(tmp_path / "run.zarr")
    assert names(tmp_path) == []
    with stopped_writing(4), pytest.raises(Stopped):
        run(tmp_path / "run.zarr")
    with pytest.raises(nd.DivergenceError) as resumed:
        run(tmp_path / "run.zarr", resume=True)
    assert str(resumed.value) == str(unbroken.value)
    assert names(tmp_path) == []
