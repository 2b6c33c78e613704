"""When units spike, by the gate φ of plasticity."""

from __future__ import annotations

import math
from typing import Literal, TypeVar

import numpy as np
import torch

from neurodyn.checks import positive
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.labelled import xr
from neurodyn.network.timing import SpikeDetector
from neurodyn.solvers import Euler

Errors = TypeVar("Errors", "xr.DataArray", "xr.Dataset")


def spikes(errors: Errors, window: int, *, step: float | None = None) -> Errors:
    """Return where units spike, by the gate φ of plasticity that acts `OnSpike(window)`.

    φ(ε) = 1 where ε is not 0, having been exactly 0 at the last t_d steps; before the first step counts as 0.

    Parameters
    ----------
    errors
        The activity of a population, or of several as a Dataset, recorded from the start at every step of discrete
        inference: by `nd.infer`, with dimension `step`, or by `simulate(…, solver=Euler(γ))` with the γ that the
        network declares, with dimension `time`. Of a Dataset, what is boolean stays as it is.
    window
        t_d, in steps.
    step
        γ, in units of time, of an array over `time` whose attributes do not tell what integrated it.

    Returns
    -------
    xarray.DataArray or xarray.Dataset
        Boolean, with the dimensions and coordinates of `errors`.

    Raises
    ------
    TypeError, ValueError
        If `errors` is not labelled, no record of every step, or that of another solver or step than declared, or the
        window is no integer ≥ 1.

    References
    ----------
    Song et al., "Can the Brain Do Backpropagation?" (2020), §4.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> net = nd.models.predictive_coding.network(nd.mlp([3, 2, 2], seed=0), steps=4, step=0.5)
    >>> steps = nd.infer(net, torch.ones(1, 3), torch.zeros(1, 2))
    >>> dict(nd.analysis.spikes(steps.e1, window=2).sizes)
    {'step': 5, 'sample': 1, 'e1_unit': 2}
    """
    if isinstance(errors, xr.Dataset):
        activity = [name for name, values in errors.data_vars.items() if values.dtype != bool]
        if not activity:
            raise InvalidValueError("errors: the dataset holds no activity; record the populations that may spike")
        return errors.assign({name: spikes(errors[name], window, step=step) for name in activity})
    if not isinstance(errors, xr.DataArray):
        raise InvalidTypeError(
            f"errors must be a DataArray or a Dataset of recorded activity, not {type(errors).__name__}"
        )
    detector = SpikeDetector(window)
    dim = _checked_steps(errors, None if step is None else positive("step of spikes", step))
    steps = errors.transpose(dim, ...)
    fired = np.empty(steps.shape, dtype=bool)
    for now, activity in zip(fired, steps.to_numpy(), strict=True):
        now[...] = detector.step(torch.tensor(activity, device="cpu")).numpy()
    attributes = {"units": "1", "long_name": f"spikes of population {errors.name}"}
    return steps.copy(data=fired).drop_attrs(deep=False).assign_attrs(attributes).transpose(*errors.dims)


def _checked_steps(errors: xr.DataArray, step: float | None) -> Literal["step", "time"]:
    """Return the dimension along which the steps of inference are recorded, one after the other."""
    what = f"errors {errors.name}" if errors.name is not None else "errors"
    if "step" in errors.dims:
        if not np.array_equal(errors["step"], np.arange(errors.sizes["step"])):
            raise InvalidValueError(f"{what}: its steps are not all from 0 on; give what nd.infer recorded, whole")
        return "step"
    if "time" not in errors.dims:
        raise InvalidValueError(
            f"{what}: it has no dimension 'step' or 'time', but {', '.join(map(str, errors.dims)) or 'none'}"
        )
    times, solver = errors["time"].to_numpy(), errors.attrs.get("solver")
    if solver is not None:
        recorded, declared = errors.attrs.get("step"), errors.attrs.get("inference_step")
        if recorded is None or not str(solver).startswith(f"{Euler.__name__}("):
            raise InvalidValueError(
                f"{what}: it was integrated by {solver}, and spikes are those of discrete inference; record it by "
                "nd.infer, or by simulate(…, solver=Euler(step))"
            )
        for other, whose in ((declared, "network declares"), (step, "argument says")):
            if other is not None and not math.isclose(recorded, other):
                raise InvalidValueError(
                    f"{what}: it was integrated with the step {recorded:g}, and the {whose} {other:g}; record it by "
                    f"nd.infer, or by simulate(…, solver=Euler({other:g}))"
                )
        if times.size and times[0] != 0:
            raise InvalidValueError(f"{what}: it begins at time {times[0]:g}; give the record from time 0 on")
        step = recorded
    if step is None:
        raise InvalidValueError(
            f"{what}: its attributes do not tell by which steps it was recorded; give step=, in units of its times"
        )
    if not np.allclose(np.diff(times), step, rtol=1e-6, atol=0.0):
        raise InvalidValueError(
            f"{what}: the times are not evenly spaced by the step {step:g}; record every step, with save_at='steps'"
        )
    return "time"
