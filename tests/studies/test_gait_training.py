"""The study of training by target propagation, at toy size."""

import gait_training as study
import matplotlib
import pytest
import torch
import tyro

import neurodyn as nd

matplotlib.use("agg")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run the study once, as its command line would."""
    out = tmp_path_factory.mktemp("gait_training")
    arguments = ["--hidden", "2", "--tower", "20", "10", "--epochs", "4", "--seeds", "1"]
    study.main(tyro.cli(study.Options, args=[*arguments, "--out", str(out)]))
    return out


def test_it_writes_what_it_promises(results):
    assert {path.name for path in results.iterdir()} == {f"gait_training.{kind}" for kind in ("png", "pdf", "nc")}
    found = nd.load(results / "gait_training.nc")
    assert found.layers.values.tolist() == ["64-64-64-64", "64-20-10"]
    assert found.test_accuracy.dims == ("network", "rule", "seed", "epoch")


def test_gait_prop_keeps_up_with_backprop_and_tp_does_not(results):
    end = nd.load(results / "gait_training.nc").test_accuracy.isel(epoch=-1, seed=0)
    wide = end.sel(network="2 hidden")
    exact = float(wide.sel(rule="BP"))
    assert exact > 75
    assert float(wide.sel(rule="GAIT-prop")) > exact - 8
    assert float(wide.sel(rule="TP, regularized")) < exact - 20


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
