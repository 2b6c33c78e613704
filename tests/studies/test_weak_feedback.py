"""The study of the circuit with weak feedback, at toy size."""

import matplotlib
import numpy as np
import pytest
import tyro
import weak_feedback as study

import neurodyn as nd

matplotlib.use("agg")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run the study once, as its command line would."""
    out = tmp_path_factory.mktemp("weak_feedback")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "GAMMAS", (1e-6, 1e-3, 1e-2, 0.1, 0.5))
        patch.setattr(study, "DURATION", 15.0)
        patch.setattr(study, "TIMES", np.linspace(0.0, 15.0, 31))
        arguments = ["--width", "4", "--layers", "3", "--samples", "2", "--seeds", "0", "--out", str(out)]
        study.main(tyro.cli(study.Options, args=arguments))
    return out


def test_it_writes_what_it_promises(results):
    assert {path.name for path in results.iterdir()} == {f"weak_feedback.{kind}" for kind in ("png", "pdf", "nc")}


def test_the_equilibrium_carries_the_targets_up_to_gamma(results):
    found = nd.load(results / "weak_feedback.nc").isel(seed=0)
    distance = found.distance.sel(rule="itp").max("layer")
    for gamma in (1e-6, 1e-3):
        assert float(distance.sel(gamma=gamma).max()) < 3 * gamma
    np.testing.assert_allclose(distance.sel(gamma=1e-3), 1e3 * distance.sel(gamma=1e-6), rtol=0.05)


def test_the_abscissa_of_itp_is_that_of_a_chain_whatever_the_weights(results):
    found = nd.load(results / "weak_feedback.nc").sel(rule="itp", gamma=[1e-2, 0.1, 0.5])
    start = found.abscissa_at_start.transpose(..., "gamma")
    np.testing.assert_allclose(start, np.broadcast_to(found.expected, start.shape), atol=1e-3)


def test_the_circuit_relaxes_to_its_equilibrium(results):
    found = nd.load(results / "weak_feedback.nc").sel(gamma=[1e-6, 1e-3])
    assert float(found.remaining.isel(time=-1).max()) < study.SETTLED < float(found.remaining.isel(time=0).min())
    assert float(found.relaxation_time.min()) > 1


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="layers must be an integer ≥ 2, not 1"):
        study.Options(layers=1)
