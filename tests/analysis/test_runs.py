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
    spikes = nd.analysis.spikes(errors, window, step=1.0)
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
        pc.network(example.module, step=1.0),
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
    np.testing.assert_array_equal(nd.analysis.spikes(held, 2, step=1.0), [[False, True]] + 3 * [[False, False]])
    assert nd.analysis.spikes(held[:0], 2, step=1.0).shape == (0, 2)


def test_what_is_no_record_of_every_step_is_refused() -> None:
    errors = recorded(np.zeros((4, 2, 3)))
    with pytest.raises(TypeError, match="a DataArray or a Dataset of recorded activity, not ndarray"):
        nd.analysis.spikes(errors.values, 4)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="no dimension 'step' or 'time', but sample, e1_unit"):
        nd.analysis.spikes(errors[0], 4)
    with pytest.raises(ValueError, match="not evenly spaced"):
        nd.analysis.spikes(recorded(np.zeros((4, 2, 3)), [0.0, 1.0, 2.0, 4.0]), 4, step=1.0)
    with pytest.raises(ValueError, match="window of spikes must be an integer ≥ 1, not 0"):
        nd.analysis.spikes(errors, 0)
    with pytest.raises(TypeError, match="window of spikes must be an integer ≥ 1"):
        nd.analysis.spikes(errors, 4.0)  # type: ignore[arg-type]


def presented(duration: float = 4.0, **settings) -> xr.Dataset:
    example, settings = mlp(), {"solver": nd.Euler(1.0), **settings}
    network = pc.network(example.module, learning="fa-z-il", steps=4)
    return nd.simulate(network, example.inputs, example.targets, duration=duration, **settings)


def test_spikes_of_recorded_inference_are_those_of_learning(tmp_path) -> None:
    example = mlp()
    run = nd.infer(pc.network(example.module, learning="fa-z-il", steps=4), example.inputs, example.targets)
    found = nd.analysis.spikes(nd.load(nd.save(run, tmp_path / "run.nc")), 4)
    for name in ("e1", "e2", "e3"):
        np.testing.assert_array_equal(found[name], run[f"{name}_spikes"])
        np.testing.assert_array_equal(nd.analysis.spikes(presented()[name], 4), run[f"{name}_spikes"])
    xr.testing.assert_equal(found.acts, run.acts)


@pytest.mark.parametrize(
    ("errors", "arguments", "message"),
    [
        (lambda: presented(solver=nd.Adaptive()).e1, {}, "e1: it was integrated by Adaptive"),
        (lambda: presented(solver=nd.Adaptive()), {}, "was integrated by Adaptive"),
        (lambda: presented(solver=nd.Heun(1.0)).e1, {}, r"was integrated by Heun\(step=1.0\)"),
        (lambda: presented(solver=nd.Adaptive()).e1, {"step": 1.0}, "was integrated by Adaptive"),
        (lambda: presented(solver=nd.Euler(0.5)).e1, {}, "with the step 0.5, and the network declares 1"),
        (lambda: presented().e1, {"step": 0.5}, "with the step 1, and the argument says 0.5"),
        (lambda: presented(save_at=3).e1, {}, "not evenly spaced by the step 1"),
        (lambda: presented(duration=3.5).e1, {}, "not evenly spaced by the step 1"),
        (lambda: presented().e1[1:], {}, "begins at time 1"),
        (lambda: presented().e1.drop_attrs(), {}, "give step="),
        (lambda: presented().e1.drop_attrs(), {"step": 0.1}, "not evenly spaced by the step 0.1"),
        (lambda: presented().e1.drop_attrs(), {"step": -1.0}, "step of spikes must be positive"),
        (lambda: presented().e1.rename(time="step").isel(step=[0, 2]), {}, "not all from 0 on"),
    ],
)
def test_spikes_of_what_are_no_steps_of_the_inference_declared_are_refused(errors, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        nd.analysis.spikes(errors(), 4, **arguments)


def test_what_holds_no_activity_has_no_spikes() -> None:
    with pytest.raises(ValueError, match="the dataset holds no activity"):
        nd.analysis.spikes(xr.Dataset(), 2)
