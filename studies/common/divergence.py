"""Training predictive coding networks beside backprop, and how far from it they end: figure 3 of Song et al."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

import neurodyn as nd
from common.options import TrainingOptions, check_samples
from common.report import number_of
from common.training import Learning, distance, fit
from neurodyn.models import predictive_coding as pc

ORDERS = 2**40
"""Larger than any seed: the orders of the samples of networks that share their first weights are this far apart."""


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

    once: ClassVar[tuple[str, ...]] = ("hidden",)

    samples: int | None = None
    hidden: tuple[int, ...] = (1, 2, 3)
    width: int = 32
    batch: int = 20
    rate: float = 0.1
    seeds: tuple[int, ...] = (1482555873, 698841058, 2283198659)  # the paper's

    def __str__(self) -> str:
        return (
            f"{self.epochs} epochs, batches of {self.batch}, learning rate {self.rate:g}, hidden layers of "
            f"{self.width}, {number_of(len(self.seeds), 'seed')}"
        )

    @property
    def data(self) -> tuple[nd.train.Data, nd.train.Data]:
        """What is trained and tested on."""
        train, test = self.load()
        if self.samples is not None:
            check_samples(self.samples, train)
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
    return descend(options, lambda seed: learning(options.logistic(hidden, base(seed))), seeds)


def base(seed: int) -> int:
    """Return the seed of the weights that goes with that of an order of the samples."""
    return seed % ORDERS


def order(seed: int, place: int) -> int:
    """Return the seed of the order of the samples, for the network at a place among those that learn at once."""
    return seed + place * ORDERS


def alike(rules: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Return groups of rules, by their place, that differ in the step alone, and in whether it exceeds 1."""
    groups: dict[Any, list[int]] = {}
    for place, rule in enumerate(rules):
        step = rule.get("step", 1.0)
        shared = {name: value for name, value in rule.items() if name != "step"}
        key = place if "initial_noise" in rule else (step > 1, str(sorted(shared.items())))
        groups.setdefault(key, []).append(place)
    return list(groups.values())


def descend(
    options: Options, declare: Callable[[int], Learning], seeds: Sequence[int]
) -> tuple[xr.DataArray, list[Learning]]:
    """Train by plain gradient descent; return the test errors in per cent after each epoch, and the networks."""
    history, networks = fit(
        declare,
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
        The options of `pc.network`, one mapping a rule. Those of `alike` learn at once.
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
    groups = alike(rules)
    orders = [order(seed, place) for place in range(max(map(len, groups))) for seed in options.seeds]
    errors, references = train(options, hidden, lambda module: module, orders)
    number = len(options.seeds)
    starts = [options.logistic(hidden, seed) for seed in options.seeds]
    found: dict[int, xr.Dataset] = {}
    for group in groups:
        runs = [(place, seed) for place in range(len(group)) for seed in range(number)]

        def declare(which: int, group: Sequence[int] = group) -> Learning:
            place, seed = divmod(orders.index(which), number)
            return pc.network(options.logistic(hidden, options.seeds[seed]), **rules[group[place]])

        # Networks that draw random numbers, such as noise, do not share them.
        apart = "initial_noise" in rules[group[0]]
        batches = [[each] for each in orders[: len(runs)]] if apart else [orders[: len(runs)]]
        parts = [descend(options, declare, batch) for batch in batches]
        own = xr.concat([errors_of for errors_of, _ in parts], "seed")
        networks = [network for _, each in parts for network in each]
        for place, rule in enumerate(group):
            mine = slice(place * number, (place + 1) * number)
            error, exact = (each.isel(seed=mine).assign_coords(seed=list(options.seeds)) for each in (own, errors))
            off = list(map(distance, networks[mine], references[mine]))
            weights = xr.DataArray(off, dims="seed").where(error.notnull().all("epoch"))
            gap = abs(error - exact).mean("epoch", skipna=False)
            parts_of = {"test_error": gap, "weights": weights, "diverged": weights.isnull().astype(np.int8)}
            found[rule] = xr.Dataset(parts_of)
            if progress is not None:
                progress.update()
    moved = ("seed", [distance(*pair) for pair in zip(references[:number], starts, strict=True)])
    errors = errors.isel(seed=slice(number)).assign_coords(seed=list(options.seeds))
    results = xr.concat([found[rule] for rule in range(len(rules))], "rule").transpose("seed", "rule")
    results["test_error"].attrs = {"units": "percentage points"}
    results["weights"].attrs = {"long_name": "Σ ‖θ − θ_BP‖ after training"}
    results["diverged"].attrs = {"long_name": "whether training diverged"}
    reference = xr.Dataset({"test_error": errors, "moved": moved})
    reference["test_error"].attrs = {"units": "%"}
    reference["moved"].attrs = {"long_name": "Σ ‖θ − θ(0)‖ of backprop"}
    return results, reference
