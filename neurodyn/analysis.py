"""What to ask of a trajectory: how far it is from backprop, and when its units spike."""

from __future__ import annotations

import math
from typing import Literal, TypeVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from neurodyn.checks import positive
from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.losses import per_sample
from neurodyn.layers.stages import Stage, evaluated, sources
from neurodyn.network.drives import ForwardValue
from neurodyn.network.network import Network
from neurodyn.network.timing import SpikeDetector
from neurodyn.simulation.trajectory import dataset, to_numpy
from neurodyn.solvers import Euler
from neurodyn.system.bound import check_network
from neurodyn.system.system import System

Errors = TypeVar("Errors", xr.DataArray, xr.Dataset)


def backprop(network: Network, inputs: Tensor, targets: Tensor) -> xr.Dataset:
    """Return the gradients ∂ℒ/∂x̄_l that backprop gives, by `torch.autograd`, labelled as the network's populations.

    Parameters
    ----------
    network
        A network with a forward pass; the populations that start from, or are clamped to, what the forward pass gives
        are those compared.
    inputs, targets
        Shape (sample, …).

    Returns
    -------
    xarray.Dataset
        One variable for each population that starts from a forward value, dimensions `sample` and its own; ∂ℒ/∂x̄ is
        that of the sample's own loss.

    Raises
    ------
    ValueError
        If the network has no forward pass, or data do not fit.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> net = nd.models.activation_relaxation.network(nd.mlp([3, 2, 2], seed=0))
    >>> exact = nd.analysis.backprop(net, torch.ones(1, 3), torch.zeros(1, 2))
    >>> dict(exact.x1.sizes)
    {'sample': 1, 'x1_unit': 2}
    """
    check_network(network)
    if not network.forward:
        raise InvalidValueError(
            f"network {network.name!r} has no forward pass, so backprop has nothing to differentiate"
        )
    with torch.no_grad():
        system = System(network, inputs, targets)

    def apply(stage: Stage, *x: Tensor) -> Tensor:
        value = stage.apply(*x)
        return value if value.requires_grad else value.requires_grad_()

    with torch.enable_grad():
        values = evaluated(sources(network.forward), inputs.detach(), apply)
        loss = per_sample(network.loss, values[network.forward[-1]], targets).sum()
        gradients = torch.autograd.grad(loss, [values[stage] for stage in network.forward], materialize_grads=True)
    by_stage = dict(zip(network.forward, gradients, strict=True))
    starts = {p.name: p.initial.stage for p in network.populations if isinstance(p.initial, ForwardValue)}
    return dataset(system, {name: to_numpy(by_stage[stage]) for name, stage in starts.items()})


def squared_distance(trajectory: xr.Dataset, reference: xr.Dataset) -> xr.Dataset:
    """Return the mean squared distance of each population to a reference, over samples and units.

    Parameters
    ----------
    trajectory
        With dimension `time`, or without.
    reference
        Without `time`; the populations that it shares with the trajectory are compared.

    Returns
    -------
    xarray.Dataset
        One variable a population, with the trajectory's remaining dimensions.

    Raises
    ------
    TypeError, ValueError
        If one is no dataset, or they share no population.

    Examples
    --------
    >>> import torch
    >>> import neurodyn as nd
    >>> net = nd.models.activation_relaxation.network(nd.mlp([3, 2, 2], seed=0))
    >>> x, t = torch.ones(1, 3), torch.zeros(1, 2)
    >>> run = nd.simulate(net, x, t, duration=20.0, save_at=2)
    >>> far = nd.analysis.squared_distance(run, nd.analysis.backprop(net, x, t))
    >>> bool(far.x1[-1] < 1e-9 * far.x1[0])
    True
    """
    for what, given in (("trajectory", trajectory), ("reference", reference)):
        if not isinstance(given, xr.Dataset):
            raise InvalidTypeError(f"{what} must be a Dataset of recorded activity, not {type(given).__name__}")
    shared = [name for name in trajectory.data_vars if name in reference.data_vars]
    if not shared:
        raise InvalidValueError("trajectory and reference share no population")
    distances = {}
    for name in shared:
        dims = [dim for dim in reference[name].dims]
        distance = ((trajectory[name] - reference[name]) ** 2).mean(dims)
        distances[name] = distance.assign_attrs(units="1", long_name=f"mean squared distance of {name}")
    return xr.Dataset(distances)


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
        now[...] = detector.step(torch.tensor(activity)).numpy()
    attributes = {"units": "1", "long_name": f"spikes of population {errors.name}"}
    return steps.copy(data=fired).drop_attrs(deep=False).assign_attrs(attributes).transpose(*errors.dims)


def _checked_steps(errors: xr.DataArray, step: float | None) -> Literal["step", "time"]:
    """Return the dimension along which the steps of inference are recorded, one after the other.

    Raises
    ------
    ValueError
        If there is none, or what is recorded are no steps of the inference declared.
    """
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
