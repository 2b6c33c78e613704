"""How far a trajectory is from a reference: every sample and unit counts, or what is missing is named."""

import numpy as np
import pytest
import xarray as xr

import neurodyn as nd

DIMS = ("time", "sample", "x_unit")


def activity(*sizes: int, labels: bool = True) -> xr.Dataset:
    dims = DIMS[-len(sizes) :]
    values = np.random.default_rng(0).normal(size=sizes)
    coords = {dim: np.arange(size) for dim, size in zip(dims, sizes, strict=True)} if labels else {}
    return xr.Dataset({"x": (dims, values)}, coords)


def test_units_are_compared_by_their_labels():
    run, reference = activity(3, 2, 4), activity(2, 4)
    expected = ((run.x.values - reference.x.values) ** 2).mean((1, 2))
    np.testing.assert_allclose(nd.analysis.squared_distance(run, reference).x, expected)
    turned = reference.isel(x_unit=[2, 0, 3, 1]).transpose("x_unit", "sample")
    np.testing.assert_allclose(nd.analysis.squared_distance(run, turned).x, expected)
    few = run.isel(x_unit=[3, 1])  # of which the reference has more
    expected = ((few.x.values - reference.x.values[:, [3, 1]]) ** 2).mean((1, 2))
    np.testing.assert_allclose(nd.analysis.squared_distance(few, reference).x, expected)


def test_what_is_not_a_number_is_no_distance():
    run = activity(3, 2, 4)
    run.x[1, 0, 0] = np.nan
    assert np.isnan(nd.analysis.squared_distance(run, activity(2, 4)).x).values.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("run", "reference", "message"),
    [
        (activity(3, 2, 4).isel(sample=0), activity(2, 4), r"the dimension 'sample', .* \.isel\(sample=0\)"),
        (activity(2, 4), activity(3, 2, 4), "the dimension 'time'"),
        (activity(3, 2, 4), activity(2, 3), "3 of the 4 labels that the trajectory has along 'x_unit'"),
        (activity(3, 2, 4), activity(2, 3, labels=False), "does not fit"),
    ],
)
def test_a_reference_that_lacks_what_is_compared_is_refused(run, reference, message):
    with pytest.raises(nd.NeurodynError, match=message):
        nd.analysis.squared_distance(run, reference)
