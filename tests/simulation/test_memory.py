"""What memory cannot hold is refused before the run; what is free is what the system and its control groups leave."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import neurodyn as nd
from neurodyn.simulation import memory, trajectory
from tests.problems import decay


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave 10 MiB, and ask for whatever needs more than nothing."""
    monkeypatch.setattr(memory, "_SMALL", 0)
    monkeypatch.setattr(memory, "free_memory", lambda: 10 * 2**20)


def wide(units: int) -> nd.Network:
    return nd.Network("wide", [nd.Population("a", units, leak=1.0), nd.Population("b", 1, leak=1.0)])


# What is refused


@pytest.mark.parametrize(
    "settings",
    [{"save_at": 10**12}, {"solver": nd.Euler(1e-12)}, {"solver": nd.Euler(1e-12), "save_at": "steps"}],
    ids=str,
)
def test_no_machine_holds_a_million_million_times(settings: dict[str, Any]) -> None:
    with pytest.raises(MemoryError, match=r"would take .* TiB of memory, of which .* are free") as caught:
        decay().simulate(1.0, **settings)
    assert isinstance(caught.value, nd.NeurodynError)
    assert "save_at" in str(caught.value)


@pytest.mark.usefixtures("little")
def test_a_trajectory_is_refused_before_the_run_and_says_what_would_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trajectory, "_HELD_BYTES", 2**20)
    network = wide(1000)
    settings: dict[str, Any] = {"duration": 1.0, "save_at": 3000}
    message = r"a trajectory of 3,000 times would take 11\.\d+ MiB .* 10 MiB are free; record= .* save_at=.* store="
    with pytest.raises(MemoryError, match=message):
        nd.simulate(network, None, **settings)
    for change in ({"record": ["b"]}, {"save_at": 2000}, {"store": tmp_path / "a.zarr"}):
        assert nd.simulate(network, None, **{**settings, **change}).sizes["time"] in (2000, 3000)


@pytest.mark.usefixtures("little")
def test_stacked_runs_count_together() -> None:
    networks = [wide(1000) for _ in range(2)]
    assert nd.simulate(networks, None, duration=1.0, save_at=1000).sizes["network"] == 2
    with pytest.raises(MemoryError, match="a trajectory of 1,500 times would take 11"):
        nd.simulate(networks, None, duration=1.0, save_at=1500)


@pytest.mark.usefixtures("little")
def test_a_run_of_unknown_length_ends_before_the_memory_does() -> None:
    with pytest.raises(MemoryError, match=r"the trajectory has 1,024 times at .*save_at=.*store="):
        nd.simulate(wide(2000), None, duration=10.0, solver=nd.Euler(0.001), until=lambda t, x, v: False)
    short = nd.simulate(wide(2000), None, duration=10.0, solver=nd.Euler(0.001), until=lambda t, x, v: t > 0.1)
    assert short.sizes["time"] < 110


@pytest.mark.usefixtures("little")
def test_an_equilibrium_is_refused_too() -> None:
    def network(units: int) -> nd.Network:
        return nd.Network("n", [nd.Population("x", units, leak=1.0)])

    assert float(nd.equilibrium(network(1_000_000), None).x.max()) == 0.0  # 4 MB, and as much to record it
    with pytest.raises(MemoryError, match=r"the equilibrium would take .* MiB .*record="):
        nd.equilibrium(network(2_000_000), None)


def test_stacked_runs_are_not_copied() -> None:
    networks = [wide(10) for _ in range(3)]
    data = nd.simulate(networks, None, duration=1.0, save_at=5)
    assert data.a.values.base is not None
    alone = nd.simulate(networks[1], None, duration=1.0, save_at=5)
    np.testing.assert_allclose(data.a[1], alone.a, rtol=1e-6)
    xr.testing.assert_identical(data.time.variable, alone.time.variable)


# What is free


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({"": 100, "a": "max", "a/b": 70}, [100, 70]),
        ({"": "max", "a": 50, "a/b": "max"}, [50]),
        ({"": "max"}, []),  # the group's own path is not to be seen from inside
        ({}, []),
    ],
)
def test_control_groups_of_version_2(limits: dict[str, Any], left: list[int], tmp_path: Path) -> None:
    for group, limit in limits.items():
        write(tmp_path / group, memory__max=limit, memory__current=30, memory__stat="anon 5\ninactive_file 10")
    own = tmp_path / "own"
    own.write_text("0::/a/b\n")
    assert sorted(memory._left_in_groups(tmp_path, own)) == sorted(each - 30 + 10 for each in left)


def test_control_groups_of_version_1(tmp_path: Path) -> None:
    files = {"memory__limit_in_bytes": 100, "memory__usage_in_bytes": 90, "memory__stat": "total_inactive_file 40"}
    write(tmp_path / "memory" / "docker" / "x", **files)
    write(tmp_path / "memory", **{**files, "memory__limit_in_bytes": 2**63 - 4096})
    own = tmp_path / "own"
    own.write_text("5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/\n")
    assert sorted(memory._left_in_groups(tmp_path, own)) == [50, 2**63 - 4096 - 50]


@contextmanager
def address_space_of(size: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_what_is_free_is_between_nothing_and_all() -> None:
    pages = resource.getpagesize()
    assert 0 < memory.free_memory() < 2**50
    used = int(Path("/proc/self/statm").read_text().split()[0]) * pages
    with address_space_of(used + 2**28):
        assert memory.free_memory() <= 2**28


def test_sizes_are_readable() -> None:
    assert [memory._readable(size) for size in (3, 3 * 2**20, 47.7 * 2**30)] == ["3 bytes", "3 MiB", "47.7 GiB"]
    assert memory._readable(5e20) == "4.547e+08 TiB"
