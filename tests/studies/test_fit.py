"""How the studies train several seeds: at once, and each by itself where one diverges."""

import torch
import xarray as xr
from common.options import TrainingOptions
from common.training import fit
from torch import nn

import neurodyn as nd
from neurodyn.models import predictive_coding as pc

OPTIONS = TrainingOptions(epochs=3)
SCALES = {0: 1.0, 1: 1e3, 2: 1.0}


def module(seed: int) -> nn.Sequential:
    """Return a linear network; gradient descent on that of seed 1, with its large weights, diverges."""
    made = nd.mlp([64, 6, 10], activation="linear", seed=seed, dtype=torch.float64)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(SCALES[seed])
    return made


def trained(declare, seeds, **how) -> xr.Dataset:
    data = OPTIONS.load()
    return fit(declare, OPTIONS, seeds, data=data, optimizer="sgd", learning_rate=0.1, **how)[0]


def test_a_run_that_diverges_leaves_the_others_as_they_are_alone():
    for declare in (module, lambda seed: pc.network(module(seed), learning="z-il")):
        found = trained(declare, [0, 1, 2], metrics={"weight": lambda learning: 1.0})
        assert found.seed.values.tolist() == [0, 1, 2]
        assert found.epoch.values.tolist() == [0, 1, 2, 3]
        assert bool(found.drop_vars("train_accuracy").sel(seed=1, epoch=0).notnull().to_array().all())
        assert bool(found.sel(seed=1, epoch=slice(1, None)).isnull().to_array().all())
        for seed in (0, 2):
            alone = trained(declare, [seed], metrics={"weight": lambda learning: 1.0})
            xr.testing.assert_allclose(found.sel(seed=[seed]), alone)
            assert float(alone.test_accuracy.isel(epoch=-1).item()) > 50


def test_a_run_whose_weights_outgrow_the_limit_has_diverged():
    # One update of the biases by 10⁷ times their gradient, which stays finite.
    data = OPTIONS.load()
    found, _ = fit(lambda seed: nd.mlp([64, 10], seed=seed), OPTIONS, [0, 3], data=data, learning_rate=1e7)
    assert bool(found.test_accuracy.isel(epoch=0).notnull().all())
    assert bool(found.test_accuracy.isel(epoch=slice(1, None)).isnull().all())
