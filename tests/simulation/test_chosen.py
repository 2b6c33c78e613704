"""Recording some units, or what the samples come to, is recording all and then choosing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc

SOLVERS = {"closed form": None, "fixed steps": nd.Euler(0.1), "adapted steps": nd.Adaptive()}
RECORD = {"x1": [3, 0], "x2": None, "x3": [1]}


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(7, 6, generator=generator), torch.rand(7, 3, generator=generator)


def network(kind: str) -> nd.Network:
    module = nd.mlp([6, 5, 4, 3], seed=0)
    return ar.network(module) if kind == "closed form" else pc.network(module)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", SOLVERS)
def test_choosing_first_is_choosing_afterwards(kind: str, streamed: bool, tmp_path: Path) -> None:
    how: dict[str, Any] = {"duration": 2.0, "solver": SOLVERS[kind], "save_at": 9}
    net = network(kind)
    whole = nd.simulate(net, *data(), **how)
    store = tmp_path / "run.zarr" if streamed else None
    reduce: Any = {"x2": "mean", "x3": "std"}
    run = nd.simulate(net, *data(), record=RECORD, reduce=reduce, store=store, **how)
    expected = {
        "x1": whole.x1.isel(x1_unit=RECORD["x1"]),
        "x2": whole.x2.mean("sample"),
        "x3": whole.x3.isel(x3_unit=RECORD["x3"]).std("sample"),
    }
    assert set(run.data_vars) == set(expected)
    for name, each in expected.items():
        xr.testing.assert_allclose(run[name].drop_attrs(), each.drop_attrs(), rtol=1e-5, atol=1e-6)
    assert run.x2.attrs["long_name"] == "activity of population x2, mean over samples"


@pytest.mark.parametrize("reduction", ["mean", "std", "min", "max"])
def test_reductions_are_those_of_xarray(reduction: Any) -> None:
    net = network("closed form")
    whole = nd.simulate(net, *data(), duration=1.0, record=["x1", "energy"])
    run = nd.simulate(
        net, *data(), duration=1.0, record=["x1", "energy"], reduce=dict.fromkeys(["x1", "energy"], reduction)
    )
    assert "sample" not in run.dims
    for name in ("x1", "energy"):
        expected = getattr(whole[name], reduction)("sample")
        np.testing.assert_allclose(run[name], expected, rtol=1e-5, atol=1e-6)


def test_what_is_held_is_chosen_from_too() -> None:
    x, t = data()
    run = nd.simulate(network("closed form"), x, t, duration=1.0, record={"s": [4, 2]}, save_at=2)
    np.testing.assert_array_equal(run.s.isel(time=1), x[:, [4, 2]])
    assert run.s_unit.values.tolist() == [4, 2]


def test_units_of_stacked_networks() -> None:
    nets = [ar.network(nd.mlp([6, 5, 3], seed=seed)) for seed in range(2)]
    run = nd.simulate(nets, *data(), duration=1.0, record={"x1": [2]})
    for place, net in enumerate(nets):
        alone = nd.simulate(net, *data(), duration=1.0).x1.isel(x1_unit=[2])
        np.testing.assert_allclose(run.x1.isel(network=place), alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "std", "min", "max"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("streamed", [False, True])
def test_reductions_of_stacked_networks_are_those_of_each(
    reduction: Any, count: int, streamed: bool, tmp_path: Path
) -> None:
    nets = [ar.network(nd.mlp([6, 5, 3], seed=seed)) for seed in range(count)]
    how: dict[str, Any] = {"duration": 1.0, "save_at": 7, "solver": nd.Heun(0.1)}
    whole = nd.simulate(nets, *data(), **how)
    store = tmp_path / "run.zarr" if streamed else None
    run = nd.simulate(nets, *data(), reduce={"x1": reduction}, store=store, **how)
    assert run.x1.dims == ("network", "time", "x1_unit")
    np.testing.assert_allclose(run.x1, getattr(whole.x1, reduction)("sample"), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run.x2, whole.x2, rtol=1e-5, atol=1e-6)


def test_a_long_run_of_many_units_takes_the_memory_of_those_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nd.Network("leaks", [nd.Population("x", 20_000, initial=1.0)])
    monkeypatch.setattr("neurodyn.simulation.memory.free_memory", lambda: 10_000_000)
    with pytest.raises(MemoryError):
        nd.simulate(net, None, duration=100.0, save_at=1000)
    run = nd.simulate(net, None, duration=5.0, save_at=1000, record={"x": [7]})
    np.testing.assert_allclose(run.x.values.ravel(), np.exp(-run.time), rtol=1e-4)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"record": {"x1": [9]}}, "record: x1: each unit once, of those from 0 to 4"),
        ({"record": {"x1": [-1]}}, "record: x1: each unit once"),
        ({"record": {"x1": [0, 0]}}, "record: x1: each unit once"),
        ({"record": {"x1": []}}, "record: x1: the numbers of its units"),
        ({"record": {"x1": "a"}}, "record: x1: the numbers of its units"),
        ({"record": {"x1": [0.5]}}, "record: x1: the numbers of its units"),
        ({"record": {"x1": 3}}, "record: x1: the numbers of its units"),
        ({"record": {"x1": [True]}}, "record: x1: the numbers of its units"),
        ({"record": {"energy": [0]}}, "record: energy is an observable"),
        ({"record": {"y": [0]}}, "record: there is no population or observable 'y'"),
        ({"record": {}}, "record: name at least one"),
        ({"reduce": {"x1": "median"}}, "reduce: x1: one of mean, std, min, max, not 'median'"),
        ({"reduce": {"s": "mean"}}, "reduce: 's' is not recorded; recorded are x1, x2, x3"),
        ({"reduce": ["x1"]}, "reduce: a mapping"),
    ],
)
def test_bad_choices_are_refused_by_name(how: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        nd.simulate(network("closed form"), *data(), duration=1.0, **how)


def test_some_units_are_no_state_to_go_on_from() -> None:
    net = network("closed form")
    run = nd.simulate(net, *data(), duration=1.0, record={"x1": [0, 1], "x2": None, "x3": None})
    with pytest.raises(ValueError, match="population x1: initial value has the shape"):
        nd.simulate(net, *data(), duration=1.0, initial=run.isel(time=-1))
