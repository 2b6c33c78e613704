"""The study of training by target propagation, at toy size."""

import gait_training as study
import matplotlib
import numpy as np
import pytest
import torch
import tyro
from common.gait_update import ALL, AS_IT_IS, ROWS, SINGLE, SMALLER, modules

import neurodyn as nd

matplotlib.use("agg")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run the study once, as its command line would."""
    out = tmp_path_factory.mktemp("gait_training")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "STRENGTHS", (0.0,))
        patch.setattr(study, "BATCH", 90)
        arguments = ["--hidden", "2", "--tower", "20", "10", "--epochs", "3", "--seeds", "1"]
        study.main(tyro.cli(study.Options, args=[*arguments, "--out", str(out)]))
    return out


def test_it_writes_what_it_promises(results):
    figures = {f"gait_training{name}.{kind}" for name in ("", "_regularizer") for kind in ("png", "pdf")}
    assert {path.name for path in results.iterdir()} == figures | {
        "gait_training.nc",
        "scan.nc",
        "causes.nc",
        "rows.json",
    }
    found = nd.load(results / "gait_training.nc")
    assert found.layers.values.tolist() == ["64-64-64-64", "64-64-64-64", "64-20-10"]
    assert found.test_accuracy.dims == ("network", "rule", "seed", "epoch")


def test_gait_prop_keeps_up_with_backprop_and_tp_does_not(results):
    end = nd.load(results / "gait_training.nc").test_accuracy.isel(epoch=-1, seed=0)
    wide = end.sel(network="2 hidden")
    exact = float(wide.sel(rule="BP"))
    assert exact > 75
    assert float(wide.sel(rule="GAIT-prop")) > exact - 8
    assert float(wide.sel(rule="TP, regularized")) < exact - 20


def test_backprop_with_the_regularizer_stays_closer_to_orthogonal_rows(results):
    found = nd.load(results / "gait_training.nc").isel(seed=0)
    off = found.orthogonality.isel(epoch=-1).sel(network="2 hidden")
    assert float(off.sel(rule="BP, regularized")) < 0.5 * float(off.sel(rule="BP"))
    assert float(found.orthogonality.isel(epoch=0).max()) < 1e-12
    angle = found.update_angle.sel(rule="GAIT-prop")
    assert float(angle.isel(epoch=0).max()) < 1 < float(angle.sel(network="2 hidden").isel(epoch=-1))


def test_what_turns_the_update_away_is_the_weights_and_neither_the_step_nor_the_precision(results):
    angle = nd.load(results / "causes.nc").angle.sel(network=["2 hidden", "tower"]).isel(seed=0)
    as_it_is = angle.sel(change=AS_IT_IS)
    assert float(as_it_is.min()) > 1
    for change in (SMALLER, SINGLE):
        np.testing.assert_allclose(angle.sel(change=change), as_it_is, rtol=0.01)
    assert bool((angle.sel(change=ROWS) < as_it_is).all())
    assert float(angle.sel(change=ALL).max()) < 1e-6


def test_what_the_comparison_has_trained_the_scan_takes_from_it(monkeypatch):
    monkeypatch.setattr(study, "BATCH", 180)
    monkeypatch.setattr(study, "STRENGTHS", (0.0, 0.1))
    options = study.Options(hidden=(1,), tower=(20, 10), epochs=1, seeds=(0,), quiet=True)
    found, _ = study.compare(options)
    own, starts = study.train, []

    def counted(*given):
        starts.append(given[-1])
        return own(*given)

    monkeypatch.setattr(study, "train", counted)
    scanned = study.scan(options, found)
    assert starts == 4 * ["xavier"]
    # What is taken is what would have been trained.
    rule = study.RULES["GAIT-prop, regularized"]
    again, _ = own(options, rule, options.tower, "leaky_relu", "orthogonal")
    taken = scanned.sel(start="tower, orthogonal start", rule="GAIT-prop", strength=0.1)
    np.testing.assert_allclose(taken.test_accuracy, again.test_accuracy, atol=0.5)
    np.testing.assert_allclose(taken.update_angle, again.update_angle, rtol=1e-3, atol=1e-3)


def test_backprop_with_a_regularizer_takes_the_step_of_backprop_and_of_the_regularizer():
    rule = study.RULES["BP, regularized"]
    network = rule.declare([12, 12, 12], 5, seed=0, start="xavier")
    assert isinstance(network, nd.Network)
    inputs, targets = torch.randn(3, 12, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    nd.backward(network, inputs, targets)
    module = modules(network)
    weights = [part for part in module.parameters() if part.ndim == 2]
    off = sum(((w @ w.T) * (1 - torch.eye(12, dtype=torch.float64))).square().sum() for w in weights)
    objective = 0.5 * (module(inputs) - targets).square().sum() / 3 + rule.strength * off
    for found, expected in zip(weights, torch.autograd.grad(objective, weights), strict=True):
        torch.testing.assert_close(found.grad, expected)


def test_the_regularizer_is_that_of_the_rule():
    rule = study.RULES["GAIT-prop, regularized"]
    network = rule.declare([12, 12, 12], 5, seed=0)
    plain = study.RULES["GAIT-prop"].declare([12, 12, 12], 5, seed=0)
    assert isinstance(network, nd.Network)
    assert isinstance(plain, nd.Network)
    assert {each.regularizer for each in network.plasticity} == {nd.Orthogonality(rule.strength)}
    assert {each.regularizer for each in plain.plasticity} == {None}
    weights = plain.forward[0].parameters[0]
    torch.testing.assert_close(weights @ weights.T, torch.eye(12, dtype=torch.float64))
