"""Sweeps in a store: written in blocks, interrupted, shared between jobs, and gone on with."""

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import distributed
import numpy as np
import pytest
import torch
import xarray as xr

import neurodyn as nd
from neurodyn.errors import FileError
from neurodyn.simulation.partial import Lock
from neurodyn.simulation.stores import to_zarr
from tests import processes

GRID: dict[str, list[Any]] = {"kind": ["up", "down"], "scale": [0.5, 1.0, 2.0, 3.0, 5.0]}


def series(scale: float, kind: str) -> xr.Dataset:
    time = np.arange(4.0)
    values = scale * time * (1 if kind == "up" else -1) + float(torch.rand(()))
    attributes = {"converged": int(scale > 1), "solver": f"of {kind}"}
    return xr.Dataset({"x": ("time", values, {"units": "1", "tau": scale}), "n": 3}, {"time": time}, attributes)


@pytest.mark.parametrize("block", [2, 5, 7, 100])
def test_a_store_holds_what_memory_would(tmp_path: Path, block: int) -> None:
    swept = nd.sweep(series, GRID, store=tmp_path / "s.zarr", block=block)
    expected = nd.sweep(series, GRID)
    for name, variable in expected.data_vars.items():
        np.testing.assert_array_equal(swept[name], variable)
        assert swept[name].dims == variable.dims
    assert bool(swept.computed.all())
    assert swept.x.attrs == {"units": "1"}  # and no τ, which differs
    assert swept.x.chunksizes["scale"][0] == min(block, 5)
    assert swept.x.chunksizes["kind"][0] == (2 if block > 9 else 1)
    xr.testing.assert_identical(xr.open_zarr(tmp_path / "s.zarr", chunks=None).x.load(), swept.x.load())


class Broken(Exception):
    pass


