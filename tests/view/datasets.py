"""What the tests look at: an inference with spikes, a run of images in two networks, a sweep's results, a history."""

import numpy as np
import torch
import xarray as xr
from torch import nn

import neurodyn as nd
from neurodyn.models import activation_relaxation as ar
from neurodyn.models import predictive_coding as pc


def inference() -> xr.Dataset:
    """Return an inference of several steps, with energy and spikes."""
    network = pc.network(nd.mlp([5, 4, 3], seed=0), learning="fa-z-il", step=0.5, steps=12)
    inputs = torch.linspace(-1, 1, 15).reshape(3, 5)
    names = [*(p.name for p in network.populations), "energy"]
    return nd.infer(network, inputs, torch.full((3, 3), 2.0), record=names)


def images() -> xr.Dataset:
    """Return the relaxations of two convolutional networks, side by side."""

    def network(seed: int) -> nd.Network:
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(3, 3)]
        return ar.network(nn.Sequential(*layers))

    inputs = torch.linspace(-1, 1, 32).reshape(2, 1, 4, 4)
    targets = torch.zeros(2, 3)
    with torch.random.fork_rng():
        networks = [network(seed) for seed in range(2)]
    return nd.simulate(networks, inputs, targets, duration=4.0, save_at=[0.0, 0.5, 1.5, 4.0])


def chosen() -> xr.Dataset:
    """Return a run of which some units are recorded, not in their order."""
    network = ar.network(nd.mlp([5, 9, 4, 3], seed=0))
    inputs = torch.linspace(-1, 1, 10).reshape(2, 5)
    record = {"x1": [7, 0, 5], "x2": None}
    return nd.simulate(network, inputs, torch.zeros(2, 3), duration=4.0, save_at=9, record=record)


def swept() -> xr.Dataset:
    """Return numbers over γ and seed, one missing, and words."""
    accuracy = np.arange(6.0).reshape(3, 2)
    accuracy[1, 1] = np.nan
    variables = {"accuracy": (("γ", "seed"), accuracy), "best": ("seed", [0.25, 0.5]), "solver": ("seed", ["a", "b"])}
    return xr.Dataset(variables, {"γ": [0.1, 0.5, 1.0], "seed": [3, 7]})


BAD = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
"""A name that would like to be HTML."""


def hostile() -> xr.Dataset:
    """Return a run in which everything is called so."""
    network = nd.Network(BAD, [nd.Population("x", 2, initial=1.0)])
    run = nd.simulate(network, None, duration=1.0, save_at=3).assign_attrs({BAD: BAD})
    run = run.assign_coords(place=("sample", [BAD])).rename({"x": BAD}).swap_dims(sample="place")
    run[BAD].attrs["long_name"] = BAD
    return run


def large(units: int = 1000, times: int = 1000) -> xr.Dataset:
    """Return noise, which does not compress, and its spikes."""
    values = np.random.default_rng(0).standard_normal((times, units)).astype(np.float32)
    parts = {"x": (("time", "x_unit"), values), "x_spikes": (("time", "x_unit"), values > 1.3)}
    return xr.Dataset(parts, {"time": np.linspace(0, 10, times)})
