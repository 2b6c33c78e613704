"""Training networks of several seeds, and what they end as."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

import neurodyn as nd
from common.options import TrainingOptions
from neurodyn.layers.losses import squared_error
from neurodyn.train.learners import angles

LARGEST_WEIGHT = 1e6
"""A run with a larger weight has diverged."""

ACCURACIES = {"train_accuracy": "training accuracy", "test_accuracy": "test accuracy"}

Learning = nd.Network | nn.Module
Declare = Callable[[int], Learning]
"""A function of a seed, that returns what learns."""


def fit(
    declare: Declare,
    options: TrainingOptions,
    seeds: Sequence[int],
    *,
    data: tuple[nd.train.Data, nd.train.Data],
    metrics: Mapping[str, Callable[[Any], Any]] | None = None,
    **how: Any,
) -> tuple[xr.Dataset, list[Learning]]:
    """Train a network of each seed, all at once, and while one of them diverges in halves.

    Parameters
    ----------
    declare
        What learns.
    options
        The number of epochs, and the device.
    seeds
        Of the networks and the order of the samples.
    data
        For training and for testing.
    metrics, how
        As for `nd.train.fit`.

    Returns
    -------
    xarray.Dataset
        `train_accuracy` and `test_accuracy` in per cent and the metrics, over `seed` and `epoch`, the start included,
        where there is no training accuracy; NaN from the epoch in which a run diverged: a value ceased to be finite, or
        a weight exceeded `LARGEST_WEIGHT`.
    list
        The networks, as they ended.
    """
    networks = [declare(seed) for seed in seeds]
    measured = {"largest_weight": largest_weight, **(metrics or {})}
    try:
        history = nd.train.fit(
            networks,
            *data,
            epochs=options.epochs,
            seeds=seeds,
            device=options.device,
            metrics=measured,
            progress=not options.quiet,
            **how,
        )
    except (nd.DivergenceError, nd.train.DivergedError) as error:
        if len(seeds) > 1:
            halves = (seeds[: len(seeds) // 2], seeds[len(seeds) // 2 :])
            parts = [fit(declare, options, half, data=data, metrics=metrics, **how) for half in halves]
            return xr.concat([part for part, _ in parts], "seed"), [each for _, networks in parts for each in networks]
        if not isinstance(error, nd.train.DivergedError):
            raise
        history = error.history
    for name in set(ACCURACIES) - set(history):  # no epoch was completed
        history[name] = xr.full_like(history.largest_weight, torch.nan)
    # What a history says of one network, such as its declaration, does not hold for those that stand beside it.
    history = history[[*ACCURACIES, *measured]].reindex(epoch=range(options.epochs + 1)).drop_attrs(deep=False)
    sound = (history.largest_weight <= LARGEST_WEIGHT).astype(int).cumprod("epoch")
    history = history.where(sound).drop_vars("largest_weight")
    for name in ACCURACIES:
        history[name] = (100 * history[name]).assign_attrs(units="percent", long_name=ACCURACIES[name])
    history["epoch"].attrs = {"units": "1", "long_name": "epoch"}
    return history, networks


def parameters(learning: Learning) -> list[nn.Parameter]:
    """Return the parameters of the forward pass, layer by layer."""
    if isinstance(learning, nd.Network):
        return [parameter for stage in learning.forward for parameter in stage.parameters]
    return list(learning.parameters())


def largest_weight(learning: Learning) -> Tensor:
    """Return the largest magnitude of a parameter."""
    feedback = learning.feedback_parameters() if isinstance(learning, nd.Network) else []
    return get_total_norm([*parameters(learning), *(psi for _, psi in feedback)], torch.inf)


def distance(one: Learning, other: Learning) -> float:
    """Return Σ ‖θ − θ'‖₂ over the parameters of two networks of the same layers."""
    pairs = zip(parameters(one), parameters(other), strict=True)
    return float(sum(torch.linalg.vector_norm(a.detach() - b.detach()) for a, b in pairs))


def loss(module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return ½‖y − t‖², averaged over the batch, for automatic differentiation."""
    return squared_error(module(inputs), targets).mean()


def angle(a: Tensor, b: Tensor) -> float:
    """Return the angle between two tensors, taken as vectors, in degrees."""
    return float(angles(a.flatten()[None], b.flatten()[None]))
