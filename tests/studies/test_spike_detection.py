"""The study of spikes, at toy size: its files, and what is known of φ without it."""

import matplotlib
import numpy as np
import pytest
import spike_detection as study
import torch
import tyro
from common.presentation import OUTCOMES, present

import neurodyn as nd
from neurodyn.models import predictive_coding as pc

matplotlib.use("agg")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run the study once, as its command line would."""
    out = tmp_path_factory.mktemp("spike_detection")
    windows = (1, 2, 4, 16)
    small = {"WINDOWS": windows, "PUBLISHED": study.PUBLISHED[: len(windows)], "EPOCHS": 2, "PREDICTION_STEPS": 20}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in small.items():
            patch.setattr(study, name, value)
        arguments = ["--layers", "2", "4", "--samples", "6", "--steps", "12", "--seeds", "0", "--out", str(out)]
        study.main(tyro.cli(study.Options, args=arguments))
    return out


def test_it_writes_what_it_promises(results):
    data = {"depth.nc", "causes.nc", "raster_logistic.nc", "raster_relu.nc", "repaired.nc", "rows.json"}
    assert {path.name for path in results.iterdir()} == data | {"spike_detection.png", "spike_detection.pdf"}
    assert nd.load(results / "causes.nc").attrs["steps"] == "12"


def test_every_unit_has_one_outcome(results):
    for name in ("depth", "causes"):
        share = nd.load(results / f"{name}.nc").share
        np.testing.assert_allclose(share.sum("outcome"), 1)


def test_a_longer_window_lets_no_more_through(results):
    # A spike needs a quiet window: a longer one can only take spikes away.
    share = nd.load(results / "causes.nc").share
    repeated = share.sel(outcome=OUTCOMES[1])
    assert bool((repeated.diff("window") <= 1e-12).all())


def test_logistic_units_spike_in_time_and_so_learn_as_backprop(results):
    causes = nd.load(results / "causes.nc").sel(case=["basic", "learning", "trained"], window=4)
    np.testing.assert_array_equal(causes.share.sel(outcome=OUTCOMES[0]), 1)
    assert float(causes.update_distance.max()) < 1e-4
    raster = nd.load(results / "raster_logistic.nc").spikes
    first = raster.argmax("time")
    np.testing.assert_array_equal(first, 4 - raster.layer)


def test_units_without_feedback_are_why_relu_fails(results):
    causes = nd.load(results / "causes.nc").sel(window=4)
    assert float(causes.share.sel(case="relu", outcome=OUTCOMES[0]).max()) < 0.9
    np.testing.assert_array_equal(causes.failed_without_feedback.sel(case=["relu", "pooled"]), 1)
    assert float(causes.update_distance.sel(case="relu").min()) > 1e-3


def test_the_repaired_gate_makes_the_update_of_backprop_and_the_papers_does_not(results):
    off = nd.load(results / "repaired.nc").off.sel(presented="L − 1")
    assert (
        float(off.sel(phi="moved").max()) < study.ROUNDING < float(off.sel(phi="error", case=["relu", "pooled"]).min())
    )


def test_ties_are_counted():
    images = torch.tensor([[[[1.0, 1, 0, 3], [0, 0, 2, 3], [5, 4, 0, 0], [3, 2, 0, 0]]]])
    assert study.ties(torch.nn.Sequential(torch.nn.MaxPool2d(2)), images) == 0.75


def test_rounding_is_gone_in_float64(results):
    causes = nd.load(results / "causes.nc").sel(window=4)
    np.testing.assert_array_equal(causes.share.sel(case="double", outcome=OUTCOMES[0]), 1)


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("case", ["relu", "pooled"])
def test_the_update_that_spikes_make_is_that_of_backward(case, window):
    options = study.Options(samples=5)
    chosen_case = study.cases(9)[case]
    shown = present(chosen_case, *study.draw_pairs(chosen_case, options, seed=3))
    data, _ = nd.data.digits(flatten=False)
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(3))[:5]
    module = study.cases(9)[case].build((1, 8, 8), 10, 3)
    steps = int(shown.run.time[-1])
    nd.backward(pc.network(module, learning="fa-z-il", steps=steps, spike_window=window), *data[chosen])
    found = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    exact = torch.cat([gradient.flatten() for stage in shown.gradients for gradient in stage])
    assert shown.update_distance(window) == pytest.approx(float((found - exact).norm() / exact.norm()), rel=1e-4)


def test_too_few_steps_for_the_deepest_network_are_refused():
    with pytest.raises(ValueError, match=r"^steps: at least 9, for .* 10 layers, not 8"):
        study.main(study.Options(layers=(2, 10), steps=8))
