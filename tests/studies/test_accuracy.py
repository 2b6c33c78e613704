"""The study of accuracy, at toy size."""

import accuracy as study
import matplotlib
import numpy as np
import pytest
import tyro
import xarray as xr
from common.learning_curves import plus_minus

import neurodyn as nd
from tests.data.test_datasets import write_mnist

matplotlib.use("agg")
SMALL = ["--hidden", "20", "15", "--rate", "0.005", "--square-rate", "0.003"]


def run(out, *arguments: str) -> xr.Dataset:
    """Run the study, as its command line would."""
    study.main(tyro.cli(study.Options, args=[*SMALL, *arguments, "--out", str(out)]))
    return nd.load(out / "accuracy.nc")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("accuracy")
    return out, run(out, "--epochs", "6", "--seeds", "1", "2")


def test_it_writes_what_it_promises(results):
    out, found = results
    assert {path.name for path in out.iterdir() if path.is_file()} == {
        f"accuracy.{k}" for k in ("png", "pdf", "nc")
    } | {"rows.json"}
    assert found.rule.values.tolist() == list(study.RULES)
    assert found.test_accuracy.dims == ("dataset", "rule", "seed", "epoch")
    assert found.attrs["hidden"] == "20-15"
    assert bool(found.test_accuracy.notnull().all())


def test_rules_that_equal_backprop_follow_it_and_the_others_learn(results):
    _, found = results
    gap = abs(study.differences(found))
    for rule in ("ar", "z-il"):
        assert float(gap.sel(rule=rule).max()) < 1  # per cent: rounding may turn some of 360 samples
    end = found.test_accuracy.isel(epoch=-1).mean("seed").squeeze("dataset")
    assert float(end.sel(rule="backprop")) > 90
    for rule in ("ar-simplified", "gait"):
        own = study.differences(found).sel(rule=rule).isel(epoch=-1).mean()
        assert -6 < float(own) < 6
        assert float(gap.sel(rule=rule).max()) > 0


def test_the_claims_are_judged_by_what_was_measured(results):
    _, found = results
    off = found.first_update.mean("seed").squeeze("dataset")
    assert float(off.sel(rule=["ar", "z-il"]).max()) < study.EXACT < float(off.sel(rule=["il", "fa-z-il"]).min())
    said = {rule: study.verdict(found, "digits", rule) for rule in found.rule.values}
    assert said["z-il"] == said["il"] == "agrees"
    assert said["fa-z-il"].startswith("differs: its update is")
    assert said["backprop"] == "–"
    worse = found.copy(deep=True)
    worse.test_accuracy.loc[{"rule": "ar"}] = worse.test_accuracy.sel(rule="backprop") - [[[3.0], [3.1]]]
    assert study.verdict(worse, "digits", "ar") == "differs"


def test_epochs_are_counted_until_every_seed_has_the_accuracy():
    accuracy = xr.DataArray([[80.0, 90.0, 95.0], [90.0, 80.0, 97.0]], dims=("seed", "epoch"))
    assert study.epochs_to(accuracy, 90) == "1.5 ± 0.5"
    assert study.epochs_to(accuracy, 96) == "–"


def test_what_is_compared_starts_from_the_same_weights():
    options = study.Options(hidden=(9, 7))
    for rule in study.RULES.values():
        module, reference = (options.build(each, 12, 5, 3) for each in (rule, study.RULES[rule.reference]))
        network = rule.declare(module, 3)
        assert isinstance(network, nd.Network) == (rule.declare is not study.backprop)
        for a, b in zip(module.parameters(), reference.parameters(), strict=True):
            assert a.equal(b)


def test_it_goes_on_where_it_stopped(tmp_path, capsys):
    arguments = ("--rules", "backprop", "ar-simplified", "--batch", "256", "--seeds", "0", "--epochs")
    whole = run(tmp_path / "whole", *arguments, "2")
    first = run(tmp_path / "parts", *arguments, "1")
    going_on = run(tmp_path / "parts", *arguments, "2")
    xr.testing.assert_equal(going_on.drop_vars("seconds"), whole.drop_vars("seconds"))
    # What it has trained before, it has not trained again: the clock of those epochs is the same.
    np.testing.assert_array_equal(going_on.seconds.isel(epoch=slice(1)), first.seconds)
    assert "less backprop" in capsys.readouterr().out


def test_a_data_set_is_read_from_a_folder(tmp_path):
    write_mnist(tmp_path)
    found = run(tmp_path, "--dataset", "mnist", "--root", str(tmp_path), "--rules", "z-il", "--epochs", "1")
    assert found.dataset.values.tolist() == ["mnist"]
    assert bool(study.differences(found).isnull().all())  # without backprop, there is nothing to compare with


def test_a_run_that_diverges_is_shown_as_far_as_it_went(tmp_path, capsys):
    found = run(
        tmp_path, "--rules", "gait", "backprop-square", "--square-rate", "1e30", "--epochs", "2", "--seeds", "0"
    )
    assert bool(found.test_accuracy.sel(rule="gait").isnull().all())
    assert "GAIT-prop, square, regularized on digits: training diverged" in capsys.readouterr().out


def test_unknown_rules_are_refused(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(study.Options, args=["--rules", "hebb"])
    assert "hebb" in capsys.readouterr().err


def test_smaller_images_make_square_networks_narrower_in_a_checkpoint_of_their_own(tmp_path):
    found = run(tmp_path, "--pool", "2", "--epochs", "1", "--seeds", "1", "--rules", "backprop-square", "gait")
    assert bool(found.test_accuracy.notnull().all())
    options = study.Options(pool=2, seeds=(1,), hidden=(20,))
    inputs, targets = options.load("digits")[0][0]
    module = options.build(study.RULES["gait"], len(inputs), len(targets), 1)
    assert [tuple(part.shape) for part in module.parameters() if part.ndim == 2] == 2 * [(16, 16)]
    assert options.checkpoint("digits", "gait") != study.Options(seeds=(1,), hidden=(20,)).checkpoint("digits", "gait")


def test_what_the_regularizer_costs_stands_beside_what_gait_prop_comes_to(results):
    _, found = results
    (row,) = (each for each in study.rows(found) if each.claim.startswith("GAIT-prop"))
    end = found.test_accuracy.isel(epoch=-1).squeeze("dataset")
    for other, said in (("backprop-regularized", "points beside"), ("backprop-square", "beside")):
        gap = plus_minus(end.sel(rule="gait") - end.sel(rule=other), "+")
        assert f"{gap} {said} {study.RULES[other].label}, " in row.ours
