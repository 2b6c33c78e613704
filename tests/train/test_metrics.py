"""What functions of one's own measure in a training run, against loops by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc
from tests.training import RULES, Learning, classes, equal, mlp, parameters, teach, trained

EPOCHS = 2


def fit(network: Any, metrics: Any, test: Any = None, **arguments: Any) -> xr.Dataset:
    settings = {"epochs": EPOCHS, "batch_size": 8, "optimizer": "sgd", "learning_rate": 0.1}
    return nd.train.fit(network, classes(), test, metrics=metrics, **{**settings, **arguments})


def weights(network: Learning) -> torch.Tensor:
    return parameters(network)[0]


def size(network: Learning) -> float:
    return float(sum(p.detach().square().sum() for p in parameters(network)))


def norms(network: nd.Network) -> xr.DataArray:
    return xr.DataArray(
        [float(stage.parameters[0].detach().norm()) for stage in network.forward],
        dims="layer",
        coords={"layer": [stage.name for stage in network.forward], "depth": ("layer", [3, 2, 1])},
        attrs={"units": "1", "long_name": "norm of the weights"},
    )


METRICS = {"size": size, "norms": norms, "weights": weights}


@pytest.mark.parametrize("rule", ["AR", "AR simplified", "IL"])
def test_they_are_what_a_loop_by_hand_measures(rule: str) -> None:
    history = fit(RULES[rule](1), METRICS, seed=1)
    network = RULES[rule](1)
    assert isinstance(network, nd.Network)
    optimizer = torch.optim.SGD(trained(network), lr=0.1)
    assert history.epoch.values.tolist() == [0, 1, 2]
    for epoch in range(EPOCHS + 1):
        now = history.sel(epoch=epoch)
        assert float(now["size"]) == pytest.approx(size(network), rel=1e-12)
        xr.testing.assert_allclose(now.norms.drop_vars("epoch"), norms(network), rtol=1e-12)
        np.testing.assert_allclose(now.weights, weights(network).detach().numpy(), rtol=1e-12)
        for inputs, targets in nd.train.batches(classes(), 8, seed=1, epoch=epoch + 1):
            optimizer.zero_grad()
            teach(network, inputs, targets)
            optimizer.step()
    assert history["size"].dims == ("epoch",)
    assert history.norms.dims == ("epoch", "layer")
    assert history.norms.attrs == norms(network).attrs
    assert history.layer.values.tolist() == ["1", "2", "3"]
    assert history.depth.dims == ("layer",)
    assert history.weights.dims == ("epoch", "weights_dim_0", "weights_dim_1")


def test_the_epochs_that_training_has_are_those_without_metrics() -> None:
    arguments: dict[str, Any] = {"test": classes(13, 5), "record": ["iterations", "angles"]}
    plain, other = RULES["IL"](0), RULES["IL"](0)
    without, history = fit(plain, None, **arguments), fit(other, METRICS, **arguments)
    assert without.epoch.values.tolist() == [1, 2]
    assert equal(plain, other)
    shared = history[list(without.data_vars)]
    xr.testing.assert_identical(
        shared.sel(epoch=slice(1, None)).drop_vars(["seconds", "depth"]), without.drop_vars("seconds")
    )
    assert [name for name in shared if "epoch" in shared[name].dims and bool(shared[name][0].notnull().any())] == [
        "test_loss",
        "test_accuracy",
    ]
    untrained = RULES["IL"](0)
    assert isinstance(untrained, nd.Network)
    output = classes(13, 5)[0]
    for stage in untrained.forward:
        output = stage.forward(output)
    expected = 0.5 * (output - classes(13, 5)[1]).square().sum(1).mean()
    assert float(history.test_loss[0]) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("rule", ["backprop", "AR simplified"])
def test_seeds_are_measured_one_by_one(rule: str) -> None:
    seeds = [2, 0]
    together = fit([RULES[rule](seed) for seed in seeds], {"size": size, "weights": weights}, seeds=seeds)
    assert together["size"].dims == ("seed", "epoch")
    for seed in seeds:
        alone = fit(RULES[rule](seed), {"size": size, "weights": weights}, seed=seed)
        for name in ("size", "weights"):
            xr.testing.assert_allclose(together[name].sel(seed=seed).drop_vars("seed"), alone[name], rtol=1e-9)


@pytest.mark.parametrize("minutes", [0.0, 60.0])
def test_a_run_that_was_interrupted_measures_as_one_that_was_not(minutes: float, tmp_path: Path) -> None:
    class Crash(Exception):
        pass

    def until(limit: int) -> Any:
        calls = 0

        def fragile(network: Learning) -> float:
            nonlocal calls
            calls += 1
            if calls > limit:
                raise Crash
            return size(network)

        return fragile

    arguments: dict[str, Any] = {"epochs": 4, "checkpoint_minutes": minutes}
    whole = fit(RULES["AR simplified"](0), METRICS, **arguments)
    for limit in (2, 1):
        with pytest.raises(Crash):
            fit(RULES["AR simplified"](0), {**METRICS, "size": until(limit)}, checkpoint=tmp_path, **arguments)
    resumed = fit(RULES["AR simplified"](0), METRICS, checkpoint=tmp_path, **arguments)
    xr.testing.assert_identical(resumed.drop_vars("seconds"), whole.drop_vars("seconds"))
    with pytest.raises(ValueError, match="its metrics was 'size, norms, weights', and now is 'size'"):
        fit(RULES["AR simplified"](0), {"size": size}, checkpoint=tmp_path, **arguments)
    # With no epoch left to train, the labels come from the file.
    again = fit(RULES["AR simplified"](0), METRICS, checkpoint=tmp_path, **arguments)
    xr.testing.assert_identical(again, resumed)


def test_training_does_not_notice_them() -> None:
    def module() -> nn.Sequential:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Dropout(0.5), nn.Linear(9, 4)).double()

    def noisy(network: nn.Module) -> float:
        assert not network.training
        loss = (network(classes()[0]) + torch.randn(4)).square().sum()
        loss.backward()
        return float(loss.detach())

    measured, plain = module(), module()
    history = fit(measured, {"noisy": noisy})
    xr.testing.assert_identical(
        history.train_loss.sel(epoch=slice(1, None)).drop_attrs(), fit(plain, {}).train_loss.drop_attrs()
    )
    assert equal(measured, plain)
    assert measured.training


def test_a_declared_network_may_learn_in_them_what_it_does_not_apply() -> None:
    def update(network: nd.Network) -> float:
        for parameter in parameters(network):
            parameter.grad = None
        nd.backward(network, *classes())
        return float(torch.cat([p.grad.flatten() for p in trained(network) if p.grad is not None]).norm())

    measured, plain = pc.network(mlp(), learning="z-il"), pc.network(mlp(), learning="z-il")
    history = fit(measured, {"update": update})
    fit(plain, None)
    assert equal(measured, plain)
    assert bool((history["update"] > 0).all())


def test_a_run_that_diverges_keeps_what_was_measured() -> None:
    with pytest.raises(nd.train.DivergedError) as caught:
        fit(mlp(), {"size": size}, learning_rate=1e200)
    assert caught.value.history.epoch.values.tolist() == [0]
    assert float(caught.value.history["size"][0]) == pytest.approx(size(mlp()))


def test_real_numbers_of_every_kind_are_kept(tmp_path: Path) -> None:
    found = fit(
        mlp(),
        {
            "count": lambda module: 3,
            "flag": lambda module: np.True_,
            "half": lambda module: torch.tensor([0.5], dtype=torch.bfloat16),
            "rows": lambda module: [[1, 2], [3, 4]],
            "nothing": lambda module: float("nan"),
            "labels": lambda module: xr.DataArray([1.0], dims="k", coords={"k": [np.nan], "at": 3}),
        },
    )
    assert {str(variable.dtype) for variable in found.data_vars.values()} == {"float64"}
    assert found["count"].values.tolist() == [3] * 3
    assert found.flag.values.tolist() == [1] * 3
    assert found.half.values.tolist() == [[0.5]] * 3
    assert found.rows.values.tolist() == [[[1, 2], [3, 4]]] * 3
    assert bool(found.nothing.isnull().all())
    xr.testing.assert_identical(nd.load(nd.save(found, tmp_path / "history.nc")), found)


def growing() -> Any:
    calls: list[None] = []

    def function(network: Learning) -> np.ndarray:
        calls.append(None)
        return np.zeros(len(calls))

    return function


def relabelled() -> Any:
    calls: list[None] = []

    def function(network: Learning) -> xr.DataArray:
        calls.append(None)
        return xr.DataArray(np.zeros(1), dims="unit", coords={"unit": [len(calls)]})

    return function


def by_unit(*labels: float) -> Any:
    return lambda network: xr.DataArray(np.zeros(len(labels)), dims="unit", coords={"unit": list(labels)})


def doubling(network: nn.Module) -> float:
    with torch.no_grad():
        next(network.parameters()).mul_(2)
    return 0.0


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (len, "metrics is a mapping from names to functions"),
        ([size], "metrics is a mapping from names to functions"),
        ({3: size}, "a name is text, not 3"),
        ({"size": 3.0}, "'size' is a function of the network, not 3.0"),
        ({"": size}, "'' is a name that the history has itself"),
        ({"test_loss": size}, "'test_loss' is a name that the history has itself"),
        ({"angle_by_iteration": size}, "'angle_by_iteration' is a name that the history has itself"),
        ({"epoch": size}, "'epoch' is a name that the history has itself"),
        ({"text": lambda network: "3"}, "'text' returns a real number, .* not a str"),
        ({"none": lambda network: None}, "'none' returns a real number, .* not a NoneType"),
        ({"rows": lambda network: [[1], [1, 2]]}, "'rows' returns a real number, .* not a list"),
        ({"phase": lambda network: 1j}, "'phase' returns a real number, .* not a complex"),
        ({"phase": lambda network: torch.ones(2) * 1j}, "'phase' returns .* not a Tensor of torch.complex64"),
        ({"all": lambda network: xr.Dataset({"a": 1.0})}, "'all' returns a real number, .* not a Dataset"),
        ({"more": growing()}, r"'more' has the shape \(1,\) before training, and \(2,\) after an epoch"),
        ({"other": relabelled()}, "'other' has the coordinates .* before training, and .* after an epoch"),
        ({"a": by_unit(1, 2), "b": by_unit(1, 3)}, "'b' has other labels for 'unit' than 'a'"),
        ({"a": by_unit(1, 2), "unit": size}, "'a' has a dimension or coordinate 'unit'"),
        ({"a": lambda network: xr.DataArray([0.0], dims="epoch")}, "'a' has a dimension or coordinate 'epoch'"),
        (
            {"a": lambda n: xr.DataArray([0.0], dims="k"), "b": lambda n: xr.DataArray([0.0, 1.0], dims="k")},
            "do not fit into one dataset .*'k'",
        ),
        ({"double": doubling}, "'double' changed the weights that it measures"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(metrics: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        fit(mlp(), metrics)
    assert isinstance(caught.value, nd.errors.NeurodynError)


def test_what_differs_from_the_history_or_among_seeds_is_refused(tmp_path: Path) -> None:
    def layers(network: Learning) -> xr.DataArray:
        return xr.DataArray([0.0], dims="layer", coords={"layer": ["first"]})

    with pytest.raises(ValueError, match="'of' has other labels for 'layer' than the history"):
        fit(ar.network(mlp()), {"of": layers}, record="angles")
    assert fit(ar.network(mlp()), {"of": layers}).layer.values.tolist() == ["first"]
    with pytest.raises(ValueError, match=r"'few' has the shape \(1,\) for seed 7, and \(2,\) for seed 5"):
        fit([mlp(0), mlp(1)], {"few": growing()}, seeds=[7, 5])
    when = {"at": lambda network: xr.DataArray([0.0], dims="day", coords={"day": np.array(["2020-01-01"], "M8[ns]")})}
    assert fit(mlp(), when).day.dtype.kind == "M"
    with pytest.raises(TypeError, match="the state of metric 'at' holds a datetime"):
        fit(mlp(), when, checkpoint=tmp_path)