def test_what_is_done_is_kept_and_the_rest_is_added(tmp_path: Path) -> None:
    asked: list[int] = []
    broken = tmp_path / "broken"
    broken.touch()

    def point(a: int) -> dict[str, Any]:
        asked.append(a)
        if a == 3 and broken.exists():
            raise Broken("three")
        return {"x": a * a}

    with pytest.raises(Broken) as raised:
        nd.sweep(point, {"a": range(6)}, store=tmp_path / "s.zarr")
    assert "at a = 3; the blocks that are done are kept" in raised.value.__notes__[-1]
    partly = xr.open_zarr(tmp_path / "s.zarr")
    np.testing.assert_array_equal(partly.x, [0, 1, 4, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(partly.computed, [True] * 3 + [False] * 3)
    broken.unlink()
    swept = nd.sweep(point, {"a": range(6)}, store=tmp_path / "s.zarr")
    np.testing.assert_array_equal(swept.x, np.arange(6) ** 2)
    assert asked == [0, 1, 2, 3, 3, 4, 5]
    nd.sweep(point, {"a": range(6)}, store=tmp_path / "s.zarr")
    assert asked == [0, 1, 2, 3, 3, 4, 5]


def test_errors_are_recorded_in_the_store(tmp_path: Path) -> None:
    def point(a: int) -> dict[str, Any]:
        return {"x": 10 // a, "y": ("t", np.ones(1 if a == 4 else 2)), "word": "w" * a}

    swept = nd.sweep(point, {"a": range(6)}, store=tmp_path / "s.zarr", on_error="record", block=1)
    np.testing.assert_array_equal(swept.x, [np.nan, 10, 5, 3, np.nan, 2])
    errors = swept.error.values.tolist()
    assert errors[0].startswith("ZeroDivisionError")
    assert "at a = 4, 'y' has the sizes {'t': 1}" in errors[4]
    assert swept.word.values.tolist() == ["", "w", "ww", "www", "", "wwwww"]


def test_a_block_all_of_whose_points_failed_has_no_facts(tmp_path: Path) -> None:
    def point(a: int) -> xr.Dataset:
        return xr.Dataset({"x": 10 // (a % 3)}, attrs={"steps": a, "solver": f"of {a}"})

    swept = nd.sweep(point, {"a": [1, 3, 6, 5]}, store=tmp_path / "s.zarr", on_error="record", block=1)
    np.testing.assert_array_equal(swept.steps, [1, np.nan, np.nan, 5])
    assert swept.solver.values.tolist() == ["of 1", "", "", "of 5"]


@pytest.mark.parametrize("facts", [(1, "much"), ("much", 1.0), (None, 1), ([1, 2], [1, 2])])
def test_facts_of_several_kinds_are_refused_by_name(tmp_path: Path, facts: tuple[object, object]) -> None:
    def point(a: int) -> xr.Dataset:
        return xr.Dataset({"x": a}, attrs={"told": facts[a]})

    with pytest.raises(TypeError, match="the attribute 'told'"):
        nd.sweep(point, {"a": [0, 1]}, store=tmp_path / "s.zarr", block=1)


def large(a: int) -> dict[str, Any]:
    return {"x": 2**60 + 1}


def large_beside_a_fraction(a: int) -> dict[str, Any]:
    return {"x": 2**53 + 1 if a == 1 else 0.5}


def large_fact(a: int) -> xr.Dataset:
    return xr.Dataset({"y": 1.0}, attrs={"x": 2**60 + 1})


@pytest.mark.parametrize("point", [large, large_beside_a_fraction, large_fact])
def test_integers_that_floats_round_are_refused(tmp_path: Path, point: Any) -> None:
    with pytest.raises(ValueError, match=r"sweep: 'x' has integers of 2\*\*53 or more"):
        nd.sweep(point, {"a": [1, 2]}, store=tmp_path / "s.zarr")
    if point is large_beside_a_fraction:
        with pytest.raises(ValueError, match=r"sweep: 'x' has integers of 2\*\*53 or more"):
            nd.sweep(point, {"a": [1, 2]})


def test_the_seed_of_a_point_in_a_store_makes_its_run_again(tmp_path: Path) -> None:
    def run(sigma: float, seed: int | None = None) -> xr.Dataset:
        net = nd.Network("noise", [nd.Population("x", 1, noise=sigma)])
        return nd.simulate(net, None, duration=0.5, solver=nd.Euler(0.1), save_at=2, seed=seed)

    swept = nd.sweep(lambda sigma: run(sigma), {"sigma": [0.1, 0.2]}, store=tmp_path / "s.zarr").load()
    for sigma in (0.1, 0.2):
        point = swept.sel(sigma=sigma)
        np.testing.assert_array_equal(run(sigma, int(point.seed)).x, point.x)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"grid": {"a": [1, 2, 4]}}, "the grid"),
        ({"block": 2}, "block"),
        ({"on_error": "record"}, "on_error"),
        ({"point": lambda a: {"x": a + 1}}, "point"),
        ({"point": lambda a, c=2.0: {"x": a}}, "point"),
        ({"at_once": True}, "at_once"),
        ({"point": lambda a: {"x": a + 1}, "block": 2, "on_error": "record"}, "point"),
    ],
)
def test_another_sweep_is_refused(tmp_path: Path, other: dict[str, Any], what: str) -> None:
    same: dict[str, Any] = {"point": lambda a: {"x": a}, "grid": {"a": [1, 2, 3]}, "store": tmp_path / "s.zarr"}
    nd.sweep(**same)
    with pytest.raises(ValueError, match=f"another sweep: {what} is not what it was"):
        nd.sweep(**(same | other))


def test_other_data_are_refused_by_name(tmp_path: Path) -> None:
    def swept(data: torch.Tensor) -> xr.Dataset:
        return nd.sweep(lambda a: {"x": float(a * data.sum())}, {"a": [1, 2]}, store=tmp_path / "s.zarr")

    xr.testing.assert_equal(swept(torch.ones(3)), swept(torch.ones(3)))
    with pytest.raises(ValueError, match="another sweep: 'data', which point reads, is not what it was"):
        swept(torch.full((3,), 2.0))


@pytest.mark.parametrize("kind", ["float16", "longdouble", "ulonglong", "uint64", "bool", "U2"])
def test_a_store_keeps_values_of_any_kind(tmp_path: Path, kind: str) -> None:
    values = np.array([1, 0]).astype(kind)
    swept = nd.sweep(lambda a: {"x": float(a)}, {"a": values}, store=tmp_path / "s.zarr")
    assert swept.a.values.tolist() == values.tolist()
    np.testing.assert_array_equal(swept.x, values.astype(float))


def test_results_of_any_form_are_stored(tmp_path: Path) -> None:
    def point(a: int) -> xr.Dataset:
        empty, stacked = ("t", np.ones(0)), ("network", np.arange(2.0) + a)
        return xr.Dataset({"empty": empty, "error": 0.5 * a, "stacked": stacked}, attrs={"computed": a})

    swept = nd.sweep(point, {"a": [0, 1, 2]}, store=tmp_path / "s.zarr", block=2)
    assert swept.empty.shape == (3, 0)
    np.testing.assert_array_equal(swept.error, [0, 0.5, 1])
    np.testing.assert_array_equal(swept.stacked, [[0, 1], [1, 2], [2, 3]])
    np.testing.assert_array_equal(swept.computed_of_run, [0, 1, 2])
    assert bool(swept.computed.all())


def test_a_store_within_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="could not write store"):
        nd.sweep(series, GRID, store=tmp_path / "file" / "s.zarr")


