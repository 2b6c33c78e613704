"""What to ask of a trajectory: how far it is from backprop, and when its units spike."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.layers.losses import per_sample
from neurodyn.layers.stages import Source, sources
from neurodyn.network.drives import ForwardValue
from neurodyn.network.network import Network
from neurodyn.network.timing import SpikeDetector
from neurodyn.simulation.trajectory import dataset, to_numpy
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
    """
    if not network.forward:
        raise InvalidValueError(
            f"network {network.name!r} has no forward pass, so backprop has nothing to differentiate"
        )
    with torch.no_grad():
        system = System(network, inputs, targets)
    values: dict[Source, Tensor] = {"input": inputs.detach()}
    with torch.enable_grad():
        for stage, read in sources(network.forward).items():
            value = stage.apply(*(values[source] for source in read))
            values[stage] = value if value.requires_grad else value.requires_grad_()
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
    ValueError
        If they share no population.
    """
    shared = [name for name in trajectory.data_vars if name in reference.data_vars]
    if not shared:
        raise InvalidValueError("trajectory and reference share no population")
    distances = {}
    for name in shared:
        dims = [dim for dim in reference[name].dims]
        distance = ((trajectory[name] - reference[name]) ** 2).mean(dims)
        distances[name] = distance.assign_attrs(units="1", long_name=f"mean squared distance of {name}")
    return xr.Dataset(distances)


def spikes(errors: Errors, window: int) -> Errors:
    """Return where units spike, by the gate φ of plasticity that acts `OnSpike(window)`.

    φ(ε) = 1 where ε is not 0, having been exactly 0 at the last t_d steps; before the first step counts as 0.

    Parameters
    ----------
    errors
        The activity of a population, or of several as a Dataset, recorded from the start at every step of discrete
        inference, e.g. by `simulate(…, solver=Euler(1.0))`; with dimension `time`.
    window
        t_d, in steps.

    Returns
    -------
    xarray.DataArray or xarray.Dataset
        Boolean, with the dimensions and coordinates of `errors`.

    Raises
    ------
    TypeError, ValueError
        If `errors` is not labelled, or not over evenly spaced times, or the window is no integer ≥ 1.

    References
    ----------
    Song et al., "Can the Brain Do Backpropagation?" (2020), §4.
    """
    if isinstance(errors, xr.Dataset):
        return errors.assign({name: spikes(errors[name], window) for name in errors.data_vars})
    if not isinstance(errors, xr.DataArray):
        raise InvalidTypeError(
            f"errors must be a DataArray or a Dataset of recorded activity, not {type(errors).__name__}"
        )
    if "time" not in errors.dims:
        raise InvalidValueError(f"errors: it has no dimension 'time', but {', '.join(map(str, errors.dims)) or 'none'}")
    intervals = np.diff(errors["time"].values)
    if intervals.size and not np.allclose(intervals, intervals[0]):
        raise InvalidValueError("errors: the times are not evenly spaced; record every step, with save_at='steps'")
    detector = SpikeDetector(window)
    steps = errors.transpose("time", ...)
    fired = np.empty(steps.shape, dtype=bool)
    for now, activity in zip(fired, steps.to_numpy(), strict=True):
        now[...] = detector.step(torch.tensor(activity)).numpy()
    attributes = {"units": "1", "long_name": f"spikes of population {errors.name}"}
    return steps.copy(data=fired).drop_attrs(deep=False).assign_attrs(attributes).transpose(*errors.dims)
