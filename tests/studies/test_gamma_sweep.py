"""The study of γ, at toy size: its files, and what the theory says of them."""

import gamma_sweep as study
import matplotlib
import numpy as np
import pytest
import torch
import tyro
import xarray as xr
from common.divergence import Options, alike, diverge, logistic

import neurodyn as nd
from neurodyn.models import predictive_coding as pc

matplotlib.use("agg")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run the study once, as its command line would."""
    out = tmp_path_factory.mktemp("gamma_sweep")
    small = {"GAMMAS": (0.1, 1.0, 10.0), "NEAR": (0.99, 1.01), "SAMPLES": 2}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in small.items():
            patch.setattr(study, name, value)
        arguments = ["--hidden", "2", "--width", "6", "--epochs", "1", "--samples", "40", "--seeds", "1"]
        arguments += ["--times", "l", "0", "2", "64"]
        study.main(tyro.cli(study.Options, args=[*arguments, "--out", str(out)]))
    return out


def test_it_writes_what_it_promises(results):
    figures = {f"gamma_sweep{part}{kind}" for part in ("", "_near_1") for kind in (".png", ".pdf")}
    data = {"training.nc", "near_1.nc", "rows.json"}
    assert {path.name for path in results.iterdir()} == figures | data
    assert nd.load(results / "training.nc").attrs["dataset"] == "digits"


def test_divergence_is_zero_with_c2_and_c3_and_nowhere_else(results):
    training = nd.load(results / "training.nc")
    exact = (training.time == "l") & (training.gamma == 1.0)
    assert float(training.weights.where(exact).max()) < 1e-12
    assert float(training.test_error.where(exact).max()) == 0
    # With one hidden layer, t = 1 and γ = 1 gives W_1 the same update, but not W_2, which had its moment at 0.
    assert float(training.weights.where(~exact).min()) > 1e-4


def test_before_the_first_step_gamma_makes_no_difference(results):
    weights = nd.load(results / "training.nc").weights.sel(time="0")
    # The first order of the samples is that of the first γ, and of the last, which learns apart.
    np.testing.assert_allclose(weights.sel(gamma=0.1), weights.sel(gamma=10.0), rtol=1e-9)


def test_diverged_runs_are_kept_as_such(results):
    training = nd.load(results / "training.nc")
    assert int(training.diverged.sel(time="64", gamma=10.0).sum()) > 0
    np.testing.assert_array_equal(training.diverged == 1, training.weights.isnull())


def test_the_update_at_t_l_is_backprops_times_a_power_of_gamma():
    deviation, factors = study.scaling(study.Options(hidden=(1, 2)))
    assert deviation < 1e-9
    np.testing.assert_allclose(factors, factors.gamma**factors.above, rtol=1e-9)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_divergence_is_what_loops_by_hand_end_with(noise):
    options = Options(hidden=(1,), width=4, epochs=2, batch=20, samples=50, seeds=(1, 7))
    rule = {"learning": "il", "steps": 3, "step": 0.4, "initial_noise": noise}
    results, reference = diverge(options, 1, [rule])
    train, (test_inputs, test_targets) = options.load()[0][:50], options.load()[1][:]
    for seed in options.seeds:
        errors = np.zeros((2, 2))
        modules = [logistic([64, 4, 10], seed).double() for _ in range(2)]
        start = [p.detach().clone() for p in modules[0].parameters()]
        network = pc.network(modules[1], **rule)
        torch.manual_seed(seed)
        for which, module in enumerate(modules):
            for epoch in (1, 2):
                for inputs, targets in nd.train.batches(train, 20, seed=seed, epoch=epoch):
                    module.zero_grad()
                    if which:
                        nd.backward(network, inputs.double(), targets.double())
                    else:
                        (0.5 * (module(inputs.double()) - targets).square().sum(1).mean()).backward()
                    for p in module.parameters():
                        assert p.grad is not None
                        p.data -= 0.1 * p.grad
                right = module(test_inputs.double()).argmax(1) == test_targets.argmax(1)
                errors[which, epoch - 1] = 100 * float((~right).double().mean())
        found, moved = results.sel(seed=seed).isel(rule=0), reference.moved.sel(seed=seed)
        pairs = list(zip(*(list(module.parameters()) for module in modules), start, strict=True))
        assert float(found.weights) == pytest.approx(sum(float((a - b).detach().norm()) for a, b, _ in pairs), rel=1e-9)
        assert float(moved) == pytest.approx(sum(float((a - s).detach().norm()) for a, _, s in pairs), rel=1e-9)
        assert float(found.test_error) == pytest.approx(float(np.abs(errors[1] - errors[0]).mean()), abs=1e-9)
        np.testing.assert_allclose(reference.test_error.sel(seed=seed), errors[0], atol=1e-9)


def test_each_network_is_a_point_of_a_sweep(monkeypatch, tmp_path):
    monkeypatch.setattr(study, "GAMMAS", (0.5, 1.0))
    options = study.Options(hidden=(1,), width=4, epochs=1, samples=40, seeds=(3, 8), times=("l",), quiet=True)
    swept = study.stored(options, tmp_path / "sweep.zarr")
    whole = study.sweep(options)
    assert dict(swept.sizes) == dict(whole.sizes)
    for name in whole.data_vars:
        assert swept[name].dims == whole[name].dims
    assert float(swept.weights.sel(time="l", gamma=1.0).max()) < 1e-12
    # The first of the rules that learn at once sees the samples in its seed's own order, too.
    np.testing.assert_allclose(swept.weights.sel(gamma=0.5), whole.weights.sel(gamma=0.5), rtol=1e-9)
    monkeypatch.setattr(nd.train, "fit", None)  # nothing is trained again
    xr.testing.assert_identical(study.stored(options, tmp_path / "sweep.zarr"), swept)


def test_networks_that_learn_at_once_share_what_a_rule_alone_has():
    options = Options(hidden=(1,), width=5, epochs=1, samples=40, seeds=(3, 8))
    rules = [study.rule("l", gamma) for gamma in (0.5, 1.0, 5.0)] + [{"learning": "z-il", "initial_noise": 0.1}]
    assert alike([*rules, study.rule("l", 10.0)]) == [[0, 1], [2, 4], [3]]
    together, _ = diverge(options, 1, rules[:2])
    alone, _ = diverge(options, 1, rules[:1])
    np.testing.assert_allclose(together.weights.isel(rule=0), alone.weights.isel(rule=0), rtol=1e-9)
    assert float(together.weights.isel(rule=1).max()) < 1e-12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"times": ("0", "1")}, "^times: among them is 'l'"),
        ({"workers": 2}, "^workers: 2 share the work by a store"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        study.main(study.Options(**options))
