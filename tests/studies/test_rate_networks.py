"""The study of rate networks, on small ones: what its files say."""

import ast
import inspect

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import rate_networks as study
import tyro

import neurodyn as nd

matplotlib.use("agg")
DECLARED = (study.wilson_cowan, study.ring_attractor, study.random_network, study.fitzhugh_nagumo, study.working_memory)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run the study once, as its command line would."""
    out = tmp_path_factory.mktemp("rate_networks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "GAINS", (0.5, 0.9, 3.0))
        patch.setattr(study, "TRANSIENT", 20.0)
        patch.setattr(study, "AVERAGED", 40.0)
        patch.setattr(study, "BRANCH_STEP", 0.4)
        patch.setattr(study, "CURRENTS", (0.2, 0.8))
        arguments = ["--units", "60", "--ring", "24", "--samples", "200", "--seeds", "0", "--out", str(out)]
        study.main(tyro.cli(study.Options, args=arguments))
    return {path.stem: nd.load(path) for path in out.glob("*.nc")} | {"out": out}


def test_it_writes_what_it_promises(results):
    names = {path.name for path in results["out"].iterdir()}
    data = ("wilson_cowan", "ring_attractor", "random_network", "fitzhugh_nagumo", "working_memory")
    assert names == {"rate_networks.png", "rate_networks.pdf", *(f"{name}.nc" for name in data)}
    assert plt.imread(results["out"] / "rate_networks.png").shape[2] in (3, 4)


@pytest.mark.parametrize("declare", DECLARED, ids=lambda each: each.__name__)
def test_each_is_declared_in_15_lines(declare):
    body = ast.parse(inspect.getsource(declare)).body[0]
    assert isinstance(body, ast.FunctionDef)
    assert (body.end_lineno or 0) - body.body[1].lineno < 15


def test_what_it_finds_is_what_is_known(results):
    assert float(results["wilson_cowan"].error) < 1e-6
    assert float(results["working_memory"].error.max()) < 1e-5
    neuron = results["fitzhugh_nagumo"]
    np.testing.assert_allclose(neuron.parameter_at, neuron.hopf_expected, atol=1e-8)
    resting, firing = neuron.cycle.values
    assert np.ptp(resting) < 0.1
    assert np.ptp(firing) > 3
    random = results["random_network"].squeeze()
    np.testing.assert_allclose(random.exponent[:2], random.of_rest[:2], atol=0.05)
    assert float(random.exponent[2]) > 0
    ring = results["ring_attractor"].attrs
    assert ring["diffusion"] == pytest.approx(ring["diffusion_expected"], rel=0.3)


def test_a_cue_is_remembered_in_the_synapses(results):
    memory = results["working_memory"]
    late, silent = memory.time >= study.PULSE[0], (memory.time > 1.3) & (memory.time < study.PULSE[0])
    cue, none = memory.R.where(late).max("time").values.ravel()
    assert cue > 5 * none
    assert float(memory.R.where(silent).max()) < 0.2
