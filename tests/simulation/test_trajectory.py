"""Trajectories: their labels, and streaming, which is the same run in bounded memory and leaves nothing half-done."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.simulation import encoding, stream, trajectory
from tests.files import assert_same, names, run
from tests.problems import decay, mlp, tensor, wilson_cowan

# Labels


def test_dimensions_say_what_they_are() -> None:
    data = run()
    assert data.s.dims == ("time", "sample", "s_channel", "s_row", "s_column")
    assert data.x1.dims == ("time", "sample", "x1_channel", "x1_row", "x1_column")
    assert data.x4.dims == ("time", "sample", "x4_unit")
    assert dict(data.sizes) == {
        **{"time": 5, "sample": 4, "s_channel": 2, "s_row": 12, "s_column": 10},
        **{"x1_channel": 4, "x1_row": 6, "x1_column": 5, "x2_unit": 6, "x4_unit": 3},
    }
    for name, coordinate in data.coords.items():
        assert set(coordinate.attrs) == {"units", "long_name"}, name
        np.testing.assert_array_equal(coordinate, np.arange(len(coordinate)) * (0.25 if name == "time" else 1))
    assert data.x1_row.attrs["long_name"] == "row of units of x1"
    assert data.time.attrs["units"] == "tau"


def test_other_shapes_have_numbered_axes() -> None:
    network = nd.Network("n", [nd.Population("a", (2, 3)), nd.Population("b", (2, 2, 2, 2))])
    data = nd.simulate(network, None, duration=1.0, save_at=2)
    assert data.a.dims == ("time", "sample", "a_axis0", "a_axis1")
    assert data.b.dims[2:] == ("b_axis0", "b_axis1", "b_axis2", "b_axis3")


def test_variables_say_what_they_are() -> None:
    data = wilson_cowan().simulate(1.0)
    assert data.E.attrs == {
        "units": "1",
        "long_name": "activity of population E",
        "role": "dynamic",
        "tau": 1.0,
        "leak": 1.0,
        "solver": data.attrs["solver"],
    }
    assert data.hE.attrs["role"] == "instantaneous"
    assert run().s.attrs["role"] == "clamped"


def test_the_role_is_that_of_the_run() -> None:
    network = nd.Network("n", [nd.Population("x", 2, clamp=nd.Target(optional=True))])
    assert nd.simulate(network, None, duration=1.0).x.attrs["role"] == "dynamic"
    assert nd.simulate(network, None, tensor(1, 2), duration=1.0).x.attrs["role"] == "clamped"


def test_attributes_say_what_ran() -> None:
    problem = wilson_cowan()
    data = problem.simulate(1.0, solver=nd.Adaptive("bosh3", 1e-4, 1e-6))
    assert data.attrs["network"] == "Wilson–Cowan"
    assert data.attrs["equations"] == problem.network.equations()
    assert data.attrs["solver"] == "Adaptive(method='bosh3', rtol=0.0001, atol=1e-06)"
    assert data.attrs["torch_version"] == torch.__version__
    assert data.attrs["neurodyn_version"] == nd.__version__
    assert data.attrs["residual"] > 0
    for name in ("evaluations", "accepted_steps", "rejected_steps", "converged"):
        assert isinstance(data.attrs[name], int)


def test_a_trajectory_is_the_callers_own() -> None:
    network = nd.Network("n", [nd.Population("s", 2, clamp=nd.Input()), nd.Population("x", 2)], [nd.Coupling("s", "x")])
    inputs = tensor(3, 2)
    for data in (
        nd.simulate(network, inputs, duration=1.0, record=["s", "x"], save_at=3),
        nd.equilibrium(network, inputs, record=["s", "x"]),
    ):
        before = data.copy(deep=True)
        inputs.add_(1.0)
        xr.testing.assert_identical(data, before)


def test_what_is_done_to_a_trajectory_does_not_reach_the_next_one() -> None:
    network = nd.Network("n", [nd.Population("x", 2, initial=1.0)])
    first = nd.simulate(network, None, duration=1.0, save_at=3)
    before = first.copy(deep=True)
    first.attrs["mine"] = first.x.attrs["mine"] = first.time.attrs["mine"] = 1
    first.x.values[:] = 7.0
    with suppress(ValueError):  # pandas' labels cannot be written to
        first.x_unit.values[:] = 7
    first["sample"] = [5]
    xr.testing.assert_identical(nd.simulate(network, None, duration=1.0, save_at=3), before)


def test_bfloat16_becomes_float32_exactly() -> None:
    network = nd.Network("n", [nd.Population("s", 2, clamp=nd.Input()), nd.Population("x", 2)], [nd.Coupling("s", "x")])
    inputs = tensor(3, 2).bfloat16()
    data = nd.simulate(network, inputs, duration=1.0, solver=nd.Euler(0.5), record=["s", "x"])
    assert data.x.dtype == np.float32
    np.testing.assert_array_equal(data.s[-1], inputs.float())
    np.testing.assert_array_equal(data.x[1], (0.5 * inputs).float())


# Streaming


@pytest.mark.parametrize(
    ("solver", "save_at", "held", "chunk"),
    [
        (nd.Euler(0.1), "steps", 5000, 2000),
        (nd.Euler(0.1), [0.1, 0.5], 5000, 2000),
        (nd.Euler(0.1), "steps", 1, 1000),
        (nd.Adaptive("bosh3"), "steps", 5000, 2000),
        (nd.Adaptive("bosh3"), 5, 5000, 2000),
        (nd.Adaptive("bosh3"), "steps", 10**9, 1000),
    ],
    ids=str,
)
def test_a_streamed_run_is_that_in_memory(
    solver, save_at, held: int, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trajectory, "_HELD_BYTES", held)
    monkeypatch.setattr(trajectory, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(encoding, "CHUNK_BYTES", chunk)
    example = mlp()
    network = ar.network(example.module, output="relaxing")
    settings = {"duration": 0.5, "solver": solver, "save_at": save_at, "record": ["x1", "s", "x3"]}
    whole = nd.simulate(network, example.inputs, example.targets, **settings)
    streamed = nd.simulate(network, example.inputs, example.targets, **settings, store=tmp_path / "run.zarr")
    assert_same(streamed, whole)
    assert_same(nd.load(tmp_path / "run.zarr"), whole)
    plain = xr.open_dataset(tmp_path / "run.zarr", engine="zarr")
    assert_same(plain, whole)
    assert plain.chunks is not None
    assert names(tmp_path) == ["run.zarr"]


def test_memory_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    append = stream.ZarrStream.append

    def spy(self, chunk: xr.Dataset, kept: Any) -> None:
        lengths.append(chunk.sizes["time"])
        append(self, chunk, kept)

    monkeypatch.setattr(stream.ZarrStream, "append", spy)
    monkeypatch.setattr(trajectory, "_HELD_BYTES", 8 * 300)
    data = decay().simulate(100.0, solver=nd.Euler(0.1), store=tmp_path / "long.zarr")
    assert len(data.time) == 1001
    assert lengths == [300, 300, 300, 101]
    np.testing.assert_allclose(data.x[:, 0, 0], 0.9 ** np.arange(1001.0), rtol=1e-10)


def test_memory_grows_with_a_run_of_unknown_length() -> None:
    problem = wilson_cowan()
    solver = nd.Adaptive("heun_euler", 1e-6, 1e-6)
    run = problem.simulate(5.0, solver=solver, save_at="steps")
    assert len(run.time) == run.accepted_steps + 1 > 300  # room is made for 64 at first
    assert problem.error(run) < 1e-3
    np.testing.assert_array_equal(run.E[[0, -1]], problem.simulate(5.0, solver=solver, save_at=[0.0, 5.0]).E)


def test_a_stopped_run_is_streamed_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trajectory, "_HELD_BYTES", 8 * 10)
    data = decay().simulate(100.0, solver=nd.Euler(0.1), until=nd.steady(1e-2), store=tmp_path / "run.zarr")
    assert 40 < len(data.time) < 50
    assert data.converged == 1


def explode(folder: Path) -> None:
    network = nd.Network("n", [nd.Population("x", 1, leak=0.0, initial=1.0)], [nd.Coupling("x", "x", gain=10.0)])
    nd.simulate(network, None, duration=100.0, solver=nd.Euler(1.0), store=folder / "run.zarr")


def interrupt(folder: Path) -> None:
    def until(time: float, activity, velocity) -> bool:
        if time > 50:
            raise KeyboardInterrupt
        return False

    decay().simulate(100.0, solver=nd.Euler(1.0), until=until, store=folder / "run.zarr")


def fail_to_bind(folder: Path) -> None:
    decay().simulate(100.0, solver=nd.Euler(1.0), record="nobody", store=folder / "run.zarr")


@pytest.mark.parametrize(
    ("fail", "kind"), [(explode, nd.DivergenceError), (interrupt, KeyboardInterrupt), (fail_to_bind, ValueError)]
)
def test_a_run_that_fails_leaves_no_store(fail, kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trajectory, "_HELD_BYTES", 16)
    with pytest.raises(kind):
        fail(tmp_path)
    left = [".run.unfinished.partial.pt", ".run.unfinished.partial.zarr"]  # to resume
    assert names(tmp_path) == (left if kind is KeyboardInterrupt else [])


def test_a_store_is_not_overwritten(tmp_path: Path) -> None:
    decay().simulate(1.0, store=tmp_path / "run.zarr")
    with pytest.raises(FileExistsError, match=r"store .*run\.zarr exists; remove it or choose another name"):
        decay().simulate(2.0, store=tmp_path / "run.zarr")
    assert nd.load(tmp_path / "run.zarr").time[-1] == 1.0


@pytest.mark.parametrize("name", ["run.nc", "run"])
def test_only_zarr_streams(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"store must end in \.zarr, not '{name}'"):
        decay().simulate(1.0, store=tmp_path / name)
    assert names(tmp_path) == []
