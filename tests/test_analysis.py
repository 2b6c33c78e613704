"""What is asked of a trajectory."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import neurodyn as nd
from neurodyn.models import predictive_coding as pc
from tests.problems import mlp

ACTIVITY = arrays(np.float32, (7, 2, 3), elements=st.sampled_from([0.0, 0.0, 0.0, 1.0, -2.0]))


def recorded(values, times=None) -> xr.DataArray:
    times = np.arange(len(values), dtype=float) if times is None else times
    return xr.DataArray(values, {"time": times, "sample": [0, 1]}, ("time", "sample", "e1_unit"), name="e1")


@given(ACTIVITY, st.integers(1, 8), st.permutations(["time", "sample", "e1_unit"]))
def test_spikes_follow_a_silence_as_long_as_the_window(values, window, dims) -> None:
    errors = recorded(values).transpose(*dims)
    spikes = nd.analysis.spikes(errors, window)
    assert spikes.dtype == bool
    assert spikes.dims == errors.dims
    xr.testing.assert_equal(spikes.coords.to_dataset(), errors.coords.to_dataset())
    quiet = np.concatenate([np.ones((window, 2, 3), dtype=bool), values == 0])
    expected = [(now != 0) & quiet[step : step + window].all(0) for step, now in enumerate(values)]
    np.testing.assert_array_equal(spikes.transpose("time", "sample", "e1_unit"), expected)


def test_spikes_of_all_errors_of_a_trajectory(tmp_path) -> None:
    example = mlp()
    store = tmp_path / "run.zarr"
    trajectory = nd.simulate(
        pc.network(example.module),
        example.inputs,
        example.targets,
        duration=5.0,
        solver=nd.Euler(1.0),
        record=["e1", "e2", "e3"],
        store=store,
    )
    spikes = nd.analysis.spikes(trajectory, 4)
    assert spikes.attrs == trajectory.attrs
    assert spikes.e2.attrs == {"units": "1", "long_name": "spikes of population e2"}
    for number in (1, 2, 3):
        # By time, every unit of every sample spikes once: at L − l.
        np.testing.assert_array_equal(
            spikes[f"e{number}"].mean(("sample", f"e{number}_unit")), np.arange(6) == 3 - number
        )


def test_spikes_of_what_is_held_or_empty() -> None:
    held = xr.DataArray(np.broadcast_to([0.0, 1.0], (4, 2)), dims=("time", "unit"))
    np.testing.assert_array_equal(nd.analysis.spikes(held, 2), [[False, True]] + 3 * [[False, False]])
    assert nd.analysis.spikes(held[:0], 2).shape == (0, 2)


def test_what_is_no_record_of_every_step_is_refused() -> None:
    errors = recorded(np.zeros((4, 2, 3)))
    with pytest.raises(TypeError, match="a DataArray or a Dataset of recorded activity, not ndarray"):
        nd.analysis.spikes(errors.values, 4)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="no dimension 'time', but sample, e1_unit"):
        nd.analysis.spikes(errors[0], 4)
    with pytest.raises(ValueError, match="not evenly spaced"):
        nd.analysis.spikes(recorded(np.zeros((4, 2, 3)), [0.0, 1.0, 2.0, 4.0]), 4)
    with pytest.raises(ValueError, match="window of spikes must be an integer ≥ 1, not 0"):
        nd.analysis.spikes(errors, 0)
    with pytest.raises(TypeError, match="window of spikes must be an integer ≥ 1"):
        nd.analysis.spikes(errors, 4.0)  # type: ignore[arg-type]
