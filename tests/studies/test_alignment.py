"""The study of the updates' alignment, at toy size."""

import alignment as study
import matplotlib
import numpy as np
import pytest
import tyro

import neurodyn as nd

matplotlib.use("agg")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run the study once, as its command line would."""
    out = tmp_path_factory.mktemp("alignment")
    study.main(tyro.cli(study.Options, args=["--hidden", "3", "--seeds", "4", "--out", str(out)]))
    return out


def test_it_writes_what_it_promises(results):
    expected = {f"alignment.{kind}" for kind in ("png", "pdf", "nc")} | {"scatter.nc", "rows.json"}
    assert {path.name for path in results.iterdir()} == expected
    found = nd.load(results / "alignment.nc")
    assert found.attrs["layers"] == "64-64-64-64-64"
    assert found.angle.units == "degree"


def test_gait_is_backprop_for_orthogonal_weights_and_small_gamma(results):
    found = nd.load(results / "alignment.nc").sel(weights="orthogonal", form="deviation")
    small = found.sel(rule="gait", gamma=slice(1e-4, None))
    assert float(small.distance.sel(precision="float64").max()) < 1e-6
    assert float(small.distance.sel(precision="float32").max()) < 1e-3
    others = found.angle.sel(rule=["tp", "itp"]).isel(layer=slice(None, -1))
    assert float(others.min()) > 20


def test_the_naive_form_is_rounding_error_where_the_deviation_form_is_exact(results):
    angle = nd.load(results / "alignment.nc").angle.sel(weights="orthogonal", rule="gait").isel(layer=0, seed=0)
    naive, deviation = angle.sel(form="naive"), angle.sel(form="deviation")
    assert float(naive.sel(precision="float32", gamma=1e-3)) > 45
    assert float(deviation.sel(precision="float32", gamma=1e-3)) < 1
    assert float(naive.sel(precision="float64", gamma=1e-8)) > 45
    large = {"precision": "float64", "gamma": 1e-1}
    np.testing.assert_allclose(naive.sel(large), deviation.sel(large), rtol=1e-6)


def test_every_rule_learns_the_last_layer_as_backprop_does(results):
    found = nd.load(results / "alignment.nc").sel(precision="float64", form="deviation")
    assert float(found.distance.isel(layer=-1).max()) < 1e-12


def test_the_scatter_lies_on_the_diagonal_for_orthogonal_weights(results):
    points = nd.load(results / "scatter.nc").sel(weights="orthogonal")
    gait = points.by_rule.sel(rule="gait")
    np.testing.assert_allclose(gait, points.by_backprop, rtol=0, atol=0.05)
    assert float(abs(points.by_rule.sel(rule="tp") - points.by_backprop).max()) > 1