def test_a_store_that_is_something_else_is_refused(tmp_path: Path) -> None:
    nd.save(xr.Dataset({"x": 1.0}), tmp_path / "s.zarr")
    (tmp_path / "file.zarr").write_text("text")
    (tmp_path / "folder.zarr").mkdir()
    for name in ("s.zarr", "file.zarr", "folder.zarr"):
        with pytest.raises(FileExistsError, match="holds no sweep"):
            nd.sweep(series, GRID, store=tmp_path / name)
    assert nd.load(tmp_path / "s.zarr").x == 1.0


def test_shares_make_one_store(tmp_path: Path) -> None:
    expected = nd.sweep(series, GRID, store=tmp_path / "whole.zarr", block=2).load()
    for i in (2, 0, 1):
        swept = nd.sweep(series, GRID, store=tmp_path / "s.zarr", block=2, share=(i, 3))
    xr.testing.assert_identical(swept.load(), expected)


@pytest.mark.parametrize("other", [(1, 4), (0, 1), (1, 2), (3, 6)])
def test_a_share_that_another_run_holds_is_refused(tmp_path: Path, other: tuple[int, int]) -> None:
    lock = Lock(tmp_path / f".s.share-{other[0]}-of-{other[1]}.lock")
    try:
        with pytest.raises(FileExistsError, match="is being written by another run"):
            nd.sweep(series, GRID, store=tmp_path / "s.zarr", share=(1, 4))
        nd.sweep(series, GRID, store=tmp_path / "t.zarr", share=(1, 4))
    finally:
        lock.release()


def slow(a: int, b: int) -> dict[str, Any]:
    time.sleep(0.05)
    return {"x": a * 1000 + b, "y": ("u", [a, b])}


def sweep_slowly(store: Path) -> xr.Dataset:
    return nd.sweep(slow, {"a": range(4), "b": range(6)}, store=store, block=3)


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    running = processes.forks().Process(target=sweep_slowly, args=(store,))
    running.start()
    while len(list((store / "computed" / "c").glob("*/*"))) < 2:
        assert running.is_alive()
        time.sleep(0.01)
    running.kill()
    running.join()
    before = xr.open_zarr(store).computed.load()
    assert not bool(before.all())
    (store / "x" / "c" / "0.abc.partial").touch()  # as a process that is killed as it writes leaves it
    swept = sweep_slowly(store)  # the same function in another process is the same sweep
    assert not list(store.rglob("*.partial"))
    assert bool(swept.computed.all())
    np.testing.assert_array_equal(swept.x, 1000 * np.arange(4)[:, None] + np.arange(6))


def test_the_documented_job_array_makes_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (processes.ROOT / "docs" / "scale.md").read_text()
    (script,) = re.findall(r"```python\n(# sweep.py\n.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "3")
    names: dict[str, Any] = {}
    for job in ("1", "0", "2"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", job)
        exec(script, names)
    swept = xr.open_zarr("sweep.zarr")
    assert bool(swept.computed.all())
    networks = [names["point"](0.5, 1.4)]
    np.testing.assert_allclose(swept.x.isel(excitation=0, inhibition=9), names["run"](networks).x[0], rtol=1e-6)


def test_an_executor_takes_the_blocks(tmp_path: Path) -> None:
    expected = nd.sweep(lambda a: {"x": a}, {"a": range(20)})
    with ThreadPoolExecutor(2) as executor:
        swept = nd.sweep(lambda a: {"x": a}, {"a": range(20)}, store=tmp_path / "s.zarr", scheduler=executor)
    np.testing.assert_array_equal(swept.x, expected.x)


def test_a_cluster_whose_worker_is_killed_completes(tmp_path: Path) -> None:
    def point(a: int) -> dict[str, int]:
        if a == 5 and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"x": a * a}

    processes.forks()
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        swept = nd.sweep(point, {"a": range(8)}, store=tmp_path / "s.zarr", scheduler=client)
    assert (tmp_path / "killed").exists()
    np.testing.assert_array_equal(swept.x, np.arange(8) ** 2)


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[Any] = []

    def full(*arguments: Any, **settings: Any) -> None:
        writes.append(settings)
        if len(writes) == 4:
            raise OSError(28, "No space left on device")
        to_zarr(*arguments, **settings)

    monkeypatch.setattr("neurodyn.simulation.sweep_store.to_zarr", full)
    with pytest.raises(OSError, match="the blocks that are done are kept: make room, and run it again"):
        nd.sweep(series, GRID, store=tmp_path / "s.zarr")
    assert int(xr.open_zarr(tmp_path / "s.zarr").computed.sum()) == 2
    swept = nd.sweep(series, GRID, store=tmp_path / "s.zarr")
    np.testing.assert_array_equal(swept.x, nd.sweep(series, GRID).x)
