"""Training predictive coding networks beside backprop, and how far from it they end: figure 3 of Song et al."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

import neurodyn as nd
from common.options import TrainingOptions
from common.training import Learning, distance, fit
from neurodyn.models import predictive_coding as pc


@dataclass(frozen=True)
class Options(TrainingOptions):
    """What the studies of divergence are asked for.

    Parameters
    ----------
    samples
        How many training samples are used; all if not given.
    hidden
        The numbers of hidden layers.
    width
        The units of a hidden layer.
    batch
        The size of a batch.
    rate
        α, for the gradient averaged over a batch. The paper's 0.001 needs its 64 epochs of MNIST to learn anything.
    """

    samples: int | None = None
    hidden: tuple[int, ...] = (1, 2, 3)
    width: int = 32
    batch: int = 20
    rate: float = 0.1
    seeds: tuple[int, ...] = (1482555873, 698841058, 2283198659)  # the paper's

    def __str__(self) -> str:
        return (
            f"{self.epochs} epochs, batches of {self.batch}, learning rate {self.rate:g}, hidden layers of "
            f"{self.width}, {len(self.seeds)} seeds"
        )

    @property
    def data(self) -> tuple[nd.train.Data, nd.train.Data]:
        """What is trained and tested on."""
        train, test = self.load()
        return train[: self.samples], test

    def draw(self, samples: int) -> tuple[Tensor, Tensor]:
        """Return the first training samples, on the device and in float64."""
        inputs, targets = self.load()[0][:samples]
        return inputs.to(self.device, torch.float64), targets.to(self.device, torch.float64)

    def sizes(self, hidden: int) -> list[int]:
        """Return the units of all layers."""
        inputs, targets = self.load()[0][0]
        return [len(inputs), *[self.width] * hidden, len(targets)]

    def logistic(self, hidden: int, seed: int) -> nn.Sequential:
        """Return a perceptron of logistic units, on the device and in float64."""
        return logistic(self.sizes(hidden), seed).to(self.device, torch.float64)


def logistic(sizes: Sequence[int], seed: int) -> nn.Sequential:
    """Return a perceptron of logistic units with the weights that the paper's setup has (Whittington and Bogacz, 2017).

    They are uniform in ±4 √(6 / (n_in + n_out)), and the biases 0, as in those authors' code (ModelDB 218084).
    """
    module = nd.mlp(sizes, activation="sigmoid", seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        if parameter.ndim == 2:
            nn.init.xavier_uniform_(parameter, gain=4.0, generator=generator)
        else:
            nn.init.zeros_(parameter)
    return module


def train(
    options: Options, hidden: int, learning: Callable[[nn.Sequential], Learning], seeds: Sequence[int]
) -> tuple[xr.DataArray, list[Learning]]:
    """Train networks by plain gradient descent, and return their test errors in per cent after each epoch, and them.

    Parameters
    ----------
    options, seeds
        Of the training.
    hidden
        How many hidden layers they have.
    learning
        What learns, of a perceptron.
    """
    history, networks = fit(
        lambda seed: learning(options.logistic(hidden, seed)),
        options,
        seeds,
        data=options.data,
        batch_size=options.batch,
        optimizer="sgd",
        learning_rate=options.rate,
    )
    return 100 - history.test_accuracy.isel(epoch=slice(1, None)), networks


def diverge(
    options: Options, hidden: int, rules: Sequence[Mapping[str, Any]], *, progress: Any = None
) -> tuple[xr.Dataset, xr.Dataset]:
    """Train networks by backprop and by each rule, alike in all else, and measure how far apart they end.

    Parameters
    ----------
    options
        What they share.
    hidden
        How many hidden layers they have.
    rules
        The options of `pc.network`, one mapping a rule.
    progress
        A bar to advance by 1 a rule.

    Returns
    -------
    xarray.Dataset
        Over `seed` and `rule`: `test_error`, |difference in test error| in percentage points, averaged over the epochs;
        `weights`, Σ ‖θ − θ_BP‖₂ over weights and biases after the last epoch; both NaN if the run `diverged`.
    xarray.Dataset
        Of backprop, over `seed`: `test_error` after each epoch, and `moved`, Σ ‖θ − θ(0)‖₂.
    """
    errors, references = train(options, hidden, lambda module: module, options.seeds)
    starts = [options.logistic(hidden, seed) for seed in options.seeds]
    found = []
    for rule in rules:
        # Networks that draw random numbers, such as noise, do not share them.
        groups = [[seed] for seed in options.seeds] if "initial_noise" in rule else [list(options.seeds)]
        runs = [train(options, hidden, lambda module: pc.network(module, **rule), seeds) for seeds in groups]  # noqa: B023
        own = xr.concat([run for run, _ in runs], "seed")
        off = map(distance, [network for _, networks in runs for network in networks], references)
        weights = xr.DataArray(list(off), dims="seed").where(own.notnull().all("epoch"))
        gap = abs(own - errors).mean("epoch", skipna=False)
        found.append(xr.Dataset({"test_error": gap, "weights": weights, "diverged": weights.isnull().astype(np.int8)}))
        if progress is not None:
            progress.update()
    moved = ("seed", [distance(*pair) for pair in zip(references, starts, strict=True)])
    results = xr.concat(found, "rule").transpose("seed", "rule")
    results["test_error"].attrs = {"units": "percentage points"}
    results["weights"].attrs = {"long_name": "Σ ‖θ − θ_BP‖ after training"}
    results["diverged"].attrs = {"long_name": "whether training diverged"}
    reference = xr.Dataset({"test_error": errors, "moved": moved})
    reference["test_error"].attrs = {"units": "%"}
    reference["moved"].attrs = {"long_name": "Σ ‖θ − θ(0)‖ of backprop"}
    return results, reference
