"""How far a trajectory is from backprop."""

from __future__ import annotations

import torch
from torch import Tensor

from neurodyn.errors import InvalidTypeError, InvalidValueError
from neurodyn.labelled import xr
from neurodyn.layers.forward import evaluated, sources
from neurodyn.layers.losses import per_sample
from neurodyn.layers.stages import Stage
from neurodyn.network.drives import ForwardValue
from neurodyn.network.network import Network
from neurodyn.simulation.trajectory import dataset, to_numpy
from neurodyn.system.bound import check_network
from neurodyn.system.system import System


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
        If one is no dataset, they share no population, or the reference lacks samples or units of the trajectory.

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
        activity, its = trajectory[name], _like(reference[name], trajectory[name])
        distance = ((activity - its) ** 2).mean(its.dims, skipna=False)
        distances[name] = distance.assign_attrs(units="1", long_name=f"mean squared distance of {name}")
    return xr.Dataset(distances)


def _like(reference: xr.DataArray, activity: xr.DataArray) -> xr.DataArray:
    """Return what of a reference some activity is compared with, sample by sample and unit by unit."""
    name = activity.name
    if foreign := [str(dim) for dim in reference.dims if dim not in activity.dims]:
        raise InvalidValueError(
            f"reference: {name} has the dimension {foreign[0]!r}, which the trajectory's has not; choose a place of "
            f"it, such as .isel({foreign[0]}=0)"
        )
    try:
        _, found = xr.align(activity, reference, join="inner")
    except ValueError as error:  # of other sizes, without labels
        raise InvalidValueError(f"reference: {name} does not fit that of the trajectory: {error}") from error
    for dim in reference.dims:
        if found.sizes[dim] != activity.sizes[dim]:
            raise InvalidValueError(
                f"reference: {name} has {found.sizes[dim]} of the {activity.sizes[dim]} labels that the trajectory has "
                f"along {dim!r}; compare what both have, or drop the labels by .drop_vars({dim!r})"
            )
    return found
