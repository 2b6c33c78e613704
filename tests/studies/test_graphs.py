"""The study of computation graphs, on small ones: what its files say."""

from functools import cache

import graphs
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tyro

import neurodyn as nd

matplotlib.use("agg")
NAMES = ("resnet", "lstm", "transformer")
CASE = graphs.Case


@cache
def captured(architecture, size, seed):
    return CASE(graphs.Options(), architecture, size, seed)


def case(options, architecture, size, seed):
    """Return a network of the study, on its own data, which takes seconds to capture."""
    assert options.dataset == graphs.Options().dataset
    return captured(architecture, size, seed)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run the study once, as its command line would."""
    out = tmp_path_factory.mktemp("graphs")
    arguments = ["--sizes", "1", "2", "--steps", "2", "--seeds", "3", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "SAVED", 41)
        patch.setattr(graphs, "SAMPLES", 4)
        patch.setattr(graphs, "TRIED", 25)
        patch.setattr(graphs, "Case", case)
        graphs.main(tyro.cli(graphs.Options, args=arguments))
    return out


@pytest.fixture(scope="module")
def scaling(results):
    return nd.load(results / "scaling.nc")


def relaxation(results, name):
    return nd.load(results / f"relaxation_{name}.nc")


def test_it_writes_what_it_promises_and_leaves_nothing_half_written(results):
    names = {path.name for path in results.iterdir()}
    assert names == {*(f"relaxation_{name}.nc" for name in NAMES), "scaling.nc", "graphs.png", "graphs.pdf"} | {
        "rows.json"
    }
    assert plt.imread(results / "graphs.png").shape[2] in (3, 4)
    assert nd.load(results / "scaling.nc").attrs["seeds"] == "3"


@pytest.mark.parametrize("name", NAMES)
def test_every_node_ends_at_its_gradient_the_deeper_the_later(results, name):
    found = relaxation(results, name)
    assert found.gradient_error < 1e-12
    assert bool((found.distance.isel(time=-1) < graphs.TOLERANCE).all())
    arrival = graphs.arrival(found)
    depth = found.depth.values[found.depth.values > 0]
    assert len(arrival) == len(depth)
    assert np.corrcoef(depth, arrival)[0, 1] > 0.9
    assert {"x_linear_1", "x_conv2d_1"} & set(found.node.values.tolist())


def test_the_output_is_held_at_its_gradient(results):
    for name in NAMES:
        found = relaxation(results, name)
        assert float(found.distance.isel(node=found.depth == 0).max()) == 0


def test_depths_are_longest_paths():
    depth = captured("ResNet", 1, 3).depths
    # Stem, convolution, normalisation, ReLU, and the same again but for the sum before the last, a mean, a readout.
    assert depth["x_linear_1"] == 0
    assert depth["x_conv2d_3"] == depth["x_add_1"] + 2
    assert depth["x_conv2d_1"] == depth["x_conv2d_2"] + 1 == max(depth.values())


def test_a_step_of_1_takes_at_most_the_depth_and_deeper_graphs_take_longer(scaling):
    assert bool((scaling.iterations.sel(step=1) <= scaling.depth).all())
    assert bool((scaling.iterations.diff("step") < 0).all())
    for name in graphs.ARCHITECTURES:
        runs = scaling.isel(run=scaling.architecture == name).sortby("size")
        assert runs["size"].values.tolist() == [1, 2]
        assert bool((runs.iterations.diff("run") > 0).all())


def test_the_iterations_are_those_of_eulers_method(scaling):
    case = captured("LSTM", 1, 3)
    run = int(np.flatnonzero((scaling.architecture == "LSTM") & (scaling["size"] == 1))[0])
    count = int(scaling.iterations.isel(run=run, seed=0).sel(step=0.5))
    moments = 0.5 * np.arange(count + 3)
    distance = case.distance(moments[-1], nd.Euler(0.5), moments).max("node").values
    assert distance[count - 1] > graphs.TOLERANCE
    assert (distance[count:] <= graphs.TOLERANCE).all()


def test_the_summary_says_what_the_files_say(results, scaling):
    relaxations = {name: relaxation(results, name) for name in NAMES}
    text = graphs.summary(relaxations, scaling)
    assert "LSTM, 2 time steps" in text
    for run in range(scaling.sizes["run"]):
        assert f"{scaling.iterations.isel(run=run, seed=0).sel(step=0.1).item()}" in text


@pytest.mark.parametrize(("depth", "step"), [(1, 0.1), (7, 0.5), (7, 1.0)])
def test_a_chain_takes_what_is_predicted(depth, step):
    value = np.append(1.0, np.zeros(depth))  # the first is held
    count = 0
    while (1 - value).max() > graphs.TOLERANCE:
        value[1:] += step * (value[:-1] - value[1:])
        count += 1
    assert graphs.predicted(depth, step) == count


def test_options_that_make_no_network_are_refused():
    with pytest.raises(ValueError, match="an image of 64 values has no 3 equal parts for 3 time steps"):
        graphs.Case(graphs.Options(), "LSTM", 3, 0)
