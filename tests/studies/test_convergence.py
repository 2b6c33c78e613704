"""The convergence study, on a small network: what its files say."""

import convergence
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import tyro
from common.training import angle

import neurodyn as nd

matplotlib.use("agg")
LAYERS = 3


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run the study once, as its command line would."""
    out = tmp_path_factory.mktemp("convergence")
    arguments = ["--layers", "9", "7", "--seeds", "3", "5", "--activation", "sigmoid", "--out", str(out)]
    # Of torchdiffeq, which takes long, every fourth tolerance.
    fewer = [run for place, run in enumerate(convergence.solvers()) if place % 4 == 0 or "torchdiffeq" not in run[0]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convergence, "solvers", lambda: fewer)
        patch.setattr(convergence, "PRECISION_AT", 5.0)
        patch.setattr(convergence, "LEARNED_EPOCHS", 1)
        convergence.main(tyro.cli(convergence.Options, args=arguments))
    return out


def test_it_writes_what_it_promises_and_leaves_nothing_half_written(results):
    names = {path.name for path in results.iterdir()}
    figures = {f"convergence{name}.{kind}" for name in ("", "_papers") for kind in ("png", "pdf")}
    assert names == figures | {"trajectory.nc", "sweep.nc", "work_precision.nc", "papers.nc", "energy.nc", "rows.json"}
    assert plt.imread(results / "convergence.png").shape[2] in (3, 4)
    for name in ("trajectory", "sweep", "work_precision"):
        assert nd.load(results / f"{name}.nc").attrs["layers"] == "64-9-7-10"


def test_the_papers_steps_are_a_loop_of_eulers_and_approach_backprop(results):
    papers = nd.load(results / "papers.nc").sel(weights="first")
    assert float(papers.angle.sel(layer=papers.layer[0], iterations=100)) > 1e-3
    assert float(papers.angle.isel(iterations=-1).max()) < 1e-6
    options = convergence.Options(layers=(9, 7), activation="sigmoid", seeds=(3,))
    case = convergence.Case.draw(options, seed=3)
    stages = case.network.forward
    values, slopes = [case.inputs], []
    for stage in stages:
        weight, bias = stage.parameters
        values.append(values[-1] @ weight.T + bias)
        slopes.append(torch.ones_like(values[-1]))
        if stage is not stages[-1]:
            values[-1] = values[-1].sigmoid()
            slopes[-1] = values[-1] * (1 - values[-1])
    states = [*values[1:-1], values[-1] - case.targets]
    for _ in range(25):
        rates = [
            -x + (above * slope) @ stage.parameters[0]
            for x, above, slope, stage in zip(states, states[1:], slopes[1:], stages[1:], strict=False)
        ]
        states = [*(x + 0.1 * rate for x, rate in zip(states, rates, strict=False)), states[-1]]
    mine = (states[0] * slopes[0]).T @ case.inputs
    exact = (torch.as_tensor(case.gradients.x1.to_numpy()) * slopes[0]).T @ case.inputs
    assert float(papers.angle.isel(layer=0).sel(iterations=25)) == pytest.approx(angle(mine, exact), rel=1e-6)


def test_the_energy_starts_at_0_and_far_out_is_that_of_the_activation(results):
    found = nd.load(results / "energy.nc")
    assert float(abs(found.energy.isel(time=0)).max()) < 1e-12
    assert float(found.energy.max("time").min()) < 1e-12
    assert float(found.energy.isel(time=-1).max()) < -1e-3
    # What is bounded, as a sigmoid, is nothing beside r²; a ReLU is not.
    far = found.along.isel(length=-1)
    np.testing.assert_allclose(far.sel(weights="sigmoid, first").isel(layer_above=0), 1, atol=1e-4)
    relu = found.along.sel(weights="relu, learned").isel(layer_above=0)
    assert float(relu[-1]) < 0.999
    assert float(relu[-1]) == pytest.approx(float(relu[-2]), abs=1e-3)


def test_no_direction_is_steeper_than_the_steepest():
    module = nd.mlp([6, 8, 5], activation="relu", seed=1, dtype=torch.float64)
    stage = nd.cut(module)[0]
    directions = torch.randn(2000, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    directions = torch.cat([directions / directions.norm(dim=1, keepdim=True), convergence.steepest(stage)[None]])
    with torch.no_grad():
        lengths = (directions @ stage.parameters[0].T).relu().norm(dim=1)
    assert int(lengths.argmax()) == 2000


def test_the_trajectory_ends_at_the_gradients(results):
    trajectory = nd.load(results / "trajectory.nc")
    assert trajectory.sizes["seed"] == 2
    assert trajectory.x2.dims == ("seed", "time", "sample", "x2_unit")
    case = convergence.Case.draw(convergence.Options(layers=(9, 7), activation="sigmoid"), seed=5)
    for name, gradient in case.gradients.data_vars.items():
        recorded = trajectory[name].sel(seed=5, time=convergence.DURATION)
        kept = gradient.isel(sample=slice(trajectory.sizes["sample"]))
        np.testing.assert_allclose(recorded, kept, rtol=0, atol=1e-5)


def test_distances_fall_as_the_closed_form_says(results):
    trajectory = nd.load(results / "trajectory.nc")
    first, last = (trajectory.distance.sel(time=t) for t in (0, convergence.DURATION))
    assert bool((last < 1e-10 * first).all())
    late = trajectory.distance.sel(time=slice(LAYERS, None))
    assert bool((late.diff("time") < 0).all())
    np.testing.assert_allclose(trajectory.distance, trajectory.distance_expected, rtol=0.05)


def test_a_step_of_1_is_exact_after_as_many_iterations_as_layers(results):
    distance = nd.load(results / "sweep.nc").distance.sel(step=1)
    for above, layer in enumerate(["x3", "x2", "x1"]):
        exact = distance.sel(layer=layer) < 1e-28
        assert not bool(exact.sel(iteration=above))
        assert bool(exact.sel(iteration=slice(above + 1, None)).all())


def test_2_is_the_stability_limit(results):
    distance = nd.load(results / "sweep.nc").distance
    start, end = distance.isel(iteration=0), distance.isel(iteration=-1)
    grows = (end > start).all("layer")
    assert grows.step[grows].values.tolist() == [2.05]
    assert not bool((end > start).any("layer").sel(step=slice(None, 1.9)).any())


def test_a_higher_order_pays_where_precision_is_wanted(results):
    precision = nd.load(results / "work_precision.nc")
    families = set(precision.solver.values)
    assert {name for name in families if name.startswith("Adaptive")} == {
        f"Adaptive {method}" for method in ("heun_euler", "bosh3", "dopri5", "tsit5")
    }
    assert sum(name.startswith("torchdiffeq") for name in families) == 3

    def cost(name):
        runs = precision.sel(solver=name)
        return int(runs.evaluations.where(runs.error < 1e-5).min())

    assert cost("RK4") < cost("Heun")
    assert cost("Adaptive tsit5") < cost("Adaptive bosh3") < cost("Adaptive heun_euler")
    assert float(precision.error.min()) < 1e-11
    for name, order in {"Euler": 1, "Heun": 2, "RK4": 4}.items():
        runs = precision.sel(solver=name)
        slope = np.polyfit(np.log(runs.evaluations[-3:]), np.log(runs.error[-3:]), 1)[0]
        assert slope == pytest.approx(-order, abs=0.2)


def test_the_summary_says_what_the_files_say(results):
    files = [nd.load(results / f"{name}.nc") for name in ("trajectory", "sweep", "work_precision")]
    text = convergence.summary(*files)
    assert "digits, layers 64-9-7-10, sigmoid" in text
    assert "farther than they began: 2.05\n" in text
    assert f"{float(files[0].distance.sel(layer='x1', time=20).mean()):.1e}" in text
